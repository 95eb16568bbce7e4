#include "services/synthesizer/units.h"

#include <string.h>

static int layers_of(const struct graph *g, const struct block *block, int64_t *macs)
{
    int layers = 0;
    for (int i = 0; i < block->n_nodes; i++) {
        const int64_t own = graph_node_cost(g, g->nodes[block->nodes[i]]).macs;
        layers += own > 0;
        *macs += own;
    }
    return layers;
}

static bool same_type(const struct graph *g, int a, int b)
{
    if (a < 0 || b < 0)
        return false;
    const struct value *x = g->values[a], *y = g->values[b];
    return x->shape_known && y->shape_known && x->dtype == y->dtype &&
           shape_equal(&x->shape, &y->shape);
}

/* What has no layer belongs to the unit before where it keeps the shape (an activation), else to
 * the one behind (a pool). */
static bool begins_unit(const struct graph *g, const struct block *block, int layers,
                        const struct unit *before)
{
    if (!before || before->layers == 0)
        return !before;
    return layers > 0 || !same_type(g, block->from, block->to);
}

int units_find(const struct graph *g, struct arena *arena, struct units *ret, struct err *err)
{
    *ret = (struct units){0};
    int rc = graph_cuts(g, arena, &ret->cuts, err);
    if (rc < 0)
        return rc;
    ret->units = arena_alloc(arena, (size_t)ret->cuts.n_blocks + 1, sizeof(*ret->units));
    if (!ret->units)
        return err_oom(err, "the parts of a network");
    for (int b = 0; b < ret->cuts.n_blocks; b++) {
        const struct block *block = &ret->cuts.blocks[b];
        struct unit *unit = ret->n ? &ret->units[ret->n - 1] : NULL;
        int64_t macs = 0;
        const int layers = layers_of(g, block, &macs);
        if (begins_unit(g, block, layers, unit)) {
            unit = &ret->units[ret->n++];
            *unit = (struct unit){.first = b, .from = block->from};
        }
        unit->last = b;
        unit->to = block->to;
        unit->layers += layers;
        unit->macs += macs;
    }
    return 0;
}

bool units_keep_shape(const struct graph *g, const struct units *units, int a, int b)
{
    return same_type(g, units->units[a].from, units->units[b].to);
}

/* ---- likeness ---- */

static int node_at(const struct units *units, const struct unit *unit, int i)
{
    for (int b = unit->first; b <= unit->last; b++) {
        const struct block *block = &units->cuts.blocks[b];
        if (i < block->n_nodes)
            return block->nodes[i];
        i -= block->n_nodes;
    }
    return -1;
}

static bool same_attr(const struct attr *x, const struct node *other)
{
    const struct attr *y = node_attr(other, x->name);
    if (!y || x->kind != y->kind || x->n != y->n)
        return false;
    switch (x->kind) {
    case ATTR_INT:
        return x->i == y->i;
    case ATTR_FLOAT:
        return x->f == y->f;
    case ATTR_STRING:
        return strcmp(x->s, y->s) == 0;
    case ATTR_INTS:
        return memcmp(x->ints, y->ints, (size_t)x->n * sizeof(*x->ints)) == 0;
    case ATTR_FLOATS:
        return memcmp(x->floats, y->floats, (size_t)x->n * sizeof(*x->floats)) == 0;
    default:
        return false;
    }
}

static bool same_value(const struct graph *g, int a, int b)
{
    if (a < 0 || b < 0)
        return a == b;
    return same_type(g, a, b) && !g->values[a]->constant == !g->values[b]->constant;
}

static bool same_node(const struct graph *g, const struct node *a, const struct node *b)
{
    bool same = a->op == b->op && a->n_inputs == b->n_inputs && a->n_outputs == b->n_outputs &&
                a->n_attrs == b->n_attrs;
    for (int i = 0; same && i < a->n_attrs; i++)
        same = same_attr(&a->attrs[i], b);
    for (int i = 0; same && i < a->n_inputs; i++)
        same = same_value(g, a->inputs[i], b->inputs[i]);
    for (int i = 0; same && i < a->n_outputs; i++)
        same = same_value(g, a->outputs[i], b->outputs[i]);
    return same;
}

bool units_alike(const struct graph *g, const struct units *units, int a, int b)
{
    const struct unit *x = &units->units[a], *y = &units->units[b];
    for (int i = 0;; i++) {
        const int n = node_at(units, x, i), m = node_at(units, y, i);
        if (n < 0 || m < 0)
            return n == m;
        if (!same_node(g, g->nodes[n], g->nodes[m]))
            return false;
    }
}

int units_extract(const struct graph *g, const struct units *units, int first, int last,
                  struct graph **ret, struct err *err)
{
    return graph_extract_blocks(g, &units->cuts, units->units[first].first, units->units[last].last,
                                ret, err);
}
