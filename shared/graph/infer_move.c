/* Shapes of operators that only move elements. */
#include <inttypes.h>
#include <string.h>

#include "shared/graph/infer_priv.h"

/* The value is known to be of a dtype that ONNX allows for it: outputs take the input's. */
static int set_like(struct graph *g, const struct node *node, const struct shape *shape,
                    struct err *err)
{
    return infer_set(g, node, 0, graph_input_of(g, node, 0)->dtype, shape, err);
}

int infer_concat(struct graph *g, const struct node *node, struct err *err)
{
    struct shape shape = *infer_shape_of(g, node, 0);
    const enum dtype dtype = graph_input_of(g, node, 0)->dtype;
    int axis = 0;
    int rc = infer_axis(node, node_int(node, "axis", 0), shape.rank, &axis, err);
    if (rc < 0)
        return rc;
    char a[128], b[128];
    for (int i = 1; i < node->n_inputs; i++) {
        const struct value *value = graph_input_of(g, node, i);
        bool fits = value->shape.rank == shape.rank;
        for (int d = 0; d < shape.rank && fits; d++)
            fits = d == axis || value->shape.dim[d] == shape.dim[d];
        if (!fits)
            return node_err(err, ERR_INVALID_ARGUMENT, node,
                            "input %d has shape %s, which does not join %s along axis %d", i,
                            shape_text(&value->shape, a), shape_text(infer_shape_of(g, node, 0), b),
                            axis);
        if (value->dtype != dtype)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "inputs of different types: %s and %s",
                            dtype_name(dtype), dtype_name(value->dtype));
        if (shape.dim[axis] == DIM_BATCH || value->shape.dim[axis] == DIM_BATCH)
            return node_err(err, ERR_UNIMPLEMENTED, node, "joins along the batch");
        shape.dim[axis] += value->shape.dim[axis];
        rc = shape_check(&shape, err); /* before the next sum can overflow */
        if (rc < 0)
            return node_wrap(rc, err, node);
    }
    return set_like(g, node, &shape, err);
}

int infer_expand(struct graph *g, const struct node *node, struct err *err)
{
    struct int_list target;
    struct shape shape;
    int rc = infer_list(g, node, NULL, 1, &target, err);
    if (rc < 0)
        return rc;
    if (target.n > SHAPE_MAX_RANK)
        return node_err(err, ERR_UNIMPLEMENTED, node, "%d dimensions (at most %d)", target.n,
                        SHAPE_MAX_RANK);
    for (int i = 0; i < target.n; i++)
        if (target.v[i] < 0)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "the target holds %" PRId64,
                            target.v[i]);
    struct shape wanted = shape_make(target.n, target.v);
    rc = shape_broadcast(infer_shape_of(g, node, 0), &wanted, &shape, err);
    if (rc < 0)
        return node_wrap(rc, err, node);
    return set_like(g, node, &shape, err);
}

int infer_flatten(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    int64_t axis = node_int(node, "axis", 1);
    struct shape shape = {.rank = 2};
    if (axis < -x->rank || axis > x->rank)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "axis %" PRId64 " of an input with %d dimensions", axis, x->rank);
    int split = (int)(axis < 0 ? axis + x->rank : axis);
    int rc = infer_product(node, x, 0, split, &shape.dim[0], err);
    if (rc == 0)
        rc = infer_product(node, x, split, x->rank, &shape.dim[1], err);
    return rc < 0 ? rc : set_like(g, node, &shape, err);
}

int infer_gather(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    const struct value *indices = graph_input_of(g, node, 1);
    int axis = 0;
    int rc = infer_axis(node, node_int(node, "axis", 0), x->rank, &axis, err);
    if (rc < 0)
        return rc;
    if (indices->dtype != DTYPE_S64 && indices->dtype != DTYPE_S32)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "indices are %s, not integers",
                        dtype_name(indices->dtype));
    if (x->dim[axis] == DIM_BATCH)
        return node_err(err, ERR_UNIMPLEMENTED, node, "picks single samples of the batch");
    const struct tensor *t = indices->constant;
    for (int64_t i = 0; t && i < shape_elements(&t->shape); i++) {
        int64_t index = tensor_get_s64(t, i);
        if (index < -x->dim[axis] || index >= x->dim[axis])
            return node_err(err, ERR_INVALID_ARGUMENT, node,
                            "index %" PRId64 " where there are %" PRId64, index, x->dim[axis]);
    }
    if (x->rank - 1 + indices->shape.rank > SHAPE_MAX_RANK)
        return node_err(err, ERR_UNIMPLEMENTED, node, "more than %d dimensions", SHAPE_MAX_RANK);
    struct shape shape = {0};
    for (int i = 0; i < axis; i++)
        shape.dim[shape.rank++] = x->dim[i];
    for (int i = 0; i < indices->shape.rank; i++)
        shape.dim[shape.rank++] = indices->shape.dim[i];
    for (int i = axis + 1; i < x->rank; i++)
        shape.dim[shape.rank++] = x->dim[i];
    return set_like(g, node, &shape, err);
}

