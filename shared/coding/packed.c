#include "shared/coding/packed.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/coding/models.h"

static const char magic[8] = {'H', 'O', 'N', 'E', 'P', 'A', 'C', 'K'};
#define VERSION 1
#define HASH_BYTES 32
#define HEAD_BYTES (sizeof(magic) + 1 + 8 + HASH_BYTES)
/* Of what a byte can hold: what a file claims is in proportion to its size. Files that hold more,
 * of nothing but zeros, are filled up with them. */
#define RATIO_MOST 256

/* Types of tensors in ONNX. */
enum { FLOAT = 1, INT8 = 3, INT32 = 6 };

struct packing {
    struct coder coder;
    struct wire wire;
    uint8_t *data; /* of the file; while reading, what there is so far */
    uint64_t bytes;
    struct text_model *text;
    struct weight_model *weights;
    struct number_model *numbers;
    struct chance zeros;
};

static void packing_release(struct packing *p)
{
    strbuf_release(&p->coder.to);
    text_model_freep(&p->text);
    weight_model_freep(&p->weights);
    number_model_freep(&p->numbers);
}

static int packing_init(struct packing *p, uint8_t *data, uint64_t bytes, struct err *err)
{
    p->data = data;
    p->bytes = bytes;
    wire_begin(&p->wire, bytes);
    int rc = text_model_new(bytes, &p->text, err);
    if (rc == 0)
        rc = weight_model_new(&p->weights, err);
    return rc == 0 ? number_model_new(&p->numbers, err) : rc;
}

/* ---- tensors ---- */

static uint64_t element_bytes(const struct wire *w)
{
    const int type = w->tensor.dtype;
    return type == INT8 ? 1 : type == FLOAT || type == INT32 ? 4 : 0;
}

/* Whether a tensor begins here that has a model of its own. */
static bool at_tensor(const struct packing *p)
{
    const struct wire *w = &p->wire;
    const uint64_t size = wire_at_data(w) ? element_bytes(w) : 0;
    return size > 0 && w->left > 0 && w->left % size == 0 && w->left <= p->bytes - w->at;
}

static bool all_zero(const uint8_t *data, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (data[i])
            return false;
    return true;
}

static int code_words(struct packing *p, uint8_t *at, int64_t n, struct err *err)
{
    _cleanup_(freep) uint32_t *words = mem_calloc((size_t)n, sizeof(*words));
    int rc = 0;
    if (!words)
        return err_oom(err, "coding");
    memcpy(words, at, (size_t)n * sizeof(*words));
    if (p->wire.tensor.dtype == FLOAT)
        rc = float_tensor(p->numbers, &p->coder, words, n, err);
    else
        integer_tensor(p->numbers, &p->coder, (int32_t *)words, n);
    memcpy(at, words, (size_t)n * sizeof(*words));
    return rc;
}

static int code_tensor(struct packing *p, struct err *err)
{
    const uint64_t bytes = p->wire.left;
    uint8_t *at = p->data + p->wire.at;
    const bool zeros = coder_adaptive(&p->coder, &p->zeros, !p->coder.reads && all_zero(at, bytes));
    int rc = 0;
    if (zeros)
        memset(at, 0, bytes);
    else if (p->wire.tensor.dtype == INT8)
        rc = weight_tensor(p->weights, &p->coder, &p->wire.tensor, (int8_t *)at, (int64_t)bytes,
                           err);
    else
        rc = code_words(p, at, (int64_t)(bytes / 4), err);
    wire_skip(&p->wire, bytes);
    return rc;
}

/* ---- the whole, in either direction ---- */

static int code_all(struct packing *p, struct err *err)
{
    while (p->wire.at < p->bytes) {
        if (at_tensor(p)) {
            int rc = code_tensor(p, err);
            if (rc < 0)
                return rc;
        } else {
            const int byte = text_byte(p->text, &p->coder, &p->wire, p->data[p->wire.at]);
            if (byte < 0)
                return err_oom(err, "coding");
            p->data[p->wire.at] = (uint8_t)byte;
            wire_next(&p->wire, (uint8_t)byte);
        }
        if (p->coder.reads && coder_is_over(&p->coder))
            return err_set(err, ERR_DATA_LOSS, "the packed file is cut off or damaged");
    }
    return 0;
}

