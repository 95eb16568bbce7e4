/* Operators that change or make shapes, and constants: the elements stay in their order. */
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval_internal.h"

/* Output 0 with the first input's elements under another shape. */
static int same_elements(struct eval *e, const struct shape *shape)
{
    const struct tensor *x = e->in[0];
    if (shape_check(shape, e->err) < 0)
        return eval_failed(e);
    if (shape_elements(shape) != shape_elements(&x->shape)) {
        char from[128], to[128];
        return eval_bad(e, "shape %s cannot become %s", shape_text(&x->shape, from),
                        shape_text(shape, to));
    }
    struct tensor *out = eval_out(e, 0, x->dtype, shape);
    if (!out)
        return eval_failed(e);
    memcpy(out->data, x->data, tensor_bytes(x));
    return 0;
}

int eval_identity(struct eval *e)
{
    return same_elements(e, &e->in[0]->shape);
}

/* Inference: the identity, and a mask of ones. */
int eval_dropout(struct eval *e)
{
    const struct tensor *ratio = eval_in(e, 1), *training = eval_in(e, 2);
    if ((ratio && shape_elements(&ratio->shape) != 1) ||
        (training && shape_elements(&training->shape) != 1))
        return eval_bad(e, "ratio or training_mode is no scalar");
    double p = ratio ? tensor_get_f64(ratio, 0) : 0.5;
    if (training && tensor_get_f64(training, 0) != 0 && p != 0)
        return eval_unsupported(e, "training mode");
    const struct tensor *x = e->in[0];
    if (eval_wants(e, 1)) {
        struct tensor *mask =
            eval_out(e, 1, e->node->since < 10 ? x->dtype : DTYPE_BOOL, &x->shape);
        if (!mask)
            return eval_failed(e);
        for (int64_t i = 0; i < shape_elements(&mask->shape); i++)
            tensor_set_s64(mask, i, 1);
    }
    return same_elements(e, &x->shape);
}

int eval_flatten(struct eval *e)
{
    const struct shape *in = &e->in[0]->shape;
    int64_t axis = node_int(e->node, "axis", 1);
    if (axis < -in->rank || axis > in->rank)
        return eval_bad(e, "axis %lld is outside of rank %d", (long long)axis, in->rank);
    if (axis < 0)
        axis += in->rank;
    int64_t dims[2] = {1, 1};
    for (int i = 0; i < in->rank; i++)
        dims[i >= axis] *= in->dim[i];
    struct shape shape = shape_make(2, dims);
    return same_elements(e, &shape);
}

int eval_reshape(struct eval *e)
{
    const struct shape *in = &e->in[0]->shape;
    bool allow_zero = node_int(e->node, "allowzero", 0) != 0;
    int64_t target[SHAPE_MAX_RANK], known = 1;
    int n = eval_list(e, e->in[1], "shape", SHAPE_MAX_RANK, target), open = -1;
    if (n < 0)
        return n;
    for (int i = 0; i < n; i++) {
        if (target[i] == 0 && !allow_zero) {
            if (i >= in->rank)
                return eval_bad(e, "shape keeps dimension %d of an input of rank %d", i, in->rank);
            target[i] = in->dim[i];
        }
        if (target[i] == -1 && open < 0)
            open = i;
        else if (target[i] < 0)
            return eval_bad(e, "shape holds %lld", (long long)target[i]);
        else if (__builtin_mul_overflow(known, target[i], &known))
            return eval_bad(e, "shape has too many elements");
    }
    int64_t elements = shape_elements(in);
    struct shape shape = shape_make(n, target);
    if (open >= 0) {
        if (known == 0 ? elements != 0 : elements % known != 0)
            return eval_bad(e, "%lld elements do not fill a multiple of %lld", (long long)elements,
                            (long long)known);
        shape.dim[open] = known == 0 ? 0 : elements / known;
    }
    return same_elements(e, &shape);
}

int eval_squeeze(struct eval *e)
{
    const struct shape *in = &e->in[0]->shape;
    int64_t axes[SHAPE_MAX_RANK];
    bool dropped[SHAPE_MAX_RANK];
    int n = eval_list_of(e, 1, "axes", 12, SHAPE_MAX_RANK, axes);
    if (n < 0 && n != EVAL_ABSENT)
        return n;
    int rc = eval_axes(e, n < 0 ? 0 : n, axes, in->rank, dropped, NULL);
    if (rc < 0)
        return rc;
    struct shape shape = {0};
    for (int i = 0; i < in->rank; i++) {
        if (dropped[i] && in->dim[i] != 1)
            return eval_bad(e, "dimension %d is %lld, not 1", i, (long long)in->dim[i]);
        if (n == EVAL_ABSENT ? in->dim[i] != 1 : !dropped[i])
            shape.dim[shape.rank++] = in->dim[i];
    }
    return same_elements(e, &shape);
}

