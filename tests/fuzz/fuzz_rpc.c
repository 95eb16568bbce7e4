/* Bytes from strangers: the envelope and every request of ingest. The first byte chooses the type.
 * What the scan passes must unpack; what unpacks must pack again. */
#include <stdlib.h>

#include "hone/v1/ingest.pb-c.h"
#include "hone/v1/tasks.pb-c.h"
#include "shared/base/mem.h"
#include "shared/rpc/rpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const ProtobufCMessageDescriptor *const types[] = {
    &hone__v1__rpc_call__descriptor,       &hone__v1__rpc_reply__descriptor,
    &hone__v1__submit_request__descriptor, &hone__v1__get_request__descriptor,
    &hone__v1__list_request__descriptor,   &hone__v1__watch_request__descriptor,
    &hone__v1__cancel_request__descriptor, &hone__v1__health_request__descriptor,
    &hone__v1__job_view__descriptor,       &hone__v1__build_task__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    const ProtobufCMessageDescriptor *type = types[data[0] % (sizeof(types) / sizeof(types[0]))];
    struct err err = {0};
    if (rpc_check_message(type, data + 1, bytes - 1, RPC_MAX_DEPTH, &err) < 0) {
        if (err.code == ERR_OK || !err.message[0])
            abort();
        return 0;
    }
    _cleanup_(rpc_message_freep) ProtobufCMessage *message =
        protobuf_c_message_unpack(type, NULL, bytes - 1, data + 1);
    if (!message)
        abort();
    _cleanup_(freep) void *packed = NULL;
    size_t packed_bytes = 0;
    if (rpc_pack(message, &packed, &packed_bytes, &err) < 0)
        abort();
    return 0;
}
