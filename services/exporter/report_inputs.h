#pragma once
/* What the report is made of: the state of the job with what the last tasks found merged into it.
 */
#include "services/exporter/report.h"

struct report_inputs {
    Hone__V1__StageTask *stage; /* its state: finals proved and measured */
    Hone__V1__MeasureResult *measured;
    Hone__V1__Profile *profile;
    Hone__V1__Scores *scores;
    Hone__V1__JobSpec *asked;
    Hone__V1__TrainResult **runs; /* of all students: each its own, in order */
    size_t n_runs;
    Hone__V1__TrainResult **trained; /* the last run of each, among those */
    size_t n_trained;
    Hone__V1__Library *library;  /* NULL: none */
    Hone__V1__JobRecord *record; /* its openings of the test part */
    struct job_info job;
};
void report_inputs_release(struct report_inputs *inputs); /* for _cleanup_ */

/* The networks behind report->original and report->redesigned, for a chosen one of another
 * architecture; the caller frees both. */
int report_inputs_networks(struct work_task *task, const job_state *state,
                           const job_network *chosen, struct graph **ret_original,
                           struct graph **ret_redesigned, struct err *err);

/* The task's payload, and the results of its group: of each final that was not proved before its
 * proof, then that of plain int8 where it was not and is no final, then the measurement of all (see
 * follow_finals in the synthesizer). Without any result the state must be whole already. */
int report_inputs_read(struct work_task *task, struct report_inputs *ret, struct err *err);
