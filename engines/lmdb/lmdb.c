/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lmdb.c - the lmdb engine: its parts, and what a store says of itself.
 *
 * One environment of LMDB with two named databases, "meta" and "data", in the
 * files data.mdb and lock.mdb of the store's folder.  The parts:
 *
 *   open.c    opening, closing        meta.c   the meta pages, before LMDB maps the file
 *   page.c    single pages            path.c   pages that a batch will change
 *   map.c     the map's size, place   gate.c   a moment without snapshots
 *   guard.c   faults become -EIO      error.c  codes
 *   env.c     small guarded calls     fork.c   children of the process
 *   read.c    snapshots, get          scan.c   scans
 *   walk.c    trees, judged
 *   layout.c  blocks in pages         order.c  sorting a batch
 *   apply.c   write transactions      room.c   space, headroom, readers
 *   verify.c  the page structure      copy.c   backup, compact
 */
#include <errno.h>
#include <sys/stat.h>

#include "lmdb_priv.h"

static void
lmdb_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    limits->value_max_bytes = KVFS_LMDB_VALUE_MAX_BYTES;
    limits->value_best_bytes = (uint32_t)db->layout.psize;
    limits->batch_max_bytes = KVFS_LMDB_BATCH_MAX_BYTES;
    limits->batch_max_ops = KVFS_LMDB_BATCH_MAX_OPS;
    limits->snapshots_max = db->readers_max;
}

struct lmdb_stat {
    struct kvfs_db *db;
    struct kvfs_db_snap *snap;
    struct kvfs_lmdb_usage usage;
};

static int
lmdb_stat_guarded(void *arg)
{
    struct lmdb_stat *s = arg;

    return kvfs_lmdb_usage(s->db, s->snap->txn, &s->usage);
}

static int
lmdb_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    struct lmdb_stat s = {.db = db};
    struct kvfs_lmdb_readers readers;
    struct stat st;
    mdb_filehandle_t fd;
    int rc = kvfs_lmdb_begin(db, &s.snap, err);

    if (rc != 0)
        return rc;
    *stat = (struct kvfs_engine_stat){.commits = s.snap->txnid};
    kvfs_lmdb_readers(db, s.snap, &readers);
    rc = kvfs_lmdb_guard(lmdb_stat_guarded, &s);
    if (rc == 0)
        rc = mdb_env_get_fd(db->env, &fd);
    if (rc == 0 && fstat(fd, &st) != 0)
        rc = errno;
    if (rc == 0 && !db->unlocked)
        stat->avail_bytes = kvfs_lmdb_room_avail(db, s.snap, &s.usage);
    kvfs_lmdb_end(s.snap);
    if (rc != 0)
        return kvfs_lmdb_error_io(err, rc, db->path, "looking at its size");
    stat->meta_records = s.usage.meta_records;
    stat->data_records = s.usage.data_records;
    stat->store_bytes = (uint64_t)st.st_size;
    stat->used_bytes = s.usage.used_pages * db->layout.psize;
    stat->free_bytes = (s.usage.high_pages - s.usage.used_pages) * db->layout.psize;
    stat->readers = readers.count;
    if (readers.oldest_txnid != 0 && readers.oldest_txnid <= stat->commits) {
        stat->readers_lag = stat->commits - readers.oldest_txnid;
        stat->readers_pid = readers.oldest_pid;
    }
    return 0;
}

static const char *
lmdb_version(const struct kvfs_engine *self)
{
    (void)self;
    return mdb_version(NULL, NULL, NULL);
}

extern const struct kvfs_engine kvfs_engine_lmdb;
const struct kvfs_engine kvfs_engine_lmdb = {
    .abi = KVFS_ENGINE_ABI,
    .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_ORDERED | KVFS_CAP_DURABLE | KVFS_CAP_MULTIPROCESS |
            KVFS_CAP_COUNTS,
    .name = "lmdb",
    .description = "LMDB: a copy-on-write B+tree in one memory-mapped file",
    .version = lmdb_version,
    .open = kvfs_lmdb_open,
    .close = kvfs_lmdb_close,
    .limits = lmdb_limits,
    .stat = lmdb_stat,
    .begin = kvfs_lmdb_begin,
    .end = kvfs_lmdb_end,
    .get = kvfs_lmdb_get,
    .cursor_open = kvfs_lmdb_cursor_open,
    .cursor_next = kvfs_lmdb_cursor_next,
    .cursor_value = kvfs_lmdb_cursor_value,
    .cursor_close = kvfs_lmdb_cursor_close,
    .apply = kvfs_lmdb_apply,
    .sync = kvfs_lmdb_sync,
    .verify = kvfs_lmdb_verify,
    .compact_need_bytes = kvfs_lmdb_compact_need_bytes,
    .compact = kvfs_lmdb_compact,
    .backup = kvfs_lmdb_backup,
};
