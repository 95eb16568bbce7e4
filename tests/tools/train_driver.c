/*
 * Trains a network built in here, for measurements and for comparisons with other programs.
 *
 *     train_driver bench NET [OPTIONS]     images a second of whole training steps, as JSON
 *     train_driver run NET --samples X.npy --labels Y.npy --steps N [OPTIONS]
 *                                          the loss of each step, one a line; the samples are taken
 *                                          in order, again and again
 *     train_driver dump NET DIR            the weights that it starts from: DIR/NUMBER.npy in the
 *                                          order of the layers
 *     train_driver write NET FILE          the network as ONNX
 *
 * NET: resnet20, resnet56, wide12 or shallow. OPTIONS: --batch N, --slice N, --threads N,
 * --precision P,
 * --seconds S, --rate R, --profile N (where the time goes: of the first N operators and by kind).
 * The optimizer is SGD with Nesterov momentum 0.9.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/rng.h"
#include "shared/base/str.h"
#include "shared/data/npy.h"
#include "shared/design/design.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/train/net.h"

static void must(int rc, const struct err *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "train_driver: %s\n", err->message);
    exit(1);
}

/* ---- networks ---- */

struct builder {
    struct graph *g;
    struct rng rng;
    int64_t pixels; /* of a side, now */
};

static int constant(struct builder *b, int rank, const int64_t *dims, float value, float deviation)
{
    struct err err = {0};
    const struct shape shape = shape_make(rank, dims);
    int v = graph_add_constant(b->g, NULL, DTYPE_F32, &shape, NULL, &err);
    must(v, &err);
    float *x = b->g->values[v]->constant->data;
    for (int64_t i = 0; i < shape_elements(&shape); i++)
        x[i] = value + deviation * (float)rng_normal(&b->rng);
    return v;
}

static int integers(struct builder *b, int n, const int64_t *x)
{
    struct err err = {0};
    const struct shape shape = shape_make(1, (int64_t[]){n});
    int v = graph_add_constant(b->g, NULL, DTYPE_S64, &shape, x, &err);
    must(v, &err);
    return v;
}

static int apply(struct builder *b, enum op op, int n, const int *in)
{
    struct err err = {0};
    int at = graph_add_node(b->g, -1, op, NULL, n, in, 1, NULL, &err);
    must(at, &err);
    return b->g->nodes[at]->outputs[0];
}

static struct node *producer(const struct builder *b, int value)
{
    return b->g->nodes[b->g->values[value]->producer];
}

static int conv(struct builder *b, int x, int64_t from, int64_t to, int64_t stride)
{
    struct err err = {0};
    int w = constant(b, 4, (int64_t[]){to, from, 3, 3}, 0, sqrtf(2.0f / (float)(9 * to)));
    int y = apply(b, OP_CONV, 2, (int[]){x, w});
    struct node *node = producer(b, y);
    must(graph_set_attr_ints(b->g, node, "strides", 2, (int64_t[]){stride, stride}, &err), &err);
    must(graph_set_attr_ints(b->g, node, "pads", 4, (int64_t[]){1, 1, 1, 1}, &err), &err);
    b->pixels /= stride;
    return y;
}

static int norm(struct builder *b, int x, int64_t c)
{
    const int64_t dims[] = {c};
    return apply(b, OP_BATCH_NORMALIZATION, 5,
                 (int[]){x, constant(b, 1, dims, 1, 0), constant(b, 1, dims, 0, 0),
                         constant(b, 1, dims, 0, 0), constant(b, 1, dims, 1, 0)});
}

static int conv_norm_relu(struct builder *b, int x, int64_t from, int64_t to, int64_t stride)
{
    return apply(b, OP_RELU, 1, (int[]){norm(b, conv(b, x, from, to, stride), to)});
}

