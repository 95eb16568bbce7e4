/* Students learn again, run by run, as the manifest says: the same weights must come out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "services/cli/network.h"
#include "services/cli/reproduce.h"
#include "services/cli/status_line.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/design/student.h"
#include "shared/graph/onnx.h"
#include "shared/train/recipe_message.h"
#include "shared/work/message.h"
#include "shared/work/message_json.h"

#define ACCURACY_ELSEWHERE 0.02 /* chaos: other bits at the start are other weights at the end */

/* A network by its hash: one that was delivered or the original (not owned), or one that came out
 * here. */
struct known {
    char hash[HASH_HEX_BYTES];
    void *own;
    const void *onnx;
    size_t bytes;
};
struct retraining {
    struct reproduce *r;
    struct known *known;
    int n_known;
    char *folder; /* for the teacher's answers */
    uint64_t seed;
};

static void retraining_release(struct retraining *t)
{
    for (int i = 0; i < t->n_known; i++)
        free(t->known[i].own);
    free(t->known);
    if (t->folder)
        fs_remove_tree(t->folder, NULL);
    free(t->folder);
}

/* ---- networks by their hashes ---- */

/* Takes `own` over. */
static int remember(struct retraining *t, void *own, const void *onnx, size_t bytes,
                    char ret_hash[HASH_HEX_BYTES], struct err *err)
{
    struct known *list = mem_realloc(t->known, (size_t)t->n_known + 1, sizeof(*list));
    struct known new = {.own = own, .onnx = onnx, .bytes = bytes};
    int rc = list ? hash_bytes(onnx, bytes, new.hash, err) : err_oom(err, "networks");
    t->known = list ? list : t->known;
    if (rc < 0) {
        free(own);
        return rc;
    }
    if (ret_hash)
        memcpy(ret_hash, new.hash, HASH_HEX_BYTES);
    list[t->n_known++] = new;
    return 0;
}

static const struct known *find(const struct retraining *t, const char *hash)
{
    for (int i = 0; i < t->n_known; i++)
        if (strcmp(t->known[i].hash, hash) == 0)
            return &t->known[i];
    return NULL;
}

static int remember_all(struct retraining *t, struct err *err)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < t->r->n; i++)
        if (t->r->networks[i].onnx)
            rc = remember(t, NULL, t->r->networks[i].onnx, t->r->networks[i].bytes, NULL, err);
    return rc;
}

/* What a student began with. */
static int remember_design(struct retraining *t, const char *design, char ret_hash[HASH_HEX_BYTES],
                           struct err *err)
{
    const struct graph *original = t->r->networks[0].g;
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct design_ends ends;
    void *onnx = NULL;
    size_t bytes = 0;
    int rc = student_ends(original, t->seed, &ends, err);
    if (rc == 0)
        rc = student_build(design, original, &ends, &g, err);
    if (rc == 0)
        rc = onnx_write_bytes(g, &onnx, &bytes, err);
    return rc < 0 ? rc : remember(t, onnx, onnx, bytes, ret_hash, err);
}

/* ---- one run ---- */

struct again {
    struct retraining *t;
    yyjson_val *rung;
    const char *subject;
    struct status_line line;
    int threads;
    Hone__V1__TrainSettings *settings; /* the recipe's texts are its own */
    struct recipe how;
    struct train_options options;
    struct graph *from, *g, *teacher_graph, *judge_graph;
    struct teacher *teacher;
    struct train_features features;
    struct train_judge judge;
    struct train_result result;
};

static void again_release(struct again *a)
{
    message_free(a->settings);
    teacher_close(a->teacher);
    train_result_release(&a->result);
    graph_free(a->from);
    graph_free(a->g);
    graph_free(a->teacher_graph);
    graph_free(a->judge_graph);
}

