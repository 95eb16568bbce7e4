/*
 * A graph becomes a tape of operators.
 *
 * Forward: each node (or several that one operator does) becomes an operator, in the graph's order.
 * Then, in reverse order, each operator says what its backward reads and writes; by then it is
 * known who else wants the gradient of its inputs.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/graph/passes.h"
#include "shared/train/net_priv.h"

int net_grow(void *items, int *n, int *cap, size_t size, struct err *err)
{
    void **array = items;
    if (*n == *cap) {
        int more = *cap ? 2 * *cap : 32;
        void *grown = mem_realloc(*array, (size_t)more, size);
        if (!grown)
            return err_oom(err, "the network");
        *array = grown;
        *cap = more;
    }
    memset((char *)*array + (size_t)*n * size, 0, size);
    return (*n)++;
}

int compile_refuse(const struct node *node, struct err *err, const char *why)
{
    return err_set(err, ERR_UNIMPLEMENTED, "node '%s' (%s): cannot be trained through%s%s",
                   node->name, op_name(node->op), *why ? ": " : "", why);
}

const struct tensor *compile_constant(const struct compiler *c, const struct node *node, int i)
{
    const struct value *v = graph_input_of(c->g, node, i);
    const struct quantized *q = v ? compile_quantized(c, node->inputs[i]) : NULL;
    if (q)
        return &q->floats;
    return v && v->constant && v->constant->dtype == DTYPE_F32 ? v->constant : NULL;
}

int64_t val_offset(const struct val *v, int64_t i)
{
    return v->plane == 1 ? i : i % v->plane * v->c + i / v->plane;
}

/* ---- buffers ---- */

int compile_buffer(struct compiler *c, enum home home, size_t bytes, struct err *err)
{
    struct train_net *net = c->net;
    int i = net_grow(&net->buffers, &net->n_buffers, &net->cap_buffers, sizeof(*net->buffers), err);
    if (i < 0)
        return i;
    net->buffers[i] = (struct buffer){.home = home, .bytes = bytes, .first = INT32_MAX, .last = -1};
    return i;
}

static void touch(struct buffer *b, int time)
{
    if (time < b->first)
        b->first = time;
    if (time > b->last)
        b->last = time;
}

void compile_forward_use(struct compiler *c, const struct tape_op *op, int buffer)
{
    touch(&c->net->buffers[buffer], op->index);
}

/* Backward runs after all forwards and the loss, in reverse. */
void compile_backward_use(struct compiler *c, const struct tape_op *op, int buffer)
{
    touch(&c->net->buffers[buffer], 2 * c->net->n_ops - op->index);
}

/* ---- values ---- */

static int slice_shape(const struct compiler *c, const struct value *v, struct shape *ret,
                       struct err *err)
{
    char text[128];
    *ret = v->shape;
    if (!v->shape_known || v->dtype != DTYPE_F32)
        return err_set(err, ERR_UNIMPLEMENTED, "value '%s': %s cannot be trained through", v->name,
                       dtype_name(v->dtype));
    if (ret->rank < 1 || ret->dim[0] != DIM_BATCH)
        return err_set(err, ERR_UNIMPLEMENTED, "value '%s': shape %s does not begin with the batch",
                       v->name, shape_text(&v->shape, text));
    ret->dim[0] = c->net->slice;
    for (int d = 0; d < ret->rank; d++)
        if (ret->dim[d] <= 0)
            return err_set(err, ERR_INVALID_ARGUMENT, "value '%s': shape %s is empty", v->name,
                           shape_text(&v->shape, text));
    int rc = shape_check(ret, err);
    if (rc < 0)
        return err_wrap(err, "value '%s'", v->name);
    /* the whole is checked when it is planned; this before anything of that size is taken */
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if ((double)shape_elements(ret) * sizeof(float) > have / 8)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "value '%s': a slice of %s is too large for this machine's memory", v->name,
                       shape_text(ret, text));
    return 0;
}

