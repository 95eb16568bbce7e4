#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

#include "services/cli/cli.h"
#include "services/cli/control.h"
#include "services/cli/reproduce.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/nn/plan.h"

static void say(const struct reproduce_request *q, const char *what)
{
    if (!q->json)
        fprintf(stderr, "hone: %s\n", what);
}

static int check_all(struct reproduce *r, const struct reproduce_request *q, struct err *err)
{
    say(q, "reading the manifest, the original and the data");
    int rc = reproduce_open(r, q, err);
    if (rc == 0) {
        say(q, "building networks again");
        rc = reproduce_builds(r, err);
    }
    if (rc == 0 && q->retrain) {
        say(q, "training students again");
        rc = reproduce_training(r, err);
    }
    if (rc == 0)
        rc = reproduce_costs(r, err);
    if (rc == 0) {
        say(q, "scoring every network");
        rc = reproduce_accuracies(r, err);
    }
    if (rc == 0 && q->seconds > 0) {
        say(q, "measuring every network");
        rc = reproduce_times(r, err);
    }
    return rc;
}

/* control.onnx and control.json, beside the manifest. */
static int write_control(const struct reproduce *r, const struct control *c, const char *json,
                         struct err *err)
{
    _cleanup_(freep) char *network = str_printf("%s/control.onnx", r->manifest.folder);
    _cleanup_(freep) char *about = str_printf("%s/control.json", r->manifest.folder);
    if (!network || !about || !json)
        return err_oom(err, "control");
    int rc = fs_write_atomic(network, c->onnx, c->bytes, err);
    return rc < 0 ? rc : fs_write_atomic(about, json, strlen(json), err);
}

static int make_control(struct reproduce *r, const struct reproduce_request *q, struct control *c,
                        char **ret_json, struct err *err)
{
    if (!q->control)
        return 0;
    if (access(r->manifest.folder, W_OK) < 0) /* before it takes hours */
        return err_errno(err, errno, "%s: control.onnx goes there", r->manifest.folder);
    say(q, "finding and training a plain network of equal latency");
    int rc = control_make(r, c, err);
    if (rc < 0)
        return rc;
    *ret_json = control_json(r, c);
    if (!q->json)
        control_print(c);
    return write_control(r, c, *ret_json, err);
}

/* control: its JSON; NULL: there is none. */
static int print_json(const struct reproduce *r, const char *control)
{
    const struct findings *f = &r->findings;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_strcpy(doc, root, "job", manifest_text(r->manifest.root, "job"));
    yyjson_mut_obj_add_bool(doc, root, "reproduced", f->count[DIFFERS] == 0);
    yyjson_mut_obj_add_int(doc, root, "same", f->count[SAME]);
    yyjson_mut_obj_add_int(doc, root, "close", f->count[CLOSE]);
    yyjson_mut_obj_add_int(doc, root, "elsewhere", f->count[ELSEWHERE]);
    yyjson_mut_obj_add_int(doc, root, "differs", f->count[DIFFERS]);
    yyjson_mut_obj_add_int(doc, root, "not_checked", f->count[UNCHECKED]);
    yyjson_mut_obj_add_bool(doc, root, "same_machine", r->same_machine);
    yyjson_mut_obj_add_str(doc, root, "cpu", nn_cpu());
    yyjson_mut_obj_add_str(doc, root, "isa", nn_isa());
    yyjson_mut_obj_add_str(doc, root, "compute", nn_version());
    yyjson_mut_obj_add_val(doc, root, "findings", findings_json(f, doc));
    if (control)
        yyjson_mut_obj_add_val(doc, root, "control", yyjson_mut_raw(doc, control));
    char *text = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    int code = text && puts(text) >= 0 ? CLI_OK : CLI_FAILED;
    free(text);
    yyjson_mut_doc_free(doc);
    return code;
}

