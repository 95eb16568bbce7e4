#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "services/cli/cli.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/cuts.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"

/* ---- text ---- */

static void print_values(const char *what, const struct graph *g, const int *values, int n)
{
    for (int i = 0; i < n; i++) {
        const struct value *v = g->values[values[i]];
        char shape[128];
        printf("%-11s %s  %s %s\n", i ? "" : what, v->name, dtype_name(v->dtype),
               shape_text(&v->shape, shape));
    }
}

static void count_ops(const struct graph *g, int counts[OP_COUNT])
{
    for (int i = 0; i < g->n_nodes; i++)
        counts[g->nodes[i]->op]++;
}

static void print_ops(const struct graph *g)
{
    int counts[OP_COUNT] = {0};
    const char *separator = "";
    count_ops(g, counts);
    printf("%-11s ", "operators");
    for (int op = 0; op < OP_COUNT; op++)
        if (counts[op]) {
            printf("%s%s %d", separator, op_name((enum op)op), counts[op]);
            separator = ", ";
        }
    printf("\n");
}

/* "Conv, Relu, Add": the operators of a block in order, repeats counted. */
static void block_text(const struct graph *g, const struct block *block, struct strbuf *out)
{
    for (int i = 0, run = 1; i < block->n_nodes; i += run) {
        enum op op = g->nodes[block->nodes[i]]->op;
        for (run = 1; i + run < block->n_nodes && g->nodes[block->nodes[i + run]]->op == op;)
            run++;
        strbuf_add(out, i ? ", " : "");
        strbuf_add(out, op_name(op));
        if (run > 1)
            strbuf_printf(out, " x%d", run);
    }
}

static int64_t block_macs(const struct graph *g, const struct block *block)
{
    int64_t macs = 0;
    for (int i = 0; i < block->n_nodes; i++)
        macs += graph_node_cost(g, g->nodes[block->nodes[i]]).macs;
    return macs;
}

static const char *value_name(const struct graph *g, int value)
{
    return value < 0 ? "(several)" : g->values[value]->name;
}

static void print_text(const struct graph *g, const struct cuts *cuts)
{
    struct cost cost = graph_cost(g);
    char size[32];
    printf("%-11s %s, opset %d, %d nodes\n", "network", g->name ? g->name : "", g->opset,
           g->n_nodes);
    print_values("inputs", g, g->inputs, g->n_inputs);
    print_values("outputs", g, g->outputs, g->n_outputs);
    printf("%-11s %.2f M for one sample\n", "MACs", (double)cost.macs / 1e6);
    printf("%-11s %.3f M (%s)\n", "parameters", (double)cost.parameters / 1e6,
           str_bytes((double)cost.bytes, size));
    print_ops(g);
    printf("%-11s %d, blocks between them: %d\n", "cut points", cuts->n_points, cuts->n_blocks);
    for (int i = 0; i < cuts->n_blocks; i++) {
        const struct block *b = &cuts->blocks[i];
        _cleanup_(strbuf_release) struct strbuf ops = {0};
        block_text(g, b, &ops);
        printf("  %3d  %8.2f M MACs  to %-24s %s\n", i, (double)block_macs(g, b) / 1e6,
               value_name(g, b->to), ops.data ? ops.data : "");
    }
}

/* ---- JSON ---- */

static void add_values(yyjson_mut_doc *d, yyjson_mut_val *root, const char *key,
                       const struct graph *g, const int *values, int n)
{
    yyjson_mut_val *array = yyjson_mut_obj_add_arr(d, root, key);
    for (int i = 0; i < n; i++) {
        const struct value *v = g->values[values[i]];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, array);
        yyjson_mut_obj_add_str(d, o, "name", v->name);
        yyjson_mut_obj_add_str(d, o, "type", dtype_name(v->dtype));
        yyjson_mut_val *shape = yyjson_mut_obj_add_arr(d, o, "shape");
        for (int k = 0; k < v->shape.rank; k++) {
            if (v->shape.dim[k] == DIM_BATCH)
                yyjson_mut_arr_add_str(d, shape, "batch");
            else
                yyjson_mut_arr_add_sint(d, shape, v->shape.dim[k]);
        }
    }
}

