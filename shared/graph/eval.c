#include "shared/graph/eval.h"

#include <stdlib.h>

#include "shared/graph/eval_internal.h"

enum { FLOATS = 1, INTEGERS = 2, BOOLS = 4, NUMBERS = FLOATS | INTEGERS, ANY = NUMBERS | BOOLS };
#define MANY 1000000 /* inputs or outputs: as many as the node has */

/* What eval_node checks before an operator's function runs: the numbers of inputs and outputs, the
 * type of the first input, and how many of the first inputs must share it. */
struct rule {
    eval_fn *run;
    int min_in, max_in, max_out;
    int types, same;
};

static const struct rule rules[OP_COUNT] = {
    [OP_ABS] = {eval_abs, 1, 1, 1, NUMBERS, 1},
    [OP_ADD] = {eval_binary, 2, 2, 1, NUMBERS, 2},
    [OP_AVERAGE_POOL] = {eval_average_pool, 1, 1, 1, FLOATS, 1},
    [OP_BATCH_NORMALIZATION] = {eval_batch_normalization, 5, 5, 5, FLOATS, 1},
    [OP_CAST] = {eval_cast, 1, 1, 1, ANY, 1},
    [OP_CLIP] = {eval_clip, 1, 3, 1, NUMBERS, 3},
    [OP_CONCAT] = {eval_concat, 1, MANY, 1, ANY, MANY},
    [OP_CONSTANT] = {eval_constant, 0, 0, 1, ANY, 0},
    [OP_CONSTANT_OF_SHAPE] = {eval_constant_of_shape, 1, 1, 1, INTEGERS, 1},
    [OP_CONV] = {eval_conv, 2, 3, 1, FLOATS, 3},
    [OP_CONV_TRANSPOSE] = {eval_conv_transpose, 2, 3, 1, FLOATS, 3},
    [OP_DEQUANTIZE_LINEAR] = {eval_dequantize_linear, 2, 3, 1, INTEGERS, 1},
    [OP_DIV] = {eval_binary, 2, 2, 1, NUMBERS, 2},
    [OP_DROPOUT] = {eval_dropout, 1, 3, 2, FLOATS, 1},
    [OP_ELU] = {eval_unary, 1, 1, 1, FLOATS, 1},
    [OP_EXPAND] = {eval_expand, 2, 2, 1, ANY, 1},
    [OP_FLATTEN] = {eval_flatten, 1, 1, 1, ANY, 1},
    [OP_GATHER] = {eval_gather, 2, 2, 1, ANY, 1},
    [OP_GEMM] = {eval_gemm, 2, 3, 1, NUMBERS, 3},
    [OP_GLOBAL_AVERAGE_POOL] = {eval_global_average_pool, 1, 1, 1, FLOATS, 1},
    [OP_GLOBAL_MAX_POOL] = {eval_global_max_pool, 1, 1, 1, FLOATS, 1},
    [OP_HARD_SIGMOID] = {eval_unary, 1, 1, 1, FLOATS, 1},
    [OP_HARD_SWISH] = {eval_unary, 1, 1, 1, FLOATS, 1},
    [OP_IDENTITY] = {eval_identity, 1, 1, 1, ANY, 1},
    [OP_LEAKY_RELU] = {eval_unary, 1, 1, 1, FLOATS, 1},
    [OP_LRN] = {eval_lrn, 1, 1, 1, FLOATS, 1},
    [OP_MATMUL] = {eval_matmul, 2, 2, 1, NUMBERS, 2},
    [OP_MAX_POOL] = {eval_max_pool, 1, 1, 2, NUMBERS, 1},
    [OP_MUL] = {eval_binary, 2, 2, 1, NUMBERS, 2},
    [OP_PAD] = {eval_pad, 1, 4, 1, ANY, 1},
    [OP_PRELU] = {eval_prelu, 2, 2, 1, NUMBERS, 2},
    [OP_QUANTIZE_LINEAR] = {eval_quantize_linear, 2, 3, 1, NUMBERS, 1},
    [OP_REDUCE_MEAN] = {eval_reduce_mean, 1, 2, 1, NUMBERS, 1},
    [OP_RELU] = {eval_relu, 1, 1, 1, NUMBERS, 1},
    [OP_RESHAPE] = {eval_reshape, 2, 2, 1, ANY, 1},
    [OP_RESIZE] = {eval_resize, 1, 4, 1, NUMBERS, 1},
    [OP_SHAPE] = {eval_shape, 1, 1, 1, ANY, 1},
    [OP_SIGMOID] = {eval_unary, 1, 1, 1, FLOATS, 1},
    [OP_SLICE] = {eval_slice, 1, 5, 1, ANY, 1},
    [OP_SOFTMAX] = {eval_softmax, 1, 1, 1, FLOATS, 1},
    [OP_SOFTPLUS] = {eval_unary, 1, 1, 1, FLOATS, 1},
    [OP_SPLIT] = {eval_split, 1, 2, MANY, ANY, 1},
    [OP_SQUEEZE] = {eval_squeeze, 1, 2, 1, ANY, 1},
    [OP_SUB] = {eval_binary, 2, 2, 1, NUMBERS, 2},
    [OP_TANH] = {eval_unary, 1, 1, 1, FLOATS, 1},
    [OP_TRANSPOSE] = {eval_transpose, 1, 1, 1, ANY, 1},
    [OP_UNSQUEEZE] = {eval_unsqueeze, 1, 2, 1, ANY, 1},
    [OP_UPSAMPLE] = {eval_upsample, 1, 2, 1, NUMBERS, 1},
};

