#include "shared/nn/plan_buffers.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/rng.h"

void plan_buffers_release(struct plan_buffers *b)
{
    for (int i = 0; b->in && i < b->n_in; i++)
        free(b->in[i]);
    for (int i = 0; b->out && i < b->n_out; i++)
        free(b->out[i]);
    free(b->in);
    free(b->out);
    *b = (struct plan_buffers){0};
}

static void fill(const struct plan_port *port, void *data, struct rng *rng)
{
    memset(data, 0, port->bytes);
    for (size_t i = 0; port->dtype == DTYPE_U8 && i < port->bytes; i++)
        ((uint8_t *)data)[i] = (uint8_t)rng_below(rng, 256);
    for (size_t i = 0; port->dtype == DTYPE_F32 && i < port->bytes / sizeof(float); i++)
        ((float *)data)[i] = (float)rng_normal(rng);
}

int plan_buffers_make(const struct plan *plan, uint64_t seed, struct plan_buffers *ret,
                      struct err *err)
{
    _cleanup_(plan_buffers_release) struct plan_buffers b = {.n_in = plan_n_inputs(plan),
                                                             .n_out = plan_n_outputs(plan)};
    b.in = mem_calloc((size_t)b.n_in, sizeof(*b.in));
    b.out = mem_calloc((size_t)b.n_out, sizeof(*b.out));
    if (!b.in || !b.out)
        return err_oom(err, "a network's inputs and outputs");
    struct rng rng;
    rng_seed(&rng, seed);
    for (int i = 0; i < b.n_in; i++) {
        b.in[i] = mem_aligned(plan_input(plan, i)->bytes);
        if (!b.in[i])
            return err_oom(err, "a network's inputs");
        fill(plan_input(plan, i), b.in[i], &rng);
    }
    for (int i = 0; i < b.n_out; i++) {
        b.out[i] = mem_aligned(plan_output(plan, i)->bytes);
        if (!b.out[i])
            return err_oom(err, "a network's outputs");
    }
    *ret = b;
    b = (struct plan_buffers){0};
    return 0;
}

int plan_buffers_run(struct plan *plan, const struct plan_buffers *b, struct err *err)
{
    return plan_run(plan, (const void *const *)b->in, b->out, err);
}
