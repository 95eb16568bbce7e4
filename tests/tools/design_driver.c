/*
 * Networks from designs (shared/design/design.h), for training and measurements by hand.
 *
 *     design_driver write "TEXT" --input CxHxW --outputs N [--seed N] FILE.onnx
 *                                          the network in training form, for `hone train --reinit`
 *     design_driver list                   the types of pieces
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/str.h"
#include "shared/design/design.h"
#include "shared/graph/cuts.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"

static void must(int rc, const struct err *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "design_driver: %s\n", err->message);
    exit(1);
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: design_driver write TEXT --input CxHxW --outputs N [--seed N] FILE\n"
                    "       design_driver list\n");
    exit(2);
}

static int64_t number(const char *text)
{
    struct err err = {0};
    int64_t x = 0;
    must(str_parse_i64(text, 0, INT64_MAX, &x, &err), &err);
    return x;
}

static void list(void)
{
    for (const char *const *name = design_types(); *name; name++)
        printf("%-12s %s\n", *name, design_summary(*name));
}

/* "3x32x32" */
static void read_input(char *text, struct design_ends *ends)
{
    int64_t *const to[] = {&ends->channels, &ends->height, &ends->width};
    for (int i = 0; i < 3; i++) {
        const char *part = strsep(&text, "x");
        if (!part || (i == 2 && text))
            usage();
        *to[i] = number(part);
    }
}

/* What it will cost, in the form that runs. */
static void say(const struct design *design, const struct graph *g)
{
    struct err err = {0};
    _cleanup_(graph_freep) struct graph *runs = NULL;
    must(graph_clone(g, &runs, &err), &err);
    must(pass_simplify(runs, &err), &err);
    const struct cost cost = graph_cost(runs);
    _cleanup_(freep) char *text = design_text(design, 0, design->n);
    printf("%s: %.2f M MACs, %.3f M parameters\n", text, (double)cost.macs * 1e-6,
           (double)cost.parameters * 1e-6);
}

static void write_network(int argc, char **argv)
{
    struct err err = {0};
    struct design_ends ends = {.channels = 3, .height = 32, .width = 32, .outputs = 10, .seed = 1};
    struct design design;
    const char *file = NULL;
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--input") == 0 && i + 1 < argc)
            read_input(argv[++i], &ends);
        else if (strcmp(argv[i], "--outputs") == 0 && i + 1 < argc)
            ends.outputs = number(argv[++i]);
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            ends.seed = (uint64_t)number(argv[++i]);
        else if (!file && argv[i][0] != '-')
            file = argv[i];
        else
            usage();
    }
    if (!file)
        usage();
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(graph_freep) struct graph *g = NULL;
    must(design_parse(argv[2], arena, &design, &err), &err);
    must(design_build(&design, &ends, &g, &err), &err);
    must(onnx_write_file(g, file, &err), &err);
    say(&design, g);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "list") == 0)
        list();
    else if (argc > 3 && strcmp(argv[1], "write") == 0)
        write_network(argc, argv);
    else
        usage();
    return 0;
}
