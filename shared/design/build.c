/* From the list of pieces to the network, or to its shapes alone. */
#include <stdio.h>
#include <stdlib.h>

#include "shared/design/pieces.h"
#include "shared/graph/infer.h"

#define MAX_SIDE 65536
#define MAX_OUTPUTS ((int64_t)1 << 20)

static int check_end(const char *what, int64_t n, int64_t most, struct err *err)
{
    return n >= 1 && n <= most
               ? 0
               : err_set(err, ERR_INVALID_ARGUMENT, "%s %lld: 1 to %lld are possible", what,
                         (long long)n, (long long)most);
}

static int check_ends(const struct design *design, const struct design_ends *ends, struct err *err)
{
    const bool head = design->n > 0 && design_is_head(&design->pieces[design->n - 1]);
    int rc = check_end("channels", ends->channels, MAX_SIDE, err);
    if (rc == 0)
        rc = check_end("height", ends->height, MAX_SIDE, err);
    if (rc == 0)
        rc = check_end("width", ends->width, MAX_SIDE, err);
    if (rc == 0 && head)
        rc = check_end("outputs", ends->outputs, MAX_OUTPUTS, err);
    return rc;
}

/* Appends the first n pieces. */
static int append(const struct design *design, int n, struct pieces *p, struct err *err)
{
    for (int i = 0; i < n; i++) {
        const struct piece *piece = &design->pieces[i];
        char name[64];
        snprintf(name, sizeof(name), "%d.%s", i + 1, piece->type->name);
        p->name = name;
        int rc = piece->type->build(piece, p, err);
        if (rc < 0) {
            _cleanup_(freep) char *text = design_text(design, i, 1);
            return err_wrap(err, "piece %d '%s'", i + 1, text ? text : piece->type->name);
        }
    }
    return 0;
}

static struct pieces begin(const struct design_ends *ends)
{
    struct pieces p = {.outputs = ends->outputs, .bare = ends->bare};
    p.at = (struct flow){0, ends->channels, ends->height, ends->width};
    rng_seed(&p.rng, ends->seed);
    return p;
}

int design_shape_at(const struct design *design, const struct design_ends *ends, int i,
                    struct design_ends *ret, struct err *err)
{
    if (i < 0 || i > design->n)
        return err_set(err, ERR_INVALID_ARGUMENT, "piece %d of %d", i, design->n);
    struct pieces p = begin(ends);
    int rc = check_ends(design, ends, err);
    if (rc == 0)
        rc = append(design, i, &p, err);
    if (rc < 0)
        return rc;
    *ret = *ends;
    ret->channels = p.at.channels;
    ret->height = p.at.height;
    ret->width = p.at.width;
    return 0;
}

static int finish(struct graph *g, int value, const char *name, struct err *err)
{
    int rc = graph_rename_value(g, value, name, err);
    if (rc >= 0)
        rc = graph_add_output(g, value, err);
    if (rc >= 0)
        rc = graph_compact(g, err);
    return rc < 0 ? rc : graph_infer(g, err);
}

int design_build(const struct design *design, const struct design_ends *ends, struct graph **ret,
                 struct err *err)
{
    struct design_ends unused;
    int rc = design_shape_at(design, ends, design->n, &unused, err);
    if (rc < 0)
        return rc;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, err);
    if (!g)
        return -ERR_RESOURCE_EXHAUSTED;
    struct pieces p = begin(ends);
    const struct shape shape =
        shape_make(4, (int64_t[]){DIM_BATCH, ends->channels, ends->height, ends->width});
    p.g = g;
    p.at.value = graph_add_input(g, ends->input ? ends->input : "input", DTYPE_F32, &shape, err);
    if (p.at.value < 0)
        return p.at.value;
    rc = append(design, design->n, &p, err);
    if (rc >= 0)
        rc = finish(g, p.at.value, ends->output ? ends->output : "output", err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}
