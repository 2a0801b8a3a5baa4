/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sqlite_priv.h - what the files of the sqlite engine know of an open store.
 *
 * Locking order, outermost first:
 *   apply_lock   one batch at a time; the writer's connection
 *   pool_lock    idle connections, the list of open snapshots
 * Nothing that waits for the medium happens under pool_lock.
 */
#ifndef KVFS_SQLITE_PRIV_H
#define KVFS_SQLITE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sqlite3.h>

#include <kvfs/engine.h>

#include "../batch.h"
#include "../fork.h"

#define KVFS_SQ_FILE            "store.sqlite"
#define KVFS_SQ_VALUE_MAX_BYTES (16u << 20)
#define KVFS_SQ_BATCH_MAX_BYTES (256u << 20)
#define KVFS_SQ_BATCH_MAX_OPS   (1u << 20)
#define KVFS_SQ_SNAPSHOTS_MAX   256u
#define KVFS_SQ_IDLE_MAX        16u /* connections kept for the next snapshot */
#define KVFS_SQ_PAGE            4096
#define KVFS_SQ_APPLICATION_ID  0x4b564653 /* "KVFS" */

enum sq_sql { /* statements that a connection keeps; conn.c has their texts */
    SQ_BEGIN,
    SQ_BEGIN_IMMEDIATE,
    SQ_COMMIT,
    SQ_ROLLBACK,
    SQ_COUNTS,
    SQ_COUNTS_ADD,
    SQ_PAGES,
    SQ_FREE_PAGES,
    SQ_GET, /* from here on one for each keyspace */
    SQ_UPDATE = SQ_GET + 2,
    SQ_INSERT = SQ_UPDATE + 2,
    SQ_DELETE = SQ_INSERT + 2,
    SQ_DELETE_RANGE = SQ_DELETE + 2, /* [?1, ?2) */
    SQ_DELETE_FROM = SQ_DELETE_RANGE + 2, /* [?1, end) */
    SQ_SCAN = SQ_DELETE_FROM + 2, /* + keyspace + 2 * SQ_SCAN_* */
    SQ_COUNT = SQ_SCAN + 16
};
enum { SQ_SCAN_REVERSE = 1, SQ_SCAN_KEYS = 2, SQ_SCAN_TO = 4 };

struct sq_conn {
    sqlite3 *db;
    sqlite3_stmt *stmt[SQ_COUNT];
    struct kvfs_db *owner;
    uint64_t cache_kib; /* its part of the cache now */
    int patience; /* times to ask again who is in the way; 0: without end */
    struct sq_conn *next; /* idle list */
};

struct kvfs_db {
    char *folder, *path; /* of KVFS_SQ_FILE */
    char *wal_path;
    bool readonly;
    bool immutable; /* readonly, and nobody can write the medium: no locks, no log */
    unsigned generation;  /* of the process; fork.c */
    uint64_t limit_bytes; /* store_max_bytes; 0: none */
    bool unsafe_nosync;   /* tests only */
    uint64_t cache_bytes; /* of all connections; 0: as built, for each */
    atomic_uint conns;    /* open ones */

    pthread_mutex_t apply_lock;
    struct sq_conn *writer; /* NULL: readonly */
    bool full;     /* the writer is at synchronous = FULL, else NORMAL */
    atomic_int wal_pages; /* frames in the log after the last commit */
    int wal_pages_waited; /* as many were there when a checkpoint waited for readers */
    atomic_int poisoned;
    int file_fd, wal_fd;         /* for reserving; closed after all connections */
    uint64_t file_reserved_bytes, wal_reserved_bytes;
    bool no_fallocate;

    pthread_mutex_t pool_lock;
    pthread_cond_t pool_cond; /* a snapshot ended */
    struct sq_conn *idle;
    unsigned idle_count, open_count;
    struct kvfs_db_snap *oldest, *newest;
};

