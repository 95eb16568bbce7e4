#pragma once
/* Files of networks and data in the test's folder, for tests of whole programs. */
#include "tests/unit/data/make.h"

#include "tests/support/onnx_text.h"

/* Four answers about pictures of 8x8. */
#define SMALL_NET                                                                                  \
    "input x float N,3,8,8\n"                                                                      \
    "init w float 4,3,3,3 rand\n"                                                                  \
    "Conv conv1 x,w -> y pads=[1,1,1,1]\n"                                                         \
    "Relu relu1 y -> z\n"                                                                          \
    "GlobalAveragePool pool z -> p\n"                                                              \
    "Flatten flat p -> q\n"                                                                        \
    "output q float N,4\n"

struct model_bytes {
    uint8_t *data;
    size_t n;
};

static inline struct model_bytes pack_model(const Onnx__ModelProto *model)
{
    struct model_bytes b = {.n = onnx__model_proto__get_packed_size(model)};
    b.data = malloc(b.n + 1);
    assert_non_null(b.data);
    onnx__model_proto__pack(model, b.data);
    return b;
}

static inline void write_model(const char *path, const Onnx__ModelProto *model)
{
    struct model_bytes b = pack_model(model);
    write_bytes(path, b.data, b.n);
    free(b.data);
}

/* The model that the text describes, in the test's folder. */
static inline const char *model_file(const char *name, const char *text)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    const char *path = in_dir("%s", name);
    write_model(path, onnx_text_model(arena, text));
    return path;
}

/* Pictures for it, of two classes. */
static inline const char *data_folder(void)
{
    make_two_classes("data");
    return in_dir("data");
}
