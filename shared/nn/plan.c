/* Plans: compiling, running, asking. */
#include "shared/nn/plan.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/nn/plan_priv.h"

int plan_grow(void *items, int *n, int *cap, size_t size, struct err *err)
{
    char **array = items;
    if (*n == *cap) {
        int bigger = *cap ? *cap * 2 : 16;
        char *grown = mem_realloc(*array, (size_t)bigger, size);
        if (!grown)
            return err_oom(err, "a plan");
        *array = grown;
        *cap = bigger;
    }
    memset(*array + (size_t)*n * size, 0, size);
    return (*n)++;
}

void step_bind(struct step *step, int arg, void *data)
{
    if (arg >= 0)
        step->data[arg] = data;
    else
        step->scratch = data;
    if (step->bind)
        step->bind(step, arg);
}

void step_release(struct step *step)
{
    if (step->release)
        step->release(step);
    step->release = NULL;
}

/* ---- compiling ---- */

static int add_ports(struct plan *plan, const struct graph *g, int n, const int *values,
                     struct port **ret, struct err *err)
{
    struct port *ports = mem_calloc((size_t)n, sizeof(*ports));
    if (!ports)
        return err_oom(err, "a plan's ports");
    *ret = ports;
    for (int i = 0; i < n; i++) {
        const struct value *v = g->values[values[i]];
        ports[i].value = values[i];
        if (!v->shape_known || v->dtype == DTYPE_NONE)
            return err_set(err, ERR_FAILED_PRECONDITION,
                           "the shape of '%s' is not known; infer "
                           "shapes first",
                           v->name);
        ports[i].info = (struct plan_port){.name = arena_strdup(plan->arena, v->name),
                                           .dtype = v->dtype,
                                           .shape = shape_at(&v->shape, plan->options.batch)};
        int rc = shape_check(&ports[i].info.shape, err);
        if (rc < 0)
            return err_wrap(err, "'%s' at batch %lld", v->name, (long long)plan->options.batch);
        ports[i].info.bytes = (size_t)shape_elements(&ports[i].info.shape) * dtype_bytes(v->dtype);
        if (!ports[i].info.name)
            return err_oom(err, "a plan's ports");
    }
    return 0;
}

static int check_options(const struct plan_options *o, struct err *err)
{
    if (o->batch < 0 || o->batch > SHAPE_MAX_ELEMENTS)
        return err_set(err, ERR_INVALID_ARGUMENT, "batch %lld", (long long)o->batch);
    if (o->threads < 0 || o->threads > 4096)
        return err_set(err, ERR_INVALID_ARGUMENT, "%d threads", o->threads);
    return 0;
}

/* The first port takes pictures of bytes. */
static int picture_port(struct plan *plan, struct err *err)
{
    const struct plan_pictures *p = plan->options.pictures;
    struct plan_port *port = plan->n_inputs > 0 ? &plan->inputs[0].info : NULL;
    if (!port || port->shape.rank != 4 || port->dtype != DTYPE_F32 || port->shape.dim[1] > 4 ||
        port->shape.dim[1] != p->channels)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the network's first input is no picture of 1 to 4 channels");
    const struct shape s = port->shape;
    if (p->last)
        port->shape = shape_make(4, (int64_t[]){s.dim[0], s.dim[2], s.dim[3], s.dim[1]});
    port->dtype = DTYPE_U8;
    port->bytes = (size_t)shape_elements(&port->shape);
    return 0;
}

static int compile(struct plan *plan, struct err *err)
{
    struct maker m = {.g = plan->own,
                      .plan = plan,
                      .arena = plan->arena,
                      .engine = nn_engine(),
                      .stream = plan->stream,
                      .options = &plan->options};
    int rc = add_ports(plan, m.g, m.g->n_inputs, m.g->inputs, &plan->inputs, err);
    plan->n_inputs = plan->inputs ? m.g->n_inputs : 0;
    if (rc == 0 && plan->options.pictures)
        rc = picture_port(plan, err);
    if (rc == 0)
        rc = add_ports(plan, m.g, m.g->n_outputs, m.g->outputs, &plan->outputs, err);
    plan->n_outputs = plan->outputs ? m.g->n_outputs : 0;
    if (rc == 0 && lanes_wanted(m.g, &plan->options))
        return lanes_make(plan, m.g, err);
    if (rc == 0)
        rc = plan_lower(&m, err);
    if (rc == 0)
        rc = plan_choose(&m, err);
    if (rc == 0)
        rc = plan_emit(&m, err);
    return rc;
}

