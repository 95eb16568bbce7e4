#pragma once
/* What a check finds: numbers as they were reported beside the same numbers found again. */
#include <stdio.h>
#include <yyjson.h>

#include "shared/base/err.h"

enum verdict {
    SAME,      /* equal */
    CLOSE,     /* within a stated tolerance */
    ELSEWHERE, /* not the same, which on another machine says nothing */
    DIFFERS,
    UNCHECKED, /* nothing to compare with, or not asked for */
    VERDICTS,
};
const char *verdict_name(enum verdict verdict); /* "same", "close", "elsewhere", ... */

struct finding {
    char *subject; /* "model.onnx", "candidate-1 on the test part" */
    char *number;  /* "sha256", "top1" */
    char *reported, *reproduced, *note;
    enum verdict verdict;
};
struct findings {
    struct finding *list;
    int n;
    int count[VERDICTS];
};
void findings_release(struct findings *findings); /* for _cleanup_ */

/* Texts are copied; NULL: "". */
int findings_add(struct findings *findings, const struct finding *finding, struct err *err);
/* Texts that must be equal. */
int findings_text(struct findings *findings, const char *subject, const char *number,
                  const char *reported, const char *reproduced, struct err *err);
/* A number with `digits` behind the point: SAME where it is equal so, CLOSE where it differs by at
 * most `tolerance`. NAN as reported: nothing is added. */
int findings_number(struct findings *findings, const char *subject, const char *number,
                    double reported, double reproduced, int digits, double tolerance,
                    struct err *err);

/* A table for people. */
void findings_print(const struct findings *findings, FILE *out);
/* [{subject, number, reported, reproduced, verdict, note}] */
yyjson_mut_val *findings_json(const struct findings *findings, yyjson_mut_doc *doc);
