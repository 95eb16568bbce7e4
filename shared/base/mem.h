#pragma once
/*
 * Memory: cleanup attributes, overflow-checked allocation, aligned buffers and arenas.
 * An arena serves everything that lives as long as a request, a graph or a plan: many small
 * allocations, freed together.
 */
#include <stddef.h>

/* `_cleanup_(thing_freep) struct thing *t = NULL;` frees t when the scope ends. */
#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Moves a pointer out of a variable, leaving NULL, so that its cleanup does nothing. */
#define TAKE_PTR(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) _t = (p);                                                                    \
        (p) = NULL;                                                                                \
        _t;                                                                                        \
    })

/* free() for `_cleanup_(freep) char *s`. */
void freep(void *pp);

/* Zeroed array of n elements of `size` bytes; NULL when out of memory or when n * size overflows.
 */
void *mem_calloc(size_t n, size_t size);

/* realloc to n elements of `size` bytes; NULL (and p untouched) on overflow or lack of memory. */
void *mem_realloc(void *p, size_t n, size_t size);

/* Buffer aligned to 64 bytes, not zeroed; free with free(). `bytes` may be 0. */
void *mem_aligned(size_t bytes);

/* *ret_out = a * b; returns 0, or -1 on overflow. */
int mem_mul(size_t a, size_t b, size_t *ret_out);

/* Arena. All functions return NULL only when memory is out. Not thread-safe. */
struct arena;
struct arena *arena_new(void);
struct arena *arena_free(struct arena *arena); /* NULL-safe, returns NULL */
void arena_freep(struct arena **arena);
void *arena_alloc(struct arena *arena, size_t n, size_t size); /* zeroed, aligned to 64 bytes */
char *arena_strdup(struct arena *arena, const char *s);
char *arena_printf(struct arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void *arena_memdup(struct arena *arena, const void *data, size_t bytes);
size_t arena_bytes(const struct arena *arena); /* taken from the system so far */
