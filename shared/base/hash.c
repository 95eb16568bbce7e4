#include "shared/base/hash.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"

struct hash {
    EVP_MD_CTX *ctx;
};

struct hash *hash_new(void)
{
    struct hash *hash = calloc(1, sizeof(*hash));
    if (!hash)
        return NULL;
    hash->ctx = EVP_MD_CTX_new();
    if (!hash->ctx || EVP_DigestInit_ex(hash->ctx, EVP_sha256(), NULL) != 1)
        hash_freep(&hash);
    return hash;
}

void hash_freep(struct hash **hash)
{
    if (*hash)
        EVP_MD_CTX_free((*hash)->ctx);
    free(*hash);
    *hash = NULL;
}

void hash_add(struct hash *hash, const void *data, size_t bytes)
{
    EVP_DigestUpdate(hash->ctx, data, bytes);
}

void hash_hex(struct hash *hash, char hex[HASH_HEX_BYTES])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_DigestFinal_ex(hash->ctx, digest, &n);
    for (unsigned i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

int hash_bytes(const void *data, size_t bytes, char hex[HASH_HEX_BYTES], struct err *err)
{
    _cleanup_(hash_freep) struct hash *hash = hash_new();
    if (!hash)
        return err_oom(err, "a hash");
    hash_add(hash, data, bytes);
    hash_hex(hash, hex);
    return 0;
}

int hash_file(const char *path, char hex[HASH_HEX_BYTES], struct err *err)
{
    _cleanup_(fs_unmap) struct fs_map map = {0};
    int r = fs_map(path, &map, err);
    return r < 0 ? r : hash_bytes(map.data, map.bytes, hex, err);
}
