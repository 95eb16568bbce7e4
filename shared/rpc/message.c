#include <stdlib.h>

#include "shared/rpc/rpc.h"

int rpc_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t bytes,
               ProtobufCMessage **ret, struct err *err)
{
    int r = rpc_check_message(type, data, bytes, RPC_MAX_DEPTH, err);
    if (r < 0)
        return r;
    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, bytes, data);
    if (!message)
        return err_set(err, ERR_INVALID_ARGUMENT, "message %s cannot be unpacked", type->name);
    *ret = message;
    return 0;
}

int rpc_pack(const ProtobufCMessage *message, void **ret_data, size_t *ret_bytes, struct err *err)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    uint8_t *data = malloc(bytes + 1);
    if (!data)
        return err_oom(err, message->descriptor->name);
    protobuf_c_message_pack(message, data);
    data[bytes] = 0;
    *ret_data = data;
    *ret_bytes = bytes;
    return 0;
}

void rpc_message_freep(void *message_pointer)
{
    ProtobufCMessage **message = message_pointer;
    if (*message)
        protobuf_c_message_free_unpacked(*message, NULL);
    *message = NULL;
}
