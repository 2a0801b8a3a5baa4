/* SPDX-License-Identifier: BSD-3-Clause
 *
 * jammdb.c - the jammdb engine: one file, store.jammdb, a copy-on-write B+tree.
 *
 * Batches go through the Rust library (src/jamm.rs says how and why); here are opening,
 * locks, room and the shape of the contract.
 *
 *  1. JammDB waits for ever for its lock (flock).  ../holder.h comes first; the lock itself is
 *     then tried for a while, for somebody who does not know kvfs may have it.
 *  2. The file is as long as the file system is large while it is open for writing (a hole),
 *     since JammDB cannot grow its map under a reader.
 *  3. A batch that meets a full medium has written free pages only: nothing has changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "rust_priv.h"

#define JAMM_FILE       "store.jammdb"
#define JAMM_NEW        "store.jammdb.new"
#define JAMM_PAGE       4096u
#define JAMM_LOCK_TRIES 100 /* of 20 ms */
#define JAMM_MAP_MAX    ((uint64_t)8 << 40)
#define JAMM_MAP_MORE   ((uint64_t)64 << 20)

struct kvfs_jamm_snap; /* Rust's Snap and Walk */
struct kvfs_jamm_walk;

struct kvfs_db_snap {
    struct kvfs_db *db;
    struct kvfs_jamm_snap *snap;
    struct kvfs_db_snap *older, *newer;
    uint64_t batches;
};

struct kvfs_db_cursor {
    struct kvfs_db *db;
    struct kvfs_jamm_walk *walk;
    bool row;
};

struct kvfs_jamm_stat {
    uint64_t counts[3]; /* META records, DATA records, batches */
    uint64_t pages, free_pages;
};

/* src/jamm.rs */
int kvfs_jamm_create(const char *path, const struct kvfs_rust_text *text);
int kvfs_jamm_open(const char *path, int readonly, uint64_t map_bytes,
                   struct kvfs_rust_store **storep, const struct kvfs_rust_text *text);
void kvfs_jamm_close(struct kvfs_rust_store *store);
int kvfs_jamm_stat(struct kvfs_rust_store *store, struct kvfs_jamm_stat *stat,
                   const struct kvfs_rust_text *text);
int kvfs_jamm_begin(struct kvfs_rust_store *store, struct kvfs_jamm_snap **snapp,
                    uint64_t *batches, const struct kvfs_rust_text *text);
void kvfs_jamm_end(struct kvfs_jamm_snap *snap);
int kvfs_jamm_get(struct kvfs_jamm_snap *snap, int keyspace, const void *key, size_t key_len,
                  size_t offset, const struct iovec *iov, int iov_count, size_t *value_len,
                  const struct kvfs_rust_text *text);
int kvfs_jamm_walk(struct kvfs_jamm_snap *snap, int keyspace, const void *lo, size_t lo_len,
                   const void *hi, size_t hi_len, int reverse, struct kvfs_jamm_walk **walkp,
                   const struct kvfs_rust_text *text);
int kvfs_jamm_step(struct kvfs_jamm_walk *walk, const void **key, size_t *key_len,
                   size_t *value_len, const struct kvfs_rust_text *text);
int kvfs_jamm_value(struct kvfs_jamm_walk *walk, size_t offset, const struct iovec *iov,
                    int iov_count, const struct kvfs_rust_text *text);
void kvfs_jamm_walk_end(struct kvfs_jamm_walk *walk);
int kvfs_jamm_apply(struct kvfs_rust_store *store, const struct kvfs_op *ops, size_t count,
                    const struct kvfs_rust_text *text);
int kvfs_jamm_verify(struct kvfs_jamm_snap *snap, kvfs_finding_fn *finding, void *arg,
                     kvfs_progress_fn *progress, void *progress_arg,
                     const struct kvfs_rust_text *text);

extern const struct kvfs_engine kvfs_engine_jammdb;

/* --- opening ------------------------------------------------------------------------------ */

