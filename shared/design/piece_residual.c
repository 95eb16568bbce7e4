/* Two convolutions beside a shortcut (He and others, 2015). */
#include "shared/design/pieces.h"

static int build(const struct piece *piece, struct pieces *p, struct err *err)
{
    const int64_t width = piece_width(piece, p);
    const struct piece_conv first = {.width = width, .kernel = 3, .stride = piece->stride};
    const struct piece_conv second = {.width = width, .kernel = 3};
    struct flow side = p->at;
    int rc = piece_shortcut(p, &side, width, piece->stride, err);
    if (rc >= 0)
        rc = piece_conv_norm_relu(p, &p->at, &first, err);
    if (rc >= 0)
        rc = piece_conv_norm(p, &p->at, &second, err);
    if (rc >= 0)
        rc = piece_add(p, &p->at, &side, err);
    return rc < 0 ? rc : piece_relu(p, &p->at, err);
}

const struct piece_type piece_type_residual = {
    .name = "residual",
    .summary = "two 3x3 convolutions beside a shortcut",
    .options = PIECE_WIDTH | PIECE_STRIDE,
    .build = build,
};
