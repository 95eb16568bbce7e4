#include "shared/train/features.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/str.h"
#include "shared/graph/cuts.h"

/* ---- pairs ---- */

/* [channels, pixels] of a sample; rank below 2 or an open shape: false. */
static bool look(const struct graph *g, int v, int64_t *ret_channels, int64_t *ret_pixels)
{
    const struct value *value = g->values[v];
    if (value->constant || value->dtype != DTYPE_F32 || !value->shape_known ||
        value->shape.rank < 2)
        return false;
    *ret_channels = value->shape.dim[1];
    *ret_pixels = 1;
    for (int i = 2; i < value->shape.rank; i++)
        *ret_pixels *= value->shape.dim[i];
    return *ret_channels > 0 && *ret_pixels > 0;
}

/* The same for one sample; the batch may be open or fixed. */
static bool same_shape(const struct graph *a, int va, const struct graph *b, int vb)
{
    const struct shape *x = &a->values[va]->shape, *y = &b->values[vb]->shape;
    bool same = x->rank == y->rank;
    for (int i = 1; same && i < x->rank; i++)
        same = x->dim[i] == y->dim[i];
    return same;
}

static int unknown(const struct graph *g, const char *who, const char *name, struct arena *arena,
                   struct err *err)
{
    struct cuts cuts;
    _cleanup_(strbuf_release) struct strbuf all = {0};
    int rc = graph_cuts(g, arena, &cuts, err);
    if (rc < 0)
        return rc;
    for (int i = 1; i < cuts.n_points; i++)
        strbuf_printf(&all, "%s%s", i > 1 ? ", " : "", g->values[cuts.points[i]]->name);
    return err_set(err, ERR_NOT_FOUND, "the %s has no value '%.60s'; its cut points are %.600s",
                   who, name, all.data ? all.data : "none");
}

static int add(const struct graph *teacher, int from, const struct graph *student, int to,
               enum loss_feature_kind kind, struct feature_pairs *pairs, struct err *err)
{
    const char *a = teacher->values[from]->name, *b = student->values[to]->name;
    struct loss_features shape = {.kind = kind};
    int64_t pixels = 0;
    if (pairs->n == FEATURES_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT, "more than %d pairs of features", FEATURES_MAX);
    bool fit = look(teacher, from, &shape.parent_channels, &pixels) &&
               look(student, to, &shape.channels, &shape.pixels) && pixels == shape.pixels;
    fit = fit && (kind == FEATURE_ATTENTION || same_shape(teacher, from, student, to));
    if (!fit) {
        char x[128], y[128];
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "features: the teacher's '%.60s' is %s, the student's '%.60s' %s: %s", a,
                       shape_text(&teacher->values[from]->shape, x), b,
                       shape_text(&student->values[to]->shape, y),
                       kind == FEATURE_ATTENTION ? "maps of the same size are needed"
                                                 : "they must have the same shape");
    }
    pairs->pairs[pairs->n++] = (struct feature_pair){.teacher = a, .student = b, .shape = shape};
    return 0;
}

static int add_named(const struct graph *teacher, const struct graph *student, const char *names,
                     enum loss_feature_kind kind, struct arena *arena, struct feature_pairs *pairs,
                     struct err *err)
{
    const char *middle = strchr(names, '=');
    if (!middle || middle == names || !middle[1])
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "features: '%.60s' is no pair TEACHER=STUDENT of values", names);
    _cleanup_(freep) char *a = str_printf("%.*s", (int)(middle - names), names);
    if (!a)
        return err_oom(err, "features");
    const int from = graph_find_value(teacher, a), to = graph_find_value(student, middle + 1);
    if (from < 0)
        return unknown(teacher, "teacher", a, arena, err);
    if (to < 0)
        return unknown(student, "student", middle + 1, arena, err);
    return add(teacher, from, student, to, kind, pairs, err);
}

/* Whether point i is a map, no answer, and the last of its shape. */
static bool is_last(const struct graph *g, const struct cuts *cuts, int i)
{
    int64_t channels, pixels;
    if (i == 0 || i + 1 >= cuts->n_points || !look(g, cuts->points[i], &channels, &pixels) ||
        pixels < 2)
        return false;
    for (int k = i + 1; k < cuts->n_points; k++)
        if (same_shape(g, cuts->points[i], g, cuts->points[k]))
            return false;
    return true;
}

static int add_equal(const struct graph *teacher, const struct graph *student,
                     enum loss_feature_kind kind, struct arena *arena, struct feature_pairs *pairs,
                     struct err *err)
{
    struct cuts a, b;
    int rc = graph_cuts(teacher, arena, &a, err);
    if (rc == 0)
        rc = graph_cuts(student, arena, &b, err);
    for (int i = 0; rc == 0 && i < a.n_points; i++)
        for (int k = 0; rc == 0 && is_last(teacher, &a, i) && k < b.n_points; k++)
            if (is_last(student, &b, k) && same_shape(teacher, a.points[i], student, b.points[k]))
                rc = add(teacher, a.points[i], student, b.points[k], kind, pairs, err);
    if (rc == 0 && pairs->n == 0)
        rc = err_set(err, ERR_INVALID_ARGUMENT, "%s",
                     "features: no cut points of teacher and student have the same shape");
    return rc;
}

