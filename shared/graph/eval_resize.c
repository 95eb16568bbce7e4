/*
 * Resize and Upsample. Interpolation is separable: along each axis, every output position is a
 * weighted sum of input positions (its taps), and the axes are done one after the other.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval_internal.h"

enum mode { NEAREST, LINEAR, CUBIC };
static const char *const mode_names[] = {"nearest", "linear", "cubic"};

enum coordinates {
    HALF_PIXEL,
    ASYMMETRIC,
    ALIGN_CORNERS,
    PYTORCH_HALF_PIXEL,
    HALF_PIXEL_SYMMETRIC,
    TF_CROP_AND_RESIZE,
    TF_HALF_PIXEL_FOR_NN,
};
static const char *const coordinate_names[] = {
    "half_pixel",           "asymmetric",         "align_corners",        "pytorch_half_pixel",
    "half_pixel_symmetric", "tf_crop_and_resize", "tf_half_pixel_for_nn",
};

enum rounding { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL };
static const char *const rounding_names[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                             "ceil"};

enum policy { STRETCH, NOT_LARGER, NOT_SMALLER };
static const char *const policy_names[] = {"stretch", "not_larger", "not_smaller"};

struct resize {
    enum mode mode;
    enum coordinates coordinates;
    enum rounding rounding;
    bool ceil_when_smaller; /* Resize-10: nearest is ceil when a dimension shrinks, else floor */
    bool antialias, exclude_outside;
    bool by_size; /* the output's size was given, and scales follow from it */
    double cubic_a, extrapolation;
    bool resized[SHAPE_MAX_RANK]; /* the axes that take part */
    double scale[SHAPE_MAX_RANK];
    double roi_start[SHAPE_MAX_RANK], roi_end[SHAPE_MAX_RANK];
    struct shape in, out;
};

static int choice(struct eval *e, const char *attr, const char *const *names, int n, int *ret)
{
    const char *text = node_string(e->node, attr, names[*ret]);
    for (int i = 0; i < n; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = i;
            return 0;
        }
    }
    return eval_unsupported(e, "%s '%s'", attr, text);
}

/* ---- one axis ----------------------------------------------------------------------------- */

/* The taps of all output positions of an axis: `n` each. */
struct taps {
    int64_t n;
    int64_t *at;    /* [out * n] input positions, clamped */
    double *weight; /* [out * n] */
    bool *outside;  /* [out] takes the extrapolation value */
};

static void taps_release(struct taps *t)
{
    free(t->at);
    free(t->weight);
    free(t->outside);
}

/* Where output position x lies in the input. The quotients are rounded to float: a scale such as
 * 0.1 is a float in the file, and 1 / 0.1 is to be 10 and not 9.99999985. */
static double original(const struct resize *r, int axis, int64_t x)
{
    double in = (double)r->in.dim[axis], out = (double)r->out.dim[axis], scale = r->scale[axis];
    /* The output's size before it was rounded down. */
    double exact = r->by_size && r->coordinates != HALF_PIXEL_SYMMETRIC ? out : scale * in;
    double center = (double)(float)(((double)x + 0.5) / scale);
    switch (r->coordinates) {
    case ASYMMETRIC:
        return (double)(float)((double)x / scale);
    case ALIGN_CORNERS:
        return exact == 1 ? 0 : (double)(float)((double)x * (in - 1) / (exact - 1));
    case PYTORCH_HALF_PIXEL:
        return out > 1 ? center - 0.5 : 0;
    case HALF_PIXEL_SYMMETRIC:
        return in / 2 * (1 - out / exact) + center - 0.5;
    case TF_CROP_AND_RESIZE: {
        double start = r->roi_start[axis] * (in - 1), end = r->roi_end[axis] * (in - 1);
        return out > 1 ? start + (double)x * (end - start) / (out - 1) : (start + end) / 2;
    }
    case TF_HALF_PIXEL_FOR_NN:
        return center;
    default: /* HALF_PIXEL */
        return center - 0.5;
    }
}

static double nearest(const struct resize *r, int axis, double x)
{
    if (r->ceil_when_smaller)
        return r->scale[axis] < 1 ? ceil(x) : floor(x);
    switch (r->rounding) {
    case PREFER_FLOOR:
        return ceil(x - 0.5);
    case PREFER_CEIL:
        return floor(x + 0.5);
    case FLOOR:
        return floor(x);
    default: /* CEIL */
        return ceil(x);
    }
}

