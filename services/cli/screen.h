#pragma once
/*
 * What a watcher sees of a job's events: on a terminal a block of lines updated in place (one for
 * each stage at work, and the best so far), elsewhere plain lines now and then, or JSON as it
 * comes.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum screen_mode { SCREEN_PLAIN, SCREEN_TERMINAL, SCREEN_JSON };

#define SCREEN_STAGES 12

struct screen_stage {
    char name[64], task[64], unit[32], learned[64]; /* learned: "" but for training */
    double done, total, rate, eta_s;
    int64_t first_ms, last_ms; /* times of its events */
    int64_t shown_ns;          /* plain lines: when the last was printed */
};

struct screen {
    enum screen_mode mode;
    FILE *out;
    int64_t now_ns;  /* set by the caller before each event (monotonic) */
    int columns;     /* of the terminal */
    int block_lines; /* of the block as it stands on the terminal */
    int n_stages;
    struct screen_stage stages[SCREEN_STAGES];
    char best[200];
};
/* Chooses the mode: JSON when asked, terminal when `out` is one. */
void screen_init(struct screen *screen, FILE *out, bool json);
/* One event (JSON text). What does not parse is printed as it is. */
void screen_event(struct screen *screen, const char *json);
/* Removes the block: what is printed next stands alone. */
void screen_close(struct screen *screen);
