#include "shared/nn/step_dnnl.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/str.h"

struct dnnl_state {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    int n;
    dnnl_exec_arg_t *args;
    int *arg_of; /* step argument of each; -1: constant, -2: scratch */
};

static dnnl_engine_t engine;

static void make_engine(void)
{
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success)
        engine = NULL;
}

dnnl_engine_t nn_engine(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_engine);
    return engine;
}

int dnnl_check(dnnl_status_t status, struct err *err, const char *what)
{
    static const char *const names[] = {"success",
                                        "out of memory",
                                        "invalid arguments",
                                        "unimplemented",
                                        "last implementation reached",
                                        "runtime error",
                                        "not required",
                                        "invalid graph"};
    if (status == dnnl_success)
        return 0;
    size_t i = (size_t)status;
    enum err_code code = status == dnnl_out_of_memory   ? ERR_RESOURCE_EXHAUSTED
                         : status == dnnl_unimplemented ? ERR_UNIMPLEMENTED
                                                        : ERR_INTERNAL;
    return err_set(err, code, "%s: oneDNN: %s", what,
                   i < sizeof(names) / sizeof(names[0]) ? names[i] : "unknown status");
}

void dnnl_mdp(dnnl_memory_desc_t *md)
{
    if (*md)
        dnnl_memory_desc_destroy(*md);
}

void dnnl_pdp(dnnl_primitive_desc_t *pd)
{
    if (*pd)
        dnnl_primitive_desc_destroy(*pd);
}

void dnnl_attrp(dnnl_primitive_attr_t *attr)
{
    if (*attr)
        dnnl_primitive_attr_destroy(*attr);
}

void dnnl_postp(dnnl_post_ops_t *ops)
{
    if (*ops)
        dnnl_post_ops_destroy(*ops);
}

static int run_dnnl(struct step *step, struct err *err)
{
    const struct dnnl_state *s = step->state;
    dnnl_status_t status = dnnl_primitive_execute(s->primitive, s->stream, s->n, s->args);
    return status == dnnl_success ? 0 : dnnl_check(status, err, step->info.layer);
}

static void bind_dnnl(struct step *step, int arg)
{
    struct dnnl_state *s = step->state;
    for (int i = 0; i < s->n; i++) {
        if (arg >= 0 && s->arg_of[i] == arg)
            dnnl_memory_set_data_handle(s->args[i].memory, step->data[arg]);
        else if (arg < 0 && s->arg_of[i] == -2)
            dnnl_memory_set_data_handle(s->args[i].memory, step->scratch);
    }
}

static void release_dnnl(struct step *step)
{
    struct dnnl_state *s = step->state;
    for (int i = 0; i < s->n; i++)
        if (s->args[i].memory)
            dnnl_memory_destroy(s->args[i].memory);
    if (s->primitive)
        dnnl_primitive_destroy(s->primitive);
    free(s->args);
    free(s->arg_of);
    free(s);
}

static const char *impl_name(const_dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name) != dnnl_success)
        return "oneDNN";
    return name;
}

int choices_add(struct choices *choices, const struct choice *choice, struct err *err)
{
    int at = plan_grow(&choices->items, &choices->n, &choices->capacity, sizeof(*choice), err);
    if (at < 0)
        return at;
    choices->items[at] = *choice;
    return 0;
}

