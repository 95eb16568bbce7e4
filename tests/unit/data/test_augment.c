/* Augmentation: every view is what its choices say, and depends on seed, view and sample alone. */
#include "tests/unit/data/make.h"

#include <math.h>

#include "shared/base/rng.h"
#include "shared/data/augment.h"

enum { SIDE = 8, PLANE = SIDE * SIDE, WIDTH = 3 * PLANE, TRAIN = 20 /* and 4 to search */ };

static struct dataset *pictures;

static struct augmenter make(const char *pre, struct augment how)
{
    struct augmenter a = {.ds = pictures, .part = PART_TRAIN, .how = how, .seed = 5};
    assert_int_equal(preprocess_parse(pre, &a.pre, NULL), 0);
    struct err err = {0};
    if (augment_check(&how, pictures, &err) < 0)
        fail_msg("%s", err.message);
    return a;
}

static void fill(const struct augmenter *a, uint64_t view, uint32_t i, float *out)
{
    struct err err = {0};
    if (augment_fill(a, view, &i, 1, out, &err) < 0)
        fail_msg("%s", err.message);
}

/* Noise, so that no two places look alike. */
static void write_noise(int number)
{
    uint8_t rgb[WIDTH];
    struct rng rng;
    rng_seed(&rng, (uint64_t)number);
    for (int i = 0; i < WIDTH; i++)
        rgb[i] = (uint8_t)rng_below(&rng, 256);
    struct bytes png =
        make_png_rows(SIDE, SIDE, 8, PNG_COLOR_TYPE_RGB, 0, NULL, 0, rgb, (size_t)SIDE * 3);
    write_bytes(in_dir("data/%s/%s/%02d.png", number < 24 ? "train" : "test",
                       number % 2 ? "dog" : "cat", number),
                png.data, png.n);
}

static int open_pictures(void **state)
{
    struct dataset_pack_options options = options_for(3, SIDE, SIDE);
    struct dataset_report report = {0};
    make_folder(state);
    for (int i = 0; i < 32; i++)
        write_noise(i);
    pictures = pack_open(in_dir("data"), &options, &report);
    dataset_report_release(&report);
    return 0;
}

static int close_pictures(void **state)
{
    pictures = dataset_close(pictures);
    return remove_folder(state);
}

#define PICTURES(fn) cmocka_unit_test_setup_teardown(fn, open_pictures, close_pictures)

/* ---- nothing ---- */

static void without_augmentation_a_view_is_the_sample_as_it_is_scored(void **state)
{
    (void)state;
    const struct augmenter a =
        make("scale=1/255 mean=0.5,0.4,0.3 std=0.2,0.25,0.3 order=bgr", (struct augment){0});
    struct sample_view view;
    float want[WIDTH], got[WIDTH];
    assert_int_equal(sample_view_init(&view, pictures, PART_TRAIN, &a.pre, 0, 0, NULL), 0);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(sample_view_fill(&view, i, 1, want, NULL), 0);
        fill(&a, i + 3, i, got);
        assert_memory_equal(want, got, sizeof(got));
    }
    sample_view_release(&view);
}

/* ---- shifts and flips ---- */

/* Pixel (y, x) of the sample behind its border, in the plain network's input. */
static float at(const float *plain, enum augment_border border, int c, int y, int x)
{
    if (border == BORDER_REFLECT) {
        y = y < 0 ? -y : y >= SIDE ? 2 * SIDE - 2 - y : y;
        x = x < 0 ? -x : x >= SIDE ? 2 * SIDE - 2 - x : x;
    }
    return y < 0 || y >= SIDE || x < 0 || x >= SIDE ? 0 : plain[c * PLANE + y * SIDE + x];
}

struct found {
    int dy, dx, flip;
};

/* Which shift and flip of the plain sample this is. */
static bool is_shift(const float *plain, const float *out, enum augment_border border,
                     struct found f)
{
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++) {
                const int from = f.flip ? SIDE - 1 - x : x;
                if (out[c * PLANE + y * SIDE + x] != at(plain, border, c, y + f.dy, from + f.dx))
                    return false;
            }
    return true;
}

