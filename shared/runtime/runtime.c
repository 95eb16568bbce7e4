/* The public C API (include/hone/runtime.h) over inference plans. */
#include <hone/runtime.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/data/preprocess.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/nn/plan.h"

_Static_assert(sizeof(struct hone_error) == sizeof(struct err), "the same, by another name");
_Static_assert(HONE_MAX_RANK >= SHAPE_MAX_RANK, "every shape fits");

/* Batches for which plans are made; what is asked for is put together from these, largest first. */
enum { N_SIZES = 5, WISH = N_SIZES - 1 };

struct hone_net {
    struct graph *graph;
    struct plan_options options;
    struct plan_pictures pictures;
    float table[4 * 256]; /* of the pictures */
    int64_t fixed_batch;
    pthread_mutex_t lock;   /* of the plans: runs take turns */
    int64_t sizes[N_SIZES]; /* 1, 4, 16, 64, and the caller's wish */
    struct plan *plans[N_SIZES];
};

static struct err *as_err(struct hone_error *error)
{
    if (error)
        memset(error, 0, sizeof(*error));
    return (struct err *)error;
}

/* ---- life ---- */

void hone_close(struct hone_net *net)
{
    if (!net)
        return;
    for (int i = 0; i < N_SIZES; i++)
        plan_free(net->plans[i]);
    graph_free(net->graph);
    pthread_mutex_destroy(&net->lock);
    free(net);
}

static void hone_closep(struct hone_net **net)
{
    hone_close(*net);
}

static int read_options(const struct hone_options *from, struct plan_options *ret, struct err *err)
{
    struct hone_options o = {0};
    if (from && (from->size < sizeof(size_t) || from->size > 4096))
        return err_set(err, ERR_INVALID_ARGUMENT, "options: size is %zu; set it to their sizeof",
                       from->size);
    if (from)
        memcpy(&o, from, from->size < sizeof(o) ? from->size : sizeof(o));
    if (o.threads < 0 || o.threads > 1024)
        return err_set(err, ERR_OUT_OF_RANGE, "options: %d threads", o.threads);
    if (o.batch < 0 || o.batch > 1 << 20)
        return err_set(err, ERR_OUT_OF_RANGE, "options: a batch of %lld", (long long)o.batch);
    *ret =
        (struct plan_options){.threads = o.threads ? o.threads : 1, .batch = o.batch ? o.batch : 1};
    int rc = o.precision ? precision_parse(o.precision, &ret->precision, err) : 0;
    if (rc == 0 && ret->precision == PRECISION_INT8)
        return err_set(
            err, ERR_INVALID_ARGUMENT,
            "options: int8 needs a network that was quantized with data (hone optimize)");
    return rc;
}

/* Pictures of bytes, where the options ask for them. */
static int read_pictures(struct hone_net *net, const struct hone_options *from, struct err *err)
{
    struct hone_options o = {0};
    struct preprocess pre;
    if (from)
        memcpy(&o, from, from->size < sizeof(o) ? from->size : sizeof(o));
    if (!o.pictures)
        return 0;
    const bool last = strcmp(o.pictures, "nhwc") == 0;
    if (!last && strcmp(o.pictures, "nchw") != 0)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "options: pictures '%.20s' are neither nhwc nor nchw", o.pictures);
    const char *text = o.preprocess ? o.preprocess : graph_metadata(net->graph, "hone.preprocess");
    if (!text)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "options: the file does not say what becomes of pictures; set preprocess");
    int rc = preprocess_parse(text, &pre, err);
    if (rc < 0)
        return rc;
    const struct shape *in =
        net->graph->n_inputs ? &net->graph->values[net->graph->inputs[0]]->shape : NULL;
    const int64_t channels = in && in->rank == 4 ? in->dim[1] : 0;
    if (channels < 1 || channels > 4 || (pre.bgr && channels != 3))
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "options: the first input is no picture of 1 to 4 channels%s",
                       pre.bgr ? " (bgr: of 3)" : "");
    preprocess_table(&pre, channels, net->table);
    net->pictures =
        (struct plan_pictures){.last = last, .channels = (int)channels, .real = net->table};
    for (int64_t c = 0; c < channels; c++)
        net->pictures.from[c] = (uint8_t)preprocess_channel(&pre, c, channels);
    net->options.pictures = &net->pictures;
    return 0;
}

static int plan_of(struct hone_net *net, int i, struct plan **ret, struct err *err)
{
    int rc = 0;
    if (!net->plans[i]) {
        struct plan_options options = net->options;
        options.batch = net->sizes[i];
        rc = plan_compile(net->graph, &options, &net->plans[i], err);
    }
    if (rc == 0)
        *ret = net->plans[i];
    return rc;
}

