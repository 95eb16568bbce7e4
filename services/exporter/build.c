/*
 * Task "build": one network with a precision for each layer, as a QDQ file, scored on the search
 * part. What is scored is the file as written, read back. The network is the job's, whose ranges
 * are known, or one that was trained, which is calibrated first (or has learned quantized: then it
 * is described and scored).
 */
#include "services/exporter/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/exporter/exporter.h"
#include "shared/base/str.h"
#include "shared/coding/packed.h"
#include "shared/graph/cuts.h"
#include "shared/graph/onnx.h"
#include "shared/nn/logits.h"
#include "shared/nn/ranges.h"
#include "shared/work/goal.h"

struct build {
    struct work_task *task;
    const Hone__V1__BuildTask *order;
    const job_state *state;
    struct graph *parent, *child; /* in float; quantized */
    struct arena *arena;
    int n_choices;
    struct quant_choice *choices; /* one for each layer that can be lowered */
    job_network *network;         /* what comes out */
};

static void build_release(struct build *b)
{
    graph_free(b->parent);
    graph_free(b->child);
    arena_free(b->arena);
    message_free(b->network);
}

/* ---- precisions ---- */

static struct quant_choice *choice_of(struct build *b, const char *layer)
{
    for (int i = 0; i < b->n_choices; i++)
        if (strcmp(b->choices[i].layer, layer) == 0)
            return &b->choices[i];
    return NULL;
}

/* Whether a student's choice is of this layer: by name, or by what names begin with ("5-8."). */
static bool is_of(const Hone__V1__LayerChoice *choice, const char *layer)
{
    const size_t n = strlen(choice->layer);
    return n > 0 && choice->layer[n - 1] == '.' ? strncmp(choice->layer, layer, n) == 0
                                                : strcmp(choice->layer, layer) == 0;
}

/* What was selected with a student. Its layers may have other names by now, or be gone. */
static int choose_as_selected(struct build *b, struct err *err)
{
    const Hone__V1__Student *student = b->order->student;
    int rc = 0;
    for (size_t k = 0; rc == 0 && student && k < student->n_layers; k++) {
        enum precision precision;
        rc = precision_parse(student->layers[k]->precision, &precision, err);
        for (int i = 0; rc == 0 && i < b->n_choices; i++)
            if (is_of(student->layers[k], b->choices[i].layer))
                b->choices[i].precision = precision;
    }
    return rc;
}

static int choose(struct build *b, struct err *err)
{
    const char *const *names;
    int rc = quant_layers(b->parent, b->arena, &names, &b->n_choices, err);
    if (rc < 0)
        return rc;
    b->choices = arena_alloc(b->arena, (size_t)b->n_choices + 1, sizeof(*b->choices));
    if (!b->choices)
        return err_oom(err, "the choice of precisions");
    for (int i = 0; i < b->n_choices; i++)
        b->choices[i] = (struct quant_choice){
            .layer = names[i],
            .precision = b->order->all_int8 ? PRECISION_INT8 : PRECISION_FP32,
            .weight_bits = (int)(b->order->weight_bits & 15),
        };
    for (size_t i = 0; i < b->order->n_layers && !b->order->all_int8; i++) {
        const Hone__V1__LayerChoice *wanted = b->order->layers[i];
        struct quant_choice *choice = choice_of(b, wanted->layer), found = {0};
        rc = quant_choice_parse(wanted->precision, &found, err);
        if (rc < 0)
            return err_wrap(err, "layer '%s'", wanted->layer);
        if (choice) {
            choice->precision = found.precision;
            choice->weight_bits = found.weight_bits;
        } else if (found.precision != PRECISION_FP32)
            return err_set(err, ERR_INVALID_ARGUMENT, "layer '%s' cannot run in %s", wanted->layer,
                           wanted->precision);
    }
    return choose_as_selected(b, err);
}

/* ---- the network ---- */

static bool is_trained(const struct build *b)
{
    return *b->order->network != 0;
}

/* A network that has learned in its quantized form stays as it is. */
static bool is_tuned(const struct build *b)
{
    return is_trained(b) && quant_is_quantized(b->parent);
}

static int take_over(struct build *b, struct err *err)
{
    const Hone__V1__BuildTask *order = b->order;
    b->choices = arena_alloc(b->arena, order->n_layers + 1, sizeof(*b->choices));
    if (!b->choices)
        return err_oom(err, "the choice of precisions");
    for (size_t i = 0; i < order->n_layers; i++) {
        struct quant_choice *choice = &b->choices[b->n_choices++];
        choice->layer = order->layers[i]->layer;
        int rc = quant_choice_parse(order->layers[i]->precision, choice, err);
        if (rc < 0)
            return err_wrap(err, "layer '%s'", choice->layer);
    }
    return graph_clone(b->parent, &b->child, err);
}

