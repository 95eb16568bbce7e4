/* Layers become steps, with conversions in between, and their memory is laid out. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/nn/plan_priv.h"
#include "shared/nn/step_convert.h"

struct emit {
    struct maker *m;
    struct plan *plan;
    int *first_of; /* by wire: its first instance, or -1 */
    int *next_of;  /* by instance: the next of the same wire */
    int cap_next, n_next;
    int *produced;    /* by wire: the instance that its layer wrote */
    int *last_reader; /* by wire: the last layer that reads it; n_layers for network outputs */
};

/* ---- instances ---- */

static int add_instance(struct emit *e, int wire, enum dtype dtype, enum layout layout,
                        struct err *err)
{
    struct plan *plan = e->plan;
    const struct wire *w = &plan->wires[wire];
    int i = plan_grow(&plan->instances, &plan->n_instances, &plan->cap_instances,
                      sizeof(*plan->instances), err);
    int n = i < 0 ? i : plan_grow(&e->next_of, &e->n_next, &e->cap_next, sizeof(int), err);
    if (n < 0)
        return n;
    layout = layout_canonical(layout, &w->shape);
    plan->instances[i] =
        (struct instance){.wire = wire,
                          .dtype = dtype,
                          .layout = layout,
                          .bytes = (size_t)layout_elements(layout, &w->shape) * dtype_bytes(dtype),
                          .first = plan->n_steps,
                          .last = plan->n_steps,
                          .root = i,
                          .place = PLACE_ARENA,
                          .port = -1};
    e->next_of[i] = e->first_of[wire];
    e->first_of[wire] = i;
    if (e->produced[wire] < 0)
        e->produced[wire] = i;
    return i;
}

static struct instance *root_of(struct plan *plan, int instance)
{
    while (plan->instances[instance].root != instance)
        instance = plan->instances[instance].root;
    return &plan->instances[instance];
}

static void read_at(struct plan *plan, int instance, int step)
{
    struct instance *root = root_of(plan, instance);
    if (step > root->last)
        root->last = step;
}

/* ---- steps ---- */

static struct step *add_step(struct emit *e, int n_args, struct err *err)
{
    struct plan *plan = e->plan;
    int i = plan_grow(&plan->steps, &plan->n_steps, &plan->cap_steps, sizeof(*plan->steps), err);
    if (i < 0)
        return NULL;
    struct step *step = &plan->steps[i];
    step->n_args = n_args;
    step->instances = arena_alloc(plan->arena, (size_t)n_args, sizeof(*step->instances));
    step->data = arena_alloc(plan->arena, (size_t)n_args, sizeof(*step->data));
    if (!step->instances || !step->data) {
        err_oom(err, "a step");
        return NULL;
    }
    step->in_place = -1;
    step->info.fused = "";
    step->info.implementation = "";
    return step;
}

static struct form form_of(const struct plan *plan, const struct instance *instance)
{
    const struct wire *w = &plan->wires[instance->wire];
    bool raw = w->quantized && instance->dtype == w->dtype;
    return (struct form){.dtype = instance->dtype,
                         .layout = instance->layout,
                         .quantized = raw,
                         .scale = w->scale,
                         .zero = w->zero};
}

static int describe_convert(struct emit *e, struct step *step, const struct shape *shape,
                            const struct form *from, const struct form *to, const char *name,
                            struct err *err)
{
    char text[128];
    step->info.layer = name;
    step->info.op = "convert";
    step->info.kind = STEP_CONVERT;
    step->info.from = precision_of(from->dtype);
    step->info.to = precision_of(to->dtype);
    step->info.precision = step->info.to;
    step->info.signature = arena_printf(
        e->plan->arena, "convert %s %s.%s%s>%s.%s%s", shape_text(shape, text),
        dtype_name(from->dtype), layout_name(from->layout), from->quantized ? ".q" : "",
        dtype_name(to->dtype), layout_name(to->layout), to->quantized ? ".q" : "");
    return step->info.signature ? 0 : err_oom(err, "a step");
}

