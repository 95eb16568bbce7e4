#include "shared/work/message_json.h"

#include <string.h>

#include "shared/work/message.h"

static const void *field_at(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *f)
{
    return (const char *)message + f->offset;
}

/* ---- writing ---- */

static bool add_text(yyjson_mut_doc *d, yyjson_mut_val *o, const char *name, const char *text)
{
    return !text || !*text || yyjson_mut_obj_add_strcpy(d, o, name, text);
}

static bool add_field(yyjson_mut_doc *d, yyjson_mut_val *o, const ProtobufCFieldDescriptor *f,
                      const void *at)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
        return !*(const int32_t *)at ||
               yyjson_mut_obj_add_sint(d, o, f->name, *(const int32_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
        return !*(const uint32_t *)at ||
               yyjson_mut_obj_add_uint(d, o, f->name, *(const uint32_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
        return !*(const uint64_t *)at ||
               yyjson_mut_obj_add_uint(d, o, f->name, *(const uint64_t *)at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return *(const double *)at == 0 ||
               yyjson_mut_obj_add_real(d, o, f->name, *(const double *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return !*(const protobuf_c_boolean *)at || yyjson_mut_obj_add_bool(d, o, f->name, true);
    case PROTOBUF_C_TYPE_STRING:
        return add_text(d, o, f->name, *(char *const *)at);
    default:
        return true;
    }
}

yyjson_mut_val *message_to_json(const ProtobufCMessage *message, yyjson_mut_doc *d)
{
    yyjson_mut_val *o = yyjson_mut_obj(d);
    bool ok = o != NULL;
    for (unsigned i = 0; ok && i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &message->descriptor->fields[i];
        if (f->label != PROTOBUF_C_LABEL_REPEATED)
            ok = add_field(d, o, f, field_at(message, f));
    }
    return ok ? o : NULL;
}

/* ---- reading ---- */

static int other_kind(const char *name, struct err *err)
{
    return err_set(err, ERR_INVALID_ARGUMENT, "'%.60s' is of another kind", name);
}

static int set_field(const ProtobufCFieldDescriptor *f, void *at, yyjson_val *v, struct err *err)
{
    const bool whole = yyjson_is_int(v), negative = whole && yyjson_is_sint(v);
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
        if (!whole || yyjson_get_sint(v) < INT32_MIN || yyjson_get_sint(v) > INT32_MAX)
            return other_kind(f->name, err);
        *(int32_t *)at = (int32_t)yyjson_get_sint(v);
        return 0;
    case PROTOBUF_C_TYPE_UINT32:
        if (!whole || negative || yyjson_get_uint(v) > UINT32_MAX)
            return other_kind(f->name, err);
        *(uint32_t *)at = (uint32_t)yyjson_get_uint(v);
        return 0;
    case PROTOBUF_C_TYPE_UINT64:
        if (!whole || negative)
            return other_kind(f->name, err);
        *(uint64_t *)at = yyjson_get_uint(v);
        return 0;
    case PROTOBUF_C_TYPE_DOUBLE:
        if (!yyjson_is_num(v))
            return other_kind(f->name, err);
        *(double *)at = yyjson_get_num(v);
        return 0;
    case PROTOBUF_C_TYPE_BOOL:
        if (!yyjson_is_bool(v))
            return other_kind(f->name, err);
        *(protobuf_c_boolean *)at = yyjson_get_bool(v);
        return 0;
    case PROTOBUF_C_TYPE_STRING:
        return yyjson_is_str(v) ? message_set(at, yyjson_get_str(v), err)
                                : other_kind(f->name, err);
    default:
        return other_kind(f->name, err);
    }
}

int message_from_json(yyjson_val *object, ProtobufCMessage *message, struct err *err)
{
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(object, i, n, key, value)
    {
        const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(
            message->descriptor, yyjson_get_str(key));
        if (!f || f->label == PROTOBUF_C_LABEL_REPEATED)
            return err_set(err, ERR_INVALID_ARGUMENT, "'%.60s' is not known", yyjson_get_str(key));
        int r = set_field(f, (char *)message + f->offset, value, err);
        if (r < 0)
            return r;
    }
    return 0;
}