static int known_ranges(const struct build *b, struct quant_ranges *ret, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__Ranges *message = NULL;
    int rc = message_load(b->task->store, b->state->ranges, &hone__v1__ranges__descriptor, &message,
                          err);
    return rc < 0 ? rc : ranges_from_message(message, ret, err);
}

static int quantize(struct build *b, struct err *err)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    char stage[128];
    snprintf(stage, sizeof(stage), "build %.64s: calibrate", b->order->name);
    int rc = is_trained(b) ? build_calibrate(b->task, b->state, b->parent, stage, &ranges, err)
                           : known_ranges(b, &ranges, err);
    if (rc < 0)
        return rc;
    const struct quant_options options = {.weight_bits = build_weight_bits(b->state)};
    return quant_rewrite(b->parent, b->choices, b->n_choices, &ranges, &options, &b->child, err);
}

static int correct(struct build *b, struct err *err)
{
    bool any = false;
    for (int i = 0; i < b->n_choices; i++)
        any |= b->choices[i].precision == PRECISION_INT8;
    if (!any)
        return 0;
    _cleanup_(build_samples_release) struct build_samples samples = {0};
    int rc = build_open_samples(b->task, b->state, PART_TRAIN, LOWERING_SAMPLES, &samples, err);
    if (rc < 0)
        return rc;
    char stage[128];
    snprintf(stage, sizeof(stage), "build %.64s: correct biases", b->order->name);
    struct build_progress progress = {b->task, stage};
    const struct infer_options infer = {
        .threads = b->task->threads,
        .progress = build_on_progress,
        .progress_ctx = &progress,
    };
    return quant_correct_bias(b->parent, b->child, &infer, samples.view.n, sample_view_fill,
                              &samples.view, err);
}

static int make(struct build *b, struct err *err)
{
    int rc = choose(b, err);
    if (rc == 0)
        rc = quantize(b, err);
    return rc == 0 ? correct(b, err) : rc;
}

static int describe(struct build *b, struct err *err)
{
    const struct lowering_facts facts = {
        .name = b->order->name,
        .parent = b->state->model,
        .preprocess = b->state->preprocess->text,
        .design = is_trained(b) ? b->order->student->design : NULL,
        .seed = b->state->spec->seed,
        .weight_bits = build_weight_bits(b->state),
        .choices = b->choices,
        .n_choices = b->n_choices,
    };
    return lowering_describe(b->child, &facts, err);
}

/* ---- the file ---- */

static int add_layers(struct build *b, struct err *err)
{
    for (int i = 0; i < b->n_choices; i++) {
        Hone__V1__LayerChoice *layer = message_new(&hone__v1__layer_choice__descriptor, err);
        if (!layer)
            return -ERR_RESOURCE_EXHAUSTED;
        int rc = message_set(&layer->layer, b->choices[i].layer, err);
        if (rc == 0)
            rc = message_set(&layer->precision, quant_choice_name(&b->choices[i], (char[8]){0}),
                             err);
        if (rc == 0)
            rc = message_append(&b->network->layers, &b->network->n_layers, layer, err);
        if (rc < 0) {
            message_free(layer);
            return rc;
        }
    }
    return 0;
}

/* The smallest form of the file, where small is what is wanted; it is read back at once. */
static int pack(struct build *b, const void *data, size_t bytes, struct err *err)
{
    _cleanup_(freep) void *packed = NULL;
    _cleanup_(freep) void *back = NULL;
    size_t n = 0, n_back = 0;
    char name[HASH_HEX_BYTES];
    if (!goal_small(b->state->spec))
        return 0;
    int rc = packed_write(data, bytes, &packed, &n, err);
    if (rc == 0)
        rc = packed_read(packed, n, bytes, &back, &n_back, err);
    if (rc == 0 && (n_back != bytes || memcmp(back, data, bytes) != 0))
        rc = err_set(err, ERR_INTERNAL, "the packed network does not come back");
    if (rc == 0)
        rc = store_put(b->task->store, packed, n, name, err);
    if (rc == 0)
        rc = message_set(&b->network->packed, name, err);
    b->network->packed_bytes = n;
    return rc;
}

/* Writes the file, and reads it back as what will be scored. */
static int export(struct build *b, struct graph **ret, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    char name[HASH_HEX_BYTES];
    int rc = onnx_write_bytes(b->child, &data, &bytes, err);
    if (rc == 0)
        rc = store_put(b->task->store, data, bytes, name, err);
    if (rc == 0)
        rc = message_set(&b->network->artifact, name, err);
    if (rc == 0)
        rc = pack(b, data, bytes, err);
    if (rc == 0)
        rc = message_set(&b->network->name, b->order->name, err);
    if (rc == 0 && is_trained(b))
        rc = message_set(&b->network->design, b->order->student->design, err);
    if (rc == 0)
        rc = add_layers(b, err);
    const struct cost cost = graph_cost(b->parent);
    const bool tuned = is_tuned(b);
    b->network->bytes = bytes;
    b->network->macs = tuned ? b->order->student->macs : (uint64_t)cost.macs;
    b->network->parameters = tuned ? b->order->student->parameters : (uint64_t)cost.parameters;
    b->network->predicted_us = b->order->predicted_us;
    b->network->predicted_kl = b->order->predicted_kl;
    return rc < 0 ? rc : onnx_read_bytes(data, bytes, NULL, NULL, ret, err);
}

