/* Alternatives of blocks and stages: what could stand for what, how fast it is, how much it hurts.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "services/exporter/report_parts.h"

typedef Hone__V1__Library__Arc job_arc;

/* "5-8", from 1. */
static const char *units_text(const job_arc *arc, char text[24])
{
    if (arc->first == arc->last)
        snprintf(text, 24, "%u", arc->first + 1);
    else
        snprintf(text, 24, "%u-%u", arc->first + 1, arc->last + 1);
    return text;
}

/* The number in the precision in which it is smallest; NAN: there is none. */
static double least_of(const double *values, size_t n, bool positive)
{
    double least = NAN;
    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i]) && (!positive || values[i] > 0))
            least = fmin(least, values[i]);
    return least;
}

static void add_number(struct strbuf *out, double value)
{
    if (isfinite(value))
        strbuf_printf(out, "<td>%.4f</td>", value);
    else
        strbuf_add(out, "<td>&ndash;</td>");
}

/* Whether a student has it. */
static bool is_used(const struct report *r, const job_arc *arc)
{
    char units[24], text[160];
    snprintf(text, sizeof(text), "%s=%.100s", units_text(arc, units), arc->text);
    const size_t n = strlen(text);
    for (size_t i = 0; i < r->state->n_students; i++)
        for (const char *p = r->state->students[i]->design; *p; p += *p == ' ') {
            if (strncmp(p, text, n) == 0 && (p[n] == ' ' || p[n] == 0))
                return true;
            p += strcspn(p, " ");
        }
    return false;
}

static void add_arc(const struct report *r, const job_arc *arc, struct strbuf *out)
{
    char units[24];
    strbuf_printf(out, "<tr><td>%s</td>", units_text(arc, units));
    report_tagged(out, "<td class='left design'>", arc->text, "</td>");
    strbuf_printf(out, "<td>%.2f</td>", (double)arc->macs * 1e-6);
    report_us_cell(out, *arc->network ? fmax(least_of(arc->us, arc->n_us, true), 0) : 0);
    add_number(out, *arc->network ? arc->loss : (double)NAN);
    add_number(out, least_of(arc->kl, arc->n_kl, false));
    report_tagged(out, "<td class='left why'>",
                  *arc->out         ? arc->out
                  : is_used(r, arc) ? "in a student"
                                    : "",
                  "</td></tr>");
}

void report_blocks_html(const struct report *r, struct strbuf *out)
{
    char took[32];
    size_t learned = 0;
    if (!r->library || r->library->n_arcs == 0)
        return;
    for (size_t i = 0; i < r->library->n_arcs; i++)
        learned += r->library->arcs[i]->n_kl > 0;
    strbuf_printf(out,
                  "<section><h2>Alternatives of blocks</h2><p>%zu of %zu alternatives for parts of "
                  "the original were scored, after learning to do the same in %s. Paths through "
                  "them are among the students.</p><details><summary>All of them</summary><table>"
                  "<tr><th>Units<th class=left>instead<th>M MACs<th>fastest<th>loss<th>KL in "
                  "place<th class=left>outcome</tr>",
                  learned, r->library->n_arcs, str_seconds(r->library->seconds, took));
    for (size_t i = 0; i < r->library->n_arcs; i++)
        add_arc(r, r->library->arcs[i], out);
    strbuf_add(out, "</table></details></section>");
}

/* ---- result.json ---- */

static void add_by_precision(const struct report *r, yyjson_mut_doc *d, yyjson_mut_val *o,
                             const char *key, const double *values, size_t n, int digits)
{
    yyjson_mut_val *by = n > 0 ? yyjson_mut_obj_add_obj(d, o, key) : NULL;
    for (size_t i = 0; i < n && i < r->library->n_precisions; i++)
        report_number(d, by, r->library->precisions[i], values[i], digits);
}

void report_blocks_json(const struct report *r, yyjson_mut_doc *d, yyjson_mut_val *root)
{
    if (!r->library || r->library->n_arcs == 0)
        return;
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(d, root, "alternatives");
    for (size_t i = 0; i < r->library->n_arcs; i++) {
        const job_arc *arc = r->library->arcs[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, list);
        char units[24];
        yyjson_mut_obj_add_strcpy(d, o, "units", units_text(arc, units));
        yyjson_mut_obj_add_strcpy(d, o, "instead", arc->text);
        yyjson_mut_obj_add_uint(d, o, "macs", arc->macs);
        yyjson_mut_obj_add_uint(d, o, "parameters", arc->parameters);
        add_by_precision(r, d, o, "us", arc->us, arc->n_us, 2);
        add_by_precision(r, d, o, "kl", arc->kl, arc->n_kl, 6);
        if (*arc->network)
            report_number(d, o, "loss", arc->loss, 6);
        yyjson_mut_obj_add_strcpy(d, o, "left_out", arc->out);
        yyjson_mut_obj_add_strcpy(d, o, "sha256", arc->network);
    }
}