int eval_unsqueeze(struct eval *e)
{
    const struct shape *in = &e->in[0]->shape;
    int64_t axes[SHAPE_MAX_RANK];
    bool added[SHAPE_MAX_RANK];
    int n = eval_list_of(e, 1, "axes", 12, SHAPE_MAX_RANK, axes);
    if (n < 0)
        return n == EVAL_ABSENT ? eval_bad(e, "axes is missing") : n;
    struct shape shape = {.rank = in->rank + n};
    if (shape.rank > SHAPE_MAX_RANK)
        return eval_bad(e, "an output of rank %d", shape.rank);
    int rc = eval_axes(e, n, axes, shape.rank, added, NULL);
    if (rc < 0)
        return rc;
    for (int i = 0, k = 0; i < shape.rank; i++)
        shape.dim[i] = added[i] ? 1 : in->dim[k++];
    return same_elements(e, &shape);
}

/* start and end count as a slice's: negative ones from the end, then clamped. */
int eval_shape(struct eval *e)
{
    const struct shape *in = &e->in[0]->shape;
    int64_t bounds[2] = {node_int(e->node, "start", 0), node_int(e->node, "end", in->rank)};
    for (int i = 0; i < 2; i++) {
        if (bounds[i] < 0)
            bounds[i] += in->rank;
        bounds[i] = bounds[i] < 0 ? 0 : bounds[i] > in->rank ? in->rank : bounds[i];
    }
    int64_t n = bounds[1] > bounds[0] ? bounds[1] - bounds[0] : 0;
    struct shape shape = shape_make(1, &n);
    struct tensor *out = eval_out(e, 0, DTYPE_S64, &shape);
    if (!out)
        return eval_failed(e);
    for (int64_t i = 0; i < n; i++)
        tensor_set_s64(out, i, in->dim[bounds[0] + i]);
    return 0;
}

/* ---- constants ---------------------------------------------------------------------------- */

static int constant_list(struct eval *e, const struct attr *attr, bool scalar)
{
    bool floats = attr->kind == ATTR_FLOAT || attr->kind == ATTR_FLOATS;
    int64_t n = attr->n;
    struct shape shape = shape_make(scalar ? 0 : 1, &n);
    struct tensor *out = eval_out(e, 0, floats ? DTYPE_F32 : DTYPE_S64, &shape);
    if (!out)
        return eval_failed(e);
    if (scalar && floats)
        ((float *)out->data)[0] = attr->f;
    else if (scalar)
        ((int64_t *)out->data)[0] = attr->i;
    for (int64_t i = 0; !scalar && i < n; i++) {
        if (floats)
            ((float *)out->data)[i] = attr->floats[i];
        else
            ((int64_t *)out->data)[i] = attr->ints[i];
    }
    return 0;
}

int eval_constant(struct eval *e)
{
    static const struct {
        const char *name;
        enum attr_kind kind;
    } forms[] = {
        {"value", ATTR_TENSOR},        {"value_float", ATTR_FLOAT}, {"value_int", ATTR_INT},
        {"value_floats", ATTR_FLOATS}, {"value_ints", ATTR_INTS},
    };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const struct attr *attr = node_attr(e->node, forms[i].name);
        if (!attr)
            continue;
        if (attr->kind != forms[i].kind)
            return eval_bad(e, "%s is of another kind", forms[i].name);
        if (attr->kind == ATTR_TENSOR) {
            struct tensor *out = eval_out(e, 0, attr->tensor->dtype, &attr->tensor->shape);
            if (!out)
                return eval_failed(e);
            memcpy(out->data, attr->tensor->data, tensor_bytes(out));
            return 0;
        }
        return constant_list(e, attr, attr->kind == ATTR_FLOAT || attr->kind == ATTR_INT);
    }
    return eval_unsupported(e, "a constant that is neither tensor nor numbers");
}

int eval_constant_of_shape(struct eval *e)
{
    const struct attr *attr = node_attr(e->node, "value");
    const struct tensor *value = attr && attr->kind == ATTR_TENSOR ? attr->tensor : NULL;
    if (value && shape_elements(&value->shape) != 1)
        return eval_bad(e, "value has %lld elements, not one",
                        (long long)shape_elements(&value->shape));
    struct shape shape = {0};
    shape.rank = eval_list(e, e->in[0], "shape", SHAPE_MAX_RANK, shape.dim);
    if (shape.rank < 0)
        return shape.rank;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.dim[i] < 0)
            return eval_bad(e, "shape holds %lld", (long long)shape.dim[i]);
    }
    struct tensor *out = eval_out(e, 0, value ? value->dtype : DTYPE_F32, &shape);
    if (!out)
        return eval_failed(e);
    size_t bytes = dtype_bytes(out->dtype);
    for (int64_t i = 0; value && i < shape_elements(&shape); i++)
        memcpy((char *)out->data + (size_t)i * bytes, value->data, bytes);
    return 0;
}
