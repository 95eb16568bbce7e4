#include "services/cli/reproduce.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/network.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/coding/packed.h"
#include "shared/design/student.h"
#include "shared/graph/cuts.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/nn/logits.h"

/* Of accuracies, as fractions: floats are computed by kernels that are chosen by measuring, so that
 * samples on the edge may fall to the other side; on another machine more of them. */
#define CLOSE_HERE 0.0002
#define CLOSE_ELSEWHERE 0.001
#define CLOSE_SAMPLES 2       /* in any case */
#define CLOSE_KL 0.05         /* of it */
#define BOUND_ROUNDING 0.0001 /* points: bounds are written with so many digits */

#define OF_BLOCKS "it is made of the original's blocks and of what was learned for others"

void reproduce_release(struct reproduce *r)
{
    for (int i = 0; i < r->n; i++) {
        free(r->networks[i].onnx);
        graph_free(r->networks[i].g);
    }
    free(r->networks);
    samples_release(&r->samples);
    findings_release(&r->findings);
    manifest_release(&r->manifest);
}

static yyjson_val *section(const struct reproduce *r, const char *name)
{
    return yyjson_obj_get(r->manifest.root, name);
}

/* ---- files ---- */

static int check_file(struct reproduce *r, yyjson_val *entry, struct err *err)
{
    const char *name = manifest_text(entry, "name");
    char hash[HASH_HEX_BYTES] = "missing";
    _cleanup_(freep) char *path = str_printf("%s/%s", r->manifest.folder, name);
    if (!path)
        return err_oom(err, name);
    if (!*name || strchr(name, '/'))
        return err_set(err, ERR_DATA_LOSS, "the manifest names a file '%.80s'", name);
    if (fs_exists(path)) {
        int rc = hash_file(path, hash, err);
        if (rc < 0)
            return rc;
    }
    return findings_text(&r->findings, name, "sha256", manifest_text(entry, "sha256"), hash, err);
}

