/* Specs: what Submit accepts, what it fills in, how a job is recorded. Everything here is cheap:
 * model and data are opened by the task "prepare". */
#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yyjson.h>

#include "services/ingest/ingest.h"
#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/data/preprocess.h"
#include "shared/work/goal.h"
#include "shared/work/message.h"

#define MAX_THREADS 1024
#define MAX_BATCH 4096
#define MAX_BUDGET_S (30.0 * 24 * 3600)
#define MIN_US 0.1
#define MAX_US 3600e6
#define MIN_BYTES 256 /* of an ONNX file that computes anything */
#define MAX_CONFIDENCE 0.9999
#define MAX_PATH 4000
#define MAX_TITLE 120
#define MAX_LIST 64
#define DEFAULT_DROP 1.0
#define OFFLINE_BATCH 64 /* where images a second are wanted */

static bool only_of(const char *text, const char *more)
{
    for (const char *p = text; *p; p++) {
        bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');
        if (!letter && !(*p >= '0' && *p <= '9') && !strchr(more, *p))
            return false;
    }
    return true;
}

int spec_check_id(const char *id, struct err *err)
{
    if (*id && strlen(id) < QUEUE_ID_MAX && only_of(id, "_-"))
        return 0;
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "'%.80s' is no job id: 1 to %d letters, digits, - and _", id, QUEUE_ID_MAX - 1);
}

static int check_path(const char *path, const char *what, bool folder_too, struct err *err)
{
    struct stat st;
    if (!*path)
        return err_set(err, ERR_INVALID_ARGUMENT, "no %s given", what);
    if (*path != '/' || strlen(path) > MAX_PATH)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s '%.200s': not an absolute path", what, path);
    if (stat(path, &st) < 0)
        return err_errno(err, errno, "%s %s", what, path);
    if (!S_ISREG(st.st_mode) && !(folder_too && S_ISDIR(st.st_mode)))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s %s: not a %s", what, path,
                       folder_too ? "folder or file" : "file");
    if (access(path, R_OK) < 0)
        return err_errno(err, errno, "%s %s", what, path);
    return 0;
}

/* Of jobs that begin with files; who refines another one has what came of them. */
static int check_paths(const Hone__V1__JobSpec *spec, struct err *err)
{
    int r = check_path(spec->model_path, "model", false, err);
    return r < 0 ? r : check_path(spec->data_path, "data", true, err);
}

static int check_numbers(const Hone__V1__JobSpec *spec, struct err *err)
{
    if (spec->threads > MAX_THREADS)
        return err_set(err, ERR_OUT_OF_RANGE, "threads: %u is above %d", spec->threads,
                       MAX_THREADS);
    if (spec->batch > MAX_BATCH)
        return err_set(err, ERR_OUT_OF_RANGE, "batch: %u is above %d", spec->batch, MAX_BATCH);
    if (!(spec->max_drop >= 0 && spec->max_drop <= 100))
        return err_set(err, ERR_OUT_OF_RANGE, "max-drop: %g is outside 0 to 100 points",
                       spec->max_drop);
    if (spec->confidence != 0 && !(spec->confidence >= 0.5 && spec->confidence <= MAX_CONFIDENCE))
        return err_set(err, ERR_OUT_OF_RANGE, "confidence: %g %% is outside 50 to %g %%",
                       100 * spec->confidence, 100 * MAX_CONFIDENCE);
    if (!(spec->budget_s >= 0 && spec->budget_s <= MAX_BUDGET_S))
        return err_set(err, ERR_OUT_OF_RANGE, "budget: %g s is outside 0 to 30 days",
                       spec->budget_s);
    if (spec->max_us != 0 && !(spec->max_us >= MIN_US && spec->max_us <= MAX_US))
        return err_set(err, ERR_OUT_OF_RANGE, "max-latency: %g us is outside %g us to an hour",
                       spec->max_us, MIN_US);
    if (spec->max_bytes != 0 && spec->max_bytes < MIN_BYTES)
        return err_set(err, ERR_OUT_OF_RANGE,
                       "max-bytes: no network has as little as %llu bytes; %d at least",
                       (unsigned long long)spec->max_bytes, MIN_BYTES);
    if ((unsigned)spec->objective > HONE__V1__OBJECTIVE__SIZE)
        return err_set(err, ERR_INVALID_ARGUMENT, "objective %d is not known",
                       (int)spec->objective);
    return 0;
}

/* A list with commas, of words that stand in another one. */
static int check_list(const char *what, const char *list, const char *known, struct err *err)
{
    if (strlen(list) > MAX_LIST)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s of more than %d bytes", what, MAX_LIST);
    for (const char *p = list; *p;) {
        const size_t n = strcspn(p, ",");
        bool found = false;
        for (const char *k = known; *k; k += strspn(k, ", ")) {
            const size_t length = strcspn(k, ", ");
            found |= length == n && strncmp(p, k, n) == 0;
            k += length;
        }
        if (!found || (p[n] == ',' && !p[n + 1]))
            return err_set(err, ERR_INVALID_ARGUMENT, "%s '%.80s': not a list of %s", what, list,
                           known);
        p += n + (p[n] == ',');
    }
    return 0;
}

/* What may change; the precision always may. */
static int check_space(const Hone__V1__JobSpec *spec, struct err *err)
{
    int r = check_list("space", spec->space, "precision, blocks, students", err);
    if (r == 0)
        r = check_list("without", spec->without, "teacher, cache, race", err);
    if (r < 0)
        return r;
    if (!spec_space_has(spec, "precision"))
        return err_set(err, ERR_INVALID_ARGUMENT, "space '%.80s': precision must be in it",
                       spec->space);
    return 0;
}