static int show_teacher(void *ctx, int64_t done, int64_t total, struct err *err)
{
    struct again *a = ctx;
    char text[192];
    (void)err;
    snprintf(text, sizeof(text), "%.60s: the teacher answers, %lld of %lld", a->subject,
             (long long)done, (long long)total);
    status_line_show(&a->line, text);
    return 0;
}

static int show_training(void *ctx, const struct train_progress *p, struct err *err)
{
    struct again *a = ctx;
    char text[192], left[32];
    (void)err;
    snprintf(text, sizeof(text), "%.60s: epoch %lld of %lld, %.0f images/s, %s left", a->subject,
             (long long)p->epoch + 1, (long long)p->epochs, p->images_per_second,
             str_seconds(p->left, left));
    status_line_show(&a->line, text);
    return 0;
}

static int set_recipe(struct again *a, struct err *err)
{
    a->how = recipe_from_message(a->settings);
    int rc = recipe_options(&a->how, a->threads, &a->options, err);
    a->options.data =
        manifest_text(yyjson_obj_get(a->t->r->manifest.root, "inputs"), "data_sha256");
    return rc < 0 ? err_wrap(err, "settings") : 0;
}

static int read_settings(struct again *a, struct err *err)
{
    a->settings = message_new(&hone__v1__train_settings__descriptor, err);
    if (!a->settings)
        return -ERR_RESOURCE_EXHAUSTED;
    int rc = message_from_json(yyjson_obj_get(a->rung, "settings"), &a->settings->base, err);
    return rc < 0 ? err_wrap(err, "settings") : set_recipe(a, err);
}

/* The network that the run names; *ret stays NULL where it names none. */
static int read_named(const struct again *a, const char *key, struct graph **ret, struct err *err)
{
    const char *hash = manifest_text(a->rung, key);
    const struct known *known = find(a->t, hash);
    if (!*hash)
        return 0;
    if (!known)
        return err_set(err, ERR_NOT_FOUND, "%.12s... (%s) is not there", hash, key);
    return network_from_bytes(known->onnx, known->bytes, strcmp(key, "from_sha256") == 0, ret, err);
}

static int open_teacher(struct again *a, struct err *err)
{
    const struct samples *s = &a->t->r->samples;
    const struct augmenter views = {.ds = s->ds,
                                    .part = PART_TRAIN,
                                    .pre = s->pre,
                                    .how = a->options.augment,
                                    .seed = (uint64_t)a->how.seed};
    if (!a->teacher_graph)
        return 0;
    struct teacher_options options = recipe_teacher(&a->how, a->teacher_graph, a->threads);
    _cleanup_(freep) char *path = str_printf("%s/teacher", a->t->folder);
    options.data = a->options.data;
    options.progress = show_teacher;
    options.progress_ctx = a;
    int rc = path ? teacher_build(a->teacher_graph, &views, &options, path, NULL, err)
                  : err_oom(err, "the teacher");
    if (rc == 0)
        rc = teacher_open(path, &a->teacher, err);
    a->options.teacher = a->teacher;
    if (rc < 0 || !a->how.features)
        return rc;
    a->options.features = &a->features;
    return recipe_features(&a->how, a->teacher_graph, &s->pre, a->g, &a->features, err);
}

static int open_network(struct again *a, struct err *err)
{
    const struct samples *s = &a->t->r->samples;
    recipe_settle(&a->how, a->from);
    int rc = recipe_network(&a->how, a->from, s->ds, &s->pre, a->threads, &a->g, &a->options.frozen,
                            err);
    return rc < 0 ? rc : 0;
}

static int prepare(struct again *a, struct err *err)
{
    const struct samples *s = &a->t->r->samples;
    int rc = read_settings(a, err);
    if (rc == 0)
        rc = read_named(a, "from_sha256", &a->from, err);
    if (rc == 0)
        rc = read_named(a, "teacher_sha256", &a->teacher_graph, err);
    if (rc == 0)
        rc = read_named(a, "judge_sha256", &a->judge_graph, err);
    if (rc == 0)
        rc = open_network(a, err);
    if (rc == 0)
        rc = open_teacher(a, err);
    /* As the trainer has it: without a judge of its own the teacher says what is right. */
    a->judge = (struct train_judge){a->judge_graph ? a->judge_graph : a->teacher_graph, s->pre};
    a->options.judge = a->judge.network ? &a->judge : NULL;
    a->options.original = a->judge.network;
    return rc < 0 ? rc : 0;
}

