#pragma once
/*
 * Cases of the ONNX conformance suite: a folder with model.onnx and test_data_set_*, each with the
 * inputs and the expected outputs.
 */
#include "shared/graph/graph.h"

/* Where Debian's libonnx-testdata lies (or HONE_ONNX_TESTDATA); NULL when it is not there. */
const char *onnx_case_root(void);

#define ONNX_CASE_MAX_VALUES 64

/* Which inputs the model gets as constants. Those that decide about shapes (Reshape's target,
 * Slice's bounds, ...) always are: Hone compiles for known shapes. */
enum onnx_case_binding {
    BIND_STEERING,
    BIND_ALL_BUT_FIRST, /* weights are constants, as in a trained network */
};

struct onnx_case {
    char name[160];
    char operators[64];   /* the operator, or "several" */
    const char *left_out; /* why Hone does not run this model; NULL: it must */
    int n_data_sets;
    char folder[512];
};

/* Looks at folder/model.onnx. */
int onnx_case_open(const char *folder, struct onnx_case *ret, struct err *err);

/* One data set, imported. Inputs are those of the graph, in its order. */
struct onnx_case_run {
    struct graph *graph;
    struct tensor *inputs[ONNX_CASE_MAX_VALUES], *expected[ONNX_CASE_MAX_VALUES];
};
int onnx_case_load(const struct onnx_case *c, int data_set, enum onnx_case_binding binding,
                   struct onnx_case_run *ret, struct err *err);
void onnx_case_run_release(struct onnx_case_run *run);

/* As ONNX's own runner compares: |got - want| <= atol + rtol * |want|, NaN equals NaN; integers
 * exactly; types and shapes as well. */
int onnx_case_compare(const struct tensor *got, const struct tensor *want, double rtol, double atol,
                      struct err *err);
