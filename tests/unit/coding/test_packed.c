/* Packed networks: the same file comes back, in few bytes, and what is damaged is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/mem.h"
#include "shared/base/rng.h"
#include "shared/coding/packed.h"
#include "shared/graph/onnx.h"

struct bytes {
    uint8_t *data;
    size_t n;
};

static struct bytes packed(const void *data, size_t n)
{
    struct bytes b = {0};
    struct err err = {0};
    if (packed_write(data, n, (void **)&b.data, &b.n, &err) < 0)
        fail_msg("%s", err.message);
    assert_true(packed_is(b.data, b.n));
    return b;
}

/* Packs, unpacks, compares; returns how many bytes it took. */
static size_t there_and_back(const void *data, size_t n)
{
    struct bytes p = packed(data, n), back = {0};
    struct err err = {0};
    if (packed_read(p.data, p.n, n, (void **)&back.data, &back.n, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(back.n, n);
    if (n)
        assert_memory_equal(back.data, data, n);
    free(back.data);
    free(p.data);
    return p.n;
}

/* ---- networks ---- */

#define OUT 32
#define IN 24
#define AREA 9
#define WEIGHTS (OUT * IN * AREA)

struct layer {
    int8_t weights[WEIGHTS];
    float scales[OUT], bias_scales[OUT];
    int32_t bias[OUT];
};

/* Weights within +-most, normal ones, each filter on all of the grid; `entropy` in bytes. */
static void draw_layer(struct layer *l, struct rng *rng, int most, float data_scale,
                       double *entropy)
{
    int counts[256] = {0};
    for (int i = 0; i < WEIGHTS; i++) {
        const double x = nearbyint(rng_normal(rng) * most / 3.0);
        l->weights[i] = (int8_t)(x > most ? most : x < -most ? -most : x);
        counts[l->weights[i] + 128]++;
    }
    for (int i = 0; i < 256; i++)
        if (counts[i])
            *entropy -= counts[i] * log2((double)counts[i] / WEIGHTS) / 8;
    for (int i = 0; i < OUT; i++) {
        l->scales[i] = (float)(0.001 * (1.0 + rng_f64(rng)));
        l->bias_scales[i] = (float)((double)data_scale * (double)l->scales[i]);
        l->bias[i] = (int32_t)(rng_normal(rng) * 2000);
    }
}

static int constant(struct graph *g, const char *name, int k, enum dtype dtype, int rank,
                    const int64_t *dims, const void *data)
{
    char text[32];
    struct err err = {0};
    const struct shape shape = shape_make(rank, dims);
    snprintf(text, sizeof(text), "%s%d", name, k);
    const int v = graph_add_constant(g, text, dtype, &shape, data, &err);
    if (v < 0)
        fail_msg("%s", err.message);
    return v;
}

static int node(struct graph *g, enum op op, const char *name, int k, int n, const int *inputs)
{
    char text[32];
    const char *outputs[] = {text};
    struct err err = {0};
    snprintf(text, sizeof(text), "%s%d", name, k);
    const int at = graph_add_node(g, -1, op, text, n, inputs, 1, outputs, &err);
    if (at < 0)
        fail_msg("%s", err.message);
    if (op == OP_DEQUANTIZE_LINEAR)
        graph_set_attr_int(g, g->nodes[at], "axis", 0, &err);
    return g->nodes[at]->outputs[0];
}

/* Layers of constants alone, dequantized as the exporter writes them. */
static struct bytes quantized_file(int layers, int most, double *entropy)
{
    static const int64_t dims[] = {OUT, IN, 3, 3}, channels[] = {OUT};
    struct err err = {0};
    struct rng rng;
    struct bytes b = {0};
    struct graph *g = graph_new(13, &err);
    rng_seed(&rng, (uint64_t)most);
    *entropy = 0;
    for (int k = 0; k < layers; k++) {
        struct layer l;
        const float data_scale = (float)(0.02 * (1.0 + rng_f64(&rng)));
        draw_layer(&l, &rng, most, data_scale, entropy);
        const int single = constant(g, "data_scale", k, DTYPE_F32, 0, NULL, &data_scale);
        const int w = constant(g, "conv_weight_quantized", k, DTYPE_S8, 4, dims, l.weights);
        const int s = constant(g, "conv_weight_scale", k, DTYPE_F32, 1, channels, l.scales);
        const int z = constant(g, "conv_weight_zero", k, DTYPE_S8, 1, channels, NULL);
        const int q = constant(g, "conv_bias_quantized", k, DTYPE_S32, 1, channels, l.bias);
        const int t = constant(g, "conv_bias_scale", k, DTYPE_F32, 1, channels, l.bias_scales);
        const int dw =
            node(g, OP_DEQUANTIZE_LINEAR, "conv_weight_dequantized", k, 3, (const int[]){w, s, z});
        const int db =
            node(g, OP_DEQUANTIZE_LINEAR, "conv_bias_dequantized", k, 2, (const int[]){q, t});
        const int ds = node(g, OP_IDENTITY, "data", k, 1, &single);
        for (int i = 0; i < 3; i++)
            graph_add_output(g, (const int[]){dw, db, ds}[i], &err);
    }
    if (onnx_write_bytes(g, (void **)&b.data, &b.n, &err) < 0)
        fail_msg("%s", err.message);
    graph_free(g);
    return b;
}

static void weights_take_what_they_hold(void **state)
{
    (void)state;
    for (int most = 127; most >= 3; most = (most - 1) / 2) {
        double entropy;
        struct bytes b = quantized_file(8, most, &entropy);
        const size_t n = there_and_back(b.data, b.n);
        /* scales: 3 bytes for each channel; biases: 2; the rest: little */
        const double least = entropy + 8.0 * OUT * (3 + 2);
        if ((double)n > 1.02 * least + 1000)
            fail_msg("+-%d: %zu bytes, where %.0f are enough", most, n, least);
        free(b.data);
    }
}

static void every_layer_more_costs_hardly_more_than_its_numbers(void **state)
{
    (void)state;
    double few, many;
    struct bytes a = quantized_file(4, 7, &few), b = quantized_file(24, 7, &many);
    const size_t n = there_and_back(a.data, a.n), m = there_and_back(b.data, b.n);
    const double numbers = many - few + 20.0 * OUT * (3 + 2);
    if ((double)(m - n) > 1.02 * numbers + 20.0 * 60) /* six names and nine messages */
        fail_msg("20 layers take %zu bytes more; their numbers are %.0f", m - n, numbers);
    free(a.data);
    free(b.data);
}

/* ---- anything ---- */

static void any_bytes_come_back(void **state)
{
    (void)state;
    static const uint8_t likely[] = {0x3a, 0x05, 0x2a, 0xff, 0x4a}; /* tags of an ONNX file */
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t n = 0; n < 3000; n = n * 3 / 2 + 1)
        for (int kind = 0; kind < 4; kind++) {
            _cleanup_(freep) uint8_t *data = mem_calloc(n + 1, 1);
            for (size_t i = 0; i < n; i++)
                data[i] = (uint8_t)(kind == 0   ? 0
                                    : kind == 1 ? rng_below(&rng, 256)
                                    : kind == 2 ? rng_below(&rng, 4) + 8
                                                : likely[rng_below(&rng, sizeof(likely))]);
            there_and_back(data, n);
        }
}

/* What begins as a network and goes on as something else. */
static void damaged_networks_come_back(void **state)
{
    (void)state;
    double entropy;
    struct rng rng;
    struct bytes b = quantized_file(1, 7, &entropy);
    rng_seed(&rng, 6);
    for (int i = 0; i < 60; i++) {
        const size_t at = rng_below(&rng, b.n);
        b.data[at] = (uint8_t)rng_below(&rng, 256);
        there_and_back(b.data, b.n - rng_below(&rng, 200));
    }
    free(b.data);
}

/* A message that ends behind a tag: what would belong to it is not there. */
static void fields_that_their_message_is_too_short_for_come_back(void **state)
{
    (void)state;
    static const uint8_t
        /* model.graph of 7 bytes, .initializer of 5: data_type INT8, the tag of raw_data; then what
         * would be its length: 16 MiB */
        raw[] = {0x3a, 7, 0x2a, 5, 0x08, 1, 0x10, 3, 0x4a, 0x80, 0x80, 0x80, 0x08, 0, 0, 0},
        /* the same with the tag of a number, and of what goes round */
        number[] = {0x3a, 7, 0x2a, 5, 0x08, 1, 0x10, 3, 0x08, 0x80, 0x80, 0x80, 0x08, 0, 0, 0},
        last[] = {0x3a, 7, 0x2a, 5, 0x08, 1, 0x10, 3, 0x4a};
    there_and_back(raw, sizeof(raw));
    there_and_back(number, sizeof(number));
    there_and_back(last, sizeof(last));
}

static void nothing_but_zeros_can_be_read_again(void **state)
{
    (void)state;
    const size_t n = (size_t)3 << 20;
    _cleanup_(freep) uint8_t *zeros = mem_calloc(n, 1);
    assert_true(there_and_back(zeros, n) < 16384);
}

static void the_same_file_is_packed_into_the_same_bytes(void **state)
{
    (void)state;
    double entropy;
    struct bytes b = quantized_file(2, 7, &entropy);
    struct bytes x = packed(b.data, b.n), y = packed(b.data, b.n);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.data, y.data, x.n);
    free(b.data);
    free(x.data);
    free(y.data);
}

