/*
 * What names mean: train/<class>/..., test/<class>/... (val/ too), or <class>/..., or nothing; all
 * of it perhaps in one more folder. Classes in byte order are labels 0, 1, ...
 */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/data/pack.h"

enum top { TOP_NONE, TOP_TRAIN, TOP_VALIDATION, TOP_TEST };

/* What the names have in common, found in a first pass. */
struct layout {
    size_t prefix; /* characters of the folder that holds everything */
    int64_t n[TOP_TEST + 1];
    bool parts;   /* train/ or test/ are there */
    bool classes; /* and folders below */
};

static bool first_is(const char *name, const char *folder)
{
    size_t n = strlen(folder);
    return strncmp(name, folder, n) == 0 && name[n] == '/';
}

static enum top top_of(const char *name)
{
    if (first_is(name, "train"))
        return TOP_TRAIN;
    if (first_is(name, "test"))
        return TOP_TEST;
    if (first_is(name, "val") || first_is(name, "valid") || first_is(name, "validation"))
        return TOP_VALIDATION;
    return TOP_NONE;
}

/* The name behind its part: "cat/1.png". */
static const char *rest_of(const struct layout *l, const struct sample *s)
{
    const char *name = s->name + l->prefix;
    return l->parts ? strchr(name, '/') + 1 : name;
}

/* ---- order ---- */

static int by_name(const void *a, const void *b)
{
    const struct sample *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->slot > y->slot) - (x->slot < y->slot);
}

/* Of a name that an archive holds more than once the last entry counts, as when it is unpacked. */
int layout_sort(struct pack *p, struct err *err)
{
    int64_t repeated = 0, kept = 0;
    qsort(p->samples, (size_t)p->n, sizeof(*p->samples), by_name);
    for (int64_t i = 0; i < p->n; i++) {
        struct sample *s = &p->samples[i];
        if (i + 1 < p->n && strcmp(s->name, s[1].name) == 0) {
            free(s->name);
            free(s->problem);
            repeated++;
        } else {
            p->samples[kept++] = *s;
        }
    }
    p->n = kept;
    if (repeated == 0)
        return 0;
    return pack_warn(p, err,
                     "%lld names are in the archive more than once; the last of each counts",
                     (long long)repeated);
}

/* ---- parts ---- */

/* A folder that holds everything and is no part itself says nothing: mydata/train/... */
static size_t common_prefix(const struct pack *p)
{
    size_t prefix = 0;
    while (true) {
        const char *first = p->samples[0].name + prefix;
        const char *slash = strchr(first, '/');
        if (!slash || top_of(first) != TOP_NONE)
            return prefix;
        size_t longer = prefix + (size_t)(slash + 1 - first);
        bool deeper = false;
        for (int64_t i = 0; i < p->n; i++) {
            if (strncmp(p->samples[i].name, p->samples[0].name, longer) != 0)
                return prefix;
            deeper |= strchr(p->samples[i].name + longer, '/') != NULL;
        }
        if (!deeper) /* this folder is the only class */
            return prefix;
        prefix = longer;
    }
}

static struct layout find_layout(const struct pack *p)
{
    struct layout l = {.prefix = common_prefix(p)};
    for (int64_t i = 0; i < p->n; i++)
        l.n[top_of(p->samples[i].name + l.prefix)]++;
    l.parts = l.n[TOP_TRAIN] || l.n[TOP_TEST];
    for (int64_t i = 0; i < p->n; i++) {
        const struct sample *s = &p->samples[i];
        if (!l.parts || top_of(s->name + l.prefix) != TOP_NONE)
            l.classes |= strchr(rest_of(&l, s), '/') != NULL;
    }
    return l;
}

static int check_parts(struct pack *p, const struct layout *l, struct err *err)
{
    if (!l->parts)
        return 0;
    if (l->n[TOP_TRAIN] == 0)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s: the train part is empty: no pictures in train/", p->path);
    if (l->n[TOP_TEST] == 0 && p->saw_test)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s: the test part is empty: no pictures in test/", p->path);
    if (l->n[TOP_VALIDATION] && l->n[TOP_TEST])
        return pack_warn(p, err, "the %lld pictures of the validation part are used for the search",
                         (long long)l->n[TOP_VALIDATION]);
    if (l->n[TOP_VALIDATION])
        return pack_warn(p, err,
                         "there is no test part: the %lld pictures of the validation part "
                         "are used as the test part",
                         (long long)l->n[TOP_VALIDATION]);
    return 0;
}

static int assign_parts(struct pack *p, const struct layout *l, struct err *err)
{
    int64_t outside = 0;
    const char *example = NULL;
    for (int64_t i = 0; i < p->n; i++) {
        struct sample *s = &p->samples[i];
        enum top top = l->parts ? top_of(s->name + l->prefix) : TOP_TRAIN;
        if (top == TOP_NONE) {
            example = example ? example : s->name;
            outside++;
        }
        if (top == TOP_NONE || s->problem)
            continue;
        if (top == TOP_VALIDATION)
            s->part = l->n[TOP_TEST] ? PART_SEARCH : PART_TEST;
        else
            s->part = top == TOP_TRAIN ? PART_TRAIN : PART_TEST;
    }
    if (outside == 0)
        return 0;
    return pack_warn(p, err, "%lld pictures outside train/ and test/ were ignored, for example %s",
                     (long long)outside, example);
}

