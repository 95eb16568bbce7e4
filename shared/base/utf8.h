#pragma once
/* Text from outside on its way into JSON. */
#include <stddef.h>

/* Copies with truncation between characters; always terminated. A byte that is not part of UTF-8
 * becomes '?'. `to` and `from` may be the same. */
void utf8_copy(char *to, size_t size, const char *from);
