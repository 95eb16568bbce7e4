/* Networks in lower precision are built again from those in float, as the job built them. */
#include <stdlib.h>
#include <string.h>

#include "services/cli/lower.h"
#include "services/cli/reproduce.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"

static int add_finding(struct reproduce *r, const struct reproduced *network, const char *hash,
                       struct err *err)
{
    const char *reported = manifest_text(network->entry, "sha256");
    const bool same = strcmp(hash, reported) == 0;
    const struct finding finding = {
        .subject = (char *)network->name,
        .number = (char *)"built again, sha256",
        .reported = (char *)reported,
        .reproduced = (char *)hash,
        .note = (char *)(same ? "" : "not bit for bit: the numbers decide"),
        .verdict = same ? SAME : CLOSE,
    };
    return findings_add(&r->findings, &finding, err);
}

/* Takes the file over where there is none. */
static int stand_in(struct reproduced *network, void **onnx, size_t bytes, struct err *err)
{
    if (network->onnx)
        return 0;
    int rc = onnx_read_bytes(*onnx, bytes, NULL, NULL, &network->g, err);
    if (rc < 0)
        return rc;
    network->onnx = TAKE_PTR(*onnx);
    network->bytes = bytes;
    return 0;
}

int reproduce_build(struct reproduce *r, struct reproduced *network, const struct graph *parent,
                    const struct quant_ranges *ranges, struct err *err)
{
    _cleanup_(freep) void *onnx = NULL;
    const char *design = manifest_text(network->entry, "design");
    const struct lower_request q = {.parent = parent,
                                    .name = network->name,
                                    .design = *design ? design : NULL,
                                    .layers = yyjson_obj_get(network->entry, "layers"),
                                    .ranges = ranges};
    size_t bytes = 0;
    char hash[HASH_HEX_BYTES];
    int rc = lower_build(r, &q, &onnx, &bytes, err);
    if (rc == 0)
        rc = hash_bytes(onnx, bytes, hash, err);
    if (rc == 0)
        rc = add_finding(r, network, hash, err);
    return rc < 0 ? rc : stand_in(network, &onnx, bytes, err);
}

static bool is_of_original(const struct reproduced *network)
{
    return !*manifest_text(network->entry, "design") &&
           yyjson_obj_size(yyjson_obj_get(network->entry, "layers")) > 0;
}

int reproduce_builds(struct reproduce *r, struct err *err)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    const struct graph *original = r->networks[0].g;
    int rc = lower_calibrate(r, original, &ranges, err);
    for (int i = 1; rc == 0 && i < r->n; i++)
        if (is_of_original(&r->networks[i]))
            rc = reproduce_build(r, &r->networks[i], original, &ranges, err);
    return rc;
}
