/* Shapes of Resize and Upsample. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "shared/graph/infer_priv.h"

static bool is_one_of(const char *text, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(text, *names) == 0)
            return true;
    return false;
}

static int check_modes(const struct node *node, struct err *err)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", NULL};
    static const char *const coordinates[] = {
        "half_pixel",         "half_pixel_symmetric", "align_corners",        "asymmetric",
        "pytorch_half_pixel", "tf_crop_and_resize",   "tf_half_pixel_for_nn", NULL};
    static const char *const nearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                          "ceil", NULL};
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller", NULL};
    const struct {
        const char *name, *otherwise;
        const char *const *known;
    } checks[] = {
        {"mode", "nearest", modes},
        {"coordinate_transformation_mode", "half_pixel", coordinates},
        {"nearest_mode", "round_prefer_floor", nearest},
        {"keep_aspect_ratio_policy", "stretch", policies},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
        const char *text = node_string(node, checks[i].name, checks[i].otherwise);
        if (!is_one_of(text, checks[i].known))
            return node_err(err, ERR_INVALID_ARGUMENT, node, "%s '%.64s' is not known",
                            checks[i].name, text);
    }
    return 0;
}

/* Upsample 7: attribute; Upsample 9, Resize 10: input 1; Resize 11 and later: input 2 (scales) or
 * input 3 (sizes). An empty tensor stands for one that is left out. */
struct scaling {
    int n;
    bool by_size;
    double scale[SHAPE_MAX_RANK];
    int64_t size[SHAPE_MAX_RANK];
};

static int read_constant(const struct graph *g, const struct node *node, int i,
                         const struct tensor **ret, struct err *err)
{
    const struct value *value = graph_input_of(g, node, i);
    *ret = NULL;
    if (!value || (value->shape_known && value->shape.rank == 1 && value->shape.dim[0] == 0))
        return 0;
    if (!value->constant)
        return node_err(err, ERR_UNIMPLEMENTED, node,
                        "input %d ('%.128s') decides about shapes and must be a constant", i,
                        value->name);
    if (value->shape.rank != 1 || value->shape.dim[0] > SHAPE_MAX_RANK)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "input %d ('%.128s') must be a list with one entry per dimension", i,
                        value->name);
    *ret = value->constant;
    return 0;
}

static int read_scaling(const struct graph *g, const struct node *node, struct scaling *ret,
                        struct err *err)
{
    const struct attr *attr = node_attr(node, "scales");
    const struct tensor *scales = NULL, *sizes = NULL;
    int rc = 0;
    bool old = node->op == OP_UPSAMPLE || node->since < 11;
    if (!attr)
        rc = read_constant(g, node, old ? 1 : 2, &scales, err);
    if (rc == 0 && !old)
        rc = read_constant(g, node, 3, &sizes, err);
    if (rc < 0)
        return rc;
    if ((attr != NULL) + (scales != NULL) + (sizes != NULL) != 1)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "needs either scales or sizes");
    if (sizes && sizes->dtype != DTYPE_S64)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "sizes must be int64");
    if (scales && scales->dtype != DTYPE_F32)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "scales must be float32");
    ret->by_size = sizes != NULL;
    ret->n = attr ? attr->n : (int)shape_elements(sizes ? &sizes->shape : &scales->shape);
    if (ret->n > SHAPE_MAX_RANK)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "%d scales", ret->n);
    for (int i = 0; i < ret->n; i++) {
        ret->scale[i] = attr ? (double)attr->floats[i] : scales ? tensor_get_f64(scales, i) : 1.0;
        ret->size[i] = sizes ? tensor_get_s64(sizes, i) : 0;
        if (!(ret->scale[i] > 0) || ret->scale[i] > 1e9 ||
            (sizes && (ret->size[i] < 1 || ret->size[i] > SHAPE_MAX_ELEMENTS)))
            return node_err(err, ERR_INVALID_ARGUMENT, node, "%s %d is %g",
                            sizes ? "size" : "scale", i,
                            sizes ? (double)ret->size[i] : ret->scale[i]);
    }
    return 0;
}

/* not_larger, not_smaller: one scale for all axes, so that the whole fits into (or covers) sizes.
 */