static int learn(struct again *a, struct err *err)
{
    const struct samples *s = &a->t->r->samples;
    a->options.progress = show_training;
    a->options.progress_ctx = a;
    int rc = train_run(a->g, s->ds, &s->pre, &a->options, &a->result, err);
    status_line_clear(&a->line);
    return rc;
}

/* A further run may have begun with it. */
static int remember_trunk(struct again *a, char ret_hash[HASH_HEX_BYTES], struct err *err)
{
    void *onnx = NULL;
    size_t bytes = 0;
    *ret_hash = 0;
    if (!a->result.trunk)
        return 0;
    int rc =
        recipe_trunk(&a->how, a->result.trunk, a->options.frozen, a->t->r->samples.pre_text, err);
    if (rc == 0)
        rc = onnx_write_bytes(a->result.trunk, &onnx, &bytes, err);
    return rc < 0 ? rc : remember(a->t, onnx, onnx, bytes, ret_hash, err);
}

/* Runs it; what comes out is known from then on. */
static int run(struct again *a, char ret_hash[HASH_HEX_BYTES], char ret_trunk[HASH_HEX_BYTES],
               struct err *err)
{
    const struct samples *s = &a->t->r->samples;
    void *onnx = NULL;
    size_t bytes = 0;
    int rc = learn(a, err);
    if (rc == 0)
        rc = remember_trunk(a, ret_trunk, err);
    if (rc == 0)
        rc = recipe_ship(&a->how, a->result.graph, s->pre_text, err);
    if (rc == 0)
        rc = onnx_write_bytes(a->result.graph, &onnx, &bytes, err);
    return rc < 0 ? rc : remember(a->t, onnx, onnx, bytes, ret_hash, err);
}

/* ---- what is said of it ---- */

static int add_hash(struct retraining *t, const char *subject, const char *number,
                    const char *reported, const char *hash, struct err *err)
{
    const bool same = strcmp(hash, reported) == 0, here = t->r->same_machine;
    const struct finding finding = {
        .subject = (char *)subject,
        .number = (char *)number,
        .reported = (char *)reported,
        .reproduced = (char *)hash,
        .note = (char *)(same || here ? "" : "another machine or version rounds otherwise"),
        .verdict = same   ? SAME
                   : here ? DIFFERS
                          : ELSEWHERE,
    };
    return findings_add(&t->r->findings, &finding, err);
}

static int add_accuracy(const struct again *a, const char *subject, struct err *err)
{
    const struct train_result *result = &a->result;
    const double value =
        result->n_epochs ? result->curve[result->n_epochs - 1].search_accuracy : NAN;
    return findings_number(&a->t->r->findings, subject, "on the search part",
                           manifest_number(a->rung, "accuracy"), value, 6,
                           a->t->r->same_machine ? 0 : ACCURACY_ELSEWHERE, err);
}

static int leave(struct retraining *t, const char *subject, const char *why, struct err *err)
{
    return findings_leave(&t->r->findings, subject, "weights, sha256", why, err);
}

