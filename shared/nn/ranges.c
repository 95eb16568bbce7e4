#include "shared/nn/ranges.h"

#include <stdlib.h>
#include <string.h>

static void message_release(Hone__V1__Ranges **message)
{
    if (*message)
        hone__v1__ranges__free_unpacked(*message, NULL);
}

static Hone__V1__Ranges__Range *range_to_message(const struct quant_range *range)
{
    Hone__V1__Ranges__Range *r = malloc(sizeof(*r));
    if (!r)
        return NULL;
    hone__v1__ranges__range__init(r);
    r->value = strdup(range->value);
    if (!r->value) {
        free(r);
        return NULL;
    }
    r->min = range->min;
    r->max = range->max;
    r->low = range->low;
    r->high = range->high;
    r->mse = range->mse;
    return r;
}

int ranges_to_message(const struct quant_ranges *ranges, Hone__V1__Ranges **ret, struct err *err)
{
    _cleanup_(message_release) Hone__V1__Ranges *message = malloc(sizeof(*message));
    if (!message)
        return err_oom(err, "the ranges");
    hone__v1__ranges__init(message);
    message->samples = (uint64_t)ranges->samples;
    message->ranges = mem_calloc((size_t)ranges->n, sizeof(*message->ranges));
    if (!message->ranges)
        return err_oom(err, "the ranges");
    for (int i = 0; i < ranges->n; i++) {
        message->ranges[i] = range_to_message(&ranges->ranges[i]);
        if (!message->ranges[i])
            return err_oom(err, "the ranges");
        message->n_ranges++;
    }
    *ret = TAKE_PTR(message);
    return 0;
}

int ranges_from_message(const Hone__V1__Ranges *message, struct quant_ranges *ret, struct err *err)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {.arena = arena_new()};
    if (!ranges.arena)
        return err_oom(err, "the ranges");
    ranges.n = (int)message->n_ranges;
    ranges.samples = (int64_t)message->samples;
    ranges.ranges = arena_alloc(ranges.arena, message->n_ranges, sizeof(*ranges.ranges));
    if (!ranges.ranges)
        return err_oom(err, "the ranges");
    for (size_t i = 0; i < message->n_ranges; i++) {
        const Hone__V1__Ranges__Range *r = message->ranges[i];
        ranges.ranges[i] = (struct quant_range){.value = arena_strdup(ranges.arena, r->value),
                                                .min = r->min,
                                                .max = r->max,
                                                .low = r->low,
                                                .high = r->high,
                                                .mse = r->mse};
        if (!ranges.ranges[i].value)
            return err_oom(err, "the ranges");
    }
    *ret = ranges;
    ranges = (struct quant_ranges){0};
    return 0;
}
