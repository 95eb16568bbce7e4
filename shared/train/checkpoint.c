#include "shared/train/checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/str.h"

#define MAGIC "HONETRN2"
#define MAX_BYTES ((size_t)64 << 30)
#define MAX_SETTINGS (1 << 20)
#define MAX_EPOCHS (1 << 24)
#define DIGEST_BYTES (HASH_HEX_BYTES - 1) /* without the zero */

struct header {
    char magic[8];
    int64_t settings_bytes; /* with the zero */
    int64_t n_floats;
    int64_t floats[CHECKPOINT_FLOATS_MAX];
    struct train_position position;
};

static size_t file_bytes(const struct header *h)
{
    size_t bytes = sizeof(*h) + (size_t)h->settings_bytes +
                   (size_t)h->position.n_epochs * sizeof(struct train_epoch) + DIGEST_BYTES;
    for (int i = 0; i < h->n_floats; i++)
        bytes += (size_t)h->floats[i] * sizeof(float);
    return bytes;
}

static char *put(char *to, const void *data, size_t bytes)
{
    if (bytes)
        memcpy(to, data, bytes);
    return to + bytes;
}

int checkpoint_write(const char *path, const struct checkpoint *c, struct err *err)
{
    struct header h = {.settings_bytes = (int64_t)strlen(c->settings) + 1,
                       .n_floats = c->n_floats,
                       .position = c->position};
    char digest[HASH_HEX_BYTES];
    memcpy(h.magic, MAGIC, sizeof(h.magic));
    for (int i = 0; i < c->n_floats; i++)
        h.floats[i] = c->floats[i].n;
    const size_t bytes = file_bytes(&h);
    _cleanup_(freep) char *data = malloc(bytes);
    if (!data)
        return err_oom(err, "a checkpoint");
    char *at = put(data, &h, sizeof(h));
    at = put(at, c->settings, (size_t)h.settings_bytes);
    at = put(at, c->curve, (size_t)h.position.n_epochs * sizeof(*c->curve));
    for (int i = 0; i < c->n_floats; i++)
        at = put(at, c->floats[i].data, (size_t)c->floats[i].n * sizeof(float));
    int rc = hash_bytes(data, (size_t)(at - data), digest, err);
    if (rc < 0)
        return rc;
    put(at, digest, DIGEST_BYTES);
    return fs_write_atomic(path, data, bytes, err);
}

/* ---- reading ---- */

static bool plausible(const struct header *h)
{
    if (h->settings_bytes < 1 || h->settings_bytes > MAX_SETTINGS || h->n_floats < 0 ||
        h->n_floats > CHECKPOINT_FLOATS_MAX || h->position.n_epochs < 0 ||
        h->position.n_epochs > MAX_EPOCHS || h->position.step < 0)
        return false;
    for (int i = 0; i < h->n_floats; i++)
        if (h->floats[i] < 0 || (size_t)h->floats[i] > MAX_BYTES / sizeof(float))
            return false;
    return true;
}

static int check_bytes(const char *data, size_t bytes, struct header *h, struct err *err)
{
    char digest[HASH_HEX_BYTES];
    if (bytes < sizeof(*h) || memcmp(data, MAGIC, sizeof(h->magic)) != 0)
        return err_set(err, ERR_DATA_LOSS, "%s", "not a checkpoint of this version");
    memcpy(h, data, sizeof(*h));
    if (!plausible(h) || file_bytes(h) != bytes)
        return err_set(err, ERR_DATA_LOSS, "%s", "the checkpoint is damaged or cut short");
    int rc = hash_bytes(data, bytes - DIGEST_BYTES, digest, err);
    if (rc == 0 && memcmp(data + bytes - DIGEST_BYTES, digest, DIGEST_BYTES) != 0)
        rc =
            err_set(err, ERR_DATA_LOSS, "%s", "the checkpoint is damaged: its hash is another one");
    return rc;
}

