#include "services/cli/manifest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define MAX_BYTES ((size_t)256 * 1024 * 1024)
#define SCHEMA "hone.manifest/2"

void manifest_release(struct manifest *m)
{
    yyjson_doc_free(m->doc);
    free(m->folder);
    *m = (struct manifest){0};
}

static int check_schema(const struct manifest *m, const char *path, struct err *err)
{
    const char *schema = manifest_text(m->root, "schema");
    if (strcmp(schema, SCHEMA) == 0)
        return 0;
    if (str_starts_with(schema, "hone.manifest/"))
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "%s was written by another version of Hone: it is %.40s, and %s is needed",
                       path, schema, SCHEMA);
    return err_set(err, ERR_DATA_LOSS, "%s is no manifest of a job", path);
}

int manifest_read(const char *path, struct manifest *ret, struct err *err)
{
    _cleanup_(manifest_release) struct manifest m = {0};
    _cleanup_(freep) void *text = NULL;
    size_t bytes = 0;
    const char *slash = strrchr(path, '/');
    int r = fs_read(path, MAX_BYTES, &text, &bytes, err);
    if (r < 0)
        return r;
    m.folder = slash ? str_printf("%.*s", (int)(slash - path), path) : strdup(".");
    if (!m.folder)
        return err_oom(err, path);
    m.doc = yyjson_read(text, bytes, 0);
    m.root = yyjson_doc_get_root(m.doc);
    if (!yyjson_is_obj(m.root))
        return err_set(err, ERR_DATA_LOSS, "%s: not a JSON object", path);
    r = check_schema(&m, path, err);
    if (r < 0)
        return r;
    *ret = m;
    m = (struct manifest){0};
    return 0;
}

const char *manifest_text(yyjson_val *object, const char *key)
{
    const char *text = yyjson_get_str(yyjson_obj_get(object, key));
    return text ? text : "";
}

double manifest_number(yyjson_val *object, const char *key)
{
    yyjson_val *v = yyjson_obj_get(object, key);
    return yyjson_is_num(v) ? yyjson_get_num(v) : NAN;
}

yyjson_val *manifest_find(yyjson_val *list, const char *key, const char *text)
{
    size_t i, n;
    yyjson_val *one;
    yyjson_arr_foreach(list, i, n, one)
    {
        if (strcmp(manifest_text(one, key), text) == 0)
            return one;
    }
    return NULL;
}

yyjson_val *manifest_accuracy(yyjson_val *network, const char *part, const char *engine)
{
    size_t i, n;
    yyjson_val *one, *found = NULL;
    yyjson_arr_foreach(yyjson_obj_get(network, "accuracies"), i, n, one)
    {
        if (strcmp(manifest_text(one, "part"), part) == 0 &&
            strcmp(manifest_text(one, "engine"), engine) == 0)
            found = one;
    }
    return found;
}

yyjson_val *manifest_timing(yyjson_val *network, const char *engine)
{
    size_t i, n;
    yyjson_val *one, *found = NULL;
    yyjson_arr_foreach(yyjson_obj_get(network, "timings"), i, n, one)
    {
        if (strcmp(manifest_text(one, "engine"), engine) == 0 && manifest_number(one, "p50_us") > 0)
            found = one;
    }
    return found;
}
