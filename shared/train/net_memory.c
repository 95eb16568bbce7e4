/* Where buffers lie: those of a lane's pass share memory when their lifetimes do not meet. */
#include <stdlib.h>

#include "shared/train/net_priv.h"

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static const struct train_net *sorting;

/* Large ones first; by number where equal, so that the plan is the same everywhere. */
static int by_size(const void *a, const void *b)
{
    int i = *(const int *)a, j = *(const int *)b;
    size_t x = sorting->buffers[i].bytes, y = sorting->buffers[j].bytes;
    return x > y ? -1 : x < y ? 1 : i - j;
}

static bool meet(const struct buffer *a, const struct buffer *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest place that no buffer of the first `n` placed ones needs at the same time. */
static size_t place(const struct train_net *net, const int *order, int n, const struct buffer *b)
{
    size_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < n; i++) {
            const struct buffer *o = &net->buffers[order[i]];
            if (meet(o, b) && o->offset < at + aligned(b->bytes) &&
                at < o->offset + aligned(o->bytes)) {
                at = o->offset + aligned(o->bytes);
                moved = true;
            }
        }
    }
    return at;
}

int net_plan_memory(struct train_net *net, struct err *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of `sorting` */
    _cleanup_(freep) int *order = mem_calloc((size_t)net->n_buffers, sizeof(*order));
    if (!order)
        return err_oom(err, "the memory plan");
    int n = 0;
    for (int i = 0; i < net->n_buffers; i++) {
        struct buffer *b = &net->buffers[i];
        if (b->home != HOME_PLANNED) {
            b->offset = net->home_bytes[b->home];
            net->home_bytes[b->home] += aligned(b->bytes);
        } else if (b->last >= b->first) {
            order[n++] = i;
        }
    }
    pthread_mutex_lock(&lock);
    sorting = net;
    qsort(order, (size_t)n, sizeof(*order), by_size);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < n; i++) {
        struct buffer *b = &net->buffers[order[i]];
        b->offset = place(net, order, i, b);
        if (b->offset + aligned(b->bytes) > net->home_bytes[HOME_PLANNED])
            net->home_bytes[HOME_PLANNED] = b->offset + aligned(b->bytes);
    }
    return 0;
}
