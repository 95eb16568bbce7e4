/* Operators that move elements about: of any type, since only bytes are copied. */
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval_internal.h"

static char *at(const struct tensor *t, int64_t element)
{
    return (char *)t->data + element * (int64_t)dtype_bytes(t->dtype);
}

/* Fills `out`, dense, from x read with the given strides from element `first` on. */
static void gather_strided(struct tensor *out, const struct tensor *x, int64_t first,
                           const int64_t *stride)
{
    int64_t dense[SHAPE_MAX_RANK];
    eval_strides(&out->shape, dense);
    if (shape_elements(&out->shape) > 0)
        eval_copy(&out->shape, out->data, dense, at(x, first), stride, dtype_bytes(x->dtype));
}

int eval_transpose(struct eval *e)
{
    const struct tensor *x = e->in[0];
    int rank = x->shape.rank, order[SHAPE_MAX_RANK];
    int64_t perm[SHAPE_MAX_RANK], own[SHAPE_MAX_RANK], stride[SHAPE_MAX_RANK];
    bool seen[SHAPE_MAX_RANK];
    int n = node_ints(e->node, "perm", SHAPE_MAX_RANK, perm);
    if (!node_attr(e->node, "perm")) {
        n = rank;
        for (int i = 0; i < rank; i++)
            perm[i] = rank - 1 - i;
    }
    if (n != rank)
        return eval_bad(e, "perm has %d values for rank %d", n, rank);
    int rc = eval_axes(e, n, perm, rank, seen, order);
    if (rc < 0)
        return rc;
    struct shape shape = {.rank = rank};
    eval_strides(&x->shape, own);
    for (int i = 0; i < rank; i++) {
        shape.dim[i] = x->shape.dim[order[i]];
        stride[i] = own[order[i]];
    }
    struct tensor *out = eval_out(e, 0, x->dtype, &shape);
    if (!out)
        return eval_failed(e);
    gather_strided(out, x, 0, stride);
    return 0;
}

int eval_expand(struct eval *e)
{
    const struct tensor *x = e->in[0];
    struct shape target = {0}, shape;
    int n = eval_list(e, e->in[1], "shape", SHAPE_MAX_RANK, target.dim);
    if (n < 0)
        return n;
    target.rank = n;
    for (int i = 0; i < n; i++) {
        if (target.dim[i] < 0)
            return eval_bad(e, "shape holds %lld", (long long)target.dim[i]);
    }
    int rc = shape_broadcast(&x->shape, &target, &shape, e->err);
    if (rc < 0)
        return rc;
    int64_t stride[SHAPE_MAX_RANK];
    eval_broadcast_strides(&x->shape, &shape, stride);
    struct tensor *out = eval_out(e, 0, x->dtype, &shape);
    if (!out)
        return eval_failed(e);
    gather_strided(out, x, 0, stride);
    return 0;
}

/* ---- Concat and Split --------------------------------------------------------------------- */

/* Adds up the inputs' sizes along the axis; all else must agree. */
static int concat_shape(struct eval *e, int axis, struct shape *shape)
{
    shape->dim[axis] = 0;
    for (int i = 0; i < e->node->n_inputs; i++) {
        const struct tensor *t = eval_in(e, i);
        if (!t)
            return eval_bad(e, "input %d is left out", i);
        bool fits = t->shape.rank == shape->rank;
        for (int k = 0; fits && k < shape->rank; k++)
            fits = k == axis || t->shape.dim[k] == shape->dim[k];
        if (!fits) {
            char first[128], other[128];
            return eval_bad(e, "input %d of shape %s does not fit to %s", i,
                            shape_text(&t->shape, other), shape_text(&e->in[0]->shape, first));
        }
        shape->dim[axis] += t->shape.dim[axis];
    }
    return 0;
}

int eval_concat(struct eval *e)
{
    struct shape shape = e->in[0]->shape;
    int axis;
    if (!node_attr(e->node, "axis"))
        return eval_bad(e, "axis is missing");
    int rc = eval_axis(e, node_int(e->node, "axis", 0), shape.rank, &axis);
    if (rc == 0)
        rc = concat_shape(e, axis, &shape);
    if (rc < 0)
        return rc;
    struct tensor *out = eval_out(e, 0, e->in[0]->dtype, &shape);
    if (!out)
        return eval_failed(e);
    int64_t outer, inner, done = 0, size = (int64_t)dtype_bytes(out->dtype);
    eval_split_at(&shape, axis, &outer, &inner);
    for (int i = 0; i < e->node->n_inputs; i++) {
        const struct tensor *t = e->in[i];
        int64_t part = t->shape.dim[axis] * inner;
        for (int64_t o = 0; o < outer && part > 0; o++)
            memcpy(at(out, o * shape.dim[axis] * inner + done), at(t, o * part),
                   (size_t)(part * size));
        done += part;
    }
    return 0;
}