static int check_texts(const Hone__V1__JobSpec *spec, struct err *err)
{
    if (strlen(spec->target) > 64 || !only_of(spec->target, "_-.:+"))
        return err_set(err, ERR_INVALID_ARGUMENT, "target '%.80s' is no name of a target",
                       spec->target);
    if (strlen(spec->title) > MAX_TITLE)
        return err_set(err, ERR_INVALID_ARGUMENT, "title of more than %d bytes", MAX_TITLE);
    struct preprocess preprocess;
    int r = *spec->preprocess ? preprocess_parse(spec->preprocess, &preprocess, err) : 0;
    return r < 0 ? err_wrap(err, "preprocess") : check_space(spec, err);
}

/* "resnet56" for /models/resnet56.onnx, cut to a title's length without splitting a character. */
static int set_title(Hone__V1__JobSpec *spec, struct err *err)
{
    _cleanup_(freep) char *path = strdup(spec->model_path);
    if (!path)
        return err_oom(err, "title");
    char *name = basename(path);
    if (str_ends_with(name, ".onnx") && strlen(name) > 5)
        name[strlen(name) - 5] = 0;
    size_t n = strlen(name) < MAX_TITLE ? strlen(name) : MAX_TITLE;
    while (n > 0 && name[n] && ((unsigned char)name[n] & 0xc0) == 0x80)
        n--;
    name[n] = 0;
    return message_set(&spec->title, name, err);
}

int spec_complete(Hone__V1__JobSpec *spec, const char *target, struct err *err)
{
    if (spec->version != 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "job spec of version %u; 1 is known here",
                       spec->version);
    if (!spec->has_max_drop) {
        spec->max_drop = goal_turned(spec) ? GOAL_ANY_DROP : DEFAULT_DROP;
        spec->has_max_drop = true;
    }
    const bool offline = spec->objective == HONE__V1__OBJECTIVE__THROUGHPUT;
    if (spec->threads == 0)
        spec->threads = offline ? (uint32_t)pool_cpus() : 1;
    if (spec->batch == 0)
        spec->batch = offline ? OFFLINE_BATCH : 1;
    int r = *spec->refines ? 0 : check_paths(spec, err);
    if (r == 0)
        r = check_numbers(spec, err);
    if (r == 0 && !*spec->target)
        r = message_set(&spec->target, target, err);
    if (r == 0 && !*spec->title)
        r = set_title(spec, err);
    return r == 0 ? check_texts(spec, err) : r;
}

int spec_fill_threads(struct queue *q, Hone__V1__JobSpec *spec, struct err *err)
{
    int64_t threads = spec->threads;
    _cleanup_(freep) char *text = NULL;
    _cleanup_(freep) char *name = str_printf("profiler:%s", spec->target);
    if (spec->objective != HONE__V1__OBJECTIVE__THROUGHPUT)
        return 0;
    int r = name ? queue_table_get(q, WORK_THREADS, name, &text, err) : err_oom(err, "a name");
    if (r == 0 && text)
        r = str_parse_i64(text, 1, 1024, &threads, err);
    spec->threads = (uint32_t)threads;
    return r;
}

static const char *objective_name(Hone__V1__Objective objective)
{
    static const char *const names[] = {"latency", "throughput", "size"};
    return names[objective];
}

char *spec_record(const char *id, const Hone__V1__JobSpec *s, int64_t now_ms)
{
    char when[32];
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *spec = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_uint(doc, root, "version", 1);
    yyjson_mut_obj_add_str(doc, root, "job", id);
    yyjson_mut_obj_add_str(doc, root, "created", clock_iso8601(now_ms, when));
    yyjson_mut_obj_add_sint(doc, root, "created_ms", now_ms);
    yyjson_mut_obj_add_val(doc, root, "spec", spec);
    yyjson_mut_obj_add_uint(doc, spec, "version", s->version);
    yyjson_mut_obj_add_str(doc, spec, "title", s->title);
    yyjson_mut_obj_add_str(doc, spec, "model_path", s->model_path);
    yyjson_mut_obj_add_str(doc, spec, "data_path", s->data_path);
    yyjson_mut_obj_add_str(doc, spec, "objective", objective_name(s->objective));
    yyjson_mut_obj_add_real(doc, spec, "max_drop", s->max_drop);
    yyjson_mut_obj_add_real(doc, spec, "confidence", s->confidence);
    yyjson_mut_obj_add_real(doc, spec, "max_us", s->max_us);
    yyjson_mut_obj_add_uint(doc, spec, "max_bytes", s->max_bytes);
    yyjson_mut_obj_add_str(doc, spec, "refines", s->refines);
    yyjson_mut_obj_add_real(doc, spec, "budget_s", s->budget_s);
    yyjson_mut_obj_add_uint(doc, spec, "threads", s->threads);
    yyjson_mut_obj_add_uint(doc, spec, "batch", s->batch);
    yyjson_mut_obj_add_str(doc, spec, "target", s->target);
    yyjson_mut_obj_add_uint(doc, spec, "seed", s->seed);
    yyjson_mut_obj_add_str(doc, spec, "preprocess", s->preprocess);
    yyjson_mut_obj_add_str(doc, spec, "space", s->space);
    yyjson_mut_obj_add_str(doc, spec, "without", s->without);
    /* paths need not be UTF-8 */
    char *text =
        yyjson_mut_write(doc, YYJSON_WRITE_PRETTY | YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    yyjson_mut_doc_free(doc);
    return text;
}