static int
jamm_make(struct kvfs_db *db, struct kvfs_error *err)
{
    char *fresh = kvfs_rust_join(db->folder, JAMM_NEW);
    KVFS_RUST_TEXT(text);
    int rc;

    if (fresh == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    (void)unlink(fresh);
    rc = kvfs_jamm_create(fresh, &text); /* JammDB has synced the file */
    if (rc != 0)
        rc = kvfs_rust_error(db, err, rc, &text);
    else if (rename(fresh, db->path) != 0)
        rc = kvfs_error_set(err, -errno, "%s: %s", db->path, strerrordesc_np(errno));
    if (rc == 0) {
        rc = kvfs_rust_sync_folder(db->folder, false);
        if (rc != 0)
            (void)kvfs_error_set(err, rc, "%s: %s", db->folder, strerrordesc_np(-rc));
    } else {
        (void)unlink(fresh);
    }
    free(fresh);
    return rc;
}

/* Is JammDB's own lock free?  It stays ours where we only read. */
static int
jamm_lock(struct kvfs_db *db, struct kvfs_error *err)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    char who[64];

    for (int i = 0; flock(db->file_fd, (db->readonly ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0; i++) {
        if (errno != EWOULDBLOCK)
            return kvfs_error_set(err, -errno, "%s: %s", db->path, strerrordesc_np(errno));
        if (i == JAMM_LOCK_TRIES) {
            kvfs_rust_locker(db->file_fd, who, sizeof(who));
            return kvfs_error_set(err, -EBUSY, "%s: the store is held by %s", db->path, who);
        }
        (void)nanosleep(&pause, NULL);
    }
    if (!db->readonly)
        (void)flock(db->file_fd, LOCK_UN);
    return 0;
}

/* How long the file may become. */
static uint64_t
jamm_map_bytes(struct kvfs_db *db)
{
    uint64_t bytes = JAMM_MAP_MAX;
    struct statvfs vfs;
    struct rlimit most;

    if (fstatvfs(db->file_fd, &vfs) == 0 &&
        (uint64_t)vfs.f_blocks * vfs.f_frsize < JAMM_MAP_MAX - JAMM_MAP_MORE)
        bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize + JAMM_MAP_MORE;
    if (db->limit_bytes > 0 && db->limit_bytes < bytes / 2)
        bytes = 2 * db->limit_bytes + JAMM_MAP_MORE < bytes ? 2 * db->limit_bytes + JAMM_MAP_MORE
                                                            : bytes;
    if (getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur < bytes) /* else a signal */
        bytes = most.rlim_cur;
    return bytes / JAMM_PAGE * JAMM_PAGE;
}

static int
jamm_find(struct kvfs_db *db, const struct kvfs_engine_options *options, bool hold,
          struct kvfs_error *err)
{
    struct stat st;
    bool there = stat(db->path, &st) == 0;
    int rc = 0;

    if (options->params != NULL && options->params[0] != '\0')
        return kvfs_error_set(err, -EINVAL, "jammdb: unknown parameter '%.64s'", options->params);
    if (!there && errno != ENOENT)
        return kvfs_error_set(err, -errno, "%s: %s", db->path, strerrordesc_np(errno));
    if (!there && !options->create)
        return kvfs_error_set(err, -ENOENT, "%s: no store here", db->path);
    if (there && !S_ISREG(st.st_mode))
        return kvfs_error_set(err, -EINVAL, "%s: not a file", db->path);
    if (!there && db->readonly)
        return kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path);
    if (hold)
        rc = kvfs_holder_take(db->folder, db->readonly, &db->holder_fd, err);
    if (rc == 0 && stat(db->path, &st) != 0) /* nobody makes one now but we */
        rc = jamm_make(db, err);
    return rc;
}

static int
jamm_open_parts(struct kvfs_db *db, const struct kvfs_engine_options *options, bool hold,
                struct kvfs_error *err)
{
    int rc = jamm_find(db, options, hold, err);
    KVFS_RUST_TEXT(text);

    if (rc != 0)
        return rc;
    if (hold && !db->readonly) {
        char *aside = kvfs_rust_join(db->folder, KVFS_RUST_COMPACT);

        if (aside != NULL)
            kvfs_rust_remove(aside);
        free(aside);
    }
    db->file_fd = open(db->path, (db->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (db->file_fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", db->path, strerrordesc_np(errno));
    rc = jamm_lock(db, err);
    if (rc != 0)
        return rc;
    db->map_bytes = jamm_map_bytes(db);
    rc = kvfs_jamm_open(db->path, db->readonly, db->map_bytes, &db->store, &text);
    return rc != 0 ? kvfs_rust_error(db, err, rc, &text) : 0;
}

static void
jamm_close(struct kvfs_db *db)
{
    /* In a forked child the file and its lock are the parent's. */
    if (db->store != NULL && kvfs_fork_check(db->generation, db->path, NULL) == 0)
        kvfs_jamm_close(db->store);
    kvfs_rust_db_free(db);
}

static int
jamm_open_held(const char *path, const struct kvfs_engine_options *options, struct kvfs_db **dbp,
               bool hold, struct kvfs_error *err)
{
    struct kvfs_db *db = kvfs_rust_db_new(path, JAMM_FILE, options);
    int rc = db != NULL ? jamm_open_parts(db, options, hold, err)
                        : kvfs_error_set(err, -ENOMEM, "%s: no memory", path);

    if (rc == 0)
        *dbp = db;
    else if (db != NULL)
        jamm_close(db);
    return rc;
}

static int
jamm_open(const struct kvfs_engine *self, const char *path,
          const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    (void)self;
    return jamm_open_held(path, options, dbp, true, err);
}

static int
jamm_open_alone(const char *path, const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                struct kvfs_error *err)
{
    return jamm_open_held(path, options, dbp, false, err);
}

/* --- numbers -------------------------------------------------------------------------------- */

static void
jamm_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    (void)db;
    *limits = (struct kvfs_engine_limits){.value_max_bytes = KVFS_RUST_VALUE_MAX_BYTES,
                                          .value_best_bytes = 8192,
                                          .batch_max_bytes = KVFS_RUST_BATCH_MAX_BYTES,
                                          .batch_max_ops = KVFS_RUST_BATCH_MAX_OPS,
                                          .snapshots_max = KVFS_RUST_SNAPSHOTS_MAX};
}

/* Bytes that the file may still become longer. */
static uint64_t
jamm_growth(struct kvfs_db *db, const struct kvfs_jamm_stat *s)
{
    uint64_t pages = s->pages * JAMM_PAGE, end = db->map_bytes - JAMM_MAP_MORE / 2, room;
    struct statvfs vfs;

    if (db->limit_bytes > 0 && db->limit_bytes < end)
        end = db->limit_bytes;
    room = end > pages ? end - pages : 0;
    if (fstatvfs(db->file_fd, &vfs) == 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize < room)
        room = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return room;
}

static int
jamm_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);
    struct kvfs_jamm_stat s;
    KVFS_RUST_TEXT(text);
    uint64_t room;

    if (rc != 0)
        return rc;
    rc = kvfs_jamm_stat(db->store, &s, &text);
    if (rc != 0)
        return kvfs_rust_error(db, err, rc, &text);
    *stat = (struct kvfs_engine_stat){.meta_records = s.counts[KVFS_META],
                                      .data_records = s.counts[KVFS_DATA],
                                      .store_bytes = s.pages * JAMM_PAGE,
                                      .used_bytes = (s.pages - s.free_pages) * JAMM_PAGE,
                                      .free_bytes = s.free_pages * JAMM_PAGE,
                                      .commits = s.counts[2]};
    room = jamm_growth(db, &s) + stat->free_bytes;
    stat->avail_bytes = room > KVFS_RUST_HEAD_BYTES ? room - KVFS_RUST_HEAD_BYTES : 0;
    (void)pthread_mutex_lock(&db->list_lock);
    stat->readers = db->open_count;
    if (db->oldest != NULL) {
        stat->readers_lag = stat->commits - db->oldest->batches;
        stat->readers_pid = (uint32_t)getpid();
    }
    (void)pthread_mutex_unlock(&db->list_lock);
    return 0;
}

static const char *
jamm_version(const struct kvfs_engine *self)
{
    (void)self;
    return KVFS_JAMMDB_VERSION;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int
jamm_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);
    struct kvfs_db_snap *s;
    KVFS_RUST_TEXT(text);

    if (rc != 0)
        return rc;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a snapshot", db->path);
    rc = kvfs_jamm_begin(db->store, &s->snap, &s->batches, &text);
    if (rc != 0) {
        free(s);
        (void)kvfs_rust_error(db, err, rc, &text);
        return rc;
    }
    s->db = db;
    (void)pthread_mutex_lock(&db->list_lock);
    s->older = db->newest;
    if (db->newest != NULL)
        db->newest->newer = s;
    else
        db->oldest = s;
    db->newest = s;
    db->open_count++;
    (void)pthread_mutex_unlock(&db->list_lock);
    *snapp = s;
    return 0;
}

