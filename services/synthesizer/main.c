/* hone-synthesizer: designs candidates and selects. */
#include "services/synthesizer/synthesizer.h"

int main(void)
{
    static const struct work_kind kinds[] = {
        /* without memo: who looks at the time that is left */
        {.kind = "select", .handle = synthesizer_select, .version = 1},
        {.kind = "assemble", .handle = synthesizer_assemble, .version = 1, .memo = true},
        {.kind = "choose", .handle = synthesizer_choose, .version = 1},
        {.kind = "refine", .handle = synthesizer_refine, .version = 1},
        {.kind = "retarget", .handle = synthesizer_retarget, .version = 1},
        {.kind = "redesign", .handle = synthesizer_redesign, .version = 1},
        {.kind = "imitate", .handle = synthesizer_imitate, .version = 1},
        {.kind = "join", .handle = synthesizer_join, .version = 1},
        {.kind = "settle", .handle = synthesizer_settle, .version = 1},
        {.kind = "enroll", .handle = synthesizer_enroll, .version = 1},
        {.kind = "tune", .handle = synthesizer_tune, .version = 1},
        {.kind = "tuned", .handle = synthesizer_tuned, .version = 1, .memo = true},
        {.kind = "promote", .handle = synthesizer_promote, .version = 1},
    };
    const struct work_config config = {
        .service = "synthesizer",
        .kinds = kinds,
        .n_kinds = sizeof(kinds) / sizeof(kinds[0]),
    };
    return work_main(&config);
}