static int open_graph(struct graph *g, const struct hone_options *options, struct hone_net **ret,
                      struct err *err)
{
    struct hone_net *new = calloc(1, sizeof(*new));
    if (!new) {
        graph_free(g);
        return err_oom(err, "a network");
    }
    pthread_mutex_init(&new->lock, NULL);
    _cleanup_(hone_closep) struct hone_net *net = new;
    net->graph = g;
    int rc = read_options(options, &net->options, err);
    if (rc >= 0)
        rc = read_pictures(net, options, err);
    if (rc >= 0)
        rc = pass_simplify(g, err);
    if (rc < 0)
        return rc;
    if (graph_make_batch_symbolic(g, NULL) < 0 || !graph_samples_apart(g)) {
        const struct shape *in = g->n_inputs ? &g->values[g->inputs[0]]->shape : NULL;
        net->fixed_batch = in && in->rank > 0 ? in->dim[0] : 1;
        if (net->fixed_batch == DIM_BATCH) /* samples meet: only whole batches of one size */
            net->fixed_batch = net->options.batch;
        net->options.batch = net->fixed_batch;
    }
    const int64_t sizes[N_SIZES] = {1, 4, 16, 64, net->options.batch};
    memcpy(net->sizes, sizes, sizeof(sizes));
    struct plan *plan = NULL;
    rc = plan_of(net, WISH, &plan, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(net);
    return 0;
}

int hone_open(const char *path, const struct hone_options *options, struct hone_net **ret,
              struct hone_error *error)
{
    struct err *err = as_err(error);
    struct graph *g = NULL;
    if (!path || !ret)
        return err_set(err, ERR_INVALID_ARGUMENT, "hone_open: no path, or nowhere to put the net");
    int rc = onnx_read_file(path, NULL, &g, err);
    return rc < 0 ? rc : open_graph(g, options, ret, err);
}

int hone_open_bytes(const void *onnx, size_t bytes, const struct hone_options *options,
                    struct hone_net **ret, struct hone_error *error)
{
    struct err *err = as_err(error);
    struct graph *g = NULL;
    if (!onnx || !ret)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "hone_open_bytes: no bytes, or nowhere to put "
                       "the net");
    int rc = onnx_read_bytes(onnx, bytes, NULL, NULL, &g, err);
    return rc < 0 ? rc : open_graph(g, options, ret, err);
}

/* ---- ports ---- */

int hone_n_inputs(const struct hone_net *net)
{
    return net->graph->n_inputs;
}

int hone_n_outputs(const struct hone_net *net)
{
    return net->graph->n_outputs;
}

int64_t hone_fixed_batch(const struct hone_net *net)
{
    return net->fixed_batch;
}

/* Bytes from one sample to the next; 0 where the value is the same for all. */
static size_t stride_of(const struct hone_net *net, int value, const struct plan_port *port,
                        int64_t batch)
{
    return shape_has_batch(&net->graph->values[value]->shape) ? port->bytes / (size_t)batch : 0;
}

static int describe(const struct hone_net *net, int value, const struct plan_port *port,
                    struct hone_port *ret)
{
    const struct value *v = net->graph->values[value];
    *ret =
        (struct hone_port){.name = v->name, .type = dtype_name(port->dtype), .rank = v->shape.rank};
    for (int i = 0; i < v->shape.rank; i++)
        ret->dim[i] = v->shape.dim[i] == DIM_BATCH ? -1 : port->shape.dim[i];
    const size_t stride = stride_of(net, value, port, net->sizes[WISH]);
    ret->bytes = stride ? stride : port->bytes;
    return 0;
}

int hone_input(const struct hone_net *net, int index, struct hone_port *ret)
{
    if (index < 0 || index >= net->graph->n_inputs)
        return -ERR_OUT_OF_RANGE;
    return describe(net, net->graph->inputs[index], plan_input(net->plans[WISH], index), ret);
}

int hone_output(const struct hone_net *net, int index, struct hone_port *ret)
{
    if (index < 0 || index >= net->graph->n_outputs)
        return -ERR_OUT_OF_RANGE;
    return describe(net, net->graph->outputs[index], plan_output(net->plans[WISH], index), ret);
}

/* ---- running ---- */

/* The largest size that is no larger than what is left. */
static int size_for(const struct hone_net *net, int64_t left)
{
    int best = 0;
    for (int i = 0; i < N_SIZES; i++)
        if (net->sizes[i] <= left && net->sizes[i] >= net->sizes[best])
            best = i;
    return best;
}

static int run_piece(struct hone_net *net, struct plan *plan, int64_t batch, int64_t first,
                     const void *const *inputs, void *const *outputs, struct err *err)
{
    enum { MOST = 64 };
    const void *in[MOST];
    void *out[MOST];
    const int n_in = plan_n_inputs(plan), n_out = plan_n_outputs(plan);
    const struct graph *g = net->graph;
    if (n_in > MOST || n_out > MOST)
        return err_set(err, ERR_UNIMPLEMENTED, "more than %d inputs or outputs", MOST);
    for (int i = 0; i < n_in; i++)
        in[i] = (const char *)inputs[i] +
                stride_of(net, g->inputs[i], plan_input(plan, i), batch) * (size_t)first;
    for (int i = 0; i < n_out; i++)
        out[i] = (char *)outputs[i] +
                 stride_of(net, g->outputs[i], plan_output(plan, i), batch) * (size_t)first;
    return plan_run(plan, in, out, err);
}

int hone_run(struct hone_net *net, int64_t n, const void *const *inputs, void *const *outputs,
             struct hone_error *error)
{
    struct err *err = as_err(error);
    if (!net || !inputs || !outputs || n < 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "hone_run: no net, no buffers, or %lld samples",
                       (long long)n);
    if (net->fixed_batch && n != net->fixed_batch)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the network takes %lld samples at once, not %lld",
                       (long long)net->fixed_batch, (long long)n);
    int rc = 0;
    pthread_mutex_lock(&net->lock);
    for (int64_t done = 0; rc == 0 && done < n;) {
        struct plan *plan = NULL;
        int i = net->fixed_batch ? WISH : size_for(net, n - done);
        rc = plan_of(net, i, &plan, err);
        if (rc == 0)
            rc = run_piece(net, plan, net->sizes[i], done, inputs, outputs, err);
        done += net->fixed_batch ? n : net->sizes[i];
    }
    pthread_mutex_unlock(&net->lock);
    return rc;
}

const char *hone_version(void)
{
    return HONE_VERSION;
}

const char *hone_isa(void)
{
    return nn_isa();
}
