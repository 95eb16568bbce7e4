/* hone-trainer: scores what an alternative costs in quality, and trains networks. */
#include <stdio.h>
#include <stdlib.h>

#include "services/trainer/trainer.h"
#include "shared/base/str.h"

int main(void)
{
    static const struct work_kind kinds[] = {
        {.kind = "score", .handle = trainer_score, .version = 2, .memo = true},
        {.kind = "train", .handle = trainer_train, .version = 2, .memo = true},
        {.kind = "imitate", .handle = trainer_imitate, .version = 1, .memo = true},
        {.kind = "teach", .handle = trainer_teach, .version = 1, .memo = true},
    };
    const char *seconds = getenv("HONE_CHECKPOINT_SECONDS");
    struct trainer trainer = {.checkpoint_seconds = 180};
    if (seconds && *seconds &&
        (str_parse_f64(seconds, &trainer.checkpoint_seconds, NULL) < 0 ||
         !(trainer.checkpoint_seconds >= 1e-6 && trainer.checkpoint_seconds <= 86400))) {
        fprintf(stderr,
                "hone-trainer: HONE_CHECKPOINT_SECONDS=%s: 0.000001 to 86400 are possible\n",
                seconds);
        return 2;
    }
    const struct work_config config = {
        .service = "trainer",
        .kinds = kinds,
        .n_kinds = sizeof(kinds) / sizeof(kinds[0]),
        .ctx = &trainer,
    };
    return work_main(&config);
}
