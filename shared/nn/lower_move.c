/* Operators that do not compute: Slice, Pad, Concat, Split, Expand, Transpose, and new shapes. */
#include <math.h>
#include <string.h>

#include "shared/nn/lower_priv.h"

/* ---- integers from constants ---- */

/* Elements of a constant integer input, or of an attribute (old opsets); -1: not constant. */
static int ints_of(struct lower *l, const struct node *node, int input, const char *attr,
                   int64_t ret[SHAPE_MAX_RANK * 2])
{
    if (node_attr(node, attr))
        return node_ints(node, attr, SHAPE_MAX_RANK * 2, ret);
    if (node->n_inputs <= input || node->inputs[input] < 0)
        return 0;
    const struct tensor *t = plan_constant(l->plan, node->inputs[input]);
    int64_t n = t ? shape_elements(&t->shape) : -1;
    if (n < 0 || n > SHAPE_MAX_RANK * 2)
        return -1;
    for (int64_t i = 0; i < n; i++)
        ret[i] = tensor_get_s64(t, i);
    return (int)n;
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* ---- pieces ---- */

/* All of `shape`, from one place to the same place. */
static struct piece whole(const struct shape *shape)
{
    struct piece p = {0};
    for (int d = 0; d < shape->rank; d++) {
        p.count[d] = shape->dim[d];
        p.step[d] = 1;
        p.axis[d] = d;
    }
    return p;
}

static bool slice_piece(struct lower *l, const struct node *node, struct piece *ret)
{
    struct shape x = lower_shape(l, node->inputs[0]), y = lower_shape(l, node->outputs[0]);
    int64_t starts[SHAPE_MAX_RANK * 2], ends[SHAPE_MAX_RANK * 2], axes[SHAPE_MAX_RANK * 2],
        steps[SHAPE_MAX_RANK * 2];
    int n = ints_of(l, node, 1, "starts", starts), n_ends = ints_of(l, node, 2, "ends", ends);
    int n_axes = ints_of(l, node, 3, "axes", axes), n_steps = ints_of(l, node, 4, "steps", steps);
    if (n < 0 || n_ends != n || n_axes < 0 || n_steps < 0 || (n_axes && n_axes != n) ||
        (n_steps && n_steps != n))
        return false;
    *ret = whole(&y);
    for (int i = 0; i < n; i++) {
        int64_t d = n_axes ? axes[i] : i, step = n_steps ? steps[i] : 1;
        d += d < 0 ? x.rank : 0;
        if (d < 0 || d >= x.rank || step == 0)
            return false;
        int64_t start = starts[i] < 0 ? starts[i] + x.dim[d] : starts[i];
        ret->from[d] = step > 0 ? clamp(start, 0, x.dim[d]) : clamp(start, 0, x.dim[d] - 1);
        ret->step[d] = step;
    }
    return true;
}

/* Zero (or another constant) around a piece of the input. */
static bool pad_piece(struct lower *l, const struct node *node, struct piece *ret, float *ret_value)
{
    struct shape x = lower_shape(l, node->inputs[0]);
    int64_t given[SHAPE_MAX_RANK * 2], axes[SHAPE_MAX_RANK * 2];
    int64_t before[SHAPE_MAX_RANK] = {0}, after[SHAPE_MAX_RANK] = {0};
    if (strcmp(node_string(node, "mode", "constant"), "constant") != 0)
        return false;
    int n = ints_of(l, node, 1, "pads", given), n_axes = ints_of(l, node, 3, "axes", axes);
    int dims = n_axes > 0 ? n_axes : x.rank;
    if (n != 2 * dims || n_axes < 0)
        return false;
    for (int i = 0; i < dims; i++) {
        int64_t d = n_axes > 0 ? axes[i] : i;
        d += d < 0 ? x.rank : 0;
        if (d < 0 || d >= x.rank)
            return false;
        before[d] = given[i];
        after[d] = given[dims + i];
    }
    *ret_value = node_float(node, "value", 0);
    if (node->n_inputs > 2 && node->inputs[2] >= 0) {
        int64_t k = 0;
        const float *value = lower_floats(l, node->inputs[2], &k);
        if (!value || k != 1)
            return false;
        *ret_value = value[0];
    }
    *ret = whole(&x);
    for (int d = 0; d < x.rank; d++) { /* negative pads cut */
        ret->from[d] = before[d] < 0 ? -before[d] : 0;
        ret->to[d] = before[d] > 0 ? before[d] : 0;
        ret->count[d] = x.dim[d] - ret->from[d] + (after[d] < 0 ? after[d] : 0);
        if (ret->count[d] < 0)
            return false;
    }
    return true;
}

static bool covers(const struct piece *p, const struct shape *y)
{
    for (int d = 0; d < y->rank; d++)
        if (p->to[d] != 0 || p->count[d] != y->dim[d])
            return false;
    return true;
}

/* ---- one input ---- */

/* Whether a fill value is exact among the 8-bit numbers of the wire. */
static bool fills_exactly(const struct wire *w, float value)
{
    float q = value / w->scale + (float)w->zero;
    int low = w->dtype == DTYPE_U8 ? 0 : -128;
    return q == rintf(q) && q >= (float)low && q <= (float)(low + 255);
}

static int move_layer(struct lower *l, const struct node *node, int input, int output,
                      const struct piece *piece, bool fill, float value, struct err *err)
{
    struct operand operand;
    int rc = lower_narrow_operand(l, input, &operand, err);
    if (rc < 0)
        return rc;
    bool narrow = lower_is_narrow(l, input);
    if (narrow && fill && !fills_exactly(&l->plan->wires[operand.wire], value)) {
        narrow = false;
        operand.dtype = DTYPE_F32;
    }
    struct layer *layer = lower_new_layer(l, LAYER_MOVE, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->in[0] = operand;
    layer->move = (struct move){.n_pieces = 1, .fill = fill, .value = value};
    layer->move.pieces = arena_memdup(l->plan->arena, piece, sizeof(*piece));
    if (!layer->move.pieces)
        return err_oom(err, "a layer");
    int w = lower_output(l, layer, 0, output, err);
    if (w < 0)
        return w;
    layer->precision = narrow ? PRECISION_INT8 : PRECISION_FP32;
    if (narrow)
        lower_keep_scale(l, layer, output);
    else if (operand.dtype == DTYPE_BF16)
        l->plan->wires[w].dtype = DTYPE_BF16;
    return 1;
}

/* A Slice whose only reader is a Pad becomes one copy. */
static int slice_and_pad(struct lower *l, const struct node *slice, struct piece *piece,
                         struct err *err)
{
    int reader = uses_sole(&l->uses, slice->outputs[0]);
    struct piece pad;
    float value = 0;
    if (reader < 0 || l->taken[reader] || l->g->nodes[reader]->op != OP_PAD ||
        l->m->options->no_fusion || !pad_piece(l, l->g->nodes[reader], &pad, &value))
        return 0;
    const struct node *node = l->g->nodes[reader];
    struct shape y = lower_shape(l, node->outputs[0]);
    for (int d = 0; d < y.rank; d++) {
        piece->from[d] += pad.from[d] * piece->step[d];
        piece->to[d] = pad.to[d];
        piece->count[d] = pad.count[d];
    }
    l->taken[reader] = true;
    int layer = l->plan->n_layers;
    int rc = move_layer(l, slice, slice->inputs[0], node->outputs[0], piece, !covers(piece, &y),
                        value, err);
    if (rc > 0)
        for (int i = layer; i < l->plan->n_layers; i++)
            if (l->plan->layers[i].node == slice)
                l->plan->layers[i].fused = "pad";
    return rc;
}

static bool movable(const struct lower *l, int value)
{
    enum dtype dtype = l->g->values[value]->dtype;
    return dtype == DTYPE_F32 || dtype == DTYPE_U8 || dtype == DTYPE_S8 || dtype == DTYPE_S32;
}

static int lower_one(struct lower *l, const struct node *node, struct err *err)
{
    struct shape x = lower_shape(l, node->inputs[0]), y = lower_shape(l, node->outputs[0]);
    struct piece piece = whole(&y);
    float value = 0;
    int64_t perm[SHAPE_MAX_RANK];
    if (node->op == OP_SLICE) {
        if (!slice_piece(l, node, &piece))
            return 0;
        int rc = slice_and_pad(l, node, &piece, err);
        if (rc != 0)
            return rc;
    } else if (node->op == OP_PAD) {
        if (!pad_piece(l, node, &piece, &value))
            return 0;
    } else if (node->op == OP_EXPAND) {
        int ahead = y.rank - x.rank;
        for (int d = 0; d < y.rank; d++) {
            piece.axis[d] = d - ahead; /* below 0: no axis of the source */
            piece.step[d] = d >= ahead && x.dim[d - ahead] == y.dim[d];
        }
    } else { /* Transpose */
        int n = node_ints(node, "perm", SHAPE_MAX_RANK, perm);
        for (int d = 0; d < y.rank; d++)
            piece.axis[d] = n > 0 ? (int)perm[d] : y.rank - 1 - d;
    }
    return move_layer(l, node, node->inputs[0], node->outputs[0], &piece, !covers(&piece, &y),
                      value, err);
}

/* ---- several inputs or outputs ---- */

static bool same_quantization(const struct wire *a, const struct wire *b)
{
    return a->dtype == b->dtype && a->scale == b->scale && a->zero == b->zero;
}

static int lower_concat(struct lower *l, const struct node *node, struct err *err)
{
    struct shape y = lower_shape(l, node->outputs[0]);
    int64_t axis = node_int(node, "axis", 1);
    axis += axis < 0 ? y.rank : 0;
    int n = node->n_inputs;
    if (axis < 0 || axis >= y.rank)
        return 0;
    bool narrow = true, half = true;
    struct operand *in = arena_alloc(l->plan->arena, (size_t)n, sizeof(*in));
    struct piece *pieces = arena_alloc(l->plan->arena, (size_t)n, sizeof(*pieces));
    if (!in || !pieces)
        return err_oom(err, "a layer");
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        int rc = lower_narrow_operand(l, node->inputs[i], &in[i], err);
        if (rc < 0)
            return rc;
        narrow = narrow && lower_is_narrow(l, node->inputs[i]) &&
                 same_quantization(&l->plan->wires[in[0].wire], &l->plan->wires[in[i].wire]);
        half = half && lower_is_bf16(l, node->inputs[i]);
        struct shape x = lower_shape(l, node->inputs[i]);
        pieces[i] = whole(&x);
        pieces[i].operand = i;
        pieces[i].to[axis] = at;
        at += x.dim[axis];
    }
    for (int i = 0; i < n && !narrow && !half; i++)
        in[i].dtype = l->g->values[node->inputs[i]]->dtype;
    struct layer *layer = lower_new_layer(l, LAYER_MOVE, node, n, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->in = in;
    layer->move = (struct move){.n_pieces = n, .pieces = pieces};
    int w = lower_output(l, layer, 0, node->outputs[0], err);
    if (w < 0)
        return w;
    layer->precision = narrow ? PRECISION_INT8 : PRECISION_FP32;
    if (narrow)
        lower_keep_scale(l, layer, node->outputs[0]);
    else if (half)
        l->plan->wires[w].dtype = DTYPE_BF16;
    return 1;
}

/* Each output is a slice of its own. */
static int lower_split(struct lower *l, const struct node *node, struct err *err)
{
    struct shape x = lower_shape(l, node->inputs[0]);
    int64_t axis = node_int(node, "axis", 0), at = 0;
    axis += axis < 0 ? x.rank : 0;
    if (axis < 0 || axis >= x.rank)
        return 0;
    for (int i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i] < 0)
            return 0; /* its extent is not known here */
    }
    for (int i = 0; i < node->n_outputs; i++) {
        struct shape y = lower_shape(l, node->outputs[i]);
        struct piece piece = whole(&y);
        piece.from[axis] = at;
        at += y.dim[axis];
        int rc = move_layer(l, node, node->inputs[0], node->outputs[i], &piece, false, 0, err);
        if (rc <= 0)
            return rc;
    }
    return 1;
}

