#pragma once
/*
 * Finding how pixels become a network's input, when nobody says: the usual conventions are tried on
 * a few hundred training pictures. Judged by the likelihood of the labels where they are the
 * network's classes, else by how much the network's answers tell about the class folders (mutual
 * information): a network that sees what it was trained on tells them apart better.
 *
 * The network comes as a callback, for this floor does not compute.
 */
#include "shared/data/preprocess.h"

struct detect_network {
    int64_t width; /* outputs for one sample */
    /* Fills ret_logits, [view->n, width]. */
    int (*run)(void *ctx, struct sample_view *view, float *ret_logits, struct err *err);
    /* May be NULL. stage: "find the preprocessing", ... A negative return stops. */
    int (*progress)(void *ctx, const char *stage, int64_t done, int64_t total, struct err *err);
    void *ctx;
};

struct detection {
    struct preprocess pre;
    const char *name;   /* of the convention */
    double score, next; /* of it, and of the best one that differs */
    const char *by;     /* "accuracy", "mutual information"; NULL: nothing had to be found */
};

/* by_labels: the data's classes are the network's outputs. FAILED_PRECONDITION, with the best
 * conventions and their figures, where none is clear. Arrays: the identity. */
int detect_preprocess(const struct dataset *ds, const struct detect_network *network,
                      bool by_labels, struct detection *ret, struct err *err);
