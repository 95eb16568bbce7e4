#include "services/synthesizer/ablate.h"

#include "shared/base/rng.h"

/* Products a second of the original in 8 bits over those of training (docs/RESULTS.md: ResNet-56
 * answers at 0.96 T, ResNet-20 learns at 0.37 T). */
#define ANSWERS_OVER_TRAINING 2.5

/* Of each run another one: what one was answered is of no use to the next. */
static uint64_t own_seed(const job_state *state, const job_student *student)
{
    struct rng rng;
    uint64_t stream = student->rungs;
    for (const char *p = student->name; *p; p++)
        stream = 31 * stream + (uint8_t)*p;
    rng_seed2(&rng, state->spec->seed, stream);
    return rng_below(&rng, (uint64_t)1 << 50);
}

void ablate_training(const job_state *state, const job_student *student, Hone__V1__TrainTask *train)
{
    if (spec_without(state->spec, "teacher")) {
        train->teacher = (char *)"";
        train->settings->distil = -1;
    }
    if (spec_without(state->spec, "cache")) {
        train->settings->views = train->settings->epochs;
        train->settings->seed = own_seed(state, student);
    }
}

double ablate_teacher_s(const job_state *state, double mac_per_s)
{
    return spec_without(state->spec, "cache")
               ? (double)state->baseline->macs * (double)state->data->n_train /
                     (ANSWERS_OVER_TRAINING * mac_per_s)
               : 0;
}

int ablate_enrol(const job_state *state, const struct space *space, double most_cost,
                 double least_cost, int ret[ABLATE_DRAWN])
{
    struct rng rng;
    int seen = 0;
    rng_seed2(&rng, state->spec->seed, 0x72616365);
    for (int i = 0; i < space->n_students; i++) { /* reservoir sampling */
        const double cost = space->students[i].cost;
        if (!(cost <= most_cost && cost > least_cost))
            continue;
        const uint64_t place =
            seen < ABLATE_DRAWN ? (uint64_t)seen : rng_below(&rng, (uint64_t)seen + 1);
        if (place < ABLATE_DRAWN)
            ret[place] = i;
        seen++;
    }
    return seen < ABLATE_DRAWN ? seen : ABLATE_DRAWN;
}
