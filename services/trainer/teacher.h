#pragma once
/* The cache of a teacher's answers as an artifact: made once for all tasks that ask for the same,
 * and gone on with by the next worker where one was stopped. */
#include "services/trainer/inputs.h"
#include "services/trainer/trainer.h"
#include "shared/work/message.h"

struct teacher_request {
    const char *network, *data; /* artifacts */
    const struct dataset *ds;   /* the data, open */
    const Hone__V1__Preprocess *preprocess;
    const struct recipe *how;
    const struct augment *augment; /* of the recipe */
};
/* *ret_rate: samples a second; 0: it was there. CANCELLED and ABORTED as work_check. */
int teacher_cache(struct work_task *task, const struct teacher_request *q,
                  char ret_cache[HASH_HEX_BYTES], double *ret_rate, struct err *err);
