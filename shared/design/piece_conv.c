/* One convolution with its norm; a stride lies in it, or in a MaxPool between the two (as in
 * Jordan's airbench, 2024). */
#include "shared/design/pieces.h"

static int build(const struct piece *piece, struct pieces *p, struct err *err)
{
    const struct piece_conv conv = {.width = piece_width(piece, p),
                                    .kernel = piece_kernel(piece),
                                    .stride = piece->pool ? 1 : piece->stride};
    int rc = piece_conv(p, &p->at, &conv, err);
    if (rc >= 0 && piece->pool)
        rc = piece_max_pool(p, &p->at, piece->stride, err);
    if (rc >= 0)
        rc = piece_norm(p, &p->at, err);
    return rc < 0 ? rc : piece_relu(p, &p->at, err);
}

const struct piece_type piece_type_conv = {
    .name = "conv",
    .summary = "convolution, norm, Relu; with :pool the stride is a MaxPool",
    .options = PIECE_WIDTH | PIECE_STRIDE | PIECE_KERNEL | PIECE_POOL,
    .usual_kernel = 3,
    .build = build,
};
