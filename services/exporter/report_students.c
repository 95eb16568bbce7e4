/* Students: networks of another architecture that learned, and why each was kept or given up. */
#include <math.h>

#include "services/exporter/report_parts.h"
#include "shared/work/message_json.h"

static double at(const double *values, size_t n, size_t i)
{
    return i < n ? values[i] : NAN;
}

/* "4 epochs: 71.2 %", one for each rung. */
static void add_rungs(const Hone__V1__Student *s, struct strbuf *out)
{
    strbuf_add(out, "<td class=left>");
    for (size_t i = 0; i < s->n_epochs || i < s->n_accuracies; i++) {
        const double epochs = at(s->epochs, s->n_epochs, i);
        const double accuracy = at(s->accuracies, s->n_accuracies, i);
        strbuf_add(out, i ? "; " : "");
        if (isfinite(epochs))
            strbuf_printf(out, "%.3g: ", epochs);
        if (isfinite(accuracy))
            strbuf_printf(out, "%.2f %%", 100 * accuracy);
        else
            strbuf_add(out, "&ndash;");
    }
    strbuf_add(out, "</td>");
}

static void add_student(const Hone__V1__Student *s, struct strbuf *out)
{
    char took[32];
    report_tagged(out, "<tr><td>", s->name, "</td>");
    report_tagged(out, "<td class='left design'>", s->design, "</td><td>");
    if (s->predicted_us > 0)
        report_us(out, s->predicted_us);
    else
        strbuf_add(out, "&ndash;");
    strbuf_printf(out, "</td><td>%.2f</td><td>%.1f</td>", (double)s->macs * 1e-6,
                  (double)s->parameters * 1e-3);
    add_rungs(s, out);
    if (s->predicted > 0)
        strbuf_printf(out, "<td>%.2f %%</td>", 100 * s->predicted);
    else
        strbuf_add(out, "<td>&ndash;</td>");
    strbuf_printf(out, "<td>%s</td>", s->seconds > 0 ? str_seconds(s->seconds, took) : "&ndash;");
    report_tagged(out, "<td class='left why'>", *s->out ? s->out : "kept", "</td></tr>");
}

void report_students_html(const struct report *r, struct strbuf *out)
{
    const job_state *s = r->state;
    double seconds = 0;
    char took[32];
    if (s->n_students == 0)
        return;
    for (size_t i = 0; i < s->n_students; i++)
        seconds += s->students[i]->seconds;
    strbuf_printf(out,
                  "<section><h2>Students</h2><p>%zu networks of another architecture that learned "
                  "what the original knows, in %s of training.</p><table><tr><th>Student<th "
                  "class=left>design<th>predicted, int8<th>M MACs<th>K parameters<th "
                  "class=left>epochs: %s on the search part<th>predicted at the end<th>trained<th "
                  "class=left>outcome</tr>",
                  s->n_students, str_seconds(seconds, took),
                  report_labelled(r) ? "accuracy" : "agreement");
    for (size_t i = 0; i < s->n_students; i++)
        add_student(s->students[i], out);
    strbuf_add(out, "</table></section>");
}

/* ---- result.json, manifest.json ---- */

/* How a run was asked for, and what came out. */
static void add_run(yyjson_mut_doc *d, yyjson_mut_val *o, const Hone__V1__TrainResult *run)
{
    const Hone__V1__TrainTask *asked = run->asked;
    yyjson_mut_obj_add_strcpy(d, o, "sha256", run->network ? run->network->artifact : "");
    if (*run->trunk)
        yyjson_mut_obj_add_strcpy(d, o, "trunk_sha256", run->trunk);
    report_number(d, o, "seconds", run->seconds, 1);
    yyjson_mut_obj_add_uint(d, o, "threads", run->threads);
    yyjson_mut_obj_add_strcpy(d, o, "precision", run->precision);
    if (!asked) /* by another version */
        return;
    yyjson_mut_obj_add_strcpy(d, o, "from_sha256", asked->network);
    yyjson_mut_obj_add_strcpy(d, o, "teacher_sha256", asked->teacher);
    yyjson_mut_obj_add_strcpy(d, o, "teacher_cache_sha256", run->teacher_cache);
    yyjson_mut_obj_add_strcpy(d, o, "judge_sha256", asked->judge);
    if (asked->preprocess)
        yyjson_mut_obj_add_strcpy(d, o, "preprocess", asked->preprocess->text);
    if (asked->settings)
        yyjson_mut_obj_add_val(d, o, "settings", message_to_json(&asked->settings->base, d));
}

/* runs: as many as there are names of them; NULL: not to be told. */
static void add_rungs_json(yyjson_mut_doc *d, yyjson_mut_val *o, const Hone__V1__Student *s,
                           Hone__V1__TrainResult *const *runs)
{
    yyjson_mut_val *rungs = yyjson_mut_obj_add_arr(d, o, "rungs");
    for (size_t i = 0; i < s->n_epochs || i < s->n_accuracies; i++) {
        yyjson_mut_val *rung = yyjson_mut_arr_add_obj(d, rungs);
        report_number(d, rung, "epochs", at(s->epochs, s->n_epochs, i), 3);
        report_number(d, rung, "accuracy", at(s->accuracies, s->n_accuracies, i), 6);
        if (runs && i < s->n_trained)
            add_run(d, rung, runs[i]);
    }
}

static size_t count_runs(const job_state *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_students; i++)
        n += s->students[i]->n_trained;
    return n;
}

void report_students_json(const struct report *r, bool whole, yyjson_mut_doc *d,
                          yyjson_mut_val *root)
{
    const job_state *s = r->state;
    const bool known = whole && r->n_runs > 0 && r->n_runs == count_runs(s);
    size_t run = 0;
    yyjson_mut_val *list = s->n_students ? yyjson_mut_obj_add_arr(d, root, "students") : NULL;
    for (size_t i = 0; i < s->n_students; i++) {
        const Hone__V1__Student *student = s->students[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, list);
        yyjson_mut_obj_add_strcpy(d, o, "name", student->name);
        yyjson_mut_obj_add_strcpy(d, o, "design", student->design);
        report_number(d, o, "predicted_us", student->predicted_us, 2);
        yyjson_mut_obj_add_uint(d, o, "macs", student->macs);
        yyjson_mut_obj_add_uint(d, o, "parameters", student->parameters);
        add_rungs_json(d, o, student, known ? r->runs + run : NULL);
        run += student->n_trained;
        report_number(d, o, "predicted_accuracy", student->predicted > 0 ? student->predicted : NAN,
                      6);
        report_number(d, o, "seconds", student->seconds, 1);
        yyjson_mut_obj_add_strcpy(d, o, "given_up", student->out);
        yyjson_mut_obj_add_strcpy(d, o, "sha256", student->network);
        if (whole)
            yyjson_mut_obj_add_strcpy(d, o, "built_sha256", student->built);
        yyjson_mut_val *trained = yyjson_mut_obj_add_arr(d, o, "trained_sha256");
        for (size_t k = 0; k < student->n_trained; k++)
            yyjson_mut_arr_add_strcpy(d, trained, student->trained[k]);
    }
}
