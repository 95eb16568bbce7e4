/* The front: accuracy against latency, or size where that is the objective, of all that was tried.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/exporter/report_parts.h"
#include "shared/work/goal.h"

/* ---- points ---- */

/* What a network is in the story. */
enum kind { ORIGINAL, FINAL, CANDIDATE, STUDENT };

struct point {
    const char *name;
    enum kind kind;
    double us, bytes;   /* bytes: of students not known */
    bool measured;      /* else us is predicted by the additive model */
    double drop, upper; /* points against the original; the same where there is no bound */
    const char *part;   /* of the data, that the drop is of */
    bool within_limit;
};

struct points {
    size_t n;
    struct point *list;
};

static bool is_final(const struct report *r, const job_network *n)
{
    for (size_t i = 0; i < r->state->n_finals; i++)
        if (strcmp(r->state->finals[i]->name, n->name) == 0)
            return true;
    return false;
}

static void add_measured(struct points *p, const job_network *n, struct point point)
{
    const Hone__V1__Timing *t = state_timing(n, "hone", NULL);
    if (!t || !isfinite(point.drop))
        return;
    point.us = t->p50_us;
    point.bytes = goal_bytes(n);
    point.measured = true;
    p->list[p->n++] = point;
}

/* Candidates that were no finals have their drop from the search part only. */
static void add_candidate(const struct report *r, struct points *p, const job_network *n)
{
    double upper95;
    const double drop = state_expected_drop(r->state, n, &upper95);
    if (!is_final(r, n))
        add_measured(
            p, n,
            (struct point){
                .name = n->name, .kind = CANDIDATE, .drop = drop, .upper = drop, .part = "search"});
}

static bool was_built(const struct report *r, const Hone__V1__Student *student)
{
    for (size_t i = 0; i < r->state->n_candidates; i++)
        if (strcmp(r->state->candidates[i]->design, student->design) == 0)
            return true;
    return false;
}

/* One that was trained and no more: as far as it came. */
static void add_student(const struct report *r, struct points *p, const Hone__V1__Student *student)
{
    const Hone__V1__Accuracy *original = state_accuracy(r->state->baseline, "test", "hone");
    if (student->n_accuracies == 0 || student->predicted_us <= 0 || was_built(r, student) ||
        (report_labelled(r) && !original))
        return;
    const double base = report_labelled(r) ? original->value : 1;
    double best = NAN;
    for (size_t i = 0; i < student->n_accuracies; i++)
        best = fmax(best, student->accuracies[i]);
    const double drop = 100 * (base - best + state_optimism(r->state));
    if (isfinite(drop))
        p->list[p->n++] = (struct point){.name = student->name,
                                         .kind = STUDENT,
                                         .us = student->predicted_us,
                                         .drop = drop,
                                         .upper = drop,
                                         .part = "search"};
}

/* In the order in which they are drawn: what was proved last. */
static struct points all_points(const struct report *r)
{
    const job_state *s = r->state;
    struct points p = {
        .list = mem_calloc(s->n_students + s->n_candidates + s->n_finals + 2, sizeof(*p.list))};
    if (!p.list)
        return p;
    for (size_t i = 0; i < s->n_students; i++)
        add_student(r, &p, s->students[i]);
    for (size_t i = 0; i < s->n_candidates; i++)
        add_candidate(r, &p, s->candidates[i]);
    add_candidate(r, &p, s->plain_int8);
    add_measured(&p, s->baseline,
                 (struct point){.name = "original", .part = "test", .within_limit = true});
    for (size_t i = 0; i < s->n_finals; i++) {
        const job_network *n = s->finals[i];
        add_measured(&p, n,
                     (struct point){.name = n->name,
                                    .kind = FINAL,
                                    .drop = n->drop_points,
                                    .upper = n->drop_upper95_points,
                                    .part = "test",
                                    .within_limit = n->within_limit});
    }
    return p;
}

/* Microseconds, or KB. */
static double cost_of(const struct report *r, const struct point *point)
{
    return goal_small(r->state->spec) ? point->bytes / 1e3 : point->us;
}

