/* PNG pictures from strangers, decoded and resized as packing does. */
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/data/picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct dataset_limits limits = dataset_default_limits;
    limits.max_picture_pixels = 1 << 18; /* so that an input takes milliseconds */
    _cleanup_(picture_release) struct picture pic = {0};
    struct err err = {0};
    if (picture_decode_png(&pic, data, bytes, &limits, &err) < 0) {
        if (err.code == ERR_OK || !err.message[0])
            abort();
        return 0;
    }
    uint8_t out[3 * 8 * 9];
    bool resized;
    _cleanup_(resizer_freep) struct resizer *r = resizer_new(3, 8, 9);
    if (!r || (resizer_run(r, &pic, out, &resized, &err) < 0 && !err.message[0]))
        abort();
    return 0;
}