/* A constant is converted now, once. */
static int convert_constant(struct emit *e, int from, int to, struct err *err)
{
    struct plan *plan = e->plan;
    struct instance *a = &plan->instances[from], *b = &plan->instances[to];
    struct form source = form_of(plan, a), target = form_of(plan, b);
    void *data[2] = {a->data, arena_alloc(plan->arena, 1, b->bytes)};
    struct step step = {.n_args = 2, .data = data, .in_place = -1};
    if (!data[1])
        return err_oom(err, "a constant");
    plan->packed_bytes += b->bytes;
    int rc = convert_make(e->m, &step, &plan->wires[a->wire].shape, &source, &target, err);
    _cleanup_(freep) void *scratch = mem_aligned(step.scratch_bytes);
    if (rc == 0) {
        step.scratch = scratch;
        step_bind(&step, 0, data[0]);
        step_bind(&step, 1, data[1]);
        step_bind(&step, -1, scratch);
        rc = step_run(&step, err);
    }
    step_release(&step);
    b->place = PLACE_CONSTANT;
    b->data = data[1];
    return rc;
}

/* A new instance of the same wire, and the step that fills it. */
static int convert_instance(struct emit *e, int from, enum dtype dtype, enum layout layout,
                            struct err *err)
{
    struct plan *plan = e->plan;
    int to = add_instance(e, plan->instances[from].wire, dtype, layout, err);
    if (to < 0)
        return to;
    int rc;
    if (plan->instances[from].place == PLACE_CONSTANT) {
        rc = convert_constant(e, from, to, err);
        return rc < 0 ? rc : to;
    }
    const struct wire *w = &plan->wires[plan->instances[from].wire];
    struct form source = form_of(plan, &plan->instances[from]);
    struct form target = form_of(plan, &plan->instances[to]);
    int at = plan->n_steps;
    struct step *step = add_step(e, 2, err);
    if (!step)
        return -ERR_RESOURCE_EXHAUSTED;
    step->n_in = 1;
    step->instances[0] = from;
    step->instances[1] = to;
    read_at(plan, from, at);
    rc = describe_convert(e, step, &w->shape, &source, &target, w->name, err);
    if (rc == 0)
        rc = convert_make(e->m, step, &w->shape, &source, &target, err);
    return rc < 0 ? rc : to;
}

/* The wire's content in this type and layout, converted where it is not there yet. */
static int need_instance(struct emit *e, int wire, enum dtype dtype, enum layout layout,
                         struct err *err)
{
    struct plan *plan = e->plan;
    layout = layout_canonical(layout, &plan->wires[wire].shape);
    for (int i = e->first_of[wire]; i >= 0; i = e->next_of[i])
        if (plan->instances[i].dtype == dtype && plan->instances[i].layout == layout)
            return i;
    if (e->produced[wire] < 0)
        return err_set(err, ERR_INTERNAL, "value '%s' is read before it is made",
                       plan->wires[wire].name);
    int from = e->produced[wire];
    struct form source = form_of(plan, &plan->instances[from]), target = source;
    target.dtype = dtype;
    target.layout = layout;
    target.quantized = plan->wires[wire].quantized && dtype == plan->wires[wire].dtype;
    if (!convert_is_direct(&plan->wires[wire].shape, &source, &target)) {
        from = need_instance(e, wire, plan->instances[from].dtype, LAYOUT_LAST, err);
        if (from < 0)
            return from;
    }
    return convert_instance(e, from, dtype, layout, err);
}

static int source_instances(struct emit *e, struct err *err)
{
    struct plan *plan = e->plan;
    for (int w = 0; w < plan->n_wires; w++) {
        const struct wire *wire = &plan->wires[w];
        if (wire->input < 0 && !wire->constant)
            continue;
        int i = add_instance(e, w, wire->dtype, wire->layout, err);
        if (i < 0)
            return i;
        if (wire->constant) {
            plan->instances[i].place = PLACE_CONSTANT;
            plan->instances[i].data = wire->constant->data;
        } else {
            plan->instances[i].place = PLACE_INPUT;
            plan->instances[i].port = wire->input;
        }
    }
    return 0;
}

