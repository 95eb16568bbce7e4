/* Pricing by the profiler's own program: who dies loses no price that was measured. */
#include "tests/support/redis_ask.h"

#include <hone/v1/tasks.pb-c.h>

#define PROGRAM HONE_BINARY_DIR "/services/profiler/hone-profiler"

enum { PIECES = 40, AT_ONCE = 32 }; /* of which so many are timed together */

struct asked {
    Hone__V1__PriceTask task;
    Hone__V1__PriceTask__Piece pieces[PIECES], *list[PIECES];
    char texts[PIECES][32];
};

static void ask(struct asked *q)
{
    hone__v1__price_task__init(&q->task);
    for (int i = 0; i < PIECES; i++) {
        hone__v1__price_task__piece__init(&q->pieces[i]);
        snprintf(q->texts[i], sizeof(q->texts[i]), "conv:%d", 8 * (i / 2 + 1));
        q->pieces[i].text = q->texts[i];
        q->pieces[i].channels = 8;
        q->pieces[i].height = 4;
        q->pieces[i].width = (uint64_t)(4 + i % 2);
        q->list[i] = &q->pieces[i];
    }
    q->task.pieces = q->list;
    q->task.n_pieces = PIECES;
}

static void a_killed_profiler_goes_on_with_what_it_knew(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    workers_begin();
    ask(&q);
    const char *const dies[] = {"HONE_LEASE_MS", "300", "HONE_FAILPOINT", "profiler.priced=kill",
                                NULL};
    pid_t pid = worker_exec(on, PROGRAM, dies);
    ask_put(on, "J1", "profiler:local", "price", &q.task);
    const int status = worker_wait(pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    pid = worker_exec(on, PROGRAM, NULL);
    _cleanup_(message_freep) Hone__V1__PriceResult *r =
        ask_get(on, &hone__v1__price_result__descriptor);
    assert_int_equal(r->n_us, PIECES);
    assert_int_equal(r->reused, AT_ONCE);
    for (int i = 0; i < PIECES; i++)
        assert_true(r->us[i] > 0);
    _cleanup_(freep) char *events = job_events(on, "J1");
    assert_non_null(strstr(events, "\"stage\":\"price\""));
    worker_stop(pid);
    workers_end();
}

static void jobs_share_their_prices(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    workers_begin();
    ask(&q);
    pid_t pid = worker_exec(on, PROGRAM, NULL);
    ask_put(on, "J1", "profiler:local", "price", &q.task);
    _cleanup_(message_freep) Hone__V1__PriceResult *first =
        ask_get(on, &hone__v1__price_result__descriptor);
    q.list[3] = q.list[5];
    ask_put(on, "J2", "profiler:local", "price", &q.task);
    _cleanup_(message_freep) Hone__V1__PriceResult *second =
        ask_get(on, &hone__v1__price_result__descriptor);
    assert_int_equal(first->reused, 0);
    assert_int_equal(second->reused, PIECES);
    assert_true(second->us[3] == first->us[5]);
    worker_stop(pid);
    workers_end();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_profiler_goes_on_with_what_it_knew),
        cmocka_unit_test(jobs_share_their_prices),
    };
    return ON_REDIS_RUN("faults: prices", tests);
}
