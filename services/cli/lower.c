#include "services/cli/lower.h"

#include <math.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/graph/onnx.h"

static yyjson_val *section(const struct reproduce *r, const char *name)
{
    return yyjson_obj_get(r->manifest.root, name);
}

static int open_samples(const struct reproduce *r, struct sample_view *ret, struct err *err)
{
    return lowering_samples(r->samples.ds, &r->samples.pre, PART_TRAIN, LOWERING_SAMPLES,
                            r->samples.seed, ret, err);
}

int lower_calibrate(const struct reproduce *r, const struct graph *g, struct quant_ranges *ret,
                    struct err *err)
{
    _cleanup_(sample_view_release) struct sample_view view = {0};
    const struct infer_options infer = {.threads = (int)r->q->threads};
    int rc = open_samples(r, &view, err);
    return rc < 0 ? rc : quant_calibrate(g, &infer, view.n, sample_view_fill, &view, ret, err);
}

static int weight_bits(const struct reproduce *r)
{
    const double bits = manifest_number(section(r, "settings"), "weight_bits");
    return bits == 7 || bits == 8 ? (int)bits : nn_has_int8() ? 8 : 7;
}

/* All layers that can be lowered, with what is asked for them. */
static int choose(const struct lower_request *q, struct arena *arena, struct quant_choice **ret,
                  int *ret_n, struct err *err)
{
    const char *const *names;
    int rc = quant_layers(q->parent, arena, &names, ret_n, err);
    if (rc < 0)
        return rc;
    struct quant_choice *choices = arena_alloc(arena, (size_t)*ret_n + 1, sizeof(*choices));
    if (!choices)
        return err_oom(err, "a network");
    for (int i = 0; rc == 0 && i < *ret_n; i++) {
        const char *precision = q->layers ? manifest_text(q->layers, names[i]) : "int8";
        choices[i].layer = names[i];
        rc = quant_choice_parse(*precision ? precision : "fp32", &choices[i], err);
    }
    *ret = choices;
    return rc;
}

static int correct(const struct reproduce *r, const struct lower_request *q,
                   const struct quant_choice *choices, int n, struct graph *child, struct err *err)
{
    _cleanup_(sample_view_release) struct sample_view view = {0};
    const struct infer_options infer = {.threads = (int)r->q->threads};
    bool any = false;
    for (int i = 0; i < n; i++)
        any |= choices[i].precision == PRECISION_INT8;
    if (!any)
        return 0;
    int rc = open_samples(r, &view, err);
    return rc < 0
               ? rc
               : quant_correct_bias(q->parent, child, &infer, view.n, sample_view_fill, &view, err);
}

int lower_build(const struct reproduce *r, const struct lower_request *q, void **ret_onnx,
                size_t *ret_bytes, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(quant_ranges_release) struct quant_ranges own = {0};
    _cleanup_(graph_freep) struct graph *child = NULL;
    const struct quant_options options = {.weight_bits = weight_bits(r)};
    struct quant_choice *choices = NULL;
    int n = 0;
    int rc = arena ? choose(q, arena, &choices, &n, err) : err_oom(err, "a network");
    if (rc == 0 && !q->ranges)
        rc = lower_calibrate(r, q->parent, &own, err);
    if (rc == 0)
        rc = quant_rewrite(q->parent, choices, n, q->ranges ? q->ranges : &own, &options, &child,
                           err);
    if (rc == 0)
        rc = correct(r, q, choices, n, child, err);
    if (rc < 0)
        return err_wrap(err, "%s", q->name);
    const struct lowering_facts facts = {
        .name = q->name,
        .parent = manifest_text(section(r, "inputs"), "model_sha256"),
        .preprocess = r->samples.pre_text,
        .design = q->design,
        .seed = r->samples.seed,
        .weight_bits = options.weight_bits,
        .choices = choices,
        .n_choices = n,
    };
    rc = lowering_describe(child, &facts, err);
    return rc < 0 ? rc : onnx_write_bytes(child, ret_onnx, ret_bytes, err);
}