static void
jamm_end(struct kvfs_db_snap *s)
{
    struct kvfs_db *db = s->db;

    if (kvfs_fork_check(db->generation, db->path, NULL) == 0) {
        (void)pthread_mutex_lock(&db->list_lock);
        if (s->older != NULL)
            s->older->newer = s->newer;
        else
            db->oldest = s->newer;
        if (s->newer != NULL)
            s->newer->older = s->older;
        else
            db->newest = s->older;
        db->open_count--;
        (void)pthread_mutex_unlock(&db->list_lock);
        kvfs_jamm_end(s->snap);
    }
    free(s);
}

static int
jamm_get(struct kvfs_db_snap *s, enum kvfs_keyspace keyspace, const void *key, size_t key_len,
         size_t offset, const struct iovec *iov, int iov_count, size_t *value_len,
         struct kvfs_error *err)
{
    int rc = kvfs_rust_key_check(s->db, keyspace, key_len, err);
    KVFS_RUST_TEXT(text);
    size_t len;

    if (rc != 0)
        return rc;
    rc = kvfs_jamm_get(s->snap, (int)keyspace, key, key_len, offset, iov, iov_count, &len, &text);
    if (rc != 0)
        return kvfs_rust_error(s->db, err, rc, &text);
    if (value_len != NULL)
        *value_len = len;
    return 0;
}

