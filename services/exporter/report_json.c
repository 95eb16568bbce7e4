/* result.json and manifest.json; documented in docs/FORMATS.md. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "services/exporter/build.h"
#include "services/exporter/report_parts.h"
#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/utf8.h"
#include "shared/nn/ort.h"
#include "shared/nn/plan.h"
#include "shared/work/goal.h"

typedef yyjson_mut_doc doc;
typedef yyjson_mut_val val;

static void doc_freep(doc **d)
{
    yyjson_mut_doc_free(*d);
}

void report_number(doc *d, val *object, const char *key, double value, int digits)
{
    double unit = pow(10, digits);
    if (isfinite(value))
        yyjson_mut_obj_add_real(d, object, key, round(value * unit) / unit);
    else
        yyjson_mut_obj_add_null(d, object, key);
}

static void add_timing(doc *d, val *object, const Hone__V1__Timing *t)
{
    if (!t)
        return;
    report_number(d, object, "p50_us", t->p50_us, 2);
    report_number(d, object, "p90_us", t->p90_us, 2);
    report_number(d, object, "images_per_s", t->images_per_s, 1);
    yyjson_mut_obj_add_uint(d, object, "runs", t->runs);
    yyjson_mut_obj_add_bool(d, object, "noisy", t->noisy);
}

static void add_accuracy(doc *d, val *object, const Hone__V1__Accuracy *a, bool compared)
{
    if (!a)
        return;
    yyjson_mut_obj_add_strcpy(d, object, "metric", a->metric);
    report_number(d, object, "value", a->value, 6);
    yyjson_mut_obj_add_uint(d, object, "n", a->n);
    if (!compared)
        return;
    report_number(d, object, "agreement", a->agreement, 6);
    report_number(d, object, "kl", a->kl, 6);
    report_number(d, object, "drop_points", a->drop_points, 4);
    report_number(d, object, "drop_upper95_points", a->drop_upper95_points, 4);
    yyjson_mut_obj_add_uint(d, object, "worse", a->worse);
    yyjson_mut_obj_add_uint(d, object, "better", a->better);
}

/* The same network on ONNX Runtime. */
static void add_peers(doc *d, val *object, const job_network *network)
{
    val *peers = yyjson_mut_obj_add_obj(d, object, "peers");
    const Hone__V1__Timing *t = state_timing(network, "onnxruntime", NULL);
    const Hone__V1__Accuracy *a = state_accuracy(network, "test", "onnxruntime");
    if (!t && !a)
        return;
    val *peer = yyjson_mut_obj_add_obj(d, peers, "onnxruntime");
    yyjson_mut_obj_add_strcpy(d, peer, "version", ort_version());
    add_timing(d, peer, t);
    add_accuracy(d, peer, a, true);
}

/* Of a final: by what it is judged, together with the others. */
static void add_bound(doc *d, val *object, const job_network *network)
{
    report_number(d, object, "drop_bound_points", network->drop_bound_points, 4);
    yyjson_mut_obj_add_bool(d, object, "within_limit", network->within_limit);
}

static val *network_object(doc *d, const struct report *r, const job_network *network,
                           const char *file, bool compared)
{
    val *o = yyjson_mut_obj(d);
    yyjson_mut_obj_add_strcpy(d, o, "name", network->name);
    yyjson_mut_obj_add_strcpy(d, o, "file", file);
    add_accuracy(d, o, state_accuracy(network, "test", "hone"), network != r->state->baseline);
    add_timing(d, o, state_timing(network, "hone", NULL));
    yyjson_mut_obj_add_uint(d, o, "threads", r->state->spec->threads);
    yyjson_mut_obj_add_uint(d, o, "batch", r->state->spec->batch);
    yyjson_mut_obj_add_uint(d, o, "macs", network->macs);
    yyjson_mut_obj_add_uint(d, o, "parameters", network->parameters);
    yyjson_mut_obj_add_uint(d, o, "bytes", network->bytes);
    if (network->packed_bytes)
        yyjson_mut_obj_add_uint(d, o, "packed_bytes", network->packed_bytes);
    if (*network->design)
        yyjson_mut_obj_add_strcpy(d, o, "design", network->design);
    if (compared) {
        report_number(d, o, "speedup_fp32", report_speedup(r, network, r->state->baseline, "hone"),
                      4);
        report_number(d, o, "speedup_int8",
                      report_speedup(r, network, r->state->plain_int8, "hone"), 4);
        add_bound(d, o, network);
        report_number(d, o, "predicted_us", network->predicted_us, 2);
    }
    add_peers(d, o, network);
    return o;
}

