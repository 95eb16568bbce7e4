#pragma once
/*
 * What the files of the inference plan share.
 *
 * Compilation goes down these stairs:
 *   lower*.c        nodes become layers: what is fused into one step; values become wires
 *   plan_choose.c   each layer gets an implementation and memory layouts, by measurement
 *   plan_emit.c     layers become steps, conversions go in between, memory is laid out
 * step_*.c hold the implementations, each kind of layer in its own file.
 */
#include <oneapi/dnnl/dnnl.h>

#include "shared/graph/infer.h"
#include "shared/nn/plan.h"

/* ---- layouts of activations ---- */

/* How [N, C, spatial...] lies in memory. Blocked layouts pad the channels to whole blocks; in C16
 * and C8 that padding is zero, and every step keeps it so. Shapes of rank below 3 are always PLAIN.
 * C4 is for 8-bit values and steps of our own only; where its planes of 4 channels would all begin
 * at the same place of a cache's sets, a cache line lies between them (layout_plane). */
enum layout {
    LAYOUT_PLAIN, /* row-major */
    LAYOUT_LAST,  /* channels last: N, spatial, C */
    LAYOUT_C16,   /* N, C/16, spatial, 16 */
    LAYOUT_C8,
    LAYOUT_C4,
    LAYOUT_COUNT
};
const char *layout_name(enum layout layout); /* "plain", "last", "c16", ... */
int64_t layout_block(enum layout layout);    /* 16, 8, 4; 1 for others */
/* PLAIN where the bytes lie as in PLAIN, else the layout itself. */
enum layout layout_canonical(enum layout layout, const struct shape *shape);
bool layout_possible(enum layout layout, const struct shape *shape);    /* PLAIN: always */
int64_t layout_elements(enum layout layout, const struct shape *shape); /* with padding */
/* Pixels from one block of channels to the next. */
int64_t layout_plane(enum layout layout, const struct shape *shape);
/* New descriptor, NULL when oneDNN has none (C4 among them). */
dnnl_memory_desc_t layout_md(enum layout layout, const struct shape *shape, enum dtype dtype);
dnnl_data_type_t dnnl_type(enum dtype dtype); /* dnnl_data_type_undef where it has none */

/* ---- wires: what flows between layers ---- */

/* A value of the graph; in a QDQ network the 8-bit value that stands for several of them: the
 * output of QuantizeLinear, of its DequantizeLinear, and of operators that only move it. */
struct wire {
    const char *name;
    struct shape shape; /* at the plan's batch */
    enum dtype dtype;   /* as its layer leaves it */
    bool quantized;     /* then real = scale * (q - zero) */
    float scale;
    int32_t zero;
    const struct tensor *constant; /* dense; NULL otherwise */
    int input;                     /* of the network; -1 */
    enum layout layout;            /* of an input: as the caller has it */
    int layer;                     /* that makes it; -1 */
    int n_readers;                 /* layers and network outputs */
    int raw_value, real_value;     /* values of the graph that it stands for, or -1 */
    int stands_for;                /* value of which this is another shape; -1 */
};

/* How a value of the graph is to be had: a wire's own numbers, or what they stand for. */
struct view {
    int wire;  /* -1: none yet */
    bool real; /* of a quantized wire: scale * (q - zero) */
};

/* ---- layers ---- */

enum { MAX_POSTS = 8, MAX_SPATIAL = 3 };

/* What follows the main operation, in order. */
struct post {
    enum { POST_UNARY, POST_ADD, POST_SCALE, POST_SHIFT, POST_SLOPE } kind;
    dnnl_alg_kind_t alg; /* UNARY */
    float alpha, beta;
    int operand;         /* ADD: index into the layer's operands */
    const float *values; /* SCALE, SHIFT, SLOPE (below 0): one for each output channel */
};

struct operand {
    int wire;
    enum dtype dtype; /* as the layer reads it: F32 or BF16 of a quantized wire means dequantized */
};

struct conv {
    struct window w;
    bool transposed;
    int64_t n, ic, oc;
    const struct tensor *weights; /* F32 or S8; [oc, ic/g, k...], transposed: [ic, oc/g, k...] */
    const float *bias;            /* [oc] or NULL */
    const float *weight_scales;   /* S8: [oc] */
};

