/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rocksdb.c - the rocksdb engine: what a store says of itself, verify, backup, compact.
 *
 *   open.c      opening, closing, RocksDB's settings
 *   manifest.c  what a power cut tore off the end of MANIFEST
 *   read.c      snapshots, gets, scans
 *   apply.c     batches
 *
 * RocksDB keeps no exact number of records: a put does not know whether its key is
 * there already.  stat tells RocksDB's estimate (no KVFS_CAP_COUNTS).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "rocksdb_priv.h"

#define ROCKS_SNAPSHOTS_MAX 65536u
#define ROCKS_VERIFY_STEP   1024u /* records between two calls of progress */
#define ROCKS_SQUEEZE_BYTES ((uint64_t)1 << 20) /* that rewriting leaves free */

static uint64_t
rocks_number(struct kvfs_db *db, int family, const char *name)
{
    uint64_t n = 0;

    return rocksdb_property_int_cf(db->db, db->family[family], name, &n) == 0 ? n : 0;
}

void
kvfs_rocks_room(struct kvfs_db *db, struct kvfs_rocks_room *r)
{
    struct statvfs vfs;

    *r = (struct kvfs_rocks_room){.medium_bytes = 0};
    for (int i = ROCKS_META; i <= ROCKS_DATA; i++) {
        r->memory_bytes += rocks_number(db, i, "rocksdb.size-all-mem-tables");
        r->tables_bytes += rocks_number(db, i, "rocksdb.live-sst-files-size");
        r->blobs_bytes += rocks_number(db, i, "rocksdb.live-blob-file-size");
        r->garbage_bytes += rocks_number(db, i, "rocksdb.live-blob-file-garbage-size");
        r->live_bytes += rocks_number(db, i, "rocksdb.estimate-live-data-size");
    }
    r->store_bytes = r->tables_bytes + r->blobs_bytes + r->memory_bytes; /* as much in the log */
    r->live_bytes += r->blobs_bytes - r->garbage_bytes + r->memory_bytes;
    if (r->live_bytes > r->store_bytes)
        r->live_bytes = r->store_bytes;
    if (statvfs(db->folder, &vfs) == 0)
        r->medium_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    /* What is in the log will be in tables too. */
    r->medium_bytes -= r->medium_bytes < r->memory_bytes ? r->medium_bytes : r->memory_bytes;
    r->room_bytes = r->medium_bytes;
    if (db->limit_bytes > 0) {
        uint64_t most = db->limit_bytes > r->store_bytes ? db->limit_bytes - r->store_bytes : 0;

        r->room_bytes = r->room_bytes < most ? r->room_bytes : most;
    }
}

void
kvfs_rocks_flush(struct kvfs_db *db)
{
    rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();

    rocksdb_flushoptions_set_wait(o, 1);
    for (int i = ROCKS_META; i <= ROCKS_DATA; i++) {
        char *text = NULL;

        rocksdb_flush_cf(db->db, o, db->family[i], &text);
        rocksdb_free(text); /* the log still holds it */
    }
    rocksdb_flushoptions_destroy(o);
}

/* Remove the files that are of no use any more now, not some time. */
static void
rocks_purge(struct kvfs_db *db)
{
    char *text = NULL;

    /* Enabling looks for such files, unless somebody else holds them: a backup, or RocksDB
     * after an error. */
    rocksdb_disable_file_deletions(db->db, &text);
    if (text == NULL)
        rocksdb_enable_file_deletions(db->db, 0, &text);
    rocksdb_free(text);
}

/* Blob files that compactions rewrite: from now on the oldest PART of them, 0: none. */
static bool
rocks_set_collect(struct kvfs_db *db, double part)
{
    static const char *const keys[] = {"enable_blob_garbage_collection",
                                       "blob_garbage_collection_age_cutoff"};
    char number[32], *text = NULL;
    const char *values[] = {part > 0 ? "true" : "false", number};

    (void)snprintf(number, sizeof(number), "%.6f", part);
    rocksdb_set_options_cf(db->db, db->family[ROCKS_DATA], 2, keys, values, &text);
    rocksdb_free(text);
    return text == NULL;
}