static void add_hardware(doc *d, val *root, const struct report *r)
{
    val *h = yyjson_mut_obj_add_obj(d, root, "hardware");
    yyjson_mut_obj_add_strcpy(d, h, "cpu", r->measured->cpu);
    yyjson_mut_obj_add_strcpy(d, h, "isa", r->measured->isa);
    yyjson_mut_obj_add_strcpy(d, h, "target", r->state->spec->target);
}

static void add_limit(doc *d, val *root, const struct report *r)
{
    static const char *const objectives[] = {"latency", "throughput", "size"};
    val *limit = yyjson_mut_obj_add_obj(d, root, "limit");
    const Hone__V1__JobSpec *spec = r->state->spec;
    const bool any = goal_turned(spec) && spec->max_drop >= GOAL_ANY_DROP;
    report_number(d, limit, "max_drop_points", any ? NAN : spec->max_drop, 4);
    if (spec->max_us > 0)
        report_number(d, limit, "max_us", spec->max_us, 3);
    if (spec->max_bytes > 0)
        yyjson_mut_obj_add_uint(d, limit, "max_bytes", spec->max_bytes);
    yyjson_mut_obj_add_real(d, limit, "confidence", goal_confidence(spec));
    int objective = (int)r->state->spec->objective;
    yyjson_mut_obj_add_str(d, limit, "objective",
                           objectives[objective >= 0 && objective < 3 ? objective : 0]);
}

/* What the job that was refined had spent, and this one did not. */
static void add_saved(doc *d, val *root, const struct report *r)
{
    const Hone__V1__Taken *t = r->state->taken;
    if (!t)
        return;
    val *o = yyjson_mut_obj_add_obj(d, root, "saved");
    yyjson_mut_obj_add_strcpy(d, o, "job", t->job);
    report_number(d, o, "seconds", t->training_s + t->prepared_s, 1);
    report_number(d, o, "training_s", t->training_s, 1);
    report_number(d, o, "prepared_s", t->prepared_s, 1);
    if (*t->target)
        yyjson_mut_obj_add_strcpy(d, o, "target", t->target);
    yyjson_mut_obj_add_uint(d, o, "students", t->students);
}

static int write_doc(const doc *d, struct strbuf *out, struct err *err)
{
    size_t n = 0;
    _cleanup_(freep) char *text = yyjson_mut_write(
        d, YYJSON_WRITE_PRETTY_TWO_SPACES | YYJSON_WRITE_ALLOW_INVALID_UNICODE, &n);
    if (!text)
        return err_oom(err, "a JSON file");
    utf8_copy(text, n + 1, text); /* paths and names of layers may be any bytes */
    n = strlen(text);
    strbuf_add_bytes(out, text, n);
    strbuf_add(out, "\n");
    return out->failed ? err_oom(err, "a JSON file") : 0;
}

int report_result_json(const struct report *r, struct strbuf *out, struct err *err)
{
    _cleanup_(doc_freep) doc *d = yyjson_mut_doc_new(NULL);
    val *root = d ? yyjson_mut_obj(d) : NULL;
    if (!root)
        return err_oom(err, "result.json");
    yyjson_mut_doc_set_root(d, root);
    yyjson_mut_obj_add_str(d, root, "schema", "hone.result/1");
    yyjson_mut_obj_add_bool(d, root, "final", r->final);
    yyjson_mut_obj_add_strcpy(d, root, "verdict", r->verdict);
    yyjson_mut_obj_add_strcpy(d, root, "chosen", r->chosen->name);
    add_limit(d, root, r);
    add_saved(d, root, r);
    add_hardware(d, root, r);
    report_test_part_json(r, d, root);
    const char *original = r->asked && *r->asked->model_path ? r->asked->model_path : "original";
    yyjson_mut_obj_add_val(d, root, "baseline",
                           network_object(d, r, r->state->baseline, original, false));
    char file[160];
    yyjson_mut_obj_add_val(d, root, "plain_int8",
                           network_object(d, r, r->state->plain_int8,
                                          report_file_of(r, r->state->plain_int8, file), false));
    val *results = yyjson_mut_obj_add_arr(d, root, "results");
    for (size_t i = 0; i < r->state->n_finals; i++) {
        const job_network *n = r->state->finals[i];
        yyjson_mut_arr_append(results, network_object(d, r, n, report_file_of(r, n, file), true));
    }
    report_front_json(r, d, root);
    report_layers_json(r, d, root);
    report_students_json(r, false, d, root);
    report_blocks_json(r, d, root);
    report_curves_json(r, d, root);
    return write_doc(d, out, err);
}

