#include "services/synthesizer/arcs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/space.h"

/* Storage types of values; the order is that of `type_names`, the precisions of whole networks. */
enum type { TYPE_F32, TYPE_BF16, TYPE_U8, TYPE_COUNT };
static const char *const type_names[TYPE_COUNT] = {"fp32", "bf16", "int8"};

/* How a layer can be kept: what it computes in, and how many bits its weights have. The first is
 * always possible; of the others those that were scored. */
enum { ALTERNATIVES = 6, FIRST_INT8 = 2 };
static const struct alternative {
    const char *name;
    enum type type;
} alternatives[ALTERNATIVES] = {{"fp32", TYPE_F32}, {"bf16", TYPE_BF16}, {"int8", TYPE_U8},
                                {"int6", TYPE_U8},  {"int5", TYPE_U8},   {"int4", TYPE_U8}};

/* A block with more combinations than this does not get all. */
#define MAX_ENUMERATED 729
#define CANNOT (-1.0)
#define FP32_BYTES 3.4 /* of a weight in a packed file */

/* What is known of a graph node. */
struct node_info {
    bool step;               /* has a step of its own in the plan (else it is fused into one) */
    bool layer;              /* its precision is chosen */
    double us[TYPE_COUNT];   /* CANNOT: does not run in this precision */
    double kl[ALTERNATIVES]; /* CANNOT: was not scored */
    double bytes[ALTERNATIVES];
};

struct builder {
    const struct graph *g;
    const Hone__V1__Profile *profile;
    struct arena *arena;
    struct cuts cuts;
    struct uses uses;
    struct node_info *info;                    /* [n_nodes] */
    double (*convert)[TYPE_COUNT][TYPE_COUNT]; /* [n_values] */
    bool by_size;                              /* costs are bytes, not times */
    int used[ALTERNATIVES], n_used;            /* alternatives that some layer has */
    int *choice;                               /* [n_nodes], of the combination in hand */
    enum type *stored, *natural;               /* [n_values] */
    int *block_of;                             /* [n_nodes] */
    struct select_arc *arcs;
    struct arc_choice *choices;
    int n_arcs, cap_arcs;
    bool exact;
};

static int type_of(const char *name)
{
    for (int t = 0; t < TYPE_COUNT; t++)
        if (strcmp(name, type_names[t]) == 0)
            return t;
    return -1;
}

static int alternative_of(const char *name)
{
    for (int a = 0; a < ALTERNATIVES; a++)
        if (strcmp(name, alternatives[a].name) == 0)
            return a;
    return -1;
}

static enum type computes_in(const struct builder *b, int node)
{
    return alternatives[b->choice[node]].type;
}

static int node_named(const struct graph *g, const char *name)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (strcmp(g->nodes[i]->name, name) == 0)
            return i;
    return -1;
}

/* Operators that pass 8-bit values through unchanged. */
static bool passes_through(enum op op)
{
    switch (op) {
    case OP_MAX_POOL:
    case OP_SLICE:
    case OP_PAD:
    case OP_RESHAPE:
    case OP_FLATTEN:
    case OP_TRANSPOSE:
    case OP_SQUEEZE:
    case OP_UNSQUEEZE:
    case OP_CONCAT:
    case OP_IDENTITY:
    case OP_SPLIT:
        return true;
    default:
        return false;
    }
}

static void read_profile(struct builder *b)
{
    for (int i = 0; i < b->g->n_nodes; i++)
        for (int t = 0; t < TYPE_COUNT; t++)
            b->info[i].us[t] = CANNOT;
    for (size_t i = 0; i < b->profile->n_layers; i++) {
        const Hone__V1__Profile__Layer *layer = b->profile->layers[i];
        int node = node_named(b->g, layer->layer);
        if (node < 0)
            continue;
        b->info[node].step = true;
        for (size_t p = 0; p < layer->n_us && p < b->profile->n_precisions; p++) {
            int t = type_of(b->profile->precisions[p]);
            if (t >= 0 && layer->us[p] > 0)
                b->info[node].us[t] = layer->us[p];
        }
    }
    for (size_t i = 0; i < b->profile->n_conversions; i++) {
        const Hone__V1__Profile__Conversion *c = b->profile->conversions[i];
        int value = graph_find_value(b->g, c->value), from = type_of(c->from), to = type_of(c->to);
        if (value >= 0 && from >= 0 && to >= 0)
            b->convert[value][from][to] = c->us;
    }
}

