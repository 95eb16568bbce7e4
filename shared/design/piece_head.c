/* The end of a network: one number for each channel, and from these the answers. */
#include "shared/design/pieces.h"

static int build(const struct piece *piece, struct pieces *p, struct err *err)
{
    int rc = piece_global_pool(p, &p->at, piece->pool, err);
    return rc < 0 ? rc : piece_answers(p, &p->at, err);
}

const struct piece_type piece_type_head = {
    .name = "head",
    .summary = "mean of each channel (with :pool the largest value), then a Gemm to the answers",
    .options = PIECE_POOL,
    .head = true,
    .build = build,
};
