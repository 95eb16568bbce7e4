#pragma once
/* What a finished job came to: result.json as a table for people. */
#include <stdbool.h>
#include <stdio.h>

#include "shared/base/err.h"

struct results; /* a parsed result.json */
int results_read(const char *path, struct results **ret, struct err *err);
struct results *results_free(struct results *results); /* NULL-safe, returns NULL */
void results_freep(struct results **results);

/* Whether a network within the limit is faster than the original; where costs have a limit, whether
 * there is a better one within it. */
bool results_has_gain(const struct results *results);
/* The verdict, then a row for the original, the original in plain int8, and each result. */
void results_print(const struct results *results, FILE *out);
/* malloc'ed: the document in one line, for --json. */
char *results_line(const struct results *results);
