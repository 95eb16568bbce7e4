#include "services/trainer/keep.h"

#include <stdio.h>

#include "shared/base/failpoint.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"

#define MAX_BYTES ((size_t)64 << 30)

int keep_init(struct keep *k, struct store *store, const char *kind, const void *what, size_t bytes,
              const char *file, struct err *err)
{
    char hex[HASH_HEX_BYTES];
    int rc = hash_bytes(what, bytes, hex, err);
    *k = (struct keep){.store = store, .file = file};
    snprintf(k->record, sizeof(k->record), "trainer/%.20s/%s", kind, hex);
    return rc;
}

int keep_fetch(const struct keep *k, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    struct err why = {0};
    int rc = store_record_get(k->store, k->record, MAX_BYTES, &data, &bytes, &why);
    if (rc == -ERR_NOT_FOUND)
        return 0;
    if (rc < 0)
        return err_set(err, why.code, "%s", why.message);
    if (bytes == 0) /* dropped */
        return 0;
    rc = fs_write_atomic(k->file, data, bytes, err);
    return rc < 0 ? rc : 1;
}

int keep_put(const struct keep *k, struct err *err)
{
    _cleanup_(fs_unmap) struct fs_map map = {0};
    int rc = fs_map(k->file, &map, err);
    if (rc == 0)
        rc = store_record_put(k->store, k->record, map.data, map.bytes, err);
    return rc == 0 ? failpoint("trainer.kept", err) : rc;
}

int keep_drop(const struct keep *k, struct err *err)
{
    return store_record_put(k->store, k->record, "", 0, err);
}
