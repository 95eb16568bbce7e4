/* Fewer of the equal parts of a stage, with their weights; spread evenly over it. */
#include "services/synthesizer/alternatives.h"
#include "shared/graph/infer.h"
#include "shared/graph/splice.h"

/* Appends one of what is repeated to what there is. */
static int append(const struct alternatives *a, int first, struct graph *g, struct err *err)
{
    _cleanup_(graph_freep) struct graph *more = NULL;
    int rc = units_extract(a->g, a->units, first, first + a->period - 1, &more, err);
    if (rc == 0)
        rc = graph_splice(g, more, g->outputs[0], "", err);
    if (rc < 0)
        return rc;
    g->outputs[0] = rc;
    return 0;
}

/* Where repetition i of `kept` among `n` begins: the middle of the ith of as many equal parts. */
static int spread(const struct alternatives *a, int i, int kept, int n)
{
    return (2 * i + 1) * n / (2 * kept) * a->period;
}

static int build(const struct alternatives *a, int first, int n, int kept, struct graph **ret,
                 struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    const int begin = first + spread(a, 0, kept, n);
    int rc = units_extract(a->g, a->units, begin, begin + a->period - 1, &g, err);
    for (int i = 1; rc == 0 && i < kept; i++)
        rc = append(a, first + spread(a, i, kept, n), g, err);
    if (rc == 0)
        rc = graph_compact(g, err);
    if (rc >= 0)
        rc = graph_infer(g, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}

static int offer(struct alternatives *to, int first, int last, struct err *err)
{
    static const int steps[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
    const int n = (last - first + 1) / to->period;
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps) && steps[i] < n; i++) {
        struct graph *g = NULL;
        int rc = build(to, first, n, steps[i], &g, err);
        if (rc == 0)
            rc = alternatives_add(to, first, last, g, err, "keep:%d", steps[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

const struct alternative_type alternative_keep = {
    .name = "keep",
    .summary = "a few of the equal parts of a stage, with their weights",
    .stage = true,
    .offer = offer,
};