static void read_scores(struct builder *b, const Hone__V1__Scores *scores)
{
    bool used[ALTERNATIVES] = {true};
    for (int i = 0; i < b->g->n_nodes; i++) {
        const double parameters = (double)graph_node_cost(b->g, b->g->nodes[i]).parameters;
        for (int a = 0; a < ALTERNATIVES; a++) {
            b->info[i].kl[a] = a == 0 ? 0 : CANNOT;
            b->info[i].bytes[a] = FP32_BYTES * parameters;
        }
    }
    for (size_t i = 0; i < scores->n_scores; i++) {
        const Hone__V1__Scores__Score *s = scores->scores[i];
        int node = node_named(b->g, s->layer), a = alternative_of(s->precision);
        if (node < 0 || a <= 0)
            continue;
        b->info[node].layer = used[a] = true;
        b->info[node].kl[a] = isfinite(s->kl) && s->kl > 0 ? s->kl : 0;
        if (s->bytes > 0)
            b->info[node].bytes[a] = s->bytes;
    }
    for (int a = 0; a < ALTERNATIVES; a++)
        if (used[a])
            b->used[b->n_used++] = a;
}

static bool can(const struct node_info *info, int a)
{
    return info->us[alternatives[a].type] >= 0 && info->kl[a] >= 0;
}

/* ---- one combination of one block ---- */

/* Fused into a layer's step: an activation, a residual addition. */
static bool is_fused(const struct builder *b, int node)
{
    return !b->info[node].layer && !b->info[node].step && !passes_through(b->g->nodes[node]->op);
}

/* The input of a fused node that comes from the layer which it is fused into: the one produced
 * last. The other operand of a residual addition is read in whatever type it is stored. */
static int main_input(const struct builder *b, int node)
{
    const struct node *n = b->g->nodes[node];
    int latest = -1, value = -1;
    for (int i = 0; i < n->n_inputs; i++) {
        if (n->inputs[i] < 0 || b->g->values[n->inputs[i]]->constant)
            continue;
        int producer = b->g->values[n->inputs[i]]->producer;
        if (value < 0 || producer > latest) {
            latest = producer;
            value = n->inputs[i];
        }
    }
    return value;
}

/* The type in which a node reads a value: what it computes in, or what its own output is wanted in
 * where it only passes values on; -1: it takes anything. */
static int wanted_by(const struct builder *b, int node, int value)
{
    const struct node *n = b->g->nodes[node];
    if (b->info[node].layer)
        return computes_in(b, node);
    if (n->n_outputs < 1 || n->outputs[0] < 0)
        return -1;
    if (passes_through(n->op))
        return b->stored[n->outputs[0]] == TYPE_U8 ? TYPE_U8 : -1;
    return is_fused(b, node) && main_input(b, node) == value ? (int)b->stored[n->outputs[0]] : -1;
}

/* The storage type that the readers of a value inside the block decide: 8 bits where any reader
 * computes on them, bf16 where all that care do, else f32. */
static enum type stored_type(const struct builder *b, int value, int block)
{
    bool u8 = false, bf16 = false, f32 = false;
    for (int i = b->uses.first[value]; i < b->uses.first[value + 1]; i++) {
        int reader = b->uses.node_of[i];
        if (b->block_of[reader] != block)
            continue;
        int want = wanted_by(b, reader, value);
        u8 |= want == TYPE_U8;
        bf16 |= want == TYPE_BF16;
        f32 |= want == TYPE_F32;
    }
    return u8 ? TYPE_U8 : bf16 && !f32 ? TYPE_BF16 : TYPE_F32;
}