static struct found find(const float *plain, const float *out, enum augment_border border, int most)
{
    for (int dy = -most; dy <= most; dy++)
        for (int dx = -most; dx <= most; dx++)
            for (int flip = 0; flip < 2; flip++) {
                const struct found f = {dy, dx, flip};
                if (is_shift(plain, out, border, f))
                    return f;
            }
    fail_msg("the view is no shift of its sample");
    return (struct found){0};
}

static void check_shifts(enum augment_border border, int most)
{
    const struct augment how = {.crop = most, .border = border, .flip = FLIP_RANDOM};
    const struct augmenter a = make("mean=120,110,100 std=60", how);
    const struct augmenter plain = make("mean=120,110,100 std=60", (struct augment){0});
    int rows[9] = {0}, columns[9] = {0}, flips = 0, n = 0;
    for (uint32_t i = 0; i < TRAIN; i++)
        for (uint64_t view = 0; view < 12; view++, n++) {
            float base[WIDTH], out[WIDTH];
            fill(&plain, 0, i, base);
            fill(&a, view, i, out);
            const struct found f = find(base, out, border, most);
            rows[f.dy + most]++;
            columns[f.dx + most]++;
            flips += f.flip;
        }
    for (int k = 0; k <= 2 * most; k++) /* each place comes, and none too often */
        assert_true(rows[k] > 0 && columns[k] > 0 && rows[k] < 3 * n / (2 * most + 1));
    assert_true(flips > n / 3 && flips < 2 * n / 3);
}

static void crops_are_shifts_with_a_border_of_zero(void **state)
{
    (void)state;
    check_shifts(BORDER_ZERO, 3);
}

static void crops_may_mirror_at_the_border(void **state)
{
    (void)state;
    check_shifts(BORDER_REFLECT, 3);
}

static int flip_of(const struct augmenter *a, const struct augmenter *plain, uint64_t view,
                   uint32_t i)
{
    float base[WIDTH], out[WIDTH];
    fill(plain, 0, i, base);
    fill(a, view, i, out);
    return find(base, out, BORDER_ZERO, 0).flip;
}

static void alternating_flips_change_with_every_view(void **state)
{
    (void)state;
    const struct augmenter a = make("", (struct augment){.flip = FLIP_ALTERNATING});
    const struct augmenter plain = make("", (struct augment){0});
    int first = 0;
    for (uint32_t i = 0; i < TRAIN; i++) {
        const int flip = flip_of(&a, &plain, 0, i);
        first += flip;
        for (uint64_t view = 1; view < 6; view++)
            assert_int_equal(flip_of(&a, &plain, view, i), flip ^ (int)(view & 1));
    }
    assert_true(first > TRAIN / 5 && first < TRAIN - TRAIN / 5); /* and not all on one side */
}

/* ---- cutout ---- */

static void cutout_blanks_one_square(void **state)
{
    (void)state;
    const struct augmenter a = make("mean=1000", (struct augment){.cutout = 3});
    const struct augmenter plain = make("mean=1000", (struct augment){0}); /* no pixel is zero */
    int whole = 0;
    bool corners = false;
    for (uint32_t i = 0; i < TRAIN; i++)
        for (uint64_t view = 0; view < 8; view++) {
            float base[WIDTH], out[WIDTH];
            int top = SIDE, left = SIDE, bottom = -1, right = -1, blank = 0;
            fill(&plain, 0, i, base);
            fill(&a, view, i, out);
            for (int p = 0; p < WIDTH; p++) {
                const int y = p % PLANE / SIDE, x = p % SIDE;
                if (out[p] == base[p])
                    continue;
                assert_true(out[p] == 0);
                blank++;
                top = y < top ? y : top;
                left = x < left ? x : left;
                bottom = y > bottom ? y : bottom;
                right = x > right ? x : right;
            }
            assert_true(bottom >= top && bottom - top < 3 && right - left < 3);
            assert_int_equal(blank, 3 * (bottom - top + 1) * (right - left + 1));
            whole += blank == 27;
            corners |= top == 0 && left == 0;
        }
    assert_true(whole > 60 && corners);
}

/* ---- colours ---- */