static void print_text(const struct reproduce *r)
{
    const struct findings *f = &r->findings;
    findings_print(f, stdout);
    printf("\n%s: %d numbers are the same, %d close, %d differ; %d are not checked\n",
           f->count[DIFFERS] ? "NOT REPRODUCED" : "reproduced", f->count[SAME], f->count[CLOSE],
           f->count[DIFFERS], f->count[UNCHECKED]);
    if (f->count[ELSEWHERE])
        printf("%d times are others here, which is no fault\n", f->count[ELSEWHERE]);
    if (!r->same_machine)
        printf("the manifest is of another machine or version; this is %s, %s, %s, hone %s\n",
               nn_cpu(), nn_isa(), nn_version(), HONE_VERSION);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct reproduce_request q = {.threads = pool_cpus(), .seconds = 1};
    const struct cli_option options[] = {
        {.name = "model",
         .value = "MODEL",
         .kind = CLI_TEXT,
         .to = &q.model,
         .help = "the original (default: where the manifest says it was)"},
        {.name = "data",
         .value = "DATA",
         .kind = CLI_TEXT,
         .to = &q.data,
         .help = "the data (default: where the manifest says they were)"},
        {.name = "seconds",
         .value = "S",
         .kind = CLI_REAL,
         .to = &q.seconds,
         .min = 0,
         .max = 3600,
         .help = "how long to measure each network; 0: no times (default: 1)"},
        {.name = "retrain",
         .kind = CLI_FLAG,
         .to = &q.retrain,
         .help = "also train every student again, on as many threads, and compare weights"},
        {.name = "student",
         .value = "NAME",
         .kind = CLI_TEXT,
         .to = &q.student,
         .help = "with --retrain: only this one"},
        {.name = "control",
         .kind = CLI_FLAG,
         .to = &q.control,
         .help = "also train a plain network of equal latency, to be set beside the result"},
        {.name = "threads",
         .value = "N",
         .kind = CLI_INT,
         .to = &q.threads,
         .min = 1,
         .max = 1024,
         .help = "threads of scoring (default: all processors)"},
        CLI_OPTION_JSON(&q.json),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, &q.manifest);
    if (code >= 0)
        return code;
    if (q.student && !q.retrain)
        return cli_usage_error(self, "--student needs --retrain");
    _cleanup_(reproduce_release) struct reproduce r = {0};
    struct err err = {0};
    _cleanup_(control_release) struct control control = {0};
    _cleanup_(freep) char *json = NULL;
    if (check_all(&r, &q, &err) < 0)
        return cli_fail(&err);
    if (!q.json)
        print_text(&r);
    const int made = make_control(&r, &q, &control, &json, &err);
    if (q.json && print_json(&r, json) != CLI_OK)
        return CLI_FAILED;
    if (made < 0) /* what was found has been said */
        return cli_fail(&err);
    return r.findings.count[DIFFERS] ? CLI_DIFFERS : CLI_OK;
}

const struct cli_command cmd_reproduce = {
    .name = "reproduce",
    .usage = "MANIFEST [OPTION]...",
    .summary = "find every number of a result again",
    .details =
        "Reads the manifest.json of a result, the files beside it, the original and the data, and\n"
        "checks what was reported: the hashes of all of them, sizes, products and parameters, the\n"
        "accuracies on the test and the search part with drops and bounds, and the times, which\n"
        "are judged by their ratio to the original's. With --retrain every student learns again,\n"
        "from the weights that its design and seed give, to the same weights bit for bit.\n"
        "Ends with 4 where a number is another one. With --control a plain smaller network, as\n"
        "one would write it by hand, learns by the recipe of the student that was chosen, for as\n"
        "many epochs, from labels alone: control.onnx and control.json beside the manifest.",
    .examples = "  hone reproduce out/manifest.json\n"
                "  hone reproduce out/manifest.json --model resnet56.onnx --data cifar10.tar\n"
                "  hone reproduce out/manifest.json --retrain --seconds 0 --json\n",
    .run = run,
};
