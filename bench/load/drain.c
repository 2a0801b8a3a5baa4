/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "drain.h"
#include "watch.h"

#define DRAIN_POLL_NS     10000000L
#define DRAIN_QUIET_POLLS 4
#define DRAIN_QUIET_CPU   20 /* a poll used less than one part in so many */

static double
drain_now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct drain_state {
    struct watch_counters c;
    struct load_info info;
    unsigned busy;
};

static int
drain_look(const struct load_layer *layer, struct load_store *s, struct drain_state *state,
           struct kvfs_error *err)
{
    watch_read(NULL, &state->c);
    state->busy = watch_busy_threads();
    return layer->info(s, &state->info, err);
}

static bool
drain_quiet(const struct drain_state *was, const struct drain_state *is)
{
    return is->busy == 0 && is->c.cpu_ns - was->c.cpu_ns < DRAIN_POLL_NS / DRAIN_QUIET_CPU &&
           is->c.io_written == was->c.io_written && is->info.behind == was->info.behind;
}

static int
drain_settle(const struct load_layer *layer, struct load_store *s, bool (*interrupted)(void),
             struct kvfs_error *err)
{
    int rc;

    while ((rc = layer->settle(s, err)) > 0)
        if (interrupted != NULL && interrupted())
            return kvfs_error_set(err, -EINTR, "interrupted");
    return rc;
}

/* Never by opening the store's files: that would end the engine's locks on them. */
static void
drain_sync(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)syncfs(fd);
    (void)close(fd);
}

int
load_drain(const struct load_layer *layer, struct load_store *s, const char *folder,
           bool sync_all, bool (*interrupted)(void), double *seconds, bool *drained,
           struct kvfs_error *err)
{
    const struct timespec poll = {.tv_nsec = DRAIN_POLL_NS};
    double start = drain_now_s(), quiet_since, synced;
    struct drain_state was, is;
    int quiet = 0, rc = drain_settle(layer, s, interrupted, err);

    if (sync_all)
        drain_sync(folder);
    synced = quiet_since = drain_now_s();
    if (rc == 0)
        rc = drain_look(layer, s, &was, err);
    while (rc == 0 && quiet < DRAIN_QUIET_POLLS && drain_now_s() - start < DRAIN_MAX_S) {
        if (interrupted != NULL && interrupted())
            return kvfs_error_set(err, -EINTR, "interrupted");
        (void)nanosleep(&poll, NULL); /* nothing tells when it begins to be quiet */
        rc = drain_look(layer, s, &is, err);
        if (rc != 0)
            break;
        quiet = drain_quiet(&was, &is) ? quiet + 1 : 0;
        if (quiet == 0)
            quiet_since = drain_now_s();
        was = is;
    }
    if (rc != 0)
        return rc;
    if (sync_all && quiet_since > synced)
        drain_sync(folder);
    *seconds = quiet_since - start;
    *drained = quiet == DRAIN_QUIET_POLLS;
    return 0;
}