static bool
rocks_compact_family(struct kvfs_db *db, int family)
{
    rocksdb_compactoptions_t *o = rocksdb_compactoptions_create();
    uint64_t errors = rocks_number(db, family, "rocksdb.background-errors");

    /* The lowest level too, which RocksDB leaves as it is otherwise. */
    rocksdb_compactoptions_set_bottommost_level_compaction(o, 2);
    rocksdb_compact_range_cf_opt(db->db, db->family[family], o, NULL, 0, NULL, 0);
    rocksdb_compactoptions_destroy(o);
    return rocks_number(db, family, "rocksdb.background-errors") == errors;
}

/* Of blob files that take BYTES the part that fits into ROOM once more.  Of a file's size is
 * known only what is the most. */
static double
rocks_part(struct kvfs_db *db, uint64_t bytes, uint64_t room)
{
    uint64_t count = rocks_number(db, ROCKS_DATA, "rocksdb.num-blob-files");
    uint64_t fit = room / KVFS_ROCKS_BLOB_FILE;

    if (room >= bytes)
        return 1.0;
    return fit > 0 && fit < count ? ((double)fit + 0.5) / (double)count : 0;
}

void
kvfs_rocks_squeeze(struct kvfs_db *db)
{
    struct kvfs_rocks_room r;
    uint64_t keep;
    double part;

    db->room_bytes = 0;
    kvfs_rocks_flush(db);
    rocks_purge(db);
    kvfs_rocks_room(db, &r);
    keep = r.tables_bytes + atomic_load(&db->writing_bytes) + ROCKS_SQUEEZE_BYTES;
    if (r.medium_bytes < keep || !rocks_set_collect(db, 0))
        return;
    /* Without blob files this takes least; those that hold nothing any more go. */
    if (rocks_compact_family(db, ROCKS_META) && rocks_compact_family(db, ROCKS_DATA)) {
        rocks_purge(db);
        kvfs_rocks_room(db, &r);
        keep = r.tables_bytes + atomic_load(&db->writing_bytes) + ROCKS_SQUEEZE_BYTES;
        part = r.garbage_bytes > 0 && r.medium_bytes > keep
                   ? rocks_part(db, r.blobs_bytes, r.medium_bytes - keep)
                   : 0;
        if (part > 0 && rocks_set_collect(db, part) && rocks_compact_family(db, ROCKS_DATA))
            rocks_purge(db);
    }
    (void)rocks_set_collect(db, db->collects ? KVFS_ROCKS_BLOB_CUTOFF : 0);
}

void
kvfs_rocks_collect(struct kvfs_db *db, const struct kvfs_rocks_room *r)
{
    uint64_t need = r->blobs_bytes + r->tables_bytes + KVFS_ROCKS_HEAD_BYTES;
    bool collects = r->medium_bytes > (db->collects ? need / 2 : need);

    if (collects != db->collects && rocks_set_collect(db, collects ? KVFS_ROCKS_BLOB_CUTOFF : 0))
        db->collects = collects;
}

static void
rocks_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    (void)db;
    limits->value_max_bytes = KVFS_ROCKS_VALUE_MAX_BYTES;
    limits->value_best_bytes = 4096;
    limits->batch_max_bytes = KVFS_ROCKS_BATCH_MAX_BYTES;
    limits->batch_max_ops = KVFS_ROCKS_BATCH_MAX_OPS;
    limits->snapshots_max = ROCKS_SNAPSHOTS_MAX;
}

