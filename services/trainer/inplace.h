#pragma once
/*
 * How much an alternative hurts: put into the whole network, its layers in each precision,
 * KL(original
 * || network with it) on the answers to real samples. What comes before it is the original, which
 * runs once up to there; only what lies behind runs again.
 */
#include "shared/nn/quantize.h"

#define INPLACE_PRECISIONS 3

struct inplace_part {
    const char *from, *to;       /* cut points of the network */
    const struct graph *network; /* in float; NULL: what comes in goes on */
    /* What comes out; NAN: it cannot run so. */
    double kl[INPLACE_PRECISIONS];
    double agreement[INPLACE_PRECISIONS]; /* share of samples with the original's top answer */
    struct err why;                       /* code 0, or why it cannot stand there */
};

struct inplace_options {
    int threads;
    int64_t n; /* samples */
    infer_fill *fill;
    void *fill_ctx;
    const enum precision *precisions;
    int n_precisions;         /* at most INPLACE_PRECISIONS */
    int weight_bits;          /* as in quant_options */
    infer_progress *progress; /* in parts, also within them; a negative return stops */
    void *progress_ctx;
};

/* What cannot stand in its place says why in its own entry, and has no scores. The list is best
 * sorted by where its parts begin, in the network's order: then nothing runs twice. */
int inplace_score(const struct graph *network, const struct inplace_options *options,
                  struct inplace_part *list, int n, struct err *err);
