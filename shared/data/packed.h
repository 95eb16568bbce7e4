#pragma once
/*
 * The packed file: one header, samples of all parts (train, search, test) behind one another, each
 * part in the order of its names, then labels and names of classes. Little-endian. Described for
 * users in docs/DATA.md.
 *
 * While packing, samples are written in the order in which they arrive (their slot); at the end
 * they are brought into their final order in place, so that neither memory nor a second file is
 * needed and the bytes do not depend on which thread was quicker.
 */
#include <stdint.h>

#include "shared/base/err.h"
#include "shared/data/dataset.h"

#define PACKED_MAGIC "HONEDATA"
#define PACKED_VERSION 1
#define PACKED_SAMPLES_AT 4096
#define PACKED_MAX_CLASSES 1000000
#define PACKED_MAX_DIM 65536

enum packed_kind { PACKED_U8 = 0, PACKED_F32 = 1 };

struct packed_header {
    char magic[8];
    uint32_t version;
    uint32_t kind;
    int64_t shape[3]; /* C, H, W */
    int64_t n[PART_COUNT];
    int64_t n_classes;  /* 0: no labels */
    int64_t samples_at; /* offsets from the start of the file */
    int64_t labels_at;  /* int32, all parts; 0 without labels */
    int64_t names_at;   /* zero-terminated, n_classes of them */
    int64_t file_bytes;
};

struct packed_writer {
    int fd;
    char *temp; /* name of the file while it grows */
    int64_t sample_bytes, max_bytes;
};
int packed_writer_open(struct packed_writer *w, const char *out, int64_t sample_bytes,
                       int64_t max_bytes, struct err *err);
/* Thread-safe. */
int packed_writer_put(struct packed_writer *w, int64_t slot, const void *sample, struct err *err);
int packed_writer_get(const struct packed_writer *w, int64_t slot, void *sample, struct err *err);
/* The sample in slot order[i] goes to place i, for i < n; slots that are not in order are lost. */
int packed_writer_arrange(struct packed_writer *w, const int64_t *order, int64_t n, int64_t n_slots,
                          struct err *err);
/* Cuts the file behind its samples, adds labels and names, fsyncs and renames to `out`. */
int packed_writer_finish(struct packed_writer *w, struct packed_header *header,
                         const int32_t *labels, char *const *classes, const char *out,
                         struct err *err);
/* Removes what is unfinished; for _cleanup_. */
void packed_writer_release(struct packed_writer *w);