/* ---- refused ---- */

static void refused(const struct bytes *p, size_t n, size_t max_bytes, enum err_code code,
                    const char *says)
{
    struct bytes back = {0};
    struct err err = {0};
    assert_int_equal(packed_read(p->data, n, max_bytes, (void **)&back.data, &back.n, &err),
                     -(int)code);
    assert_null(back.data);
    if (!strstr(err.message, says))
        fail_msg("'%s' lacks '%s'", err.message, says);
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    double entropy;
    struct bytes b = quantized_file(1, 7, &entropy), p = packed(b.data, b.n);
    for (size_t at = 17; at < p.n; at += at < 60 ? 1 : 97) {
        p.data[at] ^= 0x10;
        refused(&p, p.n, b.n, ERR_DATA_LOSS, "damaged");
        p.data[at] ^= 0x10;
    }
    for (size_t n = 8; n + 4 < p.n; n += n < 60 ? 1 : 101)
        refused(&p, n, b.n, ERR_DATA_LOSS, n < 49 ? "cut off" : "damaged");
    free(p.data);
    free(b.data);
}

static void claims_are_held_against_limits(void **state)
{
    (void)state;
    struct bytes p = packed("some text", 9);
    refused(&p, p.n, 8, ERR_RESOURCE_EXHAUSTED, "would have 9 bytes unpacked; the limit is 8");
    p.data[12] = 1; /* 16 MB */
    refused(&p, p.n, SIZE_MAX, ERR_DATA_LOSS, "claim to hold");
    memset(p.data + 9, 0xff, 8);
    refused(&p, p.n, SIZE_MAX, ERR_DATA_LOSS, "claim to hold");
    p.data[8] = 2;
    refused(&p, p.n, 100, ERR_UNIMPLEMENTED, "version 2");
    p.data[0] = 'h';
    refused(&p, p.n, 100, ERR_INVALID_ARGUMENT, "no packed network");
    free(p.data);
}