static int
jamm_cursor_open(struct kvfs_db_snap *s, enum kvfs_keyspace keyspace, const void *lo,
                 size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                 struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    int rc = kvfs_rust_bounds_check(s->db, keyspace, lo_len, hi_len, err);
    struct kvfs_db_cursor *c;
    KVFS_RUST_TEXT(text);

    if (rc != 0)
        return rc;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a scan", s->db->path);
    c->db = s->db;
    rc = kvfs_jamm_walk(s->snap, (int)keyspace, lo, lo_len, hi, hi_len,
                        (flags & KVFS_SCAN_REVERSE) != 0, &c->walk, &text);
    if (rc != 0) {
        free(c);
        return kvfs_rust_error(s->db, err, rc, &text);
    }
    *cursorp = c;
    return 0;
}

static int
jamm_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len, size_t *value_len,
                 struct kvfs_error *err)
{
    int rc = kvfs_fork_check(c->db->generation, c->db->path, err);
    KVFS_RUST_TEXT(text);

    if (rc != 0)
        return rc;
    rc = kvfs_jamm_step(c->walk, key, key_len, value_len, &text);
    c->row = rc == 1;
    return rc < 0 ? kvfs_rust_error(c->db, err, rc, &text) : rc;
}

static int
jamm_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov, int iov_count,
                  struct kvfs_error *err)
{
    int rc = kvfs_fork_check(c->db->generation, c->db->path, err);
    KVFS_RUST_TEXT(text);

    if (rc != 0)
        return rc;
    if (!c->row)
        return kvfs_error_set(err, -EINVAL, "%s: the scan is at no record", c->db->path);
    rc = kvfs_jamm_value(c->walk, offset, iov, iov_count, &text);
    return rc != 0 ? kvfs_rust_error(c->db, err, rc, &text) : 0;
}

static void
jamm_cursor_close(struct kvfs_db_cursor *c)
{
    kvfs_jamm_walk_end(c->walk);
    free(c);
}

/* --- writing ------------------------------------------------------------------------------------ */

/* Copying on write takes new pages for every leaf touched: with the values beside a new one
 * about three times its own size, and the path to it. */