/* ---- layers ---- */

/* An instance of the operand's content whose memory may be overwritten: its own where nothing that
 * lies in it is read again, else a copy. */
static int private_instance(struct emit *e, const struct layer *layer, int instance,
                            struct err *err)
{
    struct plan *plan = e->plan;
    const struct instance *i = &plan->instances[instance];
    const struct instance *root = root_of(plan, instance);
    int at = (int)(layer - plan->layers), readers = 0;
    bool own = root->place == PLACE_ARENA && root->bytes == i->bytes;
    for (int k = 0; own && k < plan->n_instances; k++)
        if (root_of(plan, k) == root) /* other instances share its memory, one after the other */
            own = e->last_reader[plan->instances[k].wire] <= (k == instance ? at : at - 1);
    for (int k = 0; k < layer->n_in; k++)
        readers += layer->in[k].wire == i->wire;
    if (own && readers == 1)
        return instance;
    int copy = convert_instance(e, instance, i->dtype, i->layout, err);
    if (copy >= 0) /* for this layer alone: other readers must not find it */
        e->first_of[plan->instances[copy].wire] = e->next_of[copy];
    return copy;
}

static int emit_alias(struct emit *e, const struct layer *layer, struct err *err)
{
    struct plan *plan = e->plan;
    int from = need_instance(e, layer->in[0].wire, layer->in[0].dtype, LAYOUT_PLAIN, err);
    if (from < 0)
        return from;
    int to = add_instance(e, layer->out[0], layer->in[0].dtype, LAYOUT_PLAIN, err);
    if (to < 0)
        return to;
    plan->instances[to].root = (int)(root_of(plan, from) - plan->instances);
    return 0;
}

static int emit_layer(struct emit *e, const struct layer *layer, struct err *err)
{
    struct plan *plan = e->plan;
    const struct choice *choice = &layer->chosen;
    int n_args = layer->n_in + layer->n_out;
    _cleanup_(freep) int *args = mem_calloc((size_t)n_args, sizeof(*args));
    if (!args)
        return err_oom(err, "a step");
    for (int i = 0; i < layer->n_in; i++) {
        enum layout layout = i == 0 || layer->kind == LAYER_MOVE ? choice->in : choice->out;
        args[i] = need_instance(e, layer->in[i].wire, layer->in[i].dtype, layout, err);
        if (args[i] >= 0 && layer->sum == i)
            args[i] = private_instance(e, layer, args[i], err);
        if (args[i] < 0)
            return args[i];
    }
    int at = plan->n_steps;
    for (int i = 0; i < layer->n_out; i++) {
        int *arg = &args[layer->n_in + i];
        *arg = add_instance(e, layer->out[i], plan->wires[layer->out[i]].dtype, choice->out, err);
        if (*arg < 0)
            return *arg;
    }
    for (int i = 0; i < layer->n_in; i++)
        read_at(plan, args[i], at);
    if (layer->sum >= 0)
        plan->instances[args[layer->n_in]].root = args[layer->sum];
    struct step *step = add_step(e, n_args, err);
    if (!step)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(step->instances, args, (size_t)n_args * sizeof(*args));
    step->n_in = layer->n_in;
    step->in_place = layer->sum;
    step->info.layer = layer->name;
    step->info.op = layer->op;
    step->info.kind = layer->kind == LAYER_CONVERT ? STEP_CONVERT : STEP_COMPUTE;
    step->info.precision = layer->precision;
    step->info.fused = layer->fused;
    step->info.macs = layer->macs;
    step->info.from = layer->n_in ? precision_of(layer->in[0].dtype) : layer->precision;
    step->info.to =
        layer->n_out ? precision_of(plan->wires[layer->out[0]].dtype) : layer->precision;
    step->info.signature = plan_signature(e->m, layer, choice->in, choice->out);
    if (!step->info.signature)
        return err_oom(err, "a step");
    int rc = choice->by->make(e->m, layer, choice, step, err);
    return rc < 0 ? err_wrap(err, "layer '%s' (%s)", layer->name, layer->op) : 0;
}