int feature_pairs_find(const struct graph *teacher, const struct graph *student, const char *text,
                       enum loss_feature_kind kind, struct feature_pairs *ret, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    *ret = (struct feature_pairs){0};
    if (!arena)
        return err_oom(err, "features");
    if (strcmp(text, "auto") == 0)
        return add_equal(teacher, student, kind, arena, ret, err);
    _cleanup_(freep) char *copy = str_printf("%s", text);
    char *rest = copy;
    int rc = copy ? 0 : err_oom(err, "features");
    for (const char *pair; rc == 0 && (pair = strsep(&rest, ",")) != NULL;)
        rc = add_named(teacher, student, pair, kind, arena, ret, err);
    return rc;
}

char *feature_pairs_text(const struct feature_pairs *pairs)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    for (int i = 0; i < pairs->n; i++) {
        const struct feature_pair *p = &pairs->pairs[i];
        strbuf_printf(&text, "%s%s=%s [%lld x %lld]", i ? ", " : "", p->teacher, p->student,
                      (long long)p->shape.channels, (long long)p->shape.pixels);
    }
    return text.failed ? NULL : strbuf_take(&text);
}

/* ---- the teacher, running along ---- */

struct features {
    struct plan *plan;
    int n, first;            /* pairs; the output of the first */
    void **outputs;          /* of the plan; [0, first) is room of ours */
    int place[FEATURES_MAX]; /* of each pair among the outputs */
};

struct features *features_close(struct features *f)
{
    if (!f)
        return NULL;
    for (int i = 0; f->outputs && i < f->first; i++)
        free(f->outputs[i]);
    free(f->outputs);
    plan_free(f->plan);
    free(f);
    return NULL;
}

void features_closep(struct features **f)
{
    *f = features_close(*f);
}

static int add_outputs(struct features *f, struct graph *g, const struct feature_pairs *pairs,
                       struct err *err)
{
    f->n = pairs->n;
    f->first = g->n_outputs;
    for (int i = 0; i < f->n; i++) {
        const int v = graph_find_value(g, pairs->pairs[i].teacher);
        if (v < 0)
            return err_set(err, ERR_NOT_FOUND, "the teacher has no value '%s'",
                           pairs->pairs[i].teacher);
        for (int k = 0; k < g->n_outputs; k++)
            if (g->outputs[k] == v)
                return err_set(err, ERR_INVALID_ARGUMENT,
                               "features: '%s' is an answer, or twice among the pairs",
                               pairs->pairs[i].teacher);
        f->place[i] = g->n_outputs;
        int rc = graph_add_output(g, v, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int take_room(struct features *f, struct err *err)
{
    f->outputs = mem_calloc((size_t)plan_n_outputs(f->plan), sizeof(*f->outputs));
    if (!f->outputs)
        return err_oom(err, "features");
    for (int i = 0; i < f->first; i++) {
        f->outputs[i] = mem_aligned(plan_output(f->plan, i)->bytes);
        if (!f->outputs[i])
            return err_oom(err, "features");
    }
    return 0;
}

int features_open(const struct graph *teacher, const struct feature_pairs *pairs,
                  const struct features_options *options, struct features **ret, struct err *err)
{
    _cleanup_(features_closep) struct features *f = mem_calloc(1, sizeof(*f));
    _cleanup_(graph_freep) struct graph *g = NULL;
    const struct plan_options plan = {.batch = options->batch,
                                      .threads = options->threads,
                                      .precision = options->precision,
                                      .choose_by_name = true};
    if (!f)
        return err_oom(err, "features");
    int rc = graph_clone(teacher, &g, err);
    if (rc == 0)
        rc = add_outputs(f, g, pairs, err);
    if (rc == 0)
        rc = plan_compile(g, &plan, &f->plan, err);
    if (rc == 0 && (plan_n_inputs(f->plan) != 1 ||
                    plan_input(f->plan, 0)->bytes !=
                        (size_t)(options->batch * options->sample) * sizeof(float)))
        rc = err_set(err, ERR_INVALID_ARGUMENT, "%s", "it takes other samples than the student");
    if (rc == 0)
        rc = take_room(f, err);
    if (rc < 0)
        return err_wrap(err, "teacher");
    *ret = TAKE_PTR(f);
    return 0;
}

int features_run(struct features *f, const float *x, float *const *to, struct err *err)
{
    const void *const inputs[] = {x};
    for (int i = 0; i < f->n; i++)
        f->outputs[f->place[i]] = to[i];
    return plan_run(f->plan, inputs, f->outputs, err);
}
