#include "shared/train/lowering.h"

#include <stdio.h>

#include <yyjson.h>

#include "shared/base/mem.h"

/* Keeps this choice of samples apart from others made with the job's seed. */
#define SEED_SALT 0x63616c6962u

int lowering_samples(const struct dataset *ds, const struct preprocess *pre, enum part part,
                     int64_t n, uint64_t seed, struct sample_view *ret, struct err *err)
{
    const int64_t count = dataset_count(ds, part);
    return sample_view_init(ret, ds, part, pre, n < count ? n : 0, seed ^ SEED_SALT, err);
}

/* {"conv1":"int8", ...} */
static int layers_json(const struct lowering_facts *facts, char **ret, struct err *err)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = doc ? yyjson_mut_obj(doc) : NULL;
    bool ok = root != NULL;
    for (int i = 0; i < facts->n_choices && ok; i++) { /* names of layers outlive the document */
        yyjson_mut_val *key = yyjson_mut_str(doc, facts->choices[i].layer);
        yyjson_mut_val *value =
            yyjson_mut_strcpy(doc, quant_choice_name(&facts->choices[i], (char[8]){0}));
        ok = key && value && yyjson_mut_obj_add(root, key, value);
    }
    if (ok)
        yyjson_mut_doc_set_root(doc, root);
    *ret = ok ? yyjson_mut_write(doc, 0, NULL) : NULL;
    yyjson_mut_doc_free(doc);
    return *ret ? 0 : err_oom(err, "the list of layers");
}

int lowering_describe(struct graph *g, const struct lowering_facts *facts, struct err *err)
{
    _cleanup_(freep) char *layers = NULL;
    char seed[32], samples[32], bits[16];
    int rc = layers_json(facts, &layers, err);
    snprintf(seed, sizeof(seed), "%llu", (unsigned long long)facts->seed);
    snprintf(samples, sizeof(samples), "%d", LOWERING_SAMPLES);
    snprintf(bits, sizeof(bits), "%d", facts->weight_bits);
    const char *const list[][2] = {
        {"hone.version", HONE_VERSION},         {"hone.name", facts->name},
        {"hone.parent", facts->parent},         {"hone.layers", layers},
        {"hone.preprocess", facts->preprocess}, {"hone.seed", seed},
        {"hone.calibration_samples", samples},  {"hone.weight_bits", bits},
        {"hone.design", facts->design},
    };
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]) && rc == 0; i++)
        if (list[i][1])
            rc = graph_set_metadata(g, list[i][0], list[i][1], err);
    return rc;
}
