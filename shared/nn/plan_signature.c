/* Keys of the latency table: equal work has equal keys, on any machine. */
#include "shared/base/str.h"
#include "shared/nn/plan_priv.h"

static void add_dims(struct strbuf *b, const char *name, int n, const int64_t *dims)
{
    strbuf_printf(b, " %s", name);
    for (int i = 0; i < n; i++)
        strbuf_printf(b, "%s%lld", i ? "x" : "", (long long)dims[i]);
}

static void add_window(struct strbuf *b, const struct window *w)
{
    add_dims(b, "k", w->rank, w->kernel);
    add_dims(b, "s", w->rank, w->stride);
    add_dims(b, "d", w->rank, w->dilation);
    add_dims(b, "p", w->rank, w->pad_begin);
    add_dims(b, "q", w->rank, w->pad_end);
}

static void add_wire(struct strbuf *b, const struct wire *w, enum dtype dtype, enum layout layout)
{
    char text[128];
    strbuf_printf(b, " %s%s.%s", dtype_name(dtype), shape_text(&w->shape, text),
                  layout_name(layout_canonical(layout, &w->shape)));
    if (w->quantized && dtype == w->dtype)
        strbuf_add(b, w->zero ? ".z" : ".q");
}

/* Only whether bounds and slopes are there, not how large they are: that costs the same. */
static void add_posts(struct strbuf *b, const struct layer *layer)
{
    strbuf_printf(b, " %s", *layer->fused ? layer->fused : "-");
    for (int i = 0; i < layer->n_posts; i++)
        if (layer->posts[i].kind == POST_ADD)
            strbuf_add(b, layer->posts[i].operand == layer->sum ? " inplace" : " binary");
}

const char *plan_signature(struct maker *m, const struct layer *layer, enum layout in,
                           enum layout out)
{
    _cleanup_(strbuf_release) struct strbuf b = {0};
    const struct wire *wires = m->plan->wires;
    strbuf_printf(&b, "%s %s", layer->op, precision_name(layer->precision));
    for (int i = 0; i < layer->n_in; i++)
        add_wire(&b, &wires[layer->in[i].wire], layer->in[i].dtype,
                 i == 0 || layer->kind == LAYER_MOVE ? in : out);
    for (int i = 0; i < layer->n_out; i++) {
        strbuf_add(&b, " >");
        add_wire(&b, &wires[layer->out[i]], wires[layer->out[i]].dtype, out);
    }
    if (layer->kind == LAYER_CONV) {
        add_window(&b, &layer->conv.w);
        strbuf_printf(&b, " g%lld", (long long)layer->conv.w.group);
    } else if (layer->kind == LAYER_POOL) {
        add_window(&b, &layer->pool.w);
    } else if (layer->kind == LAYER_GEMM) {
        strbuf_printf(&b, " %lldx%lldx%lld%s%s%s", (long long)layer->gemm.m,
                      (long long)layer->gemm.n, (long long)layer->gemm.k,
                      layer->gemm.trans_a ? " ta" : "", layer->gemm.trans_b ? " tb" : "",
                      layer->gemm.weights ? " constant" : "");
    }
    add_posts(&b, layer);
    return b.failed ? NULL : arena_strdup(m->arena, b.data);
}
