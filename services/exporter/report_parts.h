#pragma once
/* Parts of report.html and result.json: each of them says one thing in both. */
#include <yyjson.h>

#include "services/exporter/report.h"

/* ---- report_html.c ---- */
/* Text as HTML. */
void report_escaped(struct strbuf *out, const char *text);
/* The same between two pieces of HTML. */
void report_tagged(struct strbuf *out, const char *open, const char *text, const char *close);
/* A time as people read it. */
void report_us(struct strbuf *out, double us);
void report_us_cell(struct strbuf *out, double us); /* of a table; 0: a dash */
/* Whether there is accuracy to speak of, or agreement only. */
bool report_labelled(const struct report *report);

/* ---- report_json.c ---- */
/* Rounded to `digits` behind the point; null for what is no number. */
void report_number(yyjson_mut_doc *d, yyjson_mut_val *object, const char *key, double value,
                   int digits);

/* ---- report_curves.c: the learning curves of what was trained; nothing where nothing was ---- */
void report_curves_html(const struct report *report, struct strbuf *out);
void report_curves_json(const struct report *report, yyjson_mut_doc *d, yyjson_mut_val *root);

/* ---- report_front.c: accuracy against latency, of all networks ---- */
void report_front_html(const struct report *report, struct strbuf *out);
void report_front_json(const struct report *report, yyjson_mut_doc *d, yyjson_mut_val *root);

/* ---- report_students.c: the students that were tried; nothing where none were ---- */
void report_students_html(const struct report *report, struct strbuf *out);
/* For result.json and manifest.json. whole: with all that it takes to train each again. */
void report_students_json(const struct report *report, bool whole, yyjson_mut_doc *d,
                          yyjson_mut_val *root);

/* ---- report_test_part.c: when the test part was opened, and for whom ---- */
void report_test_part_html(const struct report *report, struct strbuf *out);
void report_test_part_json(const struct report *report, yyjson_mut_doc *d, yyjson_mut_val *root);

/* ---- report_blocks.c: alternatives of blocks and stages; nothing where none were tried ---- */
void report_blocks_html(const struct report *report, struct strbuf *out);
void report_blocks_json(const struct report *report, yyjson_mut_doc *d, yyjson_mut_val *root);

/* ---- report_layers.c: the layers of the chosen network, beside the original's ---- */
void report_layers_html(const struct report *report, struct strbuf *out);
/* Of a network of another architecture: `stages` and `layers`. */
void report_layers_json(const struct report *report, yyjson_mut_doc *d, yyjson_mut_val *root);
