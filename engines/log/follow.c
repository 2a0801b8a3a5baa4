/* SPDX-License-Identifier: BSD-3-Clause
 *
 * follow.c - reading a store that another process may be logging at.
 *
 *  1. A snapshot of the engine below says which part of the ring it covers, and it may hold
 *     pieces of a fold that is not done.  What the ring has beyond that place, up to its end,
 *     lies over it: records that came after the snapshot began are then seen as well, records
 *     that were acknowledged before cannot be missing.
 *  2. While we read the ring its writer may fold on and overwrite what we were to read.  It
 *     moves the place first: so the place is looked at again, and if it moved all is done anew.
 *  3. Whatever goes to the engine below past the log moves the place as well: in the same batch,
 *     or, where others wrote, before the next record.  Else that record would be seen over a
 *     snapshot from before.
 *  4. What was read stays in `active` for the next snapshot, as long as the place stays.
 */
#include <errno.h>
#include <time.h>

#include "log_priv.h"

#define FOLLOW_TRIES     100u        /* a writer folds some times a second, */
#define FOLLOW_WAIT_NS   2000000000u /* into a short ring more often: at least for so long */
#define FOLLOW_BAD_TRIES 10u         /* the ring's head may be met while it is being written */
#define FOLLOW_BAD_NS    1000000L

static bool
follow_same(const struct log_place *a, const struct log_place *b)
{
    return a->epoch == b->epoch && a->tail.seq == b->tail.seq && a->tail.offset == b->tail.offset;
}

static void
follow_drop(struct kvfs_db *db)
{
    kvfs_log_view_drop(&db->active);
    kvfs_ring_close(db->ring);
    db->ring = NULL;
    atomic_store(&db->pending_bytes, 0);
}

/* Read on in the ring, or from PLACE anew. */
static int
follow_read(struct kvfs_db *db, const struct log_place *place, struct kvfs_error *err)
{
    int rc;

    if (db->ring != NULL && follow_same(&db->followed, place)) {
        struct kvfs_ring_at from = kvfs_ring_head(db->ring);

        rc = kvfs_log_ring_read(db, &from, err);
        if (rc == 0)
            kvfs_ring_release(db->ring, &db->place.tail); /* what was read before is needed */
    } else {
        follow_drop(db);
        db->followed = db->place = *place;
        rc = kvfs_log_ring_load(db, err);
    }
    if (rc != 0)
        follow_drop(db);
    return rc;
}

/* One try.  -EAGAIN: the place moved meanwhile. */
static int
follow_once(struct kvfs_db *db, struct kvfs_db_snap *below, struct kvfs_error *err)
{
    struct log_place before, after;
    struct kvfs_db_snap *again;
    int rc = kvfs_log_place_read(db, below, &before, err), looked;

    if (rc == -ENOENT) { /* nothing was ever logged, or the log was left */
        follow_drop(db);
        return 0;
    }
    if (rc != 0)
        return rc;
    kvfs_log_stop_at(db, LOG_STOP_READ);
    rc = follow_read(db, &before, err);
    looked = db->engine->begin(db->below, &again, err);
    if (looked != 0)
        return looked;
    looked = kvfs_log_place_read(db, again, &after, err);
    db->engine->end(again);
    if (looked != 0)
        return looked;
    return follow_same(&before, &after) ? rc : -EAGAIN;
}

int
kvfs_log_follow(struct kvfs_db *db, struct kvfs_db_snap **belowp, struct kvfs_error *err)
{
    const struct timespec pause = {.tv_nsec = FOLLOW_BAD_NS};
    uint64_t end = kvfs_log_pace_now() + FOLLOW_WAIT_NS;
    struct kvfs_db_snap *below;
    unsigned bad = 0;
    int rc = -EAGAIN;

    for (unsigned i = 0; rc == -EAGAIN && (i < FOLLOW_TRIES || kvfs_log_pace_now() < end); i++) {
        rc = db->engine->begin(db->below, &below, err);
        if (rc != 0)
            return rc;
        rc = follow_once(db, below, err);
        if (rc == 0)
            break;
        db->engine->end(below);
        if (rc == -EIO && ++bad < FOLLOW_BAD_TRIES) {
            (void)nanosleep(&pause, NULL);
            rc = -EAGAIN;
        }
    }
    if (rc == 0)
        *belowp = below;
    return rc == -EAGAIN ? kvfs_error_set(err, -EBUSY, "%s: its writer is too fast to be followed",
                                          db->path)
                         : rc;
}
