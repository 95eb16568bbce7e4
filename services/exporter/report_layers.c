/* The layers of the chosen network: those of the original in other precisions, or, where it is of
 * another architecture, its own beside the original's stages. */
#include <stdlib.h>
#include <string.h>

#include "services/exporter/report_architecture.h"
#include "services/exporter/report_parts.h"

/* ---- the original's architecture ---- */

static int precision_index(const Hone__V1__Profile *profile, const char *precision)
{
    for (size_t i = 0; i < profile->n_precisions; i++)
        if (strcmp(profile->precisions[i], precision) == 0)
            return (int)i;
    return -1;
}

/* Few bits run in the kernels of 8. */
static const char *kernels_of(const char *precision)
{
    return strncmp(precision, "int", 3) == 0 ? "int8" : precision;
}

static double layer_us(const Hone__V1__Profile *profile, const Hone__V1__Profile__Layer *layer,
                       const char *precision)
{
    int i = precision_index(profile, kernels_of(precision));
    return i >= 0 && (size_t)i < layer->n_us ? layer->us[i] : 0;
}

static const char *chosen_precision(const struct report *r, const char *layer)
{
    for (size_t i = 0; i < r->chosen->n_layers; i++)
        if (strcmp(r->chosen->layers[i]->layer, layer) == 0)
            return r->chosen->layers[i]->precision;
    return NULL;
}

static void add_bar(struct strbuf *out, double us, double max_us, const char *precision)
{
    strbuf_printf(out, "<div class=bar><i class=p-%s style='width:%.1f%%'></i><span>",
                  kernels_of(precision), max_us > 0 ? 65 * us / max_us : 0);
    report_us(out, us);
    strbuf_add(out, "</span></div>");
}

static void same_layers_html(const struct report *r, struct strbuf *out)
{
    double max_us = 0, before = 0, after = 0;
    const char *last = "fp32"; /* of the layer before that somebody chose for */
    for (size_t i = 0; i < r->profile->n_layers; i++) {
        double us = layer_us(r->profile, r->profile->layers[i], "fp32");
        max_us = us > max_us ? us : max_us;
    }
    strbuf_add(out, "<section><h2>Layer by layer</h2><table><tr><th>Layer<th>M MACs<th class=left>"
                    "before, fp32<th class=left>after<th class=left>precision</tr>");
    for (size_t i = 0; i < r->profile->n_layers; i++) {
        const Hone__V1__Profile__Layer *layer = r->profile->layers[i];
        const char *chosen = chosen_precision(r, layer->layer);
        double fp32 = layer_us(r->profile, layer, "fp32");
        /* A layer that nobody chose for (a pool, a slice) follows what comes before it. */
        last = chosen ? chosen : last;
        const char *precision = last;
        double us = layer_us(r->profile, layer, precision);
        if (us <= 0) {
            precision = "fp32";
            us = fp32;
        }
        before += fp32;
        after += us;
        report_tagged(out, "<tr><td>", layer->layer, "</td>");
        strbuf_printf(out, "<td>%.2f</td><td class=left>", (double)layer->macs * 1e-6);
        add_bar(out, fp32, max_us, "fp32");
        strbuf_add(out, "</td><td class=left>");
        add_bar(out, us, max_us, precision);
        strbuf_printf(out, "</td><td class=left><span class='tag p-%s'>%s</span></td></tr>",
                      kernels_of(precision), precision);
    }
    strbuf_add(out, "<tr><td>sum of layers</td><td></td><td class=left>");
    report_us(out, before);
    strbuf_add(out, "</td><td class=left>");
    report_us(out, after);
    strbuf_add(out,
               "</td><td></td></tr></table><p class=soft>Each layer's time inside the whole "
               "network, fp32 and in the precision chosen for it. Conversions between precisions "
               "are not listed; the table above has the measured whole.");
    if (r->state->model_error > 0)
        strbuf_printf(out,
                      " The sum of layers predicted the assembled networks with a median error "
                      "of %.1f %%.",
                      100 * r->state->model_error);
    strbuf_add(out, "</p></section>");
}

