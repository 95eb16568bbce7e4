/*
 * Networks from designs (shared/design/design.h), for training and measurements by hand.
 *
 *     design_driver write "TEXT" --input CxHxW --outputs N [--seed N] FILE.onnx
 *                                          the network in training form, for `hone train --reinit`
 *     design_driver price "TEXT" --input CxHxW --outputs N [--steps 1]
 *                                          the times of its pieces, each by itself, and of the
 *                                          whole network: how good a sum of prices is
 *     design_driver list                   the types of pieces
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/profiler/piece.h"
#include "services/profiler/timing.h"
#include "shared/base/clock.h"
#include "shared/base/str.h"
#include "shared/design/design.h"
#include "shared/graph/cuts.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/nn/bench.h"
#include "shared/nn/plan_buffers.h"
#include "shared/nn/quantize.h"

static void must(int rc, const struct err *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "design_driver: %s\n", err->message);
    exit(1);
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: design_driver write TEXT --input CxHxW --outputs N [--seed N] FILE\n"
                    "       design_driver price TEXT --input CxHxW --outputs N [--steps 1]\n"
                    "       design_driver list\n");
    exit(2);
}

static int64_t number(const char *text)
{
    struct err err = {0};
    int64_t x = 0;
    must(str_parse_i64(text, 0, INT64_MAX, &x, &err), &err);
    return x;
}

static void list(void)
{
    for (const char *const *name = design_types(); *name; name++)
        printf("%-12s %s\n", *name, design_summary(*name));
}

/* "3x32x32" */
static void read_input(char *text, struct design_ends *ends)
{
    int64_t *const to[] = {&ends->channels, &ends->height, &ends->width};
    for (int i = 0; i < 3; i++) {
        const char *part = strsep(&text, "x");
        if (!part || (i == 2 && text))
            usage();
        *to[i] = number(part);
    }
}

/* What it will cost, in the form that runs. */
static void say(const struct design *design, const struct graph *g)
{
    struct err err = {0};
    _cleanup_(graph_freep) struct graph *runs = NULL;
    must(graph_clone(g, &runs, &err), &err);
    must(pass_simplify(runs, &err), &err);
    const struct cost cost = graph_cost(runs);
    _cleanup_(freep) char *text = design_text(design, 0, design->n);
    printf("%s: %.2f M MACs, %.3f M parameters\n", text, (double)cost.macs * 1e-6,
           (double)cost.parameters * 1e-6);
}

struct request {
    struct design_ends ends;
    struct design design;
    struct arena *arena;
    const char *file;
    int64_t steps;
};

static struct request read_request(int argc, char **argv)
{
    struct err err = {0};
    struct request q = {
        .ends = {.channels = 3, .height = 32, .width = 32, .outputs = 10, .seed = 1},
        .arena = arena_new()};
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--input") == 0 && i + 1 < argc)
            read_input(argv[++i], &q.ends);
        else if (strcmp(argv[i], "--outputs") == 0 && i + 1 < argc)
            q.ends.outputs = number(argv[++i]);
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            q.ends.seed = (uint64_t)number(argv[++i]);
        else if (strcmp(argv[i], "--steps") == 0 && i + 1 < argc)
            q.steps = number(argv[++i]);
        else if (!q.file && argv[i][0] != '-')
            q.file = argv[i];
        else
            usage();
    }
    must(q.arena ? 0 : err_oom(&err, "a design"), &err);
    must(design_parse(argv[2], q.arena, &q.design, &err), &err);
    return q;
}

static void write_network(const struct request *q)
{
    struct err err = {0};
    _cleanup_(graph_freep) struct graph *g = NULL;
    if (!q->file)
        usage();
    must(design_build(&q->design, &q->ends, &g, &err), &err);
    must(onnx_write_file(g, q->file, &err), &err);
    say(&q->design, g);
}

/* ---- prices ---- */

static int run_plan(void *ctx, struct err *err)
{
    void **both = ctx;
    return plan_buffers_run(both[0], both[1], err);
}

