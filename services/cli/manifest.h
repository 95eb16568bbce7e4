#pragma once
/* manifest.json as a job wrote it (docs/FORMATS.md). */
#include <stdint.h>
#include <yyjson.h>

#include "shared/base/err.h"

struct manifest {
    yyjson_doc *doc;
    yyjson_val *root;
    char *folder; /* that it lies in */
};
/* FAILED_PRECONDITION for one of another version, DATA_LOSS for what is none. */
int manifest_read(const char *path, struct manifest *ret, struct err *err);
void manifest_release(struct manifest *manifest); /* for _cleanup_ */

/* "" and NAN where there is no such thing. */
const char *manifest_text(yyjson_val *object, const char *key);
double manifest_number(yyjson_val *object, const char *key);

/* The entry of a list whose `key` has this text; NULL: there is none. */
yyjson_val *manifest_find(yyjson_val *list, const char *key, const char *text);
/* The last accuracy on a part by an engine, the last timing by an engine; NULL: there is none. */
yyjson_val *manifest_accuracy(yyjson_val *network, const char *part, const char *engine);
yyjson_val *manifest_timing(yyjson_val *network, const char *engine);
