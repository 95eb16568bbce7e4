#pragma once
/*
 * Plain-C evaluation of single nodes: folds constants at import, and is the reference that every
 * faster implementation is compared with. Written for clarity and exactness (sums in double), not
 * speed. Supports every operator of GRAPH_OPS, any numeric type where ONNX allows it, opset 7
 * to 22. Answers any node over any tensors with outputs or an error that names the node; outputs of
 * more than 2^28 elements are RESOURCE_EXHAUSTED.
 */
#include "shared/graph/graph.h"

/* Runs one node. inputs[i] is NULL where the optional input is left out; outputs[i] receives a new
 * heap tensor (the caller's) unless the node has no output i. Shapes are concrete here. */
int eval_node(const struct graph *g, const struct node *node, const struct tensor *const *inputs,
              struct tensor **outputs, struct err *err);

/* Runs the whole graph: inputs in the order of g->inputs, outputs (heap, caller's) in the order of
 * g->outputs. The batch is taken from the inputs. */
int eval_graph(const struct graph *g, const struct tensor *const *inputs, struct tensor **outputs,
               struct err *err);
