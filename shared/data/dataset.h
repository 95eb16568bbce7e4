#pragma once
/*
 * Datasets: reading what users have, packing it once into an artifact, handing out samples.
 *
 * Sources: a folder or an archive (tar, zip; plain, gzip, bzip2, xz, zstd) with train/<class>/NAME
 * and test/<class>/NAME, pictures ending in .png, .jpg or .jpeg; one more folder around all of it
 * does no harm. Classes in byte order are labels 0, 1, ... A val/ part serves the search, or as the
 * test part where there is none. Without a test part a fifth of the training part is split off.
 * Pictures without class folders have no labels. Arrays: .npz with x_train, y_train, x_test, y_test
 * (y optional), a folder of x_train.npy, ..., or one .npy (x_train). Pictures are decoded in
 * threads, resized (short side, bilinear with area averaging) and centre-cropped to the network's
 * input, and kept as u8, as uint8 arrays are; other arrays are kept as f32. dataset.json in the
 * data, or FILE.dataset.json beside an archive, may hold "preprocess", "labels": false,
 * "search_fraction". docs/DATA.md describes all this for users.
 *
 * Packed file: a header, samples as planes [C,H,W] (u8, RGB) or f32, labels, names of classes;
 * mapped when read. Thread-safe for reading.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"

enum part { PART_TRAIN, PART_SEARCH, PART_TEST, PART_COUNT };
const char *part_name(enum part part); /* "train", "search", "test" */
int part_parse(const char *text, enum part *ret, struct err *err);

struct dataset_limits {
    int64_t max_samples;        /* 10,000,000 */
    int64_t max_picture_pixels; /* 100,000,000: of one picture, before resizing */
    int64_t max_picture_bytes;  /* 64 MiB, encoded */
    int64_t max_bytes;          /* of the packed file: 64 GiB */
};
extern const struct dataset_limits dataset_default_limits;

struct dataset_pack_options {
    int64_t sample_shape[3]; /* C, H, W that the network takes; from its input */
    int sample_rank;         /* 3 for pictures; arrays: any rank up to 3 whose product fits */
    double search_fraction;  /* of the training part, stratified; 0: 0.1 */
    int64_t search_max;      /* 0: 5000 */
    uint64_t seed;           /* of the split */
    int threads;
    const struct dataset_limits *limits; /* NULL: default */
    /* Progress and cancellation: a negative return stops. Called by the caller's thread; `total` is
     * an estimate where an archive does not tell. */
    int (*progress)(void *ctx, int64_t done, int64_t total, struct err *err);
    void *progress_ctx;
};

/* What packing noticed. Strings malloc'ed; dataset_report_release frees. */
struct dataset_report {
    int64_t n[PART_COUNT];
    int n_classes;
    char **classes; /* alphabetical */
    bool labelled;
    int64_t unreadable;        /* pictures left out */
    int64_t duplicates;        /* test samples whose pixels are also in train or search */
    int64_t duplicates_within; /* equal samples within the training part */
    int64_t conflicting;       /* samples that are equal to one with another label */
    int64_t resized;
    char *preprocess; /* from dataset.json, or NULL */
    int n_warnings;
    char **warnings; /* sentences for people, the first few bad files named */
};
void dataset_report_release(struct dataset_report *report);

/* Reads the source at `path` and writes the packed file to `out`. The same source and options give
 * the same bytes. Too many unreadable pictures (more than a tenth), one class only, an empty part,
 * arrays of the wrong shape, labels outside 0..: INVALID_ARGUMENT with one clear sentence. */
int dataset_pack(const char *path, const struct dataset_pack_options *options, const char *out,
                 struct dataset_report *report, struct err *err);
/* SHA-256 over the source as it stands: of a file its own (with FILE.dataset.json, where that is
 * there, of both), of a folder over sorted names, sizes and contents. Quick, even for gigabytes. */
int dataset_source_hash(const char *path, char ret_hex[65], struct err *err);

struct dataset; /* a packed file, mapped */
int dataset_open(const char *path, struct dataset **ret, struct err *err);
struct dataset *dataset_close(struct dataset *ds); /* NULL-safe, returns NULL */
void dataset_closep(struct dataset **ds);
/* From here on the search part belongs to the training part, behind it. For a last training run,
 * with all decisions taken: nothing is left to look at then but the test part. */
void dataset_join_search(struct dataset *ds);
int64_t dataset_count(const struct dataset *ds, enum part part);
int dataset_classes(const struct dataset *ds); /* 0: no labels */
const char *dataset_class_name(const struct dataset *ds, int label);
bool dataset_is_picture(const struct dataset *ds); /* u8 RGB planes */
/* -> C, H, W (1s in front for lower ranks). */
void dataset_sample_shape(const struct dataset *ds, int64_t ret[3]);
const int32_t *dataset_labels(const struct dataset *ds, enum part part); /* NULL: none */
/* Raw sample i of the part: u8 planes or f32. */
const uint8_t *dataset_u8(const struct dataset *ds, enum part part, int64_t i);
const float *dataset_f32(const struct dataset *ds, enum part part, int64_t i);
