/* hone pack and hone unpack: ONNX files in few bytes, and back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "services/cli/cli.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/coding/packed.h"
#include "shared/graph/onnx.h"

struct request {
    const char *in, *out;
    bool json;
};

struct bytes {
    void *data;
    size_t n;
};

static void bytes_release(struct bytes *b)
{
    free(b->data);
}

static int print(const struct request *q, const char *out, size_t before, size_t after)
{
    char from[32], to[32];
    if (!q->json) {
        printf("%s: %s, from %s\n", out, str_bytes((double)after, to),
               str_bytes((double)before, from));
        return CLI_OK;
    }
    yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(d);
    yyjson_mut_doc_set_root(d, root);
    yyjson_mut_obj_add_str(d, root, "file", out);
    yyjson_mut_obj_add_uint(d, root, "bytes", after);
    yyjson_mut_obj_add_uint(d, root, "from_bytes", before);
    char *text = yyjson_mut_write(
        d, YYJSON_WRITE_PRETTY_TWO_SPACES | YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    int code = text && puts(text) >= 0 ? CLI_OK : CLI_FAILED;
    free(text);
    yyjson_mut_doc_free(d);
    return code;
}

/* MODEL.onnx becomes MODEL.hone and the other way round. */
static char *default_out(const char *in, const char *from, const char *to)
{
    const size_t n = strlen(in) - (str_ends_with(in, from) ? strlen(from) : 0);
    return str_printf("%.*s%s", (int)n, in, to);
}

static int same_file(const char *a, const char *b)
{
    _cleanup_(freep) char *x = NULL;
    _cleanup_(freep) char *y = NULL;
    return fs_realpath(a, &x, NULL) == 0 && fs_realpath(b, &y, NULL) == 0 && strcmp(x, y) == 0;
}

/* What is no network is refused here, not when somebody wants to run it; and what is written is
 * known to come back. */
static int pack(const struct bytes *in, struct bytes *out, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(bytes_release) struct bytes back = {0};
    int rc = packed_is(in->data, in->n) ? err_set(err, ERR_INVALID_ARGUMENT, "it is packed already")
                                        : onnx_read_bytes(in->data, in->n, NULL, NULL, &g, err);
    if (rc == 0)
        rc = packed_write(in->data, in->n, &out->data, &out->n, err);
    if (rc == 0)
        rc = packed_read(out->data, out->n, in->n, &back.data, &back.n, err);
    if (rc == 0 && (back.n != in->n || memcmp(back.data, in->data, in->n) != 0))
        rc = err_set(err, ERR_INTERNAL, "what was packed does not come back");
    return rc;
}

static int unpack(const struct bytes *in, struct bytes *out, struct err *err)
{
    return packed_read(in->data, in->n, onnx_default_limits.max_file_bytes, &out->data, &out->n,
                       err);
}

static int convert(const struct request *q, const char *out_path,
                   int (*change)(const struct bytes *, struct bytes *, struct err *))
{
    _cleanup_(bytes_release) struct bytes in = {0};
    _cleanup_(bytes_release) struct bytes out = {0};
    struct err err = {0};
    if (same_file(q->in, out_path)) {
        err_set(&err, ERR_INVALID_ARGUMENT, "%s: would overwrite what it is made from", out_path);
        return cli_fail(&err);
    }
    int rc = fs_read(q->in, onnx_default_limits.max_file_bytes, &in.data, &in.n, &err);
    if (rc < 0)
        return cli_fail(&err);
    rc = change(&in, &out, &err);
    if (rc < 0) {
        err_wrap(&err, "%s", q->in);
        return cli_fail(&err);
    }
    rc = fs_write_atomic(out_path, out.data, out.n, &err);
    return rc < 0 ? cli_fail(&err) : print(q, out_path, in.n, out.n);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    const bool packs = strcmp(self->name, "pack") == 0;
    struct request q = {0};
    const struct cli_option options[] = {
        {.name = "out",
         .value = "FILE",
         .kind = CLI_TEXT,
         .to = &q.out,
         .help =
             packs ? "what to write (default: MODEL.hone)" : "what to write (default: FILE.onnx)"},
        CLI_OPTION_JSON(&q.json),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, &q.in);
    if (code >= 0)
        return code;
    _cleanup_(freep) char *usual =
        packs ? default_out(q.in, ".onnx", ".hone") : default_out(q.in, ".hone", ".onnx");
    struct err err = {0};
    if (!usual) {
        err_oom(&err, "a path");
        return cli_fail(&err);
    }
    return convert(&q, q.out ? q.out : usual, packs ? pack : unpack);
}

const struct cli_command cmd_pack = {
    .name = "pack",
    .usage = "MODEL [--out FILE] [--json]",
    .summary = "an ONNX file in as few bytes as it can be told in",
    .details =
        "Entropy coding without any loss: 'hone unpack' gives back the same file, bit for bit.\n"
        "Quantized weights take as many bits as they hold; weights in float hardly shrink.\n"
        "'hone eval', 'inspect', 'bench', 'optimize' and libhone take packed networks as they\n"
        "are. Weights in files beside MODEL are not packed.",
    .examples = "  hone pack faster/model.onnx\n  hone pack model.onnx --out model.hone --json\n",
    .run = run,
};

const struct cli_command cmd_unpack = {
    .name = "unpack",
    .usage = "FILE [--out MODEL] [--json]",
    .summary = "the ONNX file that was packed",
    .details = "Its SHA-256 is in the packed file and checked.",
    .examples = "  hone unpack faster/model.hone --out model.onnx\n",
    .run = run,
};
