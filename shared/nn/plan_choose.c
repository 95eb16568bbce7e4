/*
 * Which implementation and which layouts each layer gets.
 *
 * Every layer has variants: pairs of layouts (of what it reads and of what it writes), each with
 * its fastest implementation and a time. Variants that do not fit each other cost conversions.
 * Starting from networks that are all of one layout, single layers change their variant as long as
 * that makes the whole cheaper; the cheapest end wins, and takes over parts of the others where
 * that makes it cheaper still.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/nn/plan_measure.h"
#include "shared/nn/step_convert.h"
#include "shared/nn/step_direct.h"
#include "shared/nn/step_dnnl.h"
#include "shared/nn/step_move.h"
#include "shared/nn/step_narrow.h"
#include "shared/nn/step_pictures.h"
#include "shared/nn/step_winograd.h"

enum { MOST_SWEEPS = 8 };

struct variants {
    int n, capacity;
    struct choice *items;
    int chosen;
};

struct chooser {
    struct maker *m;
    struct plan *plan;
    struct variants *variants;   /* by layer */
    int *reader_first, *readers; /* by wire: layers that read it, some more than once */
    bool *is_output;             /* by wire */
};

/* ---- tables ---- */

const struct implementation *const *implementations_of(enum layer_kind kind)
{
    static const struct implementation *const table[][10] = {
        [LAYER_CONV] = {&onednn_conv, &direct_vnni, &direct_avx2_vnni, &direct_avx2_madd,
                        &direct_plain, &depthwise_vnni, &depthwise_plain, &winograd_vectors,
                        &winograd_plain},
        [LAYER_GEMM] = {&onednn_matmul, &onednn_inner_product},
        [LAYER_POOL] = {&onednn_pool, &narrow_max_pool},
        [LAYER_UNARY] = {&onednn_unary},
        [LAYER_BINARY] = {&onednn_binary},
        [LAYER_PRELU] = {&onednn_binary},
        [LAYER_RESIZE] = {&onednn_unary},
        [LAYER_MOVE] = {&move_copies},
        [LAYER_CONVERT] = {&convert_layer},
        [LAYER_TABLE] = {&narrow_table},
        [LAYER_NARROW_BINARY] = {&narrow_binary},
        [LAYER_NARROW_MEAN] = {&narrow_mean},
        [LAYER_PICTURES] = {&pictures_vbmi, &pictures_plain},
        [LAYER_SOFTMAX] = {&onednn_norm},
        [LAYER_LRN] = {&onednn_norm},
    };
    return table[kind];
}

struct pair {
    enum layout in, out;
};

static bool wide_vectors(void)
{
    return strncmp(nn_isa(), "avx512", 6) == 0 || strncmp(nn_isa(), "avx10", 5) == 0;
}

/* The pairs of layouts that are worth a try for a layer. */
static int pairs_of(const struct plan *plan, const struct layer *layer, struct pair pairs[16])
{
    enum layout blocked = wide_vectors() ? LAYOUT_C16 : LAYOUT_C8;
    int n = 0;
    const struct shape *in = layer->n_in ? &plan->wires[layer->in[0].wire].shape : NULL;
    if (!in || !layout_possible(LAYOUT_LAST, in)) {
        pairs[n++] = (struct pair){LAYOUT_PLAIN, LAYOUT_PLAIN};
        return n;
    }
    switch (layer->kind) {
    case LAYER_CONV:
        pairs[n++] = (struct pair){LAYOUT_LAST, LAYOUT_LAST};
        if (layer->precision == PRECISION_INT8) {
            pairs[n++] = (struct pair){LAYOUT_C4, LAYOUT_C4};
            break;
        }
        pairs[n++] = (struct pair){blocked, blocked};
        if (in->dim[1] <= 4)
            pairs[n++] = (struct pair){LAYOUT_PLAIN, blocked};
        pairs[n++] = (struct pair){LAYOUT_PLAIN, LAYOUT_PLAIN};
        break;
    case LAYER_POOL:
    case LAYER_UNARY:
    case LAYER_BINARY:
    case LAYER_PRELU:
    case LAYER_RESIZE:
    case LAYER_LRN:
    case LAYER_MOVE:
        if (layer->precision == PRECISION_INT8)
            blocked = layer->kind == LAYER_MOVE ? LAYOUT_C4 : LAYOUT_LAST;
        pairs[n++] = (struct pair){LAYOUT_LAST, LAYOUT_LAST};
        pairs[n++] = (struct pair){blocked, blocked};
        pairs[n++] = (struct pair){LAYOUT_PLAIN, LAYOUT_PLAIN};
        break;
    case LAYER_TABLE:
    case LAYER_NARROW_BINARY:
    case LAYER_NARROW_MEAN:
        pairs[n++] = (struct pair){LAYOUT_LAST, LAYOUT_LAST};
        pairs[n++] = (struct pair){LAYOUT_PLAIN, LAYOUT_PLAIN};
        break;
    case LAYER_PICTURES:
        for (int a = 0; a < 2; a++) {
            enum layout given = a ? LAYOUT_PLAIN : LAYOUT_LAST;
            pairs[n++] = (struct pair){given, LAYOUT_LAST};
            pairs[n++] = (struct pair){given, LAYOUT_PLAIN};
            if (layer->precision == PRECISION_INT8)
                pairs[n++] = (struct pair){given, LAYOUT_C4};
        }
        break;
    case LAYER_CONVERT:
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++) {
                const enum layout of[] = {LAYOUT_LAST, LAYOUT_PLAIN, b == 2 ? LAYOUT_C4 : blocked};
                pairs[n++] = (struct pair){of[a], of[b]};
            }
        break;
    default:
        pairs[n++] = (struct pair){LAYOUT_PLAIN, LAYOUT_PLAIN};
    }
    return n;
}

