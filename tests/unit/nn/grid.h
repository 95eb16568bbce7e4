#pragma once
/*
 * A grid of shapes: one network, every implementation that can run its layer forced in turn, each
 * compared with the plain-C evaluation, which is done once. To be included after cmocka.h.
 */
#include "tests/unit/nn/plan_nets.h"

static const int64_t grid_batches[] = {1, 2, 3, 7, 8, 16, 33, 64, 65};
enum { GRID_BATCHES = sizeof(grid_batches) / sizeof(grid_batches[0]) };

/* Parts of names that tell implementations apart, and layouts. "" is whatever would run unforced;
 * the last is the plain-C step. Where a layer has none of a name, what runs has been compared
 * already. */
#define GRID_LAYOUTS "", "@last", "@plain", "@c16", "@c8", "@c4", "reference", NULL
static const char *const grid_any[] = {"ref", "rows", "jit:", "uni", GRID_LAYOUTS};
static const char *const grid_float_conv[] = {
    "jit:",      "jit_1x1",     "jit_dw",           "jit_uni",        "brg",
    "brdgmm",    "gemm",        "winograd:vectors", "winograd:plain", "jit_1x1@last",
    "jit:@last", "jit_dw@last", GRID_LAYOUTS};
static const char *const grid_narrow_conv[] = {
    "jit_int8:",        "jit_int8_1x1",     "jit_int8_dw",  "brgconv",
    "brg_conv",         "brdgmm",           "gemm",         "direct:avx512",
    "direct:avx2_vnni", "direct:avx2_madd", "direct:plain", "depthwise:avx512",
    "depthwise:plain",  GRID_LAYOUTS};
static const char *const grid_gemm[] = {"brg_mat", "brgemm", "gemm", "jit", "brg", GRID_LAYOUTS};

struct grid_case {
    struct mesh m;
    const char *op;           /* of the step whose implementation is forced */
    const char *const *names; /* to force */
    char what[160];
    int64_t batch;
    int threads;
    enum precision precision;
    double tolerance; /* of floats, by the largest number */
    double quantum;   /* of 8-bit results, which then are compared in quanta; 0: floats */
    int zero;
    /* The network before its last quantization: what is not exact may only differ where this is
     * beside a tie. NULL: bit for bit. */
    struct mesh *real;
};

/* What was compared, for the log and for the tests that want to have met enough of them. */
struct grid_seen {
    int n, runs, cases;
    char names[64][96];
};

static inline bool grid_add_name(struct grid_seen *seen, const char *name)
{
    for (int i = 0; i < seen->n; i++)
        if (strcmp(seen->names[i], name) == 0)
            return false;
    assert_true(seen->n < 64);
    snprintf(seen->names[seen->n++], sizeof(seen->names[0]), "%s", name);
    return true;
}

static inline unsigned grid_hash(const char *text)
{
    unsigned h = 5381;
    for (; *text; text++)
        h = h * 33 + (unsigned char)*text;
    return h;
}

static inline void grid_report(const struct grid_seen *seen)
{
    print_message("  %d runs of %d cases, on", seen->runs, seen->cases);
    for (int i = 0; i < seen->n; i++)
        print_message(" %s", seen->names[i]);
    print_message("\n");
}

/* Half a quantum from the real number, and the thousandth of one that float arithmetic may err. */
static inline bool grid_beside_a_tie(double got, double real, double quantum, int zero)
{
    double exact = fmin(fmax(real / quantum + zero, 0), 255);
    return fabs(got / quantum + zero - exact) <= 0.501;
}

static inline void grid_judge(const struct grid_case *c, const struct trial_run *t,
                              const struct tensor *real, const char *implementation)
{
    if (c->quantum == 0) {
        double off = trial_difference(t);
        if (!(off <= c->tolerance))
            fail_msg("%s on %s: differs by %g", c->what, implementation, off);
        return;
    }
    for (int64_t k = 0; k < shape_elements(&t->got[0]->shape); k++) {
        double got = tensor_get_f64(t->got[0], k), want = tensor_get_f64(t->want[0], k);
        if (got == want ||
            (real && grid_beside_a_tie(got, tensor_get_f64(real, k), c->quantum, c->zero)))
            continue;
        fail_msg("%s on %s: element %lld is %g quanta, not %g", c->what, implementation,
                 (long long)k, got / c->quantum, want / c->quantum);
    }
}

static inline void grid_execute(struct plan *plan, struct trial_run *t)
{
    struct err err = {0};
    const void *in[8];
    void *out[8];
    for (int i = 0; i < t->n_in; i++)
        in[i] = t->in[i]->data;
    for (int i = 0; i < t->n_out; i++) {
        memset(t->got[i]->data, 0xa5, tensor_bytes(t->got[i]));
        out[i] = t->got[i]->data;
    }
    must(plan_run(plan, in, out, &err), &err);
}

static inline struct tensor *grid_real(const struct grid_case *c, const struct trial_run *t)
{
    struct err err = {0};
    struct tensor *out[8] = {0};
    if (!c->real)
        return NULL;
    must(eval_graph(c->real->g, (const struct tensor *const *)t->in, out, &err), &err);
    return out[0];
}

/* Compares every implementation and releases the meshes. */
static inline void grid_compare(struct grid_case *c, struct grid_seen *seen)
{
    struct trial_run t = {0};
    struct grid_seen of_case = {0};
    struct tensor *real = NULL;
    for (int i = 0; c->names[i]; i++) {
        struct err err = {0};
        struct plan *plan = NULL;
        char key[96];
        const struct plan_options o = {.batch = c->batch,
                                       .threads = c->threads,
                                       .precision = c->precision,
                                       .choose_by_name = true,
                                       .one_lane = c->threads > 1 && c->batch % 2,
                                       .implementation = *c->names[i] ? c->names[i] : NULL};
        if (plan_compile(c->m.g, &o, &plan, &err) < 0)
            fail_msg("%s: %s", c->what, err.message);
        const struct plan_step *step = find_step(plan, c->op);
        const char *name = step ? step->implementation : "(no step)";
        /* the signature tells layouts */
        snprintf(key, sizeof(key), "%s %08x", name, grid_hash(step ? step->signature : ""));
        if (grid_add_name(&of_case, key)) {
            if (t.n_out == 0) {
                trial_run(&t, c->m.g, plan, 7);
                real = grid_real(c, &t);
            } else {
                grid_execute(plan, &t);
            }
            grid_judge(c, &t, real, name);
            grid_add_name(seen, name);
            seen->runs++;
        }
        plan_free(plan);
    }
    seen->cases++;
    tensor_free(real);
    trial_release(&t);
    mesh_release(&c->m);
    if (c->real)
        mesh_release(c->real);
}

/* ---- drawing ---- */

static inline int64_t grid_pick(struct rng *rng, int n, const int64_t *of)
{
    return of[rng_below(rng, (uint64_t)n)];
}
#define PICK(rng, ...)                                                                             \
    grid_pick(rng, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                      \
              (const int64_t[]){__VA_ARGS__})
