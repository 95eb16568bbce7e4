#pragma once
/*
 * What still fits into a job's budget. From the first verified network on everything is
 * improvement: what is left of the budget decides how many candidates are built and how many finals
 * are proved. What has begun is finished, and one network is always proved.
 *
 * elapsed_s: since the job was submitted; left_s: of its budget (INFINITY without one, or below 0).
 */

/* Candidates worth building beside plain int8: 0 to `most`. */
int budget_candidates(double elapsed_s, double left_s, int most);
/* Finals worth proving: 1 to `most`. */
int budget_finals(double elapsed_s, double left_s, int most);
