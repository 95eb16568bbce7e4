/* Streams side by side: threads that wait for the word, run, and report back. */
#include <pthread.h>
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/nn/bench.h"

struct member {
    struct bench_team *team;
    struct bench_item item;
    pthread_t thread;
};

struct bench_team {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n, rounds, started;
    uint64_t go; /* runs begun: members wait for the next number */
    int running; /* members that have not finished this run */
    bool leaving;
    int result;
    struct err err; /* of the first failure */
    struct member *members;
};

static void run_rounds(struct member *m)
{
    struct bench_team *team = m->team;
    struct err err = {0};
    int rc = 0;
    for (int i = 0; rc == 0 && i < team->rounds; i++)
        rc = m->item.run(m->item.ctx, &err);
    if (rc == 0)
        return;
    pthread_mutex_lock(&team->lock);
    if (team->result == 0) {
        team->result = rc;
        team->err = err;
    }
    pthread_mutex_unlock(&team->lock);
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    struct bench_team *team = m->team;
    uint64_t done = 0;
    pthread_mutex_lock(&team->lock);
    for (;;) {
        while (team->go == done && !team->leaving)
            pthread_cond_wait(&team->changed, &team->lock);
        if (team->leaving)
            break;
        done = team->go;
        pthread_mutex_unlock(&team->lock);
        run_rounds(m);
        pthread_mutex_lock(&team->lock);
        if (--team->running == 0)
            pthread_cond_broadcast(&team->changed);
    }
    pthread_mutex_unlock(&team->lock);
    return NULL;
}

int bench_team_run(void *ctx, struct err *err)
{
    struct bench_team *team = ctx;
    pthread_mutex_lock(&team->lock);
    team->running = team->n - 1;
    team->go++;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
    run_rounds(&team->members[0]); /* the caller is the first member */
    pthread_mutex_lock(&team->lock);
    while (team->running > 0)
        pthread_cond_wait(&team->changed, &team->lock);
    int rc = team->result;
    if (rc < 0 && err)
        *err = team->err;
    pthread_mutex_unlock(&team->lock);
    return rc;
}

struct bench_team *bench_team_free(struct bench_team *team)
{
    if (!team)
        return NULL;
    pthread_mutex_lock(&team->lock);
    team->leaving = true;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
    for (int i = 1; i <= team->started; i++)
        pthread_join(team->members[i].thread, NULL);
    pthread_cond_destroy(&team->changed);
    pthread_mutex_destroy(&team->lock);
    free(team->members);
    free(team);
    return NULL;
}

void bench_team_freep(struct bench_team **team)
{
    *team = bench_team_free(*team);
}

int bench_team_new(const struct bench_item *members, int n, int rounds, struct bench_team **ret,
                   struct err *err)
{
    if (n < 1 || rounds < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "a team of %d that runs %d times", n, rounds);
    struct bench_team *new = calloc(1, sizeof(*new));
    if (!new)
        return err_oom(err, "streams");
    pthread_mutex_init(&new->lock, NULL);
    pthread_cond_init(&new->changed, NULL);
    _cleanup_(bench_team_freep) struct bench_team *team = new;
    team->n = n;
    team->rounds = rounds;
    team->members = mem_calloc((size_t)n, sizeof(*team->members));
    if (!team->members)
        return err_oom(err, "streams");
    for (int i = 0; i < n; i++)
        team->members[i] = (struct member){.team = team, .item = members[i]};
    for (int i = 1; i < n; i++) {
        int rc = pthread_create(&team->members[i].thread, NULL, member_main, &team->members[i]);
        if (rc != 0)
            return err_errno(err, rc, "stream %d of %d", i + 1, n);
        team->started = i;
    }
    *ret = TAKE_PTR(team);
    return 0;
}
