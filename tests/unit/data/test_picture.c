/* Decoding and resizing of single pictures. */
#include "tests/unit/data/make.h"

#include "shared/data/picture.h"

static int decode(struct picture *pic, const struct bytes *in, struct err *err)
{
    return picture_decode(pic, in->data, in->n, &dataset_default_limits, err);
}

static void expect_rgb(const struct bytes *in, int width, int height, const uint8_t *rgb)
{
    _cleanup_(picture_release) struct picture pic = {0};
    struct err err = {0};
    if (decode(&pic, in, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(pic.width, width);
    assert_int_equal(pic.height, height);
    assert_memory_equal(pic.rgb, rgb, (size_t)(width * height * 3));
}

static void expect_refused(const void *data, size_t n, const struct dataset_limits *limits,
                           enum err_code code, const char *words)
{
    _cleanup_(picture_release) struct picture pic = {0};
    struct err err = {0};
    int r = picture_decode(&pic, data, n, limits, &err);
    if (r != -(int)code || !strstr(err.message, words))
        fail_msg("got %d '%s', expected %d with '%s'", r, err.message, -(int)code, words);
}

/* ---- PNG ---- */

static void rgb_comes_back_as_it_was(void **state)
{
    (void)state;
    uint8_t rgb[5 * 3 * 3];
    fill_rgb(rgb, 5, 3, 9);
    struct bytes png = make_png_rows(5, 3, 8, PNG_COLOR_TYPE_RGB, 0, NULL, 0, rgb, 15);
    expect_rgb(&png, 5, 3, rgb);
}

static void interlaced_pictures_are_put_together(void **state)
{
    (void)state;
    uint8_t rgb[13 * 11 * 3];
    fill_rgb(rgb, 13, 11, 4);
    struct bytes png =
        make_png_rows(13, 11, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_ADAM7, NULL, 0, rgb, 39);
    expect_rgb(&png, 13, 11, rgb);
}

static void gray_fills_three_channels(void **state)
{
    (void)state;
    const uint8_t gray[4] = {0, 90, 200, 255};
    const uint8_t rgb[12] = {0, 0, 0, 90, 90, 90, 200, 200, 200, 255, 255, 255};
    struct bytes png = make_png_rows(2, 2, 8, PNG_COLOR_TYPE_GRAY, 0, NULL, 0, gray, 2);
    expect_rgb(&png, 2, 2, rgb);
}

static void one_bit_gray_is_black_and_white(void **state)
{
    (void)state;
    const uint8_t bits[1] = {0xa0};
    const uint8_t rgb[12] = {255, 255, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0};
    struct bytes png = make_png_rows(4, 1, 1, PNG_COLOR_TYPE_GRAY, 0, NULL, 0, bits, 1);
    expect_rgb(&png, 4, 1, rgb);
}

static void palettes_are_looked_up(void **state)
{
    (void)state;
    const png_color palette[3] = {{1, 2, 3}, {40, 50, 60}, {250, 251, 252}};
    const uint8_t index[3] = {2, 0, 1};
    const uint8_t rgb[9] = {250, 251, 252, 1, 2, 3, 40, 50, 60};
    struct bytes png = make_png_rows(3, 1, 8, PNG_COLOR_TYPE_PALETTE, 0, palette, 3, index, 3);
    expect_rgb(&png, 3, 1, rgb);
}

static void sixteen_bits_are_rounded_to_eight(void **state)
{
    (void)state;
    const uint8_t wide[6] = {0xff, 0xff, 0x80, 0x80, 0x00, 0x81}; /* big-endian */
    const uint8_t rgb[3] = {255, 128, 1};
    struct bytes png = make_png_rows(1, 1, 16, PNG_COLOR_TYPE_RGB, 0, NULL, 0, wide, 6);
    expect_rgb(&png, 1, 1, rgb);
}

static void transparency_is_dropped_not_blended(void **state)
{
    (void)state;
    const uint8_t rgba[8] = {10, 20, 30, 0, 40, 50, 60, 128};
    const uint8_t rgb[6] = {10, 20, 30, 40, 50, 60};
    struct bytes png = make_png_rows(2, 1, 8, PNG_COLOR_TYPE_RGB_ALPHA, 0, NULL, 0, rgba, 8);
    expect_rgb(&png, 2, 1, rgb);
    const uint8_t gray_alpha[4] = {7, 0, 9, 255};
    const uint8_t gray_rgb[6] = {7, 7, 7, 9, 9, 9};
    png = make_png_rows(2, 1, 8, PNG_COLOR_TYPE_GRAY_ALPHA, 0, NULL, 0, gray_alpha, 4);
    expect_rgb(&png, 2, 1, gray_rgb);
}

static void a_png_cut_off_anywhere_is_refused_or_complete(void **state)
{
    (void)state;
    struct bytes png = make_png(8, 8, 3);
    for (size_t n = 0; n < png.n - 30; n++) { /* its tail holds no pixels */
        _cleanup_(picture_release) struct picture pic = {0};
        struct err err = {0};
        assert_true(picture_decode(&pic, png.data, n, &dataset_default_limits, &err) < 0);
        assert_true(err.message[0]);
    }
}

/* Sets the size in the header and corrects the checksum. */
static void claim_size(struct bytes *png, uint32_t width, uint32_t height)
{
    uint8_t *ihdr = png->data + 12;
    for (int i = 0; i < 4; i++) {
        ihdr[4 + i] = (uint8_t)(width >> (24 - 8 * i));
        ihdr[8 + i] = (uint8_t)(height >> (24 - 8 * i));
    }
    uint32_t crc = ~0u;
    for (int i = 0; i < 17; i++) {
        crc ^= ihdr[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    crc = ~crc;
    for (int i = 0; i < 4; i++)
        ihdr[17 + i] = (uint8_t)(crc >> (24 - 8 * i));
}

static void a_header_that_claims_too_much_is_refused_before_memory_is_taken(void **state)
{
    (void)state;
    struct bytes png = make_png(8, 8, 3);
    claim_size(&png, 1000000, 1000000);
    expect_refused(png.data, png.n, &dataset_default_limits, ERR_RESOURCE_EXHAUSTED,
                   "1000000 x 1000000 pixels");
    claim_size(&png, 0x7fffffff, 1);
    expect_refused(png.data, png.n, &dataset_default_limits, ERR_INVALID_ARGUMENT, "IHDR");
    claim_size(&png, 20000, 5001);
    expect_refused(png.data, png.n, &dataset_default_limits, ERR_RESOURCE_EXHAUSTED,
                   "above the limit");
}

static void a_broken_checksum_is_refused(void **state)
{
    (void)state;
    struct bytes png = make_png(8, 8, 3);
    png.data[png.n / 2] ^= 0x55;
    expect_refused(png.data, png.n, &dataset_default_limits, ERR_INVALID_ARGUMENT, "broken PNG");
}

/* ---- JPEG ---- */

static void expect_near(const struct bytes *jpeg, int size, const uint8_t colour[3], int tolerance)
{
    _cleanup_(picture_release) struct picture pic = {0};
    struct err err = {0};
    if (decode(&pic, jpeg, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(pic.width, size);
    for (int i = 0; i < size * size * 3; i++)
        assert_in_range(pic.rgb[i] + 1000, 1000 + colour[i % 3] - tolerance,
                        1000 + colour[i % 3] + tolerance);
}

static void jpeg_colours_come_back(void **state)
{
    (void)state;
    const uint8_t colour[3] = {200, 40, 90};
    uint8_t rgb[16 * 16 * 3];
    for (int i = 0; i < 16 * 16 * 3; i++)
        rgb[i] = colour[i % 3];
    struct bytes jpeg = make_jpeg(16, 16, rgb, TJPF_RGB, TJSAMP_420);
    expect_near(&jpeg, 16, colour, 3);
}

static void gray_jpegs_fill_three_channels(void **state)
{
    (void)state;
    const uint8_t colour[3] = {77, 77, 77};
    uint8_t gray[16 * 16];
    memset(gray, 77, sizeof(gray));
    struct bytes jpeg = make_jpeg(16, 16, gray, TJPF_GRAY, TJSAMP_GRAY);
    expect_near(&jpeg, 16, colour, 2);
}

static void cmyk_jpegs_become_rgb(void **state)
{
    (void)state;
    const uint8_t colour[3] = {200, 100, 50};
    uint8_t cmyk[16 * 16 * 4]; /* inverted, as Adobe writes: colour times black */
    for (int i = 0; i < 16 * 16; i++)
        memcpy(cmyk + i * 4, (uint8_t[4]){200, 100, 50, 255}, 4);
    struct bytes jpeg = make_jpeg(16, 16, cmyk, TJPF_CMYK, TJSAMP_444);
    expect_near(&jpeg, 16, colour, 4);
}

static void a_jpeg_that_ends_early_is_refused(void **state)
{
    (void)state;
    uint8_t rgb[64 * 64 * 3];
    fill_rgb(rgb, 64, 64, 5);
    struct bytes jpeg = make_jpeg(64, 64, rgb, TJPF_RGB, TJSAMP_444);
    expect_refused(jpeg.data, jpeg.n / 2, &dataset_default_limits, ERR_INVALID_ARGUMENT,
                   "broken JPEG");
    expect_refused(jpeg.data, 20, &dataset_default_limits, ERR_INVALID_ARGUMENT, "broken JPEG");
}

static void a_jpeg_above_the_limit_is_refused(void **state)
{
    (void)state;
    uint8_t rgb[16 * 16 * 3] = {0};
    struct dataset_limits limits = dataset_default_limits;
    struct bytes jpeg = make_jpeg(16, 16, rgb, TJPF_RGB, TJSAMP_444);
    limits.max_picture_pixels = 255;
    expect_refused(jpeg.data, jpeg.n, &limits, ERR_RESOURCE_EXHAUSTED, "16 x 16 pixels");
    limits.max_picture_bytes = 100;
    expect_refused(jpeg.data, jpeg.n, &limits, ERR_RESOURCE_EXHAUSTED, "above the limit of 100");
}

static void other_files_are_refused(void **state)
{
    (void)state;
    expect_refused("GIF89a..........", 16, &dataset_default_limits, ERR_INVALID_ARGUMENT,
                   "neither");
    expect_refused("", 0, &dataset_default_limits, ERR_INVALID_ARGUMENT, "empty");
    expect_refused("\xff", 1, &dataset_default_limits, ERR_INVALID_ARGUMENT, "neither");
}

/* ---- resizing ---- */

/* -> planes; the picture is [height][width][3] */
static bool resize(int width, int height, const uint8_t *rgb, int64_t c, int64_t h, int64_t w,
                   uint8_t *out)
{
    struct picture pic = {.width = width, .height = height, .rgb = (uint8_t *)rgb};
    _cleanup_(resizer_freep) struct resizer *r = resizer_new(c, h, w);
    bool resized = false;
    assert_non_null(r);
    assert_int_equal(resizer_run(r, &pic, out, &resized, NULL), 0);
    return resized;
}

static void a_picture_of_the_right_size_is_only_rearranged(void **state)
{
    (void)state;
    const uint8_t rgb[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const uint8_t planes[12] = {1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12};
    uint8_t out[12];
    assert_false(resize(2, 2, rgb, 3, 2, 2, out));
    assert_memory_equal(out, planes, 12);
}

static void shrinking_averages_areas(void **state)
{
    (void)state;
    uint8_t rgb[4 * 4 * 3], out[4 * 3];
    for (int i = 0; i < 16; i++)
        for (int c = 0; c < 3; c++)
            rgb[i * 3 + c] = (uint8_t)(i * 10 + c);
    assert_true(resize(4, 4, rgb, 3, 2, 2, out));
    const uint8_t red[4] = {25, 45, 105, 125}; /* means of 2x2 */
    assert_memory_equal(out, red, 4);
    assert_int_equal(out[4], 26);
    assert_int_equal(out[8], 27);
}

static void shrinking_by_a_fraction_weighs_by_coverage(void **state)
{
    (void)state;
    uint8_t rgb[3 * 3 * 3], out[2 * 2 * 3];
    for (int i = 0; i < 9; i++)
        memset(rgb + i * 3, i % 3 * 90, 3); /* columns 0, 90, 180 */
    assert_true(resize(3, 3, rgb, 3, 2, 2, out));
    assert_int_equal(out[0], 30);  /* (0 + 90 / 2) / 1.5 */
    assert_int_equal(out[1], 150); /* (90 / 2 + 180) / 1.5 */
}

static void growing_is_bilinear(void **state)
{
    (void)state;
    uint8_t rgb[2 * 2 * 3], out[4 * 4 * 3];
    for (int i = 0; i < 4; i++)
        memset(rgb + i * 3, i % 2 * 100, 3); /* columns 0, 100 */
    assert_true(resize(2, 2, rgb, 3, 4, 4, out));
    const uint8_t row[4] = {0, 25, 75, 100};
    for (int y = 0; y < 4; y++)
        assert_memory_equal(out + y * 4, row, 4);
}

static void the_centre_of_a_wide_picture_is_kept(void **state)
{
    (void)state;
    uint8_t rgb[6 * 2 * 3], out[2 * 2 * 3];
    for (int i = 0; i < 12; i++)
        memset(rgb + i * 3, i % 6 * 10, 3);
    assert_true(resize(6, 2, rgb, 3, 2, 2, out));
    const uint8_t middle[4] = {20, 30, 20, 30};
    assert_memory_equal(out, middle, 4);
}

static void a_tall_network_crops_the_sides(void **state)
{
    (void)state;
    uint8_t rgb[8 * 8 * 3], out[8 * 2 * 3];
    for (int i = 0; i < 64; i++)
        memset(rgb + i * 3, i % 8 * 10, 3);
    assert_true(resize(8, 8, rgb, 3, 8, 2, out));
    assert_int_equal(out[0], 30);
    assert_int_equal(out[1], 40);
}

static void one_colour_stays_that_colour_at_any_size(void **state)
{
    (void)state;
    static uint8_t rgb[64 * 64 * 3], out[70 * 70 * 3];
    memset(rgb, 201, sizeof(rgb));
    for (int size = 1; size <= 64; size += 7) {
        for (int target = 1; target <= 70; target += 3) {
            resize(size, 65 - size, rgb, 3, target, 71 - target, out);
            for (int i = 0; i < target * (71 - target) * 3; i++)
                assert_int_equal(out[i], 201);
        }
    }
}

static void gray_networks_get_luma(void **state)
{
    (void)state;
    const uint8_t rgb[12] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255};
    const uint8_t luma[4] = {76, 150, 29, 255};
    uint8_t out[4];
    assert_false(resize(2, 2, rgb, 1, 2, 2, out));
    assert_memory_equal(out, luma, 4);
}

static void a_picture_like_a_thread_is_refused_not_multiplied_out(void **state)
{
    (void)state;
    _cleanup_(resizer_freep) struct resizer *r = resizer_new(1, 4096, 4);
    _cleanup_(freep) uint8_t *rgb = mem_calloc(1000000, 3);
    _cleanup_(freep) uint8_t *out = mem_calloc(4096, 4);
    struct picture pic = {.width = 1000000, .height = 1, .rgb = rgb};
    struct err err = {0};
    bool resized;
    assert_int_equal(resizer_run(r, &pic, out, &resized, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "long and thin"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rgb_comes_back_as_it_was),
        cmocka_unit_test(interlaced_pictures_are_put_together),
        cmocka_unit_test(gray_fills_three_channels),
        cmocka_unit_test(one_bit_gray_is_black_and_white),
        cmocka_unit_test(palettes_are_looked_up),
        cmocka_unit_test(sixteen_bits_are_rounded_to_eight),
        cmocka_unit_test(transparency_is_dropped_not_blended),
        cmocka_unit_test(a_png_cut_off_anywhere_is_refused_or_complete),
        cmocka_unit_test(a_header_that_claims_too_much_is_refused_before_memory_is_taken),
        cmocka_unit_test(a_broken_checksum_is_refused),
        cmocka_unit_test(jpeg_colours_come_back),
        cmocka_unit_test(gray_jpegs_fill_three_channels),
        cmocka_unit_test(cmyk_jpegs_become_rgb),
        cmocka_unit_test(a_jpeg_that_ends_early_is_refused),
        cmocka_unit_test(a_jpeg_above_the_limit_is_refused),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(a_picture_of_the_right_size_is_only_rearranged),
        cmocka_unit_test(shrinking_averages_areas),
        cmocka_unit_test(shrinking_by_a_fraction_weighs_by_coverage),
        cmocka_unit_test(growing_is_bilinear),
        cmocka_unit_test(the_centre_of_a_wide_picture_is_kept),
        cmocka_unit_test(a_tall_network_crops_the_sides),
        cmocka_unit_test(one_colour_stays_that_colour_at_any_size),
        cmocka_unit_test(gray_networks_get_luma),
        cmocka_unit_test(a_picture_like_a_thread_is_refused_not_multiplied_out),
    };
    return cmocka_run_group_tests_name("picture", tests, NULL, NULL);
}
