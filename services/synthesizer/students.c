#include "services/synthesizer/students.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/ablate.h"
#include "services/synthesizer/propose.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/design/student.h"
#include "shared/graph/onnx.h"
#include "shared/train/unfold.h"

#define DELIVERIES 10 /* of a training task: it goes on where it was */
#define USUAL_BATCH 64
#define LEAST_BATCH 16
#define EPOCH_STEPS 100     /* of little data: an epoch has as many, by smaller batches */
#define USUAL_RATE 0.1      /* of that batch */
#define INHERITED_RATE 0.01 /* of weights that fit already */
#define LOOKAHEAD 5
#define TRUNK_WARMUP 0.02 /* who goes on from weights that learned at the full rate */
#define USUAL_KERNEL 3    /* side, at most, of stems that say none */
#define TUNE_RATE 2e-4    /* of Adam, of that batch: for networks in few bits */
#define TEMPERATURE 4.0
#define MOST_TEACHER_DROP 0.5 /* points on the search part, of the original in 8 bits */
#define TEACHER_SHARE 0.9     /* of the loss, where there are labels; else all */

/* ---- what the original is ---- */

static struct design_ends reads(const job_state *state, const struct graph *g)
{
    struct design_ends ends = {.seed = state->spec->seed};
    const struct value *in = g->n_inputs > 0 ? g->values[g->inputs[0]] : NULL;
    if (in && in->shape.rank == 4) {
        ends.channels = in->shape.dim[1];
        ends.height = in->shape.dim[2];
        ends.width = in->shape.dim[3];
    }
    return ends;
}

int students_reads(struct work_task *task, const job_state *state, struct design_ends *ret,
                   struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = load_graph(task, state->network, &g, err);
    if (rc == 0)
        *ret = reads(state, g);
    return rc;
}

int students_ends(struct work_task *task, const job_state *state, struct design_ends *ret,
                  struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = load_graph(task, state->network, &g, err);
    return rc < 0 ? rc : student_ends(g, state->spec->seed, ret, err);
}

struct cost students_original(const job_state *state)
{
    return (struct cost){.macs = (int64_t)state->baseline->macs,
                         .parameters = (int64_t)state->baseline->parameters};
}

/* ---- the list ---- */

static int describe(job_state *state, job_student *student, const struct space_student *from,
                    const char *network, struct err *err)
{
    student->predicted_us = from->us;
    student->macs = (uint64_t)from->macs;
    student->parameters = (uint64_t)from->parameters;
    student->predicted = NAN;
    int rc = message_setf(&student->name, err, "student-%zu", state->n_students + 1);
    if (rc == 0)
        rc = message_set(&student->design, from->text, err);
    return rc == 0 ? message_set(&student->network, network, err) : rc;
}

/* The network is kept, and a student with it is in the state. */
static int admit(struct work_task *task, job_state *state, const struct space_student *from,
                 const struct graph *g, bool inherits, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    char name[HASH_HEX_BYTES];
    int rc = onnx_write_bytes(g, &data, &bytes, err);
    if (rc == 0)
        rc = store_put(task->store, data, bytes, name, err);
    if (rc < 0)
        return err_wrap(err, "student '%s'", from->text);
    job_student *student = message_new(&hone__v1__student__descriptor, err);
    if (!student)
        return -ERR_RESOURCE_EXHAUSTED;
    student->inherits = inherits;
    rc = describe(state, student, from, name, err);
    if (rc == 0)
        rc = message_append(&state->students, &state->n_students, student, err);
    if (rc < 0)
        message_free(student);
    return rc;
}

int students_inherit(struct work_task *task, job_state *state, struct graph *g, const char *text,
                     double us, struct err *err)
{
    const struct cost cost = graph_cost(g);
    const struct space_student from = {
        .text = text, .us = us, .macs = cost.macs, .parameters = cost.parameters};
    int rc = graph_set_metadata(g, "hone.design", text, err);
    return rc == 0 ? admit(task, state, &from, g, true, err) : rc;
}

int students_lower(job_student *student, const char *layer, const char *precision, struct err *err)
{
    Hone__V1__LayerChoice *choice = message_new(&hone__v1__layer_choice__descriptor, err);
    if (!choice)
        return -ERR_RESOURCE_EXHAUSTED;
    int rc = message_set(&choice->layer, layer, err);
    if (rc == 0)
        rc = message_set(&choice->precision, precision, err);
    if (rc == 0)
        rc = message_append(&student->layers, &student->n_layers, choice, err);
    if (rc < 0)
        message_free(choice);
    return rc;
}

