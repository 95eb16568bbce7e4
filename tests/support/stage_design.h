#pragma once
/*
 * For stages of the redesign: originals in the store of a stage (stage_task.h), and the speed of
 * training that trainers are known for.
 */
#include "tests/support/stage_task.h"

#include "shared/design/design.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"

/* What the tests redesign answers to pictures of this kind. */
static const struct design_ends stage_pictures = {
    .channels = 3, .height = 16, .width = 16, .outputs = 10};

/* A network of the design; with probabilities, a Softmax is its last node and gives the answers of
 * that name. */
static inline struct graph *stage_designed(const char *text, const struct design_ends *ends,
                                           bool probabilities)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    struct design_ends inner = *ends;
    struct graph *g = NULL;
    if (probabilities)
        inner.output = "before the last";
    STAGE_OK(design_parse(text, arena, &design, err));
    STAGE_OK(design_build(&design, &inner, &g, err));
    if (!probabilities)
        return g;
    const int node =
        graph_add_node(g, -1, OP_SOFTMAX, NULL, 1, &g->outputs[0], 1, &ends->output, NULL);
    assert_true(node >= 0);
    g->outputs[0] = g->nodes[node]->outputs[0];
    STAGE_OK(graph_set_attr_int(g, g->nodes[node], "axis", 1, err));
    STAGE_OK(graph_infer(g, err));
    return g;
}

/* The job's network is this one. */
static inline void stage_original(struct stage *s, job_state *state, const struct graph *g)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    char name[HASH_HEX_BYTES];
    STAGE_OK(onnx_write_bytes(g, &data, &bytes, err));
    STAGE_OK(store_put(s->store, data, bytes, name, err));
    STAGE_OK(message_set(&state->network, name, err));
}

/* A job (stage_state) on 50000 training samples whose original is a small network of pictures. */
static inline job_state *stage_redesigned(struct stage *s)
{
    job_state *state = stage_state();
    _cleanup_(graph_freep) struct graph *g =
        stage_designed("conv:8 residual:16:s2 head", &stage_pictures, false);
    stage_original(s, state, g);
    STAGE_OK(message_set(&state->data->artifact, "data", err));
    state->data->n_train = 50000;
    state->data->n_search = 5000;
    state->baseline->macs = 2000000;
    state->spec->seed = 7;
    state->replaced = true; /* alternatives of blocks have their own tests */
    return state;
}

/* Whether trainers on this machine compute in bf16 is said by the field's name. */
static const char *const stage_rate_fields[] = {"mac_per_s 1t", "mac_per_s 1t bf16"};

static inline void stage_rate(struct stage *s, const char *mac_per_s)
{
    for (int i = 0; i < 2; i++)
        STAGE_OK(queue_table_put(s->queue, "training", stage_rate_fields[i], mac_per_s, err));
}

/* The nth training that was asked for, the caller's; NULL: there are not as many. */
static inline Hone__V1__TrainTask *stage_training(const struct stage *s, int nth)
{
    const struct task_spec *spec = stage_follow(s, "train", nth);
    if (!spec)
        return NULL;
    assert_string_equal(spec->queue, "trainer");
    assert_int_equal(spec->max_deliveries, 10);
    return stage_payload(spec, &hone__v1__train_task__descriptor);
}
