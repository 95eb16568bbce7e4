#include "shared/nn/step_convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/nn/step_dnnl.h"

enum precision precision_of(enum dtype dtype)
{
    return dtype == DTYPE_BF16                      ? PRECISION_BF16
           : dtype == DTYPE_U8 || dtype == DTYPE_S8 ? PRECISION_INT8
                                                    : PRECISION_FP32;
}

/* ---- the same bytes ---- */

static int run_copy(struct step *step, struct err *err)
{
    (void)err;
    memcpy(step->data[1], step->data[0], *(const size_t *)step->state);
    return 0;
}

static int make_copy(struct maker *m, struct step *step, size_t bytes, struct err *err)
{
    step->state = arena_memdup(m->arena, &bytes, sizeof(bytes));
    if (!step->state)
        return err_oom(err, "a copy");
    step->run = run_copy;
    step->info.implementation = "memcpy";
    return 0;
}

/* ---- anything, in plain C ---- */

struct generic {
    struct shape shape;
    struct form from, to;
};

/* Offset of an element in a layout. */
static int64_t offset_in(enum layout layout, const struct shape *s, const int64_t *at)
{
    int64_t pixel = 0;
    if (layout == LAYOUT_PLAIN) {
        for (int d = 0; d < s->rank; d++)
            pixel = pixel * s->dim[d] + at[d];
        return pixel;
    }
    for (int d = 2; d < s->rank; d++)
        pixel = pixel * s->dim[d] + at[d];
    int64_t pixels = layout_plane(layout, s);
    if (layout == LAYOUT_LAST)
        return (at[0] * pixels + pixel) * s->dim[1] + at[1];
    int64_t block = layout_block(layout), blocks = (s->dim[1] + block - 1) / block;
    return ((at[0] * blocks + at[1] / block) * pixels + pixel) * block + at[1] % block;
}

static int run_generic(struct step *step, struct err *err)
{
    (void)err;
    const struct generic *g = step->state;
    struct tensor from = {.dtype = g->from.dtype, .shape = g->shape, .data = step->data[0]};
    struct tensor to = {.dtype = g->to.dtype, .shape = g->shape, .data = step->data[1]};
    int64_t n = shape_elements(&g->shape), at[SHAPE_MAX_RANK] = {0};
    if (layout_elements(g->to.layout, &g->shape) != n)
        memset(to.data, 0,
               (size_t)layout_elements(g->to.layout, &g->shape) * dtype_bytes(to.dtype));
    for (int64_t i = 0; i < n; i++) {
        double x = tensor_get_f64(&from, offset_in(g->from.layout, &g->shape, at));
        if (g->from.quantized)
            x = (double)((float)(x - g->from.zero) * g->from.scale);
        if (g->to.quantized)
            x = (double)rintf((float)x / g->to.scale) + g->to.zero;
        tensor_set_f64(&to, offset_in(g->to.layout, &g->shape, at), x);
        for (int d = g->shape.rank - 1; d >= 0 && ++at[d] == g->shape.dim[d]; d--)
            at[d] = 0;
    }
    return 0;
}

static int make_generic(struct maker *m, struct step *step, const struct shape *shape,
                        const struct form *from, const struct form *to, struct err *err)
{
    struct generic g = {.shape = *shape, .from = *from, .to = *to};
    step->state = arena_memdup(m->arena, &g, sizeof(g));
    if (!step->state)
        return err_oom(err, "a conversion");
    step->run = run_generic;
    step->info.implementation = "reference";
    return 0;
}

/* ---- oneDNN's reorder ---- */

static int set_quantization(dnnl_primitive_attr_t attr, int arg, const struct form *form)
{
    if (!form->quantized)
        return 0;
    if (dnnl_primitive_attr_set_scales_mask(attr, arg, 0) != dnnl_success)
        return -1;
    if (form->zero != 0 && dnnl_primitive_attr_set_zero_points_mask(attr, arg, 0) != dnnl_success)
        return -1;
    return 0;
}

static int add_quantization(struct maker *m, struct binding *b, int n, int arg,
                            const_dnnl_memory_desc_t one_f32, const_dnnl_memory_desc_t one_s32,
                            const struct form *form)
{
    if (!form->quantized)
        return n;
    b[n++] = (struct binding){DNNL_ARG_ATTR_SCALES | arg, one_f32, -1,
                              arena_memdup(m->arena, &form->scale, sizeof(form->scale))};
    if (form->zero != 0)
        b[n++] = (struct binding){DNNL_ARG_ATTR_ZERO_POINTS | arg, one_s32, -1,
                                  arena_memdup(m->arena, &form->zero, sizeof(form->zero))};
    return n;
}

