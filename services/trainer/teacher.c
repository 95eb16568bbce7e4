#include "services/trainer/teacher.h"

#include <stdlib.h>
#include <string.h>

#include "services/trainer/keep.h"
#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

struct teaching {
    struct work_task *task;
    const struct teacher_request *q;
    struct graph *g;
    struct augmenter views;
    struct teacher_options options;
    char *pre_text, *file, *part, *name_file;
    struct keep made, begun; /* the artifact's name; the file as far as it is */
    int64_t kept_ns;
};

static void teaching_release(struct teaching *t)
{
    graph_free(t->g);
    free(t->pre_text);
    free(t->file);
    free(t->part);
    free(t->name_file);
}

/* Everything that decides about the answers. */
static int name_records(struct teaching *t, struct err *err)
{
    const struct teacher_request *q = t->q;
    _cleanup_(freep) char *augment = augment_text(q->augment);
    _cleanup_(freep) char *what =
        str_printf("%s\n%s\n%s\n%s\nlogits views=%d seed=%lld precision=%s", q->network, q->data,
                   t->pre_text, augment ? augment : "", t->options.views, (long long)q->how->seed,
                   precision_name(t->options.precision));
    t->file = str_printf("%s/teacher", t->task->scratch);
    t->part = str_printf("%s/teacher.part", t->task->scratch);
    t->name_file = str_printf("%s/teacher.name", t->task->scratch);
    if (!augment || !what || !t->file || !t->part || !t->name_file)
        return err_oom(err, "a teacher");
    int rc = keep_init(&t->made, t->task->store, "teachers", what, strlen(what), t->name_file, err);
    if (rc == 0)
        rc = keep_init(&t->begun, t->task->store, "teaching", what, strlen(what), t->part, err);
    return rc;
}

static int open_teaching(struct teaching *t, struct err *err)
{
    const struct teacher_request *q = t->q;
    int rc = inputs_network(t->task->store, q->network, "teacher", &t->g, err);
    if (rc == 0)
        rc = inputs_preprocess(q->preprocess, &t->views.pre, &t->pre_text, err);
    if (rc < 0)
        return rc;
    t->views.ds = q->ds;
    t->views.part = PART_TRAIN;
    t->views.how = *q->augment;
    t->views.seed = (uint64_t)q->how->seed;
    t->options = recipe_teacher(q->how, t->g, t->task->threads);
    t->options.data = q->data;
    return name_records(t, err);
}

/* 1: somebody has made it, and it is there. */
static int look_up(const struct teaching *t, char ret_cache[HASH_HEX_BYTES], struct err *err)
{
    _cleanup_(freep) void *name = NULL;
    size_t bytes = 0;
    int rc = keep_fetch(&t->made, err);
    if (rc == 1)
        rc = fs_read(t->name_file, HASH_HEX_BYTES, &name, &bytes, err);
    if (rc < 0 || !name || bytes != HASH_HEX_BYTES - 1)
        return rc < 0 ? rc : 0;
    memcpy(ret_cache, name, HASH_HEX_BYTES);
    return store_has(t->task->store, ret_cache, err);
}

/* Between two rounds of the build the part does not change. */
static int on_progress(void *ctx, int64_t done, int64_t total, struct err *err)
{
    struct teaching *t = ctx;
    const struct trainer *trainer = t->task->ctx;
    int rc = work_progress(t->task, "teacher", (double)done, (double)total, "images", err);
    const int64_t now = clock_now_ns(NULL);
    if (rc == -ERR_ABORTED ||
        (rc == 0 && (double)(now - t->kept_ns) < trainer->checkpoint_seconds * 1e9))
        return rc;
    t->kept_ns = now;
    struct err kept = {0};
    int put = keep_put(&t->begun, &kept);
    return rc == 0 && put < 0 ? err_set(err, kept.code, "%s", kept.message) : rc;
}

static int build(struct teaching *t, char ret_cache[HASH_HEX_BYTES], double *ret_rate,
                 struct err *err)
{
    t->options.progress = on_progress;
    t->options.progress_ctx = t;
    t->kept_ns = clock_now_ns(NULL);
    int rc = keep_fetch(&t->begun, err);
    if (rc >= 0)
        rc = teacher_build(t->g, &t->views, &t->options, t->file, ret_rate, err);
    if (rc == 0)
        rc = store_put_file(t->task->store, t->file, ret_cache, err);
    if (rc == 0)
        rc = fs_write_atomic(t->name_file, ret_cache, HASH_HEX_BYTES - 1, err);
    if (rc == 0)
        rc = keep_put(&t->made, err);
    return rc == 0 ? keep_drop(&t->begun, err) : rc;
}

int teacher_cache(struct work_task *task, const struct teacher_request *q,
                  char ret_cache[HASH_HEX_BYTES], double *ret_rate, struct err *err)
{
    _cleanup_(teaching_release) struct teaching t = {.task = task, .q = q};
    *ret_rate = 0;
    int rc = open_teaching(&t, err);
    if (rc == 0)
        rc = look_up(&t, ret_cache, err);
    if (rc == 1)
        return 0;
    return rc < 0 ? rc : build(&t, ret_cache, ret_rate, err);
}

/* ---- the task ---- */

static int give(const struct work_task *task, char *cache, double rate, struct work_output *out,
                struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(teacher_closep) struct teacher *teacher = NULL;
    Hone__V1__TeachResult result = HONE__V1__TEACH_RESULT__INIT;
    int rc = store_get_path(task->store, cache, &path, err);
    if (rc == 0)
        rc = teacher_open(path, &teacher, err);
    if (rc < 0)
        return rc;
    result.cache = cache;
    result.views = (uint32_t)teacher_views(teacher);
    result.samples = (uint64_t)teacher_samples(teacher);
    result.images_per_second = rate;
    return work_result(out, &result.base, err);
}

int trainer_teach(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__TeachTask *teach = NULL;
    _cleanup_(dataset_closep) struct dataset *ds = NULL;
    struct train_options options;
    char cache[HASH_HEX_BYTES];
    double rate = 0;
    int rc =
        work_payload(task, &hone__v1__teach_task__descriptor, (ProtobufCMessage **)&teach, err);
    if (rc < 0)
        return rc;
    const struct recipe how = recipe_from_message(teach->settings);
    rc = recipe_options(&how, task->threads, &options, err);
    if (rc == 0)
        rc = inputs_data(task->store, teach->data, &ds, err);
    const struct teacher_request q = {.network = teach->teacher,
                                      .data = teach->data,
                                      .ds = ds,
                                      .preprocess = teach->preprocess,
                                      .how = &how,
                                      .augment = &options.augment};
    if (rc == 0)
        rc = teacher_cache(task, &q, cache, &rate, err);
    return rc == 0 ? give(task, cache, rate, out, err) : rc;
}
