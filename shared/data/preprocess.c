#include "shared/data/preprocess.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"

const struct preprocess preprocess_identity = {
    .scale = 1, .mean = {0, 0, 0, 0}, .std = {1, 1, 1, 1}};

/* ---- text ---- */

/* "a,b,c" -> four numbers; the last one serves the channels behind it. */
static int parse_list(const char *text, double ret[4], int *given, struct err *err)
{
    int n = 0;
    while (true) {
        char number[64];
        size_t length = strcspn(text, ",");
        if (n == 4)
            return err_set(err, ERR_INVALID_ARGUMENT, "more than four numbers");
        if (length >= sizeof(number))
            return err_set(err, ERR_INVALID_ARGUMENT, "'%.40s...' is not a number", text);
        memcpy(number, text, length);
        number[length] = 0;
        int r = str_parse_f64(number, &ret[n], err);
        if (r < 0)
            return r;
        n++;
        if (!text[length])
            break;
        text += length + 1;
    }
    if (n > 1 && *given && *given != n)
        return err_set(err, ERR_INVALID_ARGUMENT, "%d numbers, where the other has %d", n, *given);
    if (n > 1)
        *given = n;
    for (; n < 4; n++)
        ret[n] = ret[n - 1];
    return 0;
}

static int parse_pair(const char *key, const char *value, struct preprocess *pre, struct err *err)
{
    int r = 0;
    if (strcmp(key, "scale") == 0) {
        r = str_parse_f64(value, &pre->scale, err);
        if (r == 0 && pre->scale == 0)
            r = err_set(err, ERR_INVALID_ARGUMENT, "0 would make all pictures equal");
    } else if (strcmp(key, "mean") == 0) {
        r = parse_list(value, pre->mean, &pre->given, err);
    } else if (strcmp(key, "std") == 0) {
        r = parse_list(value, pre->std, &pre->given, err);
        for (int c = 0; c < 4 && r == 0; c++)
            if (!(pre->std[c] > 0))
                r = err_set(err, ERR_INVALID_ARGUMENT, "deviations must be above 0");
    } else if (strcmp(key, "order") == 0) {
        pre->bgr = strcmp(value, "bgr") == 0;
        if (!pre->bgr && strcmp(value, "rgb") != 0)
            r = err_set(err, ERR_INVALID_ARGUMENT, "'%.40s' is neither rgb nor bgr", value);
    } else {
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "preprocessing has no '%.40s' (only scale, mean, std, order)", key);
    }
    return r < 0 ? err_wrap(err, "preprocessing, %s", key) : 0;
}

int preprocess_parse(const char *text, struct preprocess *ret, struct err *err)
{
    static const char *const keys[] = {"scale", "mean", "std", "order"};
    struct preprocess pre = preprocess_identity;
    unsigned seen = 0;
    for (text += strspn(text, " \t\n"); *text; text += strspn(text, " \t\n")) {
        char pair[256];
        size_t length = strcspn(text, " \t\n");
        if (length >= sizeof(pair))
            return err_set(err, ERR_INVALID_ARGUMENT, "preprocessing: '%.40s...' is too long",
                           text);
        memcpy(pair, text, length);
        pair[length] = 0;
        text += length;
        char *value = strchr(pair, '=');
        if (!value)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "preprocessing: '%.60s' is not of the form key=value", pair);
        *value++ = 0;
        int r = parse_pair(pair, value, &pre, err);
        if (r < 0)
            return r;
        for (unsigned k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
            if (strcmp(pair, keys[k]) != 0)
                continue;
            if (seen & 1u << k)
                return err_set(err, ERR_INVALID_ARGUMENT, "preprocessing: %s is given twice", pair);
            seen |= 1u << k;
        }
    }
    *ret = pre;
    return 0;
}

/* The fewest digits that give the number back; 1/255 as such. */
static void add_number(struct strbuf *buf, double value)
{
    char text[64];
    double back;
    if (value != 0 && fabs(value) < 1) {
        snprintf(text, sizeof(text), "1/%.6g", 1 / value);
        if (str_parse_f64(text, &back, NULL) == 0 && back == value && fabs(1 / value) > 2 &&
            strlen(text) < 10) {
            char plain[64];
            snprintf(plain, sizeof(plain), "%.6g", value);
            double short_back;
            if (str_parse_f64(plain, &short_back, NULL) < 0 || short_back != value) {
                strbuf_add(buf, text);
                return;
            }
        }
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (str_parse_f64(text, &back, NULL) == 0 && back == value)
            break;
    }
    strbuf_add(buf, text);
}

/* How many numbers tell the list: 1 where all are equal; the last one serves the rest. */
static int needed(const double list[4])
{
    int n = 4;
    while (n > 1 && list[n - 1] == list[n - 2])
        n--;
    return n;
}

