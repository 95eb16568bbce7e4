/* Packed networks from strangers: refused with a sentence, or the file that was packed; and any
 * bytes at all can be packed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/coding/packed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void read_it(const void *data, size_t bytes)
{
    _cleanup_(freep) void *out = NULL;
    size_t n = 0;
    struct err err = {0};
    if (packed_read(data, bytes, 1 << 20, &out, &n, &err) < 0 &&
        (err.code == ERR_OK || !err.message[0]))
        abort();
}

static void write_it(const void *data, size_t bytes)
{
    _cleanup_(freep) void *packed = NULL;
    _cleanup_(freep) void *back = NULL;
    size_t n = 0, m = 0;
    if (packed_write(data, bytes, &packed, &n, NULL) < 0 ||
        packed_read(packed, n, bytes, &back, &m, NULL) < 0 || m != bytes ||
        (bytes && memcmp(back, data, bytes) != 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    read_it(data, bytes);
    write_it(data, bytes);
    return 0;
}
