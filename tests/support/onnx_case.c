#include "tests/support/onnx_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "tests/support/onnx_opset6.h"

#define MAX_FILE ((size_t)1 << 30)

const char *onnx_case_root(void)
{
    const char *root = getenv("HONE_ONNX_TESTDATA");
    if (!root)
        root = "/usr/share/libonnx-testdata/data";
    return fs_is_dir(root) ? root : NULL;
}

static void model_freep(Onnx__ModelProto **model)
{
    onnx__model_proto__free_unpacked(*model, NULL);
    *model = NULL;
}

static int read_model(const char *folder, Onnx__ModelProto **ret, struct err *err)
{
    char path[640];
    snprintf(path, sizeof(path), "%s/model.onnx", folder);
    _cleanup_(freep) void *data = NULL;
    size_t bytes;
    int rc = fs_read(path, MAX_FILE, &data, &bytes, err);
    if (rc < 0)
        return rc;
    *ret = onnx__model_proto__unpack(NULL, bytes, data);
    return *ret && (*ret)->graph ? 0 : err_set(err, ERR_DATA_LOSS, "%s: no model", path);
}

/* Inputs that are not initializers as well (as older files have them): those the data sets feed. */
static bool is_fed(const Onnx__GraphProto *g, const char *name)
{
    for (size_t i = 0; i < g->n_initializer; i++) {
        if (strcmp(g->initializer[i]->name, name) == 0)
            return false;
    }
    return true;
}

static bool is_default_domain(const char *domain)
{
    return !domain || !*domain || strcmp(domain, "ai.onnx") == 0;
}

/* ---- which cases are ours ----------------------------------------------------------------- */

static const char *type_reason(int32_t type)
{
    if (type == 8)
        return "strings";
    if (type == 14 || type == 15)
        return "complex numbers";
    return dtype_bytes((enum dtype)type) == 0 ? "float8 or int4 data" : NULL;
}