/* ---- who reads networks reads packed ones ---- */

static void onnx_is_read_packed(void **state)
{
    (void)state;
    double entropy;
    struct err err = {0};
    struct graph *g = NULL;
    struct bytes b = quantized_file(1, 7, &entropy), p = packed(b.data, b.n);
    if (onnx_read_bytes(p.data, p.n, NULL, NULL, &g, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(g->n_outputs, 3);
    const struct onnx_limits tight = {
        .max_file_bytes = b.n - 1, .max_depth = 32, .max_nodes = 100, .max_elements = 1 << 20};
    struct graph *none = NULL;
    assert_int_equal(onnx_read_bytes(p.data, p.n, NULL, &tight, &none, &err),
                     -ERR_RESOURCE_EXHAUSTED);
    graph_free(g);
    free(p.data);
    free(b.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_take_what_they_hold),
        cmocka_unit_test(every_layer_more_costs_hardly_more_than_its_numbers),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(damaged_networks_come_back),
        cmocka_unit_test(fields_that_their_message_is_too_short_for_come_back),
        cmocka_unit_test(nothing_but_zeros_can_be_read_again),
        cmocka_unit_test(the_same_file_is_packed_into_the_same_bytes),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(claims_are_held_against_limits),
        cmocka_unit_test(onnx_is_read_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
