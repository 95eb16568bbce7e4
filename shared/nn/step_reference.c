/*
 * Any layer in plain C: the graph's own nodes by eval_node, from the layer's operands to its
 * outputs. What has no faster implementation runs so, and every implementation is compared with it.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval.h"
#include "shared/nn/plan_priv.h"

/* A value that the nodes read or write. */
struct slot {
    int value;
    int arg; /* operand of the layer that holds it; -1: a constant or computed */
    bool constant;
    bool real;            /* the operand is 8-bit, the value is what it stands for */
    struct tensor tensor; /* over an operand's memory, or a constant's */
    struct tensor *made;  /* heap, while running */
};

struct program {
    const struct graph *g;
    int n_nodes, n_slots, cap_nodes, cap_slots, n_inputs_max;
    const struct node **nodes; /* heap, as slots */
    struct slot *slots;
    struct {
        int slot;
        bool quantize; /* the slot holds what the 8-bit output stands for */
        enum dtype dtype;
        float scale;
        int32_t zero;
        size_t bytes;
    } *outputs;
    const struct tensor **in;
    struct tensor **out;
    const struct layer *layer;
    struct {
        float scale;
        int32_t zero;
    } *operands;
};

static void dequantize(const struct tensor *q, float scale, int32_t zero, struct tensor *ret)
{
    float *to = ret->data;
    int64_t n = shape_elements(&q->shape);
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(tensor_get_s64(q, i) - zero) * scale;
}

/* ---- building ---- */

/* Programs are short: a search is as good as a table. */
static int find_slot(const struct program *p, int value)
{
    for (int s = 0; s < p->n_slots; s++)
        if (p->slots[s].value == value)
            return s;
    return -1;
}

static int add_slot(struct maker *m, struct program *p, int value, struct err *err)
{
    int s = find_slot(p, value);
    if (s >= 0)
        return s;
    const struct layer *layer = p->layer;
    const struct view *view = &m->plan->views[value];
    s = plan_grow(&p->slots, &p->n_slots, &p->cap_slots, sizeof(*p->slots), err);
    if (s < 0)
        return s;
    struct slot *slot = &p->slots[s];
    *slot = (struct slot){.value = value, .arg = -1};
    const struct tensor *constant = plan_constant(m->plan, value);
    if (constant) {
        slot->constant = true;
        slot->tensor = *constant;
        return s;
    }
    for (int i = 0; i < layer->n_in; i++) {
        const struct wire *wire = &m->plan->wires[layer->in[i].wire];
        if (view->wire != layer->in[i].wire && wire->stands_for != value)
            continue;
        slot->arg = i;
        slot->real = view->real && layer->in[i].dtype == wire->dtype && wire->quantized;
        slot->tensor = (struct tensor){.dtype = layer->in[i].dtype, .shape = wire->shape};
        break;
    }
    return s;
}

/* Slots and nodes for a value and all that it needs inside the layer; depth is that of a fused
 * chain, which is short. */
static int add_value(struct maker *m, struct program *p, int value, struct err *err)
{
    if (find_slot(p, value) >= 0)
        return 0;
    int s = add_slot(m, p, value, err);
    if (s < 0)
        return s;
    if (p->slots[s].arg >= 0 || p->slots[s].constant)
        return 0;
    int producer = m->g->values[value]->producer;
    if (producer < 0)
        return err_set(err, ERR_INTERNAL, "layer '%s' does not hold value '%s'", p->layer->name,
                       m->g->values[value]->name);
    const struct node *node = m->g->nodes[producer];
    for (int i = 0; i < node->n_inputs; i++) {
        int rc = node->inputs[i] < 0 ? 0 : add_value(m, p, node->inputs[i], err);
        if (rc < 0)
            return rc;
    }
    for (int i = 0; i < node->n_outputs; i++)
        if (node->outputs[i] >= 0 && add_slot(m, p, node->outputs[i], err) < 0)
            return -ERR_RESOURCE_EXHAUSTED;
    int n = plan_grow(&p->nodes, &p->n_nodes, &p->cap_nodes, sizeof(*p->nodes), err);
    if (n < 0)
        return n;
    p->nodes[n] = node;
    if (node->n_inputs > p->n_inputs_max)
        p->n_inputs_max = node->n_inputs;
    return 0;
}

static int build(struct maker *m, struct program *p, struct err *err)
{
    const struct layer *layer = p->layer;
    int rc = 0;
    p->outputs = arena_alloc(m->arena, (size_t)layer->n_out, sizeof(*p->outputs));
    p->operands = arena_alloc(m->arena, (size_t)layer->n_in, sizeof(*p->operands));
    if (!p->outputs || !p->operands)
        return err_oom(err, "a reference step");
    for (int i = 0; i < layer->n_in; i++) {
        p->operands[i].scale = m->plan->wires[layer->in[i].wire].scale;
        p->operands[i].zero = m->plan->wires[layer->in[i].wire].zero;
    }
    for (int i = 0; i < layer->n_out; i++) {
        const struct wire *wire = &m->plan->wires[layer->out[i]];
        bool raw = wire->raw_value >= 0;
        int value = raw ? wire->raw_value : wire->real_value;
        rc = add_value(m, p, value, err);
        if (rc < 0)
            return rc;
        p->outputs[i].slot = find_slot(p, value);
        p->outputs[i].quantize = !raw;
        p->outputs[i].dtype = wire->dtype;
        p->outputs[i].scale = wire->scale;
        p->outputs[i].zero = wire->zero;
        p->outputs[i].bytes = (size_t)shape_elements(&wire->shape) * dtype_bytes(wire->dtype);
    }
    int n_outputs = 1;
    for (int i = 0; i < p->n_nodes; i++)
        if (p->nodes[i]->n_outputs > n_outputs)
            n_outputs = p->nodes[i]->n_outputs;
    p->in = arena_alloc(m->arena, (size_t)p->n_inputs_max + 1, sizeof(*p->in));
    p->out = arena_alloc(m->arena, (size_t)n_outputs, sizeof(*p->out));
    return p->in && p->out ? 0 : err_oom(err, "a reference step");
}

