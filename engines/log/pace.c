/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pace.c - writers that fill the log, a fold that empties it, and one device for both.
 *
 *  1. Writers get what is left of the ring over the time that the fold still takes: they are
 *     slowed from group to group, and are never stopped for a whole fold.  Who writes slower
 *     than that is not slowed at all.
 *  2. A fold need not be done before writers have used half of what is left: it pauses between
 *     its pieces, so that their flushes find the device idle.  When writers are slowed it does
 *     not pause, and its pieces are large: then what counts is how fast it goes down.
 *  3. What is unfolded is what the next open reads before it serves, so it is bounded by
 *     what the device reads in 100 ms.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "pace.h"

#define PACE_WINDOW_NS    50000000u
#define PACE_PART         0.3 /* of a new figure in a mean */
#define PACE_PAUSES       3u  /* the most that a fold rests, of what a piece took, */
#define PACE_PAUSE_MAX_NS 50000000u
#define PACE_WAIT_MAX_NS  20000000u /* of one group */
#define PACE_SLOWED_NS    100000000u
#define PACE_LARGER       16u
#define PACE_OPEN_S       0.1
#define PACE_LIMIT_MIN    ((uint64_t)1 << 20)
#define PACE_PROBE_BYTES  ((size_t)256 << 10)
#define PACE_PROBE_NS     25000000u
#define PACE_PROBES       16

void
kvfs_log_pace_init(struct log_pace *p, uint64_t limit_bytes)
{
    *p = (struct log_pace){.limit_bytes = limit_bytes};
    (void)pthread_mutex_init(&p->lock, NULL);
}

uint64_t
kvfs_log_pace_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t
kvfs_log_pace_room(struct log_pace *p, uint64_t ring)
{
    uint64_t limit;

    (void)pthread_mutex_lock(&p->lock);
    limit = p->limit_bytes;
    (void)pthread_mutex_unlock(&p->lock);
    return limit < ring ? limit : ring;
}

static double
pace_mean(double mean, double now)
{
    return mean > 0 ? mean + PACE_PART * (now - mean) : now;
}

/* Under lock. */
static void
pace_count(struct log_pace *p, uint64_t bytes, uint64_t now)
{
    p->window_bytes += bytes;
    if (now - p->window_ns < PACE_WINDOW_NS)
        return;
    p->in_rate = pace_mean(p->in_rate,
                           (double)p->window_bytes * 1e9 / (double)(now - p->window_ns));
    p->window_ns = now;
    p->window_bytes = 0;
}

uint64_t
kvfs_log_pace_group(struct log_pace *p, uint64_t bytes, uint64_t space, uint64_t now)
{
    uint64_t wait = 0;

    (void)pthread_mutex_lock(&p->lock);
    pace_count(p, bytes, now);
    if (p->left_bytes > 0 && p->out_bytes > 0) {
        double fold_ns = (double)p->left_bytes * p->out_ns / p->out_bytes;

        wait = p->next_ns > now ? p->next_ns - now : 0;
        if (wait > PACE_WAIT_MAX_NS)
            wait = PACE_WAIT_MAX_NS;
        if (wait > 0)
            p->slowed_ns = now;
        p->next_ns = now + wait +
                     (uint64_t)((double)bytes * fold_ns / (double)(space > bytes ? space : bytes));
    } else {
        p->next_ns = now;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return wait;
}

void
kvfs_log_pace_fold(struct log_pace *p, uint64_t bytes)
{
    (void)pthread_mutex_lock(&p->lock);
    p->left_bytes = bytes;
    (void)pthread_mutex_unlock(&p->lock);
}

uint64_t
kvfs_log_pace_piece(struct log_pace *p, uint64_t bytes, uint64_t took, uint64_t space)
{
    uint64_t most = PACE_PAUSES * took, pause;
    double part, fold_ns;

    (void)pthread_mutex_lock(&p->lock);
    p->out_bytes += (double)bytes - PACE_PART * p->out_bytes;
    p->out_ns += (double)took - PACE_PART * p->out_ns;
    part = (double)bytes / (double)(p->left_bytes > bytes ? p->left_bytes : bytes);
    p->left_bytes -= bytes < p->left_bytes ? bytes : p->left_bytes;
    fold_ns = p->in_rate > 0 ? (double)space / 2 * 1e9 / p->in_rate : 1e12;
    (void)pthread_mutex_unlock(&p->lock);
    if (most > PACE_PAUSE_MAX_NS)
        most = PACE_PAUSE_MAX_NS;
    fold_ns *= part;
    pause = fold_ns > (double)took ? (uint64_t)fold_ns - took : 0;
    return pause < most ? pause : most;
}

size_t
kvfs_log_pace_size(struct log_pace *p, size_t piece)
{
    uint64_t now = kvfs_log_pace_now();
    bool slowed;

    (void)pthread_mutex_lock(&p->lock);
    slowed = p->slowed_ns > 0 && now - p->slowed_ns < PACE_SLOWED_NS;
    (void)pthread_mutex_unlock(&p->lock);
    return slowed ? PACE_LARGER * piece : piece;
}

void
kvfs_log_pace_measure(struct log_pace *p, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    void *buffer = aligned_alloc(4096, PACE_PROBE_BYTES);
    uint64_t begun = kvfs_log_pace_now(), took = 0, bytes = 0;

    for (int i = 0; fd >= 0 && buffer != NULL && i < PACE_PROBES && took < PACE_PROBE_NS; i++) {
        ssize_t n = pread(fd, buffer, PACE_PROBE_BYTES, (off_t)bytes);

        if (n <= 0)
            break;
        bytes += (uint64_t)n;
        took = kvfs_log_pace_now() - begun;
    }
    free(buffer);
    if (fd >= 0)
        (void)close(fd);
    if (bytes == 0 || took == 0)
        return;
    bytes = (uint64_t)((double)bytes * 1e9 * PACE_OPEN_S / (double)took);
    (void)pthread_mutex_lock(&p->lock);
    p->limit_bytes = bytes > PACE_LIMIT_MIN ? bytes : PACE_LIMIT_MIN;
    (void)pthread_mutex_unlock(&p->lock);
}