/* ---- pad ---- */

static int check_reflect(const struct node *node, const char *mode, int64_t dim, int64_t begin,
                         int64_t end, struct err *err)
{
    if (begin <= 0 && end <= 0)
        return 0;
    int64_t most = strcmp(mode, "reflect") == 0 ? dim - 1 : INT64_MAX;
    if (dim == 0 && strcmp(mode, "constant") != 0)
        most = 0;
    if (begin > most || end > most)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "%s padding of %" PRId64 " and %" PRId64 " beside only %" PRId64
                        " elements",
                        mode, begin, end, dim);
    return 0;
}

static int pad_axis(const struct node *node, const char *mode, int64_t begin, int64_t end,
                    int64_t *dim, struct err *err)
{
    const int64_t most = SHAPE_MAX_ELEMENTS;
    if (begin == 0 && end == 0)
        return 0;
    if (*dim == DIM_BATCH)
        return node_err(err, ERR_UNIMPLEMENTED, node, "pads the batch");
    if (begin < -most || begin > most || end < -most || end > most)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "pads by %" PRId64 " and %" PRId64, begin,
                        end);
    int rc = check_reflect(node, mode, *dim, begin, end, err);
    if (rc < 0)
        return rc;
    if (*dim + begin + end < 0)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "crops %" PRId64 " and %" PRId64 " of only %" PRId64 " elements", -begin,
                        -end, *dim);
    *dim += begin + end;
    return 0;
}

int infer_pad(struct graph *g, const struct node *node, struct err *err)
{
    struct shape shape = *infer_shape_of(g, node, 0);
    struct int_list pads, axes;
    int rc = infer_list(g, node, "pads", 1, &pads, err);
    if (rc == 0)
        rc = infer_list(g, node, NULL, 3, &axes, err);
    if (rc < 0)
        return rc;
    const char *mode = node_string(node, "mode", "constant");
    if (strcmp(mode, "constant") != 0 && strcmp(mode, "reflect") != 0 &&
        strcmp(mode, "edge") != 0 && !(strcmp(mode, "wrap") == 0 && node->since >= 19))
        return node_err(err, ERR_INVALID_ARGUMENT, node, "mode '%.64s' is not known", mode);
    int n = axes.given ? axes.n : shape.rank;
    if (pads.n != 2 * n)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "%d pads for %d dimensions", pads.n, n);
    bool named[SHAPE_MAX_RANK];
    rc = infer_axes(node, &axes, shape.rank, named, err);
    for (int i = 0; i < n && rc == 0; i++) {
        int axis = i;
        if (axes.given)
            rc = infer_axis(node, axes.v[i], shape.rank, &axis, err);
        if (rc == 0)
            rc = pad_axis(node, mode, pads.v[i], pads.v[n + i], &shape.dim[axis], err);
    }
    return rc < 0 ? rc : set_like(g, node, &shape, err);
}

/* ---- reshape ---- */

/* The elements of x without the batch, and whether there is one. */
static int64_t elements_without_batch(const struct shape *x)
{
    return shape_elements_at(x, 1);
}

/* Fills in the one -1 of a target, from what the other dimensions leave over. */
static int solve_wildcard(const struct node *node, const struct shape *x, struct shape *shape,
                          int wildcard, struct err *err)
{
    bool batch_used = false;
    int64_t others = 1;
    char text[128];
    for (int i = 0; i < shape->rank; i++) {
        if (i == wildcard)
            continue;
        if (shape->dim[i] == DIM_BATCH)
            batch_used = true;
        else
            others *= shape->dim[i];
    }
    int64_t total = elements_without_batch(x);
    if (others == 0 || total % others != 0)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "input %s does not divide into the target's dimensions",
                        shape_text(x, text));
    shape->dim[wildcard] = total / others;
    if (!shape_has_batch(x) || batch_used)
        return 0;
    if (shape->dim[wildcard] != 1)
        return node_err(err, ERR_UNIMPLEMENTED, node,
                        "merges the batch of input %s with other dimensions", shape_text(x, text));
    shape->dim[wildcard] = DIM_BATCH;
    return 0;
}