/* No proved network costs less and loses less. */
static bool on_front(const struct report *r, const struct points *p, const struct point *point)
{
    const double cost = cost_of(r, point);
    for (size_t i = 0; i < p->n; i++) {
        const struct point *other = &p->list[i];
        const double others = cost_of(r, other);
        if (other->kind <= FINAL && others <= cost && other->drop <= point->drop &&
            (others < cost || other->drop < point->drop))
            return false;
    }
    return point->kind <= FINAL;
}

/* ---- the picture ---- */

#define PLOT_W 900.0
#define PLOT_H 340.0
#define LEFT 60.0
#define RIGHT 30.0
#define TOP 20.0
#define BOTTOM 46.0

struct plot {
    const struct report *report;
    double max_cost, min_drop, max_drop;
};

static double plot_x(const struct plot *p, double cost)
{
    return LEFT + (PLOT_W - LEFT - RIGHT) * cost / p->max_cost;
}

static double plot_y(const struct plot *p, double drop)
{
    return TOP + (PLOT_H - TOP - BOTTOM) * (drop - p->min_drop) / (p->max_drop - p->min_drop);
}

static double nice_step(double span, int ticks)
{
    double raw = span / ticks, unit = pow(10, floor(log10(raw)));
    double f = raw / unit;
    return unit * (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10);
}

static double mark_x(const struct plot *p, const struct point *point)
{
    return plot_x(p, cost_of(p->report, point));
}

/* Points; INFINITY: any drop will do. */
static double drop_limit(const struct report *r)
{
    const Hone__V1__JobSpec *spec = r->state->spec;
    return goal_turned(spec) && spec->max_drop >= GOAL_ANY_DROP ? INFINITY : spec->max_drop;
}

/* Students at their beginning lose so much that beside them nothing else could be told apart. */
static bool is_shown(const struct report *r, const struct point *point)
{
    const double limit = drop_limit(r), most = isfinite(limit) ? fmax(5, 4 * limit) : 10;
    return isfinite(cost_of(r, point)) && cost_of(r, point) > 0 &&
           (point->kind != STUDENT || point->drop <= most);
}

static struct plot plot_of(const struct report *r, const struct points *points)
{
    const double limit = isfinite(drop_limit(r)) ? drop_limit(r) : 1;
    struct plot p = {.report = r,
                     .min_drop = -0.2 * (limit > 0.5 ? limit : 0.5),
                     .max_drop = 1.15 * limit + 0.1};
    for (size_t i = 0; i < points->n; i++) {
        const struct point *point = &points->list[i];
        if (!is_shown(r, point))
            continue;
        p.max_cost = fmax(p.max_cost, cost_of(r, point));
        p.max_drop = fmax(p.max_drop, point->upper + 0.05);
        p.min_drop = fmin(p.min_drop, point->drop - 0.05);
    }
    p.max_cost *= 1.05;
    return p;
}

static void plot_axes(const struct plot *p, const struct report *r, struct strbuf *out)
{
    double step = nice_step(p->max_cost, 6);
    for (double cost = 0; cost <= p->max_cost; cost += step) {
        double x = plot_x(p, cost);
        strbuf_printf(out,
                      "<line class=grid x1=%.1f y1=%.1f x2=%.1f y2=%.1f /><text class=label x=%.1f "
                      "y=%.1f text-anchor=middle>%g</text>",
                      x, TOP, x, PLOT_H - BOTTOM, x, PLOT_H - BOTTOM + 16, cost);
    }
    step = nice_step(p->max_drop - p->min_drop, 5);
    for (double d = ceil(p->min_drop / step) * step; d <= p->max_drop + 1e-9; d += step) {
        double y = plot_y(p, d);
        strbuf_printf(out,
                      "<line class=grid x1=%.1f y1=%.1f x2=%.1f y2=%.1f /><text class=label x=%.1f "
                      "y=%.1f text-anchor=end>%.2f</text>",
                      LEFT, y, PLOT_W - RIGHT, y, LEFT - 8, y + 4, fabs(d) < 1e-9 ? 0 : -d);
    }
    const double limit = isfinite(drop_limit(r)) ? plot_y(p, drop_limit(r)) : 0;
    if (isfinite(drop_limit(r)))
        strbuf_printf(out,
                      "<line class=limit x1=%.1f y1=%.1f x2=%.1f y2=%.1f /><text class=limit-text "
                      "x=%.1f y=%.1f text-anchor=end>limit: %.2f points lost</text>",
                      LEFT, limit, PLOT_W - RIGHT, limit, PLOT_W - RIGHT, limit - 5, drop_limit(r));
    strbuf_printf(out,
                  "<text class=label x=%.1f y=%.1f text-anchor=middle>%s</text>"
                  "<text class=label transform='translate(14 %.1f) rotate(-90)' "
                  "text-anchor=middle>points against the original</text>",
                  (LEFT + PLOT_W - RIGHT) / 2, PLOT_H - 8,
                  goal_small(r->state->spec) ? "smallest file, KB" : "median latency, microseconds",
                  (TOP + PLOT_H - BOTTOM) / 2);
}