/* Batched y[m, n] = sum_k a[m, k] * b[k, n] (+ bias[n]). */
struct gemm {
    int64_t m, n, k;
    bool trans_a, trans_b;
    int batch_rank; /* leading dimensions of the operands, when there are any: then MatMul's rules
                     */
    const struct tensor *weights; /* b when it is constant: F32 or S8; else operand 1 is b */
    const float *bias;            /* [n] or NULL */
    const float *weight_scales;   /* S8: [n] */
};

struct pool {
    struct window w;
    dnnl_alg_kind_t alg;
};

/* Copies that do not compute: rectangles of sources go to places in the output. */
struct piece {
    int operand;
    int64_t from[SHAPE_MAX_RANK], to[SHAPE_MAX_RANK]; /* first element in source and output */
    int64_t step[SHAPE_MAX_RANK];                     /* in the source; may be negative or 0 */
    int64_t count[SHAPE_MAX_RANK];
    int axis[SHAPE_MAX_RANK]; /* of the source, for each of the output's; below 0: none */
};
struct move {
    int n_pieces;
    struct piece *pieces;
    bool fill; /* what no piece covers is `value` (a real number) */
    float value;
};

/* Over the middle one of [outer, n, inner]. */
struct softmax {
    int64_t outer, n, inner;
};

struct lrn {
    int64_t size;
    float alpha, beta, bias;
};

struct layer;
struct step;
struct maker;

/* One way to run a layer. */
struct choice {
    const struct implementation *by;
    enum layout in, out; /* of operand 0; of the outputs and of residual operands */
    char name[64];       /* which of oneDNN's implementations; "" for others */
    bool last_resort;    /* slow: only where there is nothing else */
    double ns;           /* measured or estimated */
};

struct choices {
    int n, capacity;
    struct choice *items;
};

int choices_add(struct choices *choices, const struct choice *choice, struct err *err);

struct implementation {
    const char *name;
    /* Adds the ways in which it can run the layer from layout `in` to layout `out`. */
    int (*list)(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                struct choices *choices, struct err *err);
    /* Builds the step: operands, then outputs, are its arguments. */
    int (*make)(struct maker *m, const struct layer *layer, const struct choice *choice,
                struct step *step, struct err *err);
};

enum layer_kind {
    LAYER_REFERENCE, /* plain C only */
    LAYER_CONV,
    LAYER_GEMM,
    LAYER_POOL,
    LAYER_UNARY,
    LAYER_BINARY,
    LAYER_PRELU,  /* operand 1: slopes below 0 */
    LAYER_RESIZE, /* by whole factors (nearest), or linear between pixels' middles */
    LAYER_MOVE,
    LAYER_ALIAS,         /* the same bytes under another shape */
    LAYER_CONVERT,       /* QuantizeLinear and requantization */
    LAYER_TABLE,         /* 8 bits to 8 bits by a table of 256 */
    LAYER_NARROW_BINARY, /* two operands of one shape, 8-bit ones among them; 8-bit result */
    LAYER_NARROW_MEAN,   /* GlobalAveragePool of 8 bits */
    LAYER_PICTURES,      /* a network's input from bytes; has no node */
    LAYER_SOFTMAX,
    LAYER_LRN,
};

struct layer {
    enum layer_kind kind;
    const struct node *node; /* main */
    const char *name, *op, *fused;
    enum precision precision;
    int64_t macs;
    int n_in, n_out;
    struct operand *in;
    int *out; /* wires */
    int sum;  /* operand whose memory the output takes (it dies here); -1 */
    union {
        struct conv conv;
        struct gemm gemm;
        struct pool pool;
        struct move move;
        dnnl_alg_kind_t alg; /* BINARY, NARROW_BINARY, RESIZE */
        struct softmax softmax;
        struct lrn lrn;
        uint8_t *table; /* TABLE: by the operand's byte */
    };
    int n_posts;
    struct post posts[MAX_POSTS];
    struct choice chosen;
};

/* ---- steps ---- */