/* ---- network outputs ---- */

static int emit_output(struct emit *e, int port, struct err *err)
{
    struct plan *plan = e->plan;
    const struct graph *g = e->m->g;
    int value = g->outputs[port];
    const struct view *view = &plan->views[value];
    int i = need_instance(e, view->wire, g->values[value]->dtype, LAYOUT_PLAIN, err);
    if (i < 0)
        return i;
    struct instance *root = root_of(plan, i);
    if (root->place != PLACE_ARENA) { /* an input, a constant, or another output as well */
        if (root->place == PLACE_CONSTANT) {
            /* converting it would make one more constant: a plain copy step instead */
            plan->outputs[port].constant = root->data;
            return 0;
        }
        i = convert_instance(e, i, plan->instances[i].dtype, LAYOUT_PLAIN, err);
        if (i < 0)
            return i;
        root = root_of(plan, i);
    }
    root->place = PLACE_OUTPUT;
    root->port = port;
    root->last = plan->n_steps; /* the end */
    return 0;
}

/* ---- memory ---- */

/* Largest first, each at the lowest offset where nothing that lives at the same time lies. */
static int by_size(const void *a, const void *b)
{
    const struct instance *x = *(struct instance *const *)a, *y = *(struct instance *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return (x > y) - (x < y);
}

static bool overlap_in_time(const struct instance *a, const struct instance *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static size_t padded(size_t bytes)
{
    return (bytes + 127) / 64 *
           64; /* at least one line between neighbours: vectors read past ends */
}

static int by_offset(const void *a, const void *b)
{
    const struct instance *x = *(struct instance *const *)a, *y = *(struct instance *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static size_t place_one(struct instance *instance, struct instance **placed, int n)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) { /* ordered by offset */
        if (!overlap_in_time(instance, placed[i]))
            continue;
        if (at + padded(instance->bytes) <= placed[i]->offset)
            break;
        size_t end = placed[i]->offset + padded(placed[i]->bytes);
        if (end > at)
            at = end;
    }
    instance->offset = at;
    placed[n] = instance;
    qsort(placed, (size_t)n + 1, sizeof(*placed), by_offset);
    return at + padded(instance->bytes);
}

static int lay_out(struct emit *e, size_t *ret_bytes, struct err *err)
{
    struct plan *plan = e->plan;
    int n = 0;
    _cleanup_(freep) struct instance **order =
        mem_calloc((size_t)plan->n_instances + 1, 2 * sizeof(*order));
    if (!order)
        return err_oom(err, "a plan's memory");
    struct instance **placed = order + plan->n_instances + 1;
    for (int i = 0; i < plan->n_instances; i++) {
        struct instance *root = root_of(plan, i), *self = &plan->instances[i];
        if (self->first < root->first)
            root->first = self->first;
        if (self->last > root->last)
            root->last = self->last;
        if (self->bytes > root->bytes)
            root->bytes = self->bytes;
    }
    for (int i = 0; i < plan->n_instances; i++)
        if (plan->instances[i].root == i && plan->instances[i].place == PLACE_ARENA)
            order[n++] = &plan->instances[i];
    qsort(order, (size_t)n, sizeof(*order), by_size);
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        size_t end = place_one(order[i], placed, i);
        if (end > total)
            total = end;
    }
    *ret_bytes = total;
    return 0;
}

/* Memory that the machine could give at most: sizes beyond it are refused, not tried. */
static size_t memory_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (size_t)pages * (size_t)page : (size_t)1 << 34;
}

static int check_sizes(const struct plan *plan, struct err *err)
{
    size_t limit = memory_limit();
    for (int w = 0; w < plan->n_wires; w++) {
        const struct wire *wire = &plan->wires[w];
        enum layout widest = layout_possible(LAYOUT_C16, &wire->shape) ? LAYOUT_C16 : LAYOUT_PLAIN;
        size_t bytes = (size_t)layout_elements(widest, &wire->shape) * dtype_bytes(wire->dtype);
        if (bytes > limit)
            return err_set(err, ERR_RESOURCE_EXHAUSTED,
                           "value '%s' takes %zu bytes at batch %lld; this machine has %zu",
                           wire->name, bytes, (long long)plan->options.batch, limit);
    }
    return 0;
}