static const char *color_of(const struct point *point)
{
    if (point->kind == FINAL)
        return point->within_limit ? "good" : "bad";
    return point->kind == ORIGINAL ? "accent" : point->kind == STUDENT ? "bf16" : "fp32";
}

/* ---- names beside the marks, where there is room ---- */

#define NAME_H 13.0
#define LETTER_W 7.2

struct box {
    double left, top, right, bottom;
};

struct names {
    struct box *taken; /* by marks and by names */
    size_t n;
};

static struct box mark_box(const struct plot *p, const struct point *point)
{
    const double x = mark_x(p, point), y = plot_y(p, point->drop);
    const double r = point->kind == STUDENT ? 4 : 7;
    return (struct box){x - r, y - r, x + r, y + r};
}

static bool is_free(const struct names *names, const struct box *b)
{
    bool room = b->left > LEFT && b->right < PLOT_W && b->top > 0 && b->bottom < PLOT_H - BOTTOM;
    for (size_t i = 0; room && i < names->n; i++) {
        const struct box *o = &names->taken[i];
        room = b->right < o->left || b->left > o->right || b->bottom < o->top || b->top > o->bottom;
    }
    return room;
}

/* To the right, to the left, above, below, and further above and below; where all is taken the
 * mark's title has the name. */
static bool find_room(struct names *names, double x, double y, const char *name, struct box *ret)
{
    const double w = LETTER_W * (double)strlen(name), half = NAME_H / 2;
    const double at[][2] = {{x + 10, y - half},          {x - 10 - w, y - half},
                            {x - w / 2, y - 9 - NAME_H}, {x - w / 2, y + 9},
                            {x + 10, y - 2 * NAME_H},    {x + 10, y + NAME_H},
                            {x - 10 - w, y + NAME_H},    {x - 10 - w, y - 2 * NAME_H}};
    for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++) {
        *ret = (struct box){at[i][0], at[i][1], at[i][0] + w, at[i][1] + NAME_H};
        if (is_free(names, ret)) {
            names->taken[names->n++] = *ret;
            return true;
        }
    }
    return false;
}

static void plot_name(const struct plot *p, const struct point *point, struct names *names,
                      struct strbuf *out)
{
    struct box box;
    if (!find_room(names, mark_x(p, point), plot_y(p, point->drop), point->name, &box))
        return;
    strbuf_printf(out, "<text x=%.1f y=%.1f>", box.left, box.bottom - 3);
    report_escaped(out, point->name);
    strbuf_add(out, "</text>");
}

/* Those that were proved first. */
static void plot_names(const struct report *r, const struct plot *p, const struct points *points,
                       struct strbuf *out)
{
    struct names names = {.taken = mem_calloc(2 * points->n + 1, sizeof(*names.taken))};
    if (!names.taken)
        return;
    for (size_t i = 0; i < points->n; i++)
        if (is_shown(r, &points->list[i]))
            names.taken[names.n++] = mark_box(p, &points->list[i]);
    for (int kind = ORIGINAL; kind < STUDENT; kind++)
        for (size_t i = 0; i < points->n; i++)
            if ((int)points->list[i].kind == kind && is_shown(r, &points->list[i]))
                plot_name(p, &points->list[i], &names, out);
    free(names.taken);
}

/* ---- marks ---- */

