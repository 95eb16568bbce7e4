#include "shared/graph/cuts.h"

#include <string.h>

#include "shared/graph/graph_priv.h"

/*
 * Nodes run in order; a value is live from the node that makes it to its last reader (a network
 * output to the end). A value is a cut point when it alone is live: every node is then before or
 * after it. This does not depend on which topological order the nodes have, since a node beside a
 * cut point would lie on a path around it. Values that no input reaches (constants, and what is
 * computed from them, as dequantized weights) are on no path.
 */
struct sweep {
    const struct graph *g;
    bool *is_data; /* [n_values]: an input reaches it */
    int *readers;  /* [n_values]: still to run */
    int live;
    int last_point; /* value, -1 before the first */
};

static bool reads_data(const struct sweep *s, const struct node *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] >= 0 && s->is_data[node->inputs[i]])
            return true;
    return false;
}

static int count_readers(struct sweep *s, struct arena *arena, struct err *err)
{
    const struct graph *g = s->g;
    s->is_data = arena_alloc(arena, (size_t)g->n_values, sizeof(*s->is_data));
    s->readers = arena_alloc(arena, (size_t)g->n_values, sizeof(*s->readers));
    if (!s->is_data || !s->readers)
        return err_oom(err, "cut points");
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        for (int i = 0; !node->dead && i < node->n_inputs; i++)
            if (node->inputs[i] >= 0)
                s->readers[node->inputs[i]]++;
    }
    for (int i = 0; i < g->n_outputs; i++)
        s->readers[g->outputs[i]]++;
    return 0;
}

static void make_live(struct sweep *s, int value)
{
    if (value < 0 || s->readers[value] == 0)
        return;
    s->is_data[value] = true;
    s->live++;
}

/* Runs the node: its inputs are read once more, its outputs become live. */
static void run_node(struct sweep *s, const struct node *node)
{
    for (int i = 0; i < node->n_inputs; i++) {
        int v = node->inputs[i];
        if (v >= 0 && --s->readers[v] == 0 && s->is_data[v])
            s->live--;
    }
    for (int i = 0; i < node->n_outputs; i++)
        make_live(s, node->outputs[i]);
}

/* The live one of these values, when nothing else is live; else -1. */
static int only_live(const struct sweep *s, const int *values, int n)
{
    if (s->live != 1)
        return -1;
    for (int i = 0; i < n; i++)
        if (values[i] >= 0 && s->is_data[values[i]] && s->readers[values[i]] > 0)
            return values[i];
    return -1;
}

/* ---- blocks ---- */

/* The block of each node: nodes off the paths go to the first that reads them. */
static void assign_blocks(const struct sweep *s, int *block_of)
{
    const struct graph *g = s->g;
    for (int n = g->n_nodes - 1; n >= 0; n--) {
        const struct node *node = g->nodes[n];
        if (node->dead || block_of[n] < 0)
            continue;
        for (int i = 0; i < node->n_inputs; i++) {
            int producer = node->inputs[i] < 0 ? -1 : g->values[node->inputs[i]]->producer;
            if (producer >= 0 && !s->is_data[node->inputs[i]] &&
                (block_of[producer] < 0 || block_of[producer] > block_of[n]))
                block_of[producer] = block_of[n];
        }
    }
}

static int fill_blocks(const struct graph *g, const int *block_of, struct arena *arena,
                       struct cuts *cuts, struct err *err)
{
    for (int n = 0; n < g->n_nodes; n++)
        if (block_of[n] >= 0)
            cuts->blocks[block_of[n]].n_nodes++;
    for (int b = 0; b < cuts->n_blocks; b++) {
        struct block *block = &cuts->blocks[b];
        block->nodes = arena_alloc(arena, (size_t)block->n_nodes, sizeof(*block->nodes));
        if (!block->nodes)
            return err_oom(err, "cut points");
        block->n_nodes = 0;
    }
    for (int n = 0; n < g->n_nodes; n++) {
        if (block_of[n] < 0)
            continue;
        struct block *block = &cuts->blocks[block_of[n]];
        block->nodes[block->n_nodes++] = n;
    }
    return 0;
}

static void add_point(struct cuts *cuts, struct sweep *s, int value)
{
    cuts->points[cuts->n_points++] = value;
    s->last_point = value;
}

static void add_block(struct cuts *cuts, int from, int to)
{
    cuts->blocks[cuts->n_blocks++] = (struct block){.from = from, .to = to};
}

