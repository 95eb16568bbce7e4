/*
 * Operators that move elements within a sample: Slice, Pad, Concat, Split, Transpose, Reshape,
 * Flatten, Resize (nearest), ...
 *
 * What goes where is asked of the plain-C evaluation: two samples whose elements are numbered are
 * sent through the node, and what comes out are the numbers of the elements that were taken (or
 * constants, where both samples give the same). Runs of neighbours become one copy.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval.h"
#include "shared/train/net_priv.h"

/* `count` elements from `from` in a sample of input `in` to `to` in one of output `out`. */
struct run {
    int32_t in, out;
    int64_t from, to, count;
};

struct move {
    int64_t n_runs;
    struct run *runs;
    bool once;    /* no element of the inputs is taken twice */
    bool all;     /* every element is taken */
    bool fills;   /* outputs have elements that no run covers */
    float **fill; /* [n_out]: one sample of each, or NULL: zeros */
};

/* ---- running ---- */

static char *sample_at(const struct lane *lane, int buffer, const struct val *v, int64_t i)
{
    return (char *)lane_at(lane, buffer) + (size_t)(i * val_width(v)) * dtype_bytes(v->dtype);
}

static void fill_outputs(const struct tape_op *op, const struct lane *lane)
{
    const struct move *m = op->state;
    for (int k = 0; k < op->n_out; k++) {
        const struct val *y = &lane->net->vals[op->out[k]];
        for (int64_t i = 0; m->fill[k] && i < y->n; i++)
            kernel_store(sample_at(lane, y->data, y, i), m->fill[k], y->dtype, val_width(y));
        if (!m->fill[k])
            memset(lane_at(lane, y->data), 0, val_bytes(y));
    }
}

static int move_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct move *m = op->state;
    const struct val *vals = lane->net->vals;
    const size_t size = dtype_bytes(vals[op->out[0]].dtype);
    if (m->fills)
        fill_outputs(op, lane);
    for (int64_t i = 0; i < vals[op->out[0]].n; i++) {
        for (int64_t r = 0; r < m->n_runs; r++) {
            const struct run *run = &m->runs[r];
            const struct val *x = &vals[op->in[run->in]], *y = &vals[op->out[run->out]];
            memcpy(sample_at(lane, y->data, y, i) + (size_t)run->to * size,
                   sample_at(lane, x->data, x, i) + (size_t)run->from * size,
                   (size_t)run->count * size);
        }
    }
    return 0;
}

static int move_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct move *m = op->state;
    const struct val *vals = lane->net->vals;
    const enum dtype dtype = vals[op->out[0]].dtype;
    const size_t size = dtype_bytes(dtype);
    for (int k = 0; k < op->n_in; k++)
        if (op->in_grad[k] >= 0 && !(m->once && m->all))
            memset(lane_at(lane, op->in_grad[k]), 0, val_bytes(&vals[op->in[k]]));
    for (int64_t i = 0; i < vals[op->out[0]].n; i++) {
        for (int64_t r = 0; r < m->n_runs; r++) {
            const struct run *run = &m->runs[r];
            if (op->in_grad[run->in] < 0)
                continue;
            const struct val *x = &vals[op->in[run->in]], *y = &vals[op->out[run->out]];
            char *to = sample_at(lane, op->in_grad[run->in], x, i) + (size_t)run->from * size;
            const char *from = sample_at(lane, y->grad, y, i) + (size_t)run->to * size;
            if (m->once)
                memcpy(to, from, (size_t)run->count * size);
            else
                kernel_add(to, from, dtype, run->count);
        }
    }
    return 0;
}

static int plan_move(struct compiler *c, struct tape_op *op, struct err *err)
{
    int rc = 0;
    for (int k = 0; rc == 0 && k < op->n_in; k++)
        rc = compile_edge(c, op, k, err);
    return rc;
}

static const struct op_kind move_kind = {
    .name = "move", .plan = plan_move, .forward = move_forward, .backward = move_backward};

/* ---- asking the evaluation ---- */

enum { PROBES = 2, MAX_PORTS = 64 };
/* Numbers up to here are exact in fp32. */
#define MOST_NUMBERS ((int64_t)1 << 24)

struct probe {
    int n_in, in[MAX_PORTS]; /* vals that are moved */
    int64_t base[MAX_PORTS]; /* number of each one's first element; they begin at 1 */
    int64_t total;           /* elements of one sample, all inputs */
    struct tensor *own[MAX_PORTS], *out[MAX_PORTS];
    const struct tensor *given[MAX_PORTS];
};