static double grey(const double *rgb)
{
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
}

/* The three changes one after the other, as they are defined. */
static void change(const float *plain, double brightness, double contrast, double saturation,
                   double *out)
{
    double mean = 0;
    for (int p = 0; p < PLANE; p++)
        for (int c = 0; c < 3; c++)
            out[p * 3 + c] = brightness * (double)plain[c * PLANE + p];
    for (int p = 0; p < PLANE; p++)
        mean += grey(out + p * 3) / (double)PLANE;
    for (int i = 0; i < WIDTH; i++)
        out[i] = contrast * out[i] + (1 - contrast) * mean;
    for (int p = 0; p < PLANE; p++) {
        const double g = grey(out + p * 3);
        for (int c = 0; c < 3; c++)
            out[p * 3 + c] = fmin(255, fmax(0, saturation * out[p * 3 + c] + (1 - saturation) * g));
    }
}

/* One kind alone: the factor follows from one pixel and must explain all. */
static void check_colour(int kind)
{
    struct augment how = {0};
    *(kind == 0 ? &how.brightness : kind == 1 ? &how.contrast : &how.saturation) = 0.5;
    const struct augmenter a = make("", how), plain = make("", (struct augment){0});
    double least = 2, most = 0;
    for (uint32_t i = 0; i < TRAIN; i++) {
        float base[WIDTH], out[WIDTH];
        double want[WIDTH], best = 1e9, factor = 0;
        fill(&plain, 0, i, base);
        fill(&a, 1, i, out);
        for (double f = 0.5; f <= 1.5; f += 0.0005) {
            double off = 0;
            change(base, kind == 0 ? f : 1, kind == 1 ? f : 1, kind == 2 ? f : 1, want);
            for (int p = 0; p < PLANE; p++)
                for (int c = 0; c < 3; c++)
                    off = fmax(off, fabs(want[p * 3 + c] - (double)out[c * PLANE + p]));
            factor = off < best ? f : factor;
            best = fmin(off, best);
        }
        if (best > 0.15) /* 255 times the step of the search */
            fail_msg("no factor explains sample %u: %g off", i, best);
        least = fmin(least, factor);
        most = fmax(most, factor);
    }
    assert_true(least < 0.75 && most > 1.25);
}

static void colours_change_by_one_factor_for_the_whole_picture(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++)
        check_colour(kind);
}

/* ---- what a view depends on ---- */

static const struct augment everything = {.crop = 2,
                                          .flip = FLIP_RANDOM,
                                          .cutout = 2,
                                          .brightness = 0.2,
                                          .contrast = 0.2,
                                          .saturation = 0.2};

static void a_view_depends_on_seed_view_and_sample_alone(void **state)
{
    (void)state;
    const struct augmenter a = make("mean=100 std=50", everything);
    struct augmenter other = a;
    const uint32_t order[] = {7, 3, 11, 3};
    float batch[4 * WIDTH], one[WIDTH];
    assert_int_equal(augment_fill(&a, 9, order, 4, batch, NULL), 0);
    for (int k = 0; k < 4; k++) {
        fill(&a, 9, order[k], one);
        assert_memory_equal(one, batch + k * WIDTH, sizeof(one));
    }
    fill(&a, 10, 3, one);
    assert_memory_not_equal(one, batch + WIDTH, sizeof(one));
    other.seed = 6;
    fill(&other, 9, 3, one);
    assert_memory_not_equal(one, batch + WIDTH, sizeof(one));
}

static void another_normalisation_sees_the_same_picture(void **state)
{
    (void)state;
    const struct augmenter a = make("mean=100 std=50", everything);
    const struct augmenter b = make("scale=1/255 mean=0.5 std=0.25", everything);
    for (uint32_t i = 0; i < TRAIN; i++) {
        float x[WIDTH], y[WIDTH];
        fill(&a, 4, i, x);
        fill(&b, 4, i, y);
        for (int p = 0; p < WIDTH; p++) {
            if (x[p] == 0 && y[p] == 0)
                continue; /* a border has each one's own zero */
            const double pixel = 100 + 50 * (double)x[p];
            assert_true(fabs(pixel - 255 * (0.5 + 0.25 * (double)y[p])) < 1e-2);
        }
    }
}

