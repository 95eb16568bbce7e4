#include "shared/nn/ort.h"

#include <fcntl.h>
#include <onnxruntime_c_api.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"

#define MAX_RANK 8

struct ort {
    const OrtApi *api;
    OrtEnv *env;
    OrtSession *session;
    OrtMemoryInfo *memory;
    char *input, *output; /* names */
    int rank;
    int64_t dims[MAX_RANK]; /* of the input; dims[0] < 0: any batch */
};

static const OrtApi *ort_api(void)
{
    return OrtGetApiBase()->GetApi(ORT_API_VERSION);
}

const char *ort_version(void)
{
    return OrtGetApiBase()->GetVersionString();
}

/* Takes the status; 0 when it is good. */
static int ort_check(const OrtApi *api, OrtStatus *status, struct err *err)
{
    if (!status)
        return 0;
    OrtErrorCode code = api->GetErrorCode(status);
    enum err_code as =
        code == ORT_INVALID_ARGUMENT || code == ORT_INVALID_GRAPH || code == ORT_INVALID_PROTOBUF
            ? ERR_INVALID_ARGUMENT
        : code == ORT_NOT_IMPLEMENTED ? ERR_UNIMPLEMENTED
                                      : ERR_INTERNAL;
    int rc = err_set(err, as, "ONNX Runtime: %s", api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    return rc;
}

struct ort *ort_close(struct ort *ort)
{
    if (!ort)
        return NULL;
    if (ort->memory)
        ort->api->ReleaseMemoryInfo(ort->memory);
    if (ort->session)
        ort->api->ReleaseSession(ort->session);
    if (ort->env)
        ort->api->ReleaseEnv(ort->env);
    free(ort->input);
    free(ort->output);
    free(ort);
    return NULL;
}

void ort_closep(struct ort **ort)
{
    *ort = ort_close(*ort);
}

/* y = Identity(x), x: float[1] */
static const unsigned char smallest_model[] = {
    0x08, 0x08, 0x3a, 0x37, 0x0a, 0x10, 0x0a, 0x01, 'x',  0x12, 0x01, 'y',  0x22, 0x08, 'I',  'd',
    'e',  'n',  't',  'i',  't',  'y',  0x12, 0x01, 'g',  0x5a, 0x0f, 0x0a, 0x01, 'x',  0x12, 0x0a,
    0x0a, 0x08, 0x08, 0x01, 0x12, 0x04, 0x0a, 0x02, 0x08, 0x01, 0x62, 0x0f, 0x0a, 0x01, 'y',  0x12,
    0x0a, 0x0a, 0x08, 0x08, 0x01, 0x12, 0x04, 0x0a, 0x02, 0x08, 0x01, 0x42, 0x02, 0x10, 0x0d};

static void load_schemas(void)
{
    const OrtApi *api = ort_api();
    OrtEnv *env = NULL;
    OrtSessionOptions *options = NULL;
    OrtSession *session = NULL;
    if (ort_check(api, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "hone", &env), NULL) == 0 &&
        ort_check(api, api->CreateSessionOptions(&options), NULL) == 0 &&
        ort_check(api,
                  api->CreateSessionFromArray(env, smallest_model, sizeof(smallest_model), options,
                                              &session),
                  NULL) == 0)
        api->ReleaseSession(session);
    if (options)
        api->ReleaseSessionOptions(options);
    if (env)
        api->ReleaseEnv(env);
}

/* Debian's ONNX Runtime shares libonnx with the system, registers all schemas a second time when
 * the first session opens, and complains about each on stderr. Nobody who uses this library needs
 * to read that: a session of our own comes first, with stderr closed. */
static void load_schemas_quietly(void)
{
    if (!ort_api())
        return;
    _cleanup_(fs_closep) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    _cleanup_(fs_closep) int kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    bool silent = null >= 0 && kept >= 0 && dup2(null, STDERR_FILENO) >= 0;
    load_schemas();
    if (silent)
        dup2(kept, STDERR_FILENO);
}

static int open_session(struct ort *ort, const void *model, size_t bytes, int threads,
                        struct err *err)
{
    const OrtApi *api = ort->api;
    OrtSessionOptions *options = NULL;
    int rc = ort_check(api, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "hone", &ort->env), err);
    if (rc == 0)
        rc = ort_check(api, api->CreateSessionOptions(&options), err);
    if (rc == 0)
        rc = ort_check(api, api->SetIntraOpNumThreads(options, threads > 0 ? threads : 1), err);
    if (rc == 0)
        rc = ort_check(api, api->SetInterOpNumThreads(options, 1), err);
    if (rc == 0)
        rc = ort_check(api, api->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL), err);
    if (rc == 0)
        rc = ort_check(
            api, api->CreateSessionFromArray(ort->env, model, bytes, options, &ort->session), err);
    if (rc == 0)
        rc = ort_check(
            api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &ort->memory), err);
    if (options)
        api->ReleaseSessionOptions(options);
    return rc;
}

static int read_name(struct ort *ort, bool input, char **ret, struct err *err)
{
    const OrtApi *api = ort->api;
    OrtAllocator *allocator = NULL;
    char *name = NULL;
    int rc = ort_check(api, api->GetAllocatorWithDefaultOptions(&allocator), err);
    if (rc == 0)
        rc = ort_check(api,
                       input ? api->SessionGetInputName(ort->session, 0, allocator, &name)
                             : api->SessionGetOutputName(ort->session, 0, allocator, &name),
                       err);
    if (rc < 0)
        return rc;
    *ret = strdup(name);
    rc = ort_check(api, api->AllocatorFree(allocator, name), err);
    return rc < 0 ? rc : *ret ? 0 : err_oom(err, "a name");
}

