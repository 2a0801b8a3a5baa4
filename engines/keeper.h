/* SPDX-License-Identifier: BSD-3-Clause
 *
 * keeper.h - snapshots for an engine that has none but writes one batch at a time.
 *
 * While a snapshot is open the keeper holds, for each key that a batch changes, the
 * value that the key had before.  A snapshot reads the live store *first* and asks the
 * keeper *then*: what is kept for it overrides what was read.
 *
 * That is exact: a writer keeps the old value before it changes the store.  So if nothing
 * is kept when the reader asks, no batch since the snapshot had touched the key when the
 * live value was read.
 *
 * What the engine must do:
 *   - one batch at a time: kvfs_keeper_keep() for every key that it will change, then the
 *     change, then kvfs_keeper_done();
 *   - kvfs_keeper_begin() never between the first _keep and _done of a batch;
 *   - live reads that see a key either before or after a change of it.
 *
 * Memory is bounded: beyond the bound the oldest snapshot is given up and answers -ESTALE
 * from then on.  Threads: any.
 */
#ifndef KVFS_ENGINES_KEEPER_H
#define KVFS_ENGINES_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <kvfs/engine.h>

struct kvfs_keeper;

struct kvfs_keeper_snap { /* the caller's memory; its members are the keeper's */
    uint64_t batches;     /* done when it began */
    bool stale;
    struct kvfs_keeper_snap *older, *newer;
};

/* MAX_BYTES of memory, all told; a little more while one value is added.  NULL: no memory. */
struct kvfs_keeper *kvfs_keeper_new(size_t max_bytes);
void kvfs_keeper_free(struct kvfs_keeper *k); /* no snapshot is open; NULL: nothing */

void kvfs_keeper_begin(struct kvfs_keeper *k, struct kvfs_keeper_snap *snap);
void kvfs_keeper_end(struct kvfs_keeper *k, struct kvfs_keeper_snap *snap);

/* Must old values be kept?  Stays false through a batch. */
bool kvfs_keeper_wanted(struct kvfs_keeper *k);
/* Before the batch at hand changes KEY: it holds VALUE, NULL if there is no such record.
 * The first call of a batch for a key counts.  Without memory the snapshots are given up. */
void kvfs_keeper_keep(struct kvfs_keeper *k, enum kvfs_keyspace keyspace, const void *key,
                      size_t key_len, const void *value, size_t value_len);
/* The batch at hand is in the live store. */
void kvfs_keeper_done(struct kvfs_keeper *k);

/* Batches done; how many snapshots are open, and how many batches the oldest is behind. */
uint64_t kvfs_keeper_readers(struct kvfs_keeper *k, uint64_t *lag);

enum {
    KVFS_KEEPER_LIVE = 0,   /* nothing is kept: what was read live is right */
    KVFS_KEEPER_VALUE = 1,  /* this is the value */
    KVFS_KEEPER_ABSENT = 2, /* there was no such record */
};

/* What KEY was for SNAP.  Its value is copied as kvfs_engine.get does; VALUE_LEN may be NULL.
 * One of the above, or -ESTALE. */
int kvfs_keeper_get(struct kvfs_keeper *k, const struct kvfs_keeper_snap *snap,
                    enum kvfs_keyspace keyspace, const void *key, size_t key_len, size_t offset,
                    const struct iovec *iov, int iov_count, size_t *value_len);

/* A bound of a search: from KEY on, or behind it; before KEY for one in reverse, where
 * key_len 0 is the keyspace's end. */
struct kvfs_keeper_bound {
    const void *key;
    size_t key_len;
    bool behind;
    bool reverse;
};
/* The nearest key of which something is kept for SNAP, even if it was absent.
 * 1: *KEY_LEN and KEY (KVFS_META_KEY_MAX bytes) are set; 0: none; -ESTALE. */
int kvfs_keeper_near(struct kvfs_keeper *k, const struct kvfs_keeper_snap *snap,
                     enum kvfs_keyspace keyspace, const struct kvfs_keeper_bound *bound, void *key,
                     size_t *key_len);

#endif /* KVFS_ENGINES_KEEPER_H */
