/* Pools of the whole picture. */
#include <string.h>

#include "shared/nn/kernel.h"
#include "shared/train/net_priv.h"

KERNEL_FILE

enum { CHUNK = 1024 };

struct global {
    bool most; /* GlobalMaxPool */
    int arg;   /* planned buffer s32 [n, c]: which pixel was the largest */
    int sums;  /* planned buffer f32 [c] */
};

static inline void rows_body(float *sums, const float *rows, int64_t n, int64_t c)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++)
            sums[k] += rows[i * c + k];
}
KERNEL(rows, (float *sums, const float *rows, int64_t n, int64_t c), (sums, rows, n, c))

static void mean_sample(const struct val *x, const char *from, float *sums, float *row)
{
    const size_t size = dtype_bytes(x->dtype);
    memset(sums, 0, (size_t)x->c * sizeof(float));
    for (int64_t p = 0; p < x->plane; p++) {
        kernel_load(row, from + (size_t)(p * x->c) * size, x->dtype, x->c);
        KERNEL_PICK(rows)(sums, row, 1, x->c);
    }
    for (int64_t k = 0; k < x->c; k++)
        sums[k] /= (float)x->plane;
}

static void most_sample(const struct val *x, const char *from, float *most, float *row,
                        int32_t *arg)
{
    const size_t size = dtype_bytes(x->dtype);
    kernel_load(most, from, x->dtype, x->c);
    memset(arg, 0, (size_t)x->c * sizeof(*arg));
    for (int64_t p = 1; p < x->plane; p++) {
        kernel_load(row, from + (size_t)(p * x->c) * size, x->dtype, x->c);
        for (int64_t k = 0; k < x->c; k++) {
            if (row[k] > most[k]) {
                most[k] = row[k];
                arg[k] = (int32_t)p;
            }
        }
    }
}

static int global_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct global *g = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    const char *from = lane_at(lane, x->data);
    char *to = lane_at(lane, y->data);
    float *sums = lane_at(lane, g->sums), *row = sums + x->c;
    const size_t sample = (size_t)val_width(x) * dtype_bytes(x->dtype);
    for (int64_t i = 0; i < x->n; i++) {
        if (g->most)
            most_sample(x, from + (size_t)i * sample, sums, row,
                        (int32_t *)lane_at(lane, g->arg) + i * x->c);
        else
            mean_sample(x, from + (size_t)i * sample, sums, row);
        kernel_store(to + (size_t)(i * x->c) * dtype_bytes(y->dtype), sums, y->dtype, x->c);
    }
    return 0;
}

static int global_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct global *g = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    const char *from = lane_at(lane, y->grad);
    char *to = lane_at(lane, op->in_grad[0]);
    float *d = lane_at(lane, g->sums), *row = d + x->c;
    const size_t pixel = (size_t)x->c * dtype_bytes(x->dtype);
    const int32_t *arg = g->most ? lane_at(lane, g->arg) : NULL;
    for (int64_t i = 0; i < x->n; i++) {
        kernel_load(d, from + (size_t)(i * x->c) * dtype_bytes(y->dtype), y->dtype, x->c);
        for (int64_t k = 0; k < x->c; k++)
            row[k] = d[k] / (float)x->plane;
        for (int64_t p = 0; p < x->plane; p++) {
            for (int64_t k = 0; g->most && k < x->c; k++)
                row[k] = arg[i * x->c + k] == p ? d[k] : 0;
            kernel_store(to + (size_t)(i * x->plane + p) * pixel, row, x->dtype, x->c);
        }
    }
    return 0;
}

static int plan_global(struct compiler *c, struct tape_op *op, struct err *err)
{
    const struct global *g = op->state;
    compile_backward_use(c, op, g->sums);
    if (g->most)
        compile_backward_use(c, op, g->arg);
    return compile_edge(c, op, 0, err);
}

static const struct op_kind global_kind = {.name = "global pool",
                                           .plan = plan_global,
                                           .forward = global_forward,
                                           .backward = global_backward};

int make_global_pool(struct compiler *c, const struct node *node, struct err *err)
{
    int in = compile_val_of(c, node->inputs[0]);
    int out = compile_val(c, node->outputs[0], DTYPE_F32, -1, err);
    struct tape_op *op =
        out < 0 ? NULL
                : compile_op(c, &global_kind, node, 1, &in, 1, &out, sizeof(struct global), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    struct global *g = op->state;
    const struct val *x = &c->net->vals[in];
    g->most = node->op == OP_GLOBAL_MAX_POOL;
    if (x->plane > INT32_MAX)
        return compile_refuse(node, err, "too many pixels");
    g->sums = compile_buffer(c, HOME_PLANNED, 2 * (size_t)x->c * sizeof(float), err);
    g->arg = g->sums < 0
                 ? g->sums
                 : compile_buffer(c, HOME_PLANNED,
                                  g->most ? (size_t)(x->n * x->c) * sizeof(int32_t) : 0, err);
    if (g->arg < 0)
        return g->arg;
    compile_forward_use(c, op, g->sums);
    compile_forward_use(c, op, g->arg);
    return 0;
}