/* The first line in which the two differ, said in words. */
static int compare_settings(const char *theirs, const char *own, struct err *err)
{
    while (*theirs && *own) {
        const size_t a = strcspn(theirs, "\n"), b = strcspn(own, "\n");
        if (a != b || memcmp(theirs, own, a) != 0)
            return err_set(err, ERR_FAILED_PRECONDITION,
                           "the checkpoint is of another run: it was made with %.*s, this run has "
                           "%.*s",
                           (int)a, theirs, (int)b, own);
        theirs += a + (theirs[a] == '\n');
        own += b + (own[b] == '\n');
    }
    if (*theirs || *own)
        return err_set(err, ERR_FAILED_PRECONDITION, "%s", "the checkpoint is of another run");
    return 0;
}

static int compare_floats(const struct header *h, const struct checkpoint *c, struct err *err)
{
    bool same = h->n_floats == c->n_floats;
    for (int i = 0; same && i < c->n_floats; i++)
        same = h->floats[i] == c->floats[i].n;
    return same ? 0
                : err_set(err, ERR_FAILED_PRECONDITION, "%s",
                          "the checkpoint is of another network: it has other numbers of weights");
}

int checkpoint_read(const char *path, struct checkpoint *c, struct train_epoch **ret_curve,
                    struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    struct header h;
    int rc = fs_read(path, MAX_BYTES, &data, &bytes, err);
    if (rc < 0)
        return rc;
    rc = check_bytes(data, bytes, &h, err);
    const char *at = (const char *)data + sizeof(h);
    if (rc == 0 && at[h.settings_bytes - 1] != 0)
        rc = err_set(err, ERR_DATA_LOSS, "%s", "the checkpoint is damaged");
    if (rc == 0)
        rc = compare_settings(at, c->settings, err);
    if (rc == 0)
        rc = compare_floats(&h, c, err);
    if (rc < 0)
        return err_wrap(err, "%s", path);
    const size_t curve_bytes = (size_t)h.position.n_epochs * sizeof(**ret_curve);
    struct train_epoch *curve = malloc(curve_bytes + 1);
    if (!curve)
        return err_oom(err, "a checkpoint");
    at += h.settings_bytes;
    memcpy(curve, at, curve_bytes);
    at += curve_bytes;
    for (int i = 0; i < c->n_floats; i++) {
        memcpy(c->floats[i].data, at, (size_t)c->floats[i].n * sizeof(float));
        at += (size_t)c->floats[i].n * sizeof(float);
    }
    c->position = h.position;
    *ret_curve = curve;
    return 0;
}

/* ---- the curve ---- */

static void add_real(yyjson_mut_doc *doc, yyjson_mut_val *row, const char *key, double value)
{
    if (isfinite(value))
        yyjson_mut_obj_add_real(doc, row, key, value);
}

char *train_curve_json(const struct train_epoch *curve, int64_t n)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    if (!doc)
        return NULL;
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_val *rows = yyjson_mut_obj_add_arr(doc, root, "epochs");
    yyjson_mut_doc_set_root(doc, root);
    for (int64_t i = 0; i < n; i++) {
        yyjson_mut_val *row = yyjson_mut_arr_add_obj(doc, rows);
        yyjson_mut_obj_add_sint(doc, row, "epoch", curve[i].epoch + 1);
        add_real(doc, row, "loss", curve[i].loss);
        add_real(doc, row, "feature_loss", curve[i].feature_loss);
        add_real(doc, row, "accuracy", curve[i].accuracy);
        add_real(doc, row, "search_accuracy", curve[i].search_accuracy);
        add_real(doc, row, "rate", curve[i].rate);
        add_real(doc, row, "seconds", curve[i].seconds);
        add_real(doc, row, "images_per_second", curve[i].images_per_second);
    }
    char *text = yyjson_mut_write(doc, 0, NULL);
    yyjson_mut_doc_free(doc);
    return text;
}