/* The type in which a node yields its output without a conversion. */
static enum type natural_type(const struct builder *b, int node)
{
    const struct node *n = b->g->nodes[node];
    if (b->info[node].layer)
        return computes_in(b, node);
    if (passes_through(n->op) && n->n_inputs > 0 && n->inputs[0] >= 0)
        return b->stored[n->inputs[0]];
    if (is_fused(b, node)) {
        int value = main_input(b, node);
        return value >= 0 ? b->stored[value] : TYPE_F32;
    }
    return TYPE_F32;
}

static double conversions_of(const struct builder *b, int value, int block, bool boundary_in)
{
    double us = 0;
    enum type stored = b->stored[value];
    if (b->by_size)
        return 0;
    if (!boundary_in && b->natural[value] != stored)
        us += b->convert[value][b->natural[value]][stored];
    bool charged[TYPE_COUNT] = {false};
    for (int i = b->uses.first[value]; i < b->uses.first[value + 1]; i++) {
        int reader = b->uses.node_of[i];
        if (b->block_of[reader] != block || !b->info[reader].layer)
            continue;
        enum type want = computes_in(b, reader);
        if (want != stored && !charged[want]) {
            us += b->convert[value][stored][want];
            charged[want] = true;
        }
    }
    return us;
}

static double step_cost(const struct builder *b, int node)
{
    const struct node_info *info = &b->info[node];
    if (b->by_size)
        return info->bytes[info->layer ? b->choice[node] : 0];
    if (info->layer)
        return info->us[computes_in(b, node)];
    if (!info->step)
        return 0;
    const struct node *n = b->g->nodes[node];
    enum type type = n->n_inputs > 0 && n->inputs[0] >= 0 ? b->stored[n->inputs[0]] : TYPE_F32;
    double us = info->us[type] >= 0 ? info->us[type] : info->us[TYPE_F32];
    return us > 0 ? us : 0;
}

static int add_arc(struct builder *b, struct select_arc arc, const struct block *block,
                   struct err *err)
{
    if (b->n_arcs == b->cap_arcs) {
        int cap = b->cap_arcs ? 2 * b->cap_arcs : 256;
        struct select_arc *arcs = arena_alloc(b->arena, (size_t)cap, sizeof(*arcs));
        struct arc_choice *choices = arena_alloc(b->arena, (size_t)cap, sizeof(*choices));
        if (!arcs || !choices)
            return err_oom(err, "the arcs");
        if (b->n_arcs) {
            memcpy(arcs, b->arcs, (size_t)b->n_arcs * sizeof(*arcs));
            memcpy(choices, b->choices, (size_t)b->n_arcs * sizeof(*choices));
        }
        b->arcs = arcs;
        b->choices = choices;
        b->cap_arcs = cap;
    }
    struct arc_choice choice = {0};
    size_t n = block ? (size_t)block->n_nodes : 0;
    choice.layers = arena_alloc(b->arena, n, sizeof(char *));
    choice.precisions = arena_alloc(b->arena, n, sizeof(char *));
    if (!choice.layers || !choice.precisions)
        return err_oom(err, "the arcs");
    for (size_t i = 0; i < n; i++) {
        int node = block->nodes[i];
        if (!b->info[node].layer)
            continue;
        choice.layers[choice.n] = b->g->nodes[node]->name;
        choice.precisions[choice.n++] = alternatives[b->choice[node]].name;
    }
    b->choices[b->n_arcs] = choice;
    b->arcs[b->n_arcs++] = arc;
    return 0;
}

/* ---- alternatives ---- */

/* How many blocks lie before the value; -1: it is no cut point. */
static int point_of(const struct builder *b, const char *value)
{
    for (int i = 0; i < b->cuts.n_blocks; i++) {
        const struct block *block = &b->cuts.blocks[i];
        if (block->from >= 0 && strcmp(b->g->values[block->from]->name, value) == 0)
            return i;
        if (block->to >= 0 && strcmp(b->g->values[block->to]->name, value) == 0)
            return i + 1;
    }
    return -1;
}

static int problem_node(int point, enum type type)
{
    return 1 + point * TYPE_COUNT + (int)type;
}

