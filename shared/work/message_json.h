#pragma once
/* Messages of plain fields (numbers, texts, truths) as JSON objects, for files that people read and
 * programs read again. Fields that hold nothing (0, "", false) are left out. */
#include <protobuf-c/protobuf-c.h>
#include <yyjson.h>

#include "shared/base/err.h"

/* A new object of the document; NULL: memory is out. Fields that are messages, lists or bytes are
 * left out. */
yyjson_mut_val *message_to_json(const ProtobufCMessage *message, yyjson_mut_doc *d);

/* Sets the fields that the object names; the message owns its texts. INVALID_ARGUMENT for a name
 * that the message does not have, or a value of another kind. */
int message_from_json(yyjson_val *object, ProtobufCMessage *message, struct err *err);