/* ---- manifest.json: hashes, seeds, versions, hardware, every decision ---- */

static void add_layers(doc *d, val *object, const job_network *network)
{
    val *layers = yyjson_mut_obj_add_obj(d, object, "layers");
    for (size_t i = 0; i < network->n_layers; i++)
        yyjson_mut_obj_add(layers, yyjson_mut_strcpy(d, network->layers[i]->layer),
                           yyjson_mut_strcpy(d, network->layers[i]->precision));
}

static val *add_network(doc *d, val *array, const job_network *network)
{
    val *o = yyjson_mut_arr_add_obj(d, array);
    yyjson_mut_obj_add_strcpy(d, o, "name", network->name);
    yyjson_mut_obj_add_strcpy(d, o, "sha256", network->artifact);
    yyjson_mut_obj_add_uint(d, o, "bytes", network->bytes);
    yyjson_mut_obj_add_uint(d, o, "macs", network->macs);
    yyjson_mut_obj_add_uint(d, o, "parameters", network->parameters);
    if (network->packed_bytes) {
        yyjson_mut_obj_add_strcpy(d, o, "packed_sha256", network->packed);
        yyjson_mut_obj_add_uint(d, o, "packed_bytes", network->packed_bytes);
    }
    if (*network->design)
        yyjson_mut_obj_add_strcpy(d, o, "design", network->design);
    report_number(d, o, "predicted_us", network->predicted_us, 2);
    report_number(d, o, "predicted_kl", network->predicted_kl, 6);
    val *timings = yyjson_mut_obj_add_arr(d, o, "timings");
    for (size_t i = 0; i < network->n_timings; i++) {
        val *t = yyjson_mut_arr_add_obj(d, timings);
        yyjson_mut_obj_add_strcpy(d, t, "engine", network->timings[i]->engine);
        yyjson_mut_obj_add_strcpy(d, t, "precision", network->timings[i]->precision);
        if (*network->timings[i]->error)
            yyjson_mut_obj_add_strcpy(d, t, "error", network->timings[i]->error);
        add_timing(d, t, network->timings[i]);
    }
    val *accuracies = yyjson_mut_obj_add_arr(d, o, "accuracies");
    for (size_t i = 0; i < network->n_accuracies; i++) {
        val *a = yyjson_mut_arr_add_obj(d, accuracies);
        yyjson_mut_obj_add_strcpy(d, a, "engine", network->accuracies[i]->engine);
        yyjson_mut_obj_add_strcpy(d, a, "part", network->accuracies[i]->part);
        yyjson_mut_obj_add_strcpy(d, a, "predictions_sha256", network->accuracies[i]->predictions);
        add_accuracy(d, a, network->accuracies[i], true);
    }
    add_layers(d, o, network);
    return o;
}

static void add_files(doc *d, val *root, const struct report *r)
{
    val *files = yyjson_mut_obj_add_arr(d, root, "files");
    for (size_t i = 0; r->delivered && i < r->delivered->n_files; i++) {
        val *o = yyjson_mut_arr_add_obj(d, files);
        yyjson_mut_obj_add_strcpy(d, o, "name", r->delivered->files[i]->name);
        yyjson_mut_obj_add_strcpy(d, o, "sha256", r->delivered->files[i]->artifact);
        yyjson_mut_obj_add_uint(d, o, "bytes", r->delivered->files[i]->bytes);
    }
}

static void add_versions(doc *d, val *root)
{
    val *v = yyjson_mut_obj_add_obj(d, root, "versions");
    yyjson_mut_obj_add_str(d, v, "hone", HONE_VERSION);
    yyjson_mut_obj_add_strcpy(d, v, "compute", nn_version());
    yyjson_mut_obj_add_strcpy(d, v, "onnxruntime", ort_version());
}