static int check_files(struct reproduce *r, struct err *err)
{
    size_t i, n;
    yyjson_val *entry;
    yyjson_arr_foreach(section(r, "files"), i, n, entry)
    {
        int rc = check_file(r, entry, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- networks ---- */

/* Reads the delivered file of this hash, where it is there and a network. */
static int read_delivered(const struct reproduce *r, struct reproduced *network, struct err *err)
{
    yyjson_val *file =
        manifest_find(section(r, "files"), "sha256", manifest_text(network->entry, "sha256"));
    if (!file)
        return 0;
    _cleanup_(freep) char *path =
        str_printf("%s/%s", r->manifest.folder, manifest_text(file, "name"));
    if (!path)
        return err_oom(err, network->name);
    if (!fs_exists(path))
        return 0;
    int rc =
        fs_read(path, onnx_default_limits.max_file_bytes, &network->onnx, &network->bytes, err);
    if (rc < 0)
        return rc;
    rc = onnx_read_bytes(network->onnx, network->bytes, NULL, NULL, &network->g, NULL);
    if (rc == -ERR_RESOURCE_EXHAUSTED)
        return err_oom(err, path);
    if (rc < 0) /* its hash says that it is not what was delivered */
        free(TAKE_PTR(network->onnx));
    return 0;
}

static bool is_known(const struct reproduce *r, yyjson_val *entry)
{
    for (int i = 0; i < r->n; i++)
        if (strcmp(manifest_text(r->networks[i].entry, "sha256"), manifest_text(entry, "sha256")) ==
            0)
            return true;
    return false;
}

static int add_network(struct reproduce *r, yyjson_val *entry, struct err *err)
{
    struct reproduced *list = mem_realloc(r->networks, (size_t)r->n + 1, sizeof(*list));
    if (!list)
        return err_oom(err, "networks");
    r->networks = list;
    list[r->n] = (struct reproduced){.entry = entry, .name = manifest_text(entry, "name")};
    return r->n++ == 0 ? 0 : read_delivered(r, &list[r->n - 1], err);
}

/* The original, the finals, then what else was built: of a final there is more in its own entry. */
static int list_networks(struct reproduce *r, struct err *err)
{
    yyjson_val *const lists[] = {section(r, "finals"), section(r, "networks")};
    yyjson_val *original = yyjson_arr_get_first(lists[1]), *entry;
    if (!original)
        return err_set(err, ERR_DATA_LOSS, "the manifest lists no networks");
    int rc = add_network(r, original, err);
    for (int k = 0; k < 2; k++) {
        size_t i, n;
        yyjson_arr_foreach(lists[k], i, n, entry)
        {
            if (rc == 0 && !is_known(r, entry))
                rc = add_network(r, entry, err);
        }
    }
    return rc;
}

/* ---- the original and the data ---- */

/* Of the file; of what was packed in it, where it is packed. */
static int hash_model(const char *path, char ret[HASH_HEX_BYTES], struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    _cleanup_(freep) void *onnx = NULL;
    size_t bytes = 0;
    int rc = fs_read(path, onnx_default_limits.max_file_bytes, &data, &bytes, err);
    if (rc == 0 && packed_is(data, bytes))
        rc = packed_read(data, bytes, onnx_default_limits.max_file_bytes, &onnx, &bytes, err);
    return rc < 0 ? rc : hash_bytes(onnx ? onnx : data, bytes, ret, err);
}

/* Simplified, as the job kept it, and read back from that. */
static int read_original(struct reproduce *r, const char *path, struct err *err)
{
    struct reproduced *original = &r->networks[0];
    _cleanup_(graph_freep) struct graph *g = NULL;
    yyjson_val *inputs = section(r, "inputs");
    const char *model = manifest_text(inputs, "model_sha256");
    const char *network = manifest_text(inputs, "network_sha256");
    char file[HASH_HEX_BYTES], simplified[HASH_HEX_BYTES];
    int rc = network_read(path, PRECISION_AUTO, &g, err);
    if (rc == 0)
        rc = hash_model(path, file, err);
    if (rc == 0)
        rc = onnx_write_bytes(g, &original->onnx, &original->bytes, err);
    if (rc == 0)
        rc = hash_bytes(original->onnx, original->bytes, simplified, err);
    if (rc == 0)
        rc = onnx_read_bytes(original->onnx, original->bytes, NULL, NULL, &original->g, err);
    /* A model with its weights in other files is known as it was simplified. */
    if (rc == 0)
        rc = findings_text(&r->findings, "the original", "sha256", model,
                           strcmp(model, network) == 0 ? simplified : file, err);
    return rc < 0 ? rc
                  : findings_text(&r->findings, "the original", "sha256, simplified", network,
                                  simplified, err);
}

static int read_data(struct reproduce *r, const char *path, struct err *err)
{
    yyjson_val *inputs = section(r, "inputs");
    const double seed = manifest_number(section(r, "settings"), "seed");
    const char *pre = manifest_text(inputs, "preprocess");
    static const char *const parts[] = {"n_train", "n_search", "n_test"};
    struct samples *s = &r->samples;
    char source[65], packed[HASH_HEX_BYTES];
    s->seed = seed > 0 ? yyjson_get_uint(yyjson_obj_get(section(r, "settings"), "seed")) : 0;
    s->hash = packed;
    int rc = dataset_source_hash(path, source, err);
    if (rc == 0)
        rc = findings_text(&r->findings, "the data", "sha256",
                           manifest_text(inputs, "data_source_sha256"), source, err);
    if (rc == 0)
        rc = samples_open(s, path, r->networks[0].g, "the original", (int)r->q->threads, err);
    s->hash = NULL;
    if (rc == 0)
        rc = findings_text(&r->findings, "the data", "sha256, packed",
                           manifest_text(inputs, "data_sha256"), packed, err);
    for (int i = 0; rc == 0 && i < PART_COUNT; i++)
        rc = findings_number(&r->findings, "the data", parts[i], manifest_number(inputs, parts[i]),
                             (double)dataset_count(s->ds, (enum part)i), 0, 0, err);
    return rc < 0 ? rc : samples_preprocess(s, r->networks[0].g, NULL, pre, err);
}

static bool is_same_machine(const struct reproduce *r)
{
    yyjson_val *hardware = section(r, "hardware"), *versions = section(r, "versions");
    return strcmp(manifest_text(hardware, "cpu"), nn_cpu()) == 0 &&
           strcmp(manifest_text(hardware, "isa"), nn_isa()) == 0 &&
           strcmp(manifest_text(versions, "compute"), nn_version()) == 0 &&
           strcmp(manifest_text(versions, "hone"), HONE_VERSION) == 0;
}

static const char *given_or(const char *given, yyjson_val *inputs, const char *key)
{
    return given ? given : manifest_text(inputs, key);
}

int reproduce_open(struct reproduce *r, const struct reproduce_request *q, struct err *err)
{
    r->q = q;
    int rc = manifest_read(q->manifest, &r->manifest, err);
    if (rc < 0)
        return rc;
    const char *model = given_or(q->model, section(r, "inputs"), "model_path");
    const char *data = given_or(q->data, section(r, "inputs"), "data_path");
    if (!*model || !*data)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the manifest does not say where %s was: name it with --%s",
                       *model ? "the data" : "the original", *model ? "data" : "model");
    r->same_machine = is_same_machine(r);
    rc = check_files(r, err);
    if (rc == 0)
        rc = list_networks(r, err);
    if (rc == 0)
        rc = read_original(r, model, err);
    return rc < 0 ? rc : read_data(r, data, err);
}

/* ---- costs ---- */

bool reproduce_is_design(const char *text)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    return arena && design_parse(text, arena, &design, NULL) >= 0;
}

/* Of a network of another architecture in float, as it learned and was built; else the original's.
 */
static int float_cost(const struct reproduce *r, const char *design, struct cost *ret,
                      struct err *err)
{
    const struct graph *original = r->networks[0].g;
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct design_ends ends;
    if (!*design) {
        *ret = graph_cost(original);
        return 0;
    }
    int rc = student_ends(original, 0, &ends, err);
    ends.bare = true;
    if (rc == 0)
        rc = student_build(design, original, &ends, &g, err);
    if (rc == 0)
        rc = pass_simplify(g, err);
    if (rc < 0)
        return err_wrap(err, "%s", design);
    *ret = graph_cost(g);
    return 0;
}

/* What it was judged by where size is the objective. */
static int packed_size(struct reproduce *r, const struct reproduced *network, struct err *err)
{
    const double reported = manifest_number(network->entry, "packed_bytes");
    const char *hash = manifest_text(network->entry, "packed_sha256");
    _cleanup_(freep) void *packed = NULL;
    size_t bytes = 0;
    char again[HASH_HEX_BYTES];
    if (!(reported > 0))
        return 0;
    int rc = packed_write(network->onnx, network->bytes, &packed, &bytes, err);
    if (rc == 0)
        rc = findings_number(&r->findings, network->name, "bytes, packed", reported, (double)bytes,
                             0, 0, err);
    if (rc == 0 && *hash)
        rc = hash_bytes(packed, bytes, again, err);
    return rc == 0 && *hash
               ? findings_text(&r->findings, network->name, "sha256, packed", hash, again, err)
               : rc;
}

static int network_costs(struct reproduce *r, const struct reproduced *network, struct err *err)
{
    struct cost cost = {0};
    yyjson_val *e = network->entry;
    const char *design = manifest_text(e, "design");
    const bool known = !*design || reproduce_is_design(design);
    int rc = known ? float_cost(r, design, &cost, err) : 0;
    if (rc == 0 && network != r->networks)
        rc = findings_number(&r->findings, network->name, "bytes", manifest_number(e, "bytes"),
                             (double)network->bytes, 0, 0, err);
    if (rc == 0)
        rc = packed_size(r, network, err);
    if (rc == 0)
        rc = findings_number(&r->findings, network->name, "macs", manifest_number(e, "macs"),
                             (double)graph_cost(network->g).macs, 0, 0, err);
    if (rc == 0 && !known)
        return findings_leave(&r->findings, network->name, "parameters", OF_BLOCKS, err);
    return rc < 0 ? rc
                  : findings_number(&r->findings, network->name, "parameters",
                                    manifest_number(e, "parameters"), (double)cost.parameters, 0, 0,
                                    err);
}

static int student_costs(struct reproduce *r, yyjson_val *student, struct err *err)
{
    struct cost cost;
    _cleanup_(freep) char *name = str_printf("%s, its design", manifest_text(student, "name"));
    if (!name)
        return err_oom(err, "a student");
    if (!reproduce_is_design(manifest_text(student, "design")))
        return findings_leave(&r->findings, name, "macs, parameters", OF_BLOCKS, err);
    int rc = float_cost(r, manifest_text(student, "design"), &cost, err);
    if (rc == 0)
        rc = findings_number(&r->findings, name, "macs", manifest_number(student, "macs"),
                             (double)cost.macs, 0, 0, err);
    return rc < 0 ? rc
                  : findings_number(&r->findings, name, "parameters",
                                    manifest_number(student, "parameters"), (double)cost.parameters,
                                    0, 0, err);
}

static int say_missing(struct reproduce *r, const struct reproduced *network, struct err *err)
{
    return findings_leave(&r->findings, network->name, "all", "its file is not here", err);
}

int reproduce_costs(struct reproduce *r, struct err *err)
{
    size_t i, n;
    yyjson_val *student;
    int rc = 0;
    for (int k = 0; rc == 0 && k < r->n; k++)
        rc = r->networks[k].g ? network_costs(r, &r->networks[k], err)
                              : say_missing(r, &r->networks[k], err);
    yyjson_arr_foreach(section(r, "students"), i, n, student)
    {
        if (rc == 0)
            rc = student_costs(r, student, err);
    }
    return rc;
}

/* ---- accuracies ---- */

/* One part of the data, with what the original answers. */
struct scoring {
    struct reproduce *r;
    struct sample_view view;
    int32_t *labels; /* NULL: the original is right */
    float *original, *logits;
    int64_t width;
    struct infer_options options;
};

static void scoring_release(struct scoring *s)
{
    sample_view_release(&s->view);
    free(s->labels);
    free(s->original);
    free(s->logits);
}

/* How far fractions of the samples may be apart. */
static double tolerance(const struct scoring *s)
{
    return fmax(s->r->same_machine ? CLOSE_HERE : CLOSE_ELSEWHERE,
                CLOSE_SAMPLES / (double)s->view.n + 1e-9);
}

/* Other bits with the same numbers are no fault. */
static int compare_answers(struct scoring *s, const char *subject, yyjson_val *a,
                           const float *logits, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    char hash[HASH_HEX_BYTES];
    const char *reported = manifest_text(a, "predictions_sha256");
    int rc = logits_pack(logits, s->view.n, s->width, &data, &bytes, err);
    if (rc == 0)
        rc = hash_bytes(data, bytes, hash, err);
    if (rc < 0 || !*reported)
        return rc;
    const bool same = strcmp(hash, reported) == 0;
    const struct finding finding = {
        .subject = (char *)subject,
        .number = (char *)"answers, sha256",
        .reported = (char *)reported,
        .reproduced = hash,
        .note = (char *)(same ? "" : "not bit for bit: the numbers decide"),
        .verdict = same ? SAME : CLOSE,
    };
    return findings_add(&s->r->findings, &finding, err);
}

/* The counts that were reported of a network, from which its bounds follow; those found again are
 * compared with them. */
static bool reported_counts(yyjson_val *a, double n, struct drop_case *ret)
{
    const double worse = manifest_number(a, "worse"), better = manifest_number(a, "better");
    if (!(worse >= 0 && better >= 0 && worse + better <= n))
        return false;
    *ret = (struct drop_case){.worse = (int64_t)worse, .better = (int64_t)better, .n = (int64_t)n};
    return true;
}

static int check_bound(struct findings *f, const char *subject, yyjson_val *a, double n,
                       struct err *err)
{
    struct drop_case c;
    if (!reported_counts(a, n, &c))
        return 0;
    return findings_number(f, subject, "drop_upper95_points",
                           manifest_number(a, "drop_upper95_points"),
                           infer_drop_bound(c.worse, c.better, c.n, 0.05), 4, BOUND_ROUNDING, err);
}

static int compare(struct scoring *s, const char *subject, yyjson_val *a, const float *logits,
                   bool is_original, struct err *err)
{
    struct infer_metrics m;
    struct paired_drop drop;
    const double off = tolerance(s), n = (double)s->view.n;
    struct findings *f = &s->r->findings;
    infer_metrics(logits, s->original, s->labels, s->view.n, s->width, &m);
    infer_paired_drop(logits, s->original, s->labels, s->view.n, s->width, &drop);
    const struct {
        const char *name;
        double value;
        int digits;
        double tolerance;
    } numbers[] = {
        {"n", n, 0, 0},
        {"agreement", m.agreement, 6, off},
        {"kl", m.kl, 6, fmax(CLOSE_KL * m.kl, 1e-4)},
        {"drop_points", drop.points, 4, 100 * off},
        {"worse", (double)drop.worse, 0, n * off},
        {"better", (double)drop.better, 0, n * off},
    };
    int rc = findings_number(f, subject, manifest_text(a, "metric"), manifest_number(a, "value"),
                             s->labels ? m.top1 : m.agreement, 6, off, err);
    for (size_t i = 0; rc == 0 && i < (is_original ? 1 : sizeof(numbers) / sizeof(*numbers)); i++)
        rc = findings_number(f, subject, numbers[i].name, manifest_number(a, numbers[i].name),
                             numbers[i].value, numbers[i].digits, numbers[i].tolerance, err);
    if (rc == 0 && !is_original)
        rc = check_bound(f, subject, a, n, err);
    return rc < 0 ? rc : compare_answers(s, subject, a, logits, err);
}

/* A delivered file could be any network. */
static int check_ports(const struct scoring *s, const struct reproduced *network, struct err *err)
{
    const struct graph *a = s->r->networks[0].g, *b = network->g;
    int64_t width = 0;
    int rc = infer_output_width(b, &width, err);
    if (rc == 0 && (width != s->width || shape_elements_at(&a->values[a->inputs[0]]->shape, 1) !=
                                             shape_elements_at(&b->values[b->inputs[0]]->shape, 1)))
        rc = err_set(err, ERR_INVALID_ARGUMENT,
                     "%s does not read and answer what the original does", network->name);
    return rc;
}

static int score_network(struct scoring *s, struct reproduced *network, const char *engine,
                         struct err *err)
{
    yyjson_val *a = manifest_accuracy(network->entry, part_name(s->view.part), engine);
    const bool peer = strcmp(engine, "hone") != 0;
    if (!a || !network->g)
        return 0;
    _cleanup_(freep) char *subject =
        str_printf("%s on the %s part%s%s", network->name, part_name(s->view.part),
                   peer ? ", " : "", peer ? engine : "");
    struct err why = {0};
    int rc = subject ? check_ports(s, network, err) : err_oom(err, "a score");
    if (rc == 0 && peer && /* another version of it than the job's may not run the file */
        infer_run_ort(network->onnx, network->bytes, network->g, &s->options, s->view.n,
                      sample_view_fill, &s->view, s->logits, &why) < 0)
        return findings_leave(&s->r->findings, subject, "all", why.message, err);
    if (rc == 0 && !peer)
        rc = infer_run(network->g, &s->options, s->view.n, sample_view_fill, &s->view, s->logits,
                       err);
    if (rc == 0)
        rc = compare(s, subject, a, s->logits, false, err);
    if (rc < 0)
        return err_wrap(err, "%s", network->name);
    network->scored = network->scored || (!peer && s->view.part == PART_TEST);
    return 0;
}

static int open_part(struct scoring *s, enum part part, struct err *err)
{
    const struct samples *from = &s->r->samples;
    const struct graph *g = s->r->networks[0].g;
    int rc = sample_view_init(&s->view, from->ds, part, &from->pre, 0, 0, err);
    if (rc == 0)
        rc = infer_output_width(g, &s->width, err);
    if (rc == 0 && dataset_classes(from->ds) == s->width)
        rc = sample_view_labels(&s->view, &s->labels, err);
    if (rc < 0)
        return rc;
    const size_t n = (size_t)(s->view.n * s->width);
    s->original = mem_calloc(n + 1, sizeof(float));
    s->logits = mem_calloc(n + 1, sizeof(float));
    if (!s->original || !s->logits)
        return err_oom(err, "scores");
    return infer_run(g, &s->options, s->view.n, sample_view_fill, &s->view, s->original, err);
}

static int score_part(struct reproduce *r, enum part part, struct err *err)
{
    _cleanup_(scoring_release) struct scoring s = {.r = r,
                                                   .options = {.threads = (int)r->q->threads}};
    yyjson_val *a = manifest_accuracy(r->networks[0].entry, part_name(part), "hone");
    if (!a)
        return 0;
    _cleanup_(freep) char *subject = str_printf("the original on the %s part", part_name(part));
    int rc = subject ? open_part(&s, part, err) : err_oom(err, "a score");
    if (rc == 0)
        rc = compare(&s, subject, a, s.original, true, err);
    for (int i = 1; rc == 0 && i < r->n; i++) {
        rc = score_network(&s, &r->networks[i], "hone", err);
        if (rc == 0)
            rc = score_network(&s, &r->networks[i], "onnxruntime", err);
    }
    return rc;
}

int reproduce_score(struct reproduce *r, const struct graph *g, enum part part,
                    struct infer_metrics *ret_metrics, struct paired_drop *ret_drop,
                    struct err *err)
{
    _cleanup_(scoring_release) struct scoring s = {.r = r,
                                                   .options = {.threads = (int)r->q->threads}};
    const struct reproduced network = {.name = "the network", .g = (struct graph *)g};
    int rc = open_part(&s, part, err);
    if (rc == 0)
        rc = check_ports(&s, &network, err);
    if (rc == 0)
        rc = infer_run(g, &s.options, s.view.n, sample_view_fill, &s.view, s.logits, err);
    if (rc < 0)
        return rc;
    infer_metrics(s.logits, s.original, s.labels, s.view.n, s.width, ret_metrics);
    infer_paired_drop(s.logits, s.original, s.labels, s.view.n, s.width, ret_drop);
    return 0;
}

const struct reproduced *reproduce_chosen(const struct reproduce *r)
{
    const char *name = manifest_text(r->manifest.root, "chosen");
    for (int i = 1; i < r->n; i++)
        if (strcmp(r->networks[i].name, name) == 0)
            return &r->networks[i];
    return NULL;
}

/* ---- the finals together: by the counts that were reported, as check_bound ---- */

static bool was_scored(const struct reproduce *r, yyjson_val *final)
{
    for (int i = 0; i < r->n; i++)
        if (r->networks[i].entry == final && r->networks[i].scored)
            return true;
    return false;
}

/* Where costs have a limit the bounds hold all together. */
static double drop_limit(const struct reproduce *r)
{
    yyjson_val *limit = section(r, "limit");
    if (yyjson_obj_get(limit, "max_us") || yyjson_obj_get(limit, "max_bytes"))
        return -INFINITY;
    return manifest_number(limit, "max_drop_points");
}

static int check_together(struct reproduce *r, struct err *err)
{
    yyjson_val *finals = section(r, "finals"), *final;
    _cleanup_(freep) struct drop_case *cases =
        mem_calloc(yyjson_arr_size(finals) + 1, sizeof(*cases));
    const double n = (double)dataset_count(r->samples.ds, PART_TEST);
    int k = 0, rc = 0;
    size_t i, count;
    if (!cases)
        return err_oom(err, "bounds");
    yyjson_arr_foreach(finals, i, count, final)
    {
        yyjson_val *a = manifest_accuracy(final, "test", "hone");
        if (!was_scored(r, final) || !reported_counts(a, n, &cases[k++]))
            return 0; /* what is missing has been said */
    }
    const double confidence = manifest_number(section(r, "limit"), "confidence");
    if (!(confidence > 0.5)) /* point estimates decide */
        return 0;
    infer_drop_bounds(cases, k, 1 - confidence, drop_limit(r));
    k = 0;
    yyjson_arr_foreach(finals, i, count, final)
    {
        if (rc == 0)
            rc = findings_number(&r->findings, "bounds of all finals together",
                                 manifest_text(final, "name"),
                                 manifest_number(final, "drop_bound_points"), cases[k++].bound, 4,
                                 BOUND_ROUNDING, err);
    }
    return rc;
}

int reproduce_accuracies(struct reproduce *r, struct err *err)
{
    int rc = score_part(r, PART_TEST, err);
    if (rc == 0)
        rc = score_part(r, PART_SEARCH, err);
    return rc < 0 ? rc : check_together(r, err);
}