static int hash_of(const void *data, size_t bytes, uint8_t ret[HASH_BYTES], struct err *err)
{
    char hex[HASH_HEX_BYTES];
    int rc = hash_bytes(data, bytes, hex, err);
    for (int i = 0; rc == 0 && i < HASH_BYTES; i++) {
        const char *digits = "0123456789abcdef";
        ret[i] = (uint8_t)((strchr(digits, hex[2 * i]) - digits) << 4 |
                           (strchr(digits, hex[2 * i + 1]) - digits));
    }
    return rc;
}

bool packed_is(const void *data, size_t bytes)
{
    return bytes >= sizeof(magic) && memcmp(data, magic, sizeof(magic)) == 0;
}

/* ---- writing ---- */

static void put_length(uint8_t *to, uint64_t x)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(x >> (8 * i));
}

int packed_write(const void *data, size_t bytes, void **ret_data, size_t *ret_bytes,
                 struct err *err)
{
    _cleanup_(packing_release) struct packing p = {0};
    uint8_t head[HEAD_BYTES];
    _cleanup_(freep) uint8_t *copy = mem_calloc(bytes + 1, 1); /* models write what they read */
    if (!copy)
        return err_oom(err, "packing");
    memcpy(copy, data, bytes);
    memcpy(head, magic, sizeof(magic));
    head[sizeof(magic)] = VERSION;
    put_length(head + sizeof(magic) + 1, bytes);
    int rc = hash_of(data, bytes, head + sizeof(magic) + 9, err);
    if (rc == 0)
        rc = packing_init(&p, copy, bytes, err);
    if (rc < 0)
        return rc;
    coder_begin_writing(&p.coder);
    rc = code_all(&p, err);
    if (rc < 0)
        return rc;
    coder_end(&p.coder);
    const size_t coded = HEAD_BYTES + p.coder.to.length, least = bytes / RATIO_MOST;
    const size_t whole = coded > least ? coded : least;
    _cleanup_(freep) uint8_t *out = p.coder.to.failed ? NULL : mem_calloc(whole, 1);
    if (!out)
        return err_oom(err, "packing");
    memcpy(out, head, HEAD_BYTES);
    memcpy(out + HEAD_BYTES, p.coder.to.data, p.coder.to.length);
    *ret_data = TAKE_PTR(out);
    *ret_bytes = whole;
    return 0;
}

/* ---- reading ---- */

static int read_head(const uint8_t *data, size_t bytes, size_t max_bytes, uint64_t *ret_length,
                     struct err *err)
{
    if (!packed_is(data, bytes))
        return err_set(err, ERR_INVALID_ARGUMENT, "this is no packed network");
    if (bytes < HEAD_BYTES)
        return err_set(err, ERR_DATA_LOSS, "the packed file is cut off");
    if (data[sizeof(magic)] != VERSION)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "the file was packed by version %d of the format; %d is known",
                       data[sizeof(magic)], VERSION);
    *ret_length = 0;
    for (int i = 7; i >= 0; i--)
        *ret_length = *ret_length << 8 | data[sizeof(magic) + 1 + i];
    if (*ret_length > max_bytes)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "the network would have %llu bytes unpacked; the limit is %zu",
                       (unsigned long long)*ret_length, max_bytes);
    if (*ret_length / RATIO_MOST > bytes)
        return err_set(err, ERR_DATA_LOSS,
                       "the packed file is damaged: %zu bytes claim to hold %llu", bytes,
                       (unsigned long long)*ret_length);
    return 0;
}

int packed_read(const void *data, size_t bytes, size_t max_bytes, void **ret_data,
                size_t *ret_bytes, struct err *err)
{
    _cleanup_(packing_release) struct packing p = {0};
    const uint8_t *from = data;
    uint64_t length = 0;
    uint8_t hash[HASH_BYTES];
    int rc = read_head(from, bytes, max_bytes, &length, err);
    if (rc < 0)
        return rc;
    _cleanup_(freep) uint8_t *out = mem_calloc(length + 1, 1);
    if (!out)
        return err_oom(err, "unpacking");
    rc = packing_init(&p, out, length, err);
    if (rc < 0)
        return rc;
    coder_begin_reading(&p.coder, from + HEAD_BYTES, bytes - HEAD_BYTES);
    rc = code_all(&p, err);
    if (rc == 0)
        rc = hash_of(out, length, hash, err);
    if (rc < 0)
        return rc;
    if (memcmp(hash, from + HEAD_BYTES - HASH_BYTES, HASH_BYTES) != 0)
        return err_set(err, ERR_DATA_LOSS, "the packed file is damaged: its hash does not fit");
    *ret_data = TAKE_PTR(out);
    *ret_bytes = length;
    return 0;
}