static void turning_one_kind_off_leaves_the_others(void **state)
{
    (void)state;
    const struct augment shift = {.crop = 3, .flip = FLIP_RANDOM};
    const struct augment both = {.crop = 3, .flip = FLIP_RANDOM, .cutout = 2};
    const struct augmenter a = make("mean=1000", shift), b = make("mean=1000", both);
    for (uint32_t i = 0; i < TRAIN; i++) {
        float x[WIDTH], y[WIDTH];
        int differ = 0;
        fill(&a, 2, i, x);
        fill(&b, 2, i, y);
        for (int p = 0; p < WIDTH; p++)
            differ += x[p] != y[p];
        assert_true(differ <= 12);
    }
}

/* ---- features over time ---- */

enum { TIME = 12, BANDS = 5 };

static struct dataset *open_features(void)
{
    float x[30 * TIME * BANDS];
    int32_t y[30];
    struct dataset_pack_options options = options_for(1, TIME, BANDS);
    struct dataset_report report = {0};
    for (int i = 0; i < 30 * TIME * BANDS; i++)
        x[i] = 1 + (float)i;
    for (int i = 0; i < 30; i++)
        y[i] = i % 2;
    write_npy(in_dir("a/x_train.npy"), "<f4", "(30, 1, 12, 5)", x, sizeof(x));
    write_npy(in_dir("a/y_train.npy"), "<i4", "(30,)", y, sizeof(y));
    struct dataset *ds = pack_open(in_dir("a"), &options, &report);
    dataset_report_release(&report);
    return ds;
}

static void features_are_masked_and_moved_along_time(void **state)
{
    (void)state;
    struct dataset *ds = open_features();
    struct augmenter a = {.ds = ds,
                          .part = PART_TRAIN,
                          .pre = preprocess_identity,
                          .how = {.time_mask = 3, .frequency_mask = 2, .time_shift = 2}};
    bool moved[5] = {false}, rows[4] = {false}, columns[3] = {false};
    assert_int_equal(augment_check(&a.how, ds, NULL), 0);
    for (uint64_t view = 0; view < 300; view++) {
        float out[TIME * BANDS];
        const uint32_t i = (uint32_t)(view % 10);
        const float *in = dataset_f32(ds, PART_TRAIN, i);
        int blank_rows = 0, blank_columns = 0, shift = 99;
        assert_int_equal(augment_fill(&a, view, &i, 1, out, NULL), 0);
        for (int p = 0; p < TIME * BANDS; p++) /* every number tells where it comes from */
            if (out[p] != 0)
                shift = (int)(out[p] - in[0]) / BANDS - p / BANDS;
        assert_true(shift >= -2 && shift <= 2);
        for (int y = 0; y < TIME; y++) {
            int zero = 0;
            for (int x = 0; x < BANDS; x++) {
                const int from = y + shift;
                const float o = out[y * BANDS + x];
                zero += o == 0;
                assert_true(o == 0 || o == in[from * BANDS + x]);
            }
            blank_rows += zero == BANDS && y + shift >= 0 && y + shift < TIME;
        }
        for (int x = 0; x < BANDS; x++) {
            int zero = 0;
            for (int y = 0; y < TIME; y++)
                zero += out[y * BANDS + x] == 0;
            blank_columns += zero == TIME;
        }
        assert_true(blank_rows <= 3 && blank_columns <= 2);
        moved[shift + 2] = rows[blank_rows] = columns[blank_columns] = true;
    }
    for (int k = 0; k < 5; k++)
        assert_true(moved[k] && rows[k % 4] && columns[k % 3]);
    dataset_close(ds);
}

/* ---- refusals ---- */

static void expect_refused(struct augment how, const char *words)
{
    struct err err = {0};
    if (augment_check(&how, pictures, &err) != -ERR_INVALID_ARGUMENT || !strstr(err.message, words))
        fail_msg("'%s' lacks '%s'", err.message, words);
}

