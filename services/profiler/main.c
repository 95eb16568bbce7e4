/* hone-profiler: measures on the hardware that it runs on. One process for each host, for the
 * target that HONE_TARGET names. */
#include <stdio.h>
#include <stdlib.h>

#include "services/profiler/profiler.h"
#include "shared/base/str.h"
#include "shared/nn/plan.h"

int main(void)
{
    static const struct work_kind kinds[] = {
        {.kind = "profile",
         .handle = profiler_profile,
         .version = 1,
         .memo = true,
         .measures = true},
        /* not remembered: the latency table is, piece by piece */
        {.kind = "price", .handle = profiler_price, .version = 1, .measures = true},
        {.kind = "measure",
         .handle = profiler_measure,
         .version = 2,
         .memo = true,
         .measures = true},
    };
    const char *target = getenv("HONE_TARGET"), *isa = getenv("HONE_ISA");
    const char *seconds = getenv("HONE_MEASURE_SECONDS");
    struct profiler profiler = {.seconds = 2};
    struct err err = {0};
    if (seconds && *seconds &&
        (str_parse_f64(seconds, &profiler.seconds, &err) < 0 ||
         !(profiler.seconds >= 0.01 && profiler.seconds <= 600))) {
        fprintf(stderr, "hone-profiler: HONE_MEASURE_SECONDS=%s: 0.01 to 600 are possible\n",
                seconds);
        return 2;
    }
    if (nn_limit_isa(isa, &err) < 0) {
        fprintf(stderr, "hone-profiler: HONE_ISA: %s\n", err.message);
        return 2;
    }
    char queue[128];
    snprintf(queue, sizeof(queue), "profiler:%s", target && *target ? target : "local");
    const struct work_config config = {
        .service = "profiler",
        .queue = queue,
        .kinds = kinds,
        .n_kinds = sizeof(kinds) / sizeof(kinds[0]),
        .ctx = &profiler,
    };
    return work_main(&config);
}
