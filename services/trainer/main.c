/* hone-trainer: scores what an alternative costs in quality. */
#include "services/trainer/trainer.h"

int main(void)
{
    static const struct work_kind kinds[] = {
        {.kind = "score", .handle = trainer_score, .version = 1, .memo = true},
    };
    const struct work_config config = {
        .service = "trainer",
        .kinds = kinds,
        .n_kinds = sizeof(kinds) / sizeof(kinds[0]),
    };
    return work_main(&config);
}
