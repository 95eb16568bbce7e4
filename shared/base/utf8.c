#include "shared/base/utf8.h"

#include <string.h>

/* Bytes of the character that begins here, 0 when it is not UTF-8. */
static size_t utf8_length(const unsigned char *p)
{
    size_t n = *p < 0x80                 ? 1
               : *p >= 0xc2 && *p < 0xe0 ? 2
               : (*p & 0xf0) == 0xe0     ? 3
               : *p >= 0xf0 && *p < 0xf5 ? 4
                                         : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
        (*p == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

void utf8_copy(char *to, size_t size, const char *from)
{
    size_t n = 0;
    while (*from) {
        size_t length = utf8_length((const unsigned char *)from);
        size_t take = length ? length : 1;
        if (n + take >= size)
            break;
        if (length)
            memmove(to + n, from, take);
        else
            to[n] = '?';
        n += take;
        from += take;
    }
    to[n] = 0;
}