/* Every other pixel, with channels of zeros around. */
static int shortcut(struct builder *b, int x, int64_t from, int64_t to)
{
    const int64_t p = b->pixels, more = (to - from) / 2;
    x = apply(b, OP_SLICE, 5,
              (int[]){x, integers(b, 2, (int64_t[]){0, 0}), integers(b, 2, (int64_t[]){p, p}),
                      integers(b, 2, (int64_t[]){2, 3}), integers(b, 2, (int64_t[]){2, 2})});
    return apply(b, OP_PAD, 2,
                 (int[]){x, integers(b, 8, (int64_t[]){0, more, 0, 0, 0, to - from - more, 0, 0})});
}

static int block(struct builder *b, int x, int64_t from, int64_t to)
{
    int side = from == to ? x : shortcut(b, x, from, to);
    int y = conv_norm_relu(b, x, from, to, from == to ? 1 : 2);
    y = norm(b, conv(b, y, to, to, 1), to);
    return apply(b, OP_RELU, 1, (int[]){apply(b, OP_ADD, 2, (int[]){y, side})});
}

static int resnet(struct builder *b, int x, int blocks)
{
    x = conv_norm_relu(b, x, 3, 16, 1);
    for (int64_t c = 16; c <= 64; c *= 2)
        for (int i = 0; i < blocks; i++)
            x = block(b, x, i == 0 && c > 16 ? c / 2 : c, c);
    return x;
}

static int classify(struct builder *b, int x, int64_t c)
{
    x = apply(b, OP_FLATTEN, 1, (int[]){apply(b, OP_GLOBAL_AVERAGE_POOL, 1, (int[]){x})});
    int w = constant(b, 2, (int64_t[]){c, 10}, 0, 0.1f),
        bias = constant(b, 1, (int64_t[]){10}, 0, 0);
    return apply(b, OP_GEMM, 3, (int[]){x, w, bias});
}

static int resnet20(struct builder *b, int x)
{
    return classify(b, resnet(b, x, 3), 64);
}

static int resnet56(struct builder *b, int x)
{
    return classify(b, resnet(b, x, 9), 64);
}

static int max_pool(struct builder *b, int x, int64_t side)
{
    struct err err = {0};
    int y = apply(b, OP_MAX_POOL, 1, (int[]){x});
    const int64_t sides[] = {side, side};
    must(graph_set_attr_ints(b->g, producer(b, y), "kernel_shape", 2, sides, &err), &err);
    must(graph_set_attr_ints(b->g, producer(b, y), "strides", 2, sides, &err), &err);
    return y;
}

/* Few wide layers, after Jordan's airbench94 (2024): patches of 2x2, then three times two
 * convolutions with pooling between them; answers small, so that they are not certain early. */
static int shallow(struct builder *b, int x)
{
    struct err err = {0};
    static const int64_t widths[] = {24, 64, 256, 256};
    int w = constant(b, 4, (int64_t[]){24, 3, 2, 2}, 0, 0.3f);
    x = apply(b, OP_RELU, 1, (int[]){norm(b, apply(b, OP_CONV, 2, (int[]){x, w}), 24)});
    for (int i = 1; i < 4; i++) {
        x = norm(b, max_pool(b, conv(b, x, widths[i - 1], widths[i], 1), 2), widths[i]);
        x = apply(b, OP_RELU, 1, (int[]){x});
        x = conv_norm_relu(b, x, widths[i], widths[i], 1);
    }
    x = apply(b, OP_FLATTEN, 1, (int[]){max_pool(b, x, 3)});
    x = apply(b, OP_GEMM, 2, (int[]){x, constant(b, 2, (int64_t[]){256, 10}, 0, 0.1f)});
    must(graph_set_attr_float(b->g, producer(b, x), "alpha", 1.0f / 9, &err), &err);
    return x;
}

static const struct {
    const char *name;
    int (*build)(struct builder *b, int x);
} networks[] = {{"resnet20", resnet20}, {"resnet56", resnet56}, {"shallow", shallow}};