/* Sizes of the parts. The last ones are smaller (or empty) where num_outputs does not divide. */
static int split_sizes(struct eval *e, int64_t dim, int64_t *sizes)
{
    int n = e->node->n_outputs, since = e->node->since;
    const struct tensor *list = since >= 13 ? eval_in(e, 1) : NULL;
    int given =
        list ? eval_list(e, list, "split", n, sizes) : eval_list_of(e, 1, "split", 12, n, sizes);
    if (given < 0 && given != EVAL_ABSENT)
        return given;
    if (given != EVAL_ABSENT) {
        int64_t sum = 0;
        for (int i = 0; i < given; i++) {
            if (sizes[i] < 0 || sizes[i] > dim)
                return eval_bad(e, "split holds %lld", (long long)sizes[i]);
            sum += sizes[i];
        }
        return given == n && sum == dim
                   ? 0
                   : eval_bad(e, "split does not divide %lld into %d outputs", (long long)dim, n);
    }
    if (node_int(e->node, "num_outputs", n) != n)
        return eval_bad(e, "num_outputs is not the number of outputs");
    if (since < 18 && dim % n != 0)
        return eval_bad(e, "%lld does not divide into %d equal parts", (long long)dim, n);
    int64_t chunk = (dim + n - 1) / n;
    for (int i = 0; i < n; i++) {
        sizes[i] = dim < chunk ? dim : chunk;
        dim -= sizes[i];
    }
    return 0;
}

int eval_split(struct eval *e)
{
    const struct tensor *x = e->in[0];
    int axis, n = e->node->n_outputs;
    int rc = eval_axis(e, node_int(e->node, "axis", 0), x->shape.rank, &axis);
    if (rc < 0)
        return rc;
    _cleanup_(freep) int64_t *sizes = mem_calloc((size_t)n, sizeof(*sizes));
    if (!sizes)
        return err_oom(e->err, "the parts of a split");
    rc = split_sizes(e, x->shape.dim[axis], sizes);
    if (rc < 0)
        return rc;
    int64_t stride[SHAPE_MAX_RANK], first = 0;
    eval_strides(&x->shape, stride);
    for (int i = 0; i < n; i++) {
        struct shape shape = x->shape;
        shape.dim[axis] = sizes[i];
        if (i == 0 || eval_wants(e, i)) {
            struct tensor *out = eval_out(e, i, x->dtype, &shape);
            if (!out)
                return eval_failed(e);
            gather_strided(out, x, first * stride[axis], stride);
        }
        first += sizes[i];
    }
    return 0;
}

/* ---- Slice -------------------------------------------------------------------------------- */

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* A slice of a dimension: the first element and how many there are. Like Python's, but for one
 * thing: stepping backward, a start before the first element counts as the first one. */
static void slice(int64_t dim, int64_t start, int64_t end, int64_t step, int64_t *ret_first,
                  int64_t *ret_count)
{
    start += start < 0 ? dim : 0;
    end += end < 0 ? dim : 0;
    *ret_count = 0;
    if (step > 0) {
        start = clamp(start, 0, dim);
        end = clamp(end, 0, dim);
        if (end > start)
            *ret_count = (end - start - 1) / step + 1;
    } else {
        start = clamp(start, 0, dim - 1);
        end = clamp(end, -1, dim - 1);
        if (start > end && dim > 0)
            *ret_count = (start - end - 1) / -step + 1;
    }
    *ret_first = *ret_count > 0 ? start : 0;
}

struct bounds {
    int n;
    int64_t start[SHAPE_MAX_RANK], end[SHAPE_MAX_RANK], axis[SHAPE_MAX_RANK], step[SHAPE_MAX_RANK];
};

static int read_bounds(struct eval *e, struct bounds *b)
{
    b->n = eval_list_of(e, 1, "starts", 9, SHAPE_MAX_RANK, b->start);
    int ends = eval_list_of(e, 2, "ends", 9, SHAPE_MAX_RANK, b->end);
    int axes = eval_list_of(e, 3, "axes", 9, SHAPE_MAX_RANK, b->axis);
    int steps =
        e->node->since < 10 ? EVAL_ABSENT : eval_list_of(e, 4, "steps", 9, SHAPE_MAX_RANK, b->step);
    const int all[] = {b->n, ends, axes, steps};
    for (int i = 0; i < 4; i++) {
        if (all[i] < 0 && (i < 2 || all[i] != EVAL_ABSENT))
            return all[i] == EVAL_ABSENT ? eval_bad(e, "starts or ends is missing") : all[i];
        if (all[i] != EVAL_ABSENT && all[i] != b->n)
            return eval_bad(e, "starts, ends, axes and steps differ in length");
    }
    for (int i = 0; i < b->n; i++) {
        if (axes == EVAL_ABSENT)
            b->axis[i] = i;
        if (steps == EVAL_ABSENT)
            b->step[i] = 1;
        if (b->step[i] == 0)
            return eval_bad(e, "a step of 0");
        if (b->step[i] == INT64_MIN)
            b->step[i]++; /* can be negated now, and still steps out of any dimension */
    }
    return 0;
}

