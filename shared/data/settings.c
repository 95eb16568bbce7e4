/* dataset.json: what the user says about the data. */
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/data/pack.h"
#include "shared/data/preprocess.h"

static void free_doc(yyjson_doc **doc)
{
    yyjson_doc_free(*doc);
}

static int take_key(struct pack *p, const char *key, yyjson_val *value, const char *name,
                    struct err *err)
{
    if (strcmp(key, "preprocess") == 0) {
        struct preprocess pre;
        if (!yyjson_is_str(value))
            return err_set(err, ERR_INVALID_ARGUMENT, "%s: \"preprocess\" must be a string", name);
        int r = preprocess_parse(yyjson_get_str(value), &pre, err);
        if (r < 0)
            return err_wrap(err, "%s: \"preprocess\"", name);
        free(p->settings.preprocess);
        p->settings.preprocess = strdup(yyjson_get_str(value));
        return p->settings.preprocess ? 0 : err_oom(err, name);
    }
    if (strcmp(key, "labels") == 0) {
        if (!yyjson_is_bool(value))
            return err_set(err, ERR_INVALID_ARGUMENT, "%s: \"labels\" must be true or false", name);
        p->settings.unlabelled = !yyjson_get_bool(value);
        return 0;
    }
    if (strcmp(key, "search_fraction") == 0) {
        double fraction = yyjson_is_num(value) ? yyjson_get_num(value) : 0;
        if (!(fraction > 0 && fraction < 1))
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "%s: \"search_fraction\" must be a number between 0 and 1", name);
        p->settings.search_fraction = fraction;
        return 0;
    }
    return pack_warn(p, err,
                     "%s: \"%.60s\" is not known and ignored (known are preprocess, labels, "
                     "search_fraction)",
                     name, key);
}

int settings_parse(struct pack *p, const char *text, size_t bytes, const char *name,
                   struct err *err)
{
    yyjson_read_err bad;
    _cleanup_(free_doc) yyjson_doc *doc = yyjson_read_opts((char *)text, bytes, 0, NULL, &bad);
    if (!doc)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: byte %zu: %s", name, bad.pos, bad.msg);
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (!yyjson_is_obj(root))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: not a JSON object", name);
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(root, i, n, key, value)
    {
        int r = take_key(p, yyjson_get_str(key), value, name, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int settings_read_beside(struct pack *p, struct err *err)
{
    _cleanup_(freep) char *path = str_printf("%s.dataset.json", p->path);
    _cleanup_(freep) void *text = NULL;
    size_t bytes;
    if (!path)
        return err_oom(err, p->path);
    p->settings.final = !fs_is_dir(p->path) && fs_exists(path);
    if (!p->settings.final)
        return 0;
    int r = fs_read(path, SETTINGS_MAX_BYTES, &text, &bytes, err);
    return r < 0 ? r : settings_parse(p, text, bytes, path, err);
}
