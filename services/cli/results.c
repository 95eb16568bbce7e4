#include "services/cli/results.h"

#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define MAX_RESULT_BYTES ((size_t)64 * 1024 * 1024)

struct results {
    yyjson_doc *doc;
    yyjson_val *root;
};

int results_read(const char *path, struct results **ret, struct err *err)
{
    _cleanup_(freep) void *text = NULL;
    size_t bytes = 0;
    int r = fs_read(path, MAX_RESULT_BYTES, &text, &bytes, err);
    if (r < 0)
        return r;
    yyjson_doc *doc = yyjson_read(text, bytes, 0);
    if (!yyjson_is_obj(yyjson_doc_get_root(doc))) {
        yyjson_doc_free(doc);
        return err_set(err, ERR_DATA_LOSS, "%s: not a JSON object", path);
    }
    struct results *results = calloc(1, sizeof(*results));
    if (!results) {
        yyjson_doc_free(doc);
        return err_oom(err, path);
    }
    *results = (struct results){doc, yyjson_doc_get_root(doc)};
    *ret = results;
    return 0;
}

struct results *results_free(struct results *results)
{
    if (results)
        yyjson_doc_free(results->doc);
    free(results);
    return NULL;
}

void results_freep(struct results **results)
{
    *results = results_free(*results);
}

static const char *text_of(yyjson_val *object, const char *key)
{
    const char *text = yyjson_get_str(yyjson_obj_get(object, key));
    return text ? text : "";
}

bool results_has_gain(const struct results *results)
{
    size_t i, n;
    yyjson_val *one, *limit = yyjson_obj_get(results->root, "limit");
    if (yyjson_obj_get(limit, "max_us") || yyjson_obj_get(limit, "max_bytes") ||
        strcmp(text_of(limit, "objective"), "size") == 0)
        return strcmp(text_of(results->root, "chosen"), "baseline") != 0;
    yyjson_arr_foreach(yyjson_obj_get(results->root, "results"), i, n, one)
    {
        yyjson_val *within = yyjson_obj_get(one, "within_limit");
        if (yyjson_get_num(yyjson_obj_get(one, "speedup_fp32")) > 1 &&
            (!within || yyjson_get_bool(within)))
            return true;
    }
    return false;
}

/* A number in `width` columns, or a dash where there is none. */
static void cell(FILE *out, yyjson_val *object, const char *key, double factor, int width,
                 int digits, const char *unit)
{
    yyjson_val *value = yyjson_obj_get(object, key);
    char text[64] = "-";
    if (yyjson_is_num(value))
        snprintf(text, sizeof(text), "%.*f%s", digits, factor * yyjson_get_num(value), unit);
    fprintf(out, " %*s", width, text);
}

/* The speed-up that the document states, else the ratio of the medians. */
static void speedup_cell(FILE *out, yyjson_val *network, const char *key, yyjson_val *against)
{
    yyjson_val *mine = yyjson_obj_get(network, "p50_us"), *its = yyjson_obj_get(against, "p50_us");
    char text[32] = "-";
    if (yyjson_is_num(yyjson_obj_get(network, key)))
        snprintf(text, sizeof(text), "%.2fx", yyjson_get_num(yyjson_obj_get(network, key)));
    else if (yyjson_is_num(its) && yyjson_get_num(mine) > 0)
        snprintf(text, sizeof(text), "%.2fx", yyjson_get_num(its) / yyjson_get_num(mine));
    fprintf(out, " %8s", text);
}

static bool wants_throughput(yyjson_val *root)
{
    return strcmp(text_of(yyjson_obj_get(root, "limit"), "objective"), "throughput") == 0;
}

/* Whether a bound decides, and not the point estimate. */
static bool proves(yyjson_val *root)
{
    return yyjson_get_num(yyjson_obj_get(yyjson_obj_get(root, "limit"), "confidence")) > 0.5;
}