/* The weight of a tap at distance d: the triangle, or Keys' cubic. */
static double kernel(const struct resize *r, double d)
{
    double a = r->cubic_a;
    d = fabs(d);
    if (r->mode == LINEAR)
        return d < 1 ? 1 - d : 0;
    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

static double clamped(double x, int64_t n)
{
    return x<0 ? 0 : x>(double)(n - 1) ? (double)(n - 1) : x;
}

/* The taps of output position o. Interpolating: input positions base + 1 - n/2 .. base + n/2, where
 * base < x <= base + 1. */
static void position_taps(const struct resize *r, int axis, double squeeze, int64_t o,
                          const struct taps *t)
{
    int64_t in = r->in.dim[axis], *at = t->at + o * t->n;
    double *weight = t->weight + o * t->n, x = original(r, axis, o), sum = 0;
    t->outside[o] = r->coordinates == TF_CROP_AND_RESIZE && (x < 0 || x > (double)(in - 1));
    if (!isfinite(x))
        x = 0;
    if (r->mode == NEAREST) {
        at[0] = (int64_t)clamped(nearest(r, axis, x), in);
        weight[0] = 1;
        return;
    }
    double base = ceil(x) - 1;
    for (int64_t i = 0; i < t->n; i++) {
        double k = base + (double)(1 - t->n / 2 + i);
        bool outside = k < 0 || k > (double)(in - 1);
        at[i] = (int64_t)clamped(k, in);
        weight[i] = r->exclude_outside && outside ? 0 : kernel(r, (k - x) * squeeze);
        sum += weight[i];
    }
    for (int64_t i = 0; i < t->n && (r->exclude_outside || r->antialias); i++)
        weight[i] /= sum;
}

static int axis_taps(struct eval *e, const struct resize *r, int axis, struct taps *t)
{
    int64_t out = r->out.dim[axis], radius = r->mode == CUBIC ? 2 : 1;
    double squeeze = r->antialias && r->scale[axis] < 1 ? r->scale[axis] : 1;
    /* Antialiasing widens the kernel over 1 / scale positions. */
    double reach = floor((double)radius / squeeze);
    if ((double)radius / squeeze == reach)
        reach -= 1;
    if (squeeze == 1)
        reach = (double)(radius - 1);
    if (reach > 1e6)
        return eval_bad(e, "scale %g is too small to antialias", r->scale[axis]);
    t->n = r->mode == NEAREST ? 1 : 2 * ((int64_t)reach + 1);
    size_t bytes;
    if (mem_mul((size_t)out, (size_t)t->n, &bytes) < 0 || bytes > (size_t)EVAL_MAX_ELEMENTS)
        return err_set(e->err, ERR_RESOURCE_EXHAUSTED, "too many taps");
    t->at = mem_calloc((size_t)out, (size_t)t->n * sizeof(*t->at));
    t->weight = mem_calloc((size_t)out, (size_t)t->n * sizeof(*t->weight));
    t->outside = mem_calloc((size_t)out, sizeof(*t->outside));
    if (!t->at || !t->weight || !t->outside)
        return err_oom(e->err, "resizing");
    for (int64_t o = 0; o < out; o++)
        position_taps(r, axis, squeeze, o, t);
    return 0;
}

/* One line of an axis: `out` positions, `inner` elements each. */
static void apply_taps(const struct taps *t, int64_t out, int64_t inner, double extrapolation,
                       const double *x, double *y)
{
    for (int64_t o = 0; o < out; o++, y += inner) {
        if (t->outside[o]) {
            for (int64_t i = 0; i < inner; i++)
                y[i] = extrapolation;
            continue;
        }
        const double *first = x + t->at[o * t->n] * inner;
        for (int64_t i = 0; i < inner; i++)
            y[i] = t->weight[o * t->n] * first[i];
        for (int64_t k = 1; k < t->n; k++) {
            const double *from = x + t->at[o * t->n + k] * inner;
            for (int64_t i = 0; i < inner; i++)
                y[i] += t->weight[o * t->n + k] * from[i];
        }
    }
}

/* Replaces *x, of the shape's elements, by the same resized along the axis. */
static int resize_axis(struct eval *e, const struct resize *r, int axis, struct shape *shape,
                       double **x)
{
    _cleanup_(taps_release) struct taps t = {0};
    int rc = axis_taps(e, r, axis, &t);
    if (rc < 0)
        return rc;
    int64_t outer, inner, in = shape->dim[axis], out = r->out.dim[axis];
    eval_split_at(shape, axis, &outer, &inner);
    shape->dim[axis] = out;
    if (shape_check(shape, e->err) < 0)
        return eval_failed(e);
    double *y = mem_calloc((size_t)shape_elements(shape), sizeof(*y));
    if (!y)
        return err_oom(e->err, "resizing");
    for (int64_t o = 0; o < outer; o++)
        apply_taps(&t, out, inner, r->extrapolation, *x + o * in * inner, y + o * out * inner);
    free(*x);
    *x = y;
    return 0;
}

/* An axis that maps every position to itself. (tf_half_pixel_for_nn would shift even such an axis
 * by half; what is meant are the others.) */
static bool is_identity(const struct resize *r, int axis)
{
    if (!r->resized[axis])
        return true;
    bool whole = r->roi_start[axis] == 0 && r->roi_end[axis] == 1;
    return r->scale[axis] == 1 && r->in.dim[axis] == r->out.dim[axis] &&
           (r->coordinates != TF_CROP_AND_RESIZE || whole);
}

static int run(struct eval *e, struct resize *r)
{
    const struct tensor *x = e->in[0];
    for (int i = 0; i < r->in.rank; i++) {
        if (r->in.dim[i] == 0 && r->out.dim[i] > 0)
            return eval_bad(e, "dimension %d is empty: nothing to resize", i);
    }
    struct tensor *out = eval_out(e, 0, x->dtype, &r->out);
    if (!out)
        return eval_failed(e);
    _cleanup_(freep) double *v = eval_doubles(e, x);
    if (!v)
        return eval_failed(e);
    struct shape shape = r->in;
    /* The innermost axis first or last makes no difference but for extrapolation: whatever lies
     * outside along one axis has that value, and weights add up to one. */
    for (int i = 0; i < r->in.rank && shape_elements(&r->out) > 0; i++) {
        int rc = is_identity(r, i) ? 0 : resize_axis(e, r, i, &shape, &v);
        if (rc < 0)
            return rc;
    }
    for (int64_t i = 0; !dtype_is_float(out->dtype) && i < shape_elements(&r->out); i++)
        v[i] = trunc(v[i]); /* as Cast does */
    eval_store_doubles(out, v);
    return 0;
}

/* ---- arguments ---------------------------------------------------------------------------- */

/* An optional list of numbers: an empty tensor counts as left out. */
static const struct tensor *given(struct eval *e, int i)
{
    const struct tensor *t = eval_in(e, i);
    return t && shape_elements(&t->shape) > 0 ? t : NULL;
}

static int check_list(struct eval *e, const struct tensor *t, const char *what, int64_t n)
{
    if (t->shape.rank != 1 || t->shape.dim[0] != n) {
        char text[128];
        return eval_bad(e, "%s of shape %s, where %lld values are needed", what,
                        shape_text(&t->shape, text), (long long)n);
    }
    return 0;
}

static int set_scale(struct eval *e, struct resize *r, int axis, double scale)
{
    if (!(scale > 0) || !isfinite(scale))
        return eval_bad(e, "scale %g of dimension %d", scale, axis);
    /* In float, as the size was meant: 10 * 0.7 is 7. */
    double part = r->roi_end[axis] - r->roi_start[axis];
    float size = floorf((float)((double)r->in.dim[axis] * part) * (float)scale);
    if (!(size >= 0))
        return eval_bad(e, "roi of dimension %d is not in order", axis);
    if (!(size < 0x1p31F))
        return eval_bad(e, "scale %g of dimension %d is too large", scale, axis);
    r->scale[axis] = scale;
    r->out.dim[axis] = (int64_t)size;
    return 0;
}

static int scales_given(struct eval *e, struct resize *r, const struct tensor *t, int n,
                        const int *axes)
{
    int rc = check_list(e, t, "scales", n);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = set_scale(e, r, axes[i], tensor_get_f64(t, i));
    return rc;
}

static int sizes_given(struct eval *e, struct resize *r, const struct tensor *t, int n,
                       const int *axes, enum policy policy)
{
    int rc = check_list(e, t, "sizes", n);
    if (rc < 0)
        return rc;
    double least = INFINITY, most = 0;
    r->by_size = true;
    for (int i = 0; i < n; i++) {
        int64_t size = tensor_get_s64(t, i), in = r->in.dim[axes[i]];
        if (size < 0 || size > SHAPE_MAX_ELEMENTS || (size > 0 && in == 0))
            return eval_bad(e, "size %lld of dimension %d, which is %lld", (long long)size, axes[i],
                            (long long)in);
        r->out.dim[axes[i]] = size;
        r->scale[axes[i]] = in > 0 ? (double)size / (double)in : 1;
        least = fmin(least, r->scale[axes[i]]);
        most = fmax(most, r->scale[axes[i]]);
    }
    for (int i = 0; policy != STRETCH && i < n; i++) {
        double scale = policy == NOT_LARGER ? least : most;
        r->scale[axes[i]] = scale;
        double size = floor(scale * (double)r->in.dim[axes[i]] + 0.5);
        if (!(size < 0x1p31))
            return eval_bad(e, "dimension %d becomes too large", axes[i]);
        r->out.dim[axes[i]] = (int64_t)size;
    }
    return 0;
}

static int read_roi(struct eval *e, struct resize *r, int n, const int *axes)
{
    if (r->coordinates != TF_CROP_AND_RESIZE)
        return 0;
    const struct tensor *roi = given(e, 1);
    if (!roi)
        return eval_bad(e, "roi is missing");
    int rc = check_list(e, roi, "roi", 2 * (int64_t)n);
    for (int i = 0; rc == 0 && i < n; i++) {
        r->roi_start[axes[i]] = tensor_get_f64(roi, i);
        r->roi_end[axes[i]] = tensor_get_f64(roi, n + i);
    }
    return rc;
}

/* The axes that sizes, scales and roi speak of; all of them by default. */
static int read_axes(struct eval *e, struct resize *r, int order[SHAPE_MAX_RANK])
{
    int64_t axes[SHAPE_MAX_RANK];
    int n = node_ints(e->node, "axes", SHAPE_MAX_RANK, axes);
    if (n > r->in.rank)
        return eval_bad(e, "axes has %d values for rank %d", n, r->in.rank);
    for (int i = 0; n == 0 && i < r->in.rank; i++)
        axes[i] = i;
    if (n == 0)
        n = r->in.rank;
    int rc = eval_axes(e, n, axes, r->in.rank, r->resized, order);
    return rc < 0 ? rc : n;
}

static struct resize defaults(const struct eval *e)
{
    struct resize r = {.in = e->in[0]->shape, .out = e->in[0]->shape};
    for (int i = 0; i < r.in.rank; i++) {
        r.scale[i] = 1;
        r.roi_end[i] = 1;
        r.resized[i] = true;
    }
    return r;
}

/* Up to Resize-10: only scales; out = floor(in * scale), in = out / scale. */
static int resize_old(struct eval *e, bool upsample)
{
    struct resize r = defaults(e);
    int mode = NEAREST, order[SHAPE_MAX_RANK];
    int rc = choice(e, "mode", mode_names, 2, &mode);
    if (rc < 0)
        return rc;
    r.mode = (enum mode)mode;
    r.coordinates = ASYMMETRIC;
    r.rounding = FLOOR;
    r.ceil_when_smaller = !upsample;
    for (int i = 0; i < r.in.rank; i++)
        order[i] = i;
    if (upsample && e->node->since < 9) {
        const struct attr *attr = node_attr(e->node, "scales");
        if (!attr || attr->kind != ATTR_FLOATS || attr->n != r.in.rank)
            return eval_bad(e, "scales does not hold %d numbers", r.in.rank);
        for (int i = 0; rc == 0 && i < attr->n; i++)
            rc = set_scale(e, &r, i, (double)attr->floats[i]);
    } else {
        const struct tensor *scales = eval_in(e, 1);
        rc = scales ? scales_given(e, &r, scales, r.in.rank, order)
                    : eval_bad(e, "scales is missing");
    }
    return rc < 0 ? rc : run(e, &r);
}

int eval_upsample(struct eval *e)
{
    return resize_old(e, true);
}

static int read_modes(struct eval *e, struct resize *r, enum policy *ret_policy)
{
    int mode = NEAREST, coordinates = HALF_PIXEL, rounding = PREFER_FLOOR, policy = STRETCH;
    int rc = choice(e, "mode", mode_names, 3, &mode);
    if (rc == 0)
        rc = choice(e, "coordinate_transformation_mode", coordinate_names, 7, &coordinates);
    if (rc == 0)
        rc = choice(e, "nearest_mode", rounding_names, 4, &rounding);
    if (rc == 0)
        rc = choice(e, "keep_aspect_ratio_policy", policy_names, 3, &policy);
    r->mode = (enum mode)mode;
    r->coordinates = (enum coordinates)coordinates;
    r->rounding = (enum rounding)rounding;
    *ret_policy = (enum policy)policy;
    r->antialias = node_int(e->node, "antialias", 0) != 0;
    r->exclude_outside = node_int(e->node, "exclude_outside", 0) != 0;
    r->cubic_a = (double)node_float(e->node, "cubic_coeff_a", -0.75F);
    r->extrapolation = (double)node_float(e->node, "extrapolation_value", 0);
    return rc;
}

int eval_resize(struct eval *e)
{
    if (e->node->since < 11)
        return resize_old(e, false);
    struct resize r = defaults(e);
    enum policy policy;
    int order[SHAPE_MAX_RANK];
    int rc = read_modes(e, &r, &policy);
    int n = rc < 0 ? rc : read_axes(e, &r, order);
    if (n < 0)
        return n;
    const struct tensor *scales = given(e, 2), *sizes = given(e, 3);
    if (!scales == !sizes)
        return eval_bad(e, "one of scales and sizes must be given");
    rc = read_roi(e, &r, n, order);
    if (rc == 0)
        rc = scales ? scales_given(e, &r, scales, n, order)
                    : sizes_given(e, &r, sizes, n, order, policy);
    return rc < 0 ? rc : run(e, &r);
}