int eval_slice(struct eval *e)
{
    const struct tensor *x = e->in[0];
    struct bounds b;
    bool flags[SHAPE_MAX_RANK];
    int order[SHAPE_MAX_RANK];
    int rc = read_bounds(e, &b);
    if (rc == 0)
        rc = eval_axes(e, b.n, b.axis, x->shape.rank, flags, order);
    if (rc < 0)
        return rc;
    struct shape shape = x->shape;
    int64_t stride[SHAPE_MAX_RANK], first = 0;
    eval_strides(&shape, stride);
    for (int i = 0; i < b.n; i++) {
        int axis = order[i];
        int64_t begin, count;
        slice(shape.dim[axis], b.start[i], b.end[i], b.step[i], &begin, &count);
        first += begin * stride[axis];
        /* A step is only taken between two elements: an absurd one is never used. */
        stride[axis] = count > 1 ? stride[axis] * b.step[i] : 0;
        shape.dim[axis] = count;
    }
    struct tensor *out = eval_out(e, 0, x->dtype, &shape);
    if (!out)
        return eval_failed(e);
    gather_strided(out, x, first, stride);
    return 0;
}

/* ---- Pad ---------------------------------------------------------------------------------- */

enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP };

static int pad_mode_of(struct eval *e, enum pad_mode *ret)
{
    static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
    const char *text = node_string(e->node, "mode", "constant");
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0 && (i != PAD_WRAP || e->node->since >= 19)) {
            *ret = (enum pad_mode)i;
            return 0;
        }
    }
    return eval_bad(e, "mode '%s'", text);
}

static int64_t modulo(int64_t a, int64_t n)
{
    int64_t r = a % n;
    return r < 0 ? r + n : r;
}

/* Where the element that stands at i (in the input's coordinates) comes from; -1: the constant. */
static int64_t pad_source(enum pad_mode mode, int64_t i, int64_t n)
{
    if (i >= 0 && i < n)
        return i;
    switch (mode) {
    case PAD_EDGE:
        return i < 0 ? 0 : n - 1;
    case PAD_WRAP:
        return modulo(i, n);
    case PAD_REFLECT:
        if (n == 1)
            return 0;
        i = modulo(i, 2 * (n - 1));
        return i < n ? i : 2 * (n - 1) - i;
    default:
        return -1;
    }
}

/* pads: [begin..., end...] per axis named (all of them up to opset 17). */
static int read_pads(struct eval *e, int rank, int64_t begin[SHAPE_MAX_RANK],
                     int64_t end[SHAPE_MAX_RANK])
{
    int64_t pads[2 * SHAPE_MAX_RANK], axes[SHAPE_MAX_RANK];
    bool flags[SHAPE_MAX_RANK];
    int order[SHAPE_MAX_RANK], named = rank;
    const struct tensor *list = e->node->since >= 18 ? eval_in(e, 3) : NULL;
    int n = eval_list_of(e, 1, "pads", 10, 2 * SHAPE_MAX_RANK, pads);
    if (n < 0)
        return n == EVAL_ABSENT ? eval_bad(e, "pads is missing") : n;
    for (int i = 0; i < rank; i++)
        axes[i] = i;
    if (list)
        named = eval_list(e, list, "axes", SHAPE_MAX_RANK, axes);
    int rc = named < 0 ? named : eval_axes(e, named, axes, rank, flags, order);
    if (rc < 0)
        return rc;
    if (n != 2 * named)
        return eval_bad(e, "pads has %d values for %d axes", n, named);
    for (int i = 0; i < named; i++) {
        begin[order[i]] = pads[i];
        end[order[i]] = pads[named + i];
    }
    return 0;
}

static int pad_shape(struct eval *e, enum pad_mode mode, const int64_t *begin, const int64_t *end,
                     struct shape *shape)
{
    const int64_t limit = SHAPE_MAX_ELEMENTS;
    for (int i = 0; i < shape->rank; i++) {
        int64_t n = shape->dim[i];
        if (begin[i] < -limit || begin[i] > limit || end[i] < -limit || end[i] > limit ||
            n + begin[i] + end[i] < 0)
            return eval_bad(e, "dimension %d of size %lld cannot be padded by %lld and %lld", i,
                            (long long)n, (long long)begin[i], (long long)end[i]);
        if (n == 0 && mode != PAD_CONSTANT && (begin[i] > 0 || end[i] > 0))
            return eval_bad(e, "dimension %d is empty: nothing to repeat", i);
        shape->dim[i] = n + begin[i] + end[i];
    }
    return 0;
}