/* Arcs of block `index` with the choice in hand, one for each storage type of its output. */
static int add_combination(struct builder *b, int index, struct err *err)
{
    const struct block *block = &b->cuts.blocks[index];
    double score = 0;
    for (int i = 0; i < block->n_nodes; i++)
        if (b->info[block->nodes[i]].layer)
            score += b->info[block->nodes[i]].kl[b->choice[block->nodes[i]]];
    for (enum type out = 0; out < TYPE_COUNT; out++) {
        if (index + 1 == b->cuts.n_blocks && out != TYPE_F32)
            continue; /* what the network gives is f32 */
        if (block->to >= 0)
            b->stored[block->to] = out;
        for (int i = block->n_nodes - 1; i >= 0; i--) {
            const struct node *n = b->g->nodes[block->nodes[i]];
            for (int o = 0; o < n->n_outputs; o++)
                if (n->outputs[o] >= 0 && n->outputs[o] != block->to)
                    b->stored[n->outputs[o]] = stored_type(b, n->outputs[o], index);
        }
        enum type in = block->from >= 0 ? stored_type(b, block->from, index) : TYPE_F32;
        double cost = 0;
        if (block->from >= 0) {
            b->stored[block->from] = b->natural[block->from] = in;
            cost += conversions_of(b, block->from, index, true);
        }
        for (int i = 0; i < block->n_nodes; i++) {
            int node = block->nodes[i];
            const struct node *n = b->g->nodes[node];
            cost += step_cost(b, node);
            for (int o = 0; o < n->n_outputs; o++)
                if (n->outputs[o] >= 0)
                    b->natural[n->outputs[o]] = natural_type(b, node);
            for (int o = 0; o < n->n_outputs; o++)
                if (n->outputs[o] >= 0)
                    cost += conversions_of(b, n->outputs[o], index, false);
        }
        struct select_arc arc = {.from = problem_node(index, in),
                                 .to = problem_node(index + 1, out),
                                 .cost = cost,
                                 .score = score};
        int r = add_arc(b, arc, block, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Of n layers; more than MAX_ENUMERATED: too many. */
static int64_t combinations(const struct builder *b, int n)
{
    int64_t total = 1;
    for (int i = 0; i < n && total <= MAX_ENUMERATED; i++)
        total *= b->n_used;
    return total;
}

static int add_all_combinations(struct builder *b, int index, const int *layers, int n,
                                struct err *err)
{
    const int64_t total = combinations(b, n);
    for (int64_t code = 0; code < total; code++) {
        int64_t rest = code;
        bool possible = true;
        for (int i = 0; i < n; i++, rest /= b->n_used) {
            b->choice[layers[i]] = b->used[rest % b->n_used];
            possible &= can(&b->info[layers[i]], b->choice[layers[i]]);
        }
        int r = possible ? add_combination(b, index, err) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* The i least sensitive layers (they come in this order) one way and the others another, for every
 * i; f32 where a layer cannot. */
static int add_split_combinations(struct builder *b, int index, const int *layers, int n, int low,
                                  int rest, struct err *err)
{
    for (int n_low = 0; n_low <= n; n_low++) {
        for (int i = 0; i < n; i++) {
            const int want = i < n_low ? low : rest;
            b->choice[layers[i]] = can(&b->info[layers[i]], want) ? want : 0;
        }
        int r = add_combination(b, index, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A block with many layers: each alternative for all, and the least sensitive layers in fewer bits
 * than the others. */
static int add_some_combinations(struct builder *b, int index, int *layers, int n, struct err *err)
{
    b->exact = false;
    for (int i = 1; i < n; i++)
        for (int j = i;
             j > 0 && b->info[layers[j]].kl[FIRST_INT8] < b->info[layers[j - 1]].kl[FIRST_INT8];
             j--) {
            int swap = layers[j];
            layers[j] = layers[j - 1];
            layers[j - 1] = swap;
        }
    int r = 0;
    for (int low = 0; low < b->n_used; low++)
        for (int rest = 0; rest < low && b->used[low] >= FIRST_INT8 && r == 0; rest++)
            r = add_split_combinations(b, index, layers, n, b->used[low], b->used[rest], err);
    return r;
}

static int add_block(struct builder *b, int index, struct err *err)
{
    const struct block *block = &b->cuts.blocks[index];
    int *layers = arena_alloc(b->arena, (size_t)block->n_nodes, sizeof(int)), n = 0;
    if (!layers)
        return err_oom(err, "the arcs");
    for (int i = 0; i < block->n_nodes; i++) {
        struct node_info *info = &b->info[block->nodes[i]];
        if (!info->layer)
            continue;
        if (info->us[TYPE_F32] < 0)
            return err_set(err, ERR_FAILED_PRECONDITION, "layer %s has no fp32 time in the profile",
                           b->g->nodes[block->nodes[i]]->name);
        layers[n++] = block->nodes[i];
    }
    return combinations(b, n) <= MAX_ENUMERATED ? add_all_combinations(b, index, layers, n, err)
                                                : add_some_combinations(b, index, layers, n, err);
}

static int builder_init(struct builder *b, struct err *err)
{
    size_t nodes = (size_t)b->g->n_nodes, values = (size_t)b->g->n_values;
    b->info = arena_alloc(b->arena, nodes, sizeof(*b->info));
    b->convert = arena_alloc(b->arena, values, sizeof(*b->convert));
    b->choice = arena_alloc(b->arena, nodes, sizeof(*b->choice));
    b->stored = arena_alloc(b->arena, values, sizeof(*b->stored));
    b->natural = arena_alloc(b->arena, values, sizeof(*b->natural));
    b->block_of = arena_alloc(b->arena, nodes, sizeof(*b->block_of));
    if (!b->info || !b->convert || !b->choice || !b->stored || !b->natural || !b->block_of)
        return err_oom(err, "the arcs");
    int r = graph_uses(b->g, b->arena, &b->uses, err);
    if (r == 0)
        r = graph_cuts(b->g, b->arena, &b->cuts, err);
    if (r < 0)
        return r;
    for (int i = 0; i < b->g->n_nodes; i++)
        b->block_of[i] = -1;
    for (int i = 0; i < b->cuts.n_blocks; i++)
        for (int j = 0; j < b->cuts.blocks[i].n_nodes; j++)
            b->block_of[b->cuts.blocks[i].nodes[j]] = i;
    return 0;
}

/* Source -> the input in each storage type; the last cut point -> sink. */
static int add_ends(struct builder *b, int sink, struct err *err)
{
    int input = b->cuts.n_blocks ? b->cuts.blocks[0].from : -1;
    for (enum type t = 0; t < TYPE_COUNT; t++) {
        double us = input >= 0 && t != TYPE_F32 && !b->by_size ? b->convert[input][TYPE_F32][t] : 0;
        struct select_arc arc = {.from = 0, .to = problem_node(0, t), .cost = us};
        int r = add_arc(b, arc, NULL, err);
        if (r < 0)
            return r;
    }
    struct select_arc last = {.from = problem_node(b->cuts.n_blocks, TYPE_F32), .to = sink};
    return add_arc(b, last, NULL, err);
}

/* The alternative with its layers in one precision; what it yields may be stored in another one. */
static int add_alternative_in(struct builder *b, const Hone__V1__Library__Arc *from, int first,
                              int behind, enum type t, struct select_arc arc, struct err *err)
{
    const int value = b->cuts.blocks[behind - 1].to;
    const double cost = arc.cost;
    arc.from = problem_node(first, t);
    for (enum type out = 0; out < TYPE_COUNT; out++) {
        if (out != t && !*from->network)
            continue; /* nothing converts nothing */
        if (out != TYPE_F32 && behind == b->cuts.n_blocks)
            continue; /* what the network gives is f32 */
        arc.to = problem_node(behind, out);
        arc.cost = cost + (out == t || b->by_size ? 0 : b->convert[value][t][out]);
        int r = add_arc(b, arc, NULL, err);
        if (r < 0)
            return r;
        b->choices[b->n_arcs - 1].instead = from;
        b->choices[b->n_arcs - 1].precision = type_names[t];
    }
    return 0;
}

/* In a packed file, where an alternative has the few bits that students have. */
static double alternative_bytes(double parameters, enum type t)
{
    return t == TYPE_U8 ? space_bytes(true, parameters) - space_bytes(true, 0)
                        : FP32_BYTES * parameters;
}

static int add_alternative(struct builder *b, const Hone__V1__Library *library,
                           const Hone__V1__Library__Arc *from, struct err *err)
{
    const int first = point_of(b, from->from), behind = point_of(b, from->to);
    if (*from->out || first < 0 || behind <= first)
        return 0;
    for (size_t p = 0; p < library->n_precisions && p < from->n_kl; p++) {
        const int t = type_of(library->precisions[p]);
        const double us = p < from->n_us ? from->us[p] : 0;
        if (t < 0 || !isfinite(from->kl[p]) || (*from->network && !(us > 0)))
            continue;
        const double bytes = alternative_bytes((double)from->parameters, (enum type)t);
        const struct select_arc arc = {.cost = b->by_size ? bytes : us,
                                       .score = fmax(from->kl[p], 0)};
        int r = add_alternative_in(b, from, first, behind, (enum type)t, arc, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int arcs_build(const struct graph *g, const Hone__V1__Profile *profile,
               const Hone__V1__Scores *scores, const Hone__V1__Library *library, bool by_size,
               struct arena *arena, struct arcs *ret, struct err *err)
{
    struct builder b = {
        .g = g, .profile = profile, .by_size = by_size, .arena = arena, .exact = true};
    int r = builder_init(&b, err);
    if (r < 0)
        return r;
    read_profile(&b);
    read_scores(&b, scores);
    int sink = problem_node(b.cuts.n_blocks + 1, 0);
    r = add_ends(&b, sink, err);
    for (int i = 0; r == 0 && i < b.cuts.n_blocks; i++)
        r = add_block(&b, i, err);
    for (size_t i = 0; r == 0 && library && i < library->n_arcs; i++)
        r = add_alternative(&b, library, library->arcs[i], err);
    if (r < 0)
        return r;
    *ret = (struct arcs){.problem = {.n_nodes = sink + 1,
                                     .source = 0,
                                     .sink = sink,
                                     .n_arcs = b.n_arcs,
                                     .arcs = b.arcs},
                         .choices = b.choices,
                         .exact = b.exact,
                         .floor_us = profile->n_floor_us && !by_size ? profile->floor_us[0] : 0};
    return 0;
}

int arcs_path_choice(const struct arcs *arcs, const struct select_path *path, struct arena *arena,
                     struct arc_choice *ret, struct err *err)
{
    size_t n = 0;
    for (int i = 0; i < path->n_arcs; i++)
        n += (size_t)arcs->choices[path->arcs[i]].n;
    *ret = (struct arc_choice){.layers = arena_alloc(arena, n, sizeof(char *)),
                               .precisions = arena_alloc(arena, n, sizeof(char *))};
    if (!ret->layers || !ret->precisions)
        return err_oom(err, "a choice");
    for (int i = 0; i < path->n_arcs; i++) {
        const struct arc_choice *choice = &arcs->choices[path->arcs[i]];
        for (int j = 0; j < choice->n; j++) {
            ret->layers[ret->n] = choice->layers[j];
            ret->precisions[ret->n++] = choice->precisions[j];
        }
    }
    return 0;
}

int arcs_path_alternatives(const struct arcs *arcs, const struct select_path *path,
                           struct arena *arena, const struct arc_choice ***ret, struct err *err)
{
    int n = 0;
    *ret = arena_alloc(arena, (size_t)path->n_arcs + 1, sizeof(**ret));
    if (!*ret)
        return err_oom(err, "a path");
    for (int i = 0; i < path->n_arcs; i++)
        if (arcs->choices[path->arcs[i]].instead)
            (*ret)[n++] = &arcs->choices[path->arcs[i]];
    return n;
}

int arcs_distance(const struct arc_choice *a, const struct arc_choice *b)
{
    int distance = abs(a->n - b->n);
    for (int i = 0; i < a->n && i < b->n; i++)
        distance += strcmp(a->precisions[i], b->precisions[i]) != 0;
    return distance;
}