/* ---- another architecture ---- */

static double original_us(const struct report *r, const char *layer)
{
    for (size_t i = 0; i < r->profile->n_layers; i++)
        if (strcmp(r->profile->layers[i]->layer, layer) == 0)
            return layer_us(r->profile, r->profile->layers[i], "fp32");
    return 0;
}

/* Both networks and where they are alike. */
struct beside {
    struct arena *arena;
    struct architecture was, is;
    double *us; /* of the original's stages, in fp32 */
};

static void beside_release(struct beside *b)
{
    arena_free(b->arena);
    free(b->us);
}

static bool beside_read(const struct report *r, struct beside *b)
{
    b->arena = r->redesigned ? arena_new() : NULL;
    if (!b->arena || architecture_read(r->original, b->arena, &b->was) < 0 ||
        architecture_read(r->redesigned, b->arena, &b->is) < 0)
        return false;
    b->us = mem_calloc((size_t)b->was.n_stages + 1, sizeof(*b->us));
    for (int n = 0; b->us && n < r->original->n_nodes; n++) {
        const int stage = architecture_stage_of(&b->was, r->original, r->original->nodes[n]);
        if (stage >= 0)
            b->us[stage] += original_us(r, r->original->nodes[n]->name);
    }
    return b->us != NULL;
}

static const struct architecture_stage *stage_like(const struct architecture *a, const char *size)
{
    for (int i = 0; i < a->n_stages; i++)
        if (strcmp(a->stages[i].size, size) == 0)
            return &a->stages[i];
    return NULL;
}

static void add_stage(const struct architecture_stage *stage, struct strbuf *out)
{
    if (stage)
        strbuf_printf(out, "<td>%d</td><td>%lld</td><td>%.2f</td>", stage->layers,
                      (long long)stage->channels, (double)stage->macs * 1e-6);
    else
        strbuf_add(out, "<td>&ndash;</td><td>&ndash;</td><td>&ndash;</td>");
}

static void add_stage_row(const char *size, const struct architecture_stage *was, double us,
                          const struct architecture_stage *is, struct strbuf *out)
{
    report_tagged(out, "<tr><td>", size, "</td>");
    add_stage(was, out);
    report_us_cell(out, us);
    add_stage(is, out);
    strbuf_add(out, "</tr>");
}

static void add_total(const struct report *r, const struct beside *b, struct strbuf *out)
{
    const Hone__V1__Timing *was = state_timing(r->state->baseline, "hone", NULL);
    const Hone__V1__Timing *is = state_timing(r->chosen, "hone", NULL);
    strbuf_printf(out,
                  "<tr><td>all</td><td>%d</td><td></td><td>%.2f</td><td></td><td>%d</td>"
                  "<td></td><td>%.2f</td></tr></table><p class=soft>Layers are counted at the "
                  "resolution of what they yield",
                  b->was.n_layers, (double)r->state->baseline->macs * 1e-6, b->is.n_layers,
                  (double)r->chosen->macs * 1e-6);
    if (was && is) {
        strbuf_add(out, "; measured as a whole, the original takes ");
        report_us(out, was->p50_us);
        strbuf_add(out, " in fp32 and the new network ");
        report_us(out, is->p50_us);
    }
    strbuf_add(out, ". The layers of the new network were not measured one by one.</p></section>");
}

static void stages_html(const struct report *r, const struct beside *b, struct strbuf *out)
{
    strbuf_add(out, "<section><h2>Original beside the new network</h2><p>");
    report_tagged(out, "<b>", r->chosen->name, "</b>: ");
    report_tagged(out, "<span class=design>", r->chosen->design, "</span></p>");
    strbuf_add(out,
               "<table><tr><th>Resolution<th>original: layers<th>channels<th>M MACs<th>fp32 time"
               "<th>new: layers<th>channels<th>M MACs</tr>");
    for (int i = 0; i < b->was.n_stages; i++)
        add_stage_row(b->was.stages[i].size, &b->was.stages[i], b->us[i],
                      stage_like(&b->is, b->was.stages[i].size), out);
    for (int i = 0; i < b->is.n_stages; i++)
        if (!stage_like(&b->was, b->is.stages[i].size))
            add_stage_row(b->is.stages[i].size, NULL, 0, &b->is.stages[i], out);
    add_total(r, b, out);
}

