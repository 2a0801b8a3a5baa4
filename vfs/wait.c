/* SPDX-License-Identifier: BSD-3-Clause
 *
 * wait.c - waiting for a file's lease, first come first served.
 *
 * SQLite's busy handler sleeps through xSleep and then tries again.  The sleeper stands in a
 * queue meanwhile and is woken as soon as the lease is free; whoever came later is BUSY as
 * long as one before him sleeps, or slept vfs_wait_hold_ns ago at most and so is about to try.
 *
 *   BUSY --xSleep--> queued, asleep --lease free, or time is up--> queued, awake
 *                          ^                                        |  |
 *                          +-------------- BUSY again --------------+  +--> has it, or has given up
 *
 * Processes do not see each other's queues: what another one holds is tried for again at
 * intervals that grow up to WAIT_POLL_MAX_NS.
 *
 * All of it is under vfs_lock.
 */
#include <errno.h>
#include <time.h>

#include "vfs_priv.h"

#define WAIT_POLL_NS     INT64_C(100000)
#define WAIT_POLL_MAX_NS INT64_C(1600000)

int64_t vfs_wait_hold_ns = 5000000;

static struct vfs_file *wait_queue;
static _Thread_local uint64_t wait_for; /* the file for which this thread was BUSY last */

static int64_t
wait_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool
wait_same(const struct vfs_file *a, const struct vfs_file *b)
{
    return a->v == b->v && a->ino == b->ino;
}

static void
wait_remove(struct vfs_file *f)
{
    struct vfs_file **place = &wait_queue;

    while (*place != NULL && *place != f)
        place = &(*place)->wait_next;
    if (*place != NULL)
        *place = f->wait_next;
    f->waiting = false;
}

/* The first that still wants the lease of F's file; those that have given up leave. */
static struct vfs_file *
wait_first(const struct vfs_file *f)
{
    struct vfs_file *w = wait_queue;

    while (w != NULL) {
        struct vfs_file *next = w->wait_next;

        if (wait_same(w, f)) {
            if (w->sleeping || wait_now() - w->wait_seen_ns < vfs_wait_hold_ns)
                return w;
            wait_remove(w);
        }
        w = next;
    }
    return NULL;
}

/* Does a connection of this process hold it? */
static bool
wait_is_held(const struct vfs_file *f)
{
    const struct vfs_file *o = vfs_file_first();

    while (o != NULL && !(o->wait_holds && wait_same(o, f)))
        o = o->next;
    return o != NULL;
}

bool
vfs_wait_may(struct vfs_file *f)
{
    const struct vfs_file *first = NULL;

    vfs_lock();
    if (wait_queue != NULL)
        first = wait_first(f);
    vfs_unlock();
    return first == NULL || first == f;
}

void
vfs_wait_busy(const struct vfs_file *f)
{
    wait_for = f->id;
}

void
vfs_wait_clear(void)
{
    wait_for = 0;
}

void
vfs_wait_got(struct vfs_file *f)
{
    wait_for = 0;
    vfs_lock();
    f->wait_holds = true;
    if (f->waiting)
        wait_remove(f);
    vfs_unlock();
}

void
vfs_wait_freed(struct vfs_file *f)
{
    struct vfs_file *first = NULL;

    vfs_lock();
    f->wait_holds = false;
    if (wait_queue != NULL)
        first = wait_first(f);
    if (first != NULL && first->sleeping)
        (void)pthread_cond_signal(&first->wait_cond);
    vfs_unlock();
}

void
vfs_wait_leave(struct vfs_file *f)
{
    vfs_lock();
    f->wait_holds = false;
    if (f->waiting)
        wait_remove(f);
    vfs_unlock();
}

void
vfs_wait_close(struct vfs_file *f)
{
    vfs_wait_leave(f);
    vfs_lock();
    f->wait_closing = true;
    while (f->sleeping && f->generation == vfs_generation()) {
        (void)pthread_cond_broadcast(&f->wait_cond);
        vfs_lock_wait(&f->wait_cond, wait_now() + vfs_wait_hold_ns);
    }
    if (f->waiting)
        wait_remove(f);
    vfs_unlock();
}

static void
wait_append(struct vfs_file *f)
{
    struct vfs_file **place = &wait_queue;

    while (*place != NULL)
        place = &(*place)->wait_next;
    *place = f;
    f->wait_next = NULL;
    f->waiting = true;
}

/* Sleep until it is F's turn and the lease is free, or the time is up; vfs_lock held.  SQLite
 * counts its calls as if each had taken the time that it asked for, so none ends early in vain. */
static void
wait_turn(struct vfs_file *f, int64_t until)
{
    int64_t poll = WAIT_POLL_NS;
    int64_t now = wait_now();

    while (now < until && !f->wait_closing) {
        int64_t left = until - now;
        int rc;

        if (wait_first(f) != f || wait_is_held(f)) {
            /* The one before may give up, which nobody tells. */
            vfs_lock_wait(&f->wait_cond, now + (left < vfs_wait_hold_ns ? left : vfs_wait_hold_ns));
        } else { /* nobody here has it: does another process? */
            vfs_unlock();
            rc = kvfs_file_lock(f->f, NULL);
            if (rc == 0)
                kvfs_file_unlock(f->f);
            else if (rc == -EBUSY)
                (void)nanosleep(&(struct timespec){.tv_nsec = poll < left ? poll : left}, NULL);
            vfs_lock();
            if (rc != -EBUSY)
                return;
            poll = 2 * poll < WAIT_POLL_MAX_NS ? 2 * poll : WAIT_POLL_MAX_NS;
        }
        now = wait_now();
    }
}

bool
vfs_wait_sleep(int microseconds)
{
    struct vfs_file *f;

    if (wait_for == 0)
        return false;
    vfs_lock();
    f = vfs_file_first();
    while (f != NULL && f->id != wait_for)
        f = f->next;
    wait_for = 0;
    if (f != NULL && (f->generation != vfs_generation() || f->sleeping || f->wait_closing))
        f = NULL;
    if (f != NULL) {
        if (!f->waiting)
            wait_append(f);
        f->sleeping = true;
        wait_turn(f, wait_now() + (int64_t)microseconds * 1000);
        f->sleeping = false;
        f->wait_seen_ns = wait_now();
        if (f->wait_closing)
            (void)pthread_cond_broadcast(&f->wait_cond);
    }
    vfs_unlock();
    return f != NULL;
}
