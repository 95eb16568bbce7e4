/*
 * Operators that treat elements one by one: activations, sums and products.
 *
 * They go through the data in chunks that are widened to fp32, worked on, and narrowed again while
 * they are in the first cache; so each formula is written once.
 */
#include <math.h>
#include <string.h>

#include "shared/nn/kernel.h"
#include "shared/train/net_priv.h"

KERNEL_FILE

enum { CHUNK = 1024 };

static void read_chunk(float *to, const struct lane *lane, int buffer, enum dtype dtype, int64_t at,
                       int64_t n)
{
    const char *from = lane_at(lane, buffer);
    kernel_load(to, from + (size_t)at * dtype_bytes(dtype), dtype, n);
}

static void write_chunk(const struct lane *lane, int buffer, enum dtype dtype, int64_t at,
                        const float *from, int64_t n)
{
    char *to = lane_at(lane, buffer);
    kernel_store(to + (size_t)at * dtype_bytes(dtype), from, dtype, n);
}

/* ---- one operand ---- */

enum formula { RELU, LEAKY, CLAMP, SIGMOID, HARD_SIGMOID, HARD_SWISH, TANH_, ELU_ };

struct unary {
    enum formula formula;
    float alpha, beta; /* LEAKY, ELU: slope; CLAMP: bounds; HARD_SIGMOID: alpha * x + beta */
};

static inline float bounded(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

static inline void unary_body(const struct unary *u, float *x, int64_t n)
{
    const float a = u->alpha, b = u->beta;
    switch (u->formula) {
    case RELU:
        for (int64_t i = 0; i < n; i++)
            x[i] = x[i] > 0 ? x[i] : 0;
        break;
    case LEAKY:
        for (int64_t i = 0; i < n; i++)
            x[i] = x[i] > 0 ? x[i] : a * x[i];
        break;
    case CLAMP:
        for (int64_t i = 0; i < n; i++)
            x[i] = bounded(x[i], a, b);
        break;
    case SIGMOID:
        for (int64_t i = 0; i < n; i++)
            x[i] = 1 / (1 + expf(-x[i]));
        break;
    case HARD_SIGMOID:
        for (int64_t i = 0; i < n; i++)
            x[i] = bounded(a * x[i] + b, 0, 1);
        break;
    case HARD_SWISH:
        for (int64_t i = 0; i < n; i++)
            x[i] *= bounded(x[i] / 6 + 0.5f, 0, 1);
        break;
    case TANH_:
        for (int64_t i = 0; i < n; i++)
            x[i] = tanhf(x[i]);
        break;
    case ELU_:
        for (int64_t i = 0; i < n; i++)
            x[i] = x[i] > 0 ? x[i] : a * expm1f(x[i]);
        break;
    }
}
KERNEL(unary, (const struct unary *u, float *x, int64_t n), (u, x, n))

/* dy becomes dx; x is the operand. */
static inline void unary_back_body(const struct unary *u, const float *x, float *d, int64_t n)
{
    const float a = u->alpha, b = u->beta;
    switch (u->formula) {
    case RELU:
        for (int64_t i = 0; i < n; i++)
            d[i] = x[i] > 0 ? d[i] : 0;
        break;
    case LEAKY:
        for (int64_t i = 0; i < n; i++)
            d[i] = x[i] > 0 ? d[i] : a * d[i];
        break;
    case CLAMP:
        for (int64_t i = 0; i < n; i++)
            d[i] = x[i] > a && x[i] < b ? d[i] : 0;
        break;
    case SIGMOID:
        for (int64_t i = 0; i < n; i++) {
            float y = 1 / (1 + expf(-x[i]));
            d[i] *= y * (1 - y);
        }
        break;
    case HARD_SIGMOID:
        for (int64_t i = 0; i < n; i++) {
            float y = a * x[i] + b;
            d[i] = y > 0 && y < 1 ? a * d[i] : 0;
        }
        break;
    case HARD_SWISH:
        for (int64_t i = 0; i < n; i++)
            d[i] *= x[i] <= -3 ? 0 : x[i] >= 3 ? 1 : x[i] / 3 + 0.5f;
        break;
    case TANH_:
        for (int64_t i = 0; i < n; i++) {
            float y = tanhf(x[i]);
            d[i] *= 1 - y * y;
        }
        break;
    case ELU_:
        for (int64_t i = 0; i < n; i++)
            d[i] *= x[i] > 0 ? 1 : a * expf(x[i]);
        break;
    }
}
KERNEL(unary_back, (const struct unary *u, const float *x, float *d, int64_t n), (u, x, d, n))

static int unary_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    float chunk[CHUNK];
    for (int64_t i = 0, n = val_elements(x); i < n; i += CHUNK) {
        int64_t count = n - i < CHUNK ? n - i : CHUNK;
        read_chunk(chunk, lane, x->data, x->dtype, i, count);
        KERNEL_PICK(unary)(op->state, chunk, count);
        write_chunk(lane, y->data, y->dtype, i, chunk, count);
    }
    return 0;
}

