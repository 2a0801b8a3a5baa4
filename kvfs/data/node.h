/* SPDX-License-Identifier: BSD-3-Clause
 *
 * node.h - a regular file that is in use in this process (node.c).
 */
#ifndef KVFS_NODE_H
#define KVFS_NODE_H

#include "range.h"
#include "view.h"

struct kvfs_node {
    struct kvfs_node *next; /* in the table's chain */
    struct kvfs_volume *v;
    uint64_t ino;

    /* Under the table's lock. */
    unsigned refs;    /* handles, layers */
    unsigned writers; /* handles open for writing */
    const void *locked_by; /* the handle that holds kvfs_file_lock(); NULL: none */
    bool orphan;      /* no name is left: reclaim at the last use */
    bool unlinking;    /* its last name is being removed: a new writer waits */
    unsigned starting; /* writers about to take the lease */
    bool working;      /* background work is using the view: commit lock and cut lock */
    bool behind;       /* given up with holes or forks over it still to be worked off */

    /* LEASED changes under the table's lock and the cut lock, exclusive; either
     * lock is enough to read it.  While it is set `view` is what the engine
     * holds (cut lock) and `mem` what was acknowledged. */
    bool leased;
    struct kvfs_view view;
    struct kvfs_contents_record mem; /* cut lock shared + mem_lock, or exclusive */
    pthread_mutex_t mem_lock;
    uint64_t version_top; /* given here last: one that failed had it too; as `mem` */
    int64_t leased_ns;    /* since when, CLOCK_MONOTONIC; as LEASED */
    int64_t rest_ns;      /* until then other processes have the first chance; table's lock */
    atomic_uint_fast64_t dirty_id; /* newest layer that holds something of it */
    /* While the lease was elsewhere another process may have written it.  Counts how often it was
     * taken here, and up to which time a flush has made durable what was seen then. */
    atomic_uint leases, leases_flushed;
    struct kvfs_ranges ranges;
};

struct kvfs_file {
    struct kvfs_node *node;
    unsigned flags; /* KVFS_OPEN_* */
    struct kvfs_file_info info; /* of a handle on a file that is not leased here */
    pthread_mutex_t info_lock;
};

/* The file's next version: one that nobody has seen, not even of what failed.  As `mem`. */
uint64_t kvfs_node_version_next(struct kvfs_node *node);

/* The size of a leased file, as acknowledged. */
uint64_t kvfs_node_size(struct kvfs_node *node);

int kvfs_nodes_new(struct kvfs_nodes **nodesp);
void kvfs_nodes_free(struct kvfs_nodes *nodes);

/* The node of INO, with a reference; made if missing (nothing is read). */
int kvfs_node_get(struct kvfs_volume *v, uint64_t ino, struct kvfs_node **nodep);
void kvfs_node_hold(struct kvfs_node *node);
/* The last reference of an orphan removes the inode. */
void kvfs_node_put(struct kvfs_node *node);
/* Give the lease up if nobody writes and nothing waits to be written; cut lock
 * held, exclusive. */
void kvfs_node_release_locked(struct kvfs_node *node);

/* Become a writer: take the lease for this process, if it has not got it, and
 * load what the engine holds.  -EBUSY, -ENOENT, -EIO, -EROFS. */
int kvfs_node_write_begin(struct kvfs_node *node, struct kvfs_error *err);
void kvfs_node_write_end(struct kvfs_node *node);

/* kvfs_file_lock(): exclusive in this process too, but for OWN_WRITERS, the
 * owner's own handles that are open for writing. */
int kvfs_node_lock(struct kvfs_node *node, const void *owner, unsigned own_writers,
                   struct kvfs_error *err);
void kvfs_node_unlock(struct kvfs_node *node, const void *owner);

/* Remove orphan INO, which a process that died left, unless it is in use. */
void kvfs_node_orphan_left(struct kvfs_volume *v, uint64_t ino);

bool kvfs_node_is_locked(struct kvfs_node *node, const void *owner);

/* Take the lease for background work, without being a writer: in this process nobody is kept
 * off by it, and kvfs_node_release_locked() gives it back.  0 also when it is leased;
 * -EBUSY: another process writes; -ENOENT, -EIO. */
int kvfs_node_borrow(struct kvfs_node *node);

/* Call FN for each node that is leased or behind, with a reference held; a non-zero answer
 * stops and is returned. */
int kvfs_node_each(struct kvfs_volume *v, int (*fn)(void *arg, struct kvfs_node *node), void *arg);

#endif /* KVFS_NODE_H */
