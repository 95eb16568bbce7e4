#pragma once
/* Steps that execute one oneDNN primitive. */
#include "shared/nn/plan_priv.h"

/* What an execution argument of the primitive is bound to. */
struct binding {
    int name; /* DNNL_ARG_... */
    const_dnnl_memory_desc_t md;
    int arg;          /* of the step; -1: `data` */
    const void *data; /* constant, which must live as long as the plan */
};

/* Turns a status other than success into an error: "layer 'NAME': WHAT: oneDNN out of memory". */
int dnnl_check(dnnl_status_t status, struct err *err, const char *what);

/* Creates the primitive and its arguments; user-mode scratch memory is the step's. */
int dnnl_step_build(struct maker *m, struct step *step, const_dnnl_primitive_desc_t pd,
                    const struct binding *bindings, int n, struct err *err);
/* Name of the implementation behind a descriptor, in the arena: "jit:avx512_core". */
const char *dnnl_step_name(struct arena *arena, const_dnnl_primitive_desc_t pd);

/* Reorders constant data (described by `from`) into a new buffer of `to` in the plan's arena; when
 * tuning, the buffer is zero. NULL: failed. */
void *dnnl_pack(struct maker *m, const_dnnl_memory_desc_t from, const void *data,
                const_dnnl_memory_desc_t to, struct err *err);

/* Adds a choice for each implementation behind the descriptor that is worth a try: those of the
 * best ISA among them, and oneDNN's own reference only where there is nothing else. */
int dnnl_list_implementations(dnnl_primitive_desc_t pd, const struct implementation *by,
                              enum layout in, enum layout out, struct choices *choices,
                              struct err *err);
/* Moves the descriptor on to the implementation that was listed with this name. (Not by counting:
 * with a warm primitive cache oneDNN 3.7 lists some implementations twice.) */
int dnnl_find_implementation(dnnl_primitive_desc_t pd, const char *name, struct err *err);

extern const struct implementation onednn_conv, onednn_pool, onednn_unary, onednn_binary,
    onednn_matmul, onednn_inner_product, onednn_norm;

/* For `_cleanup_`. */
void dnnl_mdp(dnnl_memory_desc_t *md);
void dnnl_pdp(dnnl_primitive_desc_t *pd);
void dnnl_attrp(dnnl_primitive_attr_t *attr);
void dnnl_postp(dnnl_post_ops_t *ops);