static int read_input_shape(struct ort *ort, struct err *err)
{
    const OrtApi *api = ort->api;
    OrtTypeInfo *info = NULL;
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    int rc = ort_check(api, api->SessionGetInputTypeInfo(ort->session, 0, &info), err);
    if (rc == 0)
        rc = ort_check(api, api->CastTypeInfoToTensorInfo(info, &tensor), err);
    if (rc == 0 && tensor)
        rc = ort_check(api, api->GetTensorElementType(tensor, &type), err);
    if (rc == 0 && tensor)
        rc = ort_check(api, api->GetDimensionsCount(tensor, &rank), err);
    if (rc == 0 && (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || rank < 1 || rank > MAX_RANK))
        rc = err_set(err, ERR_UNIMPLEMENTED, "input '%s' is no float tensor of rank 1 to %d",
                     ort->input, MAX_RANK);
    if (rc == 0)
        rc = ort_check(api, api->GetDimensions(tensor, ort->dims, rank), err);
    ort->rank = (int)rank;
    if (info)
        api->ReleaseTypeInfo(info);
    return rc;
}

int ort_open(const void *model, size_t bytes, int threads, struct ort **ret, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load_schemas_quietly);
    _cleanup_(ort_closep) struct ort *ort = calloc(1, sizeof(*ort));
    if (!ort)
        return err_oom(err, "an ONNX Runtime session");
    ort->api = ort_api();
    if (!ort->api)
        return err_set(err, ERR_UNAVAILABLE, "ONNX Runtime %s lacks version %d of its C API",
                       ort_version(), ORT_API_VERSION);
    int rc = open_session(ort, model, bytes, threads, err);
    if (rc < 0)
        return rc;
    size_t inputs = 0, outputs = 0;
    rc = ort_check(ort->api, ort->api->SessionGetInputCount(ort->session, &inputs), err);
    if (rc == 0)
        rc = ort_check(ort->api, ort->api->SessionGetOutputCount(ort->session, &outputs), err);
    if (rc == 0 && (inputs != 1 || outputs < 1))
        rc = err_set(err, ERR_UNIMPLEMENTED,
                     "a network with one input is needed; this one has %zu inputs, %zu outputs",
                     inputs, outputs);
    if (rc == 0)
        rc = read_name(ort, true, &ort->input, err);
    if (rc == 0)
        rc = read_name(ort, false, &ort->output, err);
    if (rc == 0)
        rc = read_input_shape(ort, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(ort);
    return 0;
}

int64_t ort_fixed_batch(const struct ort *ort)
{
    return ort->dims[0] > 0 ? ort->dims[0] : 0;
}

/* The first output as floats: `count` of them. */
static int copy_output(struct ort *ort, OrtValue *value, int64_t count, float *out, struct err *err)
{
    const OrtApi *api = ort->api;
    OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t elements = 0;
    void *data = NULL;
    int rc = ort_check(api, api->GetTensorTypeAndShape(value, &info), err);
    if (rc == 0)
        rc = ort_check(api, api->GetTensorElementType(info, &type), err);
    if (rc == 0)
        rc = ort_check(api, api->GetTensorShapeElementCount(info, &elements), err);
    if (info)
        api->ReleaseTensorTypeAndShapeInfo(info);
    if (rc == 0 && type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
        rc = err_set(err, ERR_UNIMPLEMENTED, "output '%s' is no float tensor", ort->output);
    if (rc == 0 && elements != (size_t)count)
        rc = err_set(err, ERR_INVALID_ARGUMENT, "output '%s' has %zu elements, not %lld",
                     ort->output, elements, (long long)count);
    if (rc == 0)
        rc = ort_check(api, api->GetTensorMutableData(value, &data), err);
    if (rc < 0)
        return rc;
    memcpy(out, data, (size_t)count * sizeof(*out));
    return 0;
}

static int run_once(struct ort *ort, int64_t n, size_t sample, const float *in, float *out,
                    int64_t output_width, struct err *err)
{
    const OrtApi *api = ort->api;
    int64_t dims[MAX_RANK];
    memcpy(dims, ort->dims, sizeof(dims));
    dims[0] = n;
    OrtValue *input = NULL, *output = NULL;
    /* ONNX Runtime takes a mutable pointer, and does not write to inputs. */
    int rc = ort_check(api,
                       api->CreateTensorWithDataAsOrtValue(
                           ort->memory, (void *)(uintptr_t)in, (size_t)n * sample * sizeof(*in),
                           dims, (size_t)ort->rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input),
                       err);
    if (rc == 0)
        rc = ort_check(api,
                       api->Run(ort->session, NULL, (const char *const *)&ort->input,
                                (const OrtValue *const *)&input, 1,
                                (const char *const *)&ort->output, 1, &output),
                       err);
    if (rc == 0)
        rc = copy_output(ort, output, n * output_width, out, err);
    if (output)
        api->ReleaseValue(output);
    if (input)
        api->ReleaseValue(input);
    return rc;
}

int ort_run(struct ort *ort, int64_t n, const float *in, float *out, int64_t output_width,
            struct err *err)
{
    size_t sample = 1;
    for (int d = 1; d < ort->rank; d++) {
        if (ort->dims[d] <= 0)
            return err_set(err, ERR_UNIMPLEMENTED, "dimension %d of input '%s' is not fixed", d,
                           ort->input);
        sample *= (size_t)ort->dims[d];
    }
    int64_t chunk = ort_fixed_batch(ort) ? ort_fixed_batch(ort) : n;
    if (chunk <= 0 || n % chunk != 0)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the network takes batches of %lld; %lld samples were given",
                       (long long)chunk, (long long)n);
    for (int64_t i = 0; i < n; i += chunk) {
        int rc = run_once(ort, chunk, sample, in + (size_t)i * sample, out + i * output_width,
                          output_width, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
