#pragma once
/* What the files of this floor share among themselves. */
#include "shared/graph/graph.h"

/* A set of names with an index each, in a graph's arena. */
struct name_table {
    int n, capacity; /* capacity is a power of two, or 0 */
    uint32_t seed;
    struct name_slot *slots;
};
struct name_slot {
    const char *name; /* NULL: free */
    int index;
};
/* -1 when absent. */
int name_table_get(const struct name_table *table, const char *name);
/* The name must be absent and outlive the table. */
int name_table_put(struct arena *arena, struct name_table *table, const char *name, int index,
                   struct err *err);
void name_table_move(struct name_table *table, const char *name, int index);

/* Grows an array in the arena to hold n + 1 items of `size` bytes. */
int graph_grow(struct arena *arena, void *items, int n, int *cap, size_t size, struct err *err);

/* Adds a value without a producer; the name is made unique. */
int graph_add_value(struct graph *g, const char *name, const char *otherwise, struct err *err);

/* Sets err to "node 'NAME' (Op): ..." */
int node_err(struct err *err, enum err_code code, const struct node *node, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Puts "node 'NAME' (Op): " before the message; returns rc. */
int node_wrap(int rc, struct err *err, const struct node *node);

/* The constant behind input i, NULL where left out or not constant. */
const struct tensor *graph_constant_of(const struct graph *g, const struct node *node, int i);

/* Deep copies into the arena of `g`. */
struct tensor *graph_copy_tensor(struct graph *g, const struct tensor *from, struct err *err);
int graph_copy_attrs(struct graph *g, struct node *to, const struct node *from, struct err *err);

/* What kind of attribute the operator has under this name in any opset, in words; NULL: none. */
const char *op_attr_kind(enum op op, const char *name, int *ret_kind);

/* Nodes on their way from one graph into another. */
struct graph_copying {
    const struct graph *from;
    struct graph *to;
    int *map;           /* [from->n_values]: the value in `to`, -1: not yet */
    const char *prefix; /* of the names in `to`; NULL: none */
};
/* Adds a copy of the node, and of the constants that it reads; its other inputs are in the map.
 * Notes what it makes there. */
int graph_copy_node(struct graph_copying *x, const struct node *node, struct err *err);
