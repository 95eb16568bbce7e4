#pragma once
/*
 * How well a network does on a part of the data: how often its top answer is the right one. Right
 * is the label; where the data's labels are not the network's classes, the top answer of another
 * network (the original), and the score is the agreement with that.
 */
#include "shared/data/preprocess.h"
#include "shared/nn/infer.h"

struct train_judge {
    const struct graph *network; /* as for inference; runs as it says (QDQ, hints) */
    struct preprocess pre;
};

enum judge_metric { JUDGE_NONE, JUDGE_TOP1, JUDGE_AGREEMENT };
const char *judge_metric_name(enum judge_metric metric); /* "top1", "agreement"; NULL: none */

/* Labels count when there is one class for each of the `width` answers, or when they are learned
 * from; else the judge (NULL: none); and where there is none, labels of fewer classes. */
enum judge_metric judge_metric_of(const struct train_judge *judge, const struct dataset *ds,
                                  int64_t width, bool labels_learned);

/* The right answers for a part, [*ret_n], malloc'ed. The judge is asked where the metric is
 * agreement, with the options' threads and progress. */
int judge_right(enum judge_metric metric, const struct train_judge *judge, const struct dataset *ds,
                enum part part, const struct infer_options *options, int32_t **ret, int64_t *ret_n,
                struct err *err);

/* The share of the part's samples, seen through `pre`, that g answers rightly. */
int judge_score(const struct graph *g, const struct dataset *ds, enum part part,
                const struct preprocess *pre, const struct infer_options *options,
                const int32_t *right, double *ret, struct err *err);