/* "jit:avx512_core" -> "avx512_core" */
static const char *isa_of(const char *name)
{
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

static bool is_listed(const struct choices *choices, int from, const char *name)
{
    for (int i = from; i < choices->n; i++)
        if (strcmp(choices->items[i].name, name) == 0)
            return true;
    return false;
}

int dnnl_list_implementations(dnnl_primitive_desc_t pd, const struct implementation *by,
                              enum layout in, enum layout out, struct choices *choices,
                              struct err *err)
{
    enum { MOST = 4 };
    int before = choices->n;
    char best[64] = "";
    do {
        const char *name = impl_name(pd);
        bool reference = strncmp(name, "ref", 3) == 0 || strstr(name, "+ref");
        bool slow = reference || strncmp(name, "x64:gemm", 8) == 0;
        if (!slow && !*best)
            str_copy(best, sizeof(best), isa_of(name));
        bool wanted = choices->n == before || (!slow && strcmp(isa_of(name), best) == 0);
        struct choice choice = {.by = by, .in = in, .out = out, .last_resort = reference};
        if (!wanted || !str_copy(choice.name, sizeof(choice.name), name) ||
            is_listed(choices, before, name))
            continue;
        int rc = choices_add(choices, &choice, err);
        if (rc < 0)
            return rc;
    } while (choices->n - before < MOST && dnnl_primitive_desc_next_impl(pd) == dnnl_success);
    return 0;
}

int dnnl_find_implementation(dnnl_primitive_desc_t pd, const char *name, struct err *err)
{
    do {
        if (strcmp(impl_name(pd), name) == 0)
            return 0;
    } while (dnnl_primitive_desc_next_impl(pd) == dnnl_success);
    return err_set(err, ERR_INTERNAL, "oneDNN no longer offers %s", name);
}

const char *dnnl_step_name(struct arena *arena, const_dnnl_primitive_desc_t pd)
{
    const char *name = arena_strdup(arena, impl_name(pd));
    return name ? name : "oneDNN";
}

static int add_arg(struct maker *m, struct dnnl_state *s, int name, const_dnnl_memory_desc_t md,
                   int arg, const void *data, struct err *err)
{
    dnnl_memory_t memory = NULL;
    /* Constants are only read; the interface knows no such memory. */
    int rc = dnnl_check(
        dnnl_memory_create(&memory, md, m->engine, arg == -1 ? (void *)(uintptr_t)data : NULL), err,
        "memory");
    if (rc < 0)
        return rc;
    s->args[s->n] = (dnnl_exec_arg_t){name, memory};
    s->arg_of[s->n++] = arg;
    return 0;
}

int dnnl_step_build(struct maker *m, struct step *step, const_dnnl_primitive_desc_t pd,
                    const struct binding *bindings, int n, struct err *err)
{
    struct dnnl_state *s = calloc(1, sizeof(*s));
    if (!s)
        return err_oom(err, "a step");
    step->state = s;
    step->run = run_dnnl;
    step->bind = bind_dnnl;
    step->release = release_dnnl;
    s->stream = m->stream;
    s->args = mem_calloc((size_t)n + 1, sizeof(*s->args));
    s->arg_of = mem_calloc((size_t)n + 1, sizeof(*s->arg_of));
    if (!s->args || !s->arg_of)
        return err_oom(err, "a step");
    int rc = dnnl_check(dnnl_primitive_create(&s->primitive, pd), err, "primitive");
    for (int i = 0; rc == 0 && i < n; i++)
        rc =
            add_arg(m, s, bindings[i].name, bindings[i].md, bindings[i].arg, bindings[i].data, err);
    if (rc < 0)
        return rc;
    const_dnnl_memory_desc_t scratch =
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    step->scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    if (step->scratch_bytes > 0)
        rc = add_arg(m, s, DNNL_ARG_SCRATCHPAD, scratch, -2, NULL, err);
    step->info.implementation = dnnl_step_name(m->arena, pd);
    return rc;
}

void *dnnl_pack(struct maker *m, const_dnnl_memory_desc_t from, const void *data,
                const_dnnl_memory_desc_t to, struct err *err)
{
    size_t bytes = dnnl_memory_desc_get_size(to);
    void *packed = arena_alloc(m->arena, 1, bytes);
    if (!packed) {
        err_oom(err, "packed weights");
        return NULL;
    }
    m->plan->packed_bytes += bytes;
    if (m->tuning)
        return packed;
    _cleanup_(dnnl_pdp) dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t src = NULL, dst = NULL;
    int rc =
        dnnl_check(dnnl_reorder_primitive_desc_create(&pd, from, m->engine, to, m->engine, NULL),
                   err, "packing weights");
    if (rc == 0)
        rc = dnnl_check(dnnl_primitive_create(&primitive, pd), err, "packing weights");
    if (rc == 0)
        rc = dnnl_check(dnnl_memory_create(&src, from, m->engine, (void *)(uintptr_t)data), err,
                        "packing weights");
    if (rc == 0)
        rc = dnnl_check(dnnl_memory_create(&dst, to, m->engine, packed), err, "packing weights");
    if (rc == 0) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, src}, {DNNL_ARG_TO, dst}};
        rc = dnnl_check(dnnl_primitive_execute(primitive, m->stream, 2, args), err,
                        "packing weights");
    }
    if (dst)
        dnnl_memory_destroy(dst);
    if (src)
        dnnl_memory_destroy(src);
    if (primitive)
        dnnl_primitive_destroy(primitive);
    return rc == 0 ? packed : NULL;
}