struct step {
    struct plan_step info;
    int n_args;     /* operands, then outputs */
    int *instances; /* [n_args] */
    void **data;    /* [n_args], bound */
    int n_in;
    int in_place; /* argument whose memory the first output takes; -1 */
    size_t scratch_bytes;
    void *scratch;
    int (*run)(struct step *step, struct err *err);
    void (*bind)(struct step *step,
                 int arg);              /* data[arg] or scratch (arg -1) changed; may be NULL */
    void (*release)(struct step *step); /* frees state; may be NULL */
    void *state;
};

static inline int step_run(struct step *step, struct err *err)
{
    return step->run(step, err);
}
void step_bind(struct step *step, int arg, void *data);
void step_release(struct step *step);

/* What builds steps: one for each plan. */
struct maker {
    const struct graph *g;
    struct plan *plan;
    struct arena *arena; /* the plan's */
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    const struct plan_options *options;
    bool tuning; /* the step is only to be timed: weights need not be right */
};

/* ---- memory ---- */

enum place { PLACE_ARENA, PLACE_INPUT, PLACE_OUTPUT, PLACE_CONSTANT };

/* A wire's content in one type and layout. */
struct instance {
    int wire;
    enum dtype dtype;
    enum layout layout; /* canonical */
    size_t bytes;
    int first, last; /* steps that write and read it */
    int root;        /* the instance whose memory it is: itself, or that of an alias */
    enum place place;
    int port;
    size_t offset;
    void *data; /* CONSTANT */
};

struct rebind {
    int step, arg;
};
struct port {
    struct plan_port info;
    int value; /* of the graph */
    int instance;
    const void *bound;    /* pointer of the last run */
    const void *constant; /* an output that does not depend on the inputs */
    int n_rebinds;
    struct rebind *rebinds;
};

struct plan {
    struct arena *arena; /* all small things, and packed weights */
    struct plan_options options;
    struct graph *own; /* a copy of the network: names, constants, reference steps */
    dnnl_stream_t stream;
    struct view *views;              /* by value of the graph */
    const struct tensor **constants; /* by value: folded; NULL */
    int n_wires, cap_wires;
    struct wire *wires;
    int n_layers, cap_layers;
    struct layer *layers;
    int n_steps, cap_steps;
    struct step *steps;
    int n_instances, cap_instances;
    struct instance *instances;
    int n_inputs, n_outputs;
    struct port *inputs, *outputs;
    char *memory; /* arena of activations, then scratch */
    size_t memory_bytes, packed_bytes;
    /* A batch on several threads: each lane is a plan for a share of the samples on one thread, and
     * the rest of this structure but for the ports is that of the first lane. */
    int n_lanes;
    struct lane *lanes;
};

struct lane {
    struct plan *plan;
    const void **inputs; /* where its share begins */
    void **outputs;
};
/* Whether the batch is to be shared out; makes the lanes; runs them. ret_ns: of the first lane's
 * steps, or NULL. */
bool lanes_wanted(const struct graph *g, const struct plan_options *options);
int lanes_make(struct plan *plan, const struct graph *g, struct err *err);
int lanes_run(struct plan *plan, const void *const *inputs, void *const *outputs, int64_t *ret_ns,
              struct err *err);
void lanes_release(struct plan *plan);

/* Grows one of the arrays of a plan (heap) by one; the new item is zeroed. Returns its index. */
int plan_grow(void *items, int *n, int *cap, size_t size, struct err *err);

/* ---- the stairs ---- */
int plan_lower(struct maker *m, struct err *err);
int plan_choose(struct maker *m, struct err *err);
int plan_emit(struct maker *m, struct err *err);
/* Key of the latency table, in the plan's arena; NULL: out of memory. */
const char *plan_signature(struct maker *m, const struct layer *layer, enum layout in,
                           enum layout out);

/* ---- lowering ---- */
/* Tests set it to compute in bf16 where the CPU only emulates it. */
extern bool plan_emulate_bf16;
/* The constant behind a value at any remove (a folded DequantizeLinear counts), or NULL. */
const struct tensor *plan_constant(const struct plan *plan, int value);

/* ---- implementations ---- */
/* NULL-terminated, by kind; the plain-C reference, which runs every layer in PLAIN, is not listed.
 */
const struct implementation *const *implementations_of(enum layer_kind kind);
extern const struct implementation reference_implementation;

/* ---- one process, one engine ---- */
dnnl_engine_t nn_engine(void);