int plan_compile(const struct graph *g, const struct plan_options *options, struct plan **ret,
                 struct err *err)
{
    static const struct plan_options defaults;
    int rc = check_options(options ? options : &defaults, err);
    if (rc < 0)
        return rc;
    _cleanup_(plan_freep) struct plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        return err_oom(err, "a plan");
    plan->options = options ? *options : defaults;
    if (plan->options.batch == 0)
        plan->options.batch = 1;
    if (plan->options.threads == 0)
        plan->options.threads = 1;
    plan->arena = arena_new();
    if (!plan->arena)
        return err_oom(err, "a plan");
    if (!nn_engine() || dnnl_stream_create(&plan->stream, nn_engine(), 0) != dnnl_success)
        return err_set(err, ERR_UNAVAILABLE, "oneDNN has no engine for this CPU");
    rc = graph_clone(g, &plan->own, err);
    if (rc < 0)
        return rc;
    int threads = omp_get_max_threads();
    omp_set_num_threads(plan->options.threads); /* oneDNN plans for as many as it sees now */
    rc = compile(plan, err);
    omp_set_num_threads(threads);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(plan);
    return 0;
}

static void free_ports(struct port *ports, int n)
{
    for (int i = 0; i < n; i++)
        free(ports[i].rebinds);
    free(ports);
}

struct plan *plan_free(struct plan *plan)
{
    if (!plan)
        return NULL;
    lanes_release(plan);
    for (int i = 0; i < plan->n_steps; i++)
        step_release(&plan->steps[i]);
    free(plan->steps);
    free(plan->layers);
    free(plan->wires);
    free(plan->instances);
    free_ports(plan->inputs, plan->n_inputs);
    free_ports(plan->outputs, plan->n_outputs);
    free(plan->memory);
    if (plan->stream)
        dnnl_stream_destroy(plan->stream);
    graph_free(plan->own);
    arena_free(plan->arena);
    free(plan);
    return NULL;
}

void plan_freep(struct plan **plan)
{
    *plan = plan_free(*plan);
}

/* ---- running ---- */

static void rebind(struct plan *plan, struct port *port, const void *data)
{
    port->bound = data;
    /* Steps do not write to inputs; one table serves both kinds of port. */
    for (int i = 0; i < port->n_rebinds; i++)
        step_bind(&plan->steps[port->rebinds[i].step], port->rebinds[i].arg,
                  (void *)(uintptr_t)data);
}

static void bind_ports(struct plan *plan, const void *const *inputs, void *const *outputs)
{
    for (int i = 0; i < plan->n_inputs; i++)
        if (plan->inputs[i].bound != inputs[i])
            rebind(plan, &plan->inputs[i], inputs[i]);
    for (int i = 0; i < plan->n_outputs; i++)
        if (plan->outputs[i].bound != outputs[i])
            rebind(plan, &plan->outputs[i], outputs[i]);
}

static void copy_constants(const struct plan *plan, void *const *outputs)
{
    for (int i = 0; i < plan->n_outputs; i++)
        if (plan->outputs[i].constant)
            memcpy(outputs[i], plan->outputs[i].constant, plan->outputs[i].info.bytes);
}

int plan_run(struct plan *plan, const void *const *inputs, void *const *outputs, struct err *err)
{
    if (plan->lanes)
        return lanes_run(plan, inputs, outputs, NULL, err);
    int threads = omp_get_max_threads();
    if (threads != plan->options.threads)
        omp_set_num_threads(plan->options.threads);
    bind_ports(plan, inputs, outputs);
    int rc = 0;
    for (int i = 0; i < plan->n_steps && rc == 0; i++)
        rc = step_run(&plan->steps[i], err);
    copy_constants(plan, outputs);
    if (threads != plan->options.threads)
        omp_set_num_threads(threads);
    return rc;
}

int plan_run_timed(struct plan *plan, const void *const *inputs, void *const *outputs,
                   int64_t *ret_ns, struct err *err)
{
    if (plan->lanes)
        return lanes_run(plan, inputs, outputs, ret_ns, err);
    int threads = omp_get_max_threads();
    omp_set_num_threads(plan->options.threads);
    bind_ports(plan, inputs, outputs);
    int rc = 0;
    int64_t then = clock_now_ns(NULL);
    for (int i = 0; i < plan->n_steps && rc == 0; i++) {
        rc = step_run(&plan->steps[i], err);
        int64_t now = clock_now_ns(NULL);
        ret_ns[i] = now - then;
        then = now;
    }
    copy_constants(plan, outputs);
    omp_set_num_threads(threads);
    return rc;
}

/* ---- asking ---- */

int plan_n_inputs(const struct plan *plan)
{
    return plan->n_inputs;
}

int plan_n_outputs(const struct plan *plan)
{
    return plan->n_outputs;
}

const struct plan_port *plan_input(const struct plan *plan, int i)
{
    return &plan->inputs[i].info;
}

const struct plan_port *plan_output(const struct plan *plan, int i)
{
    return &plan->outputs[i].info;
}

int plan_n_steps(const struct plan *plan)
{
    return plan->lanes ? plan->lanes[0].plan->n_steps : plan->n_steps;
}

const struct plan_step *plan_step(const struct plan *plan, int i)
{
    return &(plan->lanes ? plan->lanes[0].plan : plan)->steps[i].info;
}

size_t plan_memory(const struct plan *plan)
{
    return plan->memory_bytes + plan->packed_bytes;
}
