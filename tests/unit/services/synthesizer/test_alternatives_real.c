/* The real networks: their units, and the alternatives that they have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/synthesizer/alternatives.h"
#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err ok_err = {0};                                                                   \
        struct err *err = &ok_err;                                                                 \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, ok_err.message);                                             \
    } while (0)

static const struct {
    const char *file;
    int units;
    const char *some; /* an alternative that it must have */
} models[] = {
    {"resnet20-cifar10.onnx", 11, "keep:2"},
    {"resnet56-cifar10.onnx", 29, "merge:32"},
    {"resnet8-cifar10-mlperf.onnx", 5, "rank:16"},
    {"squeezenet10-imagenet.onnx", 19, "separable:128"},
    {"mobilenetv1-05-160-imagenet.onnx", 29, "keep:2"},
    {"dscnn-kws-mlperf.onnx", 10, "keep:1"},
};
enum { MODELS = sizeof(models) / sizeof(*models) };

/* The graph; skips the test where there are no models. */
static struct graph *load(const char *file)
{
    const char *data = getenv("HONE_DATA");
    _cleanup_(freep) char *path =
        str_printf("%s/models/%s", data ? data : HONE_SOURCE_DIR "/../shared/data", file);
    struct graph *g = NULL;
    if (!fs_exists(path)) {
        print_message("skip: %s is not there\n", path);
        skip();
    }
    OK(onnx_read_file(path, NULL, &g, err));
    OK(pass_simplify(g, err));
    graph_make_batch_symbolic(g, NULL);
    return g;
}

static bool fits(const struct graph *g, const struct units *units, const struct alternative *a)
{
    const struct value *from = g->values[units->units[a->first].from];
    const struct value *to = g->values[units->units[a->last].to];
    if (!a->graph)
        return shape_equal(&from->shape, &to->shape);
    const struct graph *own = a->graph;
    return shape_equal(&own->values[own->inputs[0]]->shape, &from->shape) &&
           shape_equal(&own->values[own->outputs[0]]->shape, &to->shape);
}

static void alternatives_fit_into_real_networks(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        _cleanup_(graph_freep) struct graph *g = load(models[i].file);
        _cleanup_(arena_freep) struct arena *arena = arena_new();
        _cleanup_(alternatives_release) struct alternatives all = {0};
        struct units units;
        bool some = false;
        OK(units_find(g, arena, &units, err));
        OK(alternatives_find(g, &units, NULL, 1, arena, &all, err));
        print_message("%s: %d units, %d alternatives\n", models[i].file, units.n, all.n);
        for (int k = 0; k < all.n; k++) {
            some |= strcmp(all.list[k].text, models[i].some) == 0;
            if (!fits(g, &units, &all.list[k]))
                fail_msg("%s: %s does not fit", models[i].file, all.list[k].text);
        }
        if (units.n != models[i].units || !some) {
            for (int k = 0; k < all.n; k++)
                print_message(" %d-%d=%s", all.list[k].first + 1, all.list[k].last + 1,
                              all.list[k].text);
            fail_msg("%s: %d units, %s", models[i].file, units.n, models[i].some);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alternatives_fit_into_real_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