int students_add(struct work_task *task, job_state *state, const struct space_student *from,
                 const struct design_ends *ends, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL, *original = NULL;
    int rc = load_graph(task, state->network, &original, err);
    if (rc == 0)
        rc = student_build(from->text, original, ends, &g, err);
    if (rc < 0)
        return err_wrap(err, "student '%s'", from->text);
    return admit(task, state, from, g, false, err);
}

int students_tell(struct work_task *task, job_state *state, struct err *err)
{
    const job_student *s = state->students[state->n_students - 1];
    _cleanup_(freep) char *fields = str_printf(
        "\"name\":\"%s\",\"design\":\"%s\",\"predicted_us\":%.1f,\"macs\":%llu,\"parameters\":%llu",
        s->name, s->design, s->predicted_us, (unsigned long long)s->macs,
        (unsigned long long)s->parameters);
    int rc = fields ? work_event(task, "enrolled", fields, err) : err_oom(err, "an event");
    return rc < 0 ? rc
                  : state_decide(state, err, "%s: %s (%.1f us, %.1f M MACs, %.0f K parameters)",
                                 s->name, s->design, s->predicted_us, (double)s->macs / 1e6,
                                 (double)s->parameters / 1e3);
}

bool students_active(const job_student *student)
{
    return !*student->out;
}

double students_error(const job_student *student)
{
    double best = NAN;
    for (size_t i = 0; i < student->n_accuracies; i++)
        best = fmax(best, student->accuracies[i]);
    return 1 - best;
}

double students_epoch_s(const job_state *state, const job_student *student, double mac_per_s)
{
    double epochs = 0;
    for (size_t i = 0; i < student->n_epochs; i++)
        epochs += student->epochs[i];
    if (epochs > 0)
        return student->seconds / epochs;
    return 3 * (double)student->macs * (double)state->data->n_train / mac_per_s;
}

/* ---- training ---- */

/* Samples are moved by up to an eighth of their side. Pictures in colour are mirrored; what has one
 * channel may be writing or sound, which a mirror makes something else of. */
void students_look(const struct design_ends *ends, Hone__V1__TrainSettings *s)
{
    const int64_t side = ends->height < ends->width ? ends->height : ends->width;
    s->flip = (char *)(ends->channels == 3 ? "alternating" : "none");
    s->crop = side >= 16 ? (uint32_t)(side / 8) : 0;
    s->border = (char *)"reflect";
}

static uint32_t batch_of(const job_state *state)
{
    uint32_t batch = USUAL_BATCH;
    while (batch > LEAST_BATCH && state->data->n_train / batch < EPOCH_STEPS)
        batch /= 2;
    return batch;
}

/* Whether the patches of pictures that its first layer reads are small enough. */
static bool can_whiten(const job_student *student, const struct design_ends *ends)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    if (!arena || design_parse(student->design, arena, &design, NULL) < 0)
        return false;
    const int64_t side = design.pieces[0].kernel ? design.pieces[0].kernel : USUAL_KERNEL;
    return ends->channels * side * side <= WHITEN_MOST_PATCH;
}

static void settings_of(const job_state *state, const job_student *student,
                        const struct design_ends *ends, int epochs, Hone__V1__TrainSettings *s)
{
    s->epochs = (uint32_t)epochs;
    s->batch = batch_of(state);
    s->rate = (student->inherits ? INHERITED_RATE : USUAL_RATE) * s->batch / USUAL_BATCH;
    s->seed = state->spec->seed;
    s->schedule = (char *)"trapezoid";
    s->warmup = *student->trunk ? TRUNK_WARMUP : 0; /* 0: the usual one */
    s->evaluate = -1;
    s->distil = state->data->labels_usable ? TEACHER_SHARE : 1;
    s->temperature = TEMPERATURE;
    s->views = state->views;
    s->reinit = student->rungs == 0 && !student->inherits;
    s->zero_residual = s->identity = s->reinit;
    s->whiten = s->reinit && can_whiten(student, ends);
    s->lookahead = LOOKAHEAD;
    students_look(ends, s);
}

