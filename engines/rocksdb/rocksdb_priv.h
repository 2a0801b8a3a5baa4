/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rocksdb_priv.h - what the files of the rocksdb engine know of an open store.
 *
 * Locking order, outermost first:
 *   apply_lock   room is looked for and granted, what was deleted is compacted away
 *   write_lock   shared by batches that are written, exclusive for one that expects
 *   pool_lock    the list of open snapshots
 */
#ifndef KVFS_ROCKSDB_PRIV_H
#define KVFS_ROCKSDB_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rocksdb/c.h>

#include <kvfs/engine.h>

#include "../batch.h"
#include "../fork.h"

#define KVFS_ROCKS_VALUE_MAX_BYTES (16u << 20)
#define KVFS_ROCKS_BATCH_MAX_BYTES (256u << 20)
#define KVFS_ROCKS_BATCH_MAX_OPS   (1u << 20)
/* Room that only batches with deletes may use: the log and one flush of each family. */
#define KVFS_ROCKS_HEAD_BYTES      ((uint64_t)4 << 20)
#define KVFS_ROCKS_BLOB_CUTOFF     0.5 /* blob files up to that age are collected */
#define KVFS_ROCKS_BLOB_FILE       ((uint64_t)64 << 20)

enum { ROCKS_DEFAULT, ROCKS_META, ROCKS_DATA, ROCKS_FAMILIES };

struct kvfs_db {
    char *folder, *current_path; /* of the file CURRENT, without which there is no store */
    bool readonly;
    unsigned generation;  /* of the process; ../fork.h */
    uint64_t limit_bytes; /* store_max_bytes; 0: none */
    bool unsafe_nosync;   /* tests only */
    uint64_t memtable_bytes; /* of data; of meta a quarter */
    uint64_t cache_bytes; /* of tables, indexes and blocks; 0: as built, without blocks */
    int holder_fd;        /* ../holder.h */

    rocksdb_t *db;
    rocksdb_options_t *options, *family_options[ROCKS_FAMILIES];
    rocksdb_column_family_handle_t *family[ROCKS_FAMILIES];
    rocksdb_cache_t *cache;
    rocksdb_writeoptions_t *write_plain, *write_sync;

    pthread_mutex_t apply_lock;
    uint64_t room_bytes;            /* granted to batches to come */
    _Atomic uint64_t writing_bytes; /* to those that are written */
    pthread_rwlock_t write_lock;
    bool collects;       /* blob files, on its own; under apply_lock */
    uint64_t reclaim_next; /* ms: when a large store may be rewritten again; under apply_lock */
    atomic_int poisoned;
    atomic_uint_fast64_t commits;

    pthread_mutex_t pool_lock;
    struct kvfs_db_snap *oldest, *newest;
    uint64_t open_count;
};

struct kvfs_db_snap {
    struct kvfs_db *db;
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *read;
    struct kvfs_db_snap *older, *newer;
    uint64_t commits;
};

/* TEXT, RocksDB's words for a failure (freed), as a negative errno with one line. */
int kvfs_rocks_error(struct kvfs_error *err, char *text, const char *path, const char *what);

int kvfs_rocks_open(const struct kvfs_engine *self, const char *path,
                    const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                    struct kvfs_error *err);
void kvfs_rocks_close(struct kvfs_db *db);

/* RocksDB found damage at opening: cut off the edits at the end of MANIFEST that a power cut tore
 * before they were synced.  True: there were some; opening again may succeed (readonly: nothing is cut). */
bool kvfs_rocks_cut_manifest(const struct kvfs_db *db);

int kvfs_rocks_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err);
void kvfs_rocks_end(struct kvfs_db_snap *snap);
int kvfs_rocks_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
                   size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
                   size_t *value_len, struct kvfs_error *err);
int kvfs_rocks_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                           size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                           struct kvfs_db_cursor **cursorp, struct kvfs_error *err);
int kvfs_rocks_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                           size_t *value_len, struct kvfs_error *err);
int kvfs_rocks_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                            int iov_count, struct kvfs_error *err);
void kvfs_rocks_cursor_close(struct kvfs_db_cursor *c);

int kvfs_rocks_apply(struct kvfs_db *db, const struct kvfs_batch *batch,
                     enum kvfs_durability durability, struct kvfs_error *err);
int kvfs_rocks_sync(struct kvfs_db *db, struct kvfs_error *err);

/* Bring the log's records into tables, and wait for that. */
void kvfs_rocks_flush(struct kvfs_db *db);
struct kvfs_rocks_room {
    uint64_t medium_bytes; /* that the file system has beside what is in memory and the log, */
    uint64_t room_bytes;   /* the same, or less by the limit */
    uint64_t store_bytes;  /* that the store takes */
    uint64_t live_bytes;   /* and of that the records, as RocksDB estimates */
    uint64_t tables_bytes; /* of both families: what compacting them writes anew */
    uint64_t blobs_bytes, garbage_bytes; /* in blob files, and of that of no use any more */
    uint64_t memory_bytes;
};
void kvfs_rocks_room(struct kvfs_db *db, struct kvfs_rocks_room *r);
/* Rewrite the families without what was deleted, as far as there is room to do so. */
void kvfs_rocks_squeeze(struct kvfs_db *db);
/* Collecting blob files needs room; RocksDB does so on its own only where there is enough. */
void kvfs_rocks_collect(struct kvfs_db *db, const struct kvfs_rocks_room *r);

#endif /* KVFS_ROCKSDB_PRIV_H */