static int read_target(const struct node *node, const struct shape *x, const struct int_list *list,
                       struct shape *shape, int *wildcard, struct err *err)
{
    bool allow_zero = node_int(node, "allowzero", 0) != 0;
    if (list->n > SHAPE_MAX_RANK)
        return node_err(err, ERR_UNIMPLEMENTED, node, "%d dimensions (at most %d)", list->n,
                        SHAPE_MAX_RANK);
    *shape = shape_make(list->n, list->v);
    *wildcard = -1;
    int64_t product = 1;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] == 0 && !allow_zero) {
            if (i >= x->rank)
                return node_err(err, ERR_INVALID_ARGUMENT, node,
                                "target dimension %d copies one that the input lacks", i);
            shape->dim[i] = x->dim[i];
        } else if (shape->dim[i] == -1) {
            if (*wildcard >= 0)
                return node_err(err, ERR_INVALID_ARGUMENT, node, "the target has two -1");
            *wildcard = i;
            continue;
        } else if (shape->dim[i] < 0) {
            return node_err(err, ERR_INVALID_ARGUMENT, node, "the target holds %" PRId64,
                            shape->dim[i]);
        }
        int64_t dim = shape->dim[i] == DIM_BATCH ? 1 : shape->dim[i];
        if (__builtin_mul_overflow(product, dim, &product) || product > SHAPE_MAX_ELEMENTS)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "the target is too large");
    }
    return 0;
}

int infer_reshape(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    struct int_list target;
    struct shape shape;
    int wildcard = -1;
    int rc = infer_list(g, node, NULL, 1, &target, err);
    if (rc == 0)
        rc = read_target(node, x, &target, &shape, &wildcard, err);
    if (rc == 0 && wildcard >= 0)
        rc = solve_wildcard(node, x, &shape, wildcard, err);
    if (rc < 0)
        return rc;
    char a[128], b[128];
    if (elements_without_batch(x) != elements_without_batch(&shape))
        return node_err(err, ERR_INVALID_ARGUMENT, node, "%s cannot become %s", shape_text(x, a),
                        shape_text(&shape, b));
    if (shape_has_batch(x) != shape_has_batch(&shape))
        return node_err(err, ERR_UNIMPLEMENTED, node,
                        "%s to %s fixes the batch to 1 where the input leaves it open",
                        shape_text(x, a), shape_text(&shape, b));
    return set_like(g, node, &shape, err);
}

/* ---- slice ---- */

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static int slice_axis(const struct node *node, int64_t start, int64_t end, int64_t step,
                      int64_t *dim, struct err *err)
{
    if (step == 0)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "a step of 0");
    if (*dim == DIM_BATCH) {
        bool whole = start == 0 && end >= INT32_MAX && step == 1;
        return whole ? 0 : node_err(err, ERR_UNIMPLEMENTED, node, "takes a part of the batch");
    }
    start = start < 0 ? start + *dim : start;
    end = end < 0 ? end + *dim : end;
    if (step > 0) {
        start = clamp(start, 0, *dim);
        end = clamp(end, 0, *dim);
        *dim = end > start ? (end - start - 1) / step + 1 : 0;
    } else {
        start = clamp(start, -1, *dim - 1);
        end = clamp(end, -1, *dim - 1);
        /* -(INT64_MIN) does not exist; any such step takes one element. */
        *dim = start > end ? (step == INT64_MIN ? 1 : (start - end - 1) / -step + 1) : 0;
    }
    return 0;
}

int infer_slice(struct graph *g, const struct node *node, struct err *err)
{
    struct shape shape = *infer_shape_of(g, node, 0);
    struct int_list starts, ends, axes, steps;
    bool named[SHAPE_MAX_RANK];
    int rc = infer_list(g, node, "starts", 1, &starts, err);
    if (rc == 0)
        rc = infer_list(g, node, "ends", 2, &ends, err);
    if (rc == 0)
        rc = infer_list(g, node, "axes", 3, &axes, err);
    if (rc == 0)
        rc = infer_list(g, node, NULL, 4, &steps, err);
    if (rc < 0)
        return rc;
    if (starts.n != ends.n || (axes.given && axes.n != starts.n) ||
        (steps.given && steps.n != starts.n) || starts.n > shape.rank)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "%d starts, %d ends, %d axes, %d steps for %d dimensions", starts.n, ends.n,
                        axes.n, steps.n, shape.rank);
    rc = infer_axes(node, &axes, shape.rank, named, err);
    for (int i = 0; i < starts.n && rc == 0; i++) {
        int axis = i;
        if (axes.given)
            rc = infer_axis(node, axes.v[i], shape.rank, &axis, err);
        if (rc == 0)
            rc = slice_axis(node, starts.v[i], ends.v[i], steps.given ? steps.v[i] : 1,
                            &shape.dim[axis], err);
    }
    return rc < 0 ? rc : set_like(g, node, &shape, err);
}

