#pragma once
/*
 * The home folder of a Hone on this machine, and what is where in it:
 *
 *     artifacts/       the store
 *     redis/           Redis's append-only file
 *     logs/            one log for each service, and the supervisor's
 *     scratch/         of running tasks
 *     supervisor.lock  held by the supervisor (flock), with its process id
 *     clients.lock     held shared by every client, so that an idle supervisor can tell
 *     failure.txt      why the last supervisor gave up
 *     run/             sockets; a short folder elsewhere where this path is too long for sockets
 */
#include <stdbool.h>
#include <sys/types.h>

#include "shared/base/err.h"

struct home {
    char *dir, *run;
    char *redis_socket;   /* path */
    char *redis_url;      /* unix:PATH */
    char *ingest_address; /* ipc://PATH */
    char *ingest_socket;  /* path */
    char *store_url;      /* file://DIR/artifacts */
    char *lock, *clients, *failure;
};

/* `flag` (--home) wins over HONE_HOME, XDG_STATE_HOME/hone and ~/.local/state/hone. Makes the
 * folders. */
int home_open(const char *flag, struct home *ret, struct err *err);
void home_release(struct home *home); /* for _cleanup_ */
/* malloc'ed DIR/SUB/NAME. */
char *home_path(const struct home *home, const char *sub, const char *name);

/* The process id of the supervisor that holds the lock; 0: none runs. */
pid_t home_supervisor(const struct home *home);
/* Takes the supervisor's lock and writes this process's id: ALREADY_EXISTS when another has it. */
int home_lock(const struct home *home, int *ret_fd, struct err *err);
/* Says that a client is there, while *ret_fd is open. Waits while a supervisor is ending. */
int home_attach(const struct home *home, int *ret_fd, struct err *err);