static void keep_aspect(const struct node *node, const struct shape *x, const int *axes,
                        struct scaling *s)
{
    const char *policy = node_string(node, "keep_aspect_ratio_policy", "stretch");
    if (!s->by_size || strcmp(policy, "stretch") == 0 || s->n == 0)
        return;
    bool larger = strcmp(policy, "not_larger") == 0;
    double scale = 0;
    for (int i = 0; i < s->n; i++) {
        double one = (double)s->size[i] / (double)x->dim[axes[i]];
        if (i == 0 || (larger ? one < scale : one > scale))
            scale = one;
    }
    for (int i = 0; i < s->n; i++) {
        double size = floor(scale * (double)x->dim[axes[i]] + 0.5);
        s->size[i] =
            size >= 0 && size < 1e15 ? (int64_t)size : INT64_MAX; /* refused as too large */
    }
}

/* tf_crop_and_resize scales a part of the axis: roi holds starts, then ends, as fractions. */
static int crop_extent(const struct graph *g, const struct node *node, const struct scaling *s,
                       int i, double *extent, struct err *err)
{
    const char *mode = node_string(node, "coordinate_transformation_mode", "half_pixel");
    if (strcmp(mode, "tf_crop_and_resize") != 0)
        return 0;
    const struct tensor *roi = graph_constant_of(g, node, 1);
    if (!roi)
        return node_err(err, ERR_UNIMPLEMENTED, node, "roi must be a constant");
    if (!dtype_is_float(roi->dtype) || roi->shape.rank != 1 || roi->shape.dim[0] != 2 * s->n)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "roi must have %d numbers", 2 * s->n);
    *extent *= tensor_get_f64(roi, s->n + i) - tensor_get_f64(roi, i);
    return 0;
}

static int resize_axis(const struct graph *g, const struct node *node, const struct scaling *s,
                       int i, int64_t *dim, struct err *err)
{
    if (*dim == DIM_BATCH && (s->by_size || s->scale[i] != 1.0))
        return node_err(err, ERR_UNIMPLEMENTED, node, "resizes the batch");
    if (*dim == DIM_BATCH)
        return 0;
    if (s->by_size) {
        *dim = s->size[i];
        return 0;
    }
    double extent = (double)*dim;
    int rc = crop_extent(g, node, s, i, &extent, err);
    if (rc < 0)
        return rc;
    /* ONNX's own shape inference computes in float32. */
    float size = floorf((float)extent * (float)s->scale[i]);
    if (!(size >= 0) || size > (float)SHAPE_MAX_ELEMENTS)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "the output is too large");
    *dim = (int64_t)size;
    return 0;
}

int infer_resize(struct graph *g, const struct node *node, struct err *err)
{
    struct shape shape = *infer_shape_of(g, node, 0);
    struct scaling s = {0};
    struct int_list list;
    bool named[SHAPE_MAX_RANK];
    int axes[SHAPE_MAX_RANK] = {0};
    int rc = check_modes(node, err);
    if (rc == 0)
        rc = infer_list(g, node, "axes", -1, &list, err);
    if (rc == 0)
        rc = infer_axes(node, &list, shape.rank, named, err);
    if (rc == 0)
        rc = read_scaling(g, node, &s, err);
    if (rc < 0)
        return rc;
    if (s.n != (list.given ? list.n : shape.rank))
        return node_err(err, ERR_INVALID_ARGUMENT, node, "%d scales or sizes for %d dimensions",
                        s.n, list.given ? list.n : shape.rank);
    for (int i = 0; i < s.n; i++)
        axes[i] = (int)(!list.given ? i : list.v[i] < 0 ? list.v[i] + shape.rank : list.v[i]);
    keep_aspect(node, &shape, axes, &s);
    for (int i = 0; i < s.n && rc == 0; i++)
        rc = resize_axis(g, node, &s, i, &shape.dim[axes[i]], err);
    return rc < 0 ? rc : infer_set(g, node, 0, graph_input_of(g, node, 0)->dtype, &shape, err);
}

float graph_scale_between(int64_t from, int64_t to)
{
    float scale = (float)to / (float)from;
    while (floorf((float)from * scale) < (float)to)
        scale = nextafterf(scale, INFINITY);
    return scale;
}