struct kvfs_db_snap {
    struct kvfs_db *db;
    struct sq_conn *conn;
    struct kvfs_db_snap *older, *newer;
    uint64_t commits; /* of the store when it began */
};

struct sq_counts {
    int64_t records[2]; /* by keyspace */
    int64_t commits;
};

/* --- conn.c: one connection, and the one translator of codes -------------------- */

int kvfs_sq_conn_open(struct kvfs_db *db, int flags, struct sq_conn **connp,
                      struct kvfs_error *err);
void kvfs_sq_conn_close(struct sq_conn *c);
/* Give the connection its part of the cache, which other connections change: before a transaction. */
int kvfs_sq_conn_cache(struct sq_conn *c);
/* The statement, reset and without bindings; NULL with the code in *rc. */
sqlite3_stmt *kvfs_sq_stmt(struct sq_conn *c, int which, int *rc);
/* Run one that answers no row: SQLITE_OK or a code. */
int kvfs_sq_run(struct sq_conn *c, int which);
int kvfs_sq_exec(struct sq_conn *c, const char *sql);
int kvfs_sq_bind(sqlite3_stmt *stmt, int at, const void *key, size_t len);
int kvfs_sq_counts(struct sq_conn *c, struct sq_counts *counts);
/* A number that a statement without parameters answers. */
int kvfs_sq_number(struct sq_conn *c, int which, int64_t *n);
/* RC, an extended result code, as a negative errno with one line. */
int kvfs_sq_error(struct kvfs_error *err, int rc, struct sq_conn *c, const char *path,
                  const char *what);

extern const struct kvfs_engine kvfs_engine_sqlite;

/* --- the rest ---------------------------------------------------------------------- */

int kvfs_sq_open(const struct kvfs_engine *self, const char *path,
                 const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                 struct kvfs_error *err);
void kvfs_sq_close(struct kvfs_db *db);

int kvfs_sq_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err);
void kvfs_sq_end(struct kvfs_db_snap *snap);
int kvfs_sq_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
                size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
                size_t *value_len, struct kvfs_error *err);
int kvfs_sq_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                        size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                        struct kvfs_db_cursor **cursorp, struct kvfs_error *err);
int kvfs_sq_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                        size_t *value_len, struct kvfs_error *err);
int kvfs_sq_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                         int iov_count, struct kvfs_error *err);
void kvfs_sq_cursor_close(struct kvfs_db_cursor *c);

int kvfs_sq_apply(struct kvfs_db *db, const struct kvfs_batch *batch,
                  enum kvfs_durability durability, struct kvfs_error *err);
int kvfs_sq_sync(struct kvfs_db *db, struct kvfs_error *err);

/* Empty the log, outside of a transaction, as far as readers let it: has it become empty? */
bool kvfs_sq_room_shrink(struct kvfs_db *db);
/* Is there room for a batch?  0 or -ENOSPC.  Inside a write transaction. */
int kvfs_sq_room_check(struct kvfs_db *db, const struct kvfs_batch *batch, struct kvfs_error *err);
/* Keep the headroom for deletes reserved; after a batch. */
void kvfs_sq_room_reserve(struct kvfs_db *db);
uint64_t kvfs_sq_room_avail(struct kvfs_db *db, uint64_t pages, uint64_t free_pages,
                            bool log_is_pinned);

int kvfs_sq_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg,
                   kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err);
int kvfs_sq_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                               struct kvfs_error *err);
int kvfs_sq_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
                    void *progress_arg, struct kvfs_error *err);
int kvfs_sq_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress,
                   void *progress_arg, struct kvfs_error *err);

/* --- pagesum.c: a checksum behind every page ------------------------------------------ */

#define KVFS_SQ_VFS "kvfs-pagesum"
/* Register the VFS, once a process.  SQLITE_OK or a code. */
int kvfs_sq_pagesum_register(void);

#endif /* KVFS_SQLITE_PRIV_H */
