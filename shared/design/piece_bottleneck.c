/* A residual block whose 3x3 convolution is narrow (He and others, 2015); the stride lies in it. */
#include "shared/design/pieces.h"

#define MULTIPLE 8 /* of channels inside: what vectors are filled with */

static int build(const struct piece *piece, struct pieces *p, struct err *err)
{
    const int64_t width = piece_width(piece, p);
    const int64_t parts = (int64_t)piece_expand(piece) * MULTIPLE;
    const int64_t inside = (width + parts - 1) / parts * MULTIPLE;
    const struct piece_conv down = {.width = inside, .kernel = 1};
    const struct piece_conv middle = {.width = inside, .kernel = 3, .stride = piece->stride};
    const struct piece_conv up = {.width = width, .kernel = 1};
    struct flow side = p->at;
    int rc = piece_shortcut(p, &side, width, piece->stride, err);
    if (rc >= 0)
        rc = piece_conv_norm_relu(p, &p->at, &down, err);
    if (rc >= 0)
        rc = piece_conv_norm_relu(p, &p->at, &middle, err);
    if (rc >= 0)
        rc = piece_conv_norm(p, &p->at, &up, err);
    if (rc >= 0)
        rc = piece_add(p, &p->at, &side, err);
    return rc < 0 ? rc : piece_relu(p, &p->at, err);
}

const struct piece_type piece_type_bottleneck = {
    .name = "bottleneck",
    .summary = "1x1 to a fourth of the width, 3x3, 1x1 back, beside a shortcut",
    .options = PIECE_WIDTH | PIECE_STRIDE | PIECE_EXPAND,
    .usual_expand = 4,
    .build = build,
};
