#include "services/cli/status_line.h"

#include <stdio.h>
#include <unistd.h>

#include "shared/base/clock.h"

#define INTERVAL_NS 500000000

struct status_line status_line_begin(bool json)
{
    return (struct status_line){.wanted = !json && isatty(STDERR_FILENO)};
}

void status_line_show(struct status_line *line, const char *text)
{
    if (!line->wanted || clock_now_ns(NULL) - line->last_ns < INTERVAL_NS)
        return;
    line->last_ns = clock_now_ns(NULL);
    fprintf(stderr, "\r\x1b[K  %s", text);
}

void status_line_clear(const struct status_line *line)
{
    if (line->wanted)
        fprintf(stderr, "\r\x1b[K");
}