int compile_val(struct compiler *c, int value, enum dtype dtype, int alias, struct err *err)
{
    struct train_net *net = c->net;
    struct shape shape;
    int rc = slice_shape(c, c->g->values[value], &shape, err);
    int i =
        rc < 0 ? rc : net_grow(&net->vals, &net->n_vals, &net->cap_vals, sizeof(*net->vals), err);
    if (i < 0)
        return i;
    struct val *v = &net->vals[i];
    *v = (struct val){.name = c->g->values[value]->name,
                      .shape = shape,
                      .n = shape.dim[0],
                      .c = shape.rank > 1 ? shape.dim[1] : 1,
                      .plane = 1,
                      .dtype = dtype,
                      .grad = -1,
                      .grad2 = -1};
    for (int d = 2; d < shape.rank; d++)
        v->plane *= shape.dim[d];
    int data =
        alias >= 0 ? net->vals[alias].data : compile_buffer(c, HOME_PLANNED, val_bytes(v), err);
    if (data < 0)
        return data;
    net->vals[i].data = data;
    c->val_of[value] = i;
    return i;
}

int compile_val_of(struct compiler *c, int value)
{
    return value < 0 ? -1 : c->val_of[value];
}

/* ---- operators ---- */

struct tape_op *compile_op(struct compiler *c, const struct op_kind *kind, const struct node *node,
                           int n_in, const int *in, int n_out, const int *out, size_t state_bytes,
                           struct err *err)
{
    struct train_net *net = c->net;
    int i = net_grow(&net->ops, &net->n_ops, &net->cap_ops, sizeof(struct tape_op *), err);
    if (i < 0)
        return NULL;
    struct tape_op *op = arena_alloc(net->arena, 1, sizeof(*op));
    net->ops[i] = op;
    if (op) {
        *op = (struct tape_op){.kind = kind,
                               .index = i,
                               .n_in = n_in,
                               .n_out = n_out,
                               .name = node ? node->name : "",
                               .type = node ? op_name(node->op) : ""};
        op->in = arena_memdup(net->arena, in, (size_t)n_in * sizeof(int));
        op->out = arena_memdup(net->arena, out, (size_t)n_out * sizeof(int));
        op->in_grad = arena_alloc(net->arena, (size_t)n_in, sizeof(int));
        op->state = arena_alloc(net->arena, 1, state_bytes);
    }
    if (!op || !op->in || !op->out || !op->in_grad || !op->state) {
        net->n_ops--;
        err_oom(err, "an operator");
        return NULL;
    }
    bool grad = false;
    for (int k = 0; k < n_in; k++) {
        op->in_grad[k] = -1;
        grad = grad || net->vals[in[k]].needs_grad;
        compile_forward_use(c, op, net->vals[in[k]].data);
    }
    for (int k = 0; k < n_out; k++) {
        net->vals[out[k]].needs_grad = grad;
        compile_forward_use(c, op, net->vals[out[k]].data);
    }
    return op;
}

static int add_edge(struct compiler *c, struct tape_op *op, int i, int buffer, bool shared,
                    struct err *err)
{
    struct val *v = &c->net->vals[op->in[i]];
    if (v->n_edges == MAX_EDGES)
        return err_set(err, ERR_UNIMPLEMENTED, "value '%s': more than %d operators read it",
                       v->name, MAX_EDGES);
    v->edge_shared[v->n_edges] = shared;
    v->edges[v->n_edges++] = buffer;
    op->in_grad[i] = buffer;
    return 0;
}

int compile_edge(struct compiler *c, struct tape_op *op, int i, struct err *err)
{
    op->in_grad[i] = -1;
    if (!c->net->vals[op->in[i]].needs_grad)
        return 0;
    int b = compile_buffer(c, HOME_PLANNED, val_bytes(&c->net->vals[op->in[i]]), err);
    if (b < 0)
        return b;
    compile_backward_use(c, op, b);
    return add_edge(c, op, i, b, false, err);
}

int compile_pass_edge(struct compiler *c, struct tape_op *op, int i, int buffer, bool shared,
                      struct err *err)
{
    op->in_grad[i] = -1;
    return c->net->vals[op->in[i]].needs_grad ? add_edge(c, op, i, buffer, shared, err) : 0;
}

