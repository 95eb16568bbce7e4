#pragma once
/* Checks of one-node graphs; to be included after cmocka.h. */
#include <math.h>
#include <string.h>

#include "tests/support/one_node.h"

/* Runs the node; output 0 has this type, shape and these values. */
#define EXPECT(n, dtype, shape, ...)                                                               \
    do {                                                                                           \
        if (one_node_run(n) < 0)                                                                   \
            fail_msg("%s", (n)->err.message);                                                      \
        expect_tensor((n)->out[0], dtype, shape,                                                   \
                      (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)),                     \
                      (const double[]){__VA_ARGS__});                                              \
    } while (0)

/* The node is refused with this code and a message that names it and holds `text`. */
#define EXPECT_ERROR(n, error, text)                                                               \
    do {                                                                                           \
        assert_int_equal(one_node_run(n), -(error));                                               \
        assert_int_equal((n)->err.code, error);                                                    \
        assert_null((n)->out[0]);                                                                  \
        if (!strstr((n)->err.message, "node 'the_node'") || !strstr((n)->err.message, text))       \
            fail_msg("message '%s' lacks '%s'", (n)->err.message, text);                           \
    } while (0)

static inline void expect_tensor(const struct tensor *t, enum dtype dtype, struct shape shape,
                                 int n, const double *values)
{
    char got[128], want[128];
    assert_non_null(t);
    assert_string_equal(dtype_name(t->dtype), dtype_name(dtype));
    assert_string_equal(shape_text(&t->shape, got), shape_text(&shape, want));
    assert_int_equal(shape_elements(&shape), n);
    for (int i = 0; i < n; i++) {
        double x = tensor_get_f64(t, i), y = values[i];
        if (isnan(y) ? !isnan(x) : !(x == y || fabs(x - y) <= 1e-6 * fabs(y)))
            fail_msg("element %d is %.9g, not %.9g", i, x, y);
    }
}
