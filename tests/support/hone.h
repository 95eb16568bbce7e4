#pragma once
/*
 * The real program `hone` with its real services, run as people run it, with a home folder of its
 * own:
 *
 *     HONE("optimize", model, "--data", data);  // until it has ended: `ran` tells how
 *     assert_refused("net.onnx", "conv1");      // exit code 1, one sentence with these words
 *
 * A program that takes longer than its limit is killed, which ends the test. For a group of cmocka
 * tests: hone_set_up and hone_tear_down, which also looks into the logs for services that crashed.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Sanitizers reserve terabytes and remember what was freed: limits of memory mean nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HONE_SANITIZED true
#else
#define HONE_SANITIZED false
#endif

struct hone_how {
    size_t max_memory; /* of the address space; 0: any */
    int limit_s;       /* 0: 120 */
    const char *path;  /* PATH; NULL: as it is */
    const char
        *tmpfs; /* a folder that becomes a disk of so many bytes, for this program and what */
    size_t tmpfs_bytes; /* it starts */
    const char *ingest; /* HONE_INGEST */
    const char *out;    /* file for its output instead of `ran.out` */
    const char *script; /* for sh, run instead of the program, which is its $0 */
};

struct hone_ran {
    int code; /* exit code, or minus the signal */
    double seconds;
    char out[1 << 16], err[1 << 14];
};
extern struct hone_ran ran;

/* A program that runs. */
struct hone_process {
    pid_t pid;
    char out[96], err[96]; /* files */
    double since;
    int limit_s;
};

int hone_set_up(void **state);
int hone_tear_down(void **state);
extern char hone_home[96];
/* Forgets what the logs say so far, for tests in which services are meant to die. */
void hone_forget_logs(void);

/* NULL: usual. arguments end with NULL. */
struct hone_process hone_start(const struct hone_how *how, const char *const *arguments);
void hone_wait(struct hone_process *process); /* for its end, into `ran` */
void hone_call(const struct hone_how *how, const char *const *arguments);
#define HONE(...) hone_call(NULL, (const char *const[]){__VA_ARGS__, NULL})
#define HONE_HOW(how, ...) hone_call(how, (const char *const[]){__VA_ARGS__, NULL})
#define HONE_START(...) hone_start(NULL, (const char *const[]){__VA_ARGS__, NULL})

/* Ends the test with all that was said unless it is so. */
void hone_assert_code(int code);
void hone_assert_says(const char *const *words); /* each on stderr */
/* Code 1, and stderr is one line "hone: ..." with each of the words. */
void hone_assert_refused(const char *const *words);
#define assert_refused(...) hone_assert_refused((const char *const[]){__VA_ARGS__, NULL})
#define assert_says(...) hone_assert_says((const char *const[]){__VA_ARGS__, NULL})

/* Whether programs here may have a disk of their own (hone_how.tmpfs); else why not is printed. */
bool hone_may_mount(void);

/* ---- what runs in the home ---- */
/* The process of this program ("hone-ingest", "redis-server") below the supervisor; 0: none. */
pid_t hone_service(const char *program);
/* The largest resident memory so far, in MB. */
long hone_peak_mb(pid_t pid);
/* Waits until the process has written this text into the file; half a minute at most. */
void hone_await_text(const char *file, const char *text);
