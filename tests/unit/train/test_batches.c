/* Batches: what is in them follows from the step alone, and each sample comes once an epoch. */
#include "tests/unit/train/drawn.h"

#include <unistd.h>

#include "shared/train/batches.h"

enum { BATCH = 50, PER_EPOCH = 8, SAMPLES = 432 };

static struct drawn data;

static int open_data(void **state)
{
    (void)state;
    drawn_open(&data);
    return 0;
}

static int close_data(void **state)
{
    (void)state;
    drawn_close(&data);
    return 0;
}

static struct batch_settings settings_of(uint64_t seed)
{
    return (struct batch_settings){.views = {.ds = data.ds,
                                             .part = PART_TRAIN,
                                             .pre = data.pre,
                                             .how = {.flip = FLIP_ALTERNATING},
                                             .seed = 3},
                                   .seed = seed,
                                   .batch = BATCH};
}

static struct batches *open_at(const struct batch_settings *s, int64_t first, int64_t end)
{
    struct batches *b = NULL;
    OK(batches_open(s, first, end, &b, err));
    return b;
}

static const struct batch *next(struct batches *b)
{
    const struct batch *batch = NULL;
    OK(batches_next(b, &batch, err));
    return batch;
}

/* The sample that a row is, unaugmented or mirrored. */
static int64_t which(const float *x, bool *ret_flip)
{
    const struct augmenter plain = {
        .ds = data.ds, .part = PART_TRAIN, .pre = data.pre, .how = {.flip = FLIP_NONE}};
    static float all[SAMPLES][DRAWN_WIDTH];
    static bool known;
    if (!known)
        for (uint32_t i = 0; i < SAMPLES; i++)
            OK(augment_fill(&plain, 0, &i, 1, all[i], err));
    known = true;
    for (int64_t i = 0; i < SAMPLES; i++) {
        if (memcmp(all[i], x, sizeof(all[i])) == 0) {
            *ret_flip = false;
            return i;
        }
        bool same = true;
        for (int k = 0; k < DRAWN_WIDTH && same; k++)
            same = x[k] == all[i][k / DRAWN_SIDE * DRAWN_SIDE + DRAWN_SIDE - 1 - k % DRAWN_SIDE];
        if (same) {
            *ret_flip = true;
            return i;
        }
    }
    fail_msg("a row is no sample");
    return -1;
}

static void each_sample_comes_once_an_epoch_in_a_new_order(void **state)
{
    (void)state;
    const struct batch_settings s = settings_of(1);
    const int32_t *labels = dataset_labels(data.ds, PART_TRAIN);
    struct batches *b = open_at(&s, 0, 3 * PER_EPOCH);
    int64_t first[3] = {-1, -1, -1};
    int flips[SAMPLES] = {0}, times[SAMPLES] = {0};
    assert_int_equal(batches_per_epoch(&s), PER_EPOCH);
    for (int epoch = 0; epoch < 3; epoch++) {
        bool seen[SAMPLES] = {false};
        for (int k = 0; k < PER_EPOCH; k++) {
            const struct batch *batch = next(b);
            assert_int_equal(batch->step, epoch * PER_EPOCH + k);
            for (int i = 0; i < BATCH; i++) {
                bool flip;
                const int64_t sample = which(batch->x + i * DRAWN_WIDTH, &flip);
                assert_false(seen[sample]);
                seen[sample] = true;
                assert_int_equal(batch->label[i], labels[sample]);
                assert_true(batch->share[i] == 1);
                if (times[sample]++ == epoch) /* seen in every epoch so far */
                    flips[sample] += flip != (epoch % 2);
                if (first[epoch] < 0)
                    first[epoch] = sample;
            }
        }
    }
    assert_true(first[0] != first[1] || first[1] != first[2]);
    for (int i = 0; i < SAMPLES; i++) /* alternating: all of a sample's views agree */
        assert_true(times[i] < 3 || flips[i] == 0 || flips[i] == 3);
    struct err err = {0};
    const struct batch *none;
    assert_int_equal(batches_next(b, &none, &err), -ERR_OUT_OF_RANGE);
    batches_close(b);
}

static void batches_do_not_depend_on_where_one_begins(void **state)
{
    (void)state;
    struct batch_settings s = settings_of(1);
    s.mixup = 0.3;
    s.views.how.crop = 2;
    struct batches *whole = open_at(&s, 0, 2 * PER_EPOCH), *late = open_at(&s, 5, 2 * PER_EPOCH);
    for (int k = 0; k < 5; k++)
        next(whole);
    for (int k = 5; k < 2 * PER_EPOCH; k++) {
        const struct batch *a = next(whole), *b = next(late);
        usleep(k % 3 * 500); /* the makers are ahead or behind */
        assert_int_equal(a->step, b->step);
        assert_memory_equal(a->x, b->x, BATCH * DRAWN_WIDTH * sizeof(float));
        assert_memory_equal(a->label, b->label, BATCH * sizeof(int32_t));
        assert_memory_equal(a->other, b->other, BATCH * sizeof(int32_t));
        assert_memory_equal(a->share, b->share, BATCH * sizeof(float));
        for (int i = 0; i < BATCH; i++) {
            assert_int_equal(a->other[i], a->label[(i + 1) % BATCH]);
            assert_true(a->share[i] >= 0.5f && a->share[i] <= 1);
        }
    }
    batches_close(whole);
    batches_close(late);
}

static void another_seed_is_another_order(void **state)
{
    (void)state;
    const struct batch_settings one = settings_of(1), two = settings_of(2);
    struct batches *a = open_at(&one, 0, 4), *b = open_at(&two, 0, 4);
    assert_memory_not_equal(next(a)->label, next(b)->label, BATCH * sizeof(int32_t));
    batches_close(a); /* early: three are left */
    batches_close(b);
}

static void they_can_be_closed_at_any_time(void **state)
{
    (void)state;
    const struct batch_settings s = settings_of(1);
    for (int taken = 0; taken < 4; taken++) {
        struct batches *b = open_at(&s, 0, 100);
        for (int k = 0; k < taken; k++)
            next(b);
        batches_close(b);
    }
    batches_close(NULL);
}

static void too_few_samples_are_refused(void **state)
{
    (void)state;
    struct batch_settings s = settings_of(1);
    struct batches *b = NULL;
    struct err err = {0};
    s.batch = SAMPLES + 1;
    assert_int_equal(batches_open(&s, 0, 1, &b, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "432 samples"));
    assert_null(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sample_comes_once_an_epoch_in_a_new_order),
        cmocka_unit_test(batches_do_not_depend_on_where_one_begins),
        cmocka_unit_test(another_seed_is_another_order),
        cmocka_unit_test(they_can_be_closed_at_any_time),
        cmocka_unit_test(too_few_samples_are_refused),
    };
    return cmocka_run_group_tests(tests, open_data, close_data);
}
