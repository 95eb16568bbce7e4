/* Task "calibrate": the ranges of activations, from training samples. */
#include "services/exporter/build.h"
#include "services/exporter/exporter.h"
#include "shared/nn/ranges.h"

static int calibrate(struct work_task *task, const job_state *state, struct quant_ranges *ret,
                     struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = build_read_network(task, state->network, &g, err);
    return rc < 0 ? rc : build_calibrate(task, state, g, "calibrate", ret, err);
}

int exporter_calibrate(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    int rc =
        work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (rc < 0)
        return rc;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    _cleanup_(message_freep) Hone__V1__Ranges *message = NULL;
    char name[HASH_HEX_BYTES];
    rc = calibrate(task, stage->state, &ranges, err);
    if (rc < 0)
        return err_wrap(err, "calibration");
    rc = ranges_to_message(&ranges, &message, err);
    if (rc == 0)
        rc = message_store(task->store, message, name, err);
    if (rc == 0)
        rc = message_set(&stage->state->ranges, name, err);
    if (rc == 0)
        rc = work_result(out, &stage->base, err);
    /* What follows in the job is said in one place. */
    return rc < 0 ? rc : exporter_after_calibrate(task, stage->state, out, err);
}
