/* Prices of pieces: from the latency table of the hardware, or measured and put there. */
#include <stdlib.h>
#include <string.h>

#include "services/profiler/piece.h"
#include "services/profiler/profiler.h"
#include "services/profiler/timing.h"
#include "shared/base/clock.h"
#include "shared/base/failpoint.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/work/state.h"

#define MOST_OPEN 32                 /* pieces that are timed in turns */
#define MOST_BYTES ((size_t)1 << 29) /* of their memory, about */

struct priced {
    char *key, *rest_key;   /* in the latency table; NULL: it is no design */
    struct piece_time time; /* us = 0: not known, or it cannot be built */
};

struct pricing {
    struct work_task *task;
    Hone__V1__PriceTask *q;
    Hone__V1__PriceResult *result;
    struct latency_table table;
    size_t n;
    struct priced *pieces;
    int64_t begin_ns;
    size_t *unknown; /* indices of pieces, no key twice */
    size_t n_unknown;
};

static void pricing_release(struct pricing *p)
{
    for (size_t i = 0; p->pieces && i < p->n; i++) {
        free(p->pieces[i].key);
        free(p->pieces[i].rest_key);
    }
    free(p->pieces);
    free(p->unknown);
    message_free(p->q);
    message_free(p->result);
}

/* ---- what the table has ---- */

static struct piece_place place_of(const struct pricing *p, const Hone__V1__PriceTask__Piece *piece,
                                   const struct graph *network)
{
    enum precision precision = PRECISION_AUTO;
    if (network && precision_parse(piece->precision, &precision, NULL) < 0)
        network = NULL; /* no design either */
    return (struct piece_place){.text = piece->text,
                                .network = network,
                                .precision = precision,
                                .channels = (int64_t)piece->channels,
                                .height = (int64_t)piece->height,
                                .width = (int64_t)piece->width,
                                .outputs = (int64_t)piece->outputs,
                                .first = piece->first,
                                .batch = p->q->batch ? p->q->batch : 1,
                                .threads = p->q->threads ? (int)p->q->threads : 1};
}

/* The network that piece i names; NULL: it is a design. */
static int load_network(const struct pricing *p, size_t i, struct graph **ret, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    const char *name = p->q->pieces[i]->network;
    *ret = NULL;
    if (!*name)
        return 0;
    int r = store_get(p->task->store, name, onnx_default_limits.max_file_bytes, &data, &bytes, err);
    return r < 0 ? r : onnx_read_bytes(data, bytes, NULL, NULL, ret, err);
}

static int find_key(struct pricing *p, size_t i, struct err *err)
{
    _cleanup_(graph_freep) struct graph *network = NULL;
    int r = load_network(p, i, &network, err);
    if (r < 0)
        return r;
    const struct piece_place place = place_of(p, p->q->pieces[i], network);
    piece_key(&place, &p->pieces[i].key, NULL);
    return 0;
}

static int look_up(struct pricing *p, struct priced *piece, struct err *err)
{
    int r = latency_get(&p->table, piece->key, &piece->time.us, err);
    return r < 0 || piece->time.us == 0
               ? r
               : latency_get(&p->table, piece->rest_key, &piece->time.rest, err);
}

static bool is_noted(const struct pricing *p, const char *key)
{
    for (size_t i = 0; i < p->n_unknown; i++)
        if (strcmp(p->pieces[p->unknown[i]].key, key) == 0)
            return true;
    return false;
}

static int look_up_all(struct pricing *p, struct err *err)
{
    for (size_t i = 0; i < p->n; i++) {
        struct priced *piece = &p->pieces[i];
        int r = find_key(p, i, err);
        if (r < 0)
            return r;
        if (!piece->key)
            continue;
        piece->rest_key = str_printf("rest of %s", piece->key);
        r = piece->rest_key ? look_up(p, piece, err) : err_oom(err, "prices");
        if (r < 0)
            return r;
        p->result->reused += piece->time.us > 0;
        if (piece->time.us == 0 && !is_noted(p, piece->key))
            p->unknown[p->n_unknown++] = i;
    }
    return 0;
}

/* ---- what is measured ---- */

struct open {
    int n;
    struct piece_bench *benches[MOST_OPEN];
    struct priced *pieces[MOST_OPEN];
};

static void open_release(struct open *o)
{
    for (int i = 0; i < o->n; i++)
        piece_close(o->benches[i]);
}

