#pragma once
/* Time. Durations use the monotonic clock, records the wall clock. Code that waits or leases takes
 * a `struct clock` so that tests can move time themselves; NULL means the system's. */
#include <stdint.h>

struct clock {
    int64_t (*now_ns)(void *ctx);
    void *ctx;
};

int64_t clock_now_ns(const struct clock *clock); /* monotonic */
int64_t clock_wall_ms(void);                     /* milliseconds since 1970 */
void clock_sleep_ms(int64_t ms);                 /* returns early on a signal */
/* "2026-03-01T12:34:56Z" */
const char *clock_iso8601(int64_t wall_ms, char text[32]);
