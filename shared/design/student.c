#include "shared/design/student.h"

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/infer.h"

static int refuse(struct err *err, const char *why)
{
    return err_set(err, ERR_FAILED_PRECONDITION, "%s", why);
}

int student_ends(const struct graph *original, uint64_t seed, struct design_ends *ret,
                 struct err *err)
{
    if (original->n_inputs != 1 || original->n_outputs != 1)
        return refuse(err, "the network has several inputs or outputs");
    const struct value *in = original->values[original->inputs[0]],
                       *out = original->values[original->outputs[0]];
    if (in->shape.rank != 4 || in->dtype != DTYPE_F32)
        return refuse(err, "the network does not read pictures [N, C, H, W]");
    if (out->shape.rank != 2 || out->shape.dim[1] < 2)
        return refuse(err, "the network's answers are no classes [N, K]");
    *ret = (struct design_ends){.channels = in->shape.dim[1],
                                .height = in->shape.dim[2],
                                .width = in->shape.dim[3],
                                .outputs = out->shape.dim[1],
                                .seed = seed};
    return 0;
}

/* Another value that has the name gets another one. */
static int rename_to(struct graph *g, int value, const char *name, struct err *err)
{
    const int other = graph_find_value(g, name);
    if (other == value)
        return 0;
    if (other >= 0) {
        _cleanup_(freep) char *aside = str_printf("%s.student", name);
        int rc = aside ? graph_rename_value(g, other, aside, err) : err_oom(err, "a name");
        if (rc < 0)
            return rc;
    }
    return graph_rename_value(g, value, name, err);
}

/* A student takes the original's place as it is: under the same names, and with probabilities as
 * answers where those are what it gives. */
static int answer_like(const struct graph *original, struct graph *g, struct err *err)
{
    const struct value *out = original->values[original->outputs[0]];
    int rc = 0;
    if (out->producer >= 0 && original->nodes[out->producer]->op == OP_SOFTMAX) {
        const int logits = g->outputs[0];
        const int node = graph_add_node(g, -1, OP_SOFTMAX, NULL, 1, &logits, 1, NULL, err);
        if (node < 0)
            return node;
        g->outputs[0] = g->nodes[node]->outputs[0];
        rc = graph_set_attr_int(g, g->nodes[node], "axis", 1, err);
        if (rc == 0)
            rc = rename_to(g, logits, "logits", err);
        if (rc == 0)
            rc = graph_infer(g, err);
    }
    if (rc == 0)
        rc = rename_to(g, g->inputs[0], original->values[original->inputs[0]]->name, err);
    return rc == 0 ? rename_to(g, g->outputs[0], out->name, err) : rc;
}

int student_build(const char *design, const struct graph *original, const struct design_ends *ends,
                  struct graph **ret, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct design parsed;
    int rc = arena ? design_parse(design, arena, &parsed, err) : err_oom(err, "a student");
    if (rc == 0)
        rc = design_build(&parsed, ends, &g, err);
    if (rc == 0)
        rc = answer_like(original, g, err);
    if (rc == 0)
        rc = graph_set_metadata(g, "hone.design", design, err);
    if (rc == 0)
        *ret = TAKE_PTR(g);
    return rc;
}
