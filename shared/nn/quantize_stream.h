#pragma once
/*
 * Samples through a graph in small batches, on several threads, with the outputs handed on instead
 * of kept: what calibration, bias correction and scoring have in common. Unlike infer_run
 * (shared/nn/infer.h) it takes all outputs, of any type, and inputs that are in 8 bits.
 */
#include "shared/nn/infer.h"

/* Fills `count` samples of the graph's only input, in its own type. */
typedef int quant_fill(void *ctx, int64_t first, int64_t count, void *out, struct err *err);
/* Takes the outputs of `count` samples (dense; buffers have room for the batch). Called from
 * several threads; worker: 0 .. threads - 1. */
typedef int quant_take(void *ctx, int worker, int64_t first, int64_t count, const void *input,
                       void *const *outputs, struct err *err);

struct quant_stream {
    const struct graph *graph; /* one input */
    int64_t n;
    int threads;   /* 0: all processors */
    int64_t batch; /* 0: chosen, so that the outputs of one batch stay small */
    enum precision precision;
    quant_fill *fill;
    void *fill_ctx;
    quant_take *take;
    void *take_ctx;
    infer_progress *progress; /* as in infer_options; counts from `done` to done + n of `total` */
    void *progress_ctx;
    int64_t done, total;
};
/* How many samples are one piece of work: batches that one thread takes in order. The same for any
 * number of threads, and at most QUANT_PIECES_MAX pieces: who adds up per piece and then piece by
 * piece gets the same sum every time. 0 where the graph has not one input. */
#define QUANT_PIECES_MAX 64
int64_t quant_stream_piece(const struct quant_stream *stream);
/* Runs n samples through a graph in small batches on several threads. */
int quant_stream_run(const struct quant_stream *stream, struct err *err);