static void probe_release(struct probe *p)
{
    for (int i = 0; i < MAX_PORTS; i++) {
        tensor_free(p->own[i]);
        tensor_free(p->out[i]);
    }
}

static int number_input(struct compiler *c, struct probe *p, int i, int val, struct err *err)
{
    const struct val *v = &c->net->vals[val];
    const int64_t width = val_width(v);
    struct shape shape = v->shape;
    shape.dim[0] = PROBES;
    p->in[p->n_in] = val;
    p->base[p->n_in++] = p->total + 1;
    p->own[i] = tensor_new(DTYPE_F32, &shape, err);
    if (!p->own[i])
        return -ERR_RESOURCE_EXHAUSTED;
    for (int64_t k = 0; k < width; k++)
        ((float *)p->own[i]->data)[k] = (float)(p->total + 1 + k);
    p->total += width;
    p->given[i] = p->own[i];
    return 0;
}

static int ask(struct compiler *c, const struct node *node, struct probe *p, struct err *err)
{
    int64_t total = 0;
    for (int i = 0; i < node->n_inputs && i < MAX_PORTS; i++) {
        int v = compile_val_of(c, node->inputs[i]);
        total += v >= 0 ? val_width(&c->net->vals[v]) : 0;
    }
    if (node->n_inputs > MAX_PORTS || node->n_outputs > MAX_PORTS || total * PROBES >= MOST_NUMBERS)
        return compile_refuse(node, err, "it is too large");
    for (int i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] < 0)
            continue;
        int v = compile_val_of(c, node->inputs[i]);
        p->given[i] = c->g->values[node->inputs[i]]->constant;
        int rc = v >= 0 ? number_input(c, p, i, v, err) : 0;
        if (rc < 0)
            return rc;
    }
    for (int i = 0; i < node->n_inputs; i++) {
        float *x = p->own[i] ? p->own[i]->data : NULL;
        int64_t width = x ? shape_elements(&p->own[i]->shape) / PROBES : 0;
        for (int64_t k = 0; k < width; k++)
            x[width + k] = x[k] + (float)p->total;
    }
    return eval_node(c->g, node, p->given, p->out, err);
}

/* Number of the element behind output i's element k of the first sample: 1 to total; 0: the
 * constant *fill; negative: something else. */
static int64_t number_of(const struct probe *p, int i, int64_t k, float *fill)
{
    const float *y = p->out[i]->data;
    const int64_t width = shape_elements(&p->out[i]->shape) / PROBES;
    *fill = y[k];
    if (y[width + k] == y[k])
        return 0;
    if (y[width + k] != y[k] + (float)p->total || y[k] != floorf(y[k]) || y[k] < 1 ||
        y[k] > (float)p->total)
        return -1;
    return (int64_t)y[k];
}

struct gather {
    int32_t in; /* -1: fill */
    int64_t from;
};

/* For each element of a sample of output i, as it lies in memory: where it comes from. */
static int gather_output(struct compiler *c, const struct node *node, const struct probe *p, int i,
                         const struct val *y, struct gather *ret, float *fill, struct err *err)
{
    const struct shape *s = &p->out[i]->shape;
    if (s->rank < 1 || s->dim[0] != PROBES || shape_elements(s) != PROBES * val_width(y))
        return compile_refuse(node, err, "it mixes samples");
    for (int64_t k = 0; k < val_width(y); k++) {
        int64_t at = val_offset(y, k), number = number_of(p, i, k, &fill[at]);
        if (number < 0)
            return compile_refuse(node, err, "it mixes samples, or computes");
        ret[at].in = -1;
        if (number == 0)
            continue;
        int in = p->n_in - 1;
        while (number < p->base[in])
            in--;
        ret[at].in = in;
        ret[at].from = val_offset(&c->net->vals[p->in[in]], number - p->base[in]);
    }
    return 0;
}

static int64_t to_runs(const struct gather *g, int64_t n, int out, struct run *runs)
{
    int64_t n_runs = 0;
    for (int64_t k = 0; k < n;) {
        int64_t end = k + 1;
        while (end < n && g[end].in == g[k].in && g[end].from == g[k].from + end - k)
            end++;
        if (g[k].in < 0) {
            k++;
            continue;
        }
        if (runs)
            runs[n_runs] = (struct run){
                .in = g[k].in, .out = out, .from = g[k].from, .to = k, .count = end - k};
        n_runs++;
        k = end;
    }
    return n_runs;
}