static void add_inputs(doc *d, val *root, const struct report *r)
{
    const job_state *s = r->state;
    val *in = yyjson_mut_obj_add_obj(d, root, "inputs");
    yyjson_mut_obj_add_strcpy(d, in, "model_sha256", s->model);
    yyjson_mut_obj_add_strcpy(d, in, "network_sha256", s->network);
    yyjson_mut_obj_add_strcpy(d, in, "data_source_sha256", s->data->source_hash);
    yyjson_mut_obj_add_strcpy(d, in, "data_sha256", s->data->artifact);
    yyjson_mut_obj_add_uint(d, in, "n_train", s->data->n_train);
    yyjson_mut_obj_add_uint(d, in, "n_search", s->data->n_search);
    yyjson_mut_obj_add_uint(d, in, "n_test", s->data->n_test);
    yyjson_mut_obj_add_uint(d, in, "duplicates_between_parts", s->data->duplicates);
    yyjson_mut_obj_add_strcpy(d, in, "preprocess", s->preprocess->text);
    yyjson_mut_obj_add_strcpy(d, in, "preprocess_source", s->preprocess->how);
    yyjson_mut_obj_add_strcpy(d, in, "ranges_sha256", s->ranges);
    yyjson_mut_obj_add_strcpy(d, in, "profile_sha256", s->profile);
    yyjson_mut_obj_add_strcpy(d, in, "scores_sha256", s->scores);
    if (r->asked) {
        yyjson_mut_obj_add_strcpy(d, in, "model_path", r->asked->model_path);
        yyjson_mut_obj_add_strcpy(d, in, "data_path", r->asked->data_path);
    }
}

static void add_settings(doc *d, val *root, const struct report *r)
{
    const Hone__V1__JobSpec *spec = r->state->spec;
    val *s = yyjson_mut_obj_add_obj(d, root, "settings");
    yyjson_mut_obj_add_uint(d, s, "seed", spec->seed);
    yyjson_mut_obj_add_uint(d, s, "threads", spec->threads);
    yyjson_mut_obj_add_uint(d, s, "batch", spec->batch);
    yyjson_mut_obj_add_int(d, s, "weight_bits", build_weight_bits(r->state));
    if (*spec->without)
        yyjson_mut_obj_add_strcpy(d, s, "without", spec->without);
    report_number(d, s, "budget_s", r->asked ? r->asked->budget_s : 0, 1);
}

int report_manifest_json(const struct report *r, struct strbuf *out, struct err *err)
{
    _cleanup_(doc_freep) doc *d = yyjson_mut_doc_new(NULL);
    val *root = d ? yyjson_mut_obj(d) : NULL;
    if (!root)
        return err_oom(err, "manifest.json");
    char when[32];
    yyjson_mut_doc_set_root(d, root);
    yyjson_mut_obj_add_str(d, root, "schema", "hone.manifest/2");
    yyjson_mut_obj_add_strcpy(d, root, "job", r->job);
    yyjson_mut_obj_add_strcpy(d, root, "created", clock_iso8601(r->created_ms, when));
    yyjson_mut_obj_add_strcpy(d, root, "ended", clock_iso8601(r->ended_ms, when));
    add_versions(d, root);
    add_hardware(d, root, r);
    report_test_part_json(r, d, root);
    add_limit(d, root, r);
    add_saved(d, root, r);
    add_settings(d, root, r);
    add_inputs(d, root, r);
    add_files(d, root, r);
    val *decisions = yyjson_mut_obj_add_arr(d, root, "decisions");
    for (size_t i = 0; i < r->state->n_decisions; i++)
        yyjson_mut_arr_add_strcpy(d, decisions, r->state->decisions[i]);
    yyjson_mut_arr_add_strcpy(d, decisions, r->verdict);
    yyjson_mut_obj_add_strcpy(d, root, "chosen", r->chosen->name);
    val *networks = yyjson_mut_obj_add_arr(d, root, "networks");
    add_network(d, networks, r->state->baseline);
    add_network(d, networks, r->state->plain_int8);
    for (size_t i = 0; i < r->state->n_candidates; i++)
        add_network(d, networks, r->state->candidates[i]);
    report_students_json(r, true, d, root);
    val *finals = yyjson_mut_obj_add_arr(d, root, "finals");
    for (size_t i = 0; i < r->state->n_finals; i++)
        add_bound(d, add_network(d, finals, r->state->finals[i]), r->state->finals[i]);
    return write_doc(d, out, err);
}
