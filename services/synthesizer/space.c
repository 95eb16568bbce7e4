#include "services/synthesizer/space.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/str.h"
#include "shared/graph/passes.h"

#define MAX_STUDENTS 65536 /* pictures of 640 x 640 have 30,000 */
#define MAX_PIECES 4096
#define BUCKETS 8192 /* of pieces by their key */
#define MAX_TEXT 512
#define ENOUGH_PIXELS 4 /* of a side: stages are not made smaller */
#define MOST_STAGES 4
/* Bytes, with what goes with each weight and with a network; packed as measured on ResNet-20 and
 * ResNet-56 in 4 bits. */
#define FILE_WEIGHT 1.1
#define PACKED_WEIGHT 0.432
#define PACKED_REST 2000.0

/* Widths from stage to stage, in halves of the one before: to the second, and to each behind it. */
struct growth {
    int64_t second, later;
};
#define MOST_GROWTHS 4

/* What the blocks of a family are called in a design. The first of a stage takes `first`, which
 * halves rows and columns; with the stage that keeps them, `again` is all of it. */
struct family {
    const char *first, *again, *head;
    int64_t multiple;                    /* of widths */
    int deepest;                         /* blocks of a stage */
    struct growth growths[MOST_GROWTHS]; /* up to {0, 0} */
};
/* Where pools follow the convolutions the first stage costs most, at full size: narrow there, wide
 * from the second on, they learn most for their products (airbench's networks are such). */
static const struct family families[] = {
    {"residual:%d:s2", "residual:%d", "head", 16, 3, {{3, 3}, {4, 4}}},
    {"conv:%d:s2", "conv:%d", "head", 16, 4, {{3, 3}, {4, 4}}},
    {"conv:%d:pool", "conv:%d", "head:pool", 16, 3, {{4, 2}, {6, 2}, {8, 2}, {4, 4}}},
    {"separable:%d:s2", "separable:%d", "head", 16, 4, {{3, 3}, {4, 4}}},
};

/* Beginnings: what they divide rows and columns by, and their text. */
struct stem {
    int stride;
    const char *text;
    int64_t least_width, most_width;
    int64_t least_side; /* of the pictures */
};
static const struct stem stems[] = {
    {1, "conv:%d", 16, 48, 0},         {1, "patch:%d:k2", 24, 24, 0},
    {2, "conv:%d:s2", 16, 64, 0},      {2, "patch:%d:k4:s2", 32, 64, 0},
    {4, "patch:%d:k4:s4", 32, 96, 96}, {8, "patch:%d:k8:s8", 64, 192, 320},
};
static const int64_t widths[] = {16, 24, 32, 48, 64, 96, 128};

#define COUNT(x) (sizeof(x) / sizeof((x)[0]))

struct enumeration {
    const struct design_ends *ends;
    struct cost original;
    struct arena *arena;
    struct space *space;
    int cap_pieces, cap_students;
    int *bucket; /* [BUCKETS]: a piece, -1: none; open addressing */
};

/* ---- pieces ---- */

static int grow(struct arena *arena, void **array, int n, int *cap, size_t size, struct err *err)
{
    if (n < *cap)
        return 0;
    const int more = *cap ? 2 * *cap : 256;
    void *new = arena_alloc(arena, (size_t)more, size);
    if (!new)
        return err_oom(err, "the space of students");
    if (n)
        memcpy(new, *array, (size_t)n * size);
    *array = new;
    *cap = more;
    return 0;
}

static bool same_piece(const struct space_piece *p, const char *text, const struct design_ends *at,
                       bool first)
{
    return p->first == first && p->at.channels == at->channels && p->at.height == at->height &&
           p->at.width == at->width && strcmp(p->text, text) == 0;
}

static uint32_t key_of(const char *text, const struct design_ends *at, bool first)
{
    uint32_t key = 2166136261u ^ first; /* FNV-1a */
    for (; *text; text++)
        key = (key ^ (uint8_t)*text) * 16777619u;
    key = (key ^ (uint32_t)at->channels) * 16777619u;
    key = (key ^ (uint32_t)at->height) * 16777619u;
    return (key ^ (uint32_t)at->width) * 16777619u;
}