/* The original in 8 bits where that loses little, for it answers twice as fast; else itself. */
static char *teacher_of(const job_state *state)
{
    double upper95;
    const double drop = state_expected_drop(state, state->plain_int8, &upper95);
    return drop <= MOST_TEACHER_DROP ? state->plain_int8->artifact : state->network;
}

/* Of whom and of what is the same for all. */
static void learn_what(const job_state *state, Hone__V1__TrainTask *train)
{
    train->data = state->data->artifact;
    train->preprocess = state->preprocess;
    train->teacher = teacher_of(state);
    train->judge = state->network;
}

static int follow_training(struct work_output *out, Hone__V1__TrainTask *train, struct err *err)
{
    int rc = work_follow(out, "trainer", "train", &train->base, err);
    if (rc == 0)
        out->tasks[out->n_tasks - 1].max_deliveries = DELIVERIES;
    return rc;
}

int students_train(struct work_output *out, const job_state *state, const job_student *student,
                   const struct design_ends *ends, int epochs, struct err *err)
{
    Hone__V1__TrainTask train = HONE__V1__TRAIN_TASK__INIT;
    Hone__V1__TrainSettings settings = HONE__V1__TRAIN_SETTINGS__INIT;
    settings_of(state, student, ends, epochs, &settings);
    train.name = student->name;
    train.network = *student->trunk ? student->trunk : student->network;
    train.settings = &settings;
    learn_what(state, &train);
    ablate_training(state, student, &train);
    return follow_training(out, &train, err);
}

int students_tune(struct work_output *out, const job_state *state, const job_student *student,
                  const job_network *network, const struct design_ends *ends, int epochs,
                  struct err *err)
{
    Hone__V1__TrainTask train = HONE__V1__TRAIN_TASK__INIT;
    Hone__V1__TrainSettings settings = HONE__V1__TRAIN_SETTINGS__INIT;
    settings_of(state, student, ends, epochs, &settings);
    settings.optimizer = (char *)"adam";
    settings.schedule = (char *)"cosine";
    settings.warmup = 0;
    settings.rate = TUNE_RATE * settings.batch / USUAL_BATCH;
    settings.lookahead = 0;
    settings.views = settings.views < (uint32_t)epochs ? settings.views : (uint32_t)epochs;
    train.name = network->name;
    train.network = network->artifact;
    train.original = student->network;
    train.settings = &settings;
    learn_what(state, &train);
    ablate_training(state, student, &train);
    return follow_training(out, &train, err);
}

static int give_up(job_state *state, job_student *student, const char *why, struct err *err)
{
    student->failed = true;
    int rc = message_set(&student->out, why, err);
    return rc == 0 ? state_decide(state, err, "%s is given up: %s", student->name, why) : rc;
}

/* The whole result is kept for the report's curves. */
static int keep_result(struct work_task *task, job_student *student,
                       const Hone__V1__TrainResult *result, struct err *err)
{
    char name[HASH_HEX_BYTES];
    int rc = message_store(task->store, result, name, err);
    return rc < 0 ? rc : message_append_text(&student->trained, &student->n_trained, name, err);
}

int students_take(struct work_task *task, int i, job_state *state, job_student *student,
                  struct err *err)
{
    _cleanup_(message_freep) Hone__V1__TrainResult *result = NULL;
    if (!task->task->results[i])
        return give_up(state, student, task->task->failures[i] ? task->task->failures[i] : "lost",
                       err);
    int rc = work_group_result(task, i, &hone__v1__train_result__descriptor,
                               (ProtobufCMessage **)&result, err);
    if (rc == 0)
        rc = keep_result(task, student, result, err);
    const Hone__V1__Accuracy *a =
        rc == 0 ? state_accuracy(result->network, "search", "hone") : NULL;
    if (rc == 0 && !(a && isfinite(a->value)))
        return give_up(state, student, "its training did not succeed", err);
    /* The network stays where a further rung made it worse. */
    if (rc == 0 && !(1 - a->value > students_error(student)))
        rc = message_set(&student->network, result->network->artifact, err);
    if (rc == 0)
        rc = message_set(&student->trunk, result->trunk, err);
    if (rc == 0)
        rc = message_append_f64(&student->accuracies, &student->n_accuracies, a->value, err);
    if (rc == 0)
        rc = message_append_f64(&student->epochs, &student->n_epochs, result->epochs, err);
    student->seconds += result ? result->seconds : 0;
    student->rungs += rc == 0;
    student->macs = rc == 0 ? result->network->macs : student->macs;
    return rc;
}