static int unary_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    float from[CHUNK], d[CHUNK];
    for (int64_t i = 0, n = val_elements(x); i < n; i += CHUNK) {
        int64_t count = n - i < CHUNK ? n - i : CHUNK;
        read_chunk(from, lane, x->data, x->dtype, i, count);
        read_chunk(d, lane, y->grad, y->dtype, i, count);
        KERNEL_PICK(unary_back)(op->state, from, d, count);
        write_chunk(lane, op->in_grad[0], x->dtype, i, d, count);
    }
    return 0;
}

static int plan_unary(struct compiler *c, struct tape_op *op, struct err *err)
{
    const struct val *y = &c->net->vals[op->out[0]];
    compile_backward_use(c, op, c->net->vals[op->in[0]].data);
    if (!y->grad_shared)
        return compile_pass_edge(c, op, 0, y->grad, false, err);
    return compile_edge(c, op, 0, err);
}

static const struct op_kind unary_kind = {
    .name = "activation", .plan = plan_unary, .forward = unary_forward, .backward = unary_backward};

static bool unary_of(const struct compiler *c, const struct node *node, struct unary *u)
{
    switch ((int)node->op) {
    case OP_RELU:
        *u = (struct unary){.formula = RELU};
        return true;
    case OP_LEAKY_RELU:
        *u = (struct unary){.formula = LEAKY, .alpha = node_float(node, "alpha", 0.01f)};
        return true;
    case OP_CLIP:
        *u = (struct unary){.formula = CLAMP};
        return compile_clip(c, node, &u->alpha, &u->beta);
    case OP_SIGMOID:
        *u = (struct unary){.formula = SIGMOID};
        return true;
    case OP_HARD_SIGMOID:
        *u = (struct unary){.formula = HARD_SIGMOID,
                            .alpha = node_float(node, "alpha", 0.2f),
                            .beta = node_float(node, "beta", 0.5f)};
        return true;
    case OP_HARD_SWISH:
        *u = (struct unary){.formula = HARD_SWISH};
        return true;
    case OP_TANH:
        *u = (struct unary){.formula = TANH_};
        return true;
    case OP_ELU:
        *u = (struct unary){.formula = ELU_, .alpha = node_float(node, "alpha", 1)};
        return true;
    default:
        return false;
    }
}

int make_unary(struct compiler *c, const struct node *node, struct err *err)
{
    struct unary u;
    if (!unary_of(c, node, &u))
        return compile_refuse(node, err, "its bounds are not constant");
    int in = compile_val_of(c, node->inputs[0]);
    int out = compile_val(c, node->outputs[0], c->net->vals[in].dtype, -1, err);
    struct tape_op *op =
        out < 0 ? NULL : compile_op(c, &unary_kind, node, 1, &in, 1, &out, sizeof(u), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(op->state, &u, sizeof(u));
    return 0;
}

/* ---- the same bytes ---- */

static int nothing(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)op;
    (void)lane;
    (void)err;
    return 0;
}

static int plan_alias(struct compiler *c, struct tape_op *op, struct err *err)
{
    const struct val *y = &c->net->vals[op->out[0]];
    return compile_pass_edge(c, op, 0, y->grad, y->grad_shared, err);
}

