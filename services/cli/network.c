#include "services/cli/network.h"

#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/nn/quantize.h"
#include "shared/train/recipe.h"

/* Every layer that can, in 8 bits. */
static int quantize_all(struct graph **g, struct err *err)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    struct graph *quantized = NULL;
    int r = quant_calibrate_noise(*g, 1, &ranges, err);
    if (r >= 0)
        r = quant_rewrite_all(*g, &ranges, NULL, &quantized, err);
    if (r < 0)
        return r;
    graph_free(*g);
    *g = quantized;
    return 0;
}

typedef int simplify(struct graph *g, struct err *err);

static int open_batch(struct graph *g, simplify *pass, struct err *err)
{
    int r = pass(g, err);
    if (r >= 0)
        graph_make_batch_symbolic(g, NULL); /* where it cannot, the batch stays as it is */
    return r;
}

static int read_simplified(const char *path, simplify *pass, struct graph **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = onnx_read_file(path, NULL, &g, err);
    if (r >= 0)
        r = open_batch(g, pass, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(g);
    return 0;
}

int network_from_bytes(const void *onnx, size_t bytes, bool learner, struct graph **ret,
                       struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = onnx_read_bytes(onnx, bytes, NULL, NULL, &g, err);
    if (r >= 0)
        r = open_batch(g, learner ? recipe_learner : pass_simplify, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(g);
    return 0;
}

int network_read_learner(const char *path, struct graph **ret, struct err *err)
{
    return read_simplified(path, recipe_learner, ret, err);
}

int network_read(const char *path, enum precision precision, struct graph **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = read_simplified(path, pass_simplify, &g, err);
    if (r >= 0 && precision == PRECISION_INT8 && !quant_is_quantized(g))
        r = quantize_all(&g, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(g);
    return 0;
}

int network_input(const struct graph *g, const struct value **ret, struct err *err)
{
    if (g->n_inputs != 1)
        return err_set(err, ERR_UNIMPLEMENTED, "the network has %d inputs; one is supported",
                       g->n_inputs);
    const struct value *in = g->values[g->inputs[0]];
    if (in->dtype != DTYPE_F32 || in->shape.rank < 2 || in->shape.rank > 4) {
        char text[128];
        return err_set(err, ERR_UNIMPLEMENTED,
                       "input '%s' is %s %s; float32 with 2 to 4 dimensions is supported", in->name,
                       dtype_name(in->dtype), shape_text(&in->shape, text));
    }
    *ret = in;
    return 0;
}
