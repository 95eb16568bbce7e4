/* Task "price" of the profiler, with the latency table in a real Redis. */
#include "tests/support/quant_task.h"

#include "services/profiler/piece.h"
#include "services/profiler/profiler.h"
#include "services/profiler/timing.h"
#include "shared/design/design.h"
#include "tests/support/redis_both.h"

typedef Hone__V1__PriceTask__Piece piece_message;

static struct job job;

static piece_message piece(const char *text, uint64_t channels, uint64_t side)
{
    piece_message p = HONE__V1__PRICE_TASK__PIECE__INIT;
    p.text = (char *)text;
    p.channels = channels;
    p.height = p.width = side;
    p.outputs = 10;
    return p;
}

/* Of runs like these; 0: one sample, one thread. */
static int ask_for(struct on_redis *on, uint32_t batch, uint32_t threads, piece_message *pieces,
                   size_t n, struct err *err)
{
    Hone__V1__PriceTask task = HONE__V1__PRICE_TASK__INIT;
    task.batch = batch;
    task.threads = threads;
    piece_message **list = calloc(n, sizeof(*list));
    assert_non_null(list);
    for (size_t i = 0; i < n; i++)
        list[i] = &pieces[i];
    task.pieces = list;
    task.n_pieces = n;
    job.queue = on->q;
    int rc = job_run(&job, profiler_price, &task, err);
    free(list);
    return rc;
}

static int ask(struct on_redis *on, piece_message *pieces, size_t n, struct err *err)
{
    return ask_for(on, 0, 0, pieces, n, err);
}

static Hone__V1__PriceResult *prices(struct on_redis *on, piece_message *pieces, size_t n)
{
    struct err err = {0};
    if (ask(on, pieces, n, &err) < 0)
        fail_msg("%s", err.message);
    Hone__V1__PriceResult *result = job_result(&job, &hone__v1__price_result__descriptor);
    assert_int_equal(result->n_us, n);
    assert_string_equal(result->cpu, nn_cpu());
    assert_string_equal(result->isa, nn_isa());
    assert_true(result->floor_us >= 0);
    return result;
}

static void a_known_piece_is_not_measured_again(void **state)
{
    struct on_redis *on = *state;
    piece_message some[] = {piece("conv:16", 3, 16), piece("residual:16*1", 16, 16),
                            piece("residual:16", 16, 16), piece("head", 16, 16),
                            piece("residual:16:s1", 16, 16)};
    some[0].first = true;
    Hone__V1__PriceResult *a = prices(on, some, 5), *b = prices(on, some, 5);
    for (int i = 0; i < 5; i++)
        assert_true(a->us[i] > 0 && a->us[i] == b->us[i]);
    assert_true(a->us[1] == a->us[2] && a->us[2] == a->us[4]); /* one piece, said differently */
    assert_int_equal(a->reused, 0);
    assert_int_equal(b->reused, 5);
    assert_true(a->floor_us == b->floor_us);
    message_free(a);
    message_free(b);
}

static void prices_come_from_the_table_of_this_hardware(void **state)
{
    struct on_redis *on = *state;
    struct latency_table table;
    _cleanup_(freep) char *key = NULL;
    const struct piece_place place = {.text = "conv:8:k3",
                                      .channels = 24,
                                      .height = 7,
                                      .width = 5,
                                      .outputs = 99,
                                      .batch = 1,
                                      .threads = 1};
    JOB_OK(piece_key(&place, &key, err));
    latency_table_init(&table, on->q, 1);
    JOB_OK(latency_put(&table, key, 1234.5, err));
    piece_message one = piece("conv:8:s1", 24, 7);
    one.width = 5;
    one.outputs = 0; /* is not its business */
    Hone__V1__PriceResult *r = prices(on, &one, 1);
    assert_true(r->us[0] == 1234.5 && r->reused == 1);
    message_free(r);
}

