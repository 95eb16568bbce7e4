/* Zero padding in front of a convolution or an average belongs to it. */
#include <string.h>

#include "shared/graph/infer_priv.h"
#include "shared/graph/passes.h"
#include "shared/graph/rewrite.h"

/* The pads of each axis, when they are zeros around the spatial dimensions only. */
static bool read_zero_pads(const struct graph *g, const struct node *pad, int rank,
                           int64_t begin[SHAPE_MAX_RANK], int64_t end[SHAPE_MAX_RANK])
{
    struct int_list pads, axes;
    const struct tensor *value = graph_constant_of(g, pad, 2);
    if (graph_input_of(g, pad, 2) &&
        (!value || shape_elements(&value->shape) != 1 || tensor_get_f64(value, 0) != 0))
        return false;
    if (strcmp(node_string(pad, "mode", "constant"), "constant") != 0 ||
        node_float(pad, "value", 0) != 0 || infer_list(g, pad, "pads", 1, &pads, NULL) < 0 ||
        infer_list(g, pad, NULL, 3, &axes, NULL) < 0)
        return false;
    memset(begin, 0, SHAPE_MAX_RANK * sizeof(*begin));
    memset(end, 0, SHAPE_MAX_RANK * sizeof(*end));
    int n = pads.n / 2;
    for (int i = 0; i < n; i++) {
        int axis = (int)(!axes.given ? i : axes.v[i] < 0 ? axes.v[i] + rank : axes.v[i]);
        begin[axis] = pads.v[i];
        end[axis] = pads.v[n + i];
    }
    for (int i = 0; i < rank; i++)
        if (begin[i] < 0 || end[i] < 0 || (i < 2 && (begin[i] || end[i])))
            return false;
    return true;
}

/* Whether the node treats pads in front of it as its own. An average that has pads must count them;
 * windows that may begin on pads (ceil_mode) count differently. */
static bool takes_pads(const struct node *node, const struct window *w)
{
    const char *auto_pad = node_string(node, "auto_pad", "NOTSET");
    if (strcmp(auto_pad, "NOTSET") != 0 && strcmp(auto_pad, "VALID") != 0)
        return false;
    if (node->op == OP_CONV)
        return true;
    if (node->op != OP_AVERAGE_POOL || w->ceil_mode)
        return false;
    bool has_pads = false;
    for (int i = 0; i < w->rank; i++)
        has_pads = has_pads || w->pad_begin[i] || w->pad_end[i];
    return w->count_include_pad || !has_pads;
}

/* Takes in the Pad that makes the node's input. Returns 1 if so, 0 if there is none to take. */
static int take_pad(struct rewrite *r, struct node *node, struct err *err)
{
    struct graph *g = r->g;
    struct window w;
    int64_t begin[SHAPE_MAX_RANK], end[SHAPE_MAX_RANK], pads[6];
    const struct node *pad = rewrite_producer(r, node, 0, OP_PAD);
    if (!pad || graph_window(g, node, &w, NULL) < 0 || !takes_pads(node, &w) ||
        !read_zero_pads(g, pad, w.rank + 2, begin, end))
        return 0;
    for (int i = 0; i < w.rank; i++) {
        pads[i] = w.pad_begin[i] + begin[i + 2];
        pads[w.rank + i] = w.pad_end[i] + end[i + 2];
    }
    int rc = graph_set_attr_ints(g, node, "pads", 2 * w.rank, pads, err);
    if (rc == 0 && node->op == OP_AVERAGE_POOL)
        rc = graph_set_attr_int(g, node, "count_include_pad", 1, err);
    if (rc < 0)
        return rc;
    graph_remove_attr(node, "auto_pad");
    rewrite_touch(r, node->inputs[0]);
    rewrite_touch(r, pad->inputs[0]);
    node->inputs[0] = pad->inputs[0];
    r->changes++;
    return 1;
}

static int fold_pad(struct rewrite *r, int n, struct err *err)
{
    struct node *node = r->g->nodes[n];
    int rc = node->op == OP_CONV || node->op == OP_AVERAGE_POOL;
    while (rc > 0) /* one Pad after the other */
        rc = take_pad(r, node, err);
    return rc;
}

int pass_fold_pad(struct graph *g, struct err *err)
{
    return rewrite_run(g, fold_pad, err);
}