/* ---- running ---- */

static int load_operands(struct step *step, struct program *p, struct err *err)
{
    for (int i = 0; i < p->n_slots; i++) {
        struct slot *slot = &p->slots[i];
        if (slot->arg < 0)
            continue;
        slot->tensor.data = step->data[slot->arg];
        bool narrow = slot->tensor.dtype == DTYPE_BF16 && !slot->real &&
                      p->g->values[slot->value]->dtype == DTYPE_F32;
        if (!slot->real && !narrow)
            continue;
        slot->made = tensor_new(DTYPE_F32, &slot->tensor.shape, err);
        if (!slot->made)
            return -ERR_RESOURCE_EXHAUSTED;
        if (slot->real)
            dequantize(&slot->tensor, p->operands[slot->arg].scale, p->operands[slot->arg].zero,
                       slot->made);
        else
            for (int64_t k = 0; k < shape_elements(&slot->tensor.shape); k++)
                tensor_set_f64(slot->made, k, tensor_get_f64(&slot->tensor, k));
    }
    return 0;
}

static int run_node(struct program *p, const struct node *node, struct err *err)
{
    for (int i = 0; i < node->n_inputs; i++) {
        struct slot *slot = node->inputs[i] < 0 ? NULL : &p->slots[find_slot(p, node->inputs[i])];
        p->in[i] = !slot ? NULL : slot->made ? slot->made : &slot->tensor;
    }
    for (int i = 0; i < node->n_outputs; i++)
        p->out[i] = NULL;
    int rc = eval_node(p->g, node, p->in, p->out, err);
    for (int i = 0; i < node->n_outputs; i++) {
        if (rc == 0 && node->outputs[i] >= 0)
            p->slots[find_slot(p, node->outputs[i])].made = p->out[i];
        else
            tensor_free(p->out[i]);
    }
    return rc;
}

static int store_outputs(struct step *step, struct program *p, struct err *err)
{
    for (int i = 0; i < step->n_args - step->n_in; i++) {
        struct slot *slot = &p->slots[p->outputs[i].slot];
        const struct tensor *from = slot->made ? slot->made : &slot->tensor;
        void *to = step->data[step->n_in + i];
        struct tensor into = {.dtype = p->outputs[i].dtype, .shape = from->shape, .data = to};
        int64_t n = shape_elements(&from->shape);
        if ((size_t)n * dtype_bytes(into.dtype) != p->outputs[i].bytes)
            return err_set(err, ERR_INTERNAL,
                           "layer '%s': the reference gives another shape than was inferred",
                           p->layer->name);
        if (p->outputs[i].quantize)
            for (int64_t k = 0; k < n; k++)
                tensor_set_f64(
                    &into, k,
                    __builtin_rint(tensor_get_f64(from, k) / (double)p->outputs[i].scale) +
                        p->outputs[i].zero);
        else if (from->dtype != into.dtype)
            for (int64_t k = 0; k < n; k++)
                tensor_set_f64(&into, k, tensor_get_f64(from, k));
        else
            memcpy(to, from->data, tensor_bytes(from));
    }
    return 0;
}

static int run_reference(struct step *step, struct err *err)
{
    struct program *p = step->state;
    int rc = load_operands(step, p, err);
    for (int i = 0; rc == 0 && i < p->n_nodes; i++)
        rc = run_node(p, p->nodes[i], err);
    if (rc == 0)
        rc = store_outputs(step, p, err);
    for (int i = 0; i < p->n_slots; i++)
        p->slots[i].made = tensor_free(p->slots[i].made);
    return rc;
}

static void release_reference(struct step *step)
{
    struct program *p = step->state;
    free(p->nodes);
    free(p->slots);
}

static int list_reference(struct maker *m, const struct layer *layer, enum layout in,
                          enum layout out, struct choices *choices, struct err *err)
{
    (void)m, (void)layer, (void)in, (void)out, (void)choices, (void)err;
    return 0;
}

static int make_reference(struct maker *m, const struct layer *layer, const struct choice *choice,
                          struct step *step, struct err *err)
{
    (void)choice;
    struct program *p = arena_alloc(m->arena, 1, sizeof(*p));
    if (!p)
        return err_oom(err, "a reference step");
    p->g = m->g;
    p->layer = layer;
    step->state = p;
    step->release = release_reference;
    int rc = build(m, p, err);
    if (rc < 0)
        return rc;
    step->info.implementation = "reference";
    step->run = run_reference;
    return 0;
}

const struct implementation reference_implementation = {
    .name = "reference", .list = list_reference, .make = make_reference};