/* ---- split ---- */

/* Even parts: from opset 18 on the last may be smaller. */
static int64_t part_of(const struct node *node, int64_t dim, int64_t parts, int i)
{
    int64_t size = (dim + parts - 1) / parts;
    int64_t left = dim - size * i;
    return node->since >= 18 ? clamp(left, 0, size) : dim / parts;
}

int infer_split(struct graph *g, const struct node *node, struct err *err)
{
    struct shape shape = *infer_shape_of(g, node, 0);
    struct int_list sizes;
    int axis = 0;
    int rc = infer_axis(node, node_int(node, "axis", 0), shape.rank, &axis, err);
    if (rc == 0)
        rc = infer_list(g, node, "split", 1, &sizes, err);
    if (rc < 0)
        return rc;
    int64_t dim = shape.dim[axis], sum = 0, parts = node->n_outputs;
    if (dim == DIM_BATCH)
        return node_err(err, ERR_UNIMPLEMENTED, node, "splits the batch");
    if (sizes.given && sizes.n != parts)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "%d sizes for %" PRId64 " outputs",
                        sizes.n, parts);
    if (node_int(node, "num_outputs", parts) != parts)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "num_outputs is %" PRId64 " where there are %" PRId64 " outputs",
                        node_int(node, "num_outputs", parts), parts);
    for (int i = 0; i < parts && rc == 0; i++) {
        int64_t size = sizes.given ? sizes.v[i] : part_of(node, dim, parts, i);
        if (size < 0 || size > dim - sum)
            return node_err(err, ERR_INVALID_ARGUMENT, node,
                            "part %d of %" PRId64 " does not fit into %" PRId64, i, size, dim);
        sum += size;
        shape.dim[axis] = size;
        rc = infer_set(g, node, i, graph_input_of(g, node, 0)->dtype, &shape, err);
    }
    if (rc == 0 && sum != dim)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "the parts sum up to %" PRId64 ", not to %" PRId64, sum, dim);
    return rc;
}

/* ---- squeeze, unsqueeze, transpose ---- */

int infer_squeeze(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    struct int_list axes;
    bool dropped[SHAPE_MAX_RANK];
    int rc = infer_list(g, node, "axes", 1, &axes, err);
    if (rc == 0)
        rc = infer_axes(node, &axes, x->rank, dropped, err);
    if (rc < 0)
        return rc;
    struct shape shape = {0};
    char text[128];
    for (int i = 0; i < x->rank; i++) {
        if (!axes.given ? x->dim[i] == 1 : dropped[i]) {
            if (x->dim[i] != 1)
                return node_err(
                    err, x->dim[i] == DIM_BATCH ? ERR_UNIMPLEMENTED : ERR_INVALID_ARGUMENT, node,
                    "drops axis %d of %s, which is not 1", i, shape_text(x, text));
            continue;
        }
        shape.dim[shape.rank++] = x->dim[i];
    }
    return set_like(g, node, &shape, err);
}

int infer_unsqueeze(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    struct int_list axes;
    bool added[SHAPE_MAX_RANK];
    int rc = infer_list(g, node, "axes", 1, &axes, err);
    if (rc < 0)
        return rc;
    int rank = x->rank + axes.n;
    if (rank > SHAPE_MAX_RANK)
        return node_err(err, ERR_UNIMPLEMENTED, node, "more than %d dimensions", SHAPE_MAX_RANK);
    rc = infer_axes(node, &axes, rank, added, err);
    if (rc < 0)
        return rc;
    struct shape shape = {.rank = rank};
    for (int i = 0, from = 0; i < rank; i++)
        shape.dim[i] = added[i] ? 1 : x->dim[from++];
    return set_like(g, node, &shape, err);
}

int infer_transpose(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    struct int_list perm;
    bool seen[SHAPE_MAX_RANK];
    int rc = infer_list(g, node, "perm", -1, &perm, err);
    if (rc < 0)
        return rc;
    if (perm.given && perm.n != x->rank)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "perm has %d entries for %d dimensions",
                        perm.n, x->rank);
    for (int i = 0; i < perm.n; i++)
        if (perm.v[i] < 0)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "perm holds %" PRId64, perm.v[i]);
    rc = infer_axes(node, &perm, x->rank, seen, err);
    if (rc < 0)
        return rc;
    struct shape shape = {.rank = x->rank};
    for (int i = 0; i < x->rank; i++)
        shape.dim[i] = x->dim[perm.given ? perm.v[i] : x->rank - 1 - i];
    return set_like(g, node, &shape, err);
}