/* ---- classes ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_class(struct dataset_report *report, size_t *capacity, const char *name,
                     size_t length, struct err *err)
{
    if ((size_t)report->n_classes == *capacity) {
        size_t more = *capacity ? *capacity * 2 : 64;
        char **grown = mem_realloc(report->classes, more, sizeof(*grown));
        if (!grown)
            return err_oom(err, "names of classes");
        report->classes = grown;
        *capacity = more;
    }
    char *copy = strndup(name, length);
    if (!copy)
        return err_oom(err, "names of classes");
    report->classes[report->n_classes++] = copy;
    return 0;
}

/* All names of classes, sorted, each once. */
static int collect_classes(struct pack *p, const struct layout *l, struct err *err)
{
    struct dataset_report *report = p->report;
    size_t capacity = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const struct sample *s = &p->samples[i];
        const char *rest = s->part >= 0 ? rest_of(l, s) : "";
        size_t length = strcspn(rest, "/");
        const char *last = report->n_classes ? report->classes[report->n_classes - 1] : NULL;
        if (!rest[length] || (last && strlen(last) == length && memcmp(last, rest, length) == 0))
            continue;
        if (report->n_classes >= 2 * PACKED_MAX_CLASSES)
            return err_set(err, ERR_INVALID_ARGUMENT, "%s: more than %d classes", p->path,
                           PACKED_MAX_CLASSES);
        int r = add_class(report, &capacity, rest, length, err);
        if (r < 0)
            return r;
    }
    int n = 0;
    if (report->n_classes)
        qsort(report->classes, (size_t)report->n_classes, sizeof(char *), by_text);
    for (int i = 0; i < report->n_classes; i++) {
        if (n && strcmp(report->classes[n - 1], report->classes[i]) == 0)
            free(report->classes[i]);
        else
            report->classes[n++] = report->classes[i];
    }
    report->n_classes = n;
    return 0;
}

static int assign_labels(struct pack *p, const struct layout *l, struct err *err)
{
    const struct dataset_report *report = p->report;
    int64_t without = 0;
    const char *example = NULL;
    for (int64_t i = 0; i < p->n; i++) {
        struct sample *s = &p->samples[i];
        if (s->part < 0)
            continue;
        const char *rest = rest_of(l, s);
        size_t length = strcspn(rest, "/");
        if (!rest[length]) {
            example = example ? example : s->name;
            without++;
            s->part = -1;
            continue;
        }
        _cleanup_(freep) char *name = strndup(rest, length);
        if (!name)
            return err_oom(err, "names of classes");
        const char **at =
            bsearch(&name, report->classes, (size_t)report->n_classes, sizeof(char *), by_text);
        s->label = (int32_t)(at - (const char **)report->classes);
    }
    if (without == 0)
        return 0;
    return pack_warn(p, err, "%lld pictures without a class folder were ignored, for example %s",
                     (long long)without, example);
}

/* Classes that only one of train and test knows. */
static int report_lonely(struct pack *p, enum part part, struct err *err)
{
    const struct dataset_report *report = p->report;
    _cleanup_(freep) int64_t *n = mem_calloc((size_t)report->n_classes + 1, sizeof(*n));
    if (!n)
        return err_oom(err, "counting classes");
    int64_t total = 0, empty = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (p->samples[i].part != (int)part)
            continue;
        n[p->samples[i].label]++;
        total++;
    }
    const char *example = NULL;
    for (int c = 0; c < report->n_classes; c++) {
        if (n[c])
            continue;
        example = example ? example : report->classes[c];
        empty++;
    }
    if (total == 0 || empty == 0)
        return 0;
    return pack_warn(p, err, "%lld of %d classes have no pictures in the %s part, for example %s",
                     (long long)empty, report->n_classes, part_name(part), example);
}

/* Pictures were there, but none can be used: no class folder, or all broken. */
static int check_rest(struct pack *p, const struct layout *l, struct err *err)
{
    int64_t n[PART_COUNT] = {0};
    for (int64_t i = 0; i < p->n; i++)
        if (p->samples[i].part >= 0)
            n[p->samples[i].part]++;
    bool had_test = l->parts && l->n[TOP_TEST] + l->n[TOP_VALIDATION] > 0;
    if (n[PART_TRAIN] == 0 || (had_test && n[PART_TEST] == 0))
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s: the %s part is empty: no readable pictures in class folders", p->path,
                       n[PART_TRAIN] == 0 ? "train" : "test");
    return 0;
}

int layout_assign(struct pack *p, struct err *err)
{
    struct layout l = find_layout(p);
    int r = check_parts(p, &l, err);
    if (r == 0)
        r = assign_parts(p, &l, err);
    p->report->labelled = l.classes && !p->settings.unlabelled;
    if (r < 0 || !p->report->labelled)
        return r < 0 ? r : check_rest(p, &l, err);
    r = collect_classes(p, &l, err);
    if (r == 0 && p->report->n_classes > PACKED_MAX_CLASSES)
        r = err_set(err, ERR_INVALID_ARGUMENT, "%s: more than %d classes", p->path,
                    PACKED_MAX_CLASSES);
    if (r == 0)
        r = assign_labels(p, &l, err);
    if (r == 0)
        r = check_rest(p, &l, err);
    if (r == 0)
        r = report_lonely(p, PART_TRAIN, err);
    if (r == 0)
        r = report_lonely(p, PART_TEST, err);
    return r;
}