static int add_runs(struct compiler *c, const struct node *node, const struct probe *p, int i,
                    int out, struct move *m, struct err *err)
{
    const struct val *y = &c->net->vals[out];
    const int64_t width = val_width(y);
    _cleanup_(freep) struct gather *g = mem_calloc((size_t)width, sizeof(*g));
    float *fill = arena_alloc(c->net->arena, (size_t)width, sizeof(*fill));
    if (!g || !fill)
        return err_oom(err, "a move");
    int rc = gather_output(c, node, p, i, y, g, fill, err);
    if (rc < 0)
        return rc;
    bool zeros = true, all = true;
    for (int64_t k = 0; k < width; k++) {
        all = all && g[k].in >= 0;
        zeros = zeros && (g[k].in >= 0 || fill[k] == 0);
        fill[k] = g[k].in >= 0 ? 0 : fill[k];
    }
    m->fills = m->fills || !all;
    m->fill[i] = zeros ? NULL : fill;
    int64_t more = to_runs(g, width, i, NULL);
    struct run *runs = arena_alloc(c->net->arena, (size_t)(m->n_runs + more), sizeof(*runs));
    if (!runs)
        return err_oom(err, "a move");
    if (m->n_runs)
        memcpy(runs, m->runs, (size_t)m->n_runs * sizeof(*runs));
    to_runs(g, width, i, runs + m->n_runs);
    m->runs = runs;
    m->n_runs += more;
    return 0;
}

/* Nothing moves in memory: one input, one output, one run over all. */
static bool moves_nothing(const struct compiler *c, const struct probe *p, const struct move *m,
                          const int *outs, int n_out)
{
    return p->n_in == 1 && n_out == 1 && m->n_runs == 1 && !m->fills && m->runs[0].from == 0 &&
           m->runs[0].count == val_width(&c->net->vals[p->in[0]]) &&
           m->runs[0].count == val_width(&c->net->vals[outs[0]]);
}

/* Whether elements of the inputs are taken once, and all of them. */
static int count_takers(const struct compiler *c, const struct probe *p, struct move *m,
                        struct err *err)
{
    m->once = m->all = true;
    for (int in = 0; in < p->n_in; in++) {
        const int64_t width = val_width(&c->net->vals[p->in[in]]);
        _cleanup_(freep) bool *taken = mem_calloc((size_t)width, sizeof(*taken));
        if (!taken)
            return err_oom(err, "a move");
        for (int64_t r = 0; r < m->n_runs; r++) {
            const struct run *run = &m->runs[r];
            for (int64_t k = 0; run->in == in && k < run->count; k++) {
                m->once = m->once && !taken[run->from + k];
                taken[run->from + k] = true;
            }
        }
        for (int64_t k = 0; k < width; k++)
            m->all = m->all && taken[k];
    }
    return 0;
}

int make_move(struct compiler *c, const struct node *node, struct err *err)
{
    _cleanup_(probe_release) struct probe p = {0};
    int rc = ask(c, node, &p, err);
    if (rc < 0)
        return rc;
    if (p.n_in == 0)
        return compile_refuse(node, err, "it moves nothing of the network's");
    const enum dtype dtype = c->net->vals[p.in[0]].dtype;
    for (int i = 1; i < p.n_in; i++)
        if (c->net->vals[p.in[i]].dtype != dtype)
            return compile_refuse(node, err, "operands of two precisions");
    struct move m = {.fill = arena_alloc(c->net->arena, (size_t)node->n_outputs, sizeof(float *))};
    int outs[MAX_PORTS], n_out = 0;
    if (!m.fill)
        return err_oom(err, "a move");
    for (int i = 0; rc >= 0 && i < node->n_outputs; i++) {
        if (node->outputs[i] < 0)
            return compile_refuse(node, err, "an output is left out");
        rc = outs[n_out++] = compile_val(c, node->outputs[i], dtype, -1, err);
        if (rc >= 0)
            rc = add_runs(c, node, &p, i, outs[i], &m, err);
    }
    if (rc >= 0)
        rc = count_takers(c, &p, &m, err);
    if (rc < 0)
        return rc;
    if (moves_nothing(c, &p, &m, outs, n_out))
        return make_alias(c, node, err);
    struct tape_op *op = compile_op(c, &move_kind, node, p.n_in, p.in, n_out, outs, sizeof(m), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(op->state, &m, sizeof(m));
    return 0;
}