static int kind_of(enum dtype dtype)
{
    return dtype_is_float(dtype) ? FLOATS : dtype == DTYPE_BOOL ? BOOLS : INTEGERS;
}

static int check_arguments(struct eval *e, const struct rule *rule)
{
    const struct node *node = e->node;
    if (node->n_inputs < rule->min_in || node->n_inputs > rule->max_in)
        return eval_bad(e, "%d inputs", node->n_inputs);
    if (node->n_outputs < 1 || node->n_outputs > rule->max_out)
        return eval_bad(e, "%d outputs", node->n_outputs);
    for (int i = 0; i < rule->min_in; i++) {
        if (!eval_in(e, i))
            return eval_bad(e, "input %d is left out", i);
    }
    if (rule->min_in == 0)
        return 0;
    enum dtype first = e->in[0]->dtype;
    if (!(kind_of(first) & rule->types))
        return eval_bad(e, "not defined for %s", dtype_name(first));
    for (int i = 1; i < node->n_inputs && i < rule->same; i++) {
        const struct tensor *t = eval_in(e, i);
        if (t && t->dtype != first)
            return eval_bad(e, "input %d is %s, but input 0 is %s", i, dtype_name(t->dtype),
                            dtype_name(first));
    }
    return 0;
}

int eval_node(const struct graph *g, const struct node *node, const struct tensor *const *inputs,
              struct tensor **outputs, struct err *err)
{
    struct err own = {0};
    if (!err)
        err = &own;
    struct eval e = {.g = g, .node = node, .in = inputs, .out = outputs, .err = err};
    for (int i = 0; i < node->n_outputs; i++)
        outputs[i] = NULL;
    if ((unsigned)node->op >= OP_COUNT)
        return err_set(err, ERR_UNIMPLEMENTED, "node '%s': unknown operator", node->name);
    const struct rule *rule = &rules[node->op];
    int rc = check_arguments(&e, rule);
    if (rc == 0)
        rc = rule->run(&e);
    for (int i = 0; i < node->n_outputs; i++) {
        if (rc < 0 || node->outputs[i] < 0)
            outputs[i] = tensor_free(outputs[i]);
    }
    return rc == 0 ? 0 : err_wrap(err, "node '%s' (%s)", node->name, op_name(node->op));
}

/* ---- whole graphs ------------------------------------------------------------------------- */

/* A run: the tensor of each value and how many readers are still to come. `owned` are freed when
 * the last one is done; inputs and constants are not ours. */
struct run {
    const struct graph *g;
    const struct tensor **of; /* [n_values] */
    bool *owned;              /* [n_values] */
    int *readers;             /* [n_values] */
    const struct tensor **in; /* scratch: inputs and outputs of a node */
    struct tensor **out;
    int64_t batch; /* -1: no input has one */
};

static void run_release(struct run *run)
{
    for (int v = 0; run->of && run->owned && v < run->g->n_values; v++) {
        if (run->owned[v])
            tensor_free((struct tensor *)run->of[v]);
    }
    free(run->of);
    free(run->owned);
    free(run->readers);
    free(run->in);
    free(run->out);
}

static int run_init(struct run *run, const struct graph *g, struct err *err)
{
    size_t n = (size_t)g->n_values;
    int most = 1;
    run->g = g;
    run->batch = -1;
    run->of = mem_calloc(n, sizeof(*run->of));
    run->owned = mem_calloc(n, sizeof(*run->owned));
    run->readers = mem_calloc(n, sizeof(*run->readers));
    if (!run->of || !run->owned || !run->readers)
        return err_oom(err, "evaluating a graph");
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        if (node->dead)
            continue;
        for (int k = 0; k < node->n_inputs; k++) {
            if (node->inputs[k] >= 0)
                run->readers[node->inputs[k]]++;
        }
        int m = node->n_inputs > node->n_outputs ? node->n_inputs : node->n_outputs;
        most = m > most ? m : most;
    }
    for (int i = 0; i < g->n_outputs; i++)
        run->readers[g->outputs[i]]++;
    run->in = mem_calloc((size_t)most, sizeof(*run->in));
    run->out = mem_calloc((size_t)most, sizeof(*run->out));
    return run->in && run->out ? 0 : err_oom(err, "evaluating a graph");
}

