/* The model of a job: read, checked, stored. */
#include "services/ingest/prepare.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/coding/packed.h"
#include "shared/graph/cuts.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/work/state.h"

/* Hone optimizes networks with one float input and one float output; anything else is named. */
static int check_ports(const struct graph *g, struct err *err)
{
    if (g->n_inputs != 1)
        return err_set(err, ERR_UNIMPLEMENTED, "the network has %d inputs; one is supported",
                       g->n_inputs);
    if (g->n_outputs != 1)
        return err_set(err, ERR_UNIMPLEMENTED, "the network has %d outputs; one is supported",
                       g->n_outputs);
    const struct value *in = g->values[g->inputs[0]];
    if (in->dtype != DTYPE_F32)
        return err_set(err, ERR_UNIMPLEMENTED, "input '%s' is %s; float32 is supported", in->name,
                       dtype_name(in->dtype));
    char text[128];
    if (in->shape.rank < 2 || in->shape.rank > 4)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "input '%s' has the shape %s; [N,C,H,W], [N,C,L] and "
                       "[N,F] are supported",
                       in->name, shape_text(&in->shape, text));
    const struct value *out = g->values[g->outputs[0]];
    return out->dtype == DTYPE_F32
               ? 0
               : err_set(err, ERR_UNIMPLEMENTED, "output '%s' is %s; float32 is supported",
                         out->name, dtype_name(out->dtype));
}

/* A model above a limit, or one that needs more memory than there is, is no better the next time.
 */
static int refused(int code, struct err *err)
{
    if (code == -ERR_UNAVAILABLE || code == -ERR_CANCELLED || work_is_permanent(code))
        return code;
    if (err)
        err->code = ERR_INVALID_ARGUMENT;
    return -ERR_INVALID_ARGUMENT;
}

/* What comes packed goes on as ONNX. */
static int unpack(void **data, size_t *bytes, struct err *err)
{
    void *unpacked = NULL;
    if (!packed_is(*data, *bytes))
        return 0;
    int r = packed_read(*data, *bytes, onnx_default_limits.max_file_bytes, &unpacked, bytes, err);
    if (r < 0)
        return r;
    free(*data);
    *data = unpacked;
    return 0;
}

/* Reads it before anything is kept: what is too large or no model at all costs no room. */
static int read_model(const char *path, struct graph **ret, void **ret_data, size_t *ret_bytes,
                      struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(freep) void *data = NULL;
    int r = fs_read(path, onnx_default_limits.max_file_bytes, &data, ret_bytes, err);
    if (r < 0)
        return refused(r, err);
    const char *slash = strrchr(path, '/');
    _cleanup_(freep) char *folder =
        slash ? str_printf("%.*s", (int)(slash - path + 1), path) : strdup(".");
    if (!folder)
        return err_oom(err, "a path");
    r = unpack(&data, ret_bytes, err);
    if (r >= 0)
        r = onnx_read_bytes(data, *ret_bytes, folder, NULL, &g, err);
    if (r >= 0)
        r = pass_simplify(g, err);
    if (r >= 0)
        r = check_ports(g, err);
    if (r < 0) {
        r = refused(r, err);
        err_wrap(err, "%s", path);
        return r;
    }
    *ret = TAKE_PTR(g);
    *ret_data = TAKE_PTR(data);
    return 0;
}

/* The file as it came, to be handed back when nothing is better. Where its weights lie in other
 * files it would be of no use alone: the simplified network stands for it. */
static int keep_original(struct work_task *task, job_state *state, const void *data, size_t bytes,
                         const void *network, size_t network_bytes, struct err *err)
{
    _cleanup_(graph_freep) struct graph *alone = NULL;
    char name[HASH_HEX_BYTES];
    bool whole = onnx_read_bytes(data, bytes, NULL, NULL, &alone, NULL) >= 0;
    int r =
        store_put(task->store, whole ? data : network, whole ? bytes : network_bytes, name, err);
    if (r == 0)
        r = message_set(&state->model, name, err);
    if (r == 0 && !whole)
        r = state_decide(state, err,
                         "the model keeps its weights in other files: where the original is "
                         "handed back, they are in model.onnx");
    state->baseline->bytes = whole ? bytes : network_bytes;
    return r;
}

static int describe(const struct graph *g, job_state *state, struct err *err)
{
    struct cost cost = graph_cost(g);
    state->baseline = message_new(&hone__v1__network__descriptor, err);
    if (!state->baseline)
        return -ERR_RESOURCE_EXHAUSTED;
    state->baseline->macs = (uint64_t)cost.macs;
    state->baseline->parameters = (uint64_t)cost.parameters;
    return message_set(&state->baseline->name, "baseline", err);
}

/* What cannot be opened runs, and is measured, with the batch that it has. */
static int keep_batch(const struct graph *g, job_state *state, const char *why, struct err *err)
{
    const struct shape *in = g->n_inputs > 0 ? &g->values[g->inputs[0]]->shape : NULL;
    state->spec->batch = in && in->rank > 0 && in->dim[0] > 0 ? (uint32_t)in->dim[0] : 1;
    return state_decide(state, err, "the batch size stays fixed at %u: %s", state->spec->batch,
                        why);
}

int ingest_prepare_model(struct work_task *task, job_state *state, struct graph **ret,
                         struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    _cleanup_(freep) void *network = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    size_t bytes = 0, network_bytes = 0;
    char name[HASH_HEX_BYTES];
    int r = work_progress(task, "read the model", 0, 1, "", err);
    if (r == 0)
        r = read_model(state->spec->model_path, &g, &data, &bytes, err);
    if (r == 0)
        r = describe(g, state, err);
    if (r < 0)
        return r;
    struct err why = {0};
    if (graph_make_batch_symbolic(g, &why) < 0)
        r = keep_batch(g, state, why.message, err);
    if (r >= 0)
        r = onnx_write_bytes(g, &network, &network_bytes, err);
    if (r >= 0)
        r = store_put(task->store, network, network_bytes, name, err);
    if (r >= 0)
        r = message_set(&state->network, name, err);
    if (r >= 0)
        r = message_set(&state->baseline->artifact, name, err);
    if (r >= 0)
        r = keep_original(task, state, data, bytes, network, network_bytes, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(g);
    return 0;
}