static const char *port_reason(const Onnx__ValueInfoProto *info)
{
    const Onnx__TypeProto *type = info->type;
    if (!type || type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return "sequences, maps or optionals";
    return type_reason(type->tensor_type->elem_type);
}

static const char *node_reason(const Onnx__NodeProto *node)
{
    if (!is_default_domain(node->domain) || op_parse(node->op_type) < 0)
        return "other operators";
    const Onnx__AttributeProto *to = onnx_find_attribute(node, "to");
    if (to && to->has_i && type_reason((int32_t)to->i))
        return type_reason((int32_t)to->i);
    const Onnx__AttributeProto *training = onnx_find_attribute(node, "training_mode");
    if (training && training->i != 0)
        return "training mode";
    return NULL;
}

static int64_t *opset_of(Onnx__ModelProto *model)
{
    for (size_t i = 0; i < model->n_opset_import; i++) {
        if (is_default_domain(model->opset_import[i]->domain))
            return &model->opset_import[i]->version;
    }
    return NULL;
}

static const char *opset_reason(Onnx__ModelProto *model)
{
    int64_t *opset = opset_of(model);
    if (!opset)
        return "other operators";
    if (*opset > 22)
        return "opsets above 22";
    if (*opset < 6)
        return "opsets below 7";
    if (*opset > 6)
        return NULL;
    if (!onnx_raise_opset6(model->graph))
        return "opset 6 that cannot be said in opset 7";
    *opset = 7;
    return NULL;
}

/* The number that the first data set feeds into input `name`; `otherwise` when there is none. */
static double fed_number(const char *folder, const Onnx__GraphProto *g, const char *name,
                         double otherwise)
{
    for (size_t i = 0, file = 0; i < g->n_input; i++) {
        if (!is_fed(g, g->input[i]->name))
            continue;
        if (strcmp(g->input[i]->name, name) == 0) {
            char path[640];
            snprintf(path, sizeof(path), "%s/test_data_set_0/input_%zu.pb", folder, file);
            _cleanup_(tensor_freep) struct tensor *t = NULL;
            return onnx_read_tensor(path, &t, NULL) == 0 ? tensor_get_f64(t, 0) : otherwise;
        }
        file++;
    }
    return otherwise;
}

static bool trains(const char *folder, const Onnx__GraphProto *g)
{
    for (size_t i = 0; i < g->n_node; i++) {
        const Onnx__NodeProto *node = g->node[i];
        if (strcmp(node->op_type, "Dropout") == 0 && node->n_input == 3 &&
            fed_number(folder, g, node->input[2], 0) != 0)
            return true;
    }
    return false;
}

static const char *reason_of(const char *folder, Onnx__ModelProto *model)
{
    const Onnx__GraphProto *g = model->graph;
    const char *reason = NULL;
    for (size_t i = 0; i < g->n_node && !reason; i++)
        reason = node_reason(g->node[i]);
    for (size_t i = 0; i < g->n_input && !reason; i++)
        reason = port_reason(g->input[i]);
    for (size_t i = 0; i < g->n_output && !reason; i++)
        reason = port_reason(g->output[i]);
    if (!reason && trains(folder, g))
        reason = "training mode";
    return reason ? reason : opset_reason(model);
}

static void name_operators(const Onnx__GraphProto *g, char *ret, size_t size)
{
    const char *only = NULL;
    for (size_t i = 0; i < g->n_node; i++) {
        const char *op = g->node[i]->op_type;
        if (strcmp(op, "Constant") == 0 && g->n_node > 1)
            continue;
        only = !only || strcmp(only, op) == 0 ? op : "several";
    }
    str_copy(ret, size, only ? only : "none");
}

int onnx_case_open(const char *folder, struct onnx_case *ret, struct err *err)
{
    _cleanup_(model_freep) Onnx__ModelProto *model = NULL;
    int rc = read_model(folder, &model, err);
    if (rc < 0)
        return rc;
    struct onnx_case c = {0};
    const char *slash = strrchr(folder, '/');
    str_copy(c.name, sizeof(c.name), slash ? slash + 1 : folder);
    str_copy(c.folder, sizeof(c.folder), folder);
    name_operators(model->graph, c.operators, sizeof(c.operators));
    c.left_out = reason_of(folder, model);
    for (;; c.n_data_sets++) {
        char path[640];
        snprintf(path, sizeof(path), "%s/test_data_set_%d", folder, c.n_data_sets);
        if (!fs_is_dir(path))
            break;
    }
    *ret = c;
    return 0;
}

/* ---- data sets ---------------------------------------------------------------------------- */

/* Inputs [first, last] of the operator decide about shapes. */
static bool steers(const Onnx__NodeProto *node, size_t i)
{
    static const struct {
        const char *op;
        size_t first, last;
    } table[] = {
        {"ConstantOfShape", 0, 0}, {"Expand", 1, 1},    {"Pad", 1, 3},     {"ReduceMean", 1, 1},
        {"Reshape", 1, 1},         {"Resize", 1, 3},    {"Slice", 1, 4},   {"Split", 1, 1},
        {"Squeeze", 1, 1},         {"Unsqueeze", 1, 1}, {"Dropout", 1, 2}, {"Upsample", 1, 1},
    };
    for (size_t k = 0; k < sizeof(table) / sizeof(table[0]); k++) {
        if (strcmp(table[k].op, node->op_type) == 0)
            return i >= table[k].first && i <= table[k].last;
    }
    return false;
}

static bool is_steering(const Onnx__GraphProto *g, const char *name)
{
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_input; k++) {
            if (strcmp(g->node[i]->input[k], name) == 0 && steers(g->node[i], k))
                return true;
        }
    }
    return false;
}