/* Compares a tensor with what the graph says of its value, learning the batch size. */
static int check_value(struct run *run, const struct value *value, const struct tensor *t,
                       const char *what, struct err *err)
{
    char want[128], got[128];
    if (value->dtype != DTYPE_NONE && value->dtype != t->dtype)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s '%s' is %s, not %s", what, value->name,
                       dtype_name(t->dtype), dtype_name(value->dtype));
    if (!value->shape_known)
        return 0;
    bool fits = value->shape.rank == t->shape.rank;
    for (int i = 0; fits && i < t->shape.rank; i++) {
        int64_t dim = value->shape.dim[i];
        if (dim == DIM_BATCH && run->batch < 0)
            run->batch = t->shape.dim[i];
        fits = t->shape.dim[i] == (dim == DIM_BATCH ? run->batch : dim);
    }
    if (fits)
        return 0;
    return err_set(err, ERR_INVALID_ARGUMENT, "%s '%s' has shape %s, not %s", what, value->name,
                   shape_text(&t->shape, got), shape_text(&value->shape, want));
}

static int run_bind(struct run *run, const struct tensor *const *inputs, struct err *err)
{
    const struct graph *g = run->g;
    for (int i = 0; i < g->n_inputs; i++) {
        const struct value *value = g->values[g->inputs[i]];
        if (!inputs[i])
            return err_set(err, ERR_INVALID_ARGUMENT, "input '%s' is missing", value->name);
        int rc = check_value(run, value, inputs[i], "input", err);
        if (rc < 0)
            return rc;
        run->of[g->inputs[i]] = inputs[i];
    }
    for (int v = 0; v < g->n_values; v++) {
        if (g->values[v]->constant)
            run->of[v] = g->values[v]->constant;
    }
    return 0;
}

/* Frees the value when it is ours and nobody is going to read it. */
static void run_drop_unread(struct run *run, int v)
{
    if (run->readers[v] > 0 || !run->owned[v])
        return;
    tensor_free((struct tensor *)run->of[v]);
    run->of[v] = NULL;
    run->owned[v] = false;
}

static int run_node(struct run *run, const struct node *node, struct err *err)
{
    const struct graph *g = run->g;
    for (int i = 0; i < node->n_inputs; i++) {
        int v = node->inputs[i];
        run->in[i] = v < 0 ? NULL : run->of[v];
        if (v >= 0 && !run->in[i])
            return err_set(err, ERR_INVALID_ARGUMENT, "node '%s' reads '%s', which has no data yet",
                           node->name, g->values[v]->name);
    }
    int rc = eval_node(g, node, run->in, run->out, err);
    if (rc < 0)
        return node->n_outputs > 0 && node->outputs[0] >= 0
                   ? err_wrap(err, "value '%s'", g->values[node->outputs[0]]->name)
                   : rc;
    for (int i = 0; i < node->n_outputs; i++) {
        int v = node->outputs[i];
        if (!run->out[i])
            continue;
        run->of[v] = run->out[i];
        run->owned[v] = true;
        if (rc == 0 && check_value(run, g->values[v], run->out[i], "value", err) < 0)
            rc = err_wrap(err, "node '%s' (%s)", node->name, op_name(node->op));
    }
    if (rc < 0)
        return rc;
    for (int i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i] >= 0)
            run_drop_unread(run, node->outputs[i]);
    }
    for (int i = 0; i < node->n_inputs; i++) {
        int v = node->inputs[i];
        if (v < 0)
            continue;
        run->readers[v]--;
        run_drop_unread(run, v);
    }
    return 0;
}

static int run_collect(struct run *run, struct tensor **outputs, struct err *err)
{
    const struct graph *g = run->g;
    for (int i = 0; i < g->n_outputs; i++) {
        int v = g->outputs[i];
        if (!run->of[v])
            return err_set(err, ERR_INVALID_ARGUMENT, "output '%s' was never computed",
                           g->values[v]->name);
        /* The last one to ask for a value of ours takes it; others get copies. */
        if (run->owned[v] && run->readers[v] == 1) {
            outputs[i] = (struct tensor *)run->of[v];
            run->owned[v] = false;
        } else {
            outputs[i] = tensor_clone(run->of[v], err);
        }
        if (!outputs[i])
            return -ERR_RESOURCE_EXHAUSTED;
        run->readers[v]--;
    }
    return 0;
}

int eval_graph(const struct graph *g, const struct tensor *const *inputs, struct tensor **outputs,
               struct err *err)
{
    struct err own = {0};
    if (!err)
        err = &own;
    _cleanup_(run_release) struct run run = {0};
    for (int i = 0; i < g->n_outputs; i++)
        outputs[i] = NULL;
    int rc = run_init(&run, g, err);
    if (rc == 0)
        rc = run_bind(&run, inputs, err);
    for (int i = 0; rc == 0 && i < g->n_nodes; i++) {
        if (!g->nodes[i]->dead)
            rc = run_node(&run, g->nodes[i], err);
    }
    if (rc == 0)
        rc = run_collect(&run, outputs, err);
    for (int i = 0; rc < 0 && i < g->n_outputs; i++)
        outputs[i] = tensor_free(outputs[i]);
    return rc;
}