/* The constant's bytes; zeros when there is none. */
static int pad_value(struct eval *e, struct tensor *ret)
{
    const struct tensor *value = e->node->since >= 11 ? eval_in(e, 2) : NULL;
    if (value && (value->dtype != ret->dtype || shape_elements(&value->shape) != 1))
        return eval_bad(e, "constant_value is no %s scalar", dtype_name(ret->dtype));
    if (value)
        memcpy(ret->data, value->data, dtype_bytes(ret->dtype));
    else
        tensor_set_f64(ret, 0, (double)node_float(e->node, "value", 0));
    return 0;
}

struct pad {
    enum pad_mode mode;
    const struct tensor *x, *value;
    struct tensor *out;
    int64_t begin[SHAPE_MAX_RANK], stride[SHAPE_MAX_RANK];
};

/* Output elements of the box from dimension `axis` on; `from` < 0: all constant. */
static char *pad_fill(const struct pad *p, int axis, int64_t from, char *to)
{
    size_t bytes = dtype_bytes(p->x->dtype);
    if (axis == p->out->shape.rank) {
        memcpy(to, from < 0 ? p->value->data : at(p->x, from), bytes);
        return to + bytes;
    }
    for (int64_t i = 0; i < p->out->shape.dim[axis]; i++) {
        int64_t k = from < 0 ? -1 : pad_source(p->mode, i - p->begin[axis], p->x->shape.dim[axis]);
        to = pad_fill(p, axis + 1, k < 0 ? -1 : from + k * p->stride[axis], to);
    }
    return to;
}

int eval_pad(struct eval *e)
{
    struct pad p = {.x = e->in[0]};
    int64_t end[SHAPE_MAX_RANK] = {0}, one[SHAPE_MAX_RANK] = {0};
    struct shape shape = p.x->shape, scalar = shape_make(0, one);
    int rc = pad_mode_of(e, &p.mode);
    if (rc == 0)
        rc = read_pads(e, shape.rank, p.begin, end);
    if (rc == 0)
        rc = pad_shape(e, p.mode, p.begin, end, &shape);
    if (rc < 0)
        return rc;
    _cleanup_(tensor_freep) struct tensor *value = tensor_new(p.x->dtype, &scalar, e->err);
    if (!value)
        return eval_failed(e);
    rc = pad_value(e, value);
    if (rc < 0)
        return rc;
    p.value = value;
    p.out = eval_out(e, 0, p.x->dtype, &shape);
    if (!p.out)
        return eval_failed(e);
    eval_strides(&p.x->shape, p.stride);
    if (shape_elements(&shape) > 0)
        pad_fill(&p, 0, 0, p.out->data);
    return 0;
}

/* ---- Gather ------------------------------------------------------------------------------- */

int eval_gather(struct eval *e)
{
    const struct tensor *x = e->in[0], *indices = e->in[1];
    int axis, rank = x->shape.rank + indices->shape.rank - 1;
    int rc = eval_axis(e, node_int(e->node, "axis", 0), x->shape.rank, &axis);
    if (rc < 0)
        return rc;
    if (indices->dtype != DTYPE_S64 && indices->dtype != DTYPE_S32)
        return eval_bad(e, "indices are %s", dtype_name(indices->dtype));
    if (rank > SHAPE_MAX_RANK)
        return eval_bad(e, "an output of rank %d", rank);
    struct shape shape = {0};
    for (int i = 0; i < axis; i++)
        shape.dim[shape.rank++] = x->shape.dim[i];
    for (int i = 0; i < indices->shape.rank; i++)
        shape.dim[shape.rank++] = indices->shape.dim[i];
    for (int i = axis + 1; i < x->shape.rank; i++)
        shape.dim[shape.rank++] = x->shape.dim[i];
    struct tensor *out = eval_out(e, 0, x->dtype, &shape);
    if (!out)
        return eval_failed(e);
    int64_t outer, inner, n = x->shape.dim[axis], count = shape_elements(&indices->shape);
    eval_split_at(&x->shape, axis, &outer, &inner);
    for (int64_t i = 0; i < count; i++) {
        int64_t index = tensor_get_s64(indices, i);
        if (index < -n || index >= n)
            return eval_bad(e, "index %lld is outside of dimension %d, which is %lld",
                            (long long)index, axis, (long long)n);
        index += index < 0 ? n : 0;
        for (int64_t o = 0; o < outer && inner > 0; o++)
            memcpy(at(out, (o * count + i) * inner), at(x, (o * n + index) * inner),
                   (size_t)inner * dtype_bytes(x->dtype));
    }
    return 0;
}
