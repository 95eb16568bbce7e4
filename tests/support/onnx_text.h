#pragma once
/*
 * Small ONNX models for tests, written as text, one thing a line:
 *
 *     opset 13
 *     input x float N,3,8,8
 *     init w float 4,3,3,3 rand
 *     init shape int64 2 = 0 -1
 *     Conv conv1 x,w -> y pads=[1,1,1,1] auto_pad="NOTSET"
 *     Relu _ y -> z                      (a node without a name)
 *     com.microsoft::Gelu g z -> u
 *     output z float N,4,8,8             (type and shape may be left out)
 *
 * Dimensions: numbers, names (symbolic) or "-" for a scalar. Attributes: 1, 1.5, "text", [1,2],
 * [1.0,2.0], or {int64 2 = 1 2} for a tensor; the decimal point makes a float. Inputs that are left
 * out are empty between commas. Random numbers are normal (rand) or from 0.5 to 1.5 (positive), the
 * same each time for the same name.
 *
 * A mistake in the text ends the test.
 */
#include <onnx.pb-c.h>

#include "shared/graph/graph.h"
#include "shared/graph/onnx.h"

/* The model in the arena, to be changed as the test likes. */
Onnx__ModelProto *onnx_text_model(struct arena *arena, const char *text);

/* Reads the model that the text describes (bytes made and read again). `limits` NULL: default. */
int onnx_text_read(const char *text, const struct onnx_limits *limits, struct graph **ret,
                   struct err *err);
int onnx_text_read_model(const Onnx__ModelProto *model, const char *folder,
                         const struct onnx_limits *limits, struct graph **ret, struct err *err);

/* The graph, which must be readable. */
struct graph *onnx_text_graph(const char *text);

/* Evaluates both graphs on the same random inputs (batch 2 where it is open) and returns the
 * largest difference of their outputs, relative to the largest output; the shapes must agree. */
double graph_difference(const struct graph *a, const struct graph *b);
/* An input for the value: normal numbers, or small integers. The caller's. */
struct tensor *random_input(const struct value *value, int64_t batch);