static int add_rebind(struct port *port, int step, int arg, struct err *err)
{
    int cap = port->n_rebinds; /* grown one by one: ports have few readers */
    struct rebind *grown = mem_realloc(port->rebinds, (size_t)cap + 1, sizeof(*grown));
    if (!grown)
        return err_oom(err, "a plan's ports");
    port->rebinds = grown;
    port->rebinds[port->n_rebinds++] = (struct rebind){step, arg};
    return 0;
}

static int bind_all(struct emit *e, struct err *err)
{
    struct plan *plan = e->plan;
    size_t arena = 0, scratch = 0;
    int rc = lay_out(e, &arena, err);
    if (rc < 0)
        return rc;
    for (int s = 0; s < plan->n_steps; s++)
        if (plan->steps[s].scratch_bytes > scratch)
            scratch = plan->steps[s].scratch_bytes;
    plan->memory_bytes = arena + padded(scratch);
    if (plan->memory_bytes > memory_limit())
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "the network takes %zu bytes at batch %lld",
                       plan->memory_bytes, (long long)plan->options.batch);
    plan->memory = mem_aligned(plan->memory_bytes);
    if (!plan->memory)
        return err_oom(err, "a plan's memory");
    memset(plan->memory, 0, plan->memory_bytes);
    for (int s = 0; s < plan->n_steps; s++) {
        struct step *step = &plan->steps[s];
        for (int a = 0; a < step->n_args; a++) {
            const struct instance *root = root_of(plan, step->instances[a]);
            if (root->place == PLACE_ARENA)
                step_bind(step, a, plan->memory + root->offset);
            else if (root->place == PLACE_CONSTANT)
                step_bind(step, a, root->data);
            else
                rc = add_rebind(root->place == PLACE_INPUT ? &plan->inputs[root->port]
                                                           : &plan->outputs[root->port],
                                s, a, err);
            if (rc < 0)
                return rc;
        }
        step_bind(step, -1, plan->memory + arena);
    }
    return 0;
}

static void emit_release(struct emit *e)
{
    free(e->first_of);
    free(e->next_of);
    free(e->produced);
    free(e->last_reader);
}

static void find_last_readers(struct emit *e)
{
    struct plan *plan = e->plan;
    for (int i = 0; i < plan->n_layers; i++)
        for (int k = 0; k < plan->layers[i].n_in; k++)
            e->last_reader[plan->layers[i].in[k].wire] = i;
    for (int i = 0; i < plan->n_outputs; i++)
        e->last_reader[plan->views[plan->outputs[i].value].wire] = plan->n_layers;
}

int plan_emit(struct maker *m, struct err *err)
{
    struct plan *plan = m->plan;
    int rc = check_sizes(plan, err);
    if (rc < 0)
        return rc;
    _cleanup_(emit_release) struct emit e = {.m = m, .plan = plan};
    e.first_of = mem_calloc((size_t)plan->n_wires, sizeof(*e.first_of));
    e.produced = mem_calloc((size_t)plan->n_wires, sizeof(*e.produced));
    e.last_reader = mem_calloc((size_t)plan->n_wires, sizeof(*e.last_reader));
    if (!e.first_of || !e.produced || !e.last_reader)
        return err_oom(err, "a plan");
    for (int w = 0; w < plan->n_wires; w++)
        e.first_of[w] = e.produced[w] = e.last_reader[w] = -1;
    find_last_readers(&e);
    rc = source_instances(&e, err);
    for (int i = 0; rc == 0 && i < plan->n_layers; i++)
        rc = plan->layers[i].kind == LAYER_ALIAS ? emit_alias(&e, &plan->layers[i], err)
                                                 : emit_layer(&e, &plan->layers[i], err);
    for (int i = 0; rc == 0 && i < plan->n_outputs; i++)
        rc = emit_output(&e, i, err);
    return rc < 0 ? rc : bind_all(&e, err);
}
