#include "services/cli/follow.h"

#include <signal.h>
#include <string.h>

#include "services/cli/cli.h"
#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define WAIT_MS 500 /* also how long Ctrl-C may go unnoticed */
#define EVENTS 200
#define QUIET_NS ((int64_t)3000000000) /* without an event: something may be wrong */
#define LITTLE_ROOM ((int64_t)1 << 20)

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static void set_handler(bool on)
{
    struct sigaction action = {.sa_handler = on ? on_interrupt : SIG_DFL};
    sigemptyset(&action.sa_mask);
    if (on)
        action.sa_flags = SA_RESETHAND; /* a second Ctrl-C ends at once */
    sigaction(SIGINT, &action, NULL);
}

/* One poll: shows the events and remembers the last one's id. */
static int poll_events(struct session *session, const char *job, struct screen *screen,
                       char after[32], char ret_state[16], size_t *ret_n, struct err *err)
{
    Hone__V1__WatchRequest request = HONE__V1__WATCH_REQUEST__INIT;
    request.job_id = (char *)job;
    request.after = after;
    request.wait_ms = WAIT_MS;
    request.max = EVENTS;
    _cleanup_(rpc_message_freep) Hone__V1__WatchResponse *reply = NULL;
    int r = session_call(session, "Watch", &request.base, 0, &reply, err);
    if (r < 0)
        return r;
    screen->now_ns = clock_now_ns(NULL);
    for (size_t i = 0; i < reply->n_events; i++) {
        screen_event(screen, reply->events[i]->json);
        if (!str_copy(after, 32, reply->events[i]->id))
            return err_set(err, ERR_INTERNAL, "job %s: event with an id that is too long", job);
    }
    str_copy(ret_state, 16, reply->state);
    *ret_n = reply->n_events;
    return 0;
}

/* Nothing has happened for a while: a full disk is a reason that no event can tell, for events are
 * written to it. Said once. */
static void look_for_room(const struct session *session, struct screen *screen, bool *said)
{
    const char *dir = session->remote ? NULL : session->home.dir;
    int64_t room = dir && !*said ? fs_room(dir) : -1;
    if (room < 0 || room >= LITTLE_ROOM)
        return;
    *said = true;
    screen_event(screen,
                 "{\"type\":\"warning\",\"text\":\"The disk of Hone's home folder is full: work "
                 "waits until there is room.\"}");
}

static int follow(struct session *session, const char *job, struct screen *screen,
                  char ret_state[16], struct err *err)
{
    char after[32] = "0";
    bool said = false;
    int64_t last_ns = clock_now_ns(NULL); /* when something happened */
    for (;;) {
        size_t n = 0;
        int64_t begin = clock_now_ns(NULL);
        int r = poll_events(session, job, screen, after, ret_state, &n, err);
        if (r < 0)
            return r;
        if (n > 0)
            last_ns = begin;
        else if (begin - last_ns > QUIET_NS)
            look_for_room(session, screen, &said);
        if (interrupted)
            return err_set(err, ERR_CANCELLED, "%s", "interrupted");
        if (n == 0 && strcmp(ret_state, "running") != 0)
            return 0;
        /* A server with many watchers answers at once instead of waiting. */
        int64_t took_ms = (clock_now_ns(NULL) - begin) / 1000000;
        if (n == 0 && took_ms < WAIT_MS / 2)
            clock_sleep_ms(WAIT_MS - took_ms);
    }
}

int follow_job(struct session *session, const char *job, struct screen *screen, char ret_state[16],
               struct err *err)
{
    interrupted = 0;
    set_handler(true);
    int r = follow(session, job, screen, ret_state, err);
    set_handler(false);
    screen_close(screen);
    return r;
}

int follow_say_interrupted(const struct session *session, const char *home_flag, const char *job)
{
    _cleanup_(freep) char *home = home_flag ? str_printf(" --home %s", home_flag) : strdup("");
    const char *h = home ? home : "";
    int width = (int)(strlen("hone cancel ") + strlen(job) + strlen(h));
    fprintf(stderr, "\nThe job goes on without this window:\n");
    fprintf(stderr, "  hone watch %s%s    shows it again\n", job, h);
    fprintf(stderr, "  hone get %s%s      fetches the best that it has reached\n", job, h);
    fprintf(stderr, "  hone cancel %s%s   ends it\n", job, h);
    if (!session->remote)
        fprintf(stderr,
                "  hone down%-*s   stops everything; the job waits for the next 'hone up'\n",
                width - (int)strlen("hone down"), h);
    return CLI_INTERRUPTED;
}
