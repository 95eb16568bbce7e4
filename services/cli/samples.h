#pragma once
/* Data for eval and train: packed into a temporary file, with the preprocessing that the network
 * wants. */
#include "shared/data/preprocess.h"
#include "shared/nn/infer.h"

struct samples {
    uint64_t seed; /* of the split; set before samples_open */
    char *hash;   /* of the packed data goes here, [HASH_HEX_BYTES]; NULL: not wanted; set before */
    char *folder; /* temporary, while data is packed: then it is mapped, and the file gone */
    struct dataset *ds;
    struct dataset_report report;
    struct preprocess pre;
    char *pre_text;
    const char *pre_how; /* "given", "dataset.json", "of the network", "detected", ... */
};
void samples_release(struct samples *s); /* for _cleanup_ */

/* Packs the data at `path` for the network's input. `model`: its name in messages. */
int samples_open(struct samples *s, const char *path, const struct graph *g, const char *model,
                 int threads, struct err *err);
/* Sets pre: `given`, else what dataset.json says, else the network's metadata, else the usual
 * convention that fits best (shared/data/detect.h). */
int samples_preprocess(struct samples *s, const struct graph *g,
                       const struct infer_options *options, const char *given, struct err *err);
/* The same for a network that has not learned anything yet: in the end the mean and deviation of
 * the training part's channels. */
int samples_preprocess_new(struct samples *s, const struct graph *g, const char *given,
                           struct err *err);
/* Classes of the data, when they can be those of a network with so many outputs; else 0. */
int64_t samples_classes(const struct samples *s, int64_t width);
/* malloc'ed outputs of the network, [view->n][*ret_width]. */
int samples_run(const struct graph *g, const struct infer_options *options,
                const struct sample_view *view, float **ret_logits, int64_t *ret_width,
                struct err *err);
