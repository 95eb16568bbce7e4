/* ingest: the RPC front for clients, and the worker of the queue "ingest". */
#include <stdlib.h>

#include "services/ingest/ingest.h"
#include "shared/base/log.h"

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

int main(void)
{
    static const struct work_kind kinds[] = {
        /* no memo: the payload names files, and what is in them may change */
        {.kind = "prepare", .handle = ingest_prepare, .version = 1},
    };
    const struct work_config config = {
        .service = "ingest", .kinds = kinds, .n_kinds = sizeof(kinds) / sizeof(kinds[0])};
    const struct front_options options = {
        .address = setting("HONE_INGEST", "tcp://127.0.0.1:7450"),
        .redis = setting("HONE_REDIS", "redis://127.0.0.1:6379"),
        .prefix = setting("HONE_PREFIX", NULL),
        .store = setting("HONE_STORE", "file:///var/lib/hone"),
        .token = setting("HONE_TOKEN", NULL),
        .target = setting("HONE_TARGET", "local"),
    };
    struct front *front = NULL;
    struct err err = {0};
    log_init("ingest");
    if (front_start(&options, &front, &err) < 0) {
        log_error("%s", err.message);
        return 1;
    }
    log_info("listening at %s", options.address);
    int code = work_main(&config);
    front_stop(front);
    return code;
}