/* Networks that are designs. */
static const struct {
    const char *name, *text;
} designs[] = {
    {"wide12", "conv:16 conv:32:s2 residual:32*2 conv:64:s2 residual:64 conv:128:s2 residual:128 "
               "head"},
};

static struct graph *designed(const char *text)
{
    const struct design_ends ends = {
        .channels = 3, .height = 32, .width = 32, .outputs = 10, .seed = 1};
    struct err err = {0};
    struct design design;
    struct graph *g = NULL;
    struct arena *arena = arena_new();
    must(arena ? 0 : err_oom(&err, "a design"), &err);
    must(design_parse(text, arena, &design, &err), &err);
    must(design_build(&design, &ends, &g, &err), &err);
    arena_free(arena);
    return g;
}

static struct graph *network(const char *name)
{
    struct err err = {0};
    struct builder b = {.pixels = 32};
    size_t i = 0;
    for (size_t k = 0; k < sizeof(designs) / sizeof(*designs); k++)
        if (strcmp(designs[k].name, name) == 0)
            return designed(designs[k].text);
    while (i < sizeof(networks) / sizeof(*networks) && strcmp(networks[i].name, name) != 0)
        i++;
    if (i == sizeof(networks) / sizeof(*networks)) {
        fprintf(stderr, "train_driver: no network '%s'\n", name);
        exit(2);
    }
    rng_seed(&b.rng, 1);
    b.g = graph_new(13, &err);
    if (!b.g)
        must(-1, &err);
    const struct shape shape = shape_make(4, (int64_t[]){DIM_BATCH, 3, 32, 32});
    int x = graph_add_input(b.g, "input", DTYPE_F32, &shape, &err);
    must(x, &err);
    must(graph_add_output(b.g, networks[i].build(&b, x), &err), &err);
    must(graph_compact(b.g, &err), &err);
    must(graph_infer(b.g, &err), &err);
    return b.g;
}

/* ---- training ---- */

struct batch {
    struct train_net *net;
    const int32_t *labels;
    int64_t size;
    double *losses; /* by sample */
};

/* Softmax and cross entropy. */
static int cross_entropy(void *ctx, int lane, int64_t first, int64_t count,
                         const float *const *outputs, float *const *gradients, struct err *err)
{
    (void)lane;
    (void)err;
    struct batch *b = ctx;
    const int64_t width = train_net_output_width(b->net, 0);
    for (int64_t s = 0; s < count; s++) {
        const float *y = outputs[0] + s * width;
        double most = (double)y[0], sum = 0;
        for (int64_t i = 1; i < width; i++)
            most = fmax(most, (double)y[i]);
        for (int64_t i = 0; i < width; i++)
            sum += exp((double)y[i] - most);
        const int32_t label = b->labels[first + s];
        b->losses[first + s] = log(sum) + most - (double)y[label];
        for (int64_t i = 0; i < width; i++)
            gradients[0][s * width + i] =
                (float)((exp((double)y[i] - most) / sum - (i == label)) / (double)b->size);
    }
    return 0;
}

struct settings {
    struct train_net_options net;
    double seconds, rate;
    int64_t steps;
    const char *samples, *labels;
    int profile;
};

static void descend(struct train_net *net, float **velocity, float rate)
{
    for (int i = 0; i < train_net_n_params(net); i++) {
        struct train_param *p = train_net_param(net, i);
        float *v = velocity[i];
        for (int64_t k = 0; k < p->n; k++) {
            v[k] = 0.9f * v[k] + p->grad[k];
            p->value[k] -= rate * (p->grad[k] + 0.9f * v[k]);
        }
    }
}

static float **velocities(struct train_net *net)
{
    float **v = calloc((size_t)train_net_n_params(net), sizeof(*v));
    for (int i = 0; v && i < train_net_n_params(net); i++)
        v[i] = calloc((size_t)train_net_param(net, i)->n, sizeof(float));
    return v;
}

