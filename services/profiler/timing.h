#pragma once
/* Times of plans and of their steps, and the table of the hardware that remembers them. */
#include "shared/nn/plan_buffers.h"
#include "shared/work/work.h"

/* Hardware, instruction set, library and threads: what times depend on. */
struct latency_table {
    struct queue *queue;
    char name[256];
};
void latency_table_init(struct latency_table *table, struct queue *queue, int threads);
/* Microseconds kept under the key (of [ -~]+); 0: none. */
int latency_get(const struct latency_table *table, const char *key, double *ret_us,
                struct err *err);
/* What is put has three digits behind the point: latency_round(us) is what comes back. */
double latency_round(double us);
int latency_put(const struct latency_table *table, const char *key, double us, struct err *err);

struct timing_options {
    int warm;       /* runs that do not count */
    int runs;       /* that do, when there is time */
    int least;      /* as many in any case */
    double seconds; /* that there are */
    /* Told of the progress, and asked whether to go on; NULL: nobody is. */
    struct work_task *task;
    const char *stage;
};

/* Medians in microseconds, above 0: us[i] of step i, us[n_steps] of the whole run without timers
 * inside. */
int timing_plan(struct plan *plan, const struct plan_buffers *buffers,
                const struct timing_options *options, double *us, struct err *err);
/* The same with buffers of its own. */
int timing_plan_once(struct plan *plan, const struct timing_options *options, double *us,
                     struct err *err);