/* A layer that nobody chose for (a pool, a sum) follows what comes before it. */
static const char *precision_of(const struct report *r, const char *layer, const char *last)
{
    const char *chosen = chosen_precision(r, layer);
    return chosen ? chosen : last;
}

static void own_layers_html(const struct report *r, const struct architecture *a,
                            struct strbuf *out)
{
    const char *precision = "fp32";
    strbuf_add(out, "<section><h2>The new network, layer by layer</h2><table><tr><th>Layer<th "
                    "class=left>operator<th>yields<th>M MACs<th class=left>precision</tr>");
    for (int i = 0; i < a->n_layers; i++) {
        const struct architecture_layer *l = &a->layers[i];
        precision = precision_of(r, l->name, precision);
        report_tagged(out, "<tr><td>", l->name, "</td>");
        strbuf_printf(out,
                      "<td class=left>%s</td><td>%s</td><td>%.2f</td><td class=left><span "
                      "class='tag p-%s'>%s</span></td></tr>",
                      l->operators, l->shape, (double)l->macs * 1e-6, kernels_of(precision),
                      precision);
    }
    strbuf_add(out, "</table></section>");
}

void report_layers_html(const struct report *r, struct strbuf *out)
{
    _cleanup_(beside_release) struct beside b = {0};
    if (!r->redesigned) {
        same_layers_html(r, out);
    } else if (beside_read(r, &b)) {
        stages_html(r, &b, out);
        own_layers_html(r, &b.is, out);
    } else {
        out->failed = true;
    }
}

/* ---- result.json ---- */

static void add_stages_json(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key,
                            const struct architecture *a, const double *us)
{
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(d, o, key);
    for (int i = 0; i < a->n_stages; i++) {
        yyjson_mut_val *stage = yyjson_mut_arr_add_obj(d, list);
        yyjson_mut_obj_add_strcpy(d, stage, "size", a->stages[i].size);
        yyjson_mut_obj_add_int(d, stage, "layers", a->stages[i].layers);
        yyjson_mut_obj_add_sint(d, stage, "channels", a->stages[i].channels);
        yyjson_mut_obj_add_sint(d, stage, "macs", a->stages[i].macs);
        if (us)
            report_number(d, stage, "fp32_us", us[i], 2);
    }
}

void report_layers_json(const struct report *r, yyjson_mut_doc *d, yyjson_mut_val *root)
{
    _cleanup_(beside_release) struct beside b = {0};
    if (!r->redesigned || !beside_read(r, &b))
        return;
    yyjson_mut_val *o = yyjson_mut_obj_add_obj(d, root, "architecture");
    const char *precision = "fp32";
    add_stages_json(d, o, "original_stages", &b.was, b.us);
    add_stages_json(d, o, "stages", &b.is, NULL);
    yyjson_mut_val *layers = yyjson_mut_obj_add_arr(d, o, "layers");
    for (int i = 0; i < b.is.n_layers; i++) {
        const struct architecture_layer *l = &b.is.layers[i];
        yyjson_mut_val *layer = yyjson_mut_arr_add_obj(d, layers);
        precision = precision_of(r, l->name, precision);
        yyjson_mut_obj_add_strcpy(d, layer, "name", l->name);
        yyjson_mut_obj_add_strcpy(d, layer, "operators", l->operators);
        yyjson_mut_obj_add_strcpy(d, layer, "yields", l->shape);
        yyjson_mut_obj_add_sint(d, layer, "macs", l->macs);
        yyjson_mut_obj_add_strcpy(d, layer, "precision", precision);
    }
}
