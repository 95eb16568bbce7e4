#pragma once
/*
 * The library of a job: its alternatives (alternatives.h) as a message, with what they cost and how
 * much they hurt, kept as an artifact that JobState.library names.
 */
#include "services/synthesizer/alternatives.h"
#include "shared/work/state.h"

typedef Hone__V1__Library job_library;
typedef Hone__V1__Library__Arc job_arc;

/* The original, cut up. */
struct library_parts {
    struct arena *arena;
    struct graph *g;
    struct units units;
    Hone__V1__Profile *profile;
};
int library_parts_load(struct work_task *task, const job_state *state, struct library_parts *ret,
                       struct err *err);
void library_parts_release(struct library_parts *parts); /* for _cleanup_ */

/* Every alternative of the original, their networks in the store; in the profile's precisions. Adds
 * a price to be asked for each but those that are nothing, in each precision. *ret is a message. */
int library_make(struct work_task *task, job_state *state, const struct library_parts *parts,
                 Hone__V1__PriceTask *price, job_library **ret, struct err *err);

/* Numbers that the network's nodes yield for one sample; 0 of NULL. */
uint64_t library_values(const struct graph *g);

/* Prices in the order in which they were asked for. INTERNAL where these are as many as others. */
int library_price(job_library *library, const Hone__V1__PriceResult *prices, struct err *err);

/* What the units that the arc replaces take in a precision (of the profile's), us; 0: not known. */
double library_kept_us(const struct library_parts *parts, const job_arc *arc, size_t precision);
/* By how much the arc is faster, in the precision in which each is fastest; 0 or less: it is not.
 */
double library_saving(const struct library_parts *parts, const job_arc *arc);

int library_load(struct work_task *task, const job_state *state, job_library **ret,
                 struct err *err);
int library_keep(struct work_task *task, job_state *state, const job_library *library,
                 struct err *err);
