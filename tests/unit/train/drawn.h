#pragma once
/* A data set that a small network learns in seconds, drawn by seed: a bright bar on noise, at one
 * of four angles; and networks for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/rng.h"
#include "shared/data/preprocess.h"
#include "shared/train/unfold.h"
#include "tests/support/quant_nets.h"

enum { DRAWN_SIDE = 12, DRAWN_WIDTH = 3 * DRAWN_SIDE * DRAWN_SIDE, DRAWN_CLASSES = 4 };
enum { DRAWN_TRAIN = 480, DRAWN_TEST = 120 }; /* 48 of train are search */

#define OK(call)                                                                                   \
    ({                                                                                             \
        struct err ok_err = {0};                                                                   \
        struct err *err = &ok_err;                                                                 \
        const int ok_rc = (call);                                                                  \
        if (ok_rc < 0)                                                                             \
            fail_msg("%s: %s", #call, ok_err.message);                                             \
        ok_rc;                                                                                     \
    })

struct drawn {
    char folder[64];
    struct dataset *ds;
    struct preprocess pre;
};

static inline const char *drawn_path(const struct drawn *d, const char *name)
{
    static char paths[4][160];
    static int at;
    char *path = paths[at++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", d->folder, name);
    return path;
}

static inline void drawn_npy(const char *path, const char *type, const char *shape,
                             const void *data, size_t bytes)
{
    char header[128];
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    memset(header, ' ', sizeof(header));
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n = snprintf(header + 10, sizeof(header) - 10,
                     "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", type, shape);
    header[10 + n] = ' ';
    header[127] = '\n';
    assert_int_equal(fwrite(header, 1, sizeof(header), f), sizeof(header));
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

/* Class 0: level, 1: upright, 2 and 3: the diagonals. A flip swaps 2 and 3: flips do harm here. */
static inline void drawn_picture(uint8_t *to, int class, struct rng *rng)
{
    const int s = DRAWN_SIDE, off = (int)rng_below(rng, 7) - 3;
    for (int i = 0; i < DRAWN_WIDTH; i++)
        to[i] = (uint8_t)rng_below(rng, 130);
    for (int k = 1; k < s - 1; k++) {
        const int y = class == 0 ? s / 2 + off : k;
        int x = class == 1 ? s / 2 + off : class == 3 ? s - 1 - k + off : k;
        x += class == 2 ? off : 0;
        if (x < 0 || x >= s)
            continue;
        for (int c = 0; c < 3; c++)
            to[(c * s + y) * s + x] = (uint8_t)(120 + rng_below(rng, 120));
    }
}

static inline void drawn_part(const struct drawn *d, const char *part, int n, uint64_t seed)
{
    uint8_t *x = malloc((size_t)n * DRAWN_WIDTH);
    int32_t *y = malloc((size_t)n * sizeof(*y));
    char name[64], shape[64];
    struct rng rng;
    rng_seed(&rng, seed);
    for (int i = 0; i < n; i++) {
        y[i] = i % DRAWN_CLASSES;
        drawn_picture(x + (size_t)i * DRAWN_WIDTH, y[i], &rng);
    }
    snprintf(name, sizeof(name), "x_%s.npy", part);
    snprintf(shape, sizeof(shape), "(%d, 3, %d, %d)", n, DRAWN_SIDE, DRAWN_SIDE);
    drawn_npy(drawn_path(d, name), "|u1", shape, x, (size_t)n * DRAWN_WIDTH);
    snprintf(name, sizeof(name), "y_%s.npy", part);
    snprintf(shape, sizeof(shape), "(%d,)", n);
    drawn_npy(drawn_path(d, name), "<i4", shape, y, (size_t)n * sizeof(*y));
    free(x);
    free(y);
}

static inline void drawn_open(struct drawn *d)
{
    const char *top = getenv("TMPDIR");
    const struct dataset_pack_options options = {
        .sample_shape = {3, DRAWN_SIDE, DRAWN_SIDE}, .sample_rank = 3, .seed = 1, .threads = 2};
    struct dataset_report report = {0};
    memset(d, 0, sizeof(*d));
    snprintf(d->folder, sizeof(d->folder), "%.40s/train.XXXXXX", top ? top : "/tmp");
    assert_non_null(mkdtemp(d->folder));
    OK(fs_mkdirs(drawn_path(d, "data"), err));
    struct drawn inside = *d;
    snprintf(inside.folder, sizeof(inside.folder), "%.50s/data", d->folder);
    drawn_part(&inside, "train", DRAWN_TRAIN, 1);
    drawn_part(&inside, "test", DRAWN_TEST, 2);
    OK(dataset_pack(drawn_path(d, "data"), &options, drawn_path(d, "packed"), &report, err));
    OK(dataset_open(drawn_path(d, "packed"), &d->ds, err));
    OK(preprocess_parse("mean=80 std=60", &d->pre, err));
    dataset_report_release(&report);
}

static inline void drawn_close(struct drawn *d)
{
    dataset_close(d->ds);
    fs_remove_tree(d->folder, NULL);
}

/* stem, one residual block, a step down, global pool, classifier; new weights by seed, norms in. */
static inline struct graph *drawn_network_of(int width, int outputs, uint64_t seed)
{
    const int64_t dims[] = {DIM_BATCH, 3, DRAWN_SIDE, DRAWN_SIDE}, w = width;
    struct net net;
    struct graph *g = NULL;
    net_init(&net, 3);
    int x = net_unary(&net, OP_RELU, "relu0",
                      net_conv(&net, "stem", net_input(&net, "input", 4, dims),
                               &(struct net_conv){.in = 3, .out = w, .kernel = 3}));
    int y =
        net_unary(&net, OP_RELU, "relu1",
                  net_conv(&net, "body1", x, &(struct net_conv){.in = w, .out = w, .kernel = 3}));
    y = net_conv(&net, "body2", y, &(struct net_conv){.in = w, .out = w, .kernel = 3});
    x = net_unary(&net, OP_RELU, "relu2", net_add(&net, "add", x, y));
    x = net_unary(&net, OP_RELU, "relu3",
                  net_conv(&net, "down", x,
                           &(struct net_conv){.in = w, .out = 2 * w, .kernel = 3, .stride = 2}));
    x = net_unary(&net, OP_FLATTEN, "flat", net_unary(&net, OP_GLOBAL_AVERAGE_POOL, "gap", x));
    net_finish(&net, net_gemm(&net, "answer", x, 2 * w, outputs, true));
    OK(graph_clone(net.g, &g, err));
    net_release(&net);
    OK(unfold_batchnorm(g, NULL, 0, NULL, NULL, err));
    OK(reinit_weights(g, &(struct reinit_options){.seed = seed}, err));
    return g;
}

static inline struct graph *drawn_network(int width, uint64_t seed)
{
    return drawn_network_of(width, DRAWN_CLASSES, seed);
}

/* Share of the part that the network gets right, norms folded or not. */
static inline double drawn_score(const struct drawn *d, const struct graph *g, enum part part)
{
    struct sample_view view;
    struct infer_metrics metrics;
    int32_t *labels = NULL;
    OK(sample_view_init(&view, d->ds, part, &d->pre, 0, 0, err));
    OK(sample_view_labels(&view, &labels, err));
    float *logits = mem_calloc((size_t)view.n, DRAWN_CLASSES * sizeof(*logits));
    OK(infer_run(g, &(struct infer_options){.threads = 2}, view.n, sample_view_fill, &view, logits,
                 err));
    infer_metrics(logits, NULL, labels, view.n, DRAWN_CLASSES, &metrics);
    free(logits);
    free(labels);
    sample_view_release(&view);
    return metrics.top1;
}