/* Built once, for its cost. */
static int piece_cost(const struct piece *piece, const struct design_ends *at,
                      struct space_piece *ret, struct err *err)
{
    const struct design alone = {1, (struct piece *)piece};
    struct design_ends bare = *at;
    _cleanup_(graph_freep) struct graph *g = NULL;
    bare.bare = true;
    int rc = design_build(&alone, &bare, &g, err);
    if (rc == 0)
        rc = pass_simplify(g, err);
    if (rc < 0)
        return rc;
    const struct cost cost = graph_cost(g);
    ret->macs = cost.macs;
    ret->parameters = cost.parameters;
    return 0;
}

/* The index of the piece, which is new or not. */
static int piece_index(struct enumeration *e, const struct design *design, int i,
                       const struct design_ends *at, struct err *err)
{
    struct space *s = e->space;
    _cleanup_(freep) char *text = design_text(design, i, 1);
    if (!text)
        return err_oom(err, "the space of students");
    uint32_t slot = key_of(text, at, i == 0) % BUCKETS;
    for (; e->bucket[slot] >= 0; slot = (slot + 1) % BUCKETS)
        if (same_piece(&s->pieces[e->bucket[slot]], text, at, i == 0))
            return e->bucket[slot];
    if (s->n_pieces == MAX_PIECES)
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "students of more than %d pieces", MAX_PIECES);
    struct space_piece piece = {.text = arena_strdup(e->arena, text), .at = *at, .first = i == 0};
    int rc = piece.text ? grow(e->arena, (void **)&s->pieces, s->n_pieces, &e->cap_pieces,
                               sizeof(*s->pieces), err)
                        : err_oom(err, "the space of students");
    if (rc == 0)
        rc = piece_cost(&design->pieces[i], at, &piece, err);
    if (rc < 0)
        return rc;
    s->pieces[s->n_pieces] = piece;
    e->bucket[slot] = s->n_pieces;
    return s->n_pieces++;
}

/* ---- students ---- */

/* Networks of none: as if of one, which is as little. */
static double log2_share(int64_t part, int64_t whole)
{
    return log2((double)(part > 0 ? part : 1) / (double)(whole > 0 ? whole : 1));
}

void space_traits(const struct design *design, struct cost cost, struct cost original,
                  double ret[PREDICT_TRAITS])
{
    int residual = 0, separable = 0, pools = 0, steps = 0;
    for (int i = 0; i < design->n; i++) {
        const char *type = design_type(&design->pieces[i]);
        residual += strcmp(type, "residual") == 0;
        separable += strcmp(type, "separable") == 0;
        pools += design->pieces[i].pool && !design_is_head(&design->pieces[i]);
        steps += i > 0 && design->pieces[i].stride > 1 && !design->pieces[i].pool;
    }
    ret[PREDICT_LEVEL] = 1;
    ret[PREDICT_MACS] = log2_share(cost.macs, original.macs);
    ret[PREDICT_PARAMETERS] = log2_share(cost.parameters, original.parameters);
    if (design->n == 0)
        return;
    const struct piece *first = &design->pieces[0];
    ret[PREDICT_DEPTH] = log2(design->n / 8.0);
    ret[PREDICT_RESIDUAL] = (double)residual / design->n;
    ret[PREDICT_SEPARABLE] = (double)separable / design->n;
    const struct piece *last = &design->pieces[design->n - 1];
    ret[PREDICT_POOL] = pools > 0 ? (double)pools / (pools + steps) : 0;
    ret[PREDICT_HEAD_POOL] = design_is_head(last) && last->pool;
    ret[PREDICT_STEM] = log2(first->stride);
    ret[PREDICT_PATCH] = strcmp(design_type(first), "patch") == 0;
}

