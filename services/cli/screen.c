#include "services/cli/screen.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <yyjson.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"

#define PLAIN_INTERVAL_NS ((int64_t)5 * 1000000000)
#define BAR 10
#define FORGET_MS 20000 /* a stage that has said nothing for so long is over */

void screen_init(struct screen *s, FILE *out, bool json)
{
    const char *term = getenv("TERM");
    bool dumb = !term || !*term || strcmp(term, "dumb") == 0;
    *s = (struct screen){.out = out, .columns = 80};
    s->mode = json ? SCREEN_JSON : isatty(fileno(out)) && !dumb ? SCREEN_TERMINAL : SCREEN_PLAIN;
}

/* ---- the block on a terminal ---- */

static void erase_block(struct screen *s)
{
    if (s->block_lines > 0)
        fprintf(s->out, "\x1b[%dA\x1b[J", s->block_lines);
    s->block_lines = 0;
}

/* Text from events may hold anything: control characters must not reach the terminal. */
static void put_line(const struct screen *s, const char *text, int limit)
{
    int n = 0;
    for (const char *p = text; *p && (limit <= 0 || n < limit); p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == 0x7f)
            c = ' ';
        fputc(c, s->out);
        n += (c & 0xc0) != 0x80;
    }
    fputc('\n', s->out);
}

/* "3", "1.5", "12000": as many digits as people read. */
static const char *number_text(double value, char text[32])
{
    bool whole = value >= 100 || value == (double)(int64_t)value;
    snprintf(text, 32, whole ? "%.0f" : value >= 10 ? "%.1f" : "%.2f", value);
    return text;
}

/* On a terminal a bar, in plain lines the numbers behind it: 80 columns hold one of them. */
static void describe_stage(const struct screen_stage *g, bool bar, struct strbuf *line)
{
    char done[32], total[32], fill[BAR + 1];
    double share = g->total > 0 ? g->done / g->total : 0;
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    strbuf_printf(line, "  %-28s ", g->name);
    if (bar && g->total > 0) {
        memset(fill, '.', BAR);
        memset(fill, '#', (size_t)(share * BAR));
        fill[BAR] = 0;
        strbuf_printf(line, "[%s] %3.0f %%", fill, 100 * share);
    } else if (g->total > 0) {
        strbuf_printf(line, "%3.0f %%  %s/%s %s", 100 * share, number_text(g->done, done),
                      number_text(g->total, total), g->unit);
    } else {
        strbuf_printf(line, "%s %s", number_text(g->done, done), g->unit);
    }
    if (*g->learned)
        strbuf_printf(line, "  %s", g->learned);
    if (g->rate > 0 && strcmp(g->unit, "s") != 0 && !(bar && *g->learned))
        strbuf_printf(line, "  %s %s/s", number_text(g->rate, done), g->unit);
    if (g->eta_s > 0)
        strbuf_printf(line, "  %s left", str_seconds(g->eta_s, done));
}

