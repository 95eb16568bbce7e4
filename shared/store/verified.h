#pragma once
/* Which artifact files this process has compared with their names already. An entry holds as long
 * as the file is the same one: a changed size, time or inode voids it. Thread-safe. */
#include <stdbool.h>
#include <sys/stat.h>

struct verified;
struct verified *verified_new(void); /* NULL when memory is out */
struct verified *verified_free(struct verified *set);
bool verified_has(struct verified *set, const char *name, const struct stat *st);
/* Forgetting to remember (no memory) costs another check later, nothing else. */
void verified_add(struct verified *set, const char *name, const struct stat *st);