static void what_cannot_be_done_is_refused(void **state)
{
    (void)state;
    expect_refused((struct augment){.crop = -1}, "crop of -1");
    expect_refused((struct augment){.crop = 9}, "allow 0 to 8");
    expect_refused((struct augment){.crop = 8, .border = BORDER_REFLECT}, "allow 0 to 7");
    expect_refused((struct augment){.cutout = 9}, "cutout of 9");
    expect_refused((struct augment){.brightness = 1.5}, "brightness");
    expect_refused((struct augment){.contrast = -0.1}, "contrast");
    expect_refused((struct augment){.saturation = NAN}, "saturation");
    struct dataset *ds = open_features();
    struct err err = {0};
    assert_int_equal(augment_check(&(struct augment){.contrast = 0.1}, ds, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "RGB"));
    dataset_close(ds);
    const struct augmenter a = make("", (struct augment){0});
    const uint32_t beyond = 1000;
    float out[WIDTH];
    assert_int_equal(augment_fill(&a, 0, &beyond, 1, out, NULL), -ERR_OUT_OF_RANGE);
}

static void settings_as_text_tell_settings_apart(void **state)
{
    (void)state;
    struct augment how = everything;
    _cleanup_(freep) char *one = augment_text(&how);
    _cleanup_(freep) char *same = augment_text(&how);
    how.saturation = 0.20000001;
    _cleanup_(freep) char *other = augment_text(&how);
    assert_string_equal(one, same);
    assert_string_not_equal(one, other);
}

/* ---- mixup ---- */

static void mixing_takes_both_rows_as_they_were(void **state)
{
    (void)state;
    const float before[] = {1, 2, 10, 20, 100, 200};
    const float share[] = {0.75f, 1, 0.5f};
    float x[6], spare[2];
    memcpy(x, before, sizeof(x));
    augment_mix(x, 3, 2, share, spare);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 2; i++) {
            const float next = before[(k + 1) % 3 * 2 + i];
            assert_true(x[k * 2 + i] == share[k] * before[k * 2 + i] + (1 - share[k]) * next);
        }
}

/* Beta(1, 1) is even over 0..1, so the larger part is even over 1/2..1; Beta(0.2, 0.2) is near
 * the ends: its mean deviation from 1/2 squared is 1 / (4 (2 alpha + 1)). */
static void shares_are_of_the_beta_distribution(void **state)
{
    (void)state;
    const double alphas[] = {0.2, 1, 4};
    for (int k = 0; k < 3; k++) {
        double square = 0;
        for (uint32_t i = 0; i < 20000; i++) {
            const double s = augment_mix_share(alphas[k], 3, 1, i);
            assert_true(s >= 0.5 && s <= 1);
            square += (s - 0.5) * (s - 0.5) / 20000;
        }
        const double want = 1 / (4 * (2 * alphas[k] + 1));
        if (fabs(square - want) > 0.03 * want)
            fail_msg("alpha %g: %g instead of %g", alphas[k], square, want);
    }
    assert_true(augment_mix_share(0, 3, 1, 2) == 1);
    assert_true(augment_mix_share(0.4, 3, 1, 2) == augment_mix_share(0.4, 3, 1, 2));
    assert_true(augment_mix_share(0.4, 3, 1, 2) != augment_mix_share(0.4, 3, 2, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PICTURES(without_augmentation_a_view_is_the_sample_as_it_is_scored),
        PICTURES(crops_are_shifts_with_a_border_of_zero),
        PICTURES(crops_may_mirror_at_the_border),
        PICTURES(alternating_flips_change_with_every_view),
        PICTURES(cutout_blanks_one_square),
        PICTURES(colours_change_by_one_factor_for_the_whole_picture),
        PICTURES(a_view_depends_on_seed_view_and_sample_alone),
        PICTURES(another_normalisation_sees_the_same_picture),
        PICTURES(turning_one_kind_off_leaves_the_others),
        DATA_TEST(features_are_masked_and_moved_along_time),
        PICTURES(what_cannot_be_done_is_refused),
        PICTURES(settings_as_text_tell_settings_apart),
        cmocka_unit_test(mixing_takes_both_rows_as_they_were),
        cmocka_unit_test(shares_are_of_the_beta_distribution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
