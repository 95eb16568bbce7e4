#pragma once
/* Small networks for tests, built in a line or two each; whatever fails ends the test. */
#include "shared/base/rng.h"
#include "shared/graph/graph.h"

struct net {
    struct graph *g;
    struct rng rng; /* of the weights */
};

void net_init(struct net *net, uint64_t seed);
void net_release(struct net *net);
int net_input(struct net *net, const char *name, int rank, const int64_t *dims);
/* Constants: given numbers, or normal ones of that deviation. */
int net_floats(struct net *net, const char *name, int rank, const int64_t *dims, const float *data);
int net_normal(struct net *net, const char *name, int rank, const int64_t *dims, double deviation);
int net_ints(struct net *net, const char *name, int n, const int64_t *ints);
/* Each returns the value that comes out, named after the node with "_out" behind. */
int net_node(struct net *net, enum op op, const char *name, int n_inputs, const int *inputs);
struct node *net_of(struct net *net, const char *name);

struct net_conv {
    int64_t in, out, kernel, stride, group; /* stride and group: 0 is 1 */
    bool no_pad, no_bias, transpose;
};
int net_conv(struct net *net, const char *name, int x, const struct net_conv *conv);
int net_gemm(struct net *net, const char *name, int x, int64_t in, int64_t out, bool trans_b);
int net_unary(struct net *net, enum op op, const char *name, int x);
int net_add(struct net *net, const char *name, int a, int b);
/* Makes the value an output and infers all shapes. */
void net_finish(struct net *net, int output);

/* Runs the graph in plain C on n samples of normal noise (times scale, plus shift); the first
 * output, the caller's. */
struct tensor *net_run(const struct graph *g, uint64_t seed, int64_t n, double scale, double shift);
/* 10 log10 (power of a / power of a - b). */
double net_snr(const struct tensor *a, const struct tensor *b);
int net_count(const struct graph *g, enum op op);