static void add_list(struct strbuf *buf, const char *key, const double list[4], int channels)
{
    strbuf_printf(buf, " %s=", key);
    for (int c = 0; c < (needed(list) > 1 ? channels : 1); c++) {
        if (c)
            strbuf_add(buf, ",");
        add_number(buf, list[c]);
    }
}

char *preprocess_text(const struct preprocess *pre)
{
    struct strbuf buf = {0};
    /* as many as were given; else pictures' three, or four where they are needed */
    int most = needed(pre->mean) > needed(pre->std) ? needed(pre->mean) : needed(pre->std);
    int channels = pre->given > 1 ? pre->given : most > 3 ? 4 : 3;
    strbuf_add(&buf, "scale=");
    add_number(&buf, pre->scale);
    add_list(&buf, "mean", pre->mean, channels);
    add_list(&buf, "std", pre->std, channels);
    strbuf_printf(&buf, " order=%s", pre->bgr ? "bgr" : "rgb");
    if (buf.failed) {
        strbuf_release(&buf);
        return NULL;
    }
    return strbuf_take(&buf);
}

/* ---- numbers ---- */

void preprocess_affine(const struct preprocess *pre, int64_t c, float *ret_a, float *ret_b)
{
    const int64_t k = c < 4 ? c : 3;
    *ret_a = (float)(pre->scale / pre->std[k]);
    *ret_b = (float)(-pre->mean[k] / pre->std[k]);
}

int64_t preprocess_channel(const struct preprocess *pre, int64_t c, int64_t channels)
{
    return pre->bgr ? channels - 1 - c : c;
}

void preprocess_table(const struct preprocess *pre, int64_t channels, float *ret)
{
    for (int64_t c = 0; c < channels; c++) {
        float a, b;
        preprocess_affine(pre, c, &a, &b);
        for (int x = 0; x < 256; x++)
            ret[256 * c + x] = (float)x * a + b;
    }
}

/* ---- conventions ---- */

/* Means and deviations are in the order of the channels, so they turn round with BGR. */
#define ALL(x) {x, x, x, x}
#define RGB(r, g, b) {r, g, b, b}
#define BGR(r, g, b) {b, g, r, r}
#define BOTH(name, scale, order_mean, order_std)                                                   \
    {name ", RGB", {scale, order_mean(RGB), order_std(RGB), false, 0}},                            \
    {                                                                                              \
        name ", BGR", {scale, order_mean(BGR), order_std(BGR), true, 0}                            \
    }

#define ZERO(order) ALL(0)
#define ONE(order) ALL(1)
#define HALF(order) ALL(0.5)
#define MIDDLE(order) ALL(128)
#define IMAGENET_MEAN(order) order(0.485, 0.456, 0.406)
#define IMAGENET_STD(order) order(0.229, 0.224, 0.225)
#define CAFFE_MEAN(order) order(123, 117, 104)
#define KERAS_MEAN(order) order(123.68, 116.779, 103.939)
#define CIFAR10_MEAN(order) order(0.4914, 0.4822, 0.4465)
#define CIFAR10_STD(order) order(0.2470, 0.2435, 0.2616)
#define CIFAR10_STD_OLD(order) order(0.2023, 0.1994, 0.2010)
#define CIFAR100_MEAN(order) order(0.5071, 0.4865, 0.4409)
#define CIFAR100_STD(order) order(0.2673, 0.2564, 0.2762)
#define MNIST_MEAN(order) ALL(0.1307)
#define MNIST_STD(order) ALL(0.3081)

static const struct preprocess_convention conventions[] = {
    BOTH("raw 0..255", 1, ZERO, ONE),
    BOTH("0..1", 1.0 / 255, ZERO, ONE),
    BOTH("-1..1 (mean and deviation 0.5)", 1.0 / 255, HALF, HALF),
    BOTH("ImageNet mean and deviation", 1.0 / 255, IMAGENET_MEAN, IMAGENET_STD),
    BOTH("CIFAR-10 mean and deviation", 1.0 / 255, CIFAR10_MEAN, CIFAR10_STD),
    BOTH("CIFAR-10 mean, deviation 0.2023", 1.0 / 255, CIFAR10_MEAN, CIFAR10_STD_OLD),
    BOTH("Caffe means 104, 117, 123", 1, CAFFE_MEAN, ONE),
    BOTH("Caffe means 103.939, 116.779, 123.68", 1, KERAS_MEAN, ONE),
    BOTH("CIFAR-100 mean and deviation", 1.0 / 255, CIFAR100_MEAN, CIFAR100_STD),
    BOTH("0..255 minus 128", 1, MIDDLE, ONE),
    BOTH("-0.5..0.5", 1.0 / 255, HALF, ONE),
    BOTH("MNIST mean and deviation", 1.0 / 255, MNIST_MEAN, MNIST_STD),
};

const struct preprocess_convention *preprocess_conventions(int *ret_n)
{
    *ret_n = (int)(sizeof(conventions) / sizeof(*conventions));
    return conventions;
}
