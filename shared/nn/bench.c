#include "shared/nn/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"

/* The times of one item: those of round r are ns[start[r] .. start[r + 1]). */
struct samples {
    double *us;
    int64_t n, capacity;
    int64_t *start;
};

static int samples_add(struct samples *s, double us, struct err *err)
{
    if (s->n == s->capacity) {
        int64_t capacity = s->capacity ? s->capacity * 2 : 1024;
        double *grown = mem_realloc(s->us, (size_t)capacity, sizeof(*grown));
        if (!grown)
            return err_oom(err, "the times of a benchmark");
        s->us = grown;
        s->capacity = capacity;
    }
    s->us[s->n++] = us;
    return 0;
}

struct bench {
    int n, rounds;
    struct samples *items;
};

static void bench_release(struct bench *b)
{
    for (int i = 0; b->items && i < b->n; i++) {
        free(b->items[i].us);
        free(b->items[i].start);
    }
    free(b->items);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between the neighbours, as numpy does. */
static double quantile(const double *sorted, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

/* The place (from 0) of the order statistic that lies above the q-quantile with this confidence,
 * whatever the distribution: the least k with P(Binomial(n, q) <= k) >= confidence. n: none does.
 */
static int64_t bound_place(int64_t n, double q, double confidence)
{
    double tail = 0; /* P(Binomial > k) */
    int64_t k = n;
    while (k > 0) {
        const double x = (double)k, all = (double)n;
        const double p = exp(lgamma(all + 1) - lgamma(x + 1) - lgamma(all - x + 1) + x * log(q) +
                             (all - x) * log1p(-q));
        if (tail + p > 1 - confidence)
            break;
        tail += p;
        k--;
    }
    return k;
}

struct round {
    double median;
    int64_t from, to;
};

static int by_median(const void *a, const void *b)
{
    return by_value(&((const struct round *)a)->median, &((const struct round *)b)->median);
}

int bench_summarise(const double *us, const int64_t *start, int rounds, struct bench_result *ret,
                    struct err *err)
{
    int64_t n = start[rounds];
    _cleanup_(freep) double *kept = mem_calloc((size_t)n, sizeof(*kept));
    _cleanup_(freep) struct round *order = mem_calloc((size_t)rounds, sizeof(*order));
    if (!kept || !order)
        return err_oom(err, "the times of a benchmark");
    int used = 0;
    for (int r = 0; r < rounds; r++) {
        int64_t count = start[r + 1] - start[r];
        if (count <= 0)
            continue;
        memcpy(kept, us + start[r], (size_t)count * sizeof(*kept));
        qsort(kept, (size_t)count, sizeof(*kept), by_value);
        order[used++] = (struct round){quantile(kept, count, 0.5), start[r], start[r + 1]};
    }
    if (used == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "a benchmark without a single run");
    qsort(order, (size_t)used, sizeof(*order), by_median);
    int quiet = (used + 1) / 2;
    int64_t m = 0;
    double sum = 0;
    for (int r = 0; r < quiet; r++)
        for (int64_t i = order[r].from; i < order[r].to; i++)
            sum += kept[m++] = us[i];
    qsort(kept, (size_t)m, sizeof(*kept), by_value);
    *ret = (struct bench_result){
        .p50_us = quantile(kept, m, 0.5),
        .p90_us = quantile(kept, m, 0.9),
        .mean_us = sum / (double)m,
        .min_us = kept[0],
        .runs = n,
        .noisy = order[quiet - 1].median > 1.1 * order[0].median,
    };
    memcpy(kept, us + start[0], (size_t)n * sizeof(*kept));
    qsort(kept, (size_t)n, sizeof(*kept), by_value);
    const int64_t place = bound_place(n, 0.9, 0.99);
    ret->p90_bound_us = place < n ? kept[place] : (double)INFINITY;
    return 0;
}

static int time_once(const struct bench_item *item, double *ret_us, struct err *err)
{
    int64_t t = clock_now_ns(NULL);
    int rc = item->run(item->ctx, err);
    *ret_us = (double)(clock_now_ns(NULL) - t) / 1e3;
    return rc;
}

/* Until caches, branch predictors and clocks have settled: 3 runs or a twentieth of the time. */
static int warm_up(const struct bench_item *item, double seconds, struct err *err)
{
    double spent = 0, us = 0;
    for (int i = 0; i < 3 || (spent < seconds * 5e4 && i < 100000); i++) {
        int rc = time_once(item, &us, err);
        if (rc < 0)
            return rc;
        spent += us;
    }
    return 0;
}

static int run_round(struct samples *s, const struct bench_item *item, double us, int64_t min_runs,
                     struct err *err)
{
    double spent = 0, once = 0;
    for (int64_t i = 0; i < min_runs || spent < us; i++) {
        int rc = time_once(item, &once, err);
        if (rc == 0)
            rc = samples_add(s, once, err);
        if (rc < 0)
            return rc;
        spent += once;
    }
    return 0;
}

int bench_run(const struct bench_item *items, int n, const struct bench_options *options,
              struct bench_result *results, struct err *err)
{
    static const struct bench_options defaults;
    const struct bench_options *o = options ? options : &defaults;
    double seconds = o->seconds > 0 ? o->seconds : 1.0;
    int rounds = o->rounds > 0 ? o->rounds : 5;
    int min_runs = o->min_runs > 0 ? o->min_runs : 50;
    int64_t per_round = (min_runs + rounds - 1) / rounds;
    _cleanup_(bench_release) struct bench b = {.n = n, .rounds = rounds};
    b.items = mem_calloc((size_t)n, sizeof(*b.items));
    if (!b.items)
        return err_oom(err, "a benchmark");
    for (int i = 0; i < n; i++) {
        b.items[i].start = mem_calloc((size_t)rounds + 1, sizeof(*b.items[i].start));
        if (!b.items[i].start)
            return err_oom(err, "a benchmark");
        int rc = warm_up(&items[i], seconds, err);
        if (rc < 0)
            return rc;
    }
    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < n; i++) {
            struct samples *s = &b.items[i];
            s->start[r] = s->n;
            int rc = run_round(s, &items[i], seconds * 1e6 / rounds, per_round, err);
            if (rc == 0 && o->progress)
                rc = o->progress(o->progress_ctx, r * n + i + 1, rounds * n, err);
            if (rc < 0)
                return rc;
            s->start[r + 1] = s->n;
        }
    }
    for (int i = 0; i < n; i++) {
        int rc = bench_summarise(b.items[i].us, b.items[i].start, rounds, &results[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
