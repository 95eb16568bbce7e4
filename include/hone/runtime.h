#pragma once
/*
 * Hone's runtime: runs a network from an ONNX file on this CPU. fp32 networks, and networks as
 * Hone writes them: int8 in QDQ form, bf16 by hints in the metadata.
 *
 *     #include <hone/runtime.h>
 *
 *     struct hone_error error;
 *     struct hone_net *net = NULL;
 *     if (hone_open("model.onnx", NULL, &net, &error) < 0)
 *         return complain(error.message);
 *     float pixels[3 * 32 * 32], logits[10];
 *     const void *in[] = {pixels};
 *     void *out[] = {logits};
 *     if (hone_run(net, 1, in, out, &error) < 0)
 *         return complain(error.message);
 *     hone_close(net);
 *
 *     cc program.c -lhone
 *
 * Pictures as they come from a decoder, bytes in rows of pixels, need no conversion by the caller:
 *
 *     struct hone_options options = {.size = sizeof(options), .pictures = "nhwc"};
 *     if (hone_open("model.onnx", &options, &net, &error) < 0)
 *         return complain(error.message);
 *     uint8_t rgb[32 * 32 * 3];
 *     const void *in[] = {rgb};
 *
 * Scale, mean and deviation are those that Hone's files carry (or options.preprocess). In an int8
 * network they become a table that gives the first layer's numbers at once, equal to those of the
 * way through floats bit for bit.
 *
 * Functions return 0, or a negative code and then describe the failure in *error (which may be
 * NULL). Nothing is printed, no signal handled, the process never ended. A hone_net may be used by
 * several threads; their runs take turns. For streams side by side open it once for each.
 * This header stays compatible within a major version.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HONE_API __attribute__((visibility("default")))
#define HONE_MAX_RANK 8

struct hone_error {
    int code; /* as gRPC's: 3 INVALID_ARGUMENT, 5 NOT_FOUND, 8 RESOURCE_EXHAUSTED, ... */
    char message[1024];
};

struct hone_net;

struct hone_options {
    size_t size;           /* sizeof(struct hone_options): later versions add fields at the end */
    int threads;           /* of one run; 0: 1 */
    int64_t batch;         /* made ready for batches of this size; 0: 1. Any other size runs, too */
    const char *precision; /* NULL or "auto": as the file says; "fp32"; "bf16": all that can */
    /* NULL: the first input as the file has it. "nhwc" or "nchw": pictures of bytes in that order,
     * of 1 to 4 channels, as hone_input then says: type "uint8", dim [-1, H, W, C] or
     * [-1, C, H, W]. INVALID_ARGUMENT (3) for other inputs. */
    const char *pictures;
    /* What becomes of a byte x of a picture: "scale=1/255 mean=0.485,0.456,0.406
     * std=0.229,0.224,0.225 order=rgb" is (x * scale - mean) / std for each channel; order=bgr
     * where the network wants the channels turned round. NULL: the file's metadata
     * "hone.preprocess"; FAILED_PRECONDITION (9) where it has none. */
    const char *preprocess;
};

/* Reads an ONNX file, or what `hone pack` made of one; checks and compiles; measures which kernels
 * are fastest here, which takes a second or so. options NULL: the defaults. The bytes are not
 * needed after the call. */
HONE_API int hone_open(const char *path, const struct hone_options *options, struct hone_net **ret,
                       struct hone_error *error);
HONE_API int hone_open_bytes(const void *onnx, size_t bytes, const struct hone_options *options,
                             struct hone_net **ret, struct hone_error *error);
HONE_API void hone_close(struct hone_net *net); /* NULL-safe */

struct hone_port {
    const char *name; /* the net's */
    const char *type; /* "float32", "uint8", "int64", ... */
    int rank;
    int64_t dim[HONE_MAX_RANK]; /* -1: the batch */
    size_t bytes;               /* of one sample; of all, where the network has a fixed batch */
};
HONE_API int hone_n_inputs(const struct hone_net *net);
HONE_API int hone_n_outputs(const struct hone_net *net);
/* OUT_OF_RANGE (11) for an index beyond the last. */
HONE_API int hone_input(const struct hone_net *net, int index, struct hone_port *ret);
HONE_API int hone_output(const struct hone_net *net, int index, struct hone_port *ret);
/* The batch that the network insists on; 0: any. */
HONE_API int64_t hone_fixed_batch(const struct hone_net *net);

/* Runs n samples: inputs[i] and outputs[i] are dense and row-major, n samples each, in the order of
 * the ports. A size that was not met before is put together from plans for 1, 4, 16, 64 and the
 * batch of the options; those that are missing are compiled then (a second or so, once). */
HONE_API int hone_run(struct hone_net *net, int64_t n, const void *const *inputs,
                      void *const *outputs, struct hone_error *error);

HONE_API const char *hone_version(void); /* "0.1.0" */
HONE_API const char *hone_isa(void);     /* what the kernels use here: "avx512_core_vnni" */

#ifdef __cplusplus
}
#endif
