/* What is said about times, from given times; and the order of the runs. No clock is asserted on.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/mem.h"
#include "shared/nn/bench.h"

static void quantiles_come_from_the_quietest_half_of_the_rounds(void **state)
{
    (void)state;
    /* rounds of 3: medians 10, 50, 12, 99, 11: the quieter three are 0, 2 and 4 */
    const double us[] = {10, 9, 11, 50, 51, 49, 12, 12, 15, 98, 99, 200, 11, 10, 30};
    const int64_t start[] = {0, 3, 6, 9, 12, 15};
    struct bench_result r;
    struct err err = {0};
    assert_int_equal(bench_summarise(us, start, 5, &r, &err), 0);
    /* 9 10 10 11 11 12 12 15 30 */
    assert_true(r.p50_us == 11);
    assert_true(fabs(r.p90_us - 18) < 1e-9); /* between 15 and 30, a fifth of the way */
    assert_true(r.min_us == 9);
    assert_true(fabs(r.mean_us - 120.0 / 9) < 1e-9);
    assert_int_equal(r.runs, 15);
    assert_true(r.noisy); /* 12 is more than a tenth above 10 */
}

static void steady_rounds_are_not_noisy(void **state)
{
    (void)state;
    const double us[] = {100, 100, 105, 105, 109, 109, 500, 500};
    const int64_t start[] = {0, 2, 4, 6, 8};
    struct bench_result r;
    struct err err = {0};
    assert_int_equal(bench_summarise(us, start, 4, &r, &err), 0);
    assert_false(r.noisy);
    assert_true(r.p50_us == 102.5);
}

static void one_run_is_enough(void **state)
{
    (void)state;
    const double us[] = {7};
    const int64_t start[] = {0, 0, 1};
    struct bench_result r;
    struct err err = {0};
    assert_int_equal(bench_summarise(us, start, 2, &r, &err), 0);
    assert_true(r.p50_us == 7 && r.p90_us == 7 && r.mean_us == 7 && !r.noisy);
}

static void no_run_at_all_is_refused(void **state)
{
    (void)state;
    const int64_t start[] = {0, 0, 0};
    struct bench_result r;
    struct err err = {0};
    assert_int_equal(bench_summarise(NULL, start, 2, &r, &err), -ERR_INVALID_ARGUMENT);
}

/* ---- the order of runs ---- */

struct log {
    int n;
    char text[20000];
};
struct item {
    struct log *log;
    char name;
    int fails_at, runs;
};

static int run(void *ctx, struct err *err)
{
    struct item *item = ctx;
    if (++item->runs == item->fails_at)
        return err_set(err, ERR_INTERNAL, "run %d", item->runs);
    if (item->log->n + 1 < (int)sizeof(item->log->text))
        item->log->text[item->log->n++] = item->name;
    return 0;
}

static int count_progress(void *ctx, double done, double total, struct err *err)
{
    (void)err;
    int *calls = ctx;
    ++*calls;
    assert_true(done == *calls && total == 6);
    return 0;
}

static void items_take_turns(void **state)
{
    (void)state;
    static struct log log;
    struct item items[] = {{.log = &log, .name = 'a'}, {.log = &log, .name = 'b'}};
    const struct bench_item todo[] = {{run, &items[0]}, {run, &items[1]}};
    int calls = 0;
    const struct bench_options o = {.seconds = 1e-7,
                                    .rounds = 3,
                                    .min_runs = 12,
                                    .progress = count_progress,
                                    .progress_ctx = &calls};
    struct bench_result r[2];
    struct err err = {0};
    assert_int_equal(bench_run(todo, 2, &o, r, &err), 0);
    /* behind the warm-up (one stretch of each): a..a b..b three times */
    int changes = 0;
    for (int i = 1; i < log.n; i++)
        changes += log.text[i] != log.text[i - 1];
    assert_int_equal(changes, 7);
    assert_int_equal(calls, 6);
    assert_true(r[0].runs >= 12 && r[1].runs >= 12);
    assert_true(items[0].runs > r[0].runs);
}

static void a_failing_item_ends_the_benchmark(void **state)
{
    (void)state;
    static struct log log;
    struct item item = {.log = &log, .name = 'a', .fails_at = 9};
    const struct bench_item todo[] = {{run, &item}};
    const struct bench_options o = {.seconds = 1e-7, .rounds = 1, .min_runs = 1000};
    struct bench_result r;
    struct err err = {0};
    assert_int_equal(bench_run(todo, 1, &o, &r, &err), -ERR_INTERNAL);
    assert_string_equal(err.message, "run 9");
}

/* For p = 0.9 and 99 % confidence 44 runs are the least (0.9^44 = 0.0097), and then the slowest
 * counts; of 1000 the bound is the place of the normal approximation, 900 + 2.33 * 9.5, or so. */
static void the_early_stopping_estimate_is_an_order_statistic(void **state)
{
    (void)state;
    enum { MOST = 1000 };
    double us[MOST];
    for (int i = 0; i < MOST; i++)
        us[i] = 1 + (i * 7 + 3) % MOST; /* 1 to 1000, shuffled */
    struct bench_result r;
    struct err err = {0};
    assert_int_equal(bench_summarise(us, (const int64_t[]){0, MOST}, 1, &r, &err), 0);
    assert_true(r.p90_bound_us >= 921 && r.p90_bound_us <= 924);
    assert_true(r.p90_bound_us > r.p90_us);
    assert_int_equal(bench_summarise(us, (const int64_t[]){0, 43}, 1, &r, &err), 0);
    assert_true(isinf(r.p90_bound_us));
    double most = 0;
    for (int i = 0; i < 44; i++)
        most = fmax(most, us[i]);
    assert_int_equal(bench_summarise(us, (const int64_t[]){0, 44}, 1, &r, &err), 0);
    assert_true(r.p90_bound_us == most);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_come_from_the_quietest_half_of_the_rounds),
        cmocka_unit_test(steady_rounds_are_not_noisy),
        cmocka_unit_test(one_run_is_enough),
        cmocka_unit_test(no_run_at_all_is_refused),
        cmocka_unit_test(items_take_turns),
        cmocka_unit_test(a_failing_item_ends_the_benchmark),
        cmocka_unit_test(the_early_stopping_estimate_is_an_order_statistic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