static const struct op_kind alias_kind = {
    .name = "alias", .plan = plan_alias, .forward = nothing, .backward = nothing};

int make_alias(struct compiler *c, const struct node *node, struct err *err)
{
    int in = compile_val_of(c, node->inputs[0]);
    int out = compile_val(c, node->outputs[0], c->net->vals[in].dtype, in, err);
    if (out < 0)
        return out;
    return compile_op(c, &alias_kind, node, 1, &in, 1, &out, 0, err) ? 0 : -ERR_RESOURCE_EXHAUSTED;
}

/* ---- two operands ---- */

/* How the second operand is read along the first: element by element, one for each sample and
 * channel, or the same for each sample (a constant). */
enum along { EACH, BY_CHANNEL, BY_SAMPLE };

struct binary {
    enum op op; /* ADD, SUB, MUL (Div by a constant is Mul by its inverse) */
    enum along along;
    bool reversed;   /* constant - x */
    float *constant; /* BY_SAMPLE: [sample], as the values lie in memory */
};

/* The second operand's chunk. */
static void read_second(const struct tape_op *op, const struct lane *lane, int64_t at, float *to,
                        int64_t n)
{
    const struct binary *b = op->state;
    const struct val *x = &lane->net->vals[op->in[0]];
    const struct val *s = b->along == BY_SAMPLE ? NULL : &lane->net->vals[op->in[1]];
    if (b->along == EACH) {
        read_chunk(to, lane, s->data, s->dtype, at, n);
        return;
    }
    const int64_t width = val_width(x);
    const char *data = s ? lane_at(lane, s->data) : NULL;
    for (int64_t i = 0; i < n;) {
        int64_t from = (at + i) % (b->along == BY_SAMPLE ? width : x->c), sample = (at + i) / width;
        int64_t run = (b->along == BY_SAMPLE ? width : x->c) - from;
        run = run < n - i ? run : n - i;
        if (b->along == BY_SAMPLE)
            memcpy(to + i, b->constant + from, (size_t)run * sizeof(float));
        else
            kernel_load(to + i, data + (size_t)(sample * x->c + from) * dtype_bytes(s->dtype),
                        s->dtype, run);
        i += run;
    }
}

static inline void binary_body(enum op op, bool reversed, float *x, const float *y, int64_t n)
{
    const float sign = op == OP_SUB ? -1 : 1;
    if (op == OP_MUL)
        for (int64_t i = 0; i < n; i++)
            x[i] *= y[i];
    else if (reversed)
        for (int64_t i = 0; i < n; i++)
            x[i] = y[i] - x[i];
    else
        for (int64_t i = 0; i < n; i++)
            x[i] += sign * y[i];
}
KERNEL(binary, (enum op op, bool reversed, float *x, const float *y, int64_t n),
       (op, reversed, x, y, n))

static int binary_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct binary *b = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    float first[CHUNK], second[CHUNK];
    for (int64_t i = 0, n = val_elements(x); i < n; i += CHUNK) {
        int64_t count = n - i < CHUNK ? n - i : CHUNK;
        read_chunk(first, lane, x->data, x->dtype, i, count);
        read_second(op, lane, i, second, count);
        KERNEL_PICK(binary)(b->op, b->reversed, first, second, count);
        write_chunk(lane, y->data, y->dtype, i, first, count);
    }
    return 0;
}

static int first_gradient(const struct tape_op *op, struct lane *lane)
{
    const struct binary *b = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    float d[CHUNK], second[CHUNK];
    for (int64_t i = 0, n = val_elements(x); i < n; i += CHUNK) {
        int64_t count = n - i < CHUNK ? n - i : CHUNK;
        read_chunk(d, lane, y->grad, y->dtype, i, count);
        if (b->op == OP_MUL) {
            read_second(op, lane, i, second, count);
            for (int64_t k = 0; k < count; k++)
                d[k] *= second[k];
        } else if (b->reversed) {
            for (int64_t k = 0; k < count; k++)
                d[k] = -d[k];
        }
        write_chunk(lane, op->in_grad[0], x->dtype, i, d, count);
    }
    return 0;
}

