#pragma once
/*
 * What the files of the trainable network share.
 *
 *   net.c           life, parameters, export
 *   net_compile.c   graph -> operators (forward order), then their backward (reverse order)
 *   net_quantized.c constants kept as integers, trained as floats
 *   net_memory.c    lifetimes of buffers -> offsets in each lane's memory
 *   net_run.c       lanes and the step
 *   net_prim.c      oneDNN primitives bound to buffers of each lane
 *   op_*.c          operators; kernel_*.c loops of our own
 *
 * Activations lie channels last: [N, spatial, C], whatever ONNX calls them; tensors of rank 2 are
 * [N, C] either way. A value is read by several operators; each writes its gradient with respect
 * to the value into a buffer of its own or passes one on (Add), and they are summed before the
 * producer's backward, or by it (fused normalisation takes two).
 */
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>

#include "shared/graph/infer.h"
#include "shared/train/net.h"

/* ---- memory ---- */

enum home {
    HOME_PLANNED, /* each lane's; shares memory with buffers of other lifetimes */
    HOME_LANE,    /* each lane's, for itself alone */
    HOME_SHARED,  /* one for all lanes */
};

struct buffer {
    enum home home;
    size_t bytes, offset;
    int first, last; /* PLANNED: times of the first and the last touch */
};

/* ---- values ---- */

enum { MAX_EDGES = 16 };

struct val {
    const char *name;
    struct shape shape;  /* of one slice, as ONNX says it */
    int64_t n, c, plane; /* samples, channels, pixels: memory is [n, plane, c] */
    enum dtype dtype;    /* F32 or BF16 */
    bool needs_grad;
    int data;                      /* buffer */
    int n_edges, edges[MAX_EDGES]; /* buffers with the readers' gradients */
    bool edge_shared[MAX_EDGES];   /* others read that buffer, too: not to be written to */
    int grad;                      /* the sum; -1: none */
    int grad2;                     /* to be added by the producer's backward; -1 */
    bool grad_shared;              /* `grad` is not to be written to */
};

static inline int64_t val_width(const struct val *v) /* elements of one sample */
{
    return v->plane * v->c;
}
static inline int64_t val_elements(const struct val *v)
{
    return v->n * val_width(v);
}
static inline size_t val_bytes(const struct val *v)
{
    return (size_t)val_elements(v) * dtype_bytes(v->dtype);
}

/* ---- oneDNN ---- */

enum { MAX_ARGS = 8 };

struct prim {
    dnnl_primitive_t primitive;
    int n;
    int name[MAX_ARGS];
    dnnl_memory_desc_t md[MAX_ARGS]; /* copies */
    int buffer[MAX_ARGS];            /* -1: `data` */
    void *data[MAX_ARGS];
    size_t scratch_bytes;
    dnnl_memory_desc_t scratch;
    dnnl_exec_arg_t **lane_args; /* [lanes]: [n + 1] */
    struct prim *next;
};

/* ---- quantized constants ---- */

/* What 8 bits hold: scale * (q - zero), q whole and within [low, high]. */
struct grid {
    float scale, zero, low, high;
};
void grid_bounds(struct grid *grid, enum dtype dtype); /* all that the type holds */
int64_t grid_integer(const struct grid *grid, float x);

/* A constant behind a DequantizeLinear. */
struct quantized {
    int value, integers;         /* of the graph: dequantized, and what is in the file */
    int param;                   /* -1: not one */
    int64_t channels, inner;     /* element i has the scale i / inner % channels */
    const float *scales, *zeros; /* [channels] */
    struct grid bounds;          /* low and high */
    struct tensor floats;        /* where training begins */
};

/* ---- parameters ---- */

/* How an operator uses a parameter: what is made of it before a step, and how its gradient comes
 * back after it. */
enum { MAX_PACKS = 3 };
struct lane;
struct slot {
    int param;
    /* The operator computes with scale * value, quantized where it is: `scaled`, -1 where that is
     * the value itself */
    float scale;
    const struct quantized *quantized;
    int scaled; /* shared buffer */
    int acc;    /* buffer of HOME_LANE: f32[acc_n], summed over the lane's slices */
    int64_t acc_n;
    struct prim *unpack; /* acc -> net->plain, when acc is not laid out as the parameter */
    int n_packs;
    struct prim *packs[MAX_PACKS]; /* value -> a form that oneDNN reads */
    /* Those of an operator with kernels of its own, NULL: none. from: value; [acc_n] -> net->plain
     */
    void (*own_pack)(const void *own, const struct lane *lane, const float *from);
    void (*own_unpack)(const void *own, const float *from, float *to);
    const void *own; /* in the network's arena */
};

/* ---- operators ---- */

struct tape_op;
struct compiler;

