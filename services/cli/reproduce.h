#pragma once
/*
 * What `hone reproduce` does: each number of a manifest is found again, from the files that lie
 * beside it, the original and the data. What is found goes into `findings`; an error is only what
 * keeps from looking.
 */
#include "services/cli/findings.h"
#include "services/cli/manifest.h"
#include "services/cli/samples.h"
#include "shared/nn/quantize.h"

struct reproduce_request {
    const char *manifest, *model, *data; /* NULL: where the manifest says */
    int64_t threads;
    double seconds;      /* of measuring, for each network in each engine; 0: times are left out */
    const char *student; /* the only one that is trained again; NULL: all */
    bool retrain, control, json;
};

/* A network that the manifest has numbers of. */
struct reproduced {
    yyjson_val *entry; /* in the manifest */
    const char *name;
    void *onnx; /* the file; NULL: it was not delivered, or is not there */
    size_t bytes;
    struct graph *g; /* as it is in the file */
    bool scored;     /* on the test part, by our kernels */
};
struct reproduce {
    const struct reproduce_request *q;
    struct manifest manifest;
    struct findings findings;
    struct samples samples;
    struct reproduced *networks; /* [0]: the original, simplified */
    int n;
    bool same_machine; /* CPU, instructions and library are those of the manifest */
};
void reproduce_release(struct reproduce *r); /* for _cleanup_ */

/* The manifest, the original, the data, the networks; what their hashes say. */
int reproduce_open(struct reproduce *r, const struct reproduce_request *q, struct err *err);
/* Whether the text is a design (shared/design), and so all of a network but its weights; else it
 * says which of the original's blocks others stand for. */
bool reproduce_is_design(const char *text);
/* Bytes, products and parameters. */
int reproduce_costs(struct reproduce *r, struct err *err);
/* Every accuracy on the test part and on the search part, with the drop and its bound. */
int reproduce_accuracies(struct reproduce *r, struct err *err);

/* A network on a part of the data, against the original. */
int reproduce_score(struct reproduce *r, const struct graph *g, enum part part,
                    struct infer_metrics *ret_metrics, struct paired_drop *ret_drop,
                    struct err *err);
/* The network that was chosen; NULL: the original. */
const struct reproduced *reproduce_chosen(const struct reproduce *r);

/* ---- reproduce_builds.c ---- */
/* The networks of the original's architecture are built again, and stand in for files that were not
 * delivered. */
int reproduce_builds(struct reproduce *r, struct err *err);
/* The network is built again from `parent`, in float, and compared by its hash. */
int reproduce_build(struct reproduce *r, struct reproduced *network, const struct graph *parent,
                    const struct quant_ranges *ranges, struct err *err);

/* ---- reproduce_times.c ---- */
/* All networks take turns, on each engine on which they were timed. */
int reproduce_times(struct reproduce *r, struct err *err);

/* ---- reproduce_training.c ---- */
/* Each run of each student, from the weights that it began with. */
int reproduce_training(struct reproduce *r, struct err *err);
/* What comes out when a design learns as a student of the manifest did in its first run, but from
 * labels alone, in one run of as many epochs as that had in all. The graph is the caller's. */
struct plain_run {
    struct graph *g; /* in float, norms folded */
    int epochs;
    double seconds, search_accuracy;
};
int reproduce_train_plain(struct reproduce *r, const char *design, yyjson_val *student,
                          struct plain_run *ret, struct err *err);
