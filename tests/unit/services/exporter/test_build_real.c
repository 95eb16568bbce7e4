/* ResNet-20 on CIFAR-10 in plain int8, on our kernels and on ONNX Runtime, where the data is there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/data/picture.h"
#include "shared/data/preprocess.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/nn/ort.h"
#include "shared/nn/quantize.h"

enum { TRAIN = 500, TEST = 2000, PIXELS = 3072, CLASSES = 10 };

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err ok_err = {0};                                                                   \
        struct err *err = &ok_err;                                                                 \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, ok_err.message);                                             \
    } while (0)

static char data_folder[512];

static struct {
    uint8_t train[TRAIN][PIXELS], test[TEST][PIXELS];
    int32_t labels[TEST];
    int n_train, n_test;
    struct preprocess pre;
} *cifar;

/* ---- data: pictures evenly spread over the tar ---- */

static int class_of(const char *name)
{
    static const char *const classes[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                          "dog",      "frog",       "horse", "ship", "truck"};
    for (int i = 0; i < CLASSES; i++)
        if (str_starts_with(name, classes[i]))
            return i;
    fail_msg("class of %s", name);
    return -1;
}

static void decode(const uint8_t *data, size_t bytes, uint8_t *planes)
{
    static struct picture pic;
    OK(picture_decode(&pic, data, bytes, &dataset_default_limits, err));
    assert_true(pic.width == 32 && pic.height == 32);
    for (int i = 0; i < PIXELS; i++)
        planes[i] = pic.rgb[i % 1024 * 3 + i / 1024];
}

static void read_tar(const struct fs_map *map)
{
    int seen_train = 0, seen_test = 0;
    for (size_t at = 0; at + 512 < map->bytes;) {
        const char *head = (const char *)map->data + at;
        size_t bytes = 0; /* eleven octal digits */
        for (int k = 0; k < 11; k++)
            bytes = bytes * 8 + (size_t)(head[124 + k] - '0');
        const uint8_t *data = (const uint8_t *)head + 512;
        if (head[156] == '0' && str_starts_with(head, "train/") && cifar->n_train < TRAIN &&
            seen_train++ % 97 == 0)
            decode(data, bytes, cifar->train[cifar->n_train++]);
        if (head[156] == '0' && str_starts_with(head, "test/") && cifar->n_test < TEST &&
            seen_test++ % 5 == 0) {
            cifar->labels[cifar->n_test] = class_of(head + strlen("test/"));
            decode(data, bytes, cifar->test[cifar->n_test++]);
        }
        at += 512 + (bytes + 511) / 512 * 512;
    }
    assert_int_equal(cifar->n_test, TEST);
    assert_int_equal(cifar->n_train, TRAIN);
}

static int begin(void **state)
{
    (void)state;
    const char *given = getenv("HONE_DATA");
    snprintf(data_folder, sizeof(data_folder), "%s",
             given ? given : HONE_SOURCE_DIR "/../shared/data");
    char path[600];
    snprintf(path, sizeof(path), "%s/cifar10.tar", data_folder);
    if (!fs_exists(path))
        return 0;
    _cleanup_(fs_unmap) struct fs_map map = {0};
    cifar = calloc(1, sizeof(*cifar));
    OK(fs_map(path, &map, err));
    OK(preprocess_parse("scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225 order=rgb",
                        &cifar->pre, err));
    read_tar(&map);
    return 0;
}

static int end(void **state)
{
    (void)state;
    free(cifar);
    return 0;
}

static void fill_from(const uint8_t (*pictures)[PIXELS], int64_t first, int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++)
        for (int k = 0; k < PIXELS; k++)
            out[i * PIXELS + k] =
                (float)((pictures[first + i][k] * cifar->pre.scale - cifar->pre.mean[k / 1024]) /
                        cifar->pre.std[k / 1024]);
}

static int fill_train(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)ctx;
    (void)err;
    fill_from((const uint8_t(*)[PIXELS])cifar->train, first, count, out);
    return 0;
}

static int fill_test(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)ctx;
    (void)err;
    fill_from((const uint8_t(*)[PIXELS])cifar->test, first, count, out);
    return 0;
}

/* ---- accuracy ---- */

static double top1_of(const float *logits)
{
    struct infer_metrics m;
    infer_metrics(logits, NULL, cifar->labels, TEST, CLASSES, &m);
    return m.top1;
}

static double top1_here(const struct graph *g)
{
    static float logits[TEST * CLASSES];
    const struct infer_options options = {.threads = 2};
    OK(infer_run(g, &options, TEST, fill_test, NULL, logits, err));
    return top1_of(logits);
}

static double top1_on_ort(const struct graph *g)
{
    static float logits[TEST * CLASSES], in[50 * PIXELS];
    _cleanup_(freep) void *file = NULL;
    _cleanup_(ort_closep) struct ort *ort = NULL;
    size_t bytes;
    OK(onnx_write_bytes(g, &file, &bytes, err));
    OK(ort_open(file, bytes, 1, &ort, err));
    for (int i = 0; i < TEST; i += 50) {
        OK(fill_test(NULL, i, 50, in, err));
        OK(ort_run(ort, 50, in, logits + i * CLASSES, CLASSES, err));
    }
    return top1_of(logits);
}

static struct graph *plain_int8(const struct graph *g)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    const struct infer_options options = {.threads = 2};
    const char *const *names;
    struct quant_choice choices[64];
    struct graph *q = NULL;
    int n;
    OK(quant_calibrate(g, &options, TRAIN, fill_train, NULL, &ranges, err));
    OK(quant_layers(g, arena, &names, &n, err));
    assert_int_equal(n, 20);
    for (int i = 0; i < n; i++)
        choices[i] = (struct quant_choice){.layer = names[i], .precision = PRECISION_INT8};
    const struct quant_options bits = {.weight_bits = nn_has_int8() ? 8 : 7};
    OK(quant_rewrite(g, choices, n, &ranges, &bits, &q, err));
    OK(quant_correct_bias(g, q, &options, TRAIN, fill_train, NULL, err));
    return q;
}

static void resnet20_in_int8_is_within_a_third_of_a_point(void **state)
{
    (void)state;
    char path[600];
    snprintf(path, sizeof(path), "%s/models/resnet20-cifar10.onnx", data_folder);
    if (!cifar || !fs_exists(path)) {
        print_message("skip: no CIFAR-10 and ResNet-20 in %s\n", data_folder);
        skip();
    }
    _cleanup_(graph_freep) struct graph *g = NULL;
    OK(onnx_read_file(path, NULL, &g, err));
    OK(pass_simplify(g, err));
    const double fp32 = top1_here(g);
    assert_true(fp32 > 0.91);
    _cleanup_(graph_freep) struct graph *q = plain_int8(g);
    const double here = top1_here(q), ort = top1_on_ort(q);
    print_message("# fp32 %.4f, int8 %.4f, on ONNX Runtime %.4f\n", fp32, here, ort);
    assert_true(here > fp32 - 0.003);
    assert_true(ort > fp32 - 0.003);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resnet20_in_int8_is_within_a_third_of_a_point),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
