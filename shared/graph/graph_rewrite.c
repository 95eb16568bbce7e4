/* Changing graphs: replacing values, removing nodes, order, copies. */
#include <string.h>

#include "shared/graph/graph.h"
#include "shared/graph/graph_priv.h"

/* ---- uses ---- */

int graph_uses(const struct graph *g, struct arena *arena, struct uses *ret, struct err *err)
{
    struct uses u;
    u.first = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(*u.first));
    u.is_output = arena_alloc(arena, (size_t)g->n_values, sizeof(*u.is_output));
    int *next = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(*next));
    if (!u.first || !u.is_output || !next)
        return err_oom(err, "the uses of a graph's values");
    int total = 0;
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        for (int i = 0; !node->dead && i < node->n_inputs; i++) {
            if (node->inputs[i] >= 0) {
                u.first[node->inputs[i] + 1]++;
                total++;
            }
        }
    }
    for (int v = 0; v < g->n_values; v++)
        u.first[v + 1] += u.first[v];
    memcpy(next, u.first, ((size_t)g->n_values + 1) * sizeof(*next));
    u.node_of = arena_alloc(arena, (size_t)total, sizeof(*u.node_of));
    if (!u.node_of)
        return err_oom(err, "the uses of a graph's values");
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        for (int i = 0; !node->dead && i < node->n_inputs; i++)
            if (node->inputs[i] >= 0)
                u.node_of[next[node->inputs[i]]++] = n;
    }
    for (int i = 0; i < g->n_outputs; i++)
        u.is_output[g->outputs[i]] = true;
    *ret = u;
    return 0;
}

int uses_sole(const struct uses *u, int value)
{
    return uses_count(u, value) == 1 && !u->is_output[value] ? u->node_of[u->first[value]] : -1;
}

/* ---- values ---- */

static bool is_listed(const int *list, int n, int value)
{
    for (int i = 0; i < n; i++)
        if (list[i] == value)
            return true;
    return false;
}

bool graph_can_replace(const struct graph *g, int from, int to)
{
    if (!is_listed(g->outputs, g->n_outputs, from))
        return true;
    return g->values[to]->producer >= 0 && !is_listed(g->outputs, g->n_outputs, to);
}

void graph_replace_value(struct graph *g, int from, int to)
{
    if (from == to)
        return;
    if (is_listed(g->outputs, g->n_outputs, from) && graph_can_replace(g, from, to)) {
        const char *kept = g->values[from]->name;
        g->values[from]->name = g->values[to]->name;
        g->values[to]->name = kept;
        name_table_move(g->value_names, g->values[from]->name, from);
        name_table_move(g->value_names, kept, to);
    }
    for (int n = 0; n < g->n_nodes; n++)
        for (int i = 0; i < g->nodes[n]->n_inputs; i++)
            if (g->nodes[n]->inputs[i] == from)
                g->nodes[n]->inputs[i] = to;
    for (int i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == from)
            g->outputs[i] = to;
}

int graph_rename_value(struct graph *g, int value, const char *name, struct err *err)
{
    int holder = name_table_get(g->value_names, name);
    if (holder == value && strcmp(g->values[value]->name, name) == 0)
        return 0;
    if (holder >= 0 && strcmp(g->values[holder]->name, name) == 0)
        return err_set(err, ERR_ALREADY_EXISTS, "the name '%s' is another value's", name);
    char *copy = arena_strdup(g->arena, name);
    if (!copy)
        return err_oom(err, "a name");
    g->values[value]->name = copy;
    if (holder >= 0) {
        name_table_move(g->value_names, name, value);
        return 0;
    }
    return name_table_put(g->arena, g->value_names, copy, value, err);
}

int graph_make_constant(struct graph *g, int value, const struct tensor *tensor, struct err *err)
{
    struct tensor *copy = graph_copy_tensor(g, tensor, err);
    if (!copy)
        return -ERR_RESOURCE_EXHAUSTED;
    struct value *v = g->values[value];
    if (v->producer >= 0) {
        struct node *node = g->nodes[v->producer];
        int left = 0;
        for (int i = 0; i < node->n_outputs; i++) {
            if (node->outputs[i] == value)
                node->outputs[i] = -1;
            left += node->outputs[i] >= 0;
        }
        node->dead = left == 0;
    }
    int kept = 0;
    for (int i = 0; i < g->n_inputs; i++)
        if (g->inputs[i] != value)
            g->inputs[kept++] = g->inputs[i];
    g->n_inputs = kept;
    v->producer = -1;
    v->constant = copy;
    v->dtype = copy->dtype;
    v->shape = copy->shape;
    v->shape_known = true;
    return 0;
}