static int add_sum(struct compiler *c, struct tape_op *op, const struct val *v, int to, int from,
                   bool assign, struct err *err)
{
    if (op->n_sums == MAX_SUMS)
        return err_set(err, ERR_UNIMPLEMENTED, "node '%s' (%s): too many gradients", op->name,
                       op->type);
    op->sums[op->n_sums].to = to;
    op->sums[op->n_sums].from = from;
    op->sums[op->n_sums].assign = assign;
    op->sums[op->n_sums].dtype = v->dtype;
    op->sums[op->n_sums++].n = val_elements(v);
    compile_backward_use(c, op, to);
    if (from >= 0)
        compile_backward_use(c, op, from);
    return 0;
}

static void swap_edges(struct val *v, int i, int j)
{
    int b = v->edges[i];
    bool s = v->edge_shared[i];
    v->edges[i] = v->edges[j];
    v->edge_shared[i] = v->edge_shared[j];
    v->edges[j] = b;
    v->edge_shared[j] = s;
}

/* The gradients that readers left for an output become one, or two where the operator adds them. */
static int gather_gradients(struct compiler *c, struct tape_op *op, int out, struct err *err)
{
    struct val *v = &c->net->vals[out];
    bool two = op->kind->grads == 2 && v->n_edges == 2 && v->edges[0] != v->edges[1];
    for (int i = 1; i < v->n_edges; i++)
        if (v->edge_shared[0] && !v->edge_shared[i])
            swap_edges(v, 0, i);
    if (v->n_edges == 1 || two) {
        v->grad = v->edges[0];
        v->grad_shared = v->edge_shared[0];
        v->grad2 = two ? v->edges[1] : -1;
    } else {
        bool fresh = v->n_edges == 0 || v->edge_shared[0];
        v->grad = fresh ? compile_buffer(c, HOME_PLANNED, val_bytes(v), err) : v->edges[0];
        if (v->grad < 0)
            return v->grad;
        v = &c->net->vals[out];
        int rc = fresh ? add_sum(c, op, v, v->grad, v->n_edges ? v->edges[0] : -1, true, err) : 0;
        for (int i = 1; rc == 0 && i < v->n_edges; i++)
            rc = add_sum(c, op, v, v->grad, v->edges[i], false, err);
        if (rc < 0)
            return rc;
    }
    compile_backward_use(c, op, v->grad);
    if (v->grad2 >= 0)
        compile_backward_use(c, op, v->grad2);
    return 0;
}

static int plan_backward(struct compiler *c, struct err *err)
{
    struct train_net *net = c->net;
    for (int i = net->n_ops - 1; i >= 0; i--) {
        struct tape_op *op = net->ops[i];
        bool wanted = op->n_out == 0;
        for (int k = 0; k < op->n_out; k++)
            wanted = wanted || (net->vals[op->out[k]].needs_grad && net->vals[op->out[k]].n_edges);
        if (!wanted)
            continue;
        int rc = 0;
        for (int k = 0; rc == 0 && k < op->n_out; k++)
            rc = gather_gradients(c, op, op->out[k], err);
        if (rc == 0 && op->kind->plan)
            rc = op->kind->plan(c, op, err);
        if (rc < 0)
            return rc;
        op->has_backward = op->kind->backward != NULL;
    }
    return 0;
}

/* ---- parameters ---- */

int compile_param(struct compiler *c, int value, enum train_role role, struct err *err)
{
    struct train_net *net = c->net;
    for (int i = 0; i < net->n_params; i++)
        if (net->param_value[i] == value)
            return i;
    struct quantized *q = compile_quantized(c, value);
    const struct value *v = c->g->values[value];
    const struct tensor *from = q ? &q->floats : v->constant;
    int cap = net->cap_params, n = net->n_params;
    int i = net_grow(&net->params, &net->n_params, &net->cap_params, sizeof(*net->params), err);
    if (i >= 0)
        i = net_grow(&net->param_value, &n, &cap, sizeof(int), err);
    if (i < 0)
        return i;
    net->param_value[i] = value;
    struct train_param *p = &net->params[i];
    *p = (struct train_param){
        .name = v->name, .role = role, .shape = from->shape, .n = shape_elements(&from->shape)};
    p->value = arena_memdup(net->arena, from->data, (size_t)p->n * sizeof(float));
    p->grad = arena_alloc(net->arena, (size_t)p->n, sizeof(float));
    if (q)
        q->param = i;
    return p->value && p->grad ? i : err_oom(err, "a parameter");
}

