#pragma once
/* Designs for tests; whatever fails ends the test. To be included after cmocka.h. */
#include "shared/base/rng.h"
#include "shared/design/design.h"
#include "shared/graph/passes.h"
#include "tests/support/onnx_text.h"

static inline void expect_ok(int rc, const struct err *err)
{
    if (rc < 0)
        fail_msg("%d: %s", rc, err->message);
}

static inline struct graph *design_graph(const char *text, const struct design_ends *ends)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    struct graph *g = NULL;
    struct err err = {0};
    expect_ok(design_parse(text, arena, &design, &err), &err);
    expect_ok(design_build(&design, ends, &g, &err), &err);
    return g;
}

static inline int count_op(const struct graph *g, enum op op)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        n += g->nodes[i]->op == op;
    return n;
}

/* Norms as after training: every scale, shift, mean and variance its own; scales above 0. */
static inline void shake_norms(struct graph *g, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (int n = 0; n < g->n_nodes; n++) {
        if (g->nodes[n]->op != OP_BATCH_NORMALIZATION)
            continue;
        for (int i = 1; i < 5; i++) {
            struct tensor *t = graph_input_of(g, g->nodes[n], i)->constant;
            for (int64_t k = 0; k < shape_elements(&t->shape); k++)
                ((float *)t->data)[k] = (i == 1 || i == 4) ? 0.5f + (float)rng_f64(&rng)
                                                           : 0.3f * (float)rng_normal(&rng);
        }
    }
}
