#pragma once
/*
 * Inference plans: a network compiled once for (batch, threads, precision) and run many times.
 *
 * Compilation lowers the graph to steps: fused oneDNN primitives (convolution + bias + activation +
 * residual sum + requantization), packed constant weights, blocked layouts kept between layers, one
 * arena for all activations; running allocates nothing. Where several implementations can run a
 * layer, the fastest measured one is kept and its name recorded. QDQ in the graph becomes integer
 * arithmetic: a Conv or Gemm whose data input and weights come from DequantizeLinear runs in u8s8,
 * operators that do not compute (Slice, Pad, Concat, MaxPool, Reshape, ...) between equal
 * quantizations run on the 8-bit values, and input conversion and output dequantization are steps
 * like any other. Operators without a oneDNN primitive run in plain C.
 *
 * A *layer* is what is fused into one step; it carries the name of its main node (the Conv, Gemm,
 * pool, ...), which is the same in every precision.
 *
 * With several threads, a batch of at least as many samples is shared out: each thread carries its
 * part through the whole network (where samples do not meet); steps and their times are then those
 * of the first share. A smaller batch has all threads on each layer.
 *
 * A plan is used by one thread at a time; different plans are independent. Compile one per stream.
 */
#include "shared/graph/graph.h"

struct plan;

/* The first input given as pictures of bytes, 1 to 4 channels: channel c of the network's input is
 * real[256 * c + b], b being the byte of the picture's channel from[c]. Where the network begins
 * with QuantizeLinear, that is folded in, with the same result bit for bit. */
struct plan_pictures {
    bool last; /* [N, H, W, C]; else [N, C, H, W] */
    int channels;
    const float *real; /* [channels, 256] */
    uint8_t from[4];
};

struct plan_options {
    int64_t batch;            /* 0: 1 */
    int threads;              /* of one run (OpenMP); 0: 1 */
    enum precision precision; /* AUTO: as the graph says (QDQ: int8, hints: bf16, else fp32);
                                 FP32: hints ignored; BF16: every layer that can */
    const struct plan_pictures *pictures; /* read while compiling; NULL: the file's own input */
    bool reference;                       /* plain C only (shared/graph/eval.h) */
    bool no_fusion;                       /* tests: each node a step of its own */
    bool one_lane;              /* all threads on each layer also where the batch could be shared */
    bool choose_by_name;        /* take the library's first implementation, measure nothing */
    const char *implementation; /* tests: force the implementations whose name contains this, where
                                   a layer has one; "NAME@LAYOUT": those that write it ("last") */
};

int plan_compile(const struct graph *g, const struct plan_options *options, struct plan **ret,
                 struct err *err);
struct plan *plan_free(struct plan *plan); /* NULL-safe, returns NULL */
void plan_freep(struct plan **plan);

/* inputs[i], outputs[i]: dense row-major buffers of the graph's types and shapes at the plan's
 * batch, in the graph's order; owned by the caller. */
int plan_run(struct plan *plan, const void *const *inputs, void *const *outputs, struct err *err);

struct plan_port {
    const char *name;
    enum dtype dtype;
    struct shape shape; /* at the plan's batch */
    size_t bytes;
};
int plan_n_inputs(const struct plan *plan);
int plan_n_outputs(const struct plan *plan);
const struct plan_port *plan_input(const struct plan *plan, int i);
const struct plan_port *plan_output(const struct plan *plan, int i);

enum step_kind { STEP_COMPUTE, STEP_CONVERT /* layout, precision, input and output conversion */ };

struct plan_step {
    const char *layer; /* name of the main node; of a conversion: the value's name */
    const char *op;    /* "Conv", "Gemm", "convert", ... */
    enum step_kind kind;
    enum precision precision;   /* of the arithmetic: FP32, BF16, INT8 */
    enum precision from, to;    /* of a conversion */
    const char *implementation; /* "jit:avx512_core_vnni", "reference", ... */
    const char *fused;          /* what was fused: "bias+sum+relu", "" */
    const char *signature;      /* key of the latency table: op, shapes, attributes, fusion,
                                   precision and layouts; the same for equal work anywhere */
    int64_t macs;               /* at the batch that the step sees */
};
int plan_n_steps(const struct plan *plan);
const struct plan_step *plan_step(const struct plan *plan, int i);
/* As plan_run; ret_ns[i] is the time of step i (adds some 50 ns to each). */
int plan_run_timed(struct plan *plan, const void *const *inputs, void *const *outputs,
                   int64_t *ret_ns, struct err *err);
size_t plan_memory(const struct plan *plan); /* bytes: arena and packed weights */

/* ---- the machine ---- */
/* Holds oneDNN to an ISA ("avx2", "avx512_core", "avx512_core_vnni", "avx512_core_bf16", ...; NULL
 * or "": all that the CPU has). Once per process, before the first plan and before any other
 * function of this section: asking for the ISA fixes it. */
int nn_limit_isa(const char *isa, struct err *err);
const char *nn_isa(void);     /* in force: "avx512_core_vnni" */
const char *nn_cpu(void);     /* "Intel(R) Xeon(R) Processor @ 2.50GHz" */
bool nn_has_bf16(void);       /* arithmetic, not emulation */
bool nn_has_int8(void);       /* VNNI: 8-bit dot products without saturation */
const char *nn_version(void); /* "oneDNN 3.7.2" */
