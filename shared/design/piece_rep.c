/* Branches that learn as three and run as one 3x3 convolution (RepVGG: Ding and others, 2021);
 * pass_merge_branches (shared/graph/passes.h) puts them together. */
#include "shared/design/pieces.h"

static int build(const struct piece *piece, struct pieces *p, struct err *err)
{
    const int64_t width = piece_width(piece, p);
    const struct piece_conv wide = {.width = width, .kernel = 3, .stride = piece->stride};
    const struct piece_conv point = {.width = width, .kernel = 1, .stride = piece->stride};
    const bool keeps = width == p->at.channels && piece->stride == 1;
    struct flow middle = p->at, same = p->at;
    int rc = piece_conv_norm(p, &p->at, &wide, err);
    if (rc >= 0)
        rc = piece_conv_norm(p, &middle, &point, err);
    if (rc >= 0)
        rc = piece_add(p, &p->at, &middle, err);
    if (rc >= 0 && keeps)
        rc = piece_norm(p, &same, err);
    if (rc >= 0 && keeps)
        rc = piece_add(p, &p->at, &same, err);
    return rc < 0 ? rc : piece_relu(p, &p->at, err);
}

const struct piece_type piece_type_rep = {
    .name = "rep",
    .summary = "3x3, 1x1 and identity side by side while it learns, one 3x3 convolution after",
    .options = PIECE_WIDTH | PIECE_STRIDE,
    .build = build,
};