static int
rocks_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    struct kvfs_rocks_room r;
    uint64_t room, medium;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    kvfs_rocks_room(db, &r);
    *stat = (struct kvfs_engine_stat){
        .meta_records = rocks_number(db, ROCKS_META, "rocksdb.estimate-num-keys"),
        .data_records = rocks_number(db, ROCKS_DATA, "rocksdb.estimate-num-keys"),
        .store_bytes = r.store_bytes,
        .used_bytes = r.live_bytes,
        .free_bytes = r.store_bytes - r.live_bytes,
    };
    /* A batch that needs it compacts first, where there is room for that. */
    medium = r.medium_bytes > r.store_bytes ? stat->free_bytes : 0;
    room = r.room_bytes + medium;
    medium += r.medium_bytes;
    medium -= medium < r.tables_bytes ? medium : r.tables_bytes;
    room = room < medium ? room : medium;
    if (room > KVFS_ROCKS_HEAD_BYTES)
        stat->avail_bytes = (room - KVFS_ROCKS_HEAD_BYTES) / 2; /* the log, and a table */
    (void)pthread_mutex_lock(&db->pool_lock);
    stat->commits = atomic_load(&db->commits);
    stat->readers = db->open_count;
    if (db->oldest != NULL) {
        stat->readers_lag = stat->commits - db->oldest->commits;
        stat->readers_pid = (uint32_t)getpid();
    }
    (void)pthread_mutex_unlock(&db->pool_lock);
    return 0;
}

static const char *
rocks_version(const struct kvfs_engine *self)
{
    (void)self;
    return KVFS_ROCKSDB_VERSION;
}

/* --- verify ---------------------------------------------------------------------- */

struct rocks_verify {
    struct kvfs_db *db;
    rocksdb_readoptions_t *read;
    kvfs_finding_fn *finding;
    void *finding_arg;
    kvfs_progress_fn *progress;
    void *progress_arg;
    uint64_t done, total;
};

/* Read every record of a family, past RocksDB's cache. */
static int
rocks_verify_family(struct rocks_verify *v, int family, const char *name)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator_cf(v->db->db, v->read, v->db->family[family]);
    char *text = NULL;
    int rc = 0;

    for (rocksdb_iter_seek_to_first(it); rc == 0 && rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t len;

        (void)rocksdb_iter_value(it, &len);
        if (++v->done % ROCKS_VERIFY_STEP == 0 && v->progress != NULL &&
            v->progress(v->progress_arg, v->done, v->total > v->done ? v->total : v->done) != 0)
            rc = -EINTR;
    }
    rocksdb_iter_get_error(it, &text);
    rocksdb_iter_destroy(it);
    if (text != NULL) {
        struct kvfs_error line;

        (void)kvfs_rocks_error(&line, text, v->db->folder, "reading");
        if (v->finding != NULL)
            v->finding(v->finding_arg, name, line.msg);
    }
    return rc;
}

static int
rocks_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
             void *progress_arg, struct kvfs_error *err)
{
    struct rocks_verify v = {.db = db, .finding = finding, .finding_arg = arg,
                             .progress = progress, .progress_arg = progress_arg};
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    v.total = rocks_number(db, ROCKS_META, "rocksdb.estimate-num-keys") +
              rocks_number(db, ROCKS_DATA, "rocksdb.estimate-num-keys");
    v.read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(v.read, 1);
    rocksdb_readoptions_set_fill_cache(v.read, 0);
    rc = rocks_verify_family(&v, ROCKS_META, "META");
    if (rc == 0)
        rc = rocks_verify_family(&v, ROCKS_DATA, "DATA");
    rocksdb_readoptions_destroy(v.read);
    if (rc == 0 && progress != NULL && progress(progress_arg, v.done, v.done) != 0)
        rc = -EINTR;
    return rc != 0 ? kvfs_error_set(err, rc, "%s: the check was interrupted", db->folder) : 0;
}

/* --- compact, backup ---------------------------------------------------------------- */

static int
rocks_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                         struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.readonly = true};
    struct kvfs_engine_stat stat;
    struct kvfs_db *db;
    int rc = kvfs_rocks_open(self, path, &options, &db, err);

    if (rc != 0)
        return rc;
    rc = rocks_stat(db, &stat, err);
    kvfs_rocks_close(db);
    if (rc == 0)
        *bytes = stat.used_bytes + stat.used_bytes / 8 + ((uint64_t)1 << 20);
    return rc;
}

