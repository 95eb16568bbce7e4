/* Constant folding as a pass, and what all passes do together. */
#include "shared/graph/fold.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"

static int (*const passes[])(struct graph *, struct err *) = {
    pass_fold_constants, pass_remove_identities, pass_canonicalise,
    pass_fold_batchnorm, pass_fold_pad,          pass_merge_branches /* the last */
};
#define N_PASSES (sizeof(passes) / sizeof(*passes))

int pass_fold_constants(struct graph *g, struct err *err)
{
    _cleanup_(fold_release) struct fold fold = {0};
    int rc = fold_begin(&fold, g, true, onnx_default_limits.max_elements, err);
    for (int n = 0; n < g->n_nodes && rc >= 0; n++) {
        if (g->nodes[n]->dead)
            continue;
        rc = fold_symbols_in(&fold, g->nodes[n], err);
        if (rc == 0)
            rc = graph_infer_node(g, g->nodes[n], err);
        if (rc == 0)
            rc = fold_node(&fold, n, err);
    }
    if (rc < 0)
        return rc;
    /* A node that computes with the batch size is left in place, unread: not counted as a change
     * unless it goes. */
    int before = g->n_nodes;
    rc = graph_compact(g, err);
    return rc < 0 ? rc : before - g->n_nodes;
}

/* The first n passes until nothing changes. */
static int simplify(struct graph *g, size_t n, struct err *err)
{
    int total = 0;
    for (;;) {
        int changes = 0;
        for (size_t i = 0; i < n; i++) {
            int rc = passes[i](g, err);
            if (rc < 0)
                return rc;
            changes += rc;
        }
        total += changes;
        if (changes == 0)
            return total;
    }
}

int pass_simplify_branched(struct graph *g, struct err *err)
{
    return simplify(g, N_PASSES - 1, err);
}

int pass_simplify(struct graph *g, struct err *err)
{
    return simplify(g, N_PASSES, err);
}
