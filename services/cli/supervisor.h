#pragma once
/*
 * The supervisor: runs a private Redis and the services of one home folder, restarts what dies,
 * ends all of it together. One process, no threads; signals come through a descriptor.
 */
#include "services/cli/home.h"

struct supervisor_options {
    int64_t idle_exit_s; /* ends by itself after so long without jobs and clients; 0: never */
    int ready_fd;        /* gets "ok", or why it could not start; -1: none */
};
/* Runs until SIGTERM, SIGINT or idle. ALREADY_EXISTS when the home has a supervisor. */
int supervisor_run(const struct home *home, const struct supervisor_options *options,
                   struct err *err);
/* Starts a supervisor in a session of its own and waits until all is up. */
int supervisor_launch(const struct home *home, int64_t idle_exit_s, struct err *err);
/* Ends the supervisor of the home and waits. FAILED_PRECONDITION when none runs. */
int supervisor_stop(const struct home *home, struct err *err);
/* Whether somebody listens on a unix socket. */
bool socket_answers(const char *path);
