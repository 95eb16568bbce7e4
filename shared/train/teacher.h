#pragma once
/*
 * The teacher's answers, paid for once (docs/DESIGN.md, section 4): the logits of a network for K
 * augmented views of every training sample, as a file. Whoever trains with the same augmentation
 * and seed sees in epoch e the pictures of view e mod K, and reads what the teacher said about
 * exactly those. The teacher may run in int8 or bf16, and with a preprocessing of its own: views do
 * not depend on it (shared/data/augment.h).
 *
 * The file, little-endian: a header of 4096 bytes, then [views][samples][width] f16 or f32. While
 * it grows it is called FILE.part, and a build that was stopped goes on where it was. Two that
 * build the same file do so one after the other.
 */
#include "shared/data/augment.h"
#include "shared/nn/infer.h"

struct teacher_options {
    int views;        /* K */
    enum dtype dtype; /* F16 (0 also) or F32 */
    const char *data; /* what tells this data from other data: its hash */
    int threads;      /* 0: all processors */
    int64_t batch;    /* of inference; 0: chosen */
    enum precision precision;
    infer_progress
        *progress; /* over views * samples; a negative return stops, and keeps the part */
    void *progress_ctx;
};

/* The logits of `g` (its answers before a final Softmax) for the views of the augmenter's part,
 * into the file at `path`. *ret_rate (may be NULL): samples a second of what was computed now; 0
 * when nothing was left to do. A file that is there already and was made from the same things is
 * kept as it is; another one is replaced. */
int teacher_build(const struct graph *g, const struct augmenter *views,
                  const struct teacher_options *options, const char *path, double *ret_rate,
                  struct err *err);

struct teacher; /* a file, mapped; reading is thread-safe */
/* DATA_LOSS when the file is none of these, cut short, or not what was written (its SHA-256 is
 * checked). */
int teacher_open(const char *path, struct teacher **ret, struct err *err);
struct teacher *teacher_close(struct teacher *t); /* NULL-safe, returns NULL */
void teacher_closep(struct teacher **t);
int teacher_views(const struct teacher *t);
int64_t teacher_samples(const struct teacher *t);
int64_t teacher_width(const struct teacher *t);
/* SHA-256 of what the views are of: compare with teacher_views_key. */
const char *teacher_key(const struct teacher *t);
/* SHA-256 of who answers: the network, what it is fed and how it computes. */
const char *teacher_network(const struct teacher *t);
void teacher_logits(const struct teacher *t, int64_t view, int64_t sample, float *ret);

/* The key of who answers: the network together with what it is fed and how it computes. */
int teacher_network_key(const struct graph *g, const struct preprocess *pre,
                        enum precision precision, char ret[65], struct err *err);

/* The key of views: of the data (as in teacher_options), the part, augmentation and seed. */
int teacher_views_key(const struct augmenter *views, const char *data, char ret[65],
                      struct err *err);