/* What the second operand's gradient is made of, element by element. */
static void second_terms(const struct tape_op *op, const struct lane *lane, int64_t at, float *d,
                         int64_t n)
{
    const struct binary *b = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    float first[CHUNK];
    read_chunk(d, lane, y->grad, y->dtype, at, n);
    if (b->op == OP_MUL) {
        read_chunk(first, lane, x->data, x->dtype, at, n);
        for (int64_t k = 0; k < n; k++)
            d[k] *= first[k];
    } else if (b->op == OP_SUB) {
        for (int64_t k = 0; k < n; k++)
            d[k] = -d[k];
    }
}

static void second_by_channel(const struct tape_op *op, struct lane *lane)
{
    const struct binary *b = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *s = &lane->net->vals[op->in[1]];
    float *sums = lane_at(lane, op->sums_work);
    float d[CHUNK];
    (void)b;
    memset(sums, 0, (size_t)(x->n * x->c) * sizeof(float));
    const int64_t width = val_width(x), n = val_elements(x);
    for (int64_t i = 0; i < n;) {
        int64_t left = width - i % width, count = left < CHUNK ? left : CHUNK;
        float *to = sums + i / width * x->c;
        second_terms(op, lane, i, d, count);
        int64_t channel = i % width % x->c;
        for (int64_t k = 0; k < count; k++) {
            to[channel] += d[k];
            channel = channel + 1 == x->c ? 0 : channel + 1;
        }
        i += count;
    }
    kernel_store(lane_at(lane, op->in_grad[1]), sums, s->dtype, x->n * x->c);
}

static int binary_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct binary *b = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    float d[CHUNK];
    /* the second first: the first's may lie where dy does */
    if (b->along == EACH && op->in_grad[1] >= 0 && op->in_grad[1] != y->grad) {
        for (int64_t i = 0, n = val_elements(x); i < n; i += CHUNK) {
            int64_t count = n - i < CHUNK ? n - i : CHUNK;
            second_terms(op, lane, i, d, count);
            write_chunk(lane, op->in_grad[1], lane->net->vals[op->in[1]].dtype, i, d, count);
        }
    } else if (b->along == BY_CHANNEL && op->in_grad[1] >= 0) {
        second_by_channel(op, lane);
    }
    return op->in_grad[0] >= 0 && op->in_grad[0] != y->grad ? first_gradient(op, lane) : 0;
}

static int plan_binary(struct compiler *c, struct tape_op *op, struct err *err)
{
    const struct binary *b = op->state;
    const struct train_net *net = c->net;
    const struct val *y = &net->vals[op->out[0]], *x = &net->vals[op->in[0]];
    const bool second = b->along != BY_SAMPLE && net->vals[op->in[1]].needs_grad;
    const bool both = x->needs_grad && second;
    int rc = 0;
    if (b->op == OP_MUL) {
        compile_backward_use(c, op, x->data);
        if (b->along != BY_SAMPLE)
            compile_backward_use(c, op, net->vals[op->in[1]].data);
    }
    /* of a sum the gradient itself goes on */
    bool passes = b->op != OP_MUL && !b->reversed && x->dtype == y->dtype;
    rc = passes ? compile_pass_edge(c, op, 0, y->grad, y->grad_shared || both, err)
                : compile_edge(c, op, 0, err);
    if (rc < 0 || !second)
        return rc;
    if (b->along == EACH && b->op == OP_ADD && net->vals[op->in[1]].dtype == y->dtype)
        return compile_pass_edge(c, op, 1, y->grad, y->grad_shared || both, err);
    rc = compile_edge(c, op, 1, err);
    if (rc < 0 || b->along != BY_CHANNEL)
        return rc;
    op->sums_work = compile_buffer(c, HOME_PLANNED, (size_t)(x->n * x->c) * sizeof(float), err);
    if (op->sums_work < 0)
        return op->sums_work;
    compile_backward_use(c, op, op->sums_work);
    return 0;
}

static const struct op_kind binary_kind = {.name = "sum or product",
                                           .plan = plan_binary,
                                           .forward = binary_forward,
                                           .backward = binary_backward};

