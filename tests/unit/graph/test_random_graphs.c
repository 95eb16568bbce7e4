/* Random small networks: every pass, export, and opening the batch leave their function alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/rng.h"
#include "shared/base/str.h"
#include "shared/graph/cuts.h"
#include "shared/graph/eval.h"
#include "shared/graph/infer.h"
#include "shared/graph/passes.h"
#include "tests/support/onnx_text.h"

enum { VALUES_MAX = 64 };

/* A network being written as text; all values are images [N, channels, height, width]. */
struct maker {
    struct rng rng;
    struct strbuf text;
    int n; /* values so far: v0 (the input), v1, ... */
    int size[VALUES_MAX][3];
    int constants;
};

static int below(struct maker *m, int n)
{
    return (int)rng_below(&m->rng, (uint64_t)n);
}

static void line(struct maker *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(struct maker *m, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    strbuf_printf(&m->text, "%s\n", text);
}

/* Declares the next value, like value `from` but for what is not -1. */
static int next(struct maker *m, int from, int c, int h, int w)
{
    const int size[3] = {c, h, w};
    for (int i = 0; i < 3; i++)
        m->size[m->n][i] = size[i] < 0 ? m->size[from][i] : size[i];
    return m->n++;
}

static void add_conv(struct maker *m, int v)
{
    int in = m->size[v][0], out = 1 + below(m, 6), group = 1, k = 1 + below(m, 3),
        pad = below(m, 2);
    if (below(m, 4) == 0)
        out = group = in;
    int h = m->size[v][1] + 2 * pad - k + 1, w = m->size[v][2] + 2 * pad - k + 1;
    if (h < 1 || w < 1)
        return;
    int c = m->constants++, y = next(m, v, out, h, w);
    line(m, "init c%d float %d,%d,%d,%d rand\ninit d%d float %d rand", c, out, in / group, k, k, c,
         out);
    line(m, "Conv n%d v%d,c%d%s%d -> v%d group=%d pads=[%d,%d,%d,%d]", y, v, c, ",d", c, y, group,
         pad, pad, pad, pad);
}

static void add_batchnorm(struct maker *m, int v)
{
    int c = m->constants++, y = next(m, v, -1, -1, -1), n = m->size[v][0];
    line(m, "init c%d float %d rand\ninit d%d float %d positive", c, n, c, n);
    line(m, "BatchNormalization n%d v%d,c%d,c%d,c%d,d%d -> v%d", y, v, c, c, c, c, y);
}

static void add_arithmetic(struct maker *m, int v)
{
    static const char *const ops[] = {"Add", "Sub", "Mul", "Div"};
    int op = below(m, 4), c = m->constants++, y = next(m, v, -1, -1, -1), form = below(m, 4);
    const int *s = m->size[v];
    char dims[64];
    if (form == 0)
        snprintf(dims, sizeof(dims), "-");
    else if (form == 1)
        snprintf(dims, sizeof(dims), "%d", s[2]);
    else
        snprintf(dims, sizeof(dims), "%s%d,1,1", form == 2 ? "1," : "", s[0]);
    line(m, "init c%d float %s positive", c, dims);
    bool turned = op < 3 && below(m, 2);
    line(m, turned ? "%s n%d c%d,v%d -> v%d" : "%s n%d v%d,c%d -> v%d", ops[op], y, turned ? c : v,
         turned ? v : c, y);
}

static void add_unary(struct maker *m, int v)
{
    static const char *const ops[] = {"Relu", "Identity",  "Dropout",     "Sigmoid",
                                      "Tanh", "LeakyRelu", "HardSigmoid", "Clip"};
    int y = next(m, v, -1, -1, -1);
    line(m, "%s n%d v%d -> v%d", ops[below(m, 8)], y, v, y);
}

static void add_relu6(struct maker *m, int v)
{
    int y = next(m, v, -1, -1, -1), c = m->constants++;
    line(m, "init c%d float - = 0\ninit d%d float - = 6\nClip n%d v%d,c%d%s%d -> v%d", c, c, y, v,
         c, ",d", c, y);
}

static void add_pad(struct maker *m, int v)
{
    int p[4] = {below(m, 3), below(m, 2), below(m, 3), below(m, 2)}, ch = below(m, 5) == 0;
    const int *s = m->size[v];
    if (s[1] > 8 || s[2] > 8)
        return;
    int y = next(m, v, s[0] + ch, s[1] + p[0] + p[1], s[2] + p[2] + p[3]), c = m->constants++;
    line(m, "init c%d int64 8 = 0 0 %d %d 0 %d %d %d\nPad n%d v%d,c%d -> v%d", c, p[0], p[2], ch,
         p[1], p[3], y, v, c, y);
}

static void add_pool(struct maker *m, int v)
{
    const int *s = m->size[v];
    if (s[1] < 2 || s[2] < 2)
        return;
    bool average = below(m, 2), whole = below(m, 4) == 0;
    int kh = whole ? s[1] : 2, kw = whole ? s[2] : 2;
    int y = next(m, v, -1, s[1] - kh + 1, s[2] - kw + 1);
    line(m, "%sPool n%d v%d -> v%d kernel_shape=[%d,%d]", average ? "Average" : "Max", y, v, y, kh,
         kw);
}

static void add_slice(struct maker *m, int v)
{
    int axis = below(m, 2), step = 1 + below(m, 2), c = m->constants++;
    const int *s = m->size[v];
    int size = (s[1 + axis] + step - 1) / step;
    int y = next(m, v, -1, axis == 0 ? size : -1, axis == 1 ? size : -1);
    line(m,
         "init z%d int64 1 = 0\ninit e%d int64 1 = 99\ninit a%d int64 1 = %d\n"
         "init s%d int64 1 = %d\nSlice n%d v%d,z%d,e%d,a%d,s%d -> v%d",
         c, c, c, axis + 2, c, step, y, v, c, c, c, c, y);
}

static void add_turn(struct maker *m, int v)
{
    const int *s = m->size[v];
    int y = next(m, v, -1, s[2], s[1]);
    line(m, "Transpose n%d v%d -> v%d perm=[0,1,3,2]", y, v, y);
}

static void add_reshape(struct maker *m, int v)
{
    const int *s = m->size[v];
    int c = m->constants++, y = next(m, v, s[1], s[0], -1);
    line(m, "init c%d int64 4 = 0 %d -1 %d\nReshape n%d v%d,c%d -> v%d", c, s[1], s[2], y, v, c, y);
}

/* Joins the value with another of the same size, when there is one. */
static void add_join(struct maker *m, int v)
{
    int other = below(m, m->n);
    if (memcmp(m->size[other] + 1, m->size[v] + 1, 2 * sizeof(int)) != 0)
        other = v;
    bool same = m->size[other][0] == m->size[v][0];
    bool add = same && below(m, 3) > 0;
    int y = next(m, v, add ? -1 : m->size[v][0] + m->size[other][0], -1, -1);
    line(m, add ? "Add n%d v%d,v%d -> v%d" : "Concat n%d v%d,v%d -> v%d axis=1", y, v, other, y);
}

static void add_head(struct maker *m)
{
    int v = m->n - 1, kind = below(m, 4), c = m->size[v][0];
    if (kind < 2) {
        line(m, "ReduceMean head v%d -> h axes=[2,3] keepdims=0", v);
    } else {
        line(m, "GlobalAveragePool pool v%d -> g", v);
        line(m,
             kind == 2 ? "Flatten head g -> h" : "init hs int64 2 = 2 3\nSqueeze head g,hs -> h");
    }
    line(m,
         "init hw float %d,3 rand\ninit hb float 3 rand\nMatMul fc h,hw -> f\nAdd bias f,hb -> y",
         c);
    line(m, "output y");
    if (below(m, 3) == 0)
        line(m, "output v%d", 1 + below(m, m->n - 1)); /* something in the middle as well */
}

/* The text of network number `seed`, with `batch` as first dimension. The caller's. */
static char *make(int seed, const char *batch)
{
    static void (*const layers[])(struct maker *, int) = {
        add_conv,       add_conv,       add_conv,  add_batchnorm, add_batchnorm,
        add_arithmetic, add_arithmetic, add_unary, add_unary,     add_relu6,
        add_pad,        add_pad,        add_pool,  add_slice,     add_slice,
        add_turn,       add_reshape,    add_join,  add_join,
    };
    struct maker m = {.n = 1, .size = {{3, 6, 5}}};
    rng_seed(&m.rng, (uint64_t)seed);
    line(&m, "input v0 float %s,3,6,5", batch);
    int depth = 3 + below(&m, 14);
    for (int i = 0; i < depth; i++) {
        int v = below(&m, 4) == 0 ? below(&m, m.n) : m.n - 1;
        int layer = below(&m, sizeof(layers) / sizeof(*layers)), before = m.n;
        layers[layer](&m, v);
        if (layer < 3 && m.n > before && below(&m, 2)) /* what often stands behind convolutions */
            layers[3 + below(&m, 4)](&m, m.n - 1);
        if (layers[layer] == add_pad && m.n > before)
            add_conv(&m, m.n - 1);
    }
    if (m.n == 1)
        add_unary(&m, 0);
    add_head(&m);
    assert_false(m.text.failed);
    return strbuf_take(&m.text);
}

static struct graph *clone(const struct graph *g)
{
    struct graph *copy = NULL;
    assert_int_equal(graph_clone(g, &copy, NULL), 0);
    return copy;
}

static void same(const struct graph *a, const struct graph *b, const char *what, int seed)
{
    double difference = graph_difference(a, b);
    if (!(difference < 1e-4))
        fail_msg("network %d differs by %g after %s", seed, difference, what);
}

static void passes_keep_the_function_of_random_networks(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int (*run)(struct graph *, struct err *);
    } passes[] = {
        {"fold_constants", pass_fold_constants}, {"remove_identities", pass_remove_identities},
        {"fold_batchnorm", pass_fold_batchnorm}, {"fold_pad", pass_fold_pad},
        {"canonicalise", pass_canonicalise},     {"simplify", pass_simplify},
    };
    int changes[6] = {0};
    for (int seed = 0; seed < 300; seed++) {
        _cleanup_(freep) char *text = make(seed, "N");
        struct graph *g = onnx_text_graph(text);
        for (size_t p = 0; p < 6; p++) {
            struct graph *copy = clone(g);
            struct err err = {0};
            int rc = passes[p].run(copy, &err);
            if (rc < 0)
                fail_msg("%s: %s", passes[p].name, err.message);
            changes[p] += rc;
            same(g, copy, passes[p].name, seed);
            graph_free(copy);
        }
        graph_free(g);
    }
    for (size_t p = 1; p < 6; p++) /* or the networks test nothing */
        if (changes[p] < 50)
            fail_msg("%s finds only %d", passes[p].name, changes[p]);
}