/* The tensor file's content becomes the initializer `name`. */
static int add_initializer(Onnx__GraphProto *g, const char *name, const char *path, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes;
    int rc = fs_read(path, MAX_FILE, &data, &bytes, err);
    if (rc < 0)
        return rc;
    Onnx__TensorProto *t = onnx__tensor_proto__unpack(NULL, bytes, data);
    if (!t)
        return err_set(err, ERR_DATA_LOSS, "%s: no tensor", path);
    /* The default text of a field belongs to nobody. */
    if (t->name && t->name != protobuf_c_empty_string)
        free(t->name);
    t->name = strdup(name);
    g->initializer = mem_realloc(g->initializer, g->n_initializer + 1, sizeof(*g->initializer));
    g->initializer[g->n_initializer++] = t;
    return 0;
}

static void drop_input(Onnx__GraphProto *g, size_t i)
{
    onnx__value_info_proto__free_unpacked(g->input[i], NULL);
    for (g->n_input--; i < g->n_input; i++)
        g->input[i] = g->input[i + 1];
}

struct feed {
    char name[128];
    char path[640];
};

/* Whether an input or output of the data set has no elements. Hone refuses networks that compute
 * nothing; constants may be empty, so these cases go the way of constant folding. */
static bool has_empty(const char *folder, int set)
{
    static const char *const kinds[] = {"input", "output"};
    bool empty = false;
    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; !empty; i++) {
            char path[640];
            snprintf(path, sizeof(path), "%s/test_data_set_%d/%s_%d.pb", folder, set, kinds[kind],
                     i);
            _cleanup_(tensor_freep) struct tensor *t = NULL;
            if (onnx_read_tensor(path, &t, NULL) < 0)
                break;
            empty = shape_elements(&t->shape) == 0;
        }
    }
    return empty;
}

/* Turns inputs into initializers as `binding` says; the others are listed with their data. */
static int bind(Onnx__GraphProto *g, const char *folder, int set, enum onnx_case_binding binding,
                struct feed *feeds, int *ret_n, struct err *err)
{
    bool empty = has_empty(folder, set);
    int file = 0, n = 0;
    for (size_t i = 0; i < g->n_input;) {
        const char *name = g->input[i]->name;
        if (!is_fed(g, name)) {
            i++;
            continue;
        }
        struct feed *feed = &feeds[n];
        str_copy(feed->name, sizeof(feed->name), name);
        snprintf(feed->path, sizeof(feed->path), "%s/test_data_set_%d/input_%d.pb", folder, set,
                 file++);
        if (empty || is_steering(g, name) || (binding == BIND_ALL_BUT_FIRST && n > 0)) {
            int rc = add_initializer(g, feed->name, feed->path, err);
            if (rc < 0)
                return rc;
            drop_input(g, i);
            continue;
        }
        if (++n == ONNX_CASE_MAX_VALUES)
            return err_set(err, ERR_OUT_OF_RANGE, "too many inputs");
        i++;
    }
    *ret_n = n;
    return 0;
}

static int import(const Onnx__ModelProto *model, const char *folder, struct graph **ret,
                  struct err *err)
{
    struct onnx_limits limits = onnx_default_limits;
    limits.allow_nonfinite = true;
    size_t bytes = onnx__model_proto__get_packed_size(model);
    _cleanup_(freep) uint8_t *packed = mem_calloc(bytes, 1);
    if (!packed)
        return err_oom(err, "a model");
    onnx__model_proto__pack(model, packed);
    return onnx_read_bytes(packed, bytes, folder, &limits, ret, err);
}

/* numpy has no bfloat16: the suite's files call its bits uint16. */
static int read_as(const char *path, enum dtype dtype, struct tensor **ret, struct err *err)
{
    int rc = onnx_read_tensor(path, ret, err);
    if (rc == 0 && dtype == DTYPE_BF16 && (*ret)->dtype == DTYPE_U16)
        (*ret)->dtype = DTYPE_BF16;
    return rc;
}

