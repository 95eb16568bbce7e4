/* oneDNN primitives, each bound to buffers of every lane. */
#include <string.h>

#include "shared/train/net_priv.h"

static dnnl_engine_t engine;

static void make_engine(void)
{
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success)
        engine = NULL;
}

dnnl_engine_t train_engine(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_engine);
    return engine;
}

int train_dnnl(dnnl_status_t status, struct err *err, const char *what)
{
    if (status == dnnl_success)
        return 0;
    enum err_code code = status == dnnl_out_of_memory   ? ERR_RESOURCE_EXHAUSTED
                         : status == dnnl_unimplemented ? ERR_UNIMPLEMENTED
                                                        : ERR_INTERNAL;
    return err_set(err, code, "%s: oneDNN: %s", what,
                   status == dnnl_out_of_memory   ? "out of memory"
                   : status == dnnl_unimplemented ? "unimplemented"
                                                  : "failed");
}

void train_mdp(dnnl_memory_desc_t *md)
{
    if (*md)
        dnnl_memory_desc_destroy(*md);
    *md = NULL;
}

void train_pdp(dnnl_primitive_desc_t *pd)
{
    if (*pd)
        dnnl_primitive_desc_destroy(*pd);
    *pd = NULL;
}

void train_attrp(dnnl_primitive_attr_t *attr)
{
    if (*attr)
        dnnl_primitive_attr_destroy(*attr);
    *attr = NULL;
}

dnnl_primitive_attr_t train_attr(void)
{
    _cleanup_(train_attrp) dnnl_primitive_attr_t attr = NULL;
    if (dnnl_primitive_attr_create(&attr) != dnnl_success ||
        dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) != dnnl_success)
        return NULL;
    return TAKE_PTR(attr);
}

dnnl_memory_desc_t val_md(const struct val *v, enum dtype dtype)
{
    static const dnnl_format_tag_t tags[] = {dnnl_a,   dnnl_a,    dnnl_ab,
                                             dnnl_nwc, dnnl_nhwc, dnnl_ndhwc};
    dnnl_dims_t dims;
    if (v->shape.rank < 1 || v->shape.rank > 5)
        return NULL;
    memcpy(dims, v->shape.dim, sizeof(v->shape.dim[0]) * (size_t)v->shape.rank);
    dnnl_memory_desc_t md = NULL;
    if (dnnl_memory_desc_create_with_tag(&md, v->shape.rank, dims,
                                         dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32,
                                         tags[v->shape.rank]) != dnnl_success)
        return NULL;
    return md;
}

int prim_new(struct compiler *c, const_dnnl_primitive_desc_t pd, int n, const struct bind *binds,
             struct prim **ret, struct err *err)
{
    struct prim *p = arena_alloc(c->net->arena, 1, sizeof(*p));
    if (!p || n > MAX_ARGS)
        return err_oom(err, "a primitive");
    p->next = c->net->prims;
    c->net->prims = p; /* prims_release frees what there is of it */
    int rc = train_dnnl(dnnl_primitive_create(&p->primitive, pd), err, "primitive");
    for (int i = 0; rc == 0 && i < n; i++) {
        p->name[i] = binds[i].name;
        p->buffer[i] = binds[i].buffer;
        p->data[i] = binds[i].data;
        rc = train_dnnl(dnnl_memory_desc_clone(&p->md[i], binds[i].md), err, "memory");
        p->n = i + 1;
    }
    const_dnnl_memory_desc_t scratch =
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    p->scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    if (rc == 0 && p->scratch_bytes > 0)
        rc = train_dnnl(dnnl_memory_desc_clone(&p->scratch, scratch), err, "memory");
    if (p->scratch_bytes > c->net->scratch_bytes)
        c->net->scratch_bytes = p->scratch_bytes;
    *ret = p;
    return rc;
}

int prim_reorder(struct compiler *c, const struct bind *from, const struct bind *to,
                 struct prim **ret, struct err *err)
{
    _cleanup_(train_attrp) dnnl_primitive_attr_t attr = train_attr();
    _cleanup_(train_pdp) dnnl_primitive_desc_t pd = NULL;
    int rc = attr ? 0 : err_oom(err, "a reorder");
    if (rc == 0)
        rc = train_dnnl(
            dnnl_reorder_primitive_desc_create(&pd, from->md, c->engine, to->md, c->engine, attr),
            err, "reorder");
    const struct bind binds[] = {{DNNL_ARG_FROM, from->md, from->buffer, from->data},
                                 {DNNL_ARG_TO, to->md, to->buffer, to->data}};
    return rc < 0 ? rc : prim_new(c, pd, 2, binds, ret, err);
}

static int bind_lane(struct train_net *net, struct prim *p, const struct lane *lane,
                     struct err *err)
{
    dnnl_exec_arg_t *args = arena_alloc(net->arena, MAX_ARGS + 1, sizeof(*args));
    if (!args)
        return err_oom(err, "a primitive's arguments");
    p->lane_args[lane->index] = args;
    int rc = 0;
    for (int i = 0; rc == 0 && i < p->n; i++) {
        args[i].arg = p->name[i];
        void *at = p->buffer[i] >= 0 ? lane_at(lane, p->buffer[i]) : p->data[i];
        rc = train_dnnl(dnnl_memory_create(&args[i].memory, p->md[i], train_engine(), at), err,
                        "memory");
    }
    if (rc == 0 && p->scratch_bytes > 0) {
        args[p->n].arg = DNNL_ARG_SCRATCHPAD;
        rc = train_dnnl(
            dnnl_memory_create(&args[p->n].memory, p->scratch, train_engine(), lane->scratch), err,
            "memory");
    }
    return rc;
}

int prims_bind(struct train_net *net, struct err *err)
{
    for (struct prim *p = net->prims; p; p = p->next) {
        p->lane_args = arena_alloc(net->arena, (size_t)net->n_lanes, sizeof(*p->lane_args));
        if (!p->lane_args)
            return err_oom(err, "a primitive's arguments");
        for (int l = 0; l < net->n_lanes; l++) {
            int rc = bind_lane(net, p, &net->lanes[l], err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

void prims_release(struct train_net *net)
{
    for (struct prim *p = net->prims; p; p = p->next) {
        for (int l = 0; p->lane_args && l < net->n_lanes; l++)
            for (int i = 0; p->lane_args[l] && i <= p->n && i <= MAX_ARGS; i++)
                if (p->lane_args[l][i].memory)
                    dnnl_memory_destroy(p->lane_args[l][i].memory);
        for (int i = 0; i < p->n; i++)
            train_mdp(&p->md[i]);
        train_mdp(&p->scratch);
        if (p->primitive)
            dnnl_primitive_destroy(p->primitive);
    }
    net->prims = NULL;
}

int prim_run(const struct prim *p, const struct lane *lane, struct err *err)
{
    dnnl_status_t status = dnnl_primitive_execute(
        p->primitive, lane->stream, p->n + (p->scratch_bytes > 0), p->lane_args[lane->index]);
    return status == dnnl_success ? 0 : train_dnnl(status, err, "training");
}