/* ---- variants ---- */

/* What it would take if nothing is measured: enough to order layouts. */
static double estimate(const struct plan *plan, const struct layer *layer,
                       const struct choice *choice)
{
    double ns = 500 + (double)layer->macs / 60;
    for (int i = 0; i < layer->n_out; i++)
        ns += 0.2 * (double)layout_elements(choice->out, &plan->wires[layer->out[i]].shape);
    if (choice->in == LAYOUT_PLAIN && layer->macs == 0)
        ns *= 1.3;
    return ns * (choice->last_resort ? 1000 : 1);
}

static const char *choice_name(const struct choice *choice)
{
    return *choice->name ? choice->name : choice->by->name;
}

/* "NAME", "NAME@LAYOUT" or "@LAYOUT" (of what the layer writes). */
static bool is_forced(const struct choice *choice, const char *forced)
{
    const char *at = strchr(forced, '@');
    char name[64];
    if (!at)
        return strstr(choice_name(choice), forced) != NULL;
    snprintf(name, sizeof(name), "%.*s", (int)(at - forced), forced);
    return strcmp(layout_name(choice->out), at + 1) == 0 && strstr(choice_name(choice), name);
}

/* Implementations with the forced name; all when the layer has none. */
static void keep_forced(const struct maker *m, struct choices *choices)
{
    const char *forced = m->options->implementation;
    int kept = 0;
    for (int i = 0; forced && i < choices->n; i++) {
        const struct choice *choice = &choices->items[i];
        if (is_forced(choice, forced))
            choices->items[kept++] = *choice;
    }
    if (kept > 0)
        choices->n = kept;
}

static void choices_release(struct choices *choices)
{
    free(choices->items);
}

