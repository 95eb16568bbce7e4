#include "shared/train/schedule.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {[SCHEDULE_COSINE] = "cosine",
                                    [SCHEDULE_ONE_CYCLE] = "one-cycle",
                                    [SCHEDULE_STEP] = "step",
                                    [SCHEDULE_CONSTANT] = "constant",
                                    [SCHEDULE_TRAPEZOID] = "trapezoid"};

const char *schedule_name(enum schedule_kind kind)
{
    return names[kind];
}

int schedule_parse(const char *text, enum schedule_kind *ret, struct err *err)
{
    for (int i = 0; i < (int)(sizeof(names) / sizeof(*names)); i++)
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum schedule_kind)i;
            return 0;
        }
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "'%.40s' is no schedule (cosine, one-cycle, step, constant, trapezoid)", text);
}

struct schedule schedule_make(enum schedule_kind kind, double rate)
{
    struct schedule s = {.kind = kind, .rate = rate, .warmup = 0.02, .start = 0.1, .end = 1};
    if (kind == SCHEDULE_COSINE) {
        s.warmup = 0.05;
        s.end = 0;
    } else if (kind == SCHEDULE_ONE_CYCLE) {
        s.warmup = 0.23;
        s.start = 0.2;
        s.end = 0.07;
    } else if (kind == SCHEDULE_TRAPEZOID) {
        s.warmup = 0.1;
        s.start = 0.2;
        s.end = 0.07;
        s.down = SCHEDULE_DOWN;
    }
    return s;
}

int64_t schedule_level_end(const struct schedule *s, int64_t total)
{
    const int64_t level = (int64_t)ceil(fmax(1 - s->down, s->warmup) * (double)total);
    return s->kind != SCHEDULE_TRAPEZOID ? total : level < total ? level : total - 1;
}

/* From the end of the level on. */
static double way_down(const struct schedule *s, int64_t step, int64_t total)
{
    const int64_t from = schedule_level_end(s, total);
    return step < from ? 0 : (double)(step - from) / (double)(total - from);
}

double schedule_rate(const struct schedule *s, int64_t step, int64_t total)
{
    const double at = total > 0 ? (double)step / (double)total : 0;
    if (at < s->warmup)
        return s->rate * (s->start + (1 - s->start) * at / s->warmup);
    const double down = s->warmup < 1 ? (at - s->warmup) / (1 - s->warmup) : 1;
    switch (s->kind) {
    case SCHEDULE_COSINE:
        return s->rate * (s->end + (1 - s->end) * (1 + cos(M_PI * down)) / 2);
    case SCHEDULE_ONE_CYCLE:
        return s->rate * (1 - (1 - s->end) * down);
    case SCHEDULE_TRAPEZOID:
        return s->rate * (1 - (1 - s->end) * way_down(s, step, total));
    case SCHEDULE_STEP:
        return s->rate * (at < 0.5 ? 1 : at < 0.75 ? 0.1 : 0.01);
    default:
        return s->rate;
    }
}
