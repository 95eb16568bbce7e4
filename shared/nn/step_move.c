/*
 * Slice, Pad, Concat, Split, Expand, Transpose: copies of rectangles, directly on the layouts in
 * use.
 *
 * Each rectangle becomes loops over runs: bytes that lie together in source and output. Blocked
 * layouts cut the channels where a block ends on either side.
 */
#include "shared/nn/step_move.h"

#include <math.h>
#include <string.h>

enum { MAX_LOOPS = SHAPE_MAX_RANK + 1 };

/* count[0] x count[1] x ... runs; strides and offsets in bytes. The last loop is the innermost. */
struct loops {
    int operand, rank;
    int64_t count[MAX_LOOPS], from[MAX_LOOPS], to[MAX_LOOPS];
    int64_t from_at, to_at, run;
};

struct copies {
    int n;
    struct loops *loops;
    bool clear; /* zeros first, for the padding of blocks */
    bool fill;
    size_t out_bytes;
    int element;
    uint8_t pattern[4]; /* one element */
};

/* ---- building ---- */

/* Bytes between neighbours along each dimension; for blocked layouts dimension 1 counts blocks. */
static void strides_of(enum layout layout, const struct shape *s, int64_t element,
                       int64_t ret[SHAPE_MAX_RANK])
{
    int64_t block = layout_block(layout), stride = element;
    if (layout == LAYOUT_PLAIN) {
        for (int d = s->rank - 1; d >= 0; d--) {
            ret[d] = stride;
            stride *= s->dim[d];
        }
        return;
    }
    if (layout == LAYOUT_LAST) {
        ret[1] = element;
        stride = element * s->dim[1];
    } else {
        stride = element * block;
    }
    for (int d = s->rank - 1; d >= 2; d--) {
        ret[d] = stride;
        stride *= s->dim[d];
    }
    if (layout != LAYOUT_LAST) {
        ret[1] = element * block * layout_plane(layout, s);
        stride = ret[1] * ((s->dim[1] + block - 1) / block);
    }
    ret[0] = stride;
}

/* Drops loops of one turn, joins neighbours that continue each other, and grows the run by loops
 * that are dense on both sides. */
static void simplify(struct loops *l)
{
    int n = 0;
    for (int i = 0; i < l->rank; i++) {
        if (l->count[i] == 1)
            continue;
        if (n > 0 && l->from[n - 1] == l->from[i] * l->count[i] &&
            l->to[n - 1] == l->to[i] * l->count[i]) {
            l->count[n - 1] *= l->count[i];
            l->from[n - 1] = l->from[i];
            l->to[n - 1] = l->to[i];
            continue;
        }
        l->count[n] = l->count[i];
        l->from[n] = l->from[i];
        l->to[n++] = l->to[i];
    }
    while (n > 0 && l->from[n - 1] == l->run && l->to[n - 1] == l->run)
        l->run *= l->count[--n];
    l->rank = n;
}

static int add_loops(struct copies *c, int *cap, const struct loops *loops, struct err *err)
{
    int at = plan_grow(&c->loops, &c->n, cap, sizeof(*loops), err);
    if (at < 0)
        return at;
    c->loops[at] = *loops;
    simplify(&c->loops[at]);
    return 0;
}

/* Dimensions where the elements of a piece do not lie together become loops, in memory's order of
 * the output. `skip`: a dimension that the caller deals with. */
static void outer_loops(struct loops *l, const struct piece *p, const struct shape *out,
                        const int64_t *from, const int64_t *to, enum layout layout, int skip)
{
    int order[SHAPE_MAX_RANK], n = 0;
    if (layout == LAYOUT_PLAIN) {
        for (int d = 0; d < out->rank; d++)
            order[n++] = d;
    } else {
        order[n++] = 0;
        if (layout != LAYOUT_LAST)
            order[n++] = 1;
        for (int d = 2; d < out->rank; d++)
            order[n++] = d;
        if (layout == LAYOUT_LAST)
            order[n++] = 1;
    }
    for (int i = 0; i < n; i++) {
        int d = order[i];
        if (d == skip)
            continue;
        l->count[l->rank] = p->count[d];
        l->from[l->rank] = p->axis[d] < 0 ? 0 : from[p->axis[d]] * p->step[d];
        l->to[l->rank++] = to[d];
        l->from_at += p->axis[d] < 0 ? 0 : from[p->axis[d]] * p->from[d];
        l->to_at += to[d] * p->to[d];
    }
}