static int add_student(struct enumeration *e, const char *text, struct err *err)
{
    struct space *s = e->space;
    struct design design;
    int rc = s->n_students < MAX_STUDENTS
                 ? design_parse(text, e->arena, &design, err)
                 : err_set(err, ERR_RESOURCE_EXHAUSTED, "more than %d students", MAX_STUDENTS);
    if (rc == 0)
        rc = grow(e->arena, (void **)&s->students, s->n_students, &e->cap_students,
                  sizeof(*s->students), err);
    if (rc < 0)
        return rc;
    struct space_student student = {.text = arena_strdup(e->arena, text),
                                    .n = design.n,
                                    .pieces = arena_alloc(e->arena, (size_t)design.n, sizeof(int)),
                                    .us = INFINITY};
    if (!student.text || !student.pieces)
        return err_oom(err, "the space of students");
    for (int i = 0; i < design.n; i++) {
        struct design_ends at;
        rc = design_shape_at(&design, e->ends, i, &at, err);
        if (rc == 0)
            rc = piece_index(e, &design, i, &at, err);
        if (rc < 0)
            return rc;
        student.pieces[i] = rc;
        student.macs += s->pieces[rc].macs;
        student.parameters += s->pieces[rc].parameters;
    }
    if (student.macs > e->original.macs)
        return 0;
    const struct cost cost = {.macs = student.macs, .parameters = student.parameters};
    space_traits(&design, cost, e->original, student.traits);
    s->students[s->n_students++] = student;
    return 0;
}

/* Pieces of students that were left out go. */
static int drop_unused(struct space *s, struct arena *arena, struct err *err)
{
    int *place = arena_alloc(arena, (size_t)s->n_pieces, sizeof(*place)), n = 0;
    if (!place)
        return err_oom(err, "the space of students");
    for (int i = 0; i < s->n_students; i++)
        for (int k = 0; k < s->students[i].n; k++)
            place[s->students[i].pieces[k]] = 1;
    for (int i = 0; i < s->n_pieces; i++) {
        if (!place[i])
            continue;
        place[i] = n;
        s->pieces[n++] = s->pieces[i];
    }
    s->n_pieces = n;
    for (int i = 0; i < s->n_students; i++)
        for (int k = 0; k < s->students[i].n; k++)
            s->students[i].pieces[k] = place[s->students[i].pieces[k]];
    return 0;
}

/* ---- enumeration ---- */

static int64_t rounded(int64_t width, int64_t multiple)
{
    const int64_t n = (width + multiple / 2) / multiple;
    return (n > 0 ? n : 1) * multiple;
}

/* One choice of everything. */
struct choice {
    const struct stem *stem;
    const struct family *family;
    const struct growth *growth;
    int64_t stem_width, width;
    int n_stages, depth[MOST_STAGES];
};

static void piece_text(char *text, size_t size, const char *format, int64_t width)
{
    const size_t n = strlen(text);
    char piece[48];
    /* The formats are this file's own, with one %d each. */
    const char *at = strstr(format, "%d");
    snprintf(piece, sizeof(piece), "%.*s%lld%s ", (int)(at - format), format, (long long)width,
             at + 2);
    str_copy(text + n, size - n, piece);
}

static int add_choice(struct enumeration *e, const struct choice *c, struct err *err)
{
    char text[MAX_TEXT] = "";
    int64_t width = c->width;
    piece_text(text, sizeof(text), c->stem->text, c->stem_width);
    for (int stage = 0; stage < c->n_stages; stage++) {
        const int64_t w = rounded(width, c->family->multiple);
        piece_text(text, sizeof(text), c->family->first, w);
        for (int i = 1; i < c->depth[stage]; i++)
            piece_text(text, sizeof(text), c->family->again, w);
        width = width * (stage == 0 ? c->growth->second : c->growth->later) / 2;
    }
    const size_t n = strlen(text);
    str_copy(text + n, sizeof(text) - n, c->family->head);
    return add_student(e, text, err);
}