static int train_again(struct retraining *t, const char *student, int index, yyjson_val *rung,
                       struct err *err)
{
    const double threads = manifest_number(rung, "threads");
    _cleanup_(again_release) struct again a = {
        .t = t, .rung = rung, .threads = threads >= 1 ? (int)threads : (int)t->r->q->threads};
    _cleanup_(freep) char *subject = str_printf("%s, run %d", student, index + 1);
    char hash[HASH_HEX_BYTES], trunk[HASH_HEX_BYTES];
    struct err why = {0};
    if (!subject)
        return err_oom(err, "a run");
    a.subject = subject;
    a.line = status_line_begin(t->r->q->json);
    if (!yyjson_is_obj(yyjson_obj_get(rung, "settings")))
        return leave(t, subject, "the manifest does not say how it was trained", err);
    int rc = prepare(&a, &why);
    if (rc == -ERR_NOT_FOUND)
        return leave(t, subject, why.message, err);
    if (rc == 0)
        rc = run(&a, hash, trunk, &why);
    if (rc < 0)
        return err_set(err, why.code, "%s: %s", subject, why.message);
    const char *of_trunk = manifest_text(rung, "trunk_sha256");
    rc = add_hash(t, subject, "weights, sha256", manifest_text(rung, "sha256"), hash, err);
    if (rc == 0 && *of_trunk)
        rc =
            add_hash(t, subject, "weights before the rate went down, sha256", of_trunk, trunk, err);
    return rc < 0 ? rc : add_accuracy(&a, subject, err);
}

/* The network that the student was built as last. */
static struct reproduced *built_last(struct reproduce *r, yyjson_val *student)
{
    const char *design = manifest_text(student, "design"), *hash = "";
    size_t i, n;
    yyjson_val *entry;
    yyjson_arr_foreach(yyjson_obj_get(r->manifest.root, "networks"), i, n, entry)
    {
        if (strcmp(manifest_text(entry, "design"), design) == 0 &&
            !str_ends_with(manifest_text(entry, "name"), "-tuned")) /* it learned on as it was */
            hash = manifest_text(entry, "sha256");
    }
    for (int k = 1; k < r->n; k++)
        if (*hash && strcmp(manifest_text(r->networks[k].entry, "sha256"), hash) == 0)
            return &r->networks[k];
    return NULL;
}

/* From the weights that it was built from, where they came out again. */
static int build_again(struct retraining *t, yyjson_val *student, struct err *err)
{
    const struct known *known = find(t, manifest_text(student, "built_sha256"));
    _cleanup_(graph_freep) struct graph *parent = NULL;
    struct reproduced *network = built_last(t->r, student);
    if (!known || !network)
        return 0;
    int rc = onnx_read_bytes(known->onnx, known->bytes, NULL, NULL, &parent, err);
    return rc < 0 ? rc : reproduce_build(t->r, network, parent, NULL, err);
}

static int train_student(struct retraining *t, yyjson_val *student, struct err *err)
{
    size_t i, n;
    yyjson_val *rungs = yyjson_obj_get(student, "rungs"), *rung;
    const char *first = manifest_text(yyjson_arr_get_first(rungs), "from_sha256");
    char hash[HASH_HEX_BYTES];
    _cleanup_(freep) char *subject = str_printf("%s, its design", manifest_text(student, "name"));
    if (!subject)
        return err_oom(err, "a student");
    const bool designed = reproduce_is_design(manifest_text(student, "design"));
    int rc = designed ? remember_design(t, manifest_text(student, "design"), hash, err) : 0;
    if (rc == 0 && designed && *first)
        rc = add_hash(t, subject, "first weights, sha256", first, hash, err);
    yyjson_arr_foreach(rungs, i, n, rung)
    {
        if (rc == 0)
            rc = train_again(t, manifest_text(student, "name"), (int)i, rung, err);
    }
    return rc < 0 ? rc : build_again(t, student, err);
}

/* Learning on in few bits is not on record. */
static int leave_tuned(struct reproduce *r, struct err *err)
{
    int rc = 0;
    for (int i = 1; rc == 0 && i < r->n; i++)
        if (str_ends_with(r->networks[i].name, "-tuned"))
            rc = findings_leave(&r->findings, r->networks[i].name, "weights, sha256",
                                "the manifest does not say how it learned on in few bits", err);
    return rc;
}

