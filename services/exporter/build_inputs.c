#include <stdlib.h>
#include <string.h>

#include "services/exporter/build.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/nn/plan.h"

int build_read_network(struct work_task *task, const char *artifact, struct graph **ret,
                       struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int rc =
        store_get(task->store, artifact, onnx_default_limits.max_file_bytes, &data, &bytes, err);
    return rc < 0 ? rc : onnx_read_bytes(data, bytes, NULL, NULL, ret, err);
}

int build_open_samples(struct work_task *task, const job_state *state, enum part part, int64_t n,
                       struct build_samples *ret, struct err *err)
{
    _cleanup_(build_samples_release) struct build_samples s = {0};
    _cleanup_(freep) char *path = NULL;
    struct preprocess pre;
    int rc = store_get_path(task->store, state->data->artifact, &path, err);
    if (rc == 0)
        rc = dataset_open(path, &s.ds, err);
    if (rc == 0)
        rc = preprocess_parse(state->preprocess->text, &pre, err);
    if (rc < 0)
        return rc;
    rc = lowering_samples(s.ds, &pre, part, n, state->spec->seed, &s.view, err);
    if (rc < 0)
        return rc;
    *ret = s;
    s = (struct build_samples){0};
    return 0;
}

void build_samples_release(struct build_samples *samples)
{
    sample_view_release(&samples->view);
    dataset_closep(&samples->ds);
}

int build_calibrate(struct work_task *task, const job_state *state, const struct graph *g,
                    const char *stage, struct quant_ranges *ret, struct err *err)
{
    _cleanup_(build_samples_release) struct build_samples samples = {0};
    int rc = build_open_samples(task, state, PART_TRAIN, LOWERING_SAMPLES, &samples, err);
    if (rc < 0)
        return rc;
    struct build_progress progress = {task, stage};
    const struct infer_options options = {
        .threads = task->threads,
        .progress = build_on_progress,
        .progress_ctx = &progress,
    };
    return quant_calibrate(g, &options, samples.view.n, sample_view_fill, &samples.view, ret, err);
}

int build_weight_bits(const job_state *state)
{
    static const char *const without[] = {"sse41", "avx", "avx2", "avx512_core"};
    const char *target = state->spec->target;
    if (!nn_has_int8())
        return 7;
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++)
        if (str_starts_with(target, "cpu:") && strcmp(target + strlen("cpu:"), without[i]) == 0)
            return 7;
    return 8;
}

int build_on_progress(void *ctx, int64_t done, int64_t total, struct err *err)
{
    const struct build_progress *p = ctx;
    return work_progress(p->task, p->stage, (double)done, (double)total, "samples", err);
}