/* How often rows and columns can be halved behind the stem. */
static int halvings(const struct design_ends *ends, const struct stem *stem)
{
    int64_t side = ends->height < ends->width ? ends->height : ends->width;
    int n = 0;
    if (side < stem->least_side)
        return 0;
    for (side /= stem->stride; side / 2 >= ENOUGH_PIXELS && n < 8; side /= 2)
        n++;
    return n;
}

/* All depths of 1 to the deepest, neighbours of which differ by one at most. */
static int each_depth(struct enumeration *e, struct choice *c, int stage, struct err *err)
{
    if (stage == c->n_stages)
        return add_choice(e, c, err);
    int rc = 0;
    for (int d = 1; rc == 0 && d <= c->family->deepest; d++) {
        if (stage > 0 && abs(d - c->depth[stage - 1]) > 1)
            continue;
        c->depth[stage] = d;
        rc = each_depth(e, c, stage + 1, err);
    }
    return rc;
}

static int each_width(struct enumeration *e, struct choice *c, struct err *err)
{
    int rc = 0;
    for (size_t w = 0; w < COUNT(widths); w++)
        for (int g = 0; g < MOST_GROWTHS && c->family->growths[g].second > 0; g++) {
            c->width = widths[w];
            c->growth = &c->family->growths[g];
            c->stem_width = widths[w];
            if (c->stem_width < c->stem->least_width)
                c->stem_width = c->stem->least_width;
            if (c->stem_width > c->stem->most_width)
                c->stem_width = c->stem->most_width;
            if (rc == 0)
                rc = each_depth(e, c, 0, err);
        }
    return rc;
}

static int begin(const struct design_ends *ends, struct cost original, struct arena *arena,
                 struct space *space, struct enumeration *ret, struct err *err)
{
    *space = (struct space){0};
    *ret = (struct enumeration){.ends = ends, .original = original, .arena = arena, .space = space};
    ret->bucket = arena_alloc(arena, BUCKETS, sizeof(int));
    if (!ret->bucket)
        return err_oom(err, "the space of students");
    for (int i = 0; i < BUCKETS; i++)
        ret->bucket[i] = -1;
    return 0;
}

int space_of_designs(const struct design_ends *ends, struct cost original,
                     const char *const *designs, int n, struct arena *arena, struct space *ret,
                     struct err *err)
{
    struct enumeration e;
    int rc = begin(ends, original, arena, ret, &e, err);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = add_student(&e, designs[i], err);
    return rc;
}

int space_build(const struct design_ends *ends, struct cost original, struct arena *arena,
                struct space *ret, struct err *err)
{
    struct enumeration e;
    int rc = begin(ends, original, arena, ret, &e, err);
    for (size_t s = 0; s < COUNT(stems); s++)
        for (size_t f = 0; f < COUNT(families); f++) {
            const int n = halvings(ends, &stems[s]), most = n < MOST_STAGES ? n : MOST_STAGES;
            struct choice c = {.stem = &stems[s], .family = &families[f]};
            for (c.n_stages = most; rc == 0 && c.n_stages >= 1 && c.n_stages >= most - 1;
                 c.n_stages--)
                rc = each_width(&e, &c, err);
        }
    return rc < 0 ? rc : drop_unused(ret, arena, err);
}

/* ---- prices ---- */

double space_bytes(bool packed, double parameters)
{
    return packed ? PACKED_WEIGHT * parameters + PACKED_REST : FILE_WEIGHT * parameters;
}

void space_price(struct space *space, const double *us, double floor_us)
{
    for (int i = 0; i < space->n_pieces; i++)
        space->pieces[i].us = us[i];
    for (int i = 0; i < space->n_students; i++) {
        struct space_student *student = &space->students[i];
        student->us = floor_us;
        for (int k = 0; k < student->n; k++) {
            const double t = space->pieces[student->pieces[k]].us;
            student->us += t > 0 ? t : INFINITY;
        }
    }
}
