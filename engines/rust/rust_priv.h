/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rust_priv.h - what the C files of the jammdb and sled engines share (common.c).
 *
 * The library itself is Rust (src/), a static library behind the functions declared in
 * jammdb.c and sled.c.
 *
 * Locking order, outermost first:
 *   apply_lock   one batch at a time
 *   gate         sled only: no snapshot begins while a batch changes the tree
 *   list_lock    the list of open snapshots
 */
#ifndef KVFS_RUST_PRIV_H
#define KVFS_RUST_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvfs/engine.h>

#include "../batch.h"
#include "../fork.h"
#include "../holder.h"
#include "../keeper.h"

#define KVFS_RUST_VALUE_MAX_BYTES ((uint32_t)1 << 20)
#define KVFS_RUST_BATCH_MAX_BYTES ((uint64_t)64 << 20)
#define KVFS_RUST_BATCH_MAX_OPS   ((uint64_t)1 << 18)
#define KVFS_RUST_SNAPSHOTS_MAX   65536u

struct kvfs_rust_store; /* Rust's: a Store of jamm.rs or sledge.rs */

struct kvfs_db {
    char *folder, *path; /* the volume's folder, the store in it */
    bool readonly;
    unsigned generation;  /* ../fork.h */
    int holder_fd;        /* ../holder.h */
    int file_fd;          /* jammdb: the store; sled: its log */
    uint64_t limit_bytes; /* store_max_bytes; 0: none */
    struct kvfs_rust_store *store;

    pthread_mutex_t apply_lock;
    atomic_bool poisoned; /* a batch's outcome is unknown */

    uint64_t map_bytes; /* jammdb: it can become no longer while it is open */
    pthread_mutex_t list_lock;
    struct kvfs_db_snap *oldest, *newest;
    uint64_t open_count;

    pthread_rwlock_t gate; /* sled */
    struct kvfs_keeper *keeper;
    uint64_t keep_bytes, cache_bytes; /* sled */
};

/* Where Rust puts a line of text (glue.rs). */
struct kvfs_rust_text {
    char *bytes;
    size_t len;
};
#define KVFS_RUST_TEXT(name) \
    char name##_bytes[200] = "";                                                    \
    const struct kvfs_rust_text name = {.bytes = name##_bytes, .len = sizeof(name##_bytes)}

/* What Rust answered, as an error of ours with the store's path. */
int kvfs_rust_error(const struct kvfs_db *db, struct kvfs_error *err, int code,
                    const struct kvfs_rust_text *text);

/* A handle for the store NAME in FOLDER that is not open yet.  NULL: no memory. */
struct kvfs_db *kvfs_rust_db_new(const char *folder, const char *name,
                                 const struct kvfs_engine_options *options);
void kvfs_rust_db_free(struct kvfs_db *db);

/* FOLDER "/" NAME, to be freed; NULL: no memory. */
char *kvfs_rust_join(const char *folder, const char *name);
/* Remove PATH and all below it, if it is there. */
void kvfs_rust_remove(const char *path);
/* Bring a folder's entries, or with ALL everything on its file system, to the medium. */
int kvfs_rust_sync_folder(const char *path, bool all);
/* The process that has a flock(2) on FD's file, as words. */
void kvfs_rust_locker(int fd, char *who, size_t len);

/* -EIO if the store is poisoned, or if its file was removed or replaced: what is written to
 * that nobody will ever find again. */
int kvfs_rust_there(struct kvfs_db *db, struct kvfs_error *err);
/* -EINVAL and -E2BIG of a batch, -EROFS, -EIO of a poisoned handle, -EBADF in a child. */
int kvfs_rust_batch_check(struct kvfs_db *db, const struct kvfs_batch *batch,
                          struct kvfs_error *err);
/* -EINVAL for a key, or the bounds of a scan, that cannot be. */
int kvfs_rust_key_check(const struct kvfs_db *db, enum kvfs_keyspace keyspace, size_t key_len,
                        struct kvfs_error *err);
int kvfs_rust_bounds_check(const struct kvfs_db *db, enum kvfs_keyspace keyspace, size_t lo_len,
                           size_t hi_len, struct kvfs_error *err);

/* What a batch puts and deletes, for room. */
struct kvfs_rust_need {
    uint64_t put_bytes; /* keys and values */
    uint64_t puts, dels;
    bool data_puts;
};
void kvfs_rust_need(const struct kvfs_batch *batch, struct kvfs_rust_need *need);
/* Room that only batches with deletes may use. */
#define KVFS_RUST_HEAD_BYTES ((uint64_t)2 << 20)

/* backup: a copy of what DB holds now, made by ENGINE in the empty folder TO. */
int kvfs_rust_copy(const struct kvfs_engine *engine, struct kvfs_db *db, const char *to,
                   kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err);

/* compact: copy the store NAME of PATH aside and put the copy in its place.  OPEN opens a
 * store whose holder the caller is. */
struct kvfs_rust_compact {
    const struct kvfs_engine *engine;
    const char *name;
    int (*open)(const char *path, const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                struct kvfs_error *err);
};
int kvfs_rust_compact(const struct kvfs_rust_compact *how, const char *path,
                      kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err);
int kvfs_rust_compact_need(const struct kvfs_engine *engine, const char *path, uint64_t *bytes,
                           struct kvfs_error *err);
#define KVFS_RUST_COMPACT "compact.tmp"

#endif /* KVFS_RUST_PRIV_H */
