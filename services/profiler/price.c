/* Prices of pieces: from the latency table of the hardware, or measured and put there. */
#include <stdlib.h>

#include "services/profiler/piece.h"
#include "services/profiler/profiler.h"
#include "services/profiler/timing.h"
#include "shared/base/str.h"
#include "shared/work/state.h"

struct pricing {
    struct work_task *task;
    Hone__V1__PriceTask *q;
    Hone__V1__PriceResult *result;
    struct latency_table table;
    double *rests; /* of a run beside its steps, of those that have a price */
    int n_rests;
};

static void pricing_release(struct pricing *p)
{
    message_free(p->q);
    message_free(p->result);
    free(p->rests);
}

static struct piece_place place_of(const struct pricing *p, const Hone__V1__PriceTask__Piece *piece)
{
    return (struct piece_place){.text = piece->text,
                                .channels = (int64_t)piece->channels,
                                .height = (int64_t)piece->height,
                                .width = (int64_t)piece->width,
                                .outputs = (int64_t)piece->outputs,
                                .first = piece->first,
                                .batch = p->q->batch ? p->q->batch : 1,
                                .threads = p->q->threads ? (int)p->q->threads : 1};
}

/* What the table has; us = 0: nothing. */
static int look_up(struct pricing *p, const char *key, const char *rest_key, struct piece_time *ret,
                   struct err *err)
{
    int r = latency_get(&p->table, key, &ret->us, err);
    return r < 0 || ret->us == 0 ? r : latency_get(&p->table, rest_key, &ret->rest, err);
}

static int keep(struct pricing *p, const char *key, const char *rest_key,
                const struct piece_time *time, struct err *err)
{
    int r = latency_put(&p->table, rest_key, time->rest, err);
    return r < 0 ? r : latency_put(&p->table, key, time->us, err);
}

/* us = 0: the piece cannot be built or run. Fails when nothing can be priced any more. */
static int price(struct pricing *p, const struct piece_place *place, struct piece_time *ret,
                 struct err *err)
{
    _cleanup_(freep) char *key = NULL, *rest_key = NULL;
    *ret = (struct piece_time){0};
    if (piece_key(place, &key, NULL) < 0)
        return 0;
    rest_key = str_printf("rest-of-%s", key);
    if (!rest_key)
        return err_oom(err, "prices");
    int r = look_up(p, key, rest_key, ret, err);
    if (r < 0 || ret->us > 0) {
        p->result->reused += r == 0;
        return r;
    }
    if (piece_measure(place, ret, NULL) == 0)
        return keep(p, key, rest_key, ret, err);
    *ret = (struct piece_time){0};
    return 0;
}

static int price_all(struct pricing *p, struct err *err)
{
    const size_t n = p->q->n_pieces;
    p->rests = mem_calloc(n + 1, sizeof(*p->rests));
    if (!p->rests)
        return err_oom(err, "prices");
    for (size_t i = 0; i < n; i++) {
        const struct piece_place place = place_of(p, p->q->pieces[i]);
        struct piece_time time;
        int r = work_progress(p->task, "price", (double)i, (double)n, "pieces", err);
        if (r == 0)
            r = price(p, &place, &time, err);
        if (r == 0)
            r = message_append_f64(&p->result->us, &p->result->n_us, time.us, err);
        if (r < 0)
            return r;
        if (time.us > 0)
            p->rests[p->n_rests++] = time.rest;
    }
    return 0;
}

static int compare_f64(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* The median; timers inside of runs can make it negative where there is next to nothing. */
static double floor_of(struct pricing *p)
{
    qsort(p->rests, (size_t)p->n_rests, sizeof(*p->rests), compare_f64);
    const double median = p->n_rests > 0 ? p->rests[p->n_rests / 2] : 0;
    return median > 0 ? median : 0;
}

int profiler_price(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(pricing_release) struct pricing p = {.task = task};
    p.result = message_new(&hone__v1__price_result__descriptor, err);
    if (!p.result)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = work_payload(task, &hone__v1__price_task__descriptor, (ProtobufCMessage **)&p.q, err);
    if (r < 0)
        return r;
    latency_table_init(&p.table, task->queue, p.q->threads ? (int)p.q->threads : 1);
    r = price_all(&p, err);
    if (r == 0)
        r = message_set(&p.result->cpu, nn_cpu(), err);
    if (r == 0)
        r = message_set(&p.result->isa, nn_isa(), err);
    if (r < 0)
        return r;
    p.result->floor_us = floor_of(&p);
    return work_result(out, &p.result->base, err);
}