static int
jamm_room(struct kvfs_db *db, const struct kvfs_batch *batch, struct kvfs_error *err)
{
    struct kvfs_rust_need n;
    struct kvfs_jamm_stat s;
    KVFS_RUST_TEXT(text);
    uint64_t need, reuse;
    int rc;

    kvfs_rust_need(batch, &n);
    if (n.puts == 0 || (!n.data_puts && n.dels > 0 && n.put_bytes < KVFS_RUST_HEAD_BYTES / 8))
        return 0;
    rc = kvfs_jamm_stat(db->store, &s, &text);
    if (rc != 0)
        return kvfs_rust_error(db, err, rc, &text);
    need = 2 * n.put_bytes + n.puts * JAMM_PAGE / 2 +
           (n.data_puts ? KVFS_RUST_HEAD_BYTES : KVFS_RUST_HEAD_BYTES / 2);
    (void)pthread_mutex_lock(&db->list_lock);
    reuse = s.free_pages * JAMM_PAGE / (db->open_count > 0 ? 2 : 1);
    (void)pthread_mutex_unlock(&db->list_lock);
    if (jamm_growth(db, &s) + reuse >= need)
        return 0;
    return kvfs_error_set(err, -ENOSPC, "%s: %s full: the batch needs %llu KiB", db->path,
                          db->limit_bytes > 0 ? "the store is" : "the file system is",
                          (unsigned long long)need >> 10);
}

static int
jamm_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
           struct kvfs_error *err)
{
    KVFS_RUST_TEXT(text);
    int rc;

    (void)durability; /* JammDB knows one kind of commit: fsync */
    (void)pthread_mutex_lock(&db->apply_lock);
    rc = kvfs_rust_batch_check(db, batch, err);
    if (rc == 0)
        rc = jamm_room(db, batch, err);
    if (rc == 0) {
        rc = kvfs_jamm_apply(db->store, batch->ops, batch->ops_count, &text);
        if (rc != 0 && rc != -EAGAIN && rc != -ENOSPC) {
            atomic_store(&db->poisoned, true);
            rc = -EIO;
        }
        if (rc != 0)
            rc = kvfs_rust_error(db, err, rc, &text);
    }
    (void)pthread_mutex_unlock(&db->apply_lock);
    return rc;
}

/* Every commit was synced. */
static int
jamm_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);

    return rc != 0 || db->readonly ? rc : kvfs_rust_there(db, err);
}

/* --- upkeep --------------------------------------------------------------------------------------- */

static int
jamm_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
            void *progress_arg, struct kvfs_error *err)
{
    struct kvfs_db_snap *s;
    KVFS_RUST_TEXT(text);
    int rc = jamm_begin(db, &s, err);

    if (rc != 0)
        return rc;
    rc = kvfs_jamm_verify(s->snap, finding, arg, progress, progress_arg, &text);
    if (rc == -EINTR)
        rc = kvfs_error_set(err, rc, "%s: the check was interrupted", db->path);
    else if (rc != 0)
        rc = kvfs_rust_error(db, err, rc, &text);
    jamm_end(s);
    return rc;
}

static int
jamm_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                        struct kvfs_error *err)
{
    return kvfs_rust_compact_need(self, path, bytes, err);
}

static int
jamm_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
             void *progress_arg, struct kvfs_error *err)
{
    const struct kvfs_rust_compact how = {self, JAMM_FILE, jamm_open_alone};

    return kvfs_rust_compact(&how, path, progress, progress_arg, err);
}

static int
jamm_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress, void *progress_arg,
            struct kvfs_error *err)
{
    return kvfs_rust_copy(&kvfs_engine_jammdb, db, path, progress, progress_arg, err);
}

const struct kvfs_engine kvfs_engine_jammdb = {
    .abi = KVFS_ENGINE_ABI,
    .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_COUNTS, /* no power cut: README.md */
    .name = "jammdb",
    .description = "JammDB: a copy-on-write B+tree in one file, in Rust",
    .version = jamm_version,
    .open = jamm_open,
    .close = jamm_close,
    .limits = jamm_limits,
    .stat = jamm_stat,
    .begin = jamm_begin,
    .end = jamm_end,
    .get = jamm_get,
    .cursor_open = jamm_cursor_open,
    .cursor_next = jamm_cursor_next,
    .cursor_value = jamm_cursor_value,
    .cursor_close = jamm_cursor_close,
    .apply = jamm_apply,
    .sync = jamm_sync,
    .verify = jamm_verify,
    .compact_need_bytes = jamm_compact_need_bytes,
    .compact = jamm_compact,
    .backup = jamm_backup,
};