int lower_move(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    for (int i = 0; i < (node->op == OP_CONCAT ? node->n_inputs : 1); i++)
        if (node->inputs[i] < 0 || !movable(l, node->inputs[i]))
            return 0;
    if (node->op == OP_CONCAT)
        return lower_concat(l, node, err);
    if (node->op == OP_SPLIT)
        return lower_split(l, node, err);
    return lower_one(l, node, err);
}

/* ---- the same bytes ---- */

int lower_alias(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    int from = node->inputs[0], to = node->outputs[0];
    for (int i = 1; i < node->n_outputs; i++)
        if (lower_is_used(l, node->outputs[i]))
            return 0; /* Dropout's mask */
    if (l->g->values[from]->dtype != l->g->values[to]->dtype)
        return 0;
    int rc = lower_value(l, from, err);
    if (rc < 0)
        return rc;
    struct shape x = lower_shape(l, from), y = lower_shape(l, to);
    if (shape_equal(&x, &y)) {
        l->plan->views[to] = l->plan->views[from];
        return 1;
    }
    struct layer *layer = lower_new_layer(l, LAYER_ALIAS, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    rc = lower_narrow_operand(l, from, &layer->in[0], err);
    if (rc == 0)
        rc = lower_output(l, layer, 0, to, err);
    if (rc >= 0 && lower_is_narrow(l, from))
        lower_keep_scale(l, layer, to);
    else if (rc >= 0)
        l->plan->wires[rc].dtype = layer->in[0].dtype;
    return rc < 0 ? rc : 1;
}