/* 1: made; 0: oneDNN cannot. */
static int make_reorder(struct maker *m, struct step *step, const struct shape *shape,
                        const struct form *from, const struct form *to, struct err *err)
{
    if (dnnl_type(from->dtype) == dnnl_data_type_undef ||
        dnnl_type(to->dtype) == dnnl_data_type_undef || shape->rank == 0)
        return 0;
    const struct shape one = shape_make(1, (int64_t[]){1});
    _cleanup_(dnnl_mdp) dnnl_memory_desc_t src = layout_md(from->layout, shape, from->dtype);
    _cleanup_(dnnl_mdp) dnnl_memory_desc_t dst = layout_md(to->layout, shape, to->dtype);
    _cleanup_(dnnl_mdp) dnnl_memory_desc_t f32 = layout_md(LAYOUT_PLAIN, &one, DTYPE_F32);
    _cleanup_(dnnl_mdp) dnnl_memory_desc_t s32 = layout_md(LAYOUT_PLAIN, &one, DTYPE_S32);
    _cleanup_(dnnl_attrp) dnnl_primitive_attr_t attr = NULL;
    _cleanup_(dnnl_pdp) dnnl_primitive_desc_t pd = NULL;
    if (!src || !dst || !f32 || !s32 || dnnl_primitive_attr_create(&attr) != dnnl_success)
        return 0;
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (set_quantization(attr, DNNL_ARG_FROM, from) < 0 ||
        set_quantization(attr, DNNL_ARG_TO, to) < 0 ||
        dnnl_reorder_primitive_desc_create(&pd, src, m->engine, dst, m->engine, attr) !=
            dnnl_success)
        return 0;
    struct binding b[8] = {{DNNL_ARG_FROM, src, 0, NULL}, {DNNL_ARG_TO, dst, 1, NULL}};
    int n = add_quantization(m, b, 2, DNNL_ARG_FROM, f32, s32, from);
    n = add_quantization(m, b, n, DNNL_ARG_TO, f32, s32, to);
    int rc = dnnl_step_build(m, step, pd, b, n, err);
    return rc < 0 ? rc : 1;
}

/* ---- */

static bool same_numbers(const struct form *a, const struct form *b)
{
    return a->dtype == b->dtype && a->quantized == b->quantized &&
           (!a->quantized || (a->scale == b->scale && a->zero == b->zero));
}

int convert_make(struct maker *m, struct step *step, const struct shape *shape,
                 const struct form *from, const struct form *to, struct err *err)
{
    if (same_numbers(from, to) && from->layout == to->layout)
        return make_copy(m, step,
                         (size_t)layout_elements(to->layout, shape) * dtype_bytes(to->dtype), err);
    int rc = narrow_convert_make(m, step, shape, from, to, err);
    if (rc == 0)
        rc = make_reorder(m, step, shape, from, to, err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    return make_generic(m, step, shape, from, to, err);
}

double convert_estimate(const struct shape *shape, const struct form *from, const struct form *to)
{
    double n = (double)layout_elements(to->layout, shape);
    bool moves = from->layout != to->layout;
    double ns = 400 + n * (moves ? 0.35 : 0.15);
    return convert_is_direct(shape, from, to) ? ns : 2 * ns;
}

/* ---- QuantizeLinear ---- */

static struct form wire_form(const struct wire *w, enum dtype dtype, enum layout layout)
{
    return (struct form){.dtype = dtype,
                         .layout = layout_canonical(layout, &w->shape),
                         .quantized = w->quantized && w->dtype == dtype,
                         .scale = w->scale,
                         .zero = w->zero};
}

static int list_convert(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                        struct choices *choices, struct err *err)
{
    const struct wire *from = &m->plan->wires[layer->in[0].wire];
    const struct wire *to = &m->plan->wires[layer->out[0]];
    const struct form a = wire_form(from, layer->in[0].dtype, in);
    const struct form b = wire_form(to, to->dtype, out);
    const struct choice choice = {.by = &convert_layer, .in = in, .out = out};
    return convert_is_direct(&to->shape, &a, &b) ? choices_add(choices, &choice, err) : 0;
}

static int make_convert(struct maker *m, const struct layer *layer, const struct choice *choice,
                        struct step *step, struct err *err)
{
    const struct wire *in = &m->plan->wires[layer->in[0].wire];
    const struct wire *out = &m->plan->wires[layer->out[0]];
    const struct form from = wire_form(in, layer->in[0].dtype, choice->in);
    const struct form to = wire_form(out, out->dtype, choice->out);
    return convert_make(m, step, &out->shape, &from, &to, err);
}

const struct implementation convert_layer = {
    .name = "convert", .list = list_convert, .make = make_convert};
