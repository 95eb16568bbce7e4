#pragma once
/*
 * The control of a result: a plain smaller network, as somebody would write it by hand, that is as
 * fast as the student that was chosen and learned by the same recipe for as many epochs, from
 * labels alone. What the search, the teacher and the rungs earned is the difference.
 */
#include "services/cli/reproduce.h"

struct control {
    const struct reproduced *winner;
    yyjson_val *student; /* that it was */
    char design[96];
    int measured; /* designs that were, to find it */
    double us, winner_us, original_us;
    struct plain_run run;
    struct graph *quantized; /* what is compared */
    struct infer_metrics metrics;
    struct paired_drop drop;
    void *onnx;
    size_t bytes;
};
void control_release(struct control *control); /* for _cleanup_ */

/* Of a reproduction that is open: finds the design by measuring, trains it, quantizes it as a job
 * does, scores it on the test part and measures it beside the winner and the original.
 * FAILED_PRECONDITION where the original's architecture was chosen, or there are no labels;
 * NOT_FOUND where no plain network is as fast. */
int control_make(struct reproduce *r, struct control *ret, struct err *err);

/* "conv:16 residual:16*2 residual:32:s2*2 residual:64:s2*2 head" for width 16, depth 2; pictures of
 * 64 pixels and more begin with a stride. */
void control_design(int64_t width, int depth, int64_t side, char text[96]);
/* Which of the designs is it, of ratios of times to the winner's and products: of those within the
 * last tenth below the winner the one of most products, else the slowest; -1: none is as fast. */
int control_choose(const double *ratios, const int64_t *macs, int n);

/* control.json, malloc'ed. */
char *control_json(const struct reproduce *r, const struct control *c);
void control_print(const struct control *c);
