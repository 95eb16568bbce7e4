/* hone-exporter: quantizes, writes ONNX, verifies, reports. */
#include "services/exporter/exporter.h"

int main(void)
{
    static const struct work_kind kinds[] = {
        {.kind = "calibrate", .handle = exporter_calibrate, .version = 1, .memo = true},
        {.kind = "build", .handle = exporter_build, .version = 3, .memo = true},
        {.kind = "prove", .handle = exporter_prove, .version = 1, .memo = true},
        {.kind = "report", .handle = exporter_report, .version = 1},
    };
    const struct work_config config = {
        .service = "exporter",
        .kinds = kinds,
        .n_kinds = sizeof(kinds) / sizeof(kinds[0]),
    };
    return work_main(&config);
}
