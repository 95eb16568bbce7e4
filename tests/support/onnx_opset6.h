#pragma once
/*
 * The conformance suite's oldest cases are of opset 6, just below what Hone reads. Most operators
 * did not change with opset 7; this says the others in the new way.
 */
#include <onnx.pb-c.h>
#include <stdbool.h>

const Onnx__AttributeProto *onnx_find_attribute(const Onnx__NodeProto *node, const char *name);

/* Rewrites the nodes; false where one has no counterpart (the graph is then half done). */
bool onnx_raise_opset6(Onnx__GraphProto *graph);