static void draw_block(struct screen *s)
{
    struct winsize size;
    if (ioctl(fileno(s->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
        s->columns = size.ws_col;
    for (int i = 0; i < s->n_stages; i++) {
        _cleanup_(strbuf_release) struct strbuf line = {0};
        describe_stage(&s->stages[i], true, &line);
        put_line(s, line.failed ? "" : line.data, s->columns - 1);
        s->block_lines++;
    }
    if (*s->best) {
        _cleanup_(freep) char *line = str_printf("  %-28s %s", "best so far", s->best);
        put_line(s, line ? line : "", s->columns - 1);
        s->block_lines++;
    }
    fflush(s->out);
}

/* A line that stays. */
static void say(struct screen *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct screen *s, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    erase_block(s);
    put_line(s, text, 0);
}

/* ---- stages ---- */

static const char *text_of(yyjson_val *event, const char *key)
{
    const char *text = yyjson_get_str(yyjson_obj_get(event, key));
    return text ? text : "";
}

static bool is_type(yyjson_val *event, const char *type)
{
    return strcmp(text_of(event, "type"), type) == 0;
}

static double number_of(yyjson_val *event, const char *key)
{
    return yyjson_get_num(yyjson_obj_get(event, key));
}

static void remove_stage(struct screen *s, int i)
{
    memmove(&s->stages[i], &s->stages[i + 1], (size_t)(s->n_stages - i - 1) * sizeof(s->stages[0]));
    s->n_stages--;
}

/* What this event's task was at before, and what says nothing any more. */
static void forget_stages(struct screen *s, yyjson_val *event)
{
    int64_t now_ms = (int64_t)number_of(event, "time_ms");
    for (int i = s->n_stages - 1; i >= 0; i--)
        if (strcmp(s->stages[i].task, text_of(event, "task")) == 0 ||
            now_ms - s->stages[i].last_ms > FORGET_MS)
            remove_stage(s, i);
}

static struct screen_stage *stage_of(struct screen *s, yyjson_val *event)
{
    struct screen_stage fresh = {.shown_ns = s->now_ns};
    str_copy(fresh.task, sizeof(fresh.task), text_of(event, "task"));
    for (int i = 0; i < s->n_stages; i++)
        if (strcmp(s->stages[i].task, fresh.task) == 0 &&
            strcmp(s->stages[i].name, text_of(event, "stage")) == 0)
            return &s->stages[i];
    forget_stages(s, event);
    str_copy(fresh.name, sizeof(fresh.name), text_of(event, "stage"));
    str_copy(fresh.unit, sizeof(fresh.unit), text_of(event, "unit"));
    fresh.first_ms = fresh.last_ms = (int64_t)number_of(event, "time_ms");
    if (s->n_stages == SCREEN_STAGES)
        remove_stage(s, 0);
    s->stages[s->n_stages] = fresh;
    return &s->stages[s->n_stages++];
}

static void stage_done(struct screen *s, struct screen_stage *g)
{
    char total[32], took[32];
    bool long_enough = g->last_ms > g->first_ms;
    say(s, "  %-28s done: %s%s%s%s%s", g->name, number_text(g->total, total), *g->unit ? " " : "",
        g->unit, long_enough ? " in " : "",
        long_enough ? str_seconds((double)(g->last_ms - g->first_ms) / 1000, took) : "");
    remove_stage(s, (int)(g - s->stages));
}

/* Of training: "epoch 3/80 loss 1.204 45.1 %". */
static void describe_learning(yyjson_val *event, char *to, size_t size)
{
    *to = 0;
    if (!yyjson_obj_get(event, "epoch"))
        return;
    int n = snprintf(to, size, "epoch %.0f/%.0f loss %.4g", number_of(event, "epoch"),
                     number_of(event, "epochs"), number_of(event, "loss"));
    if (yyjson_obj_get(event, "accuracy") && n > 0 && (size_t)n < size)
        snprintf(to + n, size - (size_t)n, " %.1f %%", 100 * number_of(event, "accuracy"));
}

static void on_progress(struct screen *s, yyjson_val *event)
{
    struct screen_stage *g = stage_of(s, event);
    g->done = number_of(event, "done");
    g->total = number_of(event, "total");
    g->rate = number_of(event, "rate");
    g->eta_s = number_of(event, "eta_s");
    g->last_ms = (int64_t)number_of(event, "time_ms");
    describe_learning(event, g->learned, sizeof(g->learned));
    if (g->total > 0 && g->done >= g->total) {
        stage_done(s, g);
    } else if (s->mode == SCREEN_PLAIN && s->now_ns - g->shown_ns >= PLAIN_INTERVAL_NS) {
        _cleanup_(strbuf_release) struct strbuf line = {0};
        describe_stage(g, false, &line);
        g->shown_ns = s->now_ns;
        if (!line.failed)
            put_line(s, line.data, 0);
    }
}

/* ---- other events ---- */

/* A student's drop is not known before it is proved. */
static void describe_accuracy(yyjson_val *event, struct strbuf *line)
{
    if (!yyjson_obj_get(event, "value"))
        return;
    strbuf_printf(line, ", %s %.2f %% (", text_of(event, "metric"),
                  100 * number_of(event, "value"));
    if (yyjson_obj_get(event, "drop_points"))
        strbuf_printf(line, "drop %.2f, ", number_of(event, "drop_points"));
    strbuf_printf(line, "%s part)", text_of(event, "part"));
}

static void on_best(struct screen *s, yyjson_val *event)
{
    struct strbuf line = {0};
    char size[32];
    const double images = number_of(event, "images_per_s"); /* where throughput is wanted */
    strbuf_printf(&line, "%s: ", text_of(event, "name"));
    if (number_of(event, "packed_bytes") > 0) /* where size is */
        strbuf_printf(&line, "%s packed, ", str_bytes(number_of(event, "packed_bytes"), size));
    strbuf_printf(&line, "%.0f %s, %.2fx the original",
                  images > 0 ? images : number_of(event, "p50_us"), images > 0 ? "images/s" : "us",
                  number_of(event, "speedup_fp32"));
    describe_accuracy(event, &line);
    if (!line.failed)
        str_copy(s->best, sizeof(s->best), line.data);
    strbuf_release(&line);
    if (s->mode == SCREEN_PLAIN)
        say(s, "  %-28s %s", "best so far", s->best);
}

static void on_baseline(struct screen *s, yyjson_val *event)
{
    say(s, "  %-28s %s %.2f %% on %.0f samples, %.1f M MACs, %.3f M parameters", "original",
        text_of(event, "metric"), 100 * number_of(event, "value"), number_of(event, "n"),
        number_of(event, "macs") / 1e6, number_of(event, "parameters") / 1e6);
}

static void on_preprocess(struct screen *s, yyjson_val *event)
{
    say(s, "  %-28s %s, by %s (%.3f; the next best %.3f): --preprocess '%s'", "preprocessing",
        text_of(event, "name"), text_of(event, "by"), number_of(event, "score"),
        number_of(event, "next"), text_of(event, "text"));
}

static void on_model(struct screen *s, yyjson_val *event)
{
    say(s, "  %-28s median error %.1f %% on %.0f assembled networks", "latency model",
        100 * number_of(event, "median_error"), number_of(event, "networks"));
}

static void on_reused(struct screen *s, yyjson_val *event)
{
    const char *what = *text_of(event, "what") ? text_of(event, "what") : text_of(event, "kind");
    say(s, "  %-28s %s: an earlier job had done it", "reused", what);
}

/* A job that goes on has reached something. */
static void on_result(struct screen *s, yyjson_val *event)
{
    say(s, "  %-28s %s", "result so far", text_of(event, "verdict"));
}

static void on_blocks(struct screen *s, yyjson_val *event)
{
    char took[32];
    say(s, "  %-28s %.0f alternatives are faster; each learns from up to %.0f samples, about %s",
        "blocks", number_of(event, "alternatives"), number_of(event, "samples"),
        str_seconds(number_of(event, "seconds"), took));
}

static void on_rung(struct screen *s, yyjson_val *event)
{
    char took[32], left[32];
    char name[32];
    snprintf(name, sizeof(name), "rung %.0f", number_of(event, "rung"));
    say(s, "  %-28s students: %.0f, %.0f epochs each, about %s; the job: about %s", name,
        number_of(event, "students"), number_of(event, "epochs"),
        str_seconds(number_of(event, "seconds"), took),
        str_seconds(number_of(event, "left_s"), left));
}

static void on_refines(struct screen *s, yyjson_val *event)
{
    char learned[32], took[32], prepared[64] = "";
    if (number_of(event, "prepared_s") > 0)
        snprintf(prepared, sizeof(prepared), ", all that took %s to prepare",
                 str_seconds(number_of(event, "prepared_s"), took));
    say(s, "  %-28s taken over: %.0f students after %s of training%s", text_of(event, "job"),
        number_of(event, "students"), str_seconds(number_of(event, "training_s"), learned),
        prepared);
}

static void on_enrolled(struct screen *s, yyjson_val *event)
{
    say(s, "  %-28s about %.0f us, %.1f M MACs, %.2f M parameters: %s", text_of(event, "name"),
        number_of(event, "predicted_us"), number_of(event, "macs") / 1e6,
        number_of(event, "parameters") / 1e6, text_of(event, "design"));
}

static void on_student(struct screen *s, yyjson_val *event)
{
    say(s, "  %-28s %.2f %% (%.2f %% expected), about %.0f us, %s: %s", text_of(event, "name"),
        100 * number_of(event, "value"), 100 * number_of(event, "predicted"),
        number_of(event, "predicted_us"),
        yyjson_is_true(yyjson_obj_get(event, "goes_on")) ? "goes on" : "stops here",
        text_of(event, "design"));
}

/* What follows says it: progress that goes on, the table of results. */
static void on_silent(struct screen *s, yyjson_val *event)
{
    (void)s, (void)event;
}

static bool is_origin(const char *key)
{
    static const char *const keys[] = {"type", "service", "kind", "task", "time_ms", "artifact"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

/* Any other event: its type and what it says, as it stands. */
static void on_other(struct screen *s, yyjson_val *event)
{
    struct strbuf line = {0};
    yyjson_obj_iter it = yyjson_obj_iter_with(event);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&it)) != NULL;) {
        const char *name = yyjson_get_str(key);
        yyjson_val *value = yyjson_obj_iter_get_val(key);
        if (is_origin(name))
            continue;
        bool plain = strcmp(name, "text") == 0 || strcmp(name, "what") == 0 ||
                     strcmp(name, "error") == 0 || strcmp(name, "reason") == 0;
        strbuf_add(&line, line.length ? ", " : "");
        if (!plain)
            strbuf_printf(&line, "%s ", name);
        char *text = yyjson_is_str(value) ? NULL : yyjson_val_write(value, 0, NULL);
        strbuf_add(&line, text ? text : yyjson_is_str(value) ? yyjson_get_str(value) : "?");
        free(text);
    }
    if (!line.failed)
        say(s, "  %-28s %s", text_of(event, "type"), line.data ? line.data : "");
    strbuf_release(&line);
}

static void show(struct screen *s, yyjson_val *event)
{
    static const struct {
        const char *type;
        void (*show)(struct screen *, yyjson_val *);
    } known[] = {{"progress", on_progress}, {"best", on_best},        {"baseline", on_baseline},
                 {"model", on_model},       {"reused", on_reused},    {"preprocess", on_preprocess},
                 {"resumed", on_silent},    {"succeeded", on_silent}, {"epoch", on_silent},
                 {"result", on_result},     {"rung", on_rung},        {"enrolled", on_enrolled},
                 {"blocks", on_blocks},     {"refines", on_refines},  {"student", on_student}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (is_type(event, known[i].type)) {
            known[i].show(s, event);
            return;
        }
    if (is_type(event, "retried") || is_type(event, "dead"))
        forget_stages(s, event); /* what the task was at begins again, or never */
    on_other(s, event);
}

void screen_event(struct screen *s, const char *json)
{
    if (s->mode == SCREEN_JSON) {
        fprintf(s->out, "%s\n", json);
        fflush(s->out);
        return;
    }
    yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
    yyjson_val *event = yyjson_doc_get_root(doc);
    if (yyjson_is_obj(event))
        show(s, event);
    else
        say(s, "  %s", json);
    yyjson_doc_free(doc);
    if (s->mode == SCREEN_TERMINAL) {
        erase_block(s);
        draw_block(s);
    }
    fflush(s->out);
}

void screen_close(struct screen *s)
{
    if (s->mode == SCREEN_TERMINAL)
        erase_block(s);
    fflush(s->out);
}
