/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume_priv.h - what the files of kvfs/ know of an open volume.
 *
 * Locking order, outermost first:
 *   names         one change of names at a time (dir.c, xattr.c)
 *   commit_lock   one batch of contents or background work at a time (commit.c)
 *   node ranges   one writer of a block at a time (range.c)
 *   cut           shared: looking into or adding to the overlay;
 *                 exclusive: moving generations (overlay.c)
 *   nodes         the table of open files (node.c)
 *   leaves        a shard of the overlay, lead_lock (never held while waiting for
 *                 another), poison, identifiers
 */
#ifndef KVFS_VOLUME_PRIV_H
#define KVFS_VOLUME_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include <kvfs/batch.h>
#include <kvfs/kvfs.h>

#include "record.h"

struct kvfs_overlay;
struct kvfs_nodes;
struct kvfs_lease_table;
struct kvfs_worker;

struct kvfs_volume {
    /* Set at open, then constant. */
    char *path;
    const struct kvfs_engine *engine;
    struct kvfs_db *db;
    struct kvfs_super super;
    struct kvfs_engine_limits limits;
    bool readonly;
    size_t cache_bytes;
    size_t batch_bytes; /* 0: follows the volume's size */
    unsigned commit_interval_ms;
    uint64_t open_ns, open_engine_ns;

    /* volume.c: the table of open volumes */
    struct kvfs_volume *next;
    uint64_t dev, dirino;
    unsigned opens;

    pthread_mutex_t names;
    atomic_int poisoned; /* 0 or a negative errno */
    atomic_bool forked;  /* this is a child of the process that opened it */

    atomic_uint_fast64_t applies;        /* batches that were not applied DURABLE */
    atomic_uint_fast64_t applies_synced; /* that many of them are durable by now */

    pthread_mutex_t id_lock; /* numbers reserved, not yet used: [id_next, id_end) */
    uint64_t id_next, id_end;

    struct kvfs_lease_table *leases; /* lease.c */
    struct kvfs_nodes *nodes;        /* node.c */
    struct kvfs_overlay *overlay;    /* overlay.c, commit.c */
    struct kvfs_worker *worker;      /* work.c; NULL: readonly */
    unsigned work_records; /* in a piece of its work at present; under the commit lock */
};

/* --- volume.c -------------------------------------------------------------- */

/* Before anything of a volume is locked: what a forked child gives up. */
void kvfs_volume_fork_handlers(void);
/* 0, or why V can no longer be used: -EBADF in a forked child. */
int kvfs_volume_usable(struct kvfs_volume *v, struct kvfs_error *err);

/* As _usable, and -EROFS on a readonly volume, -EIO on a poisoned one. */
int kvfs_volume_writable(struct kvfs_volume *v, struct kvfs_error *err);

/* Record that the outcome of a write is unknown; answers -EIO. */
int kvfs_volume_poison(struct kvfs_volume *v, int code, struct kvfs_error *err);

/* Apply what B holds, then reset B.  Refuses on a readonly or poisoned volume
 * (-EROFS, -EIO); an unknown outcome poisons the volume and is -EIO.
 * -EAGAIN, -ENOSPC, -E2BIG, -ENOMEM: nothing changed. */
int kvfs_volume_apply(struct kvfs_volume *v, struct kvfs_batch_builder *b,
                      enum kvfs_durability durability, struct kvfs_error *err);

/* All batches counted in v->applies up to APPLIES are durable. */
void kvfs_volume_synced(struct kvfs_volume *v, uint64_t applies);

/* Make them so, if they are not. */
int kvfs_volume_sync_applies(struct kvfs_volume *v, uint64_t applies, struct kvfs_error *err);

/* Read one META record into VALUE; *len is its length.  -ENOENT; -EIO also for
 * one longer than CAP. */
int kvfs_meta_get(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_key *key,
                  void *value, size_t cap, size_t *len, struct kvfs_error *err);

/* A number never used before in this volume, for an inode, a fork or a cookie;
 * from a range reserved with `expect`, grows within one process. */
int kvfs_id_new(struct kvfs_volume *v, uint64_t *id, struct kvfs_error *err);

/* --- node.c: what names need to know of open files -------------------------- */

/* The newest acknowledged contents of a file that is open in this process for
 * writing, which may be ahead of the engine.  False: not open here, the record
 * in the engine holds. */
bool kvfs_node_contents(struct kvfs_volume *v, uint64_t ino, struct kvfs_contents_record *c);

/* The last name of regular file INO is about to be removed.  *open: it is open
 * in this process, so make it an orphan (the last close reclaims it).  If not,
 * its lease is taken, so that nobody opens it for writing until _unlink_done.
 * -EBUSY: another process holds the lease; ERR names it. */
int kvfs_node_unlink_prepare(struct kvfs_volume *v, uint64_t ino, bool *open,
                             struct kvfs_error *err);
void kvfs_node_unlink_done(struct kvfs_volume *v, uint64_t ino);

/* Add to B what removes inode INO (all keys of it) and hands its fork, if not
 * 0, with its holes and the forks over it, to the background.  SNAP finds
 * those forks. */
int kvfs_reclaim_ops(struct kvfs_volume *v, struct kvfs_db_snap *snap, struct kvfs_batch_builder *b,
                     uint64_t ino, uint64_t fork, struct kvfs_error *err);

/* Wake the background (there is new work: a dead fork, an orphan). */
void kvfs_work_wake(struct kvfs_volume *v);

#endif /* KVFS_VOLUME_PRIV_H */
