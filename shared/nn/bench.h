#pragma once
/* Measuring time: several things interleaved, medians, a word on noise. */
#include "shared/base/err.h"
#include <stdbool.h>
#include <stdint.h>

/* One thing to time: runs once. */
struct bench_item {
    int (*run)(void *ctx, struct err *err);
    void *ctx;
};
struct bench_options {
    double seconds; /* for each item, in all; 0: 1.0 */
    int rounds;     /* the items take turns this often; 0: 5 */
    int min_runs;   /* in all, for each item; 0: 50 */
    int (*progress)(void *ctx, double done, double total, struct err *err);
    void *progress_ctx;
};
struct bench_result {
    double p50_us, p90_us, mean_us,
        min_us; /* quantiles over all runs of the quietest half of the rounds */
    /* MLPerf Inference's early-stopping estimate for single streams: with 99 % confidence the 90th
     * percentile is no larger. Over all runs, the noisy ones too; INFINITY for fewer than 44. */
    double p90_bound_us;
    int64_t runs;
    bool noisy; /* medians of the rounds differ by more than a tenth (in the quieter half) */
};
/* Warm-up first, then rounds: item 0, 1, 2, ..., item 0, ... */
int bench_run(const struct bench_item *items, int n, const struct bench_options *options,
              struct bench_result *results, struct err *err);

/* What bench_run says about one item's times: round r took us[start[r] .. start[r + 1]), start has
 * rounds + 1 entries. Empty rounds are left out; INVALID_ARGUMENT when all are. */
int bench_summarise(const double *us, const int64_t *start, int rounds, struct bench_result *ret,
                    struct err *err);