static int emit_binary(struct compiler *c, const struct node *node, struct binary *b, int n_in,
                       const int *in, struct err *err)
{
    int out = compile_val(c, node->outputs[0], c->net->vals[in[0]].dtype, -1, err);
    struct tape_op *op =
        out < 0 ? NULL : compile_op(c, &binary_kind, node, n_in, in, 1, &out, sizeof(*b), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(op->state, b, sizeof(*b));
    return 0;
}

/* Constant `t`, broadcast to a sample of the val, as that lies in memory. NULL: it does not fit, or
 * (err set) no memory. */
static float *spread_constant(struct compiler *c, const struct val *v, const struct tensor *t,
                              struct err *err)
{
    if (t->shape.rank > v->shape.rank || (t->shape.rank == v->shape.rank && t->shape.dim[0] != 1))
        return NULL;
    int64_t strides[SHAPE_MAX_RANK] = {0}, stride = 1;
    int shift = v->shape.rank - t->shape.rank;
    for (int d = t->shape.rank - 1; d >= 0; d--) {
        if (t->shape.dim[d] != 1 && t->shape.dim[d] != v->shape.dim[d + shift])
            return NULL;
        strides[d + shift] = t->shape.dim[d] == 1 ? 0 : stride;
        stride *= t->shape.dim[d];
    }
    float *to = arena_alloc(c->net->arena, (size_t)val_width(v), sizeof(*to));
    if (!to) {
        err_oom(err, "a constant");
        return NULL;
    }
    for (int64_t i = 0; i < val_width(v); i++) {
        int64_t rest = i, from = 0;
        for (int d = v->shape.rank - 1; d > 0; d--) {
            from += rest % v->shape.dim[d] * strides[d];
            rest /= v->shape.dim[d];
        }
        to[val_offset(v, i)] = ((const float *)t->data)[from];
    }
    return to;
}

static int make_by_constant(struct compiler *c, const struct node *node, int data, struct err *err)
{
    const struct tensor *t = compile_constant(c, node, 1 - data);
    int in = compile_val_of(c, node->inputs[data]);
    if (!t || in < 0 ||
        !shape_equal(&c->g->values[node->inputs[data]]->shape,
                     &c->g->values[node->outputs[0]]->shape))
        return compile_refuse(node, err, "its operands");
    if (node->op == OP_DIV && data == 1)
        return compile_refuse(node, err, "the divisor is not constant");
    struct binary b = {
        .op = node->op, .along = BY_SAMPLE, .reversed = node->op == OP_SUB && data == 1};
    b.constant = spread_constant(c, &c->net->vals[in], t, err);
    if (!b.constant)
        return compile_refuse(node, err, "its constant is not the same for all samples");
    if (node->op == OP_DIV) {
        b.op = OP_MUL;
        for (int64_t i = 0; i < val_width(&c->net->vals[in]); i++)
            b.constant[i] = 1 / b.constant[i];
    }
    return emit_binary(c, node, &b, 1, &in, err);
}

int make_binary(struct compiler *c, const struct node *node, struct err *err)
{
    for (int i = 0; i < 2; i++)
        if (c->g->values[node->inputs[1 - i]]->constant)
            return make_by_constant(c, node, i, err);
    int rc = node->op == OP_ADD ? make_norm_and_add(c, node, err) : 0;
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (node->op == OP_DIV)
        return compile_refuse(node, err, "the divisor is not constant");
    int in[2] = {compile_val_of(c, node->inputs[0]), compile_val_of(c, node->inputs[1])};
    const struct val *x = &c->net->vals[in[0]], *y = &c->net->vals[in[1]];
    struct binary b = {.op = node->op, .along = EACH};
    if (!shape_equal(&x->shape, &y->shape)) {
        bool first = x->plane > 1 && y->plane == 1, second = y->plane > 1 && x->plane == 1;
        if (x->n != y->n || x->c != y->c || x->shape.rank != y->shape.rank || first == second ||
            (second && node->op == OP_SUB))
            return compile_refuse(node, err, "shapes other than equal ones or [N, C, 1, 1]");
        b.along = BY_CHANNEL;
        if (second) {
            int first_in = in[0];
            in[0] = in[1];
            in[1] = first_in;
        }
    }
    return emit_binary(c, node, &b, 2, in, err);
}