static void what_cannot_be_built_has_no_price(void **state)
{
    struct on_redis *on = *state;
    piece_message some[] = {
        piece("conv:16", 16, 8),      piece("no such piece", 16, 8), piece("", 16, 8),
        piece("conv:8:s9", 16, 8),    piece("conv:8", 0, 8),         piece("conv:8", UINT64_MAX, 8),
        piece("conv:8", 16, 1 << 30), piece("head", 16, 8),          piece("conv:99999", 16, 8),
        piece("head conv", 16, 8)};
    some[7].outputs = 0;
    Hone__V1__PriceResult *r = prices(on, some, 10);
    assert_true(r->us[0] > 0);
    for (int i = 1; i < 10; i++)
        assert_true(r->us[i] == 0);
    message_free(r);
    r = prices(on, some, 0);
    assert_true(r->floor_us == 0);
    message_free(r);
}

static void every_type_has_a_price_anywhere(void **state)
{
    struct on_redis *on = *state;
    piece_message some[64];
    size_t n = 0;
    for (const char *const *type = design_types(); *type; type++) {
        for (int i = 0; i < 2; i++) {
            some[n] = piece(*type, i ? 24 : 1, 10);
            some[n].height = i ? 3 : 49;
            some[n++].first = i == 0;
        }
    }
    some[n++] = piece("separable:32:s2:k5:se", 24, 6);
    some[n++] = piece("conv:32:pool", 24, 6);
    some[n++] = piece("bottleneck:64:s2", 24, 6);
    some[n++] = piece("rep:24*2 residual:32:s2", 24, 6);
    Hone__V1__PriceResult *r = prices(on, some, n);
    for (size_t i = 0; i < n; i++)
        if (!(r->us[i] > 0))
            fail_msg("'%s' has no price", some[i].text);
    message_free(r);
}

/* ---- parts of networks ---- */

static void begin_store(void)
{
    char url[128];
    str_copy(job.folder, sizeof(job.folder), "/tmp/hone-price-XXXXXX");
    assert_non_null(mkdtemp(job.folder));
    snprintf(url, sizeof(url), "file://%s", job.folder);
    JOB_OK(store_open(url, &job.store, err));
}

static void end_store(void)
{
    store_closep(&job.store);
    JOB_OK(fs_remove_tree(job.folder, err));
}

/* The network's name in the store; weights by seed. */
static void keep_network(const char *text, uint64_t seed, char ret[HASH_HEX_BYTES])
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(freep) void *data = NULL;
    const struct design_ends ends = {
        .channels = 3, .height = 16, .width = 16, .outputs = 10, .seed = seed};
    struct design design;
    size_t bytes = 0;
    JOB_OK(design_parse(text, arena, &design, err));
    JOB_OK(design_build(&design, &ends, &g, err));
    JOB_OK(onnx_write_bytes(g, &data, &bytes, err));
    JOB_OK(store_put(job.store, data, bytes, ret, err));
}

/* The nodes of piece n of a design are named "n....". */
static piece_message part(const char *name, char *network, const char *precision)
{
    piece_message p = HONE__V1__PRICE_TASK__PIECE__INIT;
    p.text = (char *)name;
    p.network = network;
    p.precision = (char *)precision;
    return p;
}

static void a_part_of_a_network_has_a_price_in_every_precision(void **state)
{
    struct on_redis *on = *state;
    char network[HASH_HEX_BYTES], twin[HASH_HEX_BYTES], other[HASH_HEX_BYTES];
    begin_store();
    keep_network("conv:16 residual:16 residual:16 head", 1, network);
    keep_network("conv:16 residual:16 residual:16 head", 2, twin);
    keep_network("conv:16 residual:16 residual:24 head", 1, other);
    piece_message some[] = {part("2", network, "fp32"), part("2", network, "int8"),
                            part("3", network, "int8"), part("2", other, "int8"),
                            part("2", twin, "int8")};
    Hone__V1__PriceResult *r = prices(on, some, 5);
    for (int i = 0; i < 5; i++)
        assert_true(r->us[i] > 0);
    assert_true(r->us[1] == r->us[4]); /* weights do not matter */
    assert_int_equal(r->reused, 0);
    message_free(r);
    r = prices(on, some, 5);
    assert_int_equal(r->reused, 5);
    message_free(r);
    end_store();
}

