/*
 * Networks in int8 by calibration alone, as a job builds them (every layer that can, biases
 * corrected), for training and measurements by hand.
 *
 *     quantize_driver MODEL.onnx DATA PREPROCESS OUT.onnx [SAMPLES [BITS]]
 *
 * PREPROCESS as in `hone eval`, or auto: what that would choose; SAMPLES of the training part
 * (256); BITS of the weights (2 to 8; 8 where the CPU has int8, else 7).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/network.h"
#include "services/cli/samples.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/nn/quantize.h"

static void must(int rc, const struct err *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "quantize_driver: %s\n", err->message);
    exit(1);
}

static int64_t whole(const char *text)
{
    struct err err = {0};
    int64_t x = 0;
    must(str_parse_i64(text, 1, 1000000, &x, &err), &err);
    return x;
}

static void describe(struct graph *q, const char *preprocess, int bits)
{
    struct err err = {0};
    const char text[] = {(char)('0' + bits), 0};
    must(graph_set_metadata(q, "hone.preprocess", preprocess, &err), &err);
    must(graph_set_metadata(q, "hone.weight_bits", text, &err), &err);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: quantize_driver MODEL DATA PREPROCESS OUT [SAMPLES [BITS]]\n");
        return 2;
    }
    struct err err = {0};
    struct samples samples = {0};
    struct quant_ranges ranges = {0};
    struct sample_view view = {0};
    struct graph *g = NULL, *q = NULL;
    const int64_t n = argc > 5 ? whole(argv[5]) : 256;
    const struct quant_options options = {.weight_bits = argc > 6        ? (int)whole(argv[6]) % 9
                                                         : nn_has_int8() ? 8
                                                                         : 7};
    const struct infer_options infer = {.threads = pool_cpus()};
    must(network_read(argv[1], PRECISION_AUTO, &g, &err), &err);
    must(samples_open(&samples, argv[2], g, argv[1], infer.threads, &err), &err);
    const char *given = strcmp(argv[3], "auto") == 0 ? NULL : argv[3];
    must(samples_preprocess(&samples, g, &infer, given, &err), &err);
    const int64_t have = dataset_count(samples.ds, PART_TRAIN);
    must(sample_view_init(&view, samples.ds, PART_TRAIN, &samples.pre, n < have ? n : 0, 0, &err),
         &err);
    must(quant_calibrate(g, &infer, view.n, sample_view_fill, &view, &ranges, &err), &err);
    must(quant_rewrite_all(g, &ranges, &options, &q, &err), &err);
    must(quant_correct_bias(g, q, &infer, view.n, sample_view_fill, &view, &err), &err);
    describe(q, samples.pre_text, options.weight_bits);
    must(onnx_write_file(q, argv[4], &err), &err);
    sample_view_release(&view);
    quant_ranges_release(&ranges);
    samples_release(&samples);
    graph_free(q);
    graph_free(g);
    return 0;
}
