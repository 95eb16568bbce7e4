/* The test part in a report: when it was opened, and for whom. */
#include <math.h>

#include "services/exporter/report_parts.h"
#include "shared/base/clock.h"
#include "shared/work/goal.h"

static size_t count_networks(const struct report *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_openings; i++)
        n += r->openings[i]->n_networks;
    return n;
}

/* What makes several bounds one claim. */
static const char *correction_of(const struct report *r)
{
    if (goal_confidence(r->state->spec) <= 0.5)
        return "none"; /* point estimates are compared */
    return goal_turned(r->state->spec) ? "Bonferroni" : "Holm";
}

static void add_openings(const struct report *r, struct strbuf *out)
{
    for (size_t i = 0; i < r->n_openings; i++) {
        const Hone__V1__Opening *o = r->openings[i];
        char when[32];
        strbuf_printf(out, "%s%s for ", i ? "; " : "", clock_iso8601(o->time_ms, when));
        for (size_t k = 0; k < o->n_networks; k++)
            report_tagged(out, k ? ", " : "", o->networks[k], "");
    }
}

void report_test_part_html(const struct report *r, struct strbuf *out)
{
    const size_t openings = r->n_openings, networks = count_networks(r),
                 finals = r->state->n_finals;
    const double confidence = goal_confidence(r->state->spec);
    if (openings == 0)
        return;
    strbuf_printf(
        out,
        "<p class=soft>After the original had been scored on it, the test part was opened "
        "%zu time%s, for %zu network%s: ",
        openings, openings == 1 ? "" : "s", networks, networks == 1 ? "" : "s");
    add_openings(r, out);
    if (finals > 1 && confidence > 0.5)
        strbuf_printf(out,
                      ". The bounds on the drops of the %zu finals hold together (%s): with %g %% "
                      "confidence %s",
                      finals, correction_of(r), 100 * confidence,
                      goal_turned(r->state->spec)
                          ? "none is exceeded"
                          : "no network that is said to keep the limit on the drop breaks it");
    strbuf_add(out, ".</p>");
}

void report_test_part_json(const struct report *r, yyjson_mut_doc *d, yyjson_mut_val *root)
{
    yyjson_mut_val *part = yyjson_mut_obj_add_obj(d, root, "test_part");
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(d, part, "openings");
    for (size_t i = 0; i < r->n_openings; i++) {
        const Hone__V1__Opening *o = r->openings[i];
        char when[32];
        yyjson_mut_val *opening = yyjson_mut_arr_add_obj(d, list);
        yyjson_mut_obj_add_strcpy(d, opening, "time", clock_iso8601(o->time_ms, when));
        yyjson_mut_val *networks = yyjson_mut_obj_add_arr(d, opening, "networks");
        for (size_t k = 0; k < o->n_networks && k < o->n_artifacts; k++) {
            yyjson_mut_val *network = yyjson_mut_arr_add_obj(d, networks);
            yyjson_mut_obj_add_strcpy(d, network, "name", o->networks[k]);
            yyjson_mut_obj_add_strcpy(d, network, "sha256", o->artifacts[k]);
        }
    }
    yyjson_mut_obj_add_uint(d, part, "networks", count_networks(r));
    yyjson_mut_obj_add_uint(d, part, "finals", r->state->n_finals);
    yyjson_mut_obj_add_str(d, part, "correction", correction_of(r));
}