static void a_part_that_is_none_has_no_price(void **state)
{
    struct on_redis *on = *state;
    char network[HASH_HEX_BYTES], missing[HASH_HEX_BYTES];
    struct err err = {0};
    begin_store();
    keep_network("conv:16 residual:16 head", 1, network);
    piece_message some[] = {part("9", network, "int8"), part("2", network, "int4"),
                            part("2", network, "int8")};
    Hone__V1__PriceResult *r = prices(on, some, 3);
    assert_true(r->us[0] == 0 && r->us[1] == 0 && r->us[2] > 0);
    message_free(r);
    memset(missing, '0', sizeof(missing) - 1);
    missing[sizeof(missing) - 1] = 0;
    some[0].network = missing;
    assert_int_equal(ask(on, some, 1, &err), -ERR_NOT_FOUND);
    end_store();
}

/* As throughput asks for them: each thread carries its share of the samples. */
static void batches_on_several_threads_have_prices_of_their_own(void **state)
{
    struct on_redis *on = *state;
    piece_message some[] = {piece("conv:16", 3, 16), piece("residual:16", 16, 16),
                            piece("separable:32:s2", 16, 16), piece("head", 32, 8)};
    some[0].first = true;
    Hone__V1__PriceResult *alone = prices(on, some, 4);
    JOB_OK(ask_for(on, 6, 2, some, 4, err));
    Hone__V1__PriceResult *batch = job_result(&job, &hone__v1__price_result__descriptor);
    for (int i = 0; i < 4; i++)
        assert_true(alone->us[i] > 0 && batch->us[i] > 0);
    assert_int_equal(batch->reused, 0);
    assert_true(batch->floor_us >= 0);
    message_free(batch);
    JOB_OK(ask_for(on, 6, 2, some, 4, err));
    batch = job_result(&job, &hone__v1__price_result__descriptor);
    assert_int_equal(batch->reused, 4);
    message_free(batch);
    message_free(alone);
}

static void a_cancelled_task_ends(void **state)
{
    struct on_redis *on = *state;
    piece_message one = piece("conv:40", 40, 40);
    struct err err = {0};
    job.running.cancelled = true;
    assert_int_equal(ask(on, &one, 1, &err), -ERR_CANCELLED);
    job.running.cancelled = false;
}

static void without_a_table_there_are_no_prices(void **state)
{
    struct on_redis *on = *state;
    piece_message one = piece("conv:8", 8, 8);
    struct err err = {0};
    struct queue *kept = on->q;
    test_redis_kill(&on->redis);
    on->q = on_redis_open(on, 50);
    assert_int_equal(ask(on, &one, 1, &err), -ERR_UNAVAILABLE);
    queue_close(on->q);
    on->q = kept;
}

static void keys_say_what_prices_depend_on(void **state)
{
    (void)state;
    const struct piece_place place = {.text = "conv:32",
                                      .channels = 3,
                                      .height = 4,
                                      .width = 5,
                                      .outputs = 6,
                                      .batch = 1,
                                      .threads = 1};
    struct piece_place other[6];
    _cleanup_(freep) char *key = NULL;
    JOB_OK(piece_key(&place, &key, err));
    for (int i = 0; i < 6; i++)
        other[i] = place;
    other[0].channels = 4;
    other[1].height = 5;
    other[2].width = 4;
    other[3].batch = 2;
    other[4].first = true;
    other[5].text = "conv:32:s2";
    for (int i = 0; i < 6; i++) {
        _cleanup_(freep) char *text = NULL;
        JOB_OK(piece_key(&other[i], &text, err));
        assert_string_not_equal(text, key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_piece_is_not_measured_again),
        cmocka_unit_test(prices_come_from_the_table_of_this_hardware),
        cmocka_unit_test(what_cannot_be_built_has_no_price),
        cmocka_unit_test(every_type_has_a_price_anywhere),
        cmocka_unit_test(a_part_of_a_network_has_a_price_in_every_precision),
        cmocka_unit_test(a_part_that_is_none_has_no_price),
        cmocka_unit_test(batches_on_several_threads_have_prices_of_their_own),
        cmocka_unit_test(a_cancelled_task_ends),
        cmocka_unit_test(keys_say_what_prices_depend_on),
        cmocka_unit_test(without_a_table_there_are_no_prices),
    };
    const int failed = ON_REDIS_RUN("price", tests);
    job_forget(&job);
    return failed;
}
