#pragma once
/* A line on a terminal that the next one replaces: what goes on, while something takes long. */
#include <stdbool.h>
#include <stdint.h>

struct status_line {
    bool wanted; /* standard error is a terminal, and people read it */
    int64_t last_ns;
};
struct status_line status_line_begin(bool json);
/* At most twice a second: what comes in between is not shown. */
void status_line_show(struct status_line *line, const char *text);
void status_line_clear(const struct status_line *line);
