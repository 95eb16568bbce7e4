#include "services/cli/findings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"

const char *verdict_name(enum verdict verdict)
{
    static const char *const names[] = {"same", "close", "elsewhere", "DIFFERS", "not checked"};
    return names[verdict];
}

static void finding_release(struct finding *f)
{
    free(f->subject);
    free(f->number);
    free(f->reported);
    free(f->reproduced);
    free(f->note);
}

void findings_release(struct findings *f)
{
    for (int i = 0; i < f->n; i++)
        finding_release(&f->list[i]);
    free(f->list);
    *f = (struct findings){0};
}

/* A manifest may say anything: control characters must not reach a terminal. */
static char *copy(const char *text)
{
    char *new = strdup(text ? text : "");
    for (char *p = new; p && *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    return new;
}

int findings_add(struct findings *f, const struct finding *finding, struct err *err)
{
    struct finding *list = mem_realloc(f->list, (size_t)f->n + 1, sizeof(*list));
    if (!list)
        return err_oom(err, "findings");
    f->list = list;
    struct finding new = {.subject = copy(finding->subject),
                          .number = copy(finding->number),
                          .reported = copy(finding->reported),
                          .reproduced = copy(finding->reproduced),
                          .note = copy(finding->note),
                          .verdict = finding->verdict};
    if (!new.subject || !new.number || !new.reported || !new.reproduced || !new.note) {
        finding_release(&new);
        return err_oom(err, "findings");
    }
    list[f->n++] = new;
    f->count[new.verdict]++;
    return 0;
}

int findings_text(struct findings *f, const char *subject, const char *number, const char *reported,
                  const char *reproduced, struct err *err)
{
    const struct finding finding = {
        .subject = (char *)subject,
        .number = (char *)number,
        .reported = (char *)reported,
        .reproduced = (char *)reproduced,
        .verdict = strcmp(reported, reproduced) == 0 ? SAME : DIFFERS,
    };
    return findings_add(f, &finding, err);
}

int findings_number(struct findings *f, const char *subject, const char *number, double reported,
                    double reproduced, int digits, double tolerance, struct err *err)
{
    char was[40], is[40], note[64] = "";
    const double unit = pow(10, digits), off = fabs(reproduced - reported);
    if (!isfinite(reported))
        return 0;
    snprintf(was, sizeof(was), "%.*f", digits, reported);
    snprintf(is, sizeof(is), "%.*f", digits, reproduced);
    struct finding finding = {.subject = (char *)subject,
                              .number = (char *)number,
                              .reported = was,
                              .reproduced = is,
                              .note = note};
    finding.verdict = fabs(round(reproduced * unit) - round(reported * unit)) < 0.5 ? SAME
                      : off <= tolerance                                            ? CLOSE
                                                                                    : DIFFERS;
    if (finding.verdict == CLOSE)
        snprintf(note, sizeof(note), "within %.3g", tolerance);
    return findings_add(f, &finding, err);
}

/* ---- showing ---- */

/* Hashes by their first digits. */
static const char *shortened(const char *text, char room[24])
{
    if (strlen(text) != 64)
        return text;
    snprintf(room, 24, "%.12s...", text);
    return room;
}

void findings_print(const struct findings *f, FILE *out)
{
    const char *subject = "";
    fprintf(out, "%-34s %20s %20s  %s\n", "number", "reported", "reproduced", "verdict");
    for (int i = 0; i < f->n; i++) {
        const struct finding *x = &f->list[i];
        char was[24], is[24];
        if (strcmp(subject, x->subject) != 0)
            fprintf(out, "%s\n", x->subject);
        subject = x->subject;
        fprintf(out, "  %-32s %20s %20s  %s%s%s\n", x->number, shortened(x->reported, was),
                shortened(x->reproduced, is), verdict_name(x->verdict), *x->note ? ": " : "",
                x->note);
    }
}

yyjson_mut_val *findings_json(const struct findings *f, yyjson_mut_doc *doc)
{
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    for (int i = 0; i < f->n; i++) {
        const struct finding *x = &f->list[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
        yyjson_mut_obj_add_strcpy(doc, o, "subject", x->subject);
        yyjson_mut_obj_add_strcpy(doc, o, "number", x->number);
        yyjson_mut_obj_add_strcpy(doc, o, "reported", x->reported);
        yyjson_mut_obj_add_strcpy(doc, o, "reproduced", x->reproduced);
        yyjson_mut_obj_add_str(doc, o, "verdict",
                               x->verdict == DIFFERS ? "differs" : verdict_name(x->verdict));
        if (*x->note)
            yyjson_mut_obj_add_strcpy(doc, o, "note", x->note);
    }
    return list;
}
