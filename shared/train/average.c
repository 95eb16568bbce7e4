#include "shared/train/average.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/nn/kernel.h"

KERNEL_FILE

struct average {
    struct arena *arena;
    struct train_span *spans;
    int n_spans;
    int64_t n_floats;
    float *floats; /* spans one behind the other */
};

int train_spans(struct train_net *net, struct arena *arena, struct train_span **ret, int *ret_n,
                struct err *err)
{
    const int params = train_net_n_params(net), states = train_net_n_states(net);
    struct train_span *spans =
        arena_alloc(arena, (size_t)params + (size_t)states + 1, sizeof(*spans));
    if (!spans)
        return err_oom(err, "a network's weights");
    for (int i = 0; i < params; i++) {
        const struct train_param *p = train_net_param(net, i);
        spans[i] = (struct train_span){p->name, p->value, p->n};
    }
    for (int i = 0; i < states; i++) {
        const struct train_state *s = train_net_state(net, i);
        spans[params + i] = (struct train_span){s->name, s->value, s->n};
    }
    *ret = spans;
    *ret_n = params + states;
    return 0;
}

struct average *average_free(struct average *a)
{
    if (!a)
        return NULL;
    arena_free(a->arena);
    free(a->floats);
    free(a);
    return NULL;
}

void average_freep(struct average **a)
{
    *a = average_free(*a);
}

int average_new(struct train_net *net, struct average **ret, struct err *err)
{
    _cleanup_(average_freep) struct average *a = mem_calloc(1, sizeof(*a));
    if (!a)
        return err_oom(err, "an average");
    a->arena = arena_new();
    if (!a->arena)
        return err_oom(err, "an average");
    int rc = train_spans(net, a->arena, &a->spans, &a->n_spans, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < a->n_spans; i++)
        a->n_floats += a->spans[i].n;
    a->floats = mem_aligned((size_t)(a->n_floats + 1) * sizeof(*a->floats));
    if (!a->floats)
        return err_oom(err, "an average");
    float *to = a->floats;
    for (int i = 0; i < a->n_spans; to += a->spans[i++].n)
        memcpy(to, a->spans[i].value, (size_t)a->spans[i].n * sizeof(*to));
    *ret = TAKE_PTR(a);
    return 0;
}

KERNEL_INLINE void add_body(float *restrict average, const float *restrict x, float part, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        average[i] += part * (x[i] - average[i]);
}
KERNEL(add, (float *restrict average, const float *restrict x, float part, int64_t n),
       (average, x, part, n))

void average_add(struct average *a, double decay)
{
    float *to = a->floats;
    for (int i = 0; i < a->n_spans; to += a->spans[i++].n)
        KERNEL_PICK(add)(to, a->spans[i].value, (float)(1 - decay), a->spans[i].n);
}

void average_give(const struct average *a)
{
    const float *from = a->floats;
    for (int i = 0; i < a->n_spans; from += a->spans[i++].n)
        memcpy(a->spans[i].value, from, (size_t)a->spans[i].n * sizeof(*from));
}

void average_swap(struct average *a)
{
    float *own = a->floats;
    for (int i = 0; i < a->n_spans; own += a->spans[i++].n)
        for (int64_t k = 0; k < a->spans[i].n; k++) {
            float t = own[k];
            own[k] = a->spans[i].value[k];
            a->spans[i].value[k] = t;
        }
}

float *average_floats(struct average *a, int64_t *ret_n)
{
    *ret_n = a->n_floats;
    return a->floats;
}

double average_decay(double decay, int64_t t)
{
    const double early = (double)(1 + t) / (double)(10 + t);
    return early < decay ? early : decay;
}