static bool is_late(const struct pricing *p)
{
    return p->q->seconds > 0 && (double)(clock_now_ns(NULL) - p->begin_ns) > p->q->seconds * 1e9;
}

static int open_piece(const struct pricing *p, size_t i, struct piece_bench **ret)
{
    _cleanup_(graph_freep) struct graph *network = NULL;
    int r = load_network(p, i, &network, NULL);
    if (r < 0)
        return r;
    const struct piece_place place = place_of(p, p->q->pieces[i], network);
    return piece_open(&place, ret, NULL);
}

/* Takes pieces from `next` on until the open ones are enough; returns the index behind. */
static size_t open_some(struct pricing *p, size_t next, struct open *o)
{
    size_t bytes = 0;
    for (; next < p->n_unknown && o->n < MOST_OPEN && bytes < MOST_BYTES; next++) {
        struct priced *piece = &p->pieces[p->unknown[next]];
        if (open_piece(p, p->unknown[next], &o->benches[o->n]) < 0)
            continue;
        bytes += piece_memory(o->benches[o->n]);
        o->pieces[o->n++] = piece;
        if (work_check(p->task, NULL) < 0 || is_late(p))
            break; /* whoever asks next says why */
    }
    return next;
}

static int keep(struct pricing *p, struct priced *piece, const struct piece_time *time,
                struct err *err)
{
    piece->time = (struct piece_time){latency_round(time->us), latency_round(time->rest)};
    int r = latency_put(&p->table, piece->rest_key, time->rest, err);
    return r < 0 ? r : latency_put(&p->table, piece->key, time->us, err);
}

static int measure_unknown(struct pricing *p, struct err *err)
{
    for (size_t next = 0; next < p->n_unknown && !is_late(p);) {
        _cleanup_(open_release) struct open o = {0};
        struct piece_time times[MOST_OPEN];
        int r = work_progress(p->task, "price", (double)next, (double)p->n_unknown, "pieces", err);
        if (r < 0)
            return r;
        next = open_some(p, next, &o);
        r = piece_time_all(o.benches, o.n, p->task, times, err);
        for (int i = 0; r == 0 && i < o.n; i++)
            r = times[i].us > 0 ? keep(p, o.pieces[i], &times[i], err) : 0; /* it cannot run */
        if (r == 0)
            r = failpoint("profiler.priced", err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- the answer ---- */

static int price_all(struct pricing *p, struct err *err)
{
    p->n = p->q->n_pieces;
    p->pieces = mem_calloc(p->n + 1, sizeof(*p->pieces));
    p->unknown = mem_calloc(p->n + 1, sizeof(*p->unknown));
    int r = p->pieces && p->unknown ? look_up_all(p, err) : err_oom(err, "prices");
    if (r == 0)
        r = measure_unknown(p, err);
    for (size_t i = 0; r == 0 && i < p->n; i++) {
        struct priced *piece = &p->pieces[i];
        if (piece->key && piece->time.us == 0) /* the same as another, or not to be had */
            r = look_up(p, piece, err);
        if (r == 0)
            r = message_append_f64(&p->result->us, &p->result->n_us, piece->time.us, err);
    }
    return r;
}

static int compare_f64(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* The median; timers inside of runs can make it negative where there is next to nothing. */
static int find_floor(struct pricing *p, struct err *err)
{
    _cleanup_(freep) double *rests = mem_calloc(p->n + 1, sizeof(*rests));
    size_t n = 0;
    if (!rests)
        return err_oom(err, "prices");
    for (size_t i = 0; i < p->n; i++)
        if (p->pieces[i].time.us > 0)
            rests[n++] = p->pieces[i].time.rest;
    qsort(rests, n, sizeof(*rests), compare_f64);
    p->result->floor_us = n > 0 && rests[n / 2] > 0 ? rests[n / 2] : 0;
    return 0;
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
    p.begin_ns = clock_now_ns(NULL);
    latency_table_init(&p.table, task->queue, p.q->threads ? (int)p.q->threads : 1);
    r = price_all(&p, err);
    if (r == 0)
        r = find_floor(&p, err);
    if (r == 0)
        r = message_set(&p.result->cpu, nn_cpu(), err);
    if (r == 0)
        r = message_set(&p.result->isa, nn_isa(), err);
    return r < 0 ? r : work_result(out, &p.result->base, err);
}
