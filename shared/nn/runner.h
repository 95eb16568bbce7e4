#pragma once
/*
 * A network that is ready to be timed, on our kernels or on ONNX Runtime. Several of them take
 * turns in bench_run:
 *
 *     items[i] = runner_item(runners[i]);
 *     bench_run(items, n, &options, results, err);
 */
#include "shared/nn/bench.h"
#include "shared/nn/plan.h"

struct runner;
struct runner_options {
    int64_t batch;
    int threads;
    enum precision precision; /* as in plan_options; ONNX Runtime does as the file says */
    bool peer;                /* on ONNX Runtime */
};
/* The file's bytes are needed no longer afterwards. UNIMPLEMENTED for a network that has not one
 * float input and one float output. */
int runner_open(const void *onnx, size_t bytes, const struct runner_options *options,
                struct runner **ret, struct err *err);
struct runner *runner_free(struct runner *runner); /* NULL-safe, returns NULL */
void runner_freep(struct runner **runner);
struct bench_item runner_item(struct runner *runner);
