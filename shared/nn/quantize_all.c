/* Whole networks in int8, for those who only time them. */
#include <stdlib.h>

#include "shared/nn/quantize_priv.h"

int quant_rewrite_all(const struct graph *g, const struct quant_ranges *ranges,
                      const struct quant_options *options, struct graph **ret, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    const char *const *layers = NULL;
    int n = 0;
    int rc = arena ? quant_layers(g, arena, &layers, &n, err) : err_oom(err, "layers");
    if (rc < 0)
        return rc;
    struct quant_choice *choices = arena_alloc(arena, (size_t)n + 1, sizeof(*choices));
    if (!choices)
        return err_oom(err, "layers");
    for (int i = 0; i < n; i++)
        choices[i] = (struct quant_choice){.layer = layers[i], .precision = PRECISION_INT8};
    return quant_rewrite(g, choices, n, ranges, options, ret, err);
}

static struct quant_range guess(const struct graph *g, const struct value *value)
{
    const enum op op = value->producer >= 0 ? g->nodes[value->producer]->op : OP_IDENTITY;
    const bool gate = op == OP_SIGMOID || op == OP_HARD_SIGMOID || op == OP_SOFTMAX;
    const double high = gate ? 1 : 6, low = gate || op == OP_RELU ? 0 : -6;
    return (struct quant_range){
        .value = value->name, .min = low, .max = high, .low = low, .high = high};
}

int quant_ranges_guess(const struct graph *g, struct quant_ranges *ret, struct err *err)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    for (int v = 0; v < g->n_values; v++) {
        const struct value *value = g->values[v];
        if (value->constant || value->dtype != DTYPE_F32)
            continue;
        const struct quant_range range = guess(g, value);
        int rc = quant_ranges_add(&ranges, &range, err);
        if (rc < 0)
            return rc;
    }
    *ret = ranges;
    ranges = (struct quant_ranges){0};
    return 0;
}