/* The median time of the network in int8, and of its steps where they are asked for. */
static double whole(const struct request *q, double *ret_sum)
{
    struct err err = {0};
    _cleanup_(graph_freep) struct graph *g = NULL, *int8 = NULL;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    _cleanup_(plan_freep) struct plan *plan = NULL;
    _cleanup_(plan_buffers_release) struct plan_buffers buffers = {0};
    const struct plan_options options = {.batch = 1, .threads = 1};
    const struct timing_options how = {.warm = 5, .runs = 120, .least = 10, .seconds = 2};
    must(design_build(&q->design, &q->ends, &g, &err), &err);
    must(pass_simplify(g, &err), &err);
    must(quant_ranges_guess(g, &ranges, &err), &err);
    must(quant_rewrite_all(g, &ranges, NULL, &int8, &err), &err);
    must(plan_compile(int8, &options, &plan, &err), &err);
    must(plan_buffers_make(plan, 1, &buffers, &err), &err);
    double *us = calloc((size_t)plan_n_steps(plan) + 1, sizeof(*us));
    must(us ? timing_plan(plan, &buffers, &how, us, &err) : err_oom(&err, "times"), &err);
    *ret_sum = 0;
    for (int i = 0; i < plan_n_steps(plan); i++) {
        const struct plan_step *s = plan_step(plan, i);
        *ret_sum += us[i];
        if (q->steps)
            printf("    %-28s %-12s %8.2f us  %s %s\n", s->layer, s->op, us[i], s->implementation,
                   s->fused);
    }
    free(us);
    void *both[] = {plan, &buffers};
    const struct bench_item item = {run_plan, both};
    const struct bench_options bench = {.seconds = 1};
    struct bench_result result;
    must(bench_run(&item, 1, &bench, &result, &err), &err);
    return result.p50_us;
}

static int compare(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void open_piece(const struct request *q, int i, struct piece_bench **ret)
{
    struct err err = {0};
    struct design_ends at;
    _cleanup_(freep) char *text = design_text(&q->design, i, 1);
    must(design_shape_at(&q->design, &q->ends, i, &at, &err), &err);
    const struct piece_place place = {.text = text,
                                      .channels = at.channels,
                                      .height = at.height,
                                      .width = at.width,
                                      .outputs = at.outputs,
                                      .first = i == 0,
                                      .batch = 1,
                                      .threads = 1};
    must(piece_open(&place, ret, &err), &err);
}

static void price(const struct request *q)
{
    struct err err = {0};
    struct piece_bench *benches[DESIGN_MAX_PIECES];
    struct piece_time times[DESIGN_MAX_PIECES];
    double sum = 0, rests[DESIGN_MAX_PIECES], steps;
    const int n = q->design.n;
    const int64_t begin = clock_now_ns(NULL);
    for (int i = 0; i < n; i++)
        open_piece(q, i, &benches[i]);
    must(piece_time_all(benches, n, NULL, times, &err), &err);
    for (int i = 0; i < n; i++) {
        _cleanup_(freep) char *text = design_text(&q->design, i, 1);
        printf("  %-24s %8.2f us\n", text, times[i].us);
        sum += times[i].us;
        rests[i] = times[i].rest;
        piece_close(benches[i]);
    }
    const double seconds = (double)(clock_now_ns(NULL) - begin) * 1e-9;
    qsort(rests, (size_t)n, sizeof(*rests), compare);
    const double rest = rests[n / 2] > 0 ? rests[n / 2] : 0, predicted = sum + rest;
    const double measured = whole(q, &steps);
    printf("%.1f us predicted (%.1f and a floor of %.1f), %.1f us measured (its steps %.1f): "
           "%+.1f %%; %d prices in %.2f s\n",
           predicted, sum, rest, measured, steps, (predicted / measured - 1) * 100, n, seconds);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        list();
        return 0;
    }
    if (argc < 3)
        usage();
    struct request q = read_request(argc, argv);
    if (strcmp(argv[1], "write") == 0)
        write_network(&q);
    else if (strcmp(argv[1], "price") == 0)
        price(&q);
    else
        usage();
    arena_free(q.arena);
    return 0;
}
