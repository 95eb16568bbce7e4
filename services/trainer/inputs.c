#include "services/trainer/inputs.h"

#include "shared/base/mem.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/train/recipe.h"

typedef int simplify(struct graph *g, struct err *err);

static int read_network(struct store *store, const char *name, const char *what, simplify *pass,
                        struct graph **ret, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    size_t bytes = 0;
    if (!*name)
        return err_set(err, ERR_INVALID_ARGUMENT, "the task names no %s", what);
    int rc = store_get(store, name, onnx_default_limits.max_file_bytes, &data, &bytes, err);
    if (rc == 0)
        rc = onnx_read_bytes(data, bytes, NULL, NULL, &g, err);
    if (rc >= 0)
        rc = pass(g, err);
    if (rc < 0)
        return err_wrap(err, "%s", what);
    graph_make_batch_symbolic(g, NULL); /* where it cannot, the batch stays as it is */
    *ret = TAKE_PTR(g);
    return 0;
}

int inputs_network(struct store *store, const char *name, const char *what, struct graph **ret,
                   struct err *err)
{
    return read_network(store, name, what, pass_simplify, ret, err);
}

static int as_it_is(struct graph *g, struct err *err)
{
    return graph_infer(g, err);
}

int inputs_part(struct store *store, const char *name, const char *what, struct graph **ret,
                struct err *err)
{
    return read_network(store, name, what, as_it_is, ret, err);
}

int inputs_learner(struct store *store, const char *name, const char *what, struct graph **ret,
                   struct err *err)
{
    return read_network(store, name, what, recipe_learner, ret, err);
}

int inputs_data(struct store *store, const char *name, struct dataset **ret, struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    if (!*name)
        return err_set(err, ERR_INVALID_ARGUMENT, "the task names no data");
    int rc = store_get_path(store, name, &path, err);
    if (rc == 0)
        rc = dataset_open(path, ret, err);
    return rc < 0 ? err_wrap(err, "data") : 0;
}

int inputs_preprocess(const Hone__V1__Preprocess *from, struct preprocess *ret, char **ret_text,
                      struct err *err)
{
    if (!from || !*from->text)
        return err_set(err, ERR_INVALID_ARGUMENT, "the task says nothing of preprocessing");
    int rc = preprocess_parse(from->text, ret, err);
    if (rc < 0)
        return err_wrap(err, "preprocessing");
    *ret_text = preprocess_text(ret);
    return *ret_text ? 0 : err_oom(err, "preprocessing");
}