/* ---- scoring ---- */

static int add_accuracy(struct build *b, const struct logits *original, const float *logits,
                        const int32_t *labels, struct err *err)
{
    Hone__V1__Accuracy *a = message_new(&hone__v1__accuracy__descriptor, err);
    if (!a)
        return -ERR_RESOURCE_EXHAUSTED;
    int rc = message_append(&b->network->accuracies, &b->network->n_accuracies, a, err);
    if (rc < 0) {
        message_free(a);
        return rc;
    }
    struct infer_metrics m;
    infer_metrics(logits, original->rows, labels, original->n, original->width, &m);
    a->value = labels ? m.top1 : m.agreement;
    a->kl = m.kl;
    a->agreement = m.agreement;
    a->n = (uint64_t)original->n;
    char name[HASH_HEX_BYTES];
    struct paired_drop drop;
    infer_paired_drop(logits, original->rows, labels, original->n, original->width, &drop);
    a->drop_points = drop.points;
    a->drop_upper95_points = drop.upper95_points;
    a->worse = (uint64_t)drop.worse;
    a->better = (uint64_t)drop.better;
    rc = logits_write(b->task->store, logits, original->n, original->width, name, err);
    if (rc == 0)
        rc = message_set(&a->predictions, name, err);
    if (rc == 0)
        rc = message_set(&a->metric, b->state->metric, err);
    if (rc == 0)
        rc = message_set(&a->part, part_name(PART_SEARCH), err);
    return rc < 0 ? rc : message_set(&a->engine, "hone", err);
}

static int score(struct build *b, const struct graph *g, struct err *err)
{
    _cleanup_(build_samples_release) struct build_samples samples = {0};
    _cleanup_(logits_release) struct logits original = {0};
    _cleanup_(freep) int32_t *labels = NULL;
    int64_t width = 0;
    const Hone__V1__Accuracy *was = state_accuracy(b->state->baseline, "search", "hone");
    if (!was)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "the original was not scored on the search part");
    int rc = build_open_samples(b->task, b->state, PART_SEARCH, 0, &samples, err);
    if (rc == 0)
        rc = logits_read(b->task->store, was->predictions, &original, err);
    if (rc == 0 && b->state->data->labels_usable)
        rc = sample_view_labels(&samples.view, &labels, err);
    if (rc == 0)
        rc = infer_output_width(g, &width, err);
    if (rc < 0)
        return rc;
    if (original.n != samples.view.n || original.width != width)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "the original's outputs do not fit the search part");
    _cleanup_(freep) float *logits = mem_aligned((size_t)(original.n * width) * sizeof(float));
    if (!logits)
        return err_oom(err, "a score");
    char stage[128];
    snprintf(stage, sizeof(stage), "build %.64s: score", b->order->name);
    struct build_progress progress = {b->task, stage};
    const struct infer_options options = {
        .threads = b->task->threads,
        .progress = build_on_progress,
        .progress_ctx = &progress,
    };
    rc = infer_run(g, &options, original.n, sample_view_fill, &samples.view, logits, err);
    return rc < 0 ? rc : add_accuracy(b, &original, logits, labels, err);
}

/* ---- the task ---- */

static int build(struct build *b, struct err *err)
{
    _cleanup_(graph_freep) struct graph *file = NULL;
    if (is_trained(b) != (b->order->student != NULL))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s",
                       "a trained network and the student that it is go together");
    int rc = build_read_network(b->task, is_trained(b) ? b->order->network : b->state->network,
                                &b->parent, err);
    if (rc == 0)
        rc = is_tuned(b) ? take_over(b, err) : make(b, err);
    if (rc == 0)
        rc = describe(b, err);
    if (rc == 0)
        rc = export(b, &file, err);
    return rc < 0 ? rc : score(b, file, err);
}

int exporter_build(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__BuildTask *order = NULL;
    int rc =
        work_payload(task, &hone__v1__build_task__descriptor, (ProtobufCMessage **)&order, err);
    if (rc < 0)
        return rc;
    _cleanup_(build_release) struct build b = {
        .task = task,
        .order = order,
        .state = order->state,
        .arena = arena_new(),
        .network = message_new(&hone__v1__network__descriptor, err),
    };
    if (!b.arena || !b.network)
        return err_oom(err, "a network");
    rc = build(&b, err);
    if (rc < 0)
        return err_wrap(err, "building %s", order->name);
    Hone__V1__BuildResult result = HONE__V1__BUILD_RESULT__INIT;
    result.network = b.network;
    return work_result(out, &result.base, err);
}