static double step(struct batch *b, const float *x, float **velocity, const struct settings *s)
{
    struct err err = {0};
    must(train_net_step(b->net, x, cross_entropy, b, &err), &err);
    descend(b->net, velocity, (float)s->rate);
    double sum = 0;
    for (int64_t i = 0; i < b->size; i++)
        sum += b->losses[i];
    return sum / (double)b->size;
}

static long peak_kb(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    long long kb = 0;
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "VmHWM: %lld", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (long)kb;
}

static void bench(struct batch *b, const struct settings *s)
{
    const int64_t n = b->size * train_net_input_width(b->net);
    float *x = calloc((size_t)n, sizeof(*x));
    int32_t *labels = calloc((size_t)b->size, sizeof(*labels));
    struct rng rng;
    rng_seed(&rng, 1);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&rng);
    for (int64_t i = 0; i < b->size; i++)
        labels[i] = (int32_t)(i % 10);
    b->labels = labels;
    float **velocity = velocities(b->net);
    step(b, x, velocity, s);
    step(b, x, velocity, s);
    int64_t begin = clock_now_ns(NULL), now = begin, steps = 0;
    for (; (double)(now - begin) < s->seconds * 1e9; now = clock_now_ns(NULL), steps++)
        step(b, x, velocity, s);
    printf("{\"images_per_s\": %.1f, \"slice\": %" PRId64 ", \"lanes\": %d, \"precision\": \"%s\", "
           "\"planned_mb\": %.1f, \"peak_mb\": %.1f}\n",
           (double)(steps * b->size) * 1e9 / (double)(now - begin), train_net_slice(b->net),
           train_net_lanes(b->net), precision_name(train_net_precision(b->net)),
           (double)train_net_memory(b->net) * 1e-6, (double)peak_kb() * 1.024e-3);
    free(x);
    free(labels);
}

static void profile(const struct train_net *net, int most)
{
    struct train_time t;
    double sum = 0;
    struct kind {
        const char *name;
        int64_t forward, backward;
    } kinds[32] = {0};
    int n = 0;
    for (int i = 0; train_net_time(net, i, &t) == 0; i++) {
        int k = 0;
        while (k < n && strcmp(kinds[k].name, t.kind) != 0)
            k++;
        n = k == n && n < 31 ? n + 1 : n;
        kinds[k].name = t.kind;
        kinds[k].forward += t.forward_ns;
        kinds[k].backward += t.backward_ns;
        sum += (double)(t.forward_ns + t.backward_ns);
        if (i < most)
            printf("%3d %-14s %-24s %8.1f %8.1f ms\n", i, t.kind, t.node,
                   (double)t.forward_ns * 1e-6, (double)t.backward_ns * 1e-6);
    }
    for (int k = 0; k < n; k++)
        printf("%-16s forward %5.1f %%, backward %5.1f %%\n", kinds[k].name,
               (double)kinds[k].forward / sum * 100, (double)kinds[k].backward / sum * 100);
}

static void run(struct batch *b, const struct settings *s)
{
    struct err err = {0};
    void *xs = NULL, *ys = NULL;
    size_t xn = 0, yn = 0;
    struct npy samples, labels;
    must(fs_read(s->samples, (size_t)1 << 32, &xs, &xn, &err), &err);
    must(fs_read(s->labels, (size_t)1 << 32, &ys, &yn, &err), &err);
    must(npy_parse(xs, xn, &samples, &err), &err);
    must(npy_parse(ys, yn, &labels, &err), &err);
    const int64_t width = train_net_input_width(b->net), batches = samples.shape[0] / b->size;
    float *x = calloc((size_t)(b->size * width), sizeof(*x));
    int32_t *y = calloc((size_t)b->size, sizeof(*y));
    b->labels = y;
    float **velocity = velocities(b->net);
    for (int64_t i = 0; i < s->steps; i++) {
        for (int64_t k = 0; k < b->size; k++) {
            int64_t at = i % batches * b->size + k;
            npy_row_f32(&samples, at, x + k * width);
            y[k] = (int32_t)npy_get_i64(&labels, at);
        }
        printf("%.9g\n", step(b, x, velocity, s));
    }
    free(x);
    free(y);
    free(xs);
    free(ys);
}

