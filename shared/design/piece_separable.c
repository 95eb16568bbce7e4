/* A depthwise convolution and one over channels (Howard and others, 2017), with squeeze-excitation
 * between them where it is asked for (as in PP-LCNet: Cui and others, 2021). */
#include "shared/design/pieces.h"

#define SQUEEZE 4
#define MULTIPLE 8

/* Channels weighed by what their means say. */
static int attend(struct pieces *p, struct err *err)
{
    const int64_t channels = p->at.channels;
    const int64_t parts = (int64_t)SQUEEZE * MULTIPLE;
    const int64_t inside = (channels + parts - 1) / parts * MULTIPLE;
    const struct piece_conv down = {.width = inside, .kernel = 1, .bias = true};
    const struct piece_conv up = {.width = channels, .kernel = 1, .bias = true};
    struct flow gate = p->at;
    int rc = piece_global_pool(p, &gate, false, err);
    if (rc >= 0)
        rc = piece_conv(p, &gate, &down, err);
    if (rc >= 0)
        rc = piece_relu(p, &gate, err);
    if (rc >= 0)
        rc = piece_conv(p, &gate, &up, err);
    if (rc >= 0)
        rc = piece_hard_sigmoid(p, &gate, err);
    return rc < 0 ? rc : piece_scale(p, &p->at, &gate, err);
}

static int build(const struct piece *piece, struct pieces *p, struct err *err)
{
    const struct piece_conv each = {
        .kernel = piece_kernel(piece), .stride = piece->stride, .depthwise = true};
    const struct piece_conv point = {.width = piece_width(piece, p), .kernel = 1};
    int rc = piece_conv_norm_relu(p, &p->at, &each, err);
    if (rc >= 0 && piece->attention)
        rc = attend(p, err);
    return rc < 0 ? rc : piece_conv_norm_relu(p, &p->at, &point, err);
}

const struct piece_type piece_type_separable = {
    .name = "separable",
    .summary = "depthwise convolution, then 1x1; with :se squeeze-excitation between them",
    .options = PIECE_WIDTH | PIECE_STRIDE | PIECE_KERNEL | PIECE_ATTENTION,
    .usual_kernel = 3,
    .build = build,
};