int graph_cuts(const struct graph *g, struct arena *arena, struct cuts *ret, struct err *err)
{
    struct sweep s = {.g = g, .last_point = -1};
    struct cuts cuts = {0};
    int rc = count_readers(&s, arena, err);
    if (rc < 0)
        return rc;
    int *block_of = arena_alloc(arena, (size_t)g->n_nodes, sizeof(*block_of));
    cuts.points = arena_alloc(arena, (size_t)g->n_nodes + 1, sizeof(*cuts.points));
    cuts.blocks = arena_alloc(arena, (size_t)g->n_nodes + 1, sizeof(*cuts.blocks));
    if (!block_of || !cuts.points || !cuts.blocks)
        return err_oom(err, "cut points");
    for (int i = 0; i < g->n_inputs; i++)
        make_live(&s, g->inputs[i]);
    int point = only_live(&s, g->inputs, g->n_inputs);
    if (point >= 0)
        add_point(&cuts, &s, point);
    bool open = false; /* nodes since the last point */
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        block_of[n] = -1;
        if (node->dead)
            continue;
        if (!reads_data(&s, node)) {
            for (int i = 0; i < node->n_inputs; i++)
                if (node->inputs[i] >= 0)
                    s.readers[node->inputs[i]]--;
            continue;
        }
        block_of[n] = cuts.n_blocks;
        open = true;
        run_node(&s, node);
        point = only_live(&s, node->outputs, node->n_outputs);
        if (point < 0)
            continue;
        add_block(&cuts, s.last_point, point);
        add_point(&cuts, &s, point);
        open = false;
    }
    if (open)
        add_block(&cuts, s.last_point, -1);
    assign_blocks(&s, block_of);
    rc = fill_blocks(g, block_of, arena, &cuts, err);
    if (rc == 0)
        *ret = cuts;
    return rc;
}

/* ---- extraction ---- */

/* The nodes of the blocks, and those off the paths that they need, which may lie elsewhere. */
static void mark_nodes(const struct graph *g, const struct cuts *cuts, int first, int last,
                       const int *map, bool *wanted)
{
    for (int b = first; b <= last; b++)
        for (int i = 0; i < cuts->blocks[b].n_nodes; i++)
            wanted[cuts->blocks[b].nodes[i]] = true;
    for (int n = g->n_nodes - 1; n >= 0; n--) {
        for (int i = 0; wanted[n] && i < g->nodes[n]->n_inputs; i++) {
            int v = g->nodes[n]->inputs[i];
            if (v >= 0 && map[v] < 0 && g->values[v]->producer >= 0)
                wanted[g->values[v]->producer] = true;
        }
    }
}

static int extract_input(struct graph_copying *x, int value, struct err *err)
{
    const struct value *v = x->from->values[value];
    x->map[value] =
        graph_add_input(x->to, v->name, v->dtype, v->shape_known ? &v->shape : NULL, err);
    return x->map[value] < 0 ? x->map[value] : 0;
}

static int extract_ends(struct graph_copying *x, const int *values, int n, bool inputs,
                        struct err *err)
{
    for (int i = 0; i < n; i++) {
        int rc = 0;
        if (inputs)
            rc = extract_input(x, values[i], err);
        else if (x->map[values[i]] >= 0)
            rc = graph_add_output(x->to, x->map[values[i]], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int graph_extract_blocks(const struct graph *g, const struct cuts *cuts, int first, int last,
                         struct graph **ret, struct err *err)
{
    if (first < 0 || last >= cuts->n_blocks || first > last)
        return err_set(err, ERR_OUT_OF_RANGE, "blocks %d to %d of %d", first, last, cuts->n_blocks);
    _cleanup_(arena_freep) struct arena *scratch = arena_new();
    _cleanup_(graph_freep) struct graph *to = graph_new(g->opset, err);
    if (!scratch || !to)
        return err_oom(err, "a block");
    struct graph_copying x = {.from = g, .to = to};
    x.map = arena_alloc(scratch, (size_t)g->n_values, sizeof(*x.map));
    bool *wanted = arena_alloc(scratch, (size_t)g->n_nodes, sizeof(*wanted));
    if (!x.map || !wanted)
        return err_oom(err, "a block");
    for (int v = 0; v < g->n_values; v++)
        x.map[v] = -1;
    int from = cuts->blocks[first].from, end = cuts->blocks[last].to;
    int rc = from >= 0 ? extract_ends(&x, &from, 1, true, err)
                       : extract_ends(&x, g->inputs, g->n_inputs, true, err);
    mark_nodes(g, cuts, first, last, x.map, wanted);
    for (int n = 0; n < g->n_nodes && rc == 0; n++)
        rc = wanted[n] ? graph_copy_node(&x, g->nodes[n], err) : 0;
    if (rc == 0)
        rc = end >= 0 ? extract_ends(&x, &end, 1, false, err)
                      : extract_ends(&x, g->outputs, g->n_outputs, false, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(to);
    return 0;
}