static void add_blocks(yyjson_mut_doc *d, yyjson_mut_val *root, const struct graph *g,
                       const struct cuts *cuts)
{
    yyjson_mut_val *points = yyjson_mut_obj_add_arr(d, root, "cut_points");
    for (int i = 0; i < cuts->n_points; i++)
        yyjson_mut_arr_add_str(d, points, value_name(g, cuts->points[i]));
    yyjson_mut_val *blocks = yyjson_mut_obj_add_arr(d, root, "blocks");
    for (int i = 0; i < cuts->n_blocks; i++) {
        const struct block *b = &cuts->blocks[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, blocks);
        yyjson_mut_obj_add_str(d, o, "from", value_name(g, b->from));
        yyjson_mut_obj_add_str(d, o, "to", value_name(g, b->to));
        yyjson_mut_obj_add_sint(d, o, "macs", block_macs(g, b));
        yyjson_mut_val *nodes = yyjson_mut_obj_add_arr(d, o, "nodes");
        for (int k = 0; k < b->n_nodes; k++)
            yyjson_mut_arr_add_str(d, nodes, g->nodes[b->nodes[k]]->name);
    }
}

static int print_json(const struct graph *g, const struct cuts *cuts)
{
    int counts[OP_COUNT] = {0};
    struct cost cost = graph_cost(g);
    yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(d);
    yyjson_mut_doc_set_root(d, root);
    yyjson_mut_obj_add_str(d, root, "name", g->name ? g->name : "");
    yyjson_mut_obj_add_int(d, root, "opset", g->opset);
    add_values(d, root, "inputs", g, g->inputs, g->n_inputs);
    add_values(d, root, "outputs", g, g->outputs, g->n_outputs);
    yyjson_mut_val *ops = yyjson_mut_obj_add_obj(d, root, "operators");
    count_ops(g, counts);
    for (int op = 0; op < OP_COUNT; op++)
        if (counts[op])
            yyjson_mut_obj_add_int(d, ops, op_name((enum op)op), counts[op]);
    yyjson_mut_obj_add_int(d, root, "nodes", g->n_nodes);
    yyjson_mut_obj_add_sint(d, root, "macs", cost.macs);
    yyjson_mut_obj_add_sint(d, root, "parameters", cost.parameters);
    yyjson_mut_obj_add_sint(d, root, "parameter_bytes", cost.bytes);
    add_blocks(d, root, g, cuts);
    char *text = yyjson_mut_write(
        d, YYJSON_WRITE_PRETTY_TWO_SPACES | YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    int code = text && puts(text) >= 0 ? CLI_OK : CLI_FAILED;
    free(text);
    yyjson_mut_doc_free(d);
    return code;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *args[1] = {NULL};
    bool json = false, as_is = false;
    const struct cli_option options[] = {
        {.name = "as-is",
         .kind = CLI_FLAG,
         .to = &as_is,
         .help = "do not simplify first (fold BatchNorm, drop Identity, ...)"},
        CLI_OPTION_JSON(&json),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    if (code >= 0)
        return code;
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct cuts cuts = {0};
    struct err err = {0};
    int r = arena ? onnx_read_file(args[0], NULL, &g, &err) : err_oom(&err, "inspect");
    if (r >= 0 && !as_is)
        r = pass_simplify(g, &err);
    if (r >= 0)
        r = graph_cuts(g, arena, &cuts, &err);
    if (r < 0)
        return cli_fail(&err);
    if (json)
        return print_json(g, &cuts);
    print_text(g, &cuts);
    return CLI_OK;
}

const struct cli_command cmd_inspect = {
    .name = "inspect",
    .usage = "MODEL [--json]",
    .summary = "what is in a network: inputs, operators, costs, blocks",
    .examples = "  hone inspect resnet56.onnx\n  hone inspect resnet56.onnx --json | jq .macs\n",
    .run = run,
};