static int
rocks_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
              void *progress_arg, struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.create = false};
    struct kvfs_db *db;
    int rc = kvfs_rocks_open(self, path, &options, &db, err);

    if (rc != 0)
        return rc;
    if (progress != NULL && progress(progress_arg, 0, 1) != 0)
        rc = kvfs_error_set(err, -EINTR, "%s: interrupted", path);
    else
        kvfs_rocks_squeeze(db);
    kvfs_rocks_close(db);
    return rc;
}

/* Move what a checkpoint made in FROM up into the folder TO. */
static int
rocks_backup_move(const char *from, const char *to)
{
    DIR *dir = opendir(from);
    struct dirent *e;
    int rc = 0;

    if (dir == NULL)
        return -errno;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is ours alone */
    while (rc == 0 && (e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            int fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

            rc = fd < 0 || renameat(dirfd(dir), e->d_name, fd, e->d_name) != 0 ? -errno : 0;
            if (fd >= 0)
                (void)close(fd);
        }
    (void)closedir(dir);
    if (rc == 0 && rmdir(from) != 0)
        rc = -errno;
    return rc;
}

static int
rocks_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress, void *progress_arg,
             struct kvfs_error *err)
{
    size_t len = strlen(path) + sizeof("/checkpoint");
    char *fresh = malloc(len), *text = NULL;
    rocksdb_checkpoint_t *point;
    int rc = kvfs_fork_check(db->generation, db->folder, err), fd;

    if (rc != 0 || fresh == NULL) {
        free(fresh);
        return rc != 0 ? rc : kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    }
    if (progress != NULL && progress(progress_arg, 0, 1) != 0) {
        free(fresh);
        return kvfs_error_set(err, -EINTR, "%s: interrupted", path);
    }
    (void)snprintf(fresh, len, "%s/checkpoint", path);
    point = rocksdb_checkpoint_object_create(db->db, &text);
    if (text == NULL) {
        rocksdb_checkpoint_create(point, fresh, 0, &text);
        rocksdb_checkpoint_object_destroy(point);
    }
    if (text != NULL) {
        rc = kvfs_rocks_error(err, text, path, "copying");
    } else {
        rc = rocks_backup_move(fresh, path);
        fd = rc == 0 ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        if (rc == 0 && (fd < 0 || fsync(fd) != 0))
            rc = -errno;
        if (fd >= 0)
            (void)close(fd);
        if (rc != 0)
            (void)kvfs_error_set(err, rc, "%s: %s", path, strerrordesc_np(-rc));
    }
    free(fresh);
    if (rc == 0 && progress != NULL)
        (void)progress(progress_arg, 1, 1);
    return rc;
}

extern const struct kvfs_engine kvfs_engine_rocksdb;
const struct kvfs_engine kvfs_engine_rocksdb = {
    .abi = KVFS_ENGINE_ABI,
    .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_ORDERED | KVFS_CAP_DURABLE,
    .name = "rocksdb",
    .description = "RocksDB: a log-structured merge tree, blocks in blob files",
    .version = rocks_version,
    .open = kvfs_rocks_open,
    .close = kvfs_rocks_close,
    .limits = rocks_limits,
    .stat = rocks_stat,
    .begin = kvfs_rocks_begin,
    .end = kvfs_rocks_end,
    .get = kvfs_rocks_get,
    .cursor_open = kvfs_rocks_cursor_open,
    .cursor_next = kvfs_rocks_cursor_next,
    .cursor_value = kvfs_rocks_cursor_value,
    .cursor_close = kvfs_rocks_cursor_close,
    .apply = kvfs_rocks_apply,
    .sync = kvfs_rocks_sync,
    .verify = rocks_verify,
    .compact_need_bytes = rocks_compact_need_bytes,
    .compact = rocks_compact,
    .backup = rocks_backup,
};