void graph_kill_node(struct graph *g, int node)
{
    struct node *killed = g->nodes[node];
    killed->dead = true;
    for (int i = 0; i < killed->n_outputs; i++)
        if (killed->outputs[i] >= 0 && g->values[killed->outputs[i]]->producer == node)
            g->values[killed->outputs[i]]->producer = -1;
}

/* ---- order ---- */

enum mark { UNSEEN, OPEN, DONE };

struct walk {
    struct graph *g;
    bool *is_input;      /* [n_values] */
    unsigned char *mark; /* [n_nodes] */
    int *stack, *next;   /* [n_nodes]: open nodes and the input each looks at next */
    int depth;
    int *order; /* [n_nodes]: nodes whose inputs come before them */
    int n_order;
};

/* Whether the value can be read: an input, a constant, or some live node's output. */
static bool is_given(const struct walk *w, int value)
{
    const struct value *v = w->g->values[value];
    return v->producer >= 0 || v->constant || w->is_input[value];
}

static int walk_input(struct walk *w, const struct node *node, int i, struct err *err)
{
    int value = node->inputs[i];
    if (value < 0)
        return 0;
    if (!is_given(w, value))
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "input '%.128s' is produced by no node and is no input or constant",
                        w->g->values[value]->name);
    int producer = w->g->values[value]->producer;
    if (producer < 0 || w->mark[producer] == DONE)
        return 0;
    if (w->mark[producer] == OPEN)
        return node_err(err, ERR_INVALID_ARGUMENT, w->g->nodes[producer],
                        "the node depends on its own output: the graph has a cycle");
    w->mark[producer] = OPEN;
    w->next[w->depth] = 0;
    w->stack[w->depth++] = producer;
    return 0;
}

/* Depth first from `root` towards the inputs, without recursion: networks may be deep. */
static int walk_from(struct walk *w, int root, struct err *err)
{
    w->mark[root] = OPEN;
    w->depth = 1;
    w->stack[0] = root;
    w->next[0] = 0;
    while (w->depth > 0) {
        int top = w->depth - 1;
        const struct node *node = w->g->nodes[w->stack[top]];
        if (w->next[top] < node->n_inputs) {
            int rc = walk_input(w, node, w->next[top]++, err);
            if (rc < 0)
                return rc;
            continue;
        }
        w->mark[w->stack[top]] = DONE;
        w->order[w->n_order++] = w->stack[top];
        w->depth--;
    }
    return 0;
}

/* Marks (with DONE) the nodes that the network's outputs need. The order is topological. */
static void mark_needed(const struct graph *g, const int *order, int n, unsigned char *needed)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (g->values[g->outputs[i]]->producer >= 0)
            needed[g->values[g->outputs[i]]->producer] = DONE;
    for (int k = n - 1; k >= 0; k--) {
        const struct node *node = g->nodes[order[k]];
        if (needed[order[k]] != DONE)
            continue;
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0 && g->values[node->inputs[i]]->producer >= 0)
                needed[g->values[node->inputs[i]]->producer] = DONE;
    }
}

static void renumber(struct graph *g, const int *order, int n, const unsigned char *needed,
                     struct node **nodes)
{
    int kept = 0;
    for (int k = 0; k < n; k++) {
        struct node *node = g->nodes[order[k]];
        if (needed[order[k]] == DONE)
            nodes[kept++] = node;
    }
    for (int v = 0; v < g->n_values; v++)
        g->values[v]->producer = -1;
    for (int k = 0; k < kept; k++) {
        g->nodes[k] = nodes[k];
        for (int i = 0; i < nodes[k]->n_outputs; i++)
            if (nodes[k]->outputs[i] >= 0)
                g->values[nodes[k]->outputs[i]]->producer = k;
    }
    g->n_nodes = kept;
}

int graph_compact(struct graph *g, struct err *err)
{
    _cleanup_(arena_freep) struct arena *scratch = arena_new();
    if (!scratch)
        return err_oom(err, "ordering a graph");
    size_t n = (size_t)g->n_nodes;
    struct walk w = {.g = g};
    w.is_input = arena_alloc(scratch, (size_t)g->n_values, sizeof(bool));
    w.mark = arena_alloc(scratch, n, 1);
    w.stack = arena_alloc(scratch, n, sizeof(int));
    w.next = arena_alloc(scratch, n, sizeof(int));
    w.order = arena_alloc(scratch, n, sizeof(int));
    unsigned char *needed = arena_alloc(scratch, n, 1);
    struct node **nodes = arena_alloc(scratch, n, sizeof(struct node *));
    if (!w.is_input || !w.mark || !w.stack || !w.next || !w.order || !needed || !nodes)
        return err_oom(err, "ordering a graph");
    for (int i = 0; i < g->n_inputs; i++)
        w.is_input[g->inputs[i]] = true;
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->dead)
            graph_kill_node(g, i);
    for (int i = 0; i < g->n_nodes; i++) {
        int rc = g->nodes[i]->dead || w.mark[i] != UNSEEN ? 0 : walk_from(&w, i, err);
        if (rc < 0)
            return rc;
    }
    for (int i = 0; i < g->n_outputs; i++)
        if (!is_given(&w, g->outputs[i]))
            return err_set(err, ERR_INVALID_ARGUMENT, "output '%.128s' is produced by no node",
                           g->values[g->outputs[i]]->name);
    mark_needed(g, w.order, w.n_order, needed);
    renumber(g, w.order, w.n_order, needed, nodes);
    return 0;
}

