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

#include "log_priv.h"

#define FOLLOW_TRIES 100u /* a writer folds some times a second */

static bool
follow_same(const struct log_place *a, const struct log_place *b)
{
    return a->epoch == b->epoch && a->tail.seq == b->tail.seq && a->tail.offset == b->tail.offset;
}

/* Read on in the ring, or from PLACE anew. */
static int
follow_read(struct kvfs_db *db, const struct log_place *place, struct kvfs_error *err)
{
    struct kvfs_ring_at from;

    if (db->ring != NULL && follow_same(&db->followed, place)) {
        from = kvfs_ring_head(db->ring);
        return kvfs_log_ring_read(db, &from, err);
    }
    kvfs_log_view_drop(&db->active);
    kvfs_ring_close(db->ring);
    db->ring = NULL;
    db->followed = db->place = *place;
    if (kvfs_log_ring_open(db, err) != 0)
        return -EIO;
    return kvfs_log_ring_read(db, &db->place.tail, err);
}

/* One try.  -EAGAIN: the place moved meanwhile. */
static int
follow_once(struct kvfs_db *db, struct kvfs_db_snap *below, struct kvfs_error *err)
{
    struct log_place before, after;
    struct kvfs_db_snap *again;
    int rc = kvfs_log_place_read(db, below, &before, err), looked;

    if (rc != 0)
        return rc == -ENOENT ? 0 : rc; /* nothing was ever logged */
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
    struct kvfs_db_snap *below;
    int rc = -EAGAIN;

    for (unsigned i = 0; i < FOLLOW_TRIES && rc == -EAGAIN; i++) {
        rc = db->engine->begin(db->below, &below, err);
        if (rc != 0)
            return rc;
        rc = follow_once(db, below, err);
        if (rc != 0)
            db->engine->end(below);
    }
    if (rc == 0)
        *belowp = below;
    return rc == -EAGAIN ? kvfs_error_set(err, -EBUSY, "%s: its writer is too fast to be followed",
                                          db->path)
                         : rc;
}
