#pragma once
/*
 * What a teacher computes on its way to its answers, for students that learn from that, too: values
 * of the teacher at chosen places, each beside a value of the student that shall resemble it.
 *
 * Such values are too large to be kept like answers (teacher.h): the teacher runs along, on the
 * very views that the student sees, in the thread that makes the batches.
 */
#include "shared/data/preprocess.h"
#include "shared/nn/plan.h"
#include "shared/train/loss.h"

enum { FEATURES_MAX = 16 };

struct feature_pair {
    const char *teacher, *student; /* values, by name; the graphs' */
    struct loss_features shape;
};
struct feature_pairs {
    int n;
    struct feature_pair pairs[FEATURES_MAX];
};
/* `text`: "a=b,c=d", values of the teacher and of the student; or "auto": at the last cut point of
 * each shape that both have (graph_cuts; maps of more than one pixel, the answers left out).
 * INVALID_ARGUMENT for shapes that do not go together (attention only needs maps of the same size),
 * NOT_FOUND for other names, with the cut points that there are. */
int feature_pairs_find(const struct graph *teacher, const struct graph *student, const char *text,
                       enum loss_feature_kind kind, struct feature_pairs *ret, struct err *err);
/* malloc'ed "a=b [8,12,12], c=d [16,6,6]": for people and for hashes; NULL when memory is out. */
char *feature_pairs_text(const struct feature_pairs *pairs);

/* The teacher up to the pairs' values. One thread at a time. */
struct features;
struct features_options {
    int64_t batch, sample; /* sample: floats of one */
    int threads;
    enum precision precision;
};
int features_open(const struct graph *teacher, const struct feature_pairs *pairs,
                  const struct features_options *options, struct features **ret, struct err *err);
struct features *features_close(struct features *f); /* NULL-safe, returns NULL */
void features_closep(struct features **f);
/* x: [batch, the teacher's input]. to[k]: [batch, values of pair k], dense. The same numbers every
 * time, on the same machine. */
int features_run(struct features *f, const float *x, float *const *to, struct err *err);