static void row(FILE *out, yyjson_val *root, const char *name, yyjson_val *network, bool chosen)
{
    char size[32] = "-";
    yyjson_val *packed = yyjson_obj_get(network, "packed_bytes");
    yyjson_val *bytes = packed ? packed : yyjson_obj_get(network, "bytes");
    if (yyjson_is_num(bytes))
        str_bytes(yyjson_get_num(bytes), size);
    fprintf(out, "%c %-18.18s", chosen ? '*' : ' ', name);
    cell(out, network, "p50_us", 1, 10, 1, "");
    if (wants_throughput(root))
        cell(out, network, "images_per_s", 1, 10, 0, "");
    else
        cell(out, network, "p90_us", 1, 10, 1, "");
    speedup_cell(out, network, "speedup_fp32", yyjson_obj_get(root, "baseline"));
    speedup_cell(out, network, "speedup_int8", yyjson_obj_get(root, "plain_int8"));
    cell(out, network, "value", 100, 9, 2, " %");
    cell(out, network, "drop_points", 1, 7, 2, "");
    const bool judged = proves(root) && yyjson_obj_get(network, "drop_bound_points");
    cell(out, network, judged ? "drop_bound_points" : "drop_upper95_points", 1, 7, 2, "");
    fprintf(out, " %10s\n", size);
}

/* What a refined job had spent. */
static void print_saved(FILE *out, yyjson_val *saved)
{
    char all[32], training[32], prepared[32];
    const double students = yyjson_get_num(yyjson_obj_get(saved, "students"));
    const bool anew = yyjson_get_num(yyjson_obj_get(saved, "prepared_s")) == 0; /* measured */
    if (anew && students == 0)
        return;
    str_seconds(yyjson_get_num(yyjson_obj_get(saved, "seconds")), all);
    str_seconds(yyjson_get_num(yyjson_obj_get(saved, "training_s")), training);
    str_seconds(yyjson_get_num(yyjson_obj_get(saved, "prepared_s")), prepared);
    fprintf(out, "\n  saved: %s that job %s had spent: ", all, text_of(saved, "job"));
    if (students > 0)
        fprintf(out, "%s of training %.0f student%s%s", training, students,
                students == 1 ? "" : "s", anew ? "" : ", ");
    fprintf(out, anew ? "\n" : "%s from its submission to its first result\n", prepared);
}

void results_print(const struct results *results, FILE *out)
{
    yyjson_val *root = results->root, *base = yyjson_obj_get(root, "baseline"), *one;
    const char *chosen = text_of(root, "chosen"), *metric = text_of(base, "metric");
    yyjson_val *limit = yyjson_obj_get(root, "limit"), *all = yyjson_obj_get(root, "results");
    const double percent =
        proves(root) ? 100 * yyjson_get_num(yyjson_obj_get(limit, "confidence")) : 95;
    size_t i, n;
    if (*text_of(root, "verdict"))
        fprintf(out, "%s\n\n", text_of(root, "verdict"));
    fprintf(out, "  %-18s %10s %10s %8s %8s %9s %7s %7s %10s\n", "network", "p50 us",
            wants_throughput(root) ? "images/s" : "p90 us", "vs fp32", "vs int8",
            *metric ? metric : "accuracy", "drop", "at most", "size");
    row(out, root, "original fp32", base, strcmp(chosen, "baseline") == 0);
    if (yyjson_is_obj(yyjson_obj_get(root, "plain_int8")))
        row(out, root, "original int8", yyjson_obj_get(root, "plain_int8"), false);
    yyjson_arr_foreach(yyjson_obj_get(root, "results"), i, n, one)
        row(out, root, text_of(one, "name"), one, strcmp(text_of(one, "name"), chosen) == 0);
    fprintf(out,
            "\n  drop: points below the original; at most: upper end of the paired one-sided "
            "%g %% interval%s;\n  %.0f thread(s), batch %.0f, on %s (%s)\n",
            percent, yyjson_arr_size(all) > 1 && proves(root) ? ", judged together" : "",
            yyjson_get_num(yyjson_obj_get(base, "threads")),
            yyjson_get_num(yyjson_obj_get(base, "batch")),
            text_of(yyjson_obj_get(root, "hardware"), "cpu"),
            text_of(yyjson_obj_get(root, "hardware"), "isa"));
    if (yyjson_is_obj(yyjson_obj_get(root, "saved")))
        print_saved(out, yyjson_obj_get(root, "saved"));
}

char *results_line(const struct results *results)
{
    return yyjson_write(results->doc, 0, NULL);
}