struct op_kind {
    const char *name;
    /* Called once in reverse order: asks for gradient buffers (compile_edge) and makes what
     * backward needs. */
    int (*plan)(struct compiler *c, struct tape_op *op, struct err *err);
    int (*forward)(const struct tape_op *op, struct lane *lane, struct err *err);
    int (*backward)(const struct tape_op *op, struct lane *lane, struct err *err);
    void (*prepare)(const struct tape_op *op, struct lane *lane); /* before a lane's first slice */
    void (*finish)(const struct tape_op *op,
                   struct train_net *net); /* after the step, one thread */
    int grads;                             /* of its output that backward adds up itself; 0: 1 */
};

enum { MAX_SUMS = MAX_EDGES };

struct tape_op {
    const struct op_kind *kind;
    const char *name, *type; /* of the node */
    int index;
    int n_in, n_out;
    int *in, *out; /* vals */
    int *in_grad;  /* [n_in]: buffer that takes the gradient; -1: nobody wants it */
    bool has_backward;
    int n_sums; /* done before backward: to += from */
    struct {
        int to, from;
        bool assign; /* to = from (from -1: 0) */
        enum dtype dtype;
        int64_t n;
    } sums[MAX_SUMS];
    int sums_work; /* a buffer for sums of the backward */
    void *state;   /* in the network's arena */
};

/* ---- the network ---- */

struct lane {
    struct train_net *net;
    int index;
    pthread_t thread;
    bool started;
    char *memory;
    void **at; /* [n_buffers] */
    void *scratch;
    dnnl_stream_t stream;
    bool first; /* of the lane's slices in this step */
    int64_t slice;
    int rc;
    struct err err;
    int64_t *times; /* [2 * n_ops]: forward and backward, when they are kept */
};

struct output {
    int val;
    int dense, gradient; /* buffers f32 [slice, width] in ONNX's order */
};

struct train_net {
    struct arena *arena;
    struct train_net_options options;
    struct graph *graph; /* ours: the weights go back into it */
    enum precision precision;
    int64_t slice, slices;
    int n_lanes;
    uint64_t steps;

    int n_params, cap_params;
    struct train_param *params;
    int *param_value; /* of the graph */
    int n_states, cap_states;
    struct train_state *states;
    int *state_value;

    int n_quantized;
    struct quantized *quantized;

    int n_vals, cap_vals;
    struct val *vals;
    int n_buffers, cap_buffers;
    struct buffer *buffers;
    int n_ops, cap_ops;
    struct tape_op **ops;
    int n_slots, cap_slots;
    struct slot *slots;
    struct prim *prims;
    int input; /* val */
    int n_outputs;
    struct output *outputs;

    size_t home_bytes[3], scratch_bytes, memory_bytes;
    int plain; /* buffer of HOME_LANE: the largest parameter, in ONNX's layout */
    char *shared;
    struct lane *lanes;

    /* the step that is going on */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    uint64_t round; /* of work given out */
    int working, phase;
    bool quit, locked;
    const float *x;
    train_loss *loss;
    void *loss_ctx;
};

static inline void *lane_at(const struct lane *lane, int buffer)
{
    return lane->at[buffer];
}

/* ---- compiling ---- */

struct compiler {
    struct train_net *net;
    const struct graph *g;
    struct uses uses;
    struct arena *scratch;
    int *val_of;   /* by value of the graph; -1 */
    bool *taken;   /* by node: inside an operator made already, or not needed */
    bool *waiting; /* by value of the graph: a normalisation that the Add behind it will make */
    dnnl_engine_t engine;
};

/* Index of a new item of one of the network's arrays (heap), zeroed; negative: no memory. */
int net_grow(void *items, int *n, int *cap, size_t size, struct err *err);

int compile_buffer(struct compiler *c, enum home home, size_t bytes, struct err *err);
/* The operator touches the buffer in its forward, or in its backward. */
void compile_forward_use(struct compiler *c, const struct tape_op *op, int buffer);
void compile_backward_use(struct compiler *c, const struct tape_op *op, int buffer);
/* New value with a buffer of its own (alias >= 0: the buffer of that val). */
int compile_val(struct compiler *c, int value, enum dtype dtype, int alias, struct err *err);
/* The val of a graph value, which a node before has made. */
int compile_val_of(struct compiler *c, int value);
/* New operator; its inputs and outputs are touched in forward. */
struct tape_op *compile_op(struct compiler *c, const struct op_kind *kind, const struct node *node,
                           int n_in, const int *in, int n_out, const int *out, size_t state_bytes,
                           struct err *err);
/* Backward: a buffer for the gradient of input i (touched), in op->in_grad[i]; -1: not wanted. */
int compile_edge(struct compiler *c, struct tape_op *op, int i, struct err *err);
/* The gradient of input i is this buffer; `shared`: others read it afterwards. */
int compile_pass_edge(struct compiler *c, struct tape_op *op, int i, int buffer, bool shared,
                      struct err *err);