static int list_pair(struct chooser *c, const struct layer *layer, struct pair pair,
                     struct choices *ret, struct err *err)
{
    const struct implementation *const *table = implementations_of(layer->kind);
    for (int i = 0; table[i]; i++) {
        int rc = table[i]->list(c->m, layer, pair.in, pair.out, ret, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool measured(const struct chooser *c, const struct layer *layer)
{
    return !c->m->options->choose_by_name &&
           (layer->kind == LAYER_CONV || layer->kind == LAYER_GEMM || layer->kind == LAYER_POOL);
}

static bool only_last_resorts(const struct choices *choices)
{
    for (int i = 0; i < choices->n; i++)
        if (!choices->items[i].last_resort)
            return false;
    return true;
}

/* Everything that can run the layer, in all pairs of layouts. */
static int list_choices(struct chooser *c, const struct layer *layer, struct choices *ret,
                        struct err *err)
{
    struct pair pairs[16];
    int n = pairs_of(c->plan, layer, pairs), kept = 0;
    ret->n = 0;
    for (int i = 0; i < n; i++) {
        int rc = list_pair(c, layer, pairs[i], ret, err);
        if (rc < 0)
            return rc;
    }
    if (only_last_resorts(ret))
        return 0;
    for (int i = 0; i < ret->n; i++)
        if (!ret->items[i].last_resort)
            ret->items[kept++] = ret->items[i];
    ret->n = kept;
    return 0;
}

/* The fastest choice of each pair of layouts becomes a variant. */
static int best_of_pairs(struct chooser *c, int at, const struct choices *choices, struct err *err)
{
    struct variants *v = &c->variants[at];
    for (int i = 0; i < choices->n; i++) {
        const struct choice *choice = &choices->items[i];
        int k = 0;
        while (k < v->n && (v->items[k].in != choice->in || v->items[k].out != choice->out))
            k++;
        if (choice->ns < 0 || (k < v->n && v->items[k].ns <= choice->ns))
            continue;
        if (k == v->n) {
            int rc = plan_grow(&v->items, &v->n, &v->capacity, sizeof(*v->items), err);
            if (rc < 0)
                return rc;
        }
        v->items[k] = *choice;
    }
    return 0;
}

static bool reference_forced(const struct maker *m, const struct layer *layer)
{
    const char *name = m->options->implementation;
    return name && layer->node && strcmp(name, reference_implementation.name) == 0;
}

static int list_variants(struct chooser *c, int at, struct err *err)
{
    struct layer *layer = &c->plan->layers[at];
    struct variants *v = &c->variants[at];
    _cleanup_(choices_release) struct choices choices = {0};
    int rc = reference_forced(c->m, layer) ? 0 : list_choices(c, layer, &choices, err);
    if (rc == 0 && layer->sum >= 0 && only_last_resorts(&choices)) {
        /* Addition in place only right behind the product, or not at all: then beside it. */
        layer->sum = -1;
        rc = list_choices(c, layer, &choices, err);
    }
    if (rc < 0)
        return rc;
    keep_forced(c->m, &choices);
    for (int i = 0; i < choices.n; i++)
        choices.items[i].ns = estimate(c->plan, layer, &choices.items[i]);
    if (measured(c, layer) && !only_last_resorts(&choices))
        rc = measure_choices(c->m, layer, &choices, err);
    if (rc == 0)
        rc = best_of_pairs(c, at, &choices, err);
    if (rc < 0 || v->n > 0)
        return rc;
    layer->sum = -1;
    rc = plan_grow(&v->items, &v->n, &v->capacity, sizeof(*v->items), err);
    if (rc < 0)
        return rc;
    v->items[0] = (struct choice){.by = &reference_implementation, .ns = 1e6};
    return 0;
}

/* ---- cost ---- */

static enum layout operand_layout(const struct layer *layer, const struct choice *v, int i)
{
    return i == 0 || layer->kind == LAYER_MOVE ? v->in : v->out;
}

static struct form wire_form(const struct wire *w, enum dtype dtype, enum layout layout)
{
    return (struct form){.dtype = dtype,
                         .layout = layout_canonical(layout, &w->shape),
                         .quantized = w->quantized && dtype == w->dtype};
}

/* Conversions of one wire, as the variants are chosen now. */
static double wire_cost(const struct chooser *c, int wire)
{
    const struct wire *w = &c->plan->wires[wire];
    if (w->constant)
        return 0;
    enum layout made = w->layout;
    if (w->layer >= 0)
        made = c->variants[w->layer].items[c->variants[w->layer].chosen].out;
    struct form have[16] = {wire_form(w, w->dtype, made)};
    int n = 1;
    double cost = 0;
    for (int k = c->reader_first[wire]; k < c->reader_first[wire + 1] + c->is_output[wire]; k++) {
        struct form need = have[0];
        if (k == c->reader_first[wire + 1]) {
            need = wire_form(w, w->quantized ? DTYPE_F32 : w->dtype, LAYOUT_PLAIN);
        } else {
            const struct layer *layer = &c->plan->layers[c->readers[k] >> 8];
            const struct variants *v = &c->variants[c->readers[k] >> 8];
            int i = c->readers[k] & 255;
            need = wire_form(w, layer->in[i].dtype, operand_layout(layer, &v->items[v->chosen], i));
        }
        bool there = false;
        for (int i = 0; i < n; i++)
            there |= have[i].dtype == need.dtype && have[i].layout == need.layout;
        if (there)
            continue;
        cost += convert_estimate(&w->shape, &have[0], &need);
        if (n < 16)
            have[n++] = need;
    }
    return cost;
}

static double layer_cost(const struct chooser *c, int at)
{
    const struct layer *layer = &c->plan->layers[at];
    const struct variants *v = &c->variants[at];
    double cost = v->items[v->chosen].ns;
    for (int i = 0; i < layer->n_in; i++)
        cost += wire_cost(c, layer->in[i].wire);
    for (int i = 0; i < layer->n_out; i++)
        cost += wire_cost(c, layer->out[i]);
    return cost;
}

static double total_cost(const struct chooser *c)
{
    double cost = 0;
    for (int i = 0; i < c->plan->n_layers; i++)
        cost += c->variants[i].items[c->variants[i].chosen].ns;
    for (int w = 0; w < c->plan->n_wires; w++)
        cost += wire_cost(c, w);
    return cost;
}

/* ---- descent ---- */

static void start_from(struct chooser *c, enum layout layout)
{
    for (int at = 0; at < c->plan->n_layers; at++) {
        struct variants *v = &c->variants[at];
        double best = INFINITY;
        for (int i = 0; i < v->n; i++) {
            double ns = v->items[i].ns * (v->items[i].out == layout ? 1 : 100);
            if (ns >= best)
                continue;
            best = ns;
            v->chosen = i;
        }
    }
}

static void descend(struct chooser *c)
{
    bool changed = true;
    for (int sweep = 0; sweep < MOST_SWEEPS && changed; sweep++) {
        changed = false;
        for (int at = 0; at < c->plan->n_layers; at++) {
            struct variants *v = &c->variants[at];
            int best = v->chosen;
            double least = v->n > 1 ? layer_cost(c, at) : 0;
            for (int i = 0; i < v->n && v->n > 1; i++) {
                v->chosen = i;
                double cost = layer_cost(c, at);
                if (cost < least * 0.999) {
                    least = cost;
                    best = i;
                    changed = true;
                }
            }
            v->chosen = best;
        }
    }
}

static void save(const struct chooser *c, int *chosen)
{
    for (int at = 0; at < c->plan->n_layers; at++)
        chosen[at] = c->variants[at].chosen;
}

static void load(struct chooser *c, const int *chosen)
{
    for (int at = 0; at < c->plan->n_layers; at++)
        c->variants[at].chosen = chosen[at];
}

/* ---- crossing ---- */

/* Takes over the choices of another network, layer by layer from the front (or from the back), and
 * stops where the whole was cheapest on the way. No single layer leaves a layout that its
 * neighbours have; half a network does. True when that is cheaper than what was `now`. */
static bool cross(struct chooser *c, const int *now, const int *other, bool from_back)
{
    const int n = c->plan->n_layers;
    const double before = total_cost(c);
    double change = 0, least = 0;
    int taken = 0;
    for (int i = 0; i < n; i++) {
        const int at = from_back ? n - 1 - i : i;
        if (c->variants[at].chosen != other[at]) {
            change -= layer_cost(c, at);
            c->variants[at].chosen = other[at];
            change += layer_cost(c, at);
        }
        if (change < least) {
            least = change;
            taken = i + 1;
        }
    }
    for (int i = taken; i < n; i++) {
        const int at = from_back ? n - 1 - i : i;
        c->variants[at].chosen = now[at];
    }
    if (taken > 0 && total_cost(c) < before * 0.999)
        return true;
    load(c, now);
    return false;
}

/* From the cheapest of the ends, `now`, for as long as parts of other ends make it cheaper. */
static void cross_all(struct chooser *c, int *now, const int *ends)
{
    bool changed = true;
    load(c, now);
    for (int sweep = 0; sweep < MOST_SWEEPS && changed; sweep++) {
        changed = false;
        for (int i = 0; i < 2 * LAYOUT_COUNT; i++) {
            if (!cross(c, now, ends + (int64_t)(i / 2) * c->plan->n_layers, i % 2))
                continue;
            descend(c);
            save(c, now);
            changed = true;
        }
    }
}

static int choose(struct chooser *c, struct err *err)
{
    const int n = c->plan->n_layers;
    _cleanup_(freep) int *kept = mem_calloc((size_t)n, sizeof(*kept));
    _cleanup_(freep) int *ends = mem_calloc((size_t)n * LAYOUT_COUNT, sizeof(*ends));
    if (!kept || !ends)
        return err_oom(err, "layouts");
    double least = INFINITY;
    for (enum layout layout = LAYOUT_PLAIN; layout < LAYOUT_COUNT; layout++) {
        start_from(c, layout);
        descend(c);
        save(c, ends + (int64_t)layout * n);
        double cost = total_cost(c);
        if (cost >= least)
            continue;
        least = cost;
        save(c, kept);
    }
    cross_all(c, kept, ends);
    for (int i = 0; i < n; i++)
        c->plan->layers[i].chosen = c->variants[i].items[kept[i]];
    return 0;
}

/* ---- in-place additions ---- */

static size_t output_bytes(const struct plan *plan, const struct layer *layer)
{
    return dtype_bytes(plan->wires[layer->out[0]].dtype);
}

/* Nobody reads the operand after this layer, and it is no input or constant. */
static bool dies_here(const struct chooser *c, int at, int operand)
{
    const struct layer *layer = &c->plan->layers[at];
    int wire = layer->in[operand].wire;
    const struct wire *w = &c->plan->wires[wire];
    if (w->constant || w->input >= 0 || c->is_output[wire])
        return false;
    for (int i = 0; i < layer->n_in; i++)
        if (i != operand && layer->in[i].wire == wire)
            return false;
    for (int k = c->reader_first[wire]; k < c->reader_first[wire + 1]; k++)
        if (c->readers[k] >> 8 > at)
            return false;
    return true;
}

/* The first addition can take place in the operand's own memory: when that dies here, or (8-bit
 * operands, which need a scale that other ways do not have) in a copy. */
static void choose_sums(struct chooser *c)
{
    for (int at = 0; at < c->plan->n_layers; at++) {
        struct layer *layer = &c->plan->layers[at];
        if (layer->kind != LAYER_CONV && layer->kind != LAYER_GEMM)
            continue;
        for (int i = 0; i < layer->n_posts && layer->sum < 0; i++) {
            const struct post *post = &layer->posts[i];
            if (post->kind != POST_ADD)
                continue;
            enum dtype dtype = layer->in[post->operand].dtype;
            bool narrow = dtype == DTYPE_U8 || dtype == DTYPE_S8;
            if (dtype_bytes(dtype) == output_bytes(c->plan, layer) &&
                (narrow || dies_here(c, at, post->operand)))
                layer->sum = post->operand;
        }
    }
}

/* ---- */

static int list_readers(struct chooser *c, struct err *err)
{
    struct plan *plan = c->plan;
    int total = 0;
    c->reader_first = mem_calloc((size_t)plan->n_wires + 2, sizeof(*c->reader_first));
    c->is_output = mem_calloc((size_t)plan->n_wires, sizeof(*c->is_output));
    if (!c->reader_first || !c->is_output)
        return err_oom(err, "layouts");
    for (int l = 0; l < plan->n_layers; l++)
        for (int i = 0; i < plan->layers[l].n_in; i++, total++)
            c->reader_first[plan->layers[l].in[i].wire + 2]++;
    for (int w = 0; w < plan->n_wires; w++)
        c->reader_first[w + 2] += c->reader_first[w + 1];
    c->readers = mem_calloc((size_t)total, sizeof(*c->readers));
    if (!c->readers)
        return err_oom(err, "layouts");
    for (int l = 0; l < plan->n_layers; l++)
        for (int i = 0; i < plan->layers[l].n_in; i++)
            c->readers[c->reader_first[plan->layers[l].in[i].wire + 1]++] =
                l << 8 | (i < 255 ? i : 255);
    for (int i = 0; i < c->m->g->n_outputs; i++)
        c->is_output[plan->views[c->m->g->outputs[i]].wire] = true;
    return 0;
}

static void chooser_release(struct chooser *c)
{
    for (int i = 0; c->variants && i < c->plan->n_layers; i++)
        free(c->variants[i].items);
    free(c->variants);
    free(c->reader_first);
    free(c->readers);
    free(c->is_output);
}

int plan_choose(struct maker *m, struct err *err)
{
    _cleanup_(chooser_release) struct chooser c = {.m = m, .plan = m->plan};
    c.variants = mem_calloc((size_t)m->plan->n_layers, sizeof(*c.variants));
    if (!c.variants)
        return err_oom(err, "layouts");
    int rc = list_readers(&c, err);
    if (rc < 0)
        return rc;
    choose_sums(&c);
    for (int i = 0; i < m->plan->n_layers; i++) {
        rc = list_variants(&c, i, err);
        if (rc < 0)
            return err_wrap(err, "layer '%s' (%s)", m->plan->layers[i].name, m->plan->layers[i].op);
    }
    return choose(&c, err);
}