/* .npy, version 1.0. */
static void dump(struct train_net *net, const char *dir)
{
    for (int i = 0; i < train_net_n_params(net); i++) {
        const struct train_param *p = train_net_param(net, i);
        char path[4096], header[118 + 1], shape[64] = "";
        for (int d = 0; d < p->shape.rank; d++) {
            size_t at = strlen(shape);
            snprintf(shape + at, sizeof(shape) - at, "%" PRId64 ", ", p->shape.dim[d]);
        }
        int n = snprintf(header, sizeof(header),
                         "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", shape);
        memset(header + n, ' ', sizeof(header) - (size_t)n);
        header[117] = '\n';
        snprintf(path, sizeof(path), "%s/%d.npy", dir, i);
        FILE *f = fopen(path, "wbe");
        if (!f || fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, f) != 10 ||
            fwrite(header, 1, 118, f) != 118 ||
            fwrite(p->value, sizeof(float), (size_t)p->n, f) != (size_t)p->n || fclose(f) != 0) {
            fprintf(stderr, "train_driver: %s cannot be written\n", path);
            exit(1);
        }
    }
}

static double number(const char *text)
{
    struct err err = {0};
    double x = 0;
    must(str_parse_f64(text, &x, &err), &err);
    return x;
}

static void read_options(int argc, char **argv, struct settings *s)
{
    struct err err = {0};
    for (int i = 3; i + 1 < argc; i += 2) {
        const char *name = argv[i], *text = argv[i + 1];
        if (strcmp(name, "--batch") == 0)
            s->net.batch = (int64_t)number(text);
        else if (strcmp(name, "--slice") == 0)
            s->net.slice = (int64_t)number(text);
        else if (strcmp(name, "--threads") == 0)
            s->net.threads = (int)number(text);
        else if (strcmp(name, "--precision") == 0)
            must(precision_parse(text, &s->net.precision, &err), &err);
        else if (strcmp(name, "--seconds") == 0)
            s->seconds = number(text);
        else if (strcmp(name, "--rate") == 0)
            s->rate = number(text);
        else if (strcmp(name, "--profile") == 0)
            s->profile = (int)number(text);
        else if (strcmp(name, "--steps") == 0)
            s->steps = (int64_t)number(text);
        else if (strcmp(name, "--samples") == 0)
            s->samples = text;
        else if (strcmp(name, "--labels") == 0)
            s->labels = text;
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: train_driver bench|run|dump|write NET ... (see its source)\n");
        return 2;
    }
    struct err err = {0};
    struct settings s = {.net = {.batch = 128, .threads = 1, .precision = PRECISION_FP32},
                         .seconds = 2,
                         .rate = 0.05,
                         .steps = 50};
    const bool dumps = strcmp(argv[1], "dump") == 0;
    if (!dumps)
        read_options(argc, argv, &s);
    struct graph *g = network(argv[2]);
    if (strcmp(argv[1], "write") == 0 && argc > 3) {
        must(onnx_write_file(g, argv[3], &err), &err);
        graph_free(g);
        return 0;
    }
    s.net.timed = s.profile > 0;
    struct batch b = {.size = s.net.batch};
    must(train_net_new(g, &s.net, &b.net, &err), &err);
    b.losses = calloc((size_t)b.size, sizeof(*b.losses));
    if (dumps && argc > 3)
        dump(b.net, argv[3]);
    else if (strcmp(argv[1], "bench") == 0)
        bench(&b, &s);
    else if (strcmp(argv[1], "run") == 0 && s.samples && s.labels)
        run(&b, &s);
    if (s.profile > 0)
        profile(b.net, s.profile);
    free(b.losses);
    train_net_free(b.net);
    graph_free(g);
    return 0;
}