int reproduce_training(struct reproduce *r, struct err *err)
{
    yyjson_val *settings = yyjson_obj_get(r->manifest.root, "settings"), *student;
    const char *tmp = getenv("TMPDIR");
    _cleanup_(retraining_release) struct retraining t = {
        .r = r,
        .seed = yyjson_get_uint(yyjson_obj_get(settings, "seed")),
        .folder = str_printf("%s/hone-train-XXXXXX", tmp && *tmp ? tmp : "/tmp"),
    };
    size_t i, n;
    if (!t.folder)
        return err_oom(err, "training");
    if (!mkdtemp(t.folder)) {
        free(TAKE_PTR(t.folder));
        return err_set(err, ERR_PERMISSION_DENIED, "no folder can be made (set TMPDIR)");
    }
    yyjson_val *students = yyjson_obj_get(r->manifest.root, "students");
    const char *only = r->q->student;
    if (only && !manifest_find(students, "name", only))
        return err_set(err, ERR_NOT_FOUND, "the manifest has no student '%.60s'", only);
    int rc = remember_all(&t, err);
    yyjson_arr_foreach(students, i, n, student)
    {
        if (rc == 0 && (!only || strcmp(manifest_text(student, "name"), only) == 0))
            rc = train_student(&t, student, err);
    }
    return rc == 0 && !only ? leave_tuned(r, err) : rc;
}

/* ---- a plain network beside them ---- */

static double all_epochs(yyjson_val *student)
{
    size_t i, n;
    yyjson_val *rung;
    double sum = 0;
    yyjson_arr_foreach(yyjson_obj_get(student, "rungs"), i, n, rung)
    {
        const double epochs = manifest_number(rung, "epochs");
        sum += epochs > 0 ? epochs : 0;
    }
    return sum;
}

/* The student's own settings, without its teacher. */
static int plain_settings(struct again *a, yyjson_val *student, struct err *err)
{
    int rc = read_settings(a, err);
    if (rc < 0)
        return rc;
    a->settings->epochs = (uint32_t)fmin(all_epochs(student), 1e6);
    a->settings->distil = -1; /* 0 */
    a->settings->views = 0;
    a->settings->reinit = true;
    rc = message_set(&a->settings->features, "", err);
    return rc < 0 ? rc : set_recipe(a, err);
}

int reproduce_train_plain(struct reproduce *r, const char *design, yyjson_val *student,
                          struct plain_run *ret, struct err *err)
{
    yyjson_val *rung = yyjson_arr_get_first(yyjson_obj_get(student, "rungs"));
    const double threads = manifest_number(rung, "threads");
    _cleanup_(retraining_release) struct retraining t = {.r = r, .seed = r->samples.seed};
    _cleanup_(again_release) struct again a = {.t = &t,
                                               .rung = rung,
                                               .subject = "the control",
                                               .line = status_line_begin(r->q->json),
                                               .threads = threads >= 1 ? (int)threads
                                                                       : (int)r->q->threads};
    if (!yyjson_is_obj(yyjson_obj_get(rung, "settings")))
        return err_set(err, ERR_FAILED_PRECONDITION, "the manifest does not say how %s was trained",
                       manifest_text(student, "name"));
    int rc = remember_design(&t, design, NULL, err);
    if (rc == 0)
        rc = plain_settings(&a, student, err);
    if (rc == 0)
        rc = network_from_bytes(t.known[0].onnx, t.known[0].bytes, true, &a.from, err);
    if (rc == 0)
        rc = open_network(&a, err);
    if (rc == 0)
        rc = learn(&a, err);
    if (rc == 0)
        rc = recipe_ship(&a.how, a.result.graph, r->samples.pre_text, err);
    if (rc < 0)
        return rc;
    const struct train_result *result = &a.result;
    *ret = (struct plain_run){
        .g = TAKE_PTR(a.result.graph),
        .epochs = a.options.epochs,
        .seconds = result->seconds,
        .search_accuracy =
            result->n_epochs ? result->curve[result->n_epochs - 1].search_accuracy : NAN};
    return 0;
}
