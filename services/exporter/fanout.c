/* What calibration starts: the original profiled, its layers scored, plain int8 built; then
 * selection. */
#include <stdlib.h>

#include "services/exporter/exporter.h"
#include "shared/base/mem.h"
#include "shared/work/state.h"

int exporter_after_calibrate(struct work_task *task, const Hone__V1__JobState *state,
                             struct work_output *out, struct err *err)
{
    (void)task;
    Hone__V1__StageTask stage = HONE__V1__STAGE_TASK__INIT;
    stage.state = (Hone__V1__JobState *)state;
    Hone__V1__BuildTask build = HONE__V1__BUILD_TASK__INIT;
    build.state = stage.state;
    build.name = "int8";
    build.all_int8 = true;
    _cleanup_(freep) char *profiler = state_profiler_queue(state);
    if (!profiler)
        return err_oom(err, "a queue's name");
    int r = work_follow(out, profiler, "profile", &stage.base, err);
    if (r == 0)
        r = work_follow(out, "trainer", "score", &stage.base, err);
    if (r == 0)
        r = work_follow(out, "exporter", "build", &build.base, err);
    return r < 0 ? r : work_continue(out, "synthesizer", "select", &stage.base, err);
}
