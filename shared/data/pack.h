#pragma once
/*
 * Packing, between its files: pack.c (the door, the order of steps), pack_pictures.c and
 * pack_arrays.c (samples into slots), layout.c (names -> parts and classes), split.c (twins, test
 * and search parts), settings.c (dataset.json).
 */
#include <stdbool.h>
#include <stdint.h>

#include "shared/base/err.h"
#include "shared/data/dataset.h"
#include "shared/data/packed.h"

struct sample {
    char *name;    /* as in the source; NULL for arrays */
    char *problem; /* why it could not be read; NULL: it could */
    int64_t slot;
    uint64_t hash; /* of its bytes */
    int32_t label; /* -1: none */
    int8_t part;   /* enum part, or -1: left out */
    bool resized;
    int64_t twin_of; /* index of the first sample of the training part with the same pixels; -1 */
};

/* dataset.json beside or in the data. */
struct settings {
    char *preprocess;
    bool unlabelled;
    double search_fraction; /* 0: not given */
    bool final;             /* read beside the data: what lies in the data does not count */
};

struct pack {
    const char *path;
    const struct dataset_pack_options *options;
    struct dataset_limits limits;
    int64_t shape[3]; /* C, H, W */
    enum packed_kind kind;
    struct packed_writer writer;
    const char *out;
    struct settings settings;
    struct sample *samples;
    int64_t n, capacity; /* of samples */
    int64_t n_slots;
    bool saw_train, saw_test; /* a folder of that name is there, perhaps an empty one */
    struct dataset_report *report;
};

int pack_warn(struct pack *p, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends a sample (name taken over, may be NULL) and gives it the next slot. */
int pack_add(struct pack *p, char *name, struct err *err);
int pack_progress(struct pack *p, int64_t done, int64_t total, struct err *err);
int pack_open_writer(struct pack *p, enum packed_kind kind, struct err *err);
uint64_t pack_hash(const void *data, size_t bytes);

int pack_pictures(struct pack *p, struct err *err);
int pack_arrays(struct pack *p, struct err *err);
/* Whether the path holds arrays: .npy, .npz, or a folder with x_train.npy. */
bool pack_is_arrays(const char *path);

/* Samples in the order of their names, each name once; p->n becomes smaller than the slots. */
int layout_sort(struct pack *p, struct err *err);
/* Parts and labels from names. */
int layout_assign(struct pack *p, struct err *err);
/* Marks twins, reports duplicates. */
int split_find_twins(struct pack *p, struct err *err);
/* Splits a test part off if there is none, and the search part. */
int split_parts(struct pack *p, struct err *err);
/* Shares n out over groups in proportion to their sizes (largest remainders first), at most
 * sizes[g] each. */
int split_shares(const int64_t *sizes, int64_t n_groups, int64_t n, int64_t *ret_shares,
                 struct err *err);

/* text: dataset.json; `name` for messages. Unknown keys become warnings. */
#define SETTINGS_MAX_BYTES (1 << 20)
int settings_parse(struct pack *p, const char *text, size_t bytes, const char *name,
                   struct err *err);
/* PATH.dataset.json beside a file, if there. */
int settings_read_beside(struct pack *p, struct err *err);
