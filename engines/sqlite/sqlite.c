/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sqlite.c - the sqlite engine: its parts, and what a store says of itself.
 *
 * One database in WAL mode, store.sqlite in the store's folder, with a table for each
 * keyspace and one row of counters.  The parts:
 *
 *   open.c   opening, making, closing     conn.c     a connection, its statements, codes
 *   read.c   snapshots, gets, scans       apply.c    write transactions
 *   room.c   space, headroom              pagesum.c  a checksum behind every page
 *   upkeep.c verify, compact, backup
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sqlite_priv.h"

static void
sqlite_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    (void)db;
    limits->value_max_bytes = KVFS_SQ_VALUE_MAX_BYTES;
    limits->value_best_bytes = 4096;
    limits->batch_max_bytes = KVFS_SQ_BATCH_MAX_BYTES;
    limits->batch_max_ops = KVFS_SQ_BATCH_MAX_OPS;
    limits->snapshots_max = KVFS_SQ_SNAPSHOTS_MAX;
}

/* Who else reads is not to be known: the log's shared memory tells numbers only. */
static void
sqlite_stat_readers(struct kvfs_db *db, uint64_t commits, struct kvfs_engine_stat *stat)
{
    (void)pthread_mutex_lock(&db->pool_lock);
    stat->readers = db->open_count - 1; /* without our own */
    if (db->oldest != NULL && db->oldest->newer != NULL) {
        stat->readers_lag = commits > db->oldest->commits ? commits - db->oldest->commits : 0;
        stat->readers_pid = (uint32_t)getpid();
    }
    (void)pthread_mutex_unlock(&db->pool_lock);
}

static int
sqlite_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    struct sq_counts counts;
    int64_t pages = 0, unused = 0;
    struct stat st, log = {.st_size = 0};
    int rc = kvfs_sq_begin(db, &snap, err);

    if (rc != 0)
        return rc;
    rc = kvfs_sq_counts(snap->conn, &counts);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_number(snap->conn, SQ_PAGES, &pages);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_number(snap->conn, SQ_FREE_PAGES, &unused);
    *stat = (struct kvfs_engine_stat){.commits = (uint64_t)counts.commits};
    if (rc == SQLITE_OK)
        sqlite_stat_readers(db, (uint64_t)counts.commits, stat);
    if (rc != SQLITE_OK)
        rc = kvfs_sq_error(err, rc, snap->conn, db->path, "looking at its size");
    kvfs_sq_end(snap);
    if (rc != 0)
        return rc;
    if (fstat(db->file_fd, &st) != 0 || (db->wal_fd >= 0 && fstat(db->wal_fd, &log) != 0))
        return kvfs_error_set(err, -EIO, "%s: cannot be looked at", db->path);
    stat->meta_records = (uint64_t)counts.records[KVFS_META];
    stat->data_records = (uint64_t)counts.records[KVFS_DATA];
    stat->store_bytes = (uint64_t)st.st_size + (uint64_t)log.st_size;
    stat->used_bytes = (uint64_t)(pages - unused) * KVFS_SQ_PAGE;
    stat->free_bytes = (uint64_t)unused * KVFS_SQ_PAGE;
    stat->avail_bytes = kvfs_sq_room_avail(db, (uint64_t)pages, (uint64_t)unused,
                                            stat->readers > 0);
    return 0;
}

static const char *
sqlite_version(const struct kvfs_engine *self)
{
    (void)self;
    return sqlite3_libversion();
}

const struct kvfs_engine kvfs_engine_sqlite = {
    .abi = KVFS_ENGINE_ABI,
    .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_ORDERED | KVFS_CAP_DURABLE | KVFS_CAP_MULTIPROCESS |
            KVFS_CAP_COUNTS,
    .name = "sqlite",
    .description = "SQLite: a B-tree in one file, with a write-ahead log",
    .version = sqlite_version,
    .open = kvfs_sq_open,
    .close = kvfs_sq_close,
    .limits = sqlite_limits,
    .stat = sqlite_stat,
    .begin = kvfs_sq_begin,
    .end = kvfs_sq_end,
    .get = kvfs_sq_get,
    .cursor_open = kvfs_sq_cursor_open,
    .cursor_next = kvfs_sq_cursor_next,
    .cursor_value = kvfs_sq_cursor_value,
    .cursor_close = kvfs_sq_cursor_close,
    .apply = kvfs_sq_apply,
    .sync = kvfs_sq_sync,
    .verify = kvfs_sq_verify,
    .compact_need_bytes = kvfs_sq_compact_need_bytes,
    .compact = kvfs_sq_compact,
    .backup = kvfs_sq_backup,
};
