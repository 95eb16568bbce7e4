/* .npy arrays from strangers: what is accepted lies within the file, every element of it. */
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/data/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct npy a;
    struct err err = {0};
    if (npy_parse(data, bytes, &a, &err) < 0) {
        if (err.code == ERR_OK || !err.message[0])
            abort();
        return 0;
    }
    if (a.count == 0)
        return 0;
    int64_t rows = a.rank ? a.shape[0] : 1;
    size_t width = (size_t)(a.count / rows);
    _cleanup_(freep) float *row = mem_calloc(width, sizeof(*row));
    _cleanup_(freep) uint8_t *byte_row = mem_calloc(width, 1);
    if (!row || !byte_row)
        abort();
    for (int64_t i = 0; i < rows; i++) {
        npy_row_f32(&a, i, row);
        if (a.type == NPY_U8)
            npy_row_u8(&a, i, byte_row);
    }
    for (int64_t i = 0; i < a.count && npy_type_is_integer(a.type); i++)
        (void)npy_get_i64(&a, i);
    return 0;
}