static int read_tensors(const struct onnx_case *c, int set, const struct feed *feeds, int n,
                        struct onnx_case_run *run, struct err *err)
{
    const struct graph *g = run->graph;
    if (g->n_inputs > ONNX_CASE_MAX_VALUES || g->n_outputs > ONNX_CASE_MAX_VALUES)
        return err_set(err, ERR_OUT_OF_RANGE, "too many inputs or outputs");
    for (int i = 0; i < g->n_inputs; i++) {
        const char *name = g->values[g->inputs[i]]->name;
        int k = 0;
        while (k < n && strcmp(feeds[k].name, name) != 0)
            k++;
        if (k == n)
            return err_set(err, ERR_NOT_FOUND, "input '%s' has no data", name);
        enum dtype dtype = g->values[g->inputs[i]]->dtype;
        int rc = read_as(feeds[k].path, dtype, &run->inputs[i], err);
        if (rc < 0)
            return rc;
    }
    for (int i = 0; i < g->n_outputs; i++) {
        char path[640];
        snprintf(path, sizeof(path), "%s/test_data_set_%d/output_%d.pb", c->folder, set, i);
        int rc = read_as(path, g->values[g->outputs[i]]->dtype, &run->expected[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int onnx_case_load(const struct onnx_case *c, int data_set, enum onnx_case_binding binding,
                   struct onnx_case_run *ret, struct err *err)
{
    _cleanup_(model_freep) Onnx__ModelProto *model = NULL;
    _cleanup_(onnx_case_run_release) struct onnx_case_run run = {0};
    _cleanup_(freep) struct feed *feeds = mem_calloc(ONNX_CASE_MAX_VALUES, sizeof(*feeds));
    int n = 0;
    if (!feeds)
        return err_oom(err, "inputs");
    int rc = read_model(c->folder, &model, err);
    if (rc < 0)
        return rc;
    opset_reason(model); /* raises opset 6 */
    rc = bind(model->graph, c->folder, data_set, binding, feeds, &n, err);
    if (rc == 0)
        rc = import(model, c->folder, &run.graph, err);
    if (rc == 0)
        rc = read_tensors(c, data_set, feeds, n, &run, err);
    if (rc < 0)
        return rc;
    *ret = run;
    run = (struct onnx_case_run){0};
    return 0;
}

void onnx_case_run_release(struct onnx_case_run *run)
{
    graph_free(run->graph);
    for (int i = 0; i < ONNX_CASE_MAX_VALUES; i++) {
        tensor_free(run->inputs[i]);
        tensor_free(run->expected[i]);
    }
    *run = (struct onnx_case_run){0};
}

/* ---- comparison --------------------------------------------------------------------------- */

static bool is_close(double got, double want, double rtol, double atol)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf(want) || isinf(got))
        return got == want;
    return fabs(got - want) <= atol + rtol * fabs(want);
}

int onnx_case_compare(const struct tensor *got, const struct tensor *want, double rtol, double atol,
                      struct err *err)
{
    char a[128], b[128];
    if (got->dtype != want->dtype || !shape_equal(&got->shape, &want->shape))
        return err_set(err, ERR_FAILED_PRECONDITION, "%s %s instead of %s %s",
                       dtype_name(got->dtype), shape_text(&got->shape, a), dtype_name(want->dtype),
                       shape_text(&want->shape, b));
    bool exact = !dtype_is_float(want->dtype);
    if (exact && memcmp(got->data, want->data, tensor_bytes(want)) == 0)
        return 0;
    /* The suite made its bfloat16 by cutting bits off; rounding may give the next one up. */
    if (want->dtype == DTYPE_BF16 && rtol < 0x1p-7)
        rtol = 0x1p-7;
    for (int64_t i = 0; i < shape_elements(&want->shape); i++) {
        double x = tensor_get_f64(got, i), y = tensor_get_f64(want, i);
        if (exact ? x != y : !is_close(x, y, rtol, atol))
            return err_set(err, ERR_FAILED_PRECONDITION, "element %lld is %.9g instead of %.9g",
                           (long long)i, x, y);
    }
    return 0;
}
