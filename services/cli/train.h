#pragma once
/*
 * What `hone train` does, behind its options (cmd_train.c): data and networks made ready, the
 * teacher's logits, the run, the file that comes out of it and its score.
 */
#include "services/cli/samples.h"
#include "shared/train/recipe.h"

struct train_request {
    const char *model, *data, *preprocess;
    const char *teacher, *teacher_preprocess, *teacher_cache;
    const char *out, *trunk, *checkpoint, *curve;
    const char *learn_from;
    struct recipe how;
    int64_t threads;
    bool resume, json;
    int argc; /* for the line that says how to go on */
    char **argv;
};

struct train_job {
    const struct train_request *q;
    struct recipe how;          /* q's, settled */
    struct graph *original, *g; /* as read; in training form */
    struct graph *teacher_graph, *trained;
    struct samples samples;
    struct preprocess teacher_pre;
    struct teacher *teacher;
    char *out, *checkpoint, *cache; /* files */
    char data_hash[65];
    char *identity;
    struct train_features features; /* pairs.n 0: none */
    struct train_judge judge;       /* the teacher */
    struct train_options options;
    struct train_result result;
    double teacher_rate; /* samples a second; 0: its logits were there */
    double score;        /* on the test part; NAN: without one */
    int64_t n_scored;
};
void train_job_release(struct train_job *job); /* for _cleanup_ */

/* Options -> networks, data, settings. Nothing is written yet but a temporary folder. */
int train_job_open(struct train_job *job, struct err *err);
/* The teacher's logits, where one was named. */
int train_job_teach(struct train_job *job, infer_progress *progress, void *ctx, struct err *err);
/* Runs, writes the network and its curve, scores it on the test part. CANCELLED as train_run. */
int train_job_run(struct train_job *job, struct err *err);