static void plot_mark(const struct plot *p, const struct point *point, struct strbuf *out)
{
    const char *color = color_of(point);
    const double x = mark_x(p, point), y = plot_y(p, point->drop);
    const bool solid = point->kind <= FINAL;
    if (point->upper > point->drop)
        strbuf_printf(out,
                      "<line style='stroke:var(--%s)' stroke-width=2 x1=%.1f y1=%.1f x2=%.1f "
                      "y2=%.1f />",
                      color, x, y, x, plot_y(p, point->upper));
    strbuf_printf(out,
                  "<circle cx=%.1f cy=%.1f r=%d style='stroke:var(--%s);fill:%s%s%s' "
                  "stroke-width=2><title>",
                  x, y, point->kind == STUDENT ? 3 : 6, color, solid ? "var(--" : "none",
                  solid ? color : "", solid ? ")" : "");
    report_escaped(out, point->name);
    strbuf_printf(out, ": %.1f us%s, %.2f points</title></circle>", point->us,
                  point->measured ? "" : " predicted", point->drop);
}

/* From the fastest to the most accurate of those that were proved. */
static void plot_front(const struct plot *p, const struct points *points, struct strbuf *out)
{
    const struct report *r = p->report;
    strbuf_add(out, "<polyline class=front points='");
    double after = -1;
    for (;;) {
        const struct point *next = NULL;
        for (size_t i = 0; i < points->n; i++) {
            const struct point *point = &points->list[i];
            const double cost = cost_of(r, point);
            if (cost > after && on_front(r, points, point) && (!next || cost < cost_of(r, next)))
                next = point;
        }
        if (!next)
            break;
        after = cost_of(r, next);
        strbuf_printf(out, "%.1f,%.1f ", mark_x(p, next), plot_y(p, next->drop));
    }
    strbuf_add(out, "'></polyline>");
}

static void explain(const struct report *r, const struct points *points, struct strbuf *out)
{
    size_t students = 0, hidden = 0;
    for (size_t i = 0; i < points->n; i++) {
        students += points->list[i].kind == STUDENT;
        hidden += !is_shown(r, &points->list[i]);
    }
    strbuf_add(out,
               "</svg><p class=soft>Up and left is better. Filled: proved on the test part, the "
               "bar reaches down to the 95 % bound; the line joins those that no other beats "
               "in both. Hollow: candidates that were not proved, with their drop on the "
               "search part.");
    if (students > 0 && !goal_small(r->state->spec))
        strbuf_printf(out,
                      " Small: students as far as they were trained, at the latency that was "
                      "predicted (%zu; %zu of them, that lose more than is drawn, left out).",
                      students, hidden);
    strbuf_add(out, "</p></section>");
}

void report_front_html(const struct report *r, struct strbuf *out)
{
    struct points points = all_points(r);
    const struct plot p = plot_of(r, &points);
    if (p.max_cost > 0) {
        strbuf_printf(out,
                      "<section><h2>%s against %s</h2><svg viewBox='0 0 %.0f %.0f' role=img "
                      "aria-label='the front'>",
                      report_labelled(r) ? "Accuracy" : "Fidelity",
                      goal_small(r->state->spec) ? "size" : "latency", PLOT_W, PLOT_H);
        plot_axes(&p, r, out);
        plot_front(&p, &points, out);
        for (size_t i = 0; i < points.n; i++)
            if (is_shown(r, &points.list[i]))
                plot_mark(&p, &points.list[i], out);
        plot_names(r, &p, &points, out);
        explain(r, &points, out);
    }
    free(points.list);
}

/* ---- result.json ---- */

void report_front_json(const struct report *r, yyjson_mut_doc *d, yyjson_mut_val *root)
{
    static const char *const kinds[] = {"original", "final", "candidate", "student"};
    struct points points = all_points(r);
    yyjson_mut_val *front = yyjson_mut_obj_add_arr(d, root, "front");
    for (size_t i = 0; i < points.n; i++) {
        const struct point *point = &points.list[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, front);
        yyjson_mut_obj_add_strcpy(d, o, "name", point->name);
        yyjson_mut_obj_add_str(d, o, "kind", kinds[point->kind]);
        report_number(d, o, "us", point->us, 2);
        yyjson_mut_obj_add_bool(d, o, "measured", point->measured);
        if (point->bytes > 0)
            yyjson_mut_obj_add_uint(d, o, "bytes", (uint64_t)point->bytes);
        report_number(d, o, "drop_points", point->drop, 4);
        yyjson_mut_obj_add_str(d, o, "part", point->part);
        yyjson_mut_obj_add_bool(d, o, "on_front", on_front(r, &points, point));
    }
    free(points.list);
}
