#include "services/synthesizer/activity.h"

#include <math.h>
#include <stdlib.h>

#include "shared/data/preprocess.h"
#include "shared/graph/infer.h"
#include "shared/nn/quantize_stream.h"

#define SAMPLES 128
#define SEED_SALT 0x616374u /* keeps this choice of samples apart from others */

struct watched {
    int value;
    int64_t channels, pixels;
    double *sums; /* [pieces, channels]: added up piece by piece, so that sums are the same */
};

struct watching {
    struct graph *g; /* whose outputs are the watched values */
    int n;
    struct watched *list;
    int64_t piece;
    infer_fill *fill;
    void *ctx;
};

static void watching_release(struct watching *w)
{
    graph_free(w->g);
}

static bool is_map(const struct graph *g, int v)
{
    const struct value *value = v >= 0 ? g->values[v] : NULL;
    return value && !value->constant && value->dtype == DTYPE_F32 && value->shape_known &&
           value->shape.rank == 4 && value->producer >= 0 &&
           shape_elements_at(&value->shape, 1) > 0;
}

static bool is_watched(const struct watching *w, int value)
{
    for (int i = 0; i < w->n; i++)
        if (w->list[i].value == value)
            return true;
    return false;
}

static int list_values(struct watching *w, const struct graph *g, struct arena *arena,
                       struct err *err)
{
    w->list = arena_alloc(arena, (size_t)g->n_nodes + 1, sizeof(*w->list));
    if (!w->list)
        return err_oom(err, "channels");
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        if (node->dead || node->op != OP_CONV || !is_map(g, node->inputs[0]) ||
            is_watched(w, node->inputs[0]))
            continue;
        struct watched *one = &w->list[w->n++];
        const struct shape *shape = &g->values[node->inputs[0]]->shape;
        *one = (struct watched){.value = node->inputs[0],
                                .channels = shape->dim[1],
                                .pixels = shape->dim[2] * shape->dim[3]};
        one->sums =
            arena_alloc(arena, (size_t)(QUANT_PIECES_MAX * one->channels), sizeof(*one->sums));
        if (!one->sums)
            return err_oom(err, "channels");
    }
    return 0;
}

static int fill(void *ctx, int64_t first, int64_t count, void *out, struct err *err)
{
    const struct watching *w = ctx;
    return w->fill(w->ctx, first, count, out, err);
}

static int take(void *ctx, int worker, int64_t first, int64_t count, const void *input,
                void *const *outputs, struct err *err)
{
    (void)worker;
    (void)input;
    (void)err;
    const struct watching *w = ctx;
    for (int i = 0; i < w->n; i++) {
        const struct watched *one = &w->list[i];
        const float *x = outputs[i];
        double *sums = one->sums + first / w->piece * one->channels;
        for (int64_t k = 0; k < count * one->channels; k++)
            for (int64_t p = 0; p < one->pixels; p++)
                sums[k % one->channels] += fabs((double)x[k * one->pixels + p]);
    }
    return 0;
}

static int run(struct watching *w, int64_t n, int threads, struct err *err)
{
    w->g->n_outputs = 0;
    for (int i = 0; i < w->n; i++) {
        int rc = graph_add_output(w->g, w->list[i].value, err);
        if (rc < 0)
            return rc;
    }
    int rc = graph_compact(w->g, err);
    if (rc < 0)
        return rc;
    const struct quant_stream stream = {.graph = w->g,
                                        .n = n,
                                        .threads = threads,
                                        .fill = fill,
                                        .fill_ctx = w,
                                        .take = take,
                                        .take_ctx = w};
    w->piece = quant_stream_piece(&stream);
    return w->piece > 0 ? quant_stream_run(&stream, err)
                        : err_set(err, ERR_FAILED_PRECONDITION, "%s", "several inputs");
}

static int settle(const struct watching *w, int64_t n, struct arena *arena,
                  const struct activity *to, struct err *err)
{
    for (int i = 0; i < w->n; i++) {
        const struct watched *one = &w->list[i];
        double *mean = arena_alloc(arena, (size_t)one->channels, sizeof(*mean));
        if (!mean)
            return err_oom(err, "channels");
        for (int64_t k = 0; k < QUANT_PIECES_MAX * one->channels; k++)
            mean[k % one->channels] += one->sums[k] / (double)(n * one->pixels);
        to->mean[one->value] = mean;
    }
    return 0;
}

int activity_of(const struct graph *g, int64_t n, int threads, infer_fill *fill_samples, void *ctx,
                struct arena *arena, struct activity *ret, struct err *err)
{
    _cleanup_(watching_release) struct watching w = {.fill = fill_samples, .ctx = ctx};
    ret->mean = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(*ret->mean));
    if (!ret->mean)
        return err_oom(err, "channels");
    int rc = list_values(&w, g, arena, err);
    if (rc < 0 || w.n == 0)
        return rc;
    rc = graph_clone(g, &w.g, err);
    if (rc == 0)
        rc = run(&w, n, threads, err);
    return rc == 0 ? settle(&w, n, arena, ret, err) : rc;
}

/* Samples, as long as the job has not ended. */
struct looking {
    struct work_task *task;
    struct sample_view view;
};

static void looking_release(struct looking *l)
{
    sample_view_release(&l->view);
}

static int look(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    struct looking *l = ctx;
    int rc = work_check(l->task, err);
    return rc == 0 ? sample_view_fill(&l->view, first, count, out, err) : rc;
}

int activity_measure(struct work_task *task, const job_state *state, const struct graph *g,
                     struct arena *arena, struct activity *ret, struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(dataset_closep) struct dataset *ds = NULL;
    _cleanup_(looking_release) struct looking l = {.task = task};
    struct preprocess pre;
    int rc = store_get_path(task->store, state->data->artifact, &path, err);
    if (rc == 0)
        rc = dataset_open(path, &ds, err);
    if (rc == 0)
        rc = preprocess_parse(state->preprocess->text, &pre, err);
    if (rc < 0)
        return rc;
    const int64_t count = dataset_count(ds, PART_TRAIN);
    rc = sample_view_init(&l.view, ds, PART_TRAIN, &pre, SAMPLES < count ? SAMPLES : 0,
                          state->spec->seed ^ SEED_SALT, err);
    return rc == 0 ? activity_of(g, l.view.n, task->threads, look, &l, arena, ret, err) : rc;
}