static int add_dense(struct copies *c, int *cap, const struct piece *p, const struct shape *in,
                     const struct shape *out, enum layout layout, struct err *err)
{
    int64_t from[SHAPE_MAX_RANK], to[SHAPE_MAX_RANK];
    strides_of(layout, in, c->element, from);
    strides_of(layout, out, c->element, to);
    struct loops l = {.operand = p->operand, .run = c->element};
    outer_loops(&l, p, out, from, to, layout, -1);
    return add_loops(c, cap, &l, err);
}

/* Channels in blocks: one set of loops for each stretch of channels that stays within a block of
 * the source and of the output. */
static int add_blocked(struct copies *c, int *cap, const struct piece *p, const struct shape *in,
                       const struct shape *out, enum layout layout, struct err *err)
{
    int64_t from[SHAPE_MAX_RANK], to[SHAPE_MAX_RANK], block = layout_block(layout);
    strides_of(layout, in, c->element, from);
    strides_of(layout, out, c->element, to);
    for (int64_t k = 0; k < p->count[1];) {
        int64_t a = p->from[1] + k, b = p->to[1] + k;
        int64_t most = p->count[1] - k, run = block - a % block;
        run = run < block - b % block ? run : block - b % block;
        run = run < most ? run : most;
        int64_t blocks = 1;
        if (run == block) /* whole blocks in a row are a loop of their own */
            blocks = most / block;
        struct loops l = {.operand = p->operand, .run = run * c->element};
        l.from_at = a / block * from[1] + a % block * c->element;
        l.to_at = b / block * to[1] + b % block * c->element;
        l.count[l.rank] = blocks;
        l.from[l.rank] = from[1];
        l.to[l.rank++] = to[1];
        outer_loops(&l, p, out, from, to, layout, 1);
        int rc = add_loops(c, cap, &l, err);
        if (rc < 0)
            return rc;
        k += run * blocks;
    }
    return 0;
}

/* ---- running ---- */

/* Runs of a fixed length, so that the compiler knows how to copy them. */
#define COPY_RUNS(bytes)                                                                           \
    case bytes:                                                                                    \
        for (int64_t i = 0; i < n; i++)                                                            \
            memcpy(to + i * to_step, from + i * from_step, bytes);                                 \
        return;

static void copy_runs(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t n,
                      size_t run)
{
    switch (run) {
        COPY_RUNS(1)
        COPY_RUNS(2)
        COPY_RUNS(4)
        COPY_RUNS(8)
        COPY_RUNS(16)
        COPY_RUNS(32)
        COPY_RUNS(64)
    default:
        for (int64_t i = 0; i < n; i++)
            memcpy(to + i * to_step, from + i * from_step, run);
    }
}

static void run_loops(const struct loops *l, const char *from, char *to)
{
    int64_t at[MAX_LOOPS] = {0};
    int inner = l->rank - 1;
    from += l->from_at;
    to += l->to_at;
    if (inner < 0) {
        memcpy(to, from, (size_t)l->run);
        return;
    }
    for (;;) {
        copy_runs(to, l->to[inner], from, l->from[inner], l->count[inner], (size_t)l->run);
        int d = inner - 1;
        for (; d >= 0; d--) {
            from += l->from[d];
            to += l->to[d];
            if (++at[d] < l->count[d])
                break;
            from -= l->from[d] * l->count[d];
            to -= l->to[d] * l->count[d];
            at[d] = 0;
        }
        if (d < 0)
            return;
    }
}

static void fill_all(const struct copies *c, char *to)
{
    bool bytes = true;
    for (int i = 1; i < c->element; i++)
        bytes = bytes && c->pattern[i] == c->pattern[0];
    if (bytes) {
        memset(to, c->pattern[0], c->out_bytes);
        return;
    }
    for (size_t i = 0; i < c->out_bytes; i += (size_t)c->element)
        memcpy(to + i, c->pattern, (size_t)c->element);
}