int compile_state(struct compiler *c, int value, struct err *err)
{
    struct train_net *net = c->net;
    for (int i = 0; i < net->n_states; i++)
        if (net->state_value[i] == value)
            return i;
    const struct value *v = c->g->values[value];
    int cap = net->cap_states, n = net->n_states;
    int i = net_grow(&net->states, &net->n_states, &net->cap_states, sizeof(*net->states), err);
    if (i >= 0)
        i = net_grow(&net->state_value, &n, &cap, sizeof(int), err);
    if (i < 0)
        return i;
    net->state_value[i] = value;
    struct train_state *s = &net->states[i];
    *s = (struct train_state){.name = v->name, .n = shape_elements(&v->constant->shape)};
    s->value = arena_memdup(net->arena, v->constant->data, (size_t)s->n * sizeof(float));
    return s->value ? i : err_oom(err, "running statistics");
}

int compile_slot(struct compiler *c, int param, int64_t acc_n, struct err *err)
{
    struct train_net *net = c->net;
    int acc = compile_buffer(c, HOME_LANE, (size_t)acc_n * sizeof(float), err);
    if (acc < 0)
        return acc;
    int i = net_grow(&net->slots, &net->n_slots, &net->cap_slots, sizeof(*net->slots), err);
    if (i >= 0)
        net->slots[i] = (struct slot){.param = param,
                                      .scale = 1,
                                      .quantized = compile_quantized(c, net->param_value[param]),
                                      .scaled = -1,
                                      .acc = acc,
                                      .acc_n = acc_n};
    return i;
}

int compile_plain(struct compiler *c, int param, struct err *err)
{
    struct train_net *net = c->net;
    size_t bytes = (size_t)net->params[param].n * sizeof(float);
    if (net->plain < 0)
        net->plain = compile_buffer(c, HOME_LANE, bytes, err);
    if (net->plain >= 0 && net->buffers[net->plain].bytes < bytes)
        net->buffers[net->plain].bytes = bytes;
    return net->plain;
}

/* ---- nodes ---- */

bool compile_clip(const struct compiler *c, const struct node *node, float *low, float *high)
{
    *low = node_float(node, "min", -INFINITY);
    *high = node_float(node, "max", INFINITY);
    for (int i = 1; i < node->n_inputs && i < 3; i++) {
        const struct tensor *t = compile_constant(c, node, i);
        if (node->inputs[i] < 0)
            continue;
        if (!t || shape_elements(&t->shape) != 1)
            return false;
        *(i == 1 ? low : high) = *(const float *)t->data;
    }
    return true;
}

static make_op *const makers[OP_COUNT] = {
    [OP_CONV] = make_conv,
    [OP_GEMM] = make_gemm,
    [OP_MATMUL] = make_gemm,
    [OP_BATCH_NORMALIZATION] = make_norm,
    [OP_RELU] = make_unary,
    [OP_LEAKY_RELU] = make_unary,
    [OP_CLIP] = make_unary,
    [OP_SIGMOID] = make_unary,
    [OP_HARD_SIGMOID] = make_unary,
    [OP_HARD_SWISH] = make_unary,
    [OP_TANH] = make_unary,
    [OP_ELU] = make_unary,
    [OP_ADD] = make_binary,
    [OP_SUB] = make_binary,
    [OP_MUL] = make_binary,
    [OP_DIV] = make_binary,
    [OP_GLOBAL_AVERAGE_POOL] = make_global_pool,
    [OP_GLOBAL_MAX_POOL] = make_global_pool,
    [OP_FLATTEN] = make_move,
    [OP_RESHAPE] = make_move,
    [OP_SQUEEZE] = make_move,
    [OP_UNSQUEEZE] = make_move,
    [OP_CONCAT] = make_move,
    [OP_SPLIT] = make_move,
    [OP_SLICE] = make_move,
    [OP_PAD] = make_move,
    [OP_TRANSPOSE] = make_move,
    [OP_RESIZE] = make_move,
    [OP_UPSAMPLE] = make_move,
    [OP_IDENTITY] = make_alias,
    [OP_MAX_POOL] = make_pool,
    [OP_AVERAGE_POOL] = make_pool,
    [OP_LRN] = make_lrn,
    [OP_DROPOUT] = make_dropout,
    [OP_PRELU] = make_prelu,
    [OP_CONV_TRANSPOSE] = make_conv_transpose,
    [OP_QUANTIZE_LINEAR] = make_quantize,
    [OP_DEQUANTIZE_LINEAR] = make_dequantize,
};

