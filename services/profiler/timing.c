#include "services/profiler/timing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/base/clock.h"
#include "shared/base/str.h"

/* ---- the latency table ---- */

void latency_table_init(struct latency_table *table, struct queue *queue, int threads)
{
    table->queue = queue;
    snprintf(table->name, sizeof(table->name), "latency:%s:%s:%s:%dt", nn_cpu(), nn_isa(),
             nn_version(), threads);
}

int latency_get(const struct latency_table *table, const char *key, double *ret_us, struct err *err)
{
    _cleanup_(freep) char *text = NULL;
    *ret_us = 0;
    int r = queue_table_get(table->queue, table->name, key, &text, err);
    if (r < 0 || !text)
        return r;
    return str_parse_f64(text, ret_us, err);
}

double latency_round(double us)
{
    return round(us * 1000) / 1000;
}

int latency_put(const struct latency_table *table, const char *key, double us, struct err *err)
{
    char text[32];
    snprintf(text, sizeof(text), "%.3f", us);
    return queue_table_put(table->queue, table->name, key, text, err);
}

/* ---- one plan ---- */

static int compare_s64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double median_us(int64_t *samples, int n)
{
    qsort(samples, (size_t)n, sizeof(*samples), compare_s64);
    const double us = (double)samples[n / 2] * 1e-3;
    return us > 0 ? us : 0.001; /* below the clock's resolution; 0 would mean unknown */
}

/* A run with timers inside and one without; samples: [n_steps + 1][runs]. */
static int sample(struct plan *plan, const struct plan_buffers *buffers, int64_t *ns,
                  int64_t *samples, int runs, int at, struct err *err)
{
    const int n = plan_n_steps(plan);
    const void *const *in = (const void *const *)buffers->in;
    int r = plan_run_timed(plan, in, buffers->out, ns, err);
    for (int i = 0; i < n; i++)
        samples[(int64_t)i * runs + at] = ns[i];
    const int64_t start = clock_now_ns(NULL);
    if (r == 0)
        r = plan_run(plan, in, buffers->out, err);
    samples[(int64_t)n * runs + at] = clock_now_ns(NULL) - start;
    return r;
}

/* Until there are enough samples or time is up. */
static int take_samples(struct plan *plan, const struct plan_buffers *buffers,
                        const struct timing_options *o, int64_t *samples, int *ret_runs,
                        struct err *err)
{
    _cleanup_(freep) int64_t *ns = mem_calloc((size_t)plan_n_steps(plan), sizeof(*ns));
    int r = ns ? 0 : err_oom(err, "times");
    for (int i = 0; r == 0 && i < o->warm; i++)
        r = plan_buffers_run(plan, buffers, err);
    const int64_t begin = clock_now_ns(NULL);
    int runs = 0;
    while (r == 0 && runs < o->runs) {
        r = sample(plan, buffers, ns, samples, o->runs, runs++, err);
        if ((double)(clock_now_ns(NULL) - begin) * 1e-9 > o->seconds && runs >= o->least)
            break;
        if (r == 0 && o->task && runs % 20 == 0)
            r = work_progress(o->task, o->stage, runs, o->runs, "runs", err);
    }
    *ret_runs = runs;
    return r;
}

int timing_plan(struct plan *plan, const struct plan_buffers *buffers,
                const struct timing_options *options, double *us, struct err *err)
{
    const int n = plan_n_steps(plan);
    int runs = 0;
    _cleanup_(freep) int64_t *samples =
        mem_calloc((size_t)(n + 1) * (size_t)options->runs, sizeof(*samples));
    int r =
        samples ? take_samples(plan, buffers, options, samples, &runs, err) : err_oom(err, "times");
    for (int i = 0; r == 0 && i <= n; i++)
        us[i] = median_us(samples + (int64_t)i * options->runs, runs);
    return r;
}

int timing_plan_once(struct plan *plan, const struct timing_options *options, double *us,
                     struct err *err)
{
    _cleanup_(plan_buffers_release) struct plan_buffers buffers = {0};
    int r = plan_buffers_make(plan, 2, &buffers, err);
    return r < 0 ? r : timing_plan(plan, &buffers, options, us, err);
}
