#pragma once
/* What a job gives its user: verdict, result.json, manifest.json, report.html. */
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/graph.h"
#include "shared/work/state.h"

/* Everything that the three files are made from. */
struct report {
    const job_state *state;
    const Hone__V1__JobSpec *asked; /* as submitted, with paths; NULL when unknown */
    const char *job;
    bool final; /* the job ends with it */
    const Hone__V1__Profile *profile;
    const Hone__V1__Scores *scores;
    const Hone__V1__MeasureResult *measured; /* CPU and ISA of the last measurement */
    const job_network
        *chosen; /* one of state->finals, or state->baseline when none keeps the limit */
    Hone__V1__TrainResult **trained; /* networks that were trained, with their curves */
    size_t n_trained;
    const Hone__V1__Library *library; /* alternatives of blocks; NULL: none were tried */
    Hone__V1__TrainResult **runs; /* of all students: each its own (Student.trained), in order */
    size_t n_runs;                /* 0: not known */
    /* Where the chosen network is of another architecture: the job's network, and it; else NULL. */
    const struct graph *original, *redesigned;
    char *verdict;                /* one sentence; malloc'ed */
    Hone__V1__Opening **openings; /* of the test part, in order */
    size_t n_openings;
    const Hone__V1__JobResult *delivered; /* the other files, for the manifest; NULL: none yet */
    int64_t created_ms, ended_ms;
};

/* The file name under which a network is handed out, by its name: "model.onnx" for the chosen one.
 */
const char *report_file_of(const struct report *report, const job_network *network, char text[160]);
/* What is said of the drop of a final: the bound by which it is judged, and at what confidence, in
 * percent. Where the point estimate decides: the bound alone, at 95 %. */
double report_bound(const struct report *report, const job_network *network, double *ret_percent);
/* Ratio of medians, original over this; 0 when either is unknown. `engine` of both. */
double report_speedup(const struct report *report, const job_network *network,
                      const job_network *over, const char *engine);

/* Each appends its file's text. */
int report_result_json(const struct report *report, struct strbuf *out, struct err *err);
int report_manifest_json(const struct report *report, struct strbuf *out, struct err *err);
int report_html(const struct report *report, struct strbuf *out, struct err *err);