/* ---- copies ---- */

struct tensor *graph_copy_tensor(struct graph *g, const struct tensor *from, struct err *err)
{
    struct tensor *copy = tensor_in_arena(g->arena, from->dtype, &from->shape, err);
    if (copy && tensor_bytes(from) > 0)
        memcpy(copy->data, from->data, tensor_bytes(from));
    return copy;
}

static int copy_attr(struct graph *g, struct node *to, const struct attr *a, struct err *err)
{
    switch (a->kind) {
    case ATTR_INT:
        return graph_set_attr_int(g, to, a->name, a->i, err);
    case ATTR_FLOAT:
        return graph_set_attr_float(g, to, a->name, a->f, err);
    case ATTR_STRING:
        return graph_set_attr_string(g, to, a->name, a->s, err);
    case ATTR_INTS:
        return graph_set_attr_ints(g, to, a->name, a->n, a->ints, err);
    case ATTR_FLOATS:
        return graph_set_attr_floats(g, to, a->name, a->n, a->floats, err);
    case ATTR_TENSOR:
        return graph_set_attr_tensor(g, to, a->name, a->tensor, err);
    }
    return err_set(err, ERR_INTERNAL, "attribute '%s' is of no known kind", a->name);
}

int graph_copy_attrs(struct graph *g, struct node *to, const struct node *from, struct err *err)
{
    int rc = 0;
    for (int i = 0; i < from->n_attrs && rc == 0; i++)
        rc = copy_attr(g, to, &from->attrs[i], err);
    return rc;
}

static int clone_value(struct graph *g, const struct value *from, struct err *err)
{
    int index = graph_add_value(g, from->name, from->name, err);
    if (index < 0)
        return index;
    struct value *to = g->values[index];
    const char *name = to->name;
    *to = *from;
    to->name = name;
    if (from->constant)
        to->constant = graph_copy_tensor(g, from->constant, err);
    return from->constant && !to->constant ? -ERR_RESOURCE_EXHAUSTED : 0;
}

static int clone_node(struct graph *g, const struct node *from, struct err *err)
{
    /* Made without outputs, which exist already with the right producers. */
    int index =
        graph_add_node(g, -1, from->op, from->name, from->n_inputs, from->inputs, 0, NULL, err);
    if (index < 0)
        return index;
    struct node *to = g->nodes[index];
    to->since = from->since;
    to->hint = from->hint;
    to->dead = from->dead;
    to->outputs = arena_memdup(g->arena, from->outputs, (size_t)from->n_outputs * sizeof(int));
    if (!to->outputs)
        return err_oom(err, "a node");
    to->n_outputs = from->n_outputs;
    return graph_copy_attrs(g, to, from, err);
}

static int clone_into(struct graph *g, const struct graph *from, struct err *err)
{
    int rc = 0;
    g->name = arena_strdup(g->arena, from->name);
    for (int v = 0; v < from->n_values && rc == 0; v++)
        rc = clone_value(g, from->values[v], err);
    for (int n = 0; n < from->n_nodes && rc == 0; n++)
        rc = clone_node(g, from->nodes[n], err);
    for (int i = 0; i < from->n_metadata && rc == 0; i++)
        rc = graph_set_metadata(g, from->metadata[i].key, from->metadata[i].text, err);
    for (int i = 0; i < from->n_inputs && rc == 0; i++) {
        rc = graph_grow(g->arena, &g->inputs, g->n_inputs, &g->cap_inputs, sizeof(int), err);
        if (rc == 0)
            g->inputs[g->n_inputs++] = from->inputs[i];
    }
    for (int i = 0; i < from->n_outputs && rc >= 0; i++)
        rc = graph_add_output(g, from->outputs[i], err);
    if (rc >= 0 && !g->name)
        rc = err_oom(err, "a graph");
    g->next_suffix = from->next_suffix;
    return rc < 0 ? rc : 0;
}

int graph_clone(const struct graph *graph, struct graph **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = graph_new(graph->opset, err);
    if (!g)
        return -ERR_RESOURCE_EXHAUSTED;
    int rc = clone_into(g, graph, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}
