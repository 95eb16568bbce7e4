#pragma once
/* SHA-256, as 64 lower-case hexadecimal digits: the name of every artifact. */
#include <stddef.h>

#include "shared/base/err.h"

#define HASH_HEX_BYTES 65 /* 64 digits and the zero */

struct hash;                 /* a running SHA-256 */
struct hash *hash_new(void); /* NULL when memory is out */
void hash_add(struct hash *hash, const void *data, size_t bytes);
void hash_hex(struct hash *hash, char hex[HASH_HEX_BYTES]); /* ends it: then only hash_freep */
void hash_freep(struct hash **hash);

int hash_bytes(const void *data, size_t bytes, char hex[HASH_HEX_BYTES], struct err *err);
int hash_file(const char *path, char hex[HASH_HEX_BYTES], struct err *err);