int compile_param(struct compiler *c, int value, enum train_role role, struct err *err);
int compile_state(struct compiler *c, int value, struct err *err);
/* Index of a new slot with a plain accumulator. */
int compile_slot(struct compiler *c, int param, int64_t acc_n, struct err *err);
/* The lanes' buffer for a parameter's gradient in ONNX's layout; large enough for this one. */
int compile_plain(struct compiler *c, int param, struct err *err);
/* Finds what DequantizeLinear makes of constants; the one that yields this value, or NULL. */
int compile_quantized_all(struct compiler *c, struct err *err);
struct quantized *compile_quantized(const struct compiler *c, int value);
void compile_begin_quantized(struct compiler *c); /* with the original's weights, where given */
/* Bounds of a Clip by constants. */
bool compile_clip(const struct compiler *c, const struct node *node, float *low, float *high);
/* The Add (of values of one shape) together with a normalisation that waits for it: 1; else 0. */
int make_norm_and_add(struct compiler *c, const struct node *add, struct err *err);
int compile_refuse(const struct node *node, struct err *err, const char *why);
/* The constant behind input i of the node, as fp32, dequantized where it is; NULL: none. */
const struct tensor *compile_constant(const struct compiler *c, const struct node *node, int i);
/* Memory offset within a sample of the element that ONNX numbers `i`. */
int64_t val_offset(const struct val *v, int64_t i);

/* op_*.c: makes the operators of node `index`. */
typedef int make_op(struct compiler *c, const struct node *node, struct err *err);
make_op make_conv, make_gemm, make_norm, make_unary, make_binary, make_global_pool, make_move,
    make_alias, make_pool, make_lrn, make_dropout, make_prelu, make_conv_transpose, make_quantize,
    make_dequantize;
/* 1: made; 0: not one for it. */
int make_conv3(struct compiler *c, const struct node *node, const struct window *w,
               struct err *err);
int make_input(struct compiler *c, int value, struct err *err);
int make_output(struct compiler *c, int value, struct output *ret, struct err *err);

/* ---- primitives ---- */

struct bind {
    int name;
    const_dnnl_memory_desc_t md;
    int buffer; /* -1: data */
    void *data;
};
dnnl_engine_t train_engine(void);
int train_dnnl(dnnl_status_t status, struct err *err, const char *what);
int prim_new(struct compiler *c, const_dnnl_primitive_desc_t pd, int n, const struct bind *binds,
             struct prim **ret, struct err *err);
int prim_reorder(struct compiler *c, const struct bind *from, const struct bind *to,
                 struct prim **ret, struct err *err);
int prims_bind(struct train_net *net, struct err *err);
void prims_release(struct train_net *net);
int prim_run(const struct prim *prim, const struct lane *lane, struct err *err);
/* [N, C, spatial] channels last, as the val lies. NULL: oneDNN refuses. */
dnnl_memory_desc_t val_md(const struct val *v, enum dtype dtype);
dnnl_primitive_attr_t train_attr(void); /* scratch memory is the lane's */
void train_mdp(dnnl_memory_desc_t *md);
void train_pdp(dnnl_primitive_desc_t *pd);
void train_attrp(dnnl_primitive_attr_t *attr);

/* ---- the stairs ---- */
int net_compile(struct train_net *net, struct err *err);
int net_plan_memory(struct train_net *net, struct err *err);
int net_start(struct train_net *net, struct err *err);
void net_stop(struct train_net *net);

/* ---- quantized constants in a step ---- */

/* What the network computes with: [elements]. */
void quantized_round(const struct quantized *q, const float *from, float *to);
/* The gradient straight through: 0 where the value is out of the grid's bounds. */
void quantized_pass(const struct quantized *q, const float *value, float *grad);
/* The integers that quantized_round computes with. */
void quantized_export(const struct quantized *q, const float *value, struct tensor *integers);

/* ---- loops (kernel_*.c) ---- */

/* to: what the grid makes of n values; the gradient of that (`from` and `to` may be one). */
void kernel_fake(const struct grid *grid, const float *from, float *to, int64_t n);
void kernel_fake_back(const struct grid *grid, const float *x, const float *from, float *to,
                      int64_t n);

/* n values to and from fp32. */
void kernel_load(float *to, const void *from, enum dtype dtype, int64_t n);
void kernel_store(void *to, const float *from, enum dtype dtype, int64_t n);
void kernel_add(void *to, const void *from, enum dtype dtype, int64_t n); /* to += from */
/* [rows, columns] of f32 into [columns, rows] of a type, and back. */
void kernel_to_last(void *to, enum dtype dtype, const float *from, int64_t c, int64_t plane);
void kernel_from_last(float *to, const void *from, enum dtype dtype, int64_t c, int64_t plane);
