/* SPDX-License-Identifier: BSD-3-Clause
 *
 * group.c - group commit: whoever needs a commit makes it; who comes meanwhile waits for
 * its end, and one of them leads the next for all others, whatever file and handle they came
 * from.
 *
 * 1. One leads (`leading`, under lead_lock) or nobody waits.
 * 2. A waiter is woken once: served by a commit that covered it, or to lead.
 *
 * Locks: commit_lock and lead_lock, never both at once.
 */
#include <semaphore.h>

#include "overlay.h"
#include "testbug.h"
#include "volume_priv.h"

#define GROUP_ROUNDS 3 /* led by one thread, if others wait all the time */

/* Take W off the list. */
static void
group_remove(struct kvfs_overlay *o, struct kvfs_commit_waiter **place)
{
    struct kvfs_commit_waiter *w = *place;

    *place = w->next;
    if (o->waiters_end == &w->next)
        o->waiters_end = place;
}

/* After a commit, lead_lock held: those that have what they want go onto *served; *id,
 * *durability: what the others want.  False: nobody waits. */
static bool
group_serve(struct kvfs_overlay *o, uint64_t *id, enum kvfs_durability *durability,
            struct kvfs_commit_waiter **served)
{
    struct kvfs_commit_waiter **place = &o->waiters;

    *served = NULL;
    *id = 0;
    *durability = KVFS_ORDERED;
    while (*place != NULL) {
        struct kvfs_commit_waiter *w = *place;

        if (kvfs_commit_is_done(o, w->id, w->durability)) {
            group_remove(o, place);
            w->done = true;
            *served = w;
            served = &w->next_woken;
            continue;
        }
        if (w->id > *id)
            *id = w->id;
        if (w->durability > *durability)
            *durability = w->durability;
        place = &w->next;
    }
    return o->waiters != NULL;
}

/* Each wakes the next one: whoever leads has a commit to make meanwhile. */
static void
group_wake(struct kvfs_commit_waiter *w)
{
    if (w != NULL)
        (void)sem_post(&w->wake); /* then it is no longer ours to look at */
}

/* Commit, for whoever waits.  The next batch follows at once, by the same thread: another would
 * have to be woken first, beside all those that were served.  After a few it is another's turn. */
static int
group_lead(struct kvfs_volume *v, uint64_t id, enum kvfs_durability durability,
           struct kvfs_error *err)
{
    struct kvfs_overlay *o = v->overlay;
    bool more = true;
    int rc = 0;

    for (unsigned round = 0; more; round++) {
        struct kvfs_commit_waiter *woken;
        int one;

        (void)pthread_mutex_lock(&o->commit_lock);
        one = kvfs_commit_is_done(o, id, durability)
                  ? 0
                  : kvfs_commit_locked(v, id, durability, round == 0 ? err : NULL);
        (void)pthread_mutex_unlock(&o->commit_lock);
        if (round == 0)
            rc = one;
        (void)pthread_mutex_lock(&o->lead_lock);
        more = group_serve(o, &id, &durability, &woken);
        if (!more) {
            o->leading = false;
        } else if (one < 0 || round + 1 >= GROUP_ROUNDS) {
            struct kvfs_commit_waiter *next = o->waiters;

            group_remove(o, &o->waiters);
            next->next_woken = woken; /* it leads; an error is met again by it */
            woken = next;
            more = false;
        }
        (void)pthread_mutex_unlock(&o->lead_lock);
        group_wake(woken);
    }
    return rc;
}

/* Until somebody has committed all of W, or it is W's turn to lead. */
static void
group_await(struct kvfs_commit_waiter *w)
{
    while (sem_wait(&w->wake) != 0)
        ; /* a signal */
    group_wake(w->next_woken);
}

int
kvfs_commit(struct kvfs_volume *v, uint64_t id, enum kvfs_durability durability,
            struct kvfs_error *err)
{
    struct kvfs_overlay *o = v->overlay;
    struct kvfs_commit_waiter w = {.id = id, .durability = durability};
    bool waits;
    int rc;

    if (kvfs_test_bug("flush-early"))
        return 0;
    rc = kvfs_volume_writable(v, err); /* a poisoned volume promises nothing more */
    if (rc < 0)
        return rc;
    /* Waiting for the commit lock itself, one served by the last commit would sit out
     * the next one as well, and take no further request meanwhile. */
    (void)pthread_mutex_lock(&o->lead_lock);
    w.done = kvfs_commit_is_done(o, id, durability);
    waits = !w.done && o->leading;
    if (waits) {
        (void)sem_init(&w.wake, 0, 0);
        *o->waiters_end = &w;
        o->waiters_end = &w.next;
    } else if (!w.done) {
        o->leading = true;
    }
    (void)pthread_mutex_unlock(&o->lead_lock);
    if (waits) {
        group_await(&w);
        (void)sem_destroy(&w.wake);
    }
    return w.done ? 0 : group_lead(v, id, durability, err);
}
