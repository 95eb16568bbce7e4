#include "shared/nn/logits.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "floats are copied as they lie in memory");

static const char magic[8] = {'H', 'O', 'N', 'E', 'L', 'O', 'G', '1'};

struct header {
    char magic[8];
    uint64_t n, width;
    uint32_t dtype, zero;
};
_Static_assert(sizeof(struct header) == LOGITS_HEADER_BYTES, "the header is packed");

void logits_release(struct logits *logits)
{
    free(logits->data);
    *logits = (struct logits){0};
}

int logits_pack(const float *rows, int64_t n, int64_t width, void **ret_data, size_t *ret_bytes,
                struct err *err)
{
    size_t count, bytes;
    if (n < 0 || width < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "logits of %lld samples by %lld", (long long)n,
                       (long long)width);
    if (mem_mul((size_t)n, (size_t)width, &count) < 0 || mem_mul(count, 4, &bytes) < 0)
        return err_oom(err, "logits");
    char *data = mem_aligned(LOGITS_HEADER_BYTES + bytes);
    if (!data)
        return err_oom(err, "logits");
    struct header header = {.n = (uint64_t)n, .width = (uint64_t)width, .dtype = 1};
    memcpy(header.magic, magic, sizeof(magic));
    memcpy(data, &header, sizeof(header));
    if (bytes > 0)
        memcpy(data + sizeof(header), rows, bytes);
    *ret_data = data;
    *ret_bytes = sizeof(header) + bytes;
    return 0;
}

int logits_unpack(void *data, size_t bytes, struct logits *ret, struct err *err)
{
    struct header header;
    if (bytes < sizeof(header))
        return err_set(err, ERR_DATA_LOSS, "logits: %zu bytes are too few for a header", bytes);
    memcpy(&header, data, sizeof(header));
    if (memcmp(header.magic, magic, sizeof(magic)) != 0 || header.dtype != 1)
        return err_set(err, ERR_DATA_LOSS, "logits: the header is none");
    const size_t body = bytes - sizeof(header);
    size_t count, wanted;
    if (header.width == 0 || mem_mul(header.n, header.width, &count) < 0 ||
        mem_mul(count, 4, &wanted) < 0 || wanted != body)
        return err_set(err, ERR_DATA_LOSS, "logits: %zu bytes do not hold %llu samples by %llu",
                       bytes, (unsigned long long)header.n, (unsigned long long)header.width);
    *ret = (struct logits){.n = (int64_t)header.n,
                           .width = (int64_t)header.width,
                           .rows = (float *)((char *)data + sizeof(header)),
                           .data = data};
    return 0;
}

int logits_write(struct store *store, const float *rows, int64_t n, int64_t width,
                 char ret_name[HASH_HEX_BYTES], struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int rc = logits_pack(rows, n, width, &data, &bytes, err);
    return rc < 0 ? rc : store_put(store, data, bytes, ret_name, err);
}

int logits_read(struct store *store, const char *name, struct logits *ret, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int rc = store_get(store, name, LOGITS_MAX_BYTES, &data, &bytes, err);
    if (rc == 0 && (rc = logits_unpack(data, bytes, ret, err)) < 0)
        err_wrap(err, "artifact %.12s", name);
    if (rc == 0)
        data = NULL; /* the rows are in it */
    return rc;
}
