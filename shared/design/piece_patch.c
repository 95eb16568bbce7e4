/* A stem over patches: a convolution without padding; with a stride of its side the patches lie
 * side by side. */
#include "shared/design/pieces.h"

static int build(const struct piece *piece, struct pieces *p, struct err *err)
{
    const struct piece_conv conv = {.width = piece_width(piece, p),
                                    .kernel = piece_kernel(piece),
                                    .stride = piece->stride,
                                    .unpadded = true};
    return piece_conv_norm_relu(p, &p->at, &conv, err);
}

const struct piece_type piece_type_patch = {
    .name = "patch",
    .summary = "convolution without padding (2x2), norm, Relu: a stem over patches",
    .options = PIECE_WIDTH | PIECE_STRIDE | PIECE_KERNEL,
    .usual_kernel = 2,
    .build = build,
};