static int run_copies(struct step *step, struct err *err)
{
    (void)err;
    const struct copies *c = step->state;
    char *to = step->data[step->n_in];
    if (c->fill)
        fill_all(c, to);
    else if (c->clear)
        memset(to, 0, c->out_bytes);
    for (int i = 0; i < c->n; i++)
        run_loops(&c->loops[i], step->data[c->loops[i].operand], to);
    return 0;
}

static void release_copies(struct step *step)
{
    struct copies *c = step->state;
    freep(&c->loops);
}

/* ---- */

static bool keeps_channels(const struct move *move)
{
    for (int i = 0; i < move->n_pieces; i++)
        if (move->pieces[i].step[1] != 1 || move->pieces[i].axis[1] != 1)
            return false;
    return true;
}

static bool keeps_order(const struct move *move, int rank)
{
    for (int i = 0; i < move->n_pieces; i++)
        for (int d = 0; d < rank; d++)
            if (move->pieces[i].axis[d] != d)
                return false;
    return true;
}

static int list_copies(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                       struct choices *choices, struct err *err)
{
    const struct wire *to = &m->plan->wires[layer->out[0]];
    const struct move *move = &layer->move;
    int64_t block = layout_block(out);
    if (in != out || !layout_possible(out, &to->shape))
        return 0;
    if (out != LAYOUT_PLAIN && !keeps_order(move, to->shape.rank))
        return 0;
    if (block > 1 && !keeps_channels(move))
        return 0;
    if (block > 1 && move->fill && move->value != 0 && to->shape.dim[1] % block != 0)
        return 0; /* the blocks' padding stays zero */
    for (int i = 0; i < layer->n_in; i++)
        if (!layout_possible(in, &m->plan->wires[layer->in[i].wire].shape))
            return 0;
    const struct choice choice = {.by = &move_copies, .in = in, .out = out};
    return choices_add(choices, &choice, err);
}

static void set_pattern(struct copies *c, const struct wire *out, float value)
{
    if (out->dtype == DTYPE_F32) {
        memcpy(c->pattern, &value, sizeof(value));
    } else if (out->dtype == DTYPE_BF16) {
        uint16_t narrow = f32_to_bf16(value);
        memcpy(c->pattern, &narrow, sizeof(narrow));
    } else if (out->dtype == DTYPE_S32) {
        int32_t whole = (int32_t)value;
        memcpy(c->pattern, &whole, sizeof(whole));
    } else {
        float q = out->quantized ? rintf(value / out->scale) + (float)out->zero : value;
        c->pattern[0] = out->dtype == DTYPE_U8 ? (uint8_t)q : (uint8_t)(int8_t)q;
    }
}

static int make_copies(struct maker *m, const struct layer *layer, const struct choice *choice,
                       struct step *step, struct err *err)
{
    const struct wire *out = &m->plan->wires[layer->out[0]];
    const struct move *move = &layer->move;
    struct copies *c = arena_alloc(m->arena, 1, sizeof(*c));
    if (!c)
        return err_oom(err, "copies");
    /* Where the bytes lie as in PLAIN on one side only, blocks and rows are still the layout's. */
    enum layout layout = choice->out;
    c->element = (int)dtype_bytes(out->dtype);
    c->out_bytes = (size_t)layout_elements(layout, &out->shape) * dtype_bytes(out->dtype);
    c->fill = move->fill;
    /* C4's padding is read by nobody; that of the others is multiplied and must be zero */
    c->clear =
        layout != LAYOUT_C4 && layout_elements(layout, &out->shape) != shape_elements(&out->shape);
    set_pattern(c, out, move->value);
    step->state = c;
    step->run = run_copies;
    step->release = release_copies;
    step->info.implementation = "copies";
    int cap = 0;
    for (int i = 0; i < move->n_pieces; i++) {
        const struct piece *p = &move->pieces[i];
        const struct shape *in = &m->plan->wires[layer->in[p->operand].wire].shape;
        int rc = layout_block(layout) > 1 ? add_blocked(c, &cap, p, in, &out->shape, layout, err)
                                          : add_dense(c, &cap, p, in, &out->shape, layout, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

const struct implementation move_copies = {
    .name = "copies", .list = list_copies, .make = make_copies};
