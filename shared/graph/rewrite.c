#include "shared/graph/rewrite.h"

#include <string.h>

#include "shared/graph/infer.h"

static int begin(struct rewrite *r, struct graph *g, struct err *err)
{
    *r = (struct rewrite){.g = g, .n_values = g->n_values, .arena = arena_new()};
    if (!r->arena)
        return err_oom(err, "a pass");
    int rc = graph_uses(g, r->arena, &r->uses, err);
    if (rc < 0)
        return rc;
    size_t n = (size_t)g->n_values;
    r->alias = arena_alloc(r->arena, n, sizeof(*r->alias));
    r->read_as = arena_alloc(r->arena, n, sizeof(*r->read_as));
    if (!r->alias || !r->read_as)
        return err_oom(err, "a pass");
    r->is_output = r->uses.is_output;
    for (int v = 0; v < g->n_values; v++) {
        r->alias[v] = -1;
        r->read_as[v] = v;
    }
    return 0;
}

static void end(struct rewrite *r)
{
    arena_free(r->arena);
}

/* Aliases point backwards, and are resolved when made: chains stay short. */
static int resolve(const struct rewrite *r, int value)
{
    while (value >= 0 && value < r->n_values && r->alias[value] >= 0)
        value = r->alias[value];
    return value;
}

static void resolve_inputs(const struct rewrite *r, struct node *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        node->inputs[i] = resolve(r, node->inputs[i]);
}

void rewrite_touch(struct rewrite *r, int value)
{
    if (value >= 0 && value < r->n_values)
        r->read_as[value] = -1;
}

int rewrite_sole(const struct rewrite *r, int value)
{
    if (value < 0 || value >= r->n_values || r->read_as[value] < 0 || r->is_output[value])
        return -1;
    int as = r->read_as[value];
    int reader = uses_count(&r->uses, as) == 1 ? r->uses.node_of[r->uses.first[as]] : -1;
    return reader >= 0 && !r->g->nodes[reader]->dead ? reader : -1;
}

bool rewrite_replace(struct rewrite *r, int from, int to)
{
    struct graph *g = r->g;
    to = resolve(r, to);
    if (from >= r->n_values || from == to)
        return false;
    if (r->is_output[from]) {
        bool made = g->values[to]->producer >= 0;
        if (!made || to >= r->n_values || r->is_output[to])
            return false;
        const char *kept = g->values[from]->name;
        g->values[from]->name = g->values[to]->name;
        g->values[to]->name = kept;
        name_table_move(g->value_names, g->values[from]->name, from);
        name_table_move(g->value_names, kept, to);
        r->is_output[from] = false;
        r->is_output[to] = true;
    }
    r->alias[from] = to;
    rewrite_touch(r, from);
    rewrite_touch(r, to);
    return true;
}

bool rewrite_splice(struct rewrite *r, int from, int to)
{
    int as = from < r->n_values ? r->read_as[from] : -1;
    if (!rewrite_replace(r, from, to))
        return false;
    r->read_as[resolve(r, to)] = as;
    return true;
}

struct node *rewrite_producer(const struct rewrite *r, const struct node *node, int i, enum op op)
{
    const struct value *value = graph_input_of(r->g, node, i);
    if (!value || value->producer < 0)
        return NULL;
    struct node *producer = r->g->nodes[value->producer];
    for (int k = 1; k < producer->n_outputs; k++)
        if (producer->outputs[k] >= 0)
            return NULL;
    return producer->op == op && !producer->dead ? producer : NULL;
}

static int sweep(struct graph *g, rewrite_rule *rule, struct err *err)
{
    _cleanup_(end) struct rewrite r = {0};
    int rc = begin(&r, g, err);
    for (int n = 0, n_nodes = g->n_nodes; n < n_nodes && rc >= 0; n++) {
        if (g->nodes[n]->dead)
            continue;
        resolve_inputs(&r, g->nodes[n]);
        rc = rule(&r, n, err);
    }
    if (rc < 0)
        return rc;
    for (int n = 0; n < g->n_nodes; n++)
        resolve_inputs(&r, g->nodes[n]);
    for (int i = 0; i < g->n_outputs; i++)
        g->outputs[i] = resolve(&r, g->outputs[i]);
    if (r.changes == 0)
        return 0;
    rc = graph_compact(g, err);
    if (rc == 0)
        rc = graph_infer(g, err);
    return rc < 0 ? rc : r.changes;
}

int rewrite_run(struct graph *g, rewrite_rule *rule, struct err *err)
{
    int total = 0;
    for (;;) {
        int changes = sweep(g, rule, err);
        if (changes < 0)
            return changes;
        total += changes;
        if (changes == 0)
            return total;
    }
}