static void random_networks_are_written_and_read_unchanged(void **state)
{
    (void)state;
    for (int seed = 0; seed < 100; seed++) {
        _cleanup_(freep) char *text = make(seed, "N");
        struct graph *g = onnx_text_graph(text), *h = NULL;
        void *a = NULL, *b = NULL;
        size_t n, m;
        if (seed % 2)
            assert_true(pass_simplify(g, NULL) >= 0);
        assert_int_equal(onnx_write_bytes(g, &a, &n, NULL), 0);
        assert_int_equal(onnx_read_bytes(a, n, NULL, NULL, &h, NULL), 0);
        assert_int_equal(onnx_write_bytes(h, &b, &m, NULL), 0);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n);
        same(g, h, "export", seed);
        free(a);
        free(b);
        graph_free(g);
        graph_free(h);
    }
}

static void blocks_of_random_networks_make_up_the_whole(void **state)
{
    (void)state;
    for (int seed = 0; seed < 100; seed++) {
        _cleanup_(freep) char *text = make(seed, "N");
        _cleanup_(arena_freep) struct arena *arena = arena_new();
        struct graph *g = onnx_text_graph(text);
        struct cuts cuts;
        assert_int_equal(graph_cuts(g, arena, &cuts, NULL), 0);
        int nodes = 0;
        for (int b = 0; b < cuts.n_blocks; b++)
            nodes += cuts.blocks[b].n_nodes;
        assert_int_equal(nodes, g->n_nodes);
        struct tensor *x = random_input(g->values[g->inputs[0]], 2), *whole = NULL;
        if (g->n_outputs == 1) {
            assert_int_equal(eval_graph(g, (const struct tensor *const *)&x, &whole, NULL), 0);
            for (int b = 0; b < cuts.n_blocks; b++) {
                struct graph *part = NULL;
                struct tensor *y = NULL;
                assert_int_equal(graph_extract_blocks(g, &cuts, b, b, &part, NULL), 0);
                assert_int_equal(eval_graph(part, (const struct tensor *const *)&x, &y, NULL), 0);
                tensor_free(x);
                x = y;
                graph_free(part);
            }
            assert_memory_equal(x->data, whole->data, tensor_bytes(whole));
        }
        tensor_free(x);
        tensor_free(whole);
        graph_free(g);
    }
}

static void random_networks_of_a_fixed_batch_can_be_opened(void **state)
{
    (void)state;
    for (int seed = 0; seed < 100; seed++) {
        _cleanup_(freep) char *open = make(seed, "N");
        _cleanup_(freep) char *fixed = make(seed, "2");
        struct graph *g = onnx_text_graph(open), *h = onnx_text_graph(fixed);
        struct err err = {0};
        if (graph_make_batch_symbolic(h, &err) < 0)
            fail_msg("network %d: %s", seed, err.message);
        same(g, h, "opening the batch", seed);
        graph_free(g);
        graph_free(h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_keep_the_function_of_random_networks),
        cmocka_unit_test(random_networks_are_written_and_read_unchanged),
        cmocka_unit_test(blocks_of_random_networks_make_up_the_whole),
        cmocka_unit_test(random_networks_of_a_fixed_batch_can_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
