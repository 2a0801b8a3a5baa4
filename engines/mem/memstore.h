/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memstore.h - the stores of the mem engine that live in this process.
 *
 * A store is two trees in memory.  In its folder lies a file `mem`, its marker:
 * a store lives as long as this file and this process do.
 */
#ifndef KVFS_MEMSTORE_H
#define KVFS_MEMSTORE_H

#include <pthread.h>

#include <kvfs/engine.h>

#include "memtree.h"

struct kvfs_memstore {
    struct kvfs_memstore *next; /* memstore.c's table, and the next two */
    int marker;                 /* its descriptor */
    bool open;

    /* One apply at a time; outside `lock`. */
    pthread_mutex_t writer;
    struct kvfs_memsource source;

    /* Guards all below, for instants only. */
    pthread_mutex_t lock;
    struct kvfs_memtree *roots[2]; /* by keyspace: the newest state */
    uint64_t commits;
    struct kvfs_db_snap *oldest, *newest; /* open snapshots, in order */
    uint64_t snaps;
};

/* Claim the store of folder PATH, making it if there is none and CREATE is set.
 * -ENOENT: none here, or it was another process's; -EBUSY: claimed already. */
int kvfs_memstore_claim(const char *path, bool create, struct kvfs_memstore **storep,
                        struct kvfs_error *err);
void kvfs_memstore_release(struct kvfs_memstore *store);

#endif /* KVFS_MEMSTORE_H */