/* Only layers quantize their constants themselves. */
static bool takes_quantized(const struct node *node)
{
    return node->op == OP_CONV || node->op == OP_CONV_TRANSPOSE || node->op == OP_GEMM ||
           node->op == OP_MATMUL;
}

static int check_inputs(const struct compiler *c, const struct node *node, struct err *err)
{
    for (int k = 0; k < node->n_inputs; k++) {
        const int v = node->inputs[k];
        const bool quantized = v >= 0 && compile_quantized(c, v);
        if (quantized && (k == 0 || !takes_quantized(node)))
            return compile_refuse(node, err, "its constant is quantized");
        if (v >= 0 && !quantized && !c->g->values[v]->constant && c->val_of[v] < 0 &&
            !c->waiting[v] && c->g->values[v]->dtype == DTYPE_F32)
            return err_set(err, ERR_INTERNAL, "node '%s': input '%s' has not been made", node->name,
                           c->g->values[v]->name);
    }
    return 0;
}

static int make_nodes(struct compiler *c, struct err *err)
{
    for (int i = 0; i < c->g->n_nodes; i++) {
        const struct node *node = c->g->nodes[i];
        if (node->dead || c->taken[i])
            continue;
        int rc = check_inputs(c, node, err);
        if (rc == 0)
            rc = makers[node->op] ? makers[node->op](c, node, err) : compile_refuse(node, err, "");
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int find_outputs(struct compiler *c, int *values, struct err *err)
{
    struct train_net *net = c->net;
    values[0] = graph_logits(c->g);
    for (int t = 0; t < net->options.n_taps; t++) {
        const char *name = net->options.taps[t];
        values[1 + t] = graph_find_value(c->g, name);
        if (values[1 + t] < 0)
            return err_set(err, ERR_NOT_FOUND, "the network has no value '%s' to tap", name);
    }
    return 0;
}

/* Nodes that no output needs are left out. */
static int skip_unneeded(struct compiler *c, int n, const int *values, struct err *err)
{
    bool *needed = arena_alloc(c->scratch, (size_t)c->g->n_values, sizeof(*needed));
    if (!needed)
        return err_oom(err, "the network");
    for (int i = 0; i < n; i++)
        needed[values[i]] = true;
    for (int i = c->g->n_nodes - 1; i >= 0; i--) {
        const struct node *node = c->g->nodes[i];
        bool wanted = false;
        for (int k = 0; k < node->n_outputs; k++)
            wanted = wanted || (node->outputs[k] >= 0 && needed[node->outputs[k]]);
        c->taken[i] = !wanted || node->dead;
        for (int k = 0; !c->taken[i] && k < node->n_inputs; k++)
            if (node->inputs[k] >= 0)
                needed[node->inputs[k]] = true;
    }
    return 0;
}

static int compile(struct compiler *c, struct err *err)
{
    struct train_net *net = c->net;
    net->n_outputs = 1 + net->options.n_taps;
    net->outputs = arena_alloc(net->arena, (size_t)net->n_outputs, sizeof(*net->outputs));
    int *values = arena_alloc(c->scratch, (size_t)net->n_outputs, sizeof(int));
    c->val_of = arena_alloc(c->scratch, (size_t)c->g->n_values, sizeof(int));
    c->taken = arena_alloc(c->scratch, (size_t)c->g->n_nodes, sizeof(bool));
    c->waiting = arena_alloc(c->scratch, (size_t)c->g->n_values, sizeof(bool));
    if (!net->outputs || !values || !c->val_of || !c->taken || !c->waiting)
        return err_oom(err, "the network");
    memset(c->val_of, 0xff, (size_t)c->g->n_values * sizeof(int));
    net->plain = -1;
    int rc = find_outputs(c, values, err);
    if (rc == 0)
        rc = skip_unneeded(c, net->n_outputs, values, err);
    if (rc == 0)
        rc = graph_uses(c->g, c->scratch, &c->uses, err);
    for (int i = 0; rc == 0 && i < net->n_outputs; i++)
        c->uses.is_output[values[i]] = true;
    if (rc == 0)
        rc = compile_quantized_all(c, err);
    if (rc == 0)
        compile_begin_quantized(c);
    if (rc == 0)
        rc = make_input(c, c->g->inputs[0], err);
    if (rc == 0)
        rc = make_nodes(c, err);
    for (int i = 0; rc == 0 && i < net->n_outputs; i++)
        rc = make_output(c, values[i], &net->outputs[i], err);
    return rc == 0 ? plan_backward(c, err) : rc;
}

/* ---- the slice ---- */

/* Mean number of elements of what convolutions and products yield for one sample. */
static int64_t typical_width(const struct graph *g)
{
    int64_t n = 0;
    double sum = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        if (node->dead || (node->op != OP_CONV && node->op != OP_GEMM && node->op != OP_MATMUL))
            continue;
        sum += (double)shape_elements_at(&g->values[node->outputs[0]]->shape, 1);
        n++;
    }
    return n && sum / (double)n >= 1 ? (int64_t)(sum / (double)n) : 1;
}

static int64_t divisor_between(int64_t batch, int64_t low, int64_t high)
{
    for (int64_t d = high; d >= low; d--)
        if (batch % d == 0)
            return d;
    return 0;
}

/* Norms take their statistics over a slice: 64 samples where every lane then has work and such a
 * tensor of a slice has no more than a core's share of the last cache, else as many as that takes,
 * but 8. A function of the network, batch, threads and precision alone. */
enum { SLICE_SAMPLES = 64, SLICE_LEAST = 8, SLICE_BYTES = 4 << 20 };

static int64_t choose_slice(const struct train_net *net, int64_t sample_bytes)
{
    int64_t batch = net->options.batch, most = batch / net->options.threads;
    int64_t fits = SLICE_BYTES / sample_bytes;
    fits = fits > SLICE_SAMPLES ? SLICE_SAMPLES : fits;
    most = most < 1 ? 1 : most;
    int64_t least = most < SLICE_LEAST ? most : SLICE_LEAST;
    fits = fits < least ? least : fits > most ? most : fits;
    int64_t d = divisor_between(batch, least, fits);
    for (int64_t above = fits; d == 0 && above <= most; above++)
        d = batch % above == 0 ? above : 0;
    return d ? d : divisor_between(batch, 1, most);
}

static int settle_slices(struct train_net *net, struct err *err)
{
    struct train_net_options *o = &net->options;
    if (o->slice == 0)
        o->slice = choose_slice(net, typical_width(net->graph) *
                                         (net->precision == PRECISION_BF16 ? 2 : 4));
    if (o->slice < 1 || o->batch % o->slice != 0)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "a slice of %" PRId64 " samples does not divide the batch of %" PRId64,
                       o->slice, o->batch);
    net->slice = o->slice;
    net->slices = o->batch / o->slice;
    net->n_lanes = net->slices < o->threads ? (int)net->slices : o->threads;
    return 0;
}

/* Cleaning that keeps BatchNormalization and Dropout. */
static int clean(struct graph *g, struct err *err)
{
    if (g->n_inputs != 1 || g->n_outputs < 1)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "the network has %d inputs and %d outputs: training needs one input and an "
                       "output",
                       g->n_inputs, g->n_outputs);
    int rc = graph_infer(g, err);
    if (rc >= 0)
        rc = graph_make_batch_symbolic(g, err);
    if (rc >= 0)
        rc = pass_fold_constants(g, err);
    if (rc >= 0)
        rc = pass_canonicalise(g, err);
    if (rc >= 0)
        rc = pass_fold_pad(g, err);
    if (rc >= 0)
        rc = pass_fold_constants(g, err);
    return rc < 0 ? rc : 0;
}

int net_compile(struct train_net *net, struct err *err)
{
    _cleanup_(arena_freep) struct arena *scratch = arena_new();
    struct compiler c = {.net = net, .g = net->graph, .scratch = scratch, .engine = train_engine()};
    if (!scratch || !c.engine)
        return err_oom(err, "the network");
    int rc = clean(net->graph, err);
    if (rc == 0)
        rc = settle_slices(net, err);
    return rc == 0 ? compile(&c, err) : rc;
}
