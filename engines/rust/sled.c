/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sled.c - the sled engine: a folder, `sled`, with sled's log and its blobs.
 *
 * Batches go through the Rust library (src/sledge.rs says how); here are snapshots, which
 * sled has not (../keeper.h), opening, room and the shape of the contract.
 *
 *  1. A batch changes the tree under `gate` held exclusively; snapshots begin under it shared.
 *     So none begins inside a batch.  Reading takes no gate: the keeper makes it exact.
 *  2. sled writes its log when it is flushed: every batch is, so that it survives the process.
 *     For DURABLE the file is synced too, which sled itself leaves out.
 *  3. sled gives a store up when it meets a full medium: room is looked for before.
 *  4. sled's threads serve all stores of a process and do not cross fork(): a child of a
 *     process that has used sled would wait for them for ever.  It is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "../params.h"
#include "rust_priv.h"

#define SLED_FOLDER     "sled"
#define SLED_NEW        "sled.new"
#define SLED_CACHE_BYTES ((uint64_t)64 << 20)
#define SLED_KEEP_BYTES  ((uint64_t)64 << 20)
#define SLED_LOCK_TRIES 1000 /* of 2 ms */
#define SLED_HEAD_BYTES ((uint64_t)2 << 20) /* room that only deletes may use: log segments */

struct kvfs_db_snap {
    struct kvfs_db *db;
    struct kvfs_keeper_snap keep;
};

struct kvfs_sled_record { /* src/sledge.rs */
    const void *key;
    size_t key_len;
    const void *value;
    size_t value_len;
    void *owner;
};

struct kvfs_db_cursor {
    struct kvfs_db_snap *snap;
    enum kvfs_keyspace keyspace;
    bool reverse, started, ended;
    bool row;  /* at a record */
    bool kept; /* its value is the keeper's, else `live` has it */
    struct kvfs_sled_record live;
    size_t lo_len, hi_len, key_len;
    uint8_t lo[KVFS_META_KEY_MAX], hi[KVFS_META_KEY_MAX], key[KVFS_META_KEY_MAX];
};

typedef void sled_keep_fn(void *arg, int keyspace, const void *key, size_t key_len,
                          const void *value, size_t value_len);

int kvfs_sled_open(const char *path, int create, uint64_t cache_bytes,
                   struct kvfs_rust_store **storep, const struct kvfs_rust_text *text);
void kvfs_sled_close(struct kvfs_rust_store *store);
int kvfs_sled_stat(struct kvfs_rust_store *store, uint64_t counts[4], uint64_t *bytes,
                   const struct kvfs_rust_text *text);
int kvfs_sled_get(struct kvfs_rust_store *store, int keyspace, const void *key, size_t key_len,
                  struct kvfs_sled_record *record, const struct kvfs_rust_text *text);
int kvfs_sled_find(struct kvfs_rust_store *store, int keyspace, const void *lo, size_t lo_len,
                   int behind, const void *hi, size_t hi_len, int reverse,
                   struct kvfs_sled_record *record, const struct kvfs_rust_text *text);
void kvfs_sled_release(void *owner);
int kvfs_sled_apply(struct kvfs_rust_store *store, const struct kvfs_op *ops, size_t count,
                    sled_keep_fn *keep, void *arg, const struct kvfs_rust_text *text);
int kvfs_sled_flush(struct kvfs_rust_store *store, const struct kvfs_rust_text *text);
int kvfs_sled_verify(struct kvfs_rust_store *store, kvfs_finding_fn *finding, void *arg,
                     kvfs_progress_fn *progress, void *progress_arg,
                     const struct kvfs_rust_text *text);

extern const struct kvfs_engine kvfs_engine_sled;

/* --- opening ------------------------------------------------------------------------------ */

static atomic_uint sled_first; /* generation that used sled first; ../fork.h */

static int
sled_params(struct kvfs_db *db, const char *params, struct kvfs_error *err)
{
    const struct kvfs_param known[] = {
        {"cache-bytes", KVFS_CACHE_PARAM_MIN, KVFS_CACHE_PARAM_MAX, &db->cache_bytes},
        {"keep-bytes", 0, UINT64_MAX, &db->keep_bytes}, /* for open snapshots */
    };

    db->cache_bytes = SLED_CACHE_BYTES;
    db->keep_bytes = SLED_KEEP_BYTES;
    return kvfs_params_parse("sled", params, known, sizeof(known) / sizeof(known[0]), err);
}

static void
sled_clean(struct kvfs_db *db, const char *name)
{
    char *path = kvfs_rust_join(db->folder, name);

    if (path != NULL)
        kvfs_rust_remove(path);
    free(path);
}

/* An empty store under another name, then whole under its own. */
static int
sled_make(struct kvfs_db *db, struct kvfs_error *err)
{
    char *fresh = kvfs_rust_join(db->folder, SLED_NEW);
    struct kvfs_rust_store *store;
    KVFS_RUST_TEXT(text);
    int rc;

    if (fresh == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    kvfs_rust_remove(fresh);
    rc = kvfs_sled_open(fresh, 1, db->cache_bytes, &store, &text);
    if (rc == 0) {
        kvfs_sled_close(store);
        rc = kvfs_rust_sync_folder(fresh, true);
        if (rc == 0 && rename(fresh, db->path) != 0)
            rc = -errno;
        if (rc == 0)
            rc = kvfs_rust_sync_folder(db->folder, false);
        if (rc != 0)
            (void)kvfs_error_set(err, rc, "%s: %s", db->path, strerrordesc_np(-rc));
    } else {
        rc = kvfs_rust_error(db, err, rc, &text);
    }
    if (rc != 0)
        kvfs_rust_remove(fresh);
    free(fresh);
    return rc;
}

/* Is all there that sled would silently make anew? */
static int
sled_judge(struct kvfs_db *db, struct kvfs_error *err)
{
    static const char *const names[] = {"conf", "db"};
    int rc = 0;

    for (size_t i = 0; i < 2 && rc == 0; i++) {
        char *path = kvfs_rust_join(db->path, names[i]);
        int fd = path != NULL ? open(path, (db->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC) : -1;

        if (path == NULL)
            rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
        else if (fd < 0)
            rc = kvfs_error_set(err, errno == ENOENT ? -EIO : -errno, "%s: %s", path,
                                errno == ENOENT ? "missing" : strerrordesc_np(errno));
        else if (i == 0)
            (void)close(fd);
        else
            db->file_fd = fd;
        free(path);
    }
    return rc;
}

static int
sled_find(struct kvfs_db *db, const struct kvfs_engine_options *options, bool hold,
          struct kvfs_error *err)
{
    struct stat st;
    bool there = stat(db->path, &st) == 0;
    int why = errno, rc = sled_params(db, options->params, err);

    if (rc != 0)
        return rc;
    if (!there && why != ENOENT)
        return kvfs_error_set(err, -why, "%s: %s", db->path, strerrordesc_np(why));
    if (!there && !options->create)
        return kvfs_error_set(err, -ENOENT, "%s: no store here", db->path);
    if (there && !S_ISDIR(st.st_mode))
        return kvfs_error_set(err, -EINVAL, "%s: not a folder", db->path);
    if (!there && db->readonly)
        return kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path);
    if (hold)
        rc = kvfs_holder_take(db->folder, db->readonly, &db->holder_fd, err);
    if (rc == 0 && hold && !db->readonly)
        sled_clean(db, KVFS_RUST_COMPACT);
    if (rc == 0)
        rc = kvfs_fork_check_library(&sled_first, "sled", db->path, err);
    if (rc == 0 && stat(db->path, &st) != 0)
        rc = sled_make(db, err);
    return rc != 0 ? rc : sled_judge(db, err);
}

/* Wait for sled's own lock to be free.  Threads of sled keep it for a moment after closing. */
static bool
sled_unlocked(struct kvfs_db *db)
{
    const struct timespec pause = {.tv_nsec = 2000000};

    for (int i = 0; flock(db->file_fd, LOCK_SH | LOCK_NB) != 0; i++) {
        if (i == SLED_LOCK_TRIES)
            return false;
        (void)nanosleep(&pause, NULL);
    }
    (void)flock(db->file_fd, LOCK_UN);
    return true;
}

static int
sled_open_parts(struct kvfs_db *db, const struct kvfs_engine_options *options, bool hold,
                struct kvfs_error *err)
{
    int rc = sled_find(db, options, hold, err);
    KVFS_RUST_TEXT(text);
    char who[64];

    if (rc != 0)
        return rc;
    db->keeper = kvfs_keeper_new(db->keep_bytes);
    if (db->keeper == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    if (!sled_unlocked(db)) {
        kvfs_rust_locker(db->file_fd, who, sizeof(who));
        return kvfs_error_set(err, -EBUSY, "%s: the store is held by %s", db->path, who);
    }
    rc = kvfs_sled_open(db->path, 0, db->cache_bytes, &db->store, &text);
    return rc != 0 ? kvfs_rust_error(db, err, rc, &text) : 0;
}

static void
sled_close(struct kvfs_db *db)
{
    /* In a forked child sled's threads do not exist, and its lock is the parent's. */
    if (db->store != NULL && kvfs_fork_check(db->generation, db->path, NULL) == 0) {
        kvfs_sled_close(db->store);
        (void)sled_unlocked(db); /* the next one to open may not have our patience */
    }
    kvfs_rust_db_free(db);
}

static int
sled_open_held(const char *path, const struct kvfs_engine_options *options, struct kvfs_db **dbp,
               bool hold, struct kvfs_error *err)
{
    struct kvfs_db *db = kvfs_rust_db_new(path, SLED_FOLDER, options);
    int rc = db != NULL ? sled_open_parts(db, options, hold, err)
                        : kvfs_error_set(err, -ENOMEM, "%s: no memory", path);

    if (rc == 0)
        *dbp = db;
    else if (db != NULL)
        sled_close(db);
    return rc;
}

static int
sled_open(const struct kvfs_engine *self, const char *path,
          const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    (void)self;
    return sled_open_held(path, options, dbp, true, err);
}

static int
sled_open_alone(const char *path, const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                struct kvfs_error *err)
{
    return sled_open_held(path, options, dbp, false, err);
}

/* --- numbers -------------------------------------------------------------------------------- */

static void
sled_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    (void)db;
    *limits = (struct kvfs_engine_limits){.value_max_bytes = KVFS_RUST_VALUE_MAX_BYTES,
                                          .value_best_bytes = 4096,
                                          .batch_max_bytes = KVFS_RUST_BATCH_MAX_BYTES,
                                          .batch_max_ops = KVFS_RUST_BATCH_MAX_OPS,
                                          .snapshots_max = KVFS_RUST_SNAPSHOTS_MAX};
}

/* How many bytes the files may become. */
static uint64_t
sled_capacity(struct kvfs_db *db, uint64_t store_bytes)
{
    uint64_t most = store_bytes;
    struct statvfs vfs;

    if (fstatvfs(db->file_fd, &vfs) == 0)
        most += (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return db->limit_bytes > 0 && db->limit_bytes < most ? db->limit_bytes : most;
}

/* What the files become, in the long run, with that many bytes of records in them. */
static uint64_t
sled_amplified(uint64_t record_bytes)
{
    return record_bytes / 2 * 9 + SLED_HEAD_BYTES;
}

static int
sled_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);
    uint64_t counts[4], bytes, most;
    KVFS_RUST_TEXT(text);

    if (rc != 0)
        return rc;
    rc = kvfs_sled_stat(db->store, counts, &bytes, &text);
    if (rc != 0)
        return kvfs_rust_error(db, err, rc, &text);
    *stat = (struct kvfs_engine_stat){.meta_records = counts[KVFS_META],
                                      .data_records = counts[KVFS_DATA],
                                      .store_bytes = bytes,
                                      .used_bytes = counts[3] < bytes ? counts[3] : bytes,
                                      .commits = counts[2]};
    stat->free_bytes = bytes - stat->used_bytes; /* dead parts of the log, or soon to be */
    most = sled_capacity(db, bytes);
    most = most > SLED_HEAD_BYTES ? (most - SLED_HEAD_BYTES) / 9 * 2 : 0;
    if (most > counts[3])
        stat->avail_bytes = most - counts[3];
    stat->readers = kvfs_keeper_readers(db->keeper, &stat->readers_lag);
    stat->readers_pid = stat->readers > 0 ? (uint32_t)getpid() : 0;
    return 0;
}

static const char *
sled_version(const struct kvfs_engine *self)
{
    (void)self;
    return KVFS_SLED_VERSION;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int
sled_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);
    struct kvfs_db_snap *s;

    if (rc != 0)
        return rc;
    s = malloc(sizeof(*s));
    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a snapshot", db->path);
    s->db = db;
    (void)pthread_rwlock_rdlock(&db->gate);
    kvfs_keeper_begin(db->keeper, &s->keep);
    (void)pthread_rwlock_unlock(&db->gate);
    *snapp = s;
    return 0;
}

static void
sled_end(struct kvfs_db_snap *s)
{
    if (kvfs_fork_check(s->db->generation, s->db->path, NULL) == 0)
        kvfs_keeper_end(s->db->keeper, &s->keep);
    free(s);
}

static int
sled_stale(struct kvfs_db_snap *s, struct kvfs_error *err)
{
    return kvfs_error_set(err, -ESTALE, "%s: the snapshot was given up: over %llu bytes changed "
                          "since", s->db->path, (unsigned long long)s->db->keep_bytes);
}

static void
sled_copy(const struct kvfs_sled_record *r, size_t offset, const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count && offset < r->value_len; i++) {
        size_t n = r->value_len - offset;

        n = n < iov[i].iov_len ? n : iov[i].iov_len;
        if (n > 0)
            memcpy(iov[i].iov_base, (const uint8_t *)r->value + offset, n);
        offset += n;
    }
}

static int
sled_get(struct kvfs_db_snap *s, enum kvfs_keyspace keyspace, const void *key, size_t key_len,
         size_t offset, const struct iovec *iov, int iov_count, size_t *value_len,
         struct kvfs_error *err)
{
    int rc = kvfs_rust_key_check(s->db, keyspace, key_len, err), found;
    struct kvfs_sled_record live = {.owner = NULL};
    KVFS_RUST_TEXT(text);

    if (rc != 0)
        return rc;
    found = kvfs_sled_get(s->db->store, (int)keyspace, key, key_len, &live, &text);
    if (found < 0)
        return kvfs_rust_error(s->db, err, found, &text);
    rc = kvfs_keeper_get(s->db->keeper, &s->keep, keyspace, key, key_len, offset, iov, iov_count,
                         value_len);
    if (rc == KVFS_KEEPER_LIVE && found == 1) {
        sled_copy(&live, offset, iov, iov_count);
        if (value_len != NULL)
            *value_len = live.value_len;
    }
    if (found == 1)
        kvfs_sled_release(live.owner);
    if (rc == -ESTALE)
        return sled_stale(s, err);
    if (rc == KVFS_KEEPER_ABSENT || (rc == KVFS_KEEPER_LIVE && found == 0))
        return kvfs_error_set(err, -ENOENT, "%s: no such record", s->db->path);
    return 0;
}

static int
sled_cursor_open(struct kvfs_db_snap *s, enum kvfs_keyspace keyspace, const void *lo,
                 size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                 struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    int rc = kvfs_rust_bounds_check(s->db, keyspace, lo_len, hi_len, err);
    struct kvfs_db_cursor *c;

    if (rc != 0)
        return rc;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a scan", s->db->path);
    c->snap = s;
    c->keyspace = keyspace;
    c->reverse = (flags & KVFS_SCAN_REVERSE) != 0;
    c->lo_len = lo_len;
    c->hi_len = hi_len;
    if (lo_len > 0)
        memcpy(c->lo, lo, lo_len);
    if (hi_len > 0)
        memcpy(c->hi, hi, hi_len);
    *cursorp = c;
    return 0;
}

static int
sled_compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    size_t n = a_len < b_len ? a_len : b_len;
    int cmp = n > 0 ? memcmp(a, b, n) : 0;

    return cmp != 0 ? cmp : (a_len > b_len) - (a_len < b_len);
}

static void
sled_cursor_release(struct kvfs_db_cursor *c)
{
    if (c->live.owner != NULL)
        kvfs_sled_release(c->live.owner);
    c->live = (struct kvfs_sled_record){.owner = NULL};
}

/* The record behind the present one in the live tree, into c->live. */
static int
sled_step_live(struct kvfs_db_cursor *c, struct kvfs_error *err)
{
    struct kvfs_db *db = c->snap->db;
    const void *lo = c->lo, *hi = c->hi;
    size_t lo_len = c->lo_len, hi_len = c->hi_len;
    bool behind = c->started && !c->reverse;
    KVFS_RUST_TEXT(text);
    int rc;

    if (behind) {
        lo = c->key;
        lo_len = c->key_len;
    } else if (c->started) {
        hi = c->key;
        hi_len = c->key_len;
    }
    rc = kvfs_sled_find(db->store, (int)c->keyspace, lo, lo_len, behind, hi, hi_len, c->reverse,
                        &c->live, &text);
    return rc < 0 ? kvfs_rust_error(db, err, rc, &text) : rc;
}

/* The nearest key in the range of which the keeper knows something. */
static int
sled_step_kept(struct kvfs_db_cursor *c, uint8_t key[KVFS_META_KEY_MAX], size_t *key_len)
{
    struct kvfs_keeper_bound b = {.reverse = c->reverse};
    int rc;

    if (c->started) {
        b.key = c->key;
        b.key_len = c->key_len;
        b.behind = !c->reverse;
    } else {
        b.key = c->reverse ? c->hi : c->lo;
        b.key_len = c->reverse ? c->hi_len : c->lo_len;
    }
    rc = kvfs_keeper_near(c->snap->db->keeper, &c->snap->keep, c->keyspace, &b, key, key_len);
    if (rc == 1 && (c->reverse
                        ? sled_compare(key, *key_len, c->lo, c->lo_len) < 0
                        : c->hi_len > 0 && sled_compare(key, *key_len, c->hi, c->hi_len) >= 0))
        rc = 0;
    return rc;
}

/* One key further, be it a record of the snapshot or not: 1, 0 at the end, or an error. */
static int
sled_step(struct kvfs_db_cursor *c, size_t *value_len, struct kvfs_error *err)
{
    uint8_t kept[KVFS_META_KEY_MAX];
    size_t kept_len;
    int live, near, cmp = 0, rc;

    sled_cursor_release(c);
    live = sled_step_live(c, err); /* first, then the keeper: keeper.h */
    if (live < 0)
        return live;
    near = sled_step_kept(c, kept, &kept_len);
    if (near < 0)
        return sled_stale(c->snap, err);
    if (live == 0 && near == 0)
        return 0;
    if (live == 1 && near == 1)
        cmp = sled_compare(c->live.key, c->live.key_len, kept, kept_len);
    if (near == 0 || (live == 1 && (c->reverse ? cmp >= 0 : cmp <= 0))) {
        c->key_len = c->live.key_len;
        memcpy(c->key, c->live.key, c->live.key_len);
    } else {
        c->key_len = kept_len;
        memcpy(c->key, kept, kept_len);
        sled_cursor_release(c);
    }
    c->started = true;
    rc = kvfs_keeper_get(c->snap->db->keeper, &c->snap->keep, c->keyspace, c->key, c->key_len, 0,
                         NULL, 0, value_len);
    if (rc < 0)
        return sled_stale(c->snap, err);
    c->kept = rc == KVFS_KEEPER_VALUE;
    if (rc == KVFS_KEEPER_LIVE && c->live.owner != NULL)
        *value_len = c->live.value_len;
    c->row = c->kept || (rc == KVFS_KEEPER_LIVE && c->live.owner != NULL);
    return 1;
}

static int
sled_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len, size_t *value_len,
                 struct kvfs_error *err)
{
    int rc = kvfs_fork_check(c->snap->db->generation, c->snap->db->path, err);

    c->row = false;
    if (c->hi_len > 0 && sled_compare(c->lo, c->lo_len, c->hi, c->hi_len) >= 0)
        c->ended = true;
    while (rc == 0 && !c->ended && !c->row) {
        rc = sled_step(c, value_len, err);
        c->ended = rc == 0;
        rc = rc > 0 ? 0 : rc;
    }
    if (rc != 0 || !c->row)
        return rc;
    *key = c->key;
    *key_len = c->key_len;
    return 1;
}

static int
sled_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov, int iov_count,
                  struct kvfs_error *err)
{
    struct kvfs_db *db = c->snap->db;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if (!c->row)
        return kvfs_error_set(err, -EINVAL, "%s: the scan is at no record", db->path);
    if (!c->kept) {
        sled_copy(&c->live, offset, iov, iov_count);
        return 0;
    }
    rc = kvfs_keeper_get(db->keeper, &c->snap->keep, c->keyspace, c->key, c->key_len, offset, iov,
                         iov_count, NULL);
    return rc < 0 ? sled_stale(c->snap, err) : 0;
}

static void
sled_cursor_close(struct kvfs_db_cursor *c)
{
    sled_cursor_release(c);
    free(c);
}

/* --- writing ------------------------------------------------------------------------------------ */

static void
sled_keep(void *arg, int keyspace, const void *key, size_t key_len, const void *value,
          size_t value_len)
{
    kvfs_keeper_keep(arg, (enum kvfs_keyspace)keyspace, key, key_len, value, value_len);
}

static int
sled_room(struct kvfs_db *db, const struct kvfs_batch *batch, struct kvfs_error *err)
{
    struct kvfs_rust_need n;
    uint64_t counts[4], bytes, need, most;
    KVFS_RUST_TEXT(text);
    int rc;

    kvfs_rust_need(batch, &n);
    if (n.puts == 0 || (!n.data_puts && n.dels > 0 && n.put_bytes < SLED_HEAD_BYTES / 8))
        return 0;
    rc = kvfs_sled_stat(db->store, counts, &bytes, &text);
    if (rc != 0)
        return kvfs_rust_error(db, err, rc, &text);
    /* Free segments of the log are not known from outside; a few new ones may be needed. */
    need = n.put_bytes + (n.data_puts ? SLED_HEAD_BYTES / 2 : SLED_HEAD_BYTES / 4);
    most = sled_capacity(db, bytes);
    if (!n.data_puts)
        most += SLED_HEAD_BYTES / 2;
    if (sled_amplified(counts[3] + n.put_bytes + 32 * n.puts) <= most &&
        (db->limit_bytes > 0 || bytes + need <= most))
        return 0;
    return kvfs_error_set(err, -ENOSPC, "%s: %s full: sled's log takes up to 4.5 times the %llu "
                          "KiB of the records", db->path,
                          db->limit_bytes > 0 ? "the store is" : "the file system is",
                          (unsigned long long)(counts[3] + n.put_bytes) >> 10);
}

static int
sled_flush(struct kvfs_db *db, enum kvfs_durability durability, struct kvfs_error *err)
{
    KVFS_RUST_TEXT(text);
    int rc = kvfs_sled_flush(db->store, &text);

    if (rc == 0 && durability == KVFS_DURABLE && fdatasync(db->file_fd) != 0)
        rc = kvfs_error_set(err, -EIO, "%s: %s", db->path, strerrordesc_np(errno));
    else if (rc != 0)
        rc = kvfs_rust_error(db, err, -EIO, &text);
    if (rc != 0)
        atomic_store(&db->poisoned, true);
    return rc;
}

static int
sled_apply_locked(struct kvfs_db *db, const struct kvfs_batch *batch, struct kvfs_error *err)
{
    KVFS_RUST_TEXT(text);
    int rc;

    (void)pthread_rwlock_wrlock(&db->gate);
    rc = kvfs_sled_apply(db->store, batch->ops, batch->ops_count,
                         kvfs_keeper_wanted(db->keeper) ? sled_keep : NULL, db->keeper, &text);
    if (rc == 0)
        kvfs_keeper_done(db->keeper);
    (void)pthread_rwlock_unlock(&db->gate);
    if (rc == 0)
        return 0;
    if (rc != -EAGAIN) {
        atomic_store(&db->poisoned, true);
        rc = -EIO;
    }
    return kvfs_rust_error(db, err, rc, &text);
}

static int
sled_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
           struct kvfs_error *err)
{
    int rc;

    (void)pthread_mutex_lock(&db->apply_lock);
    rc = kvfs_rust_batch_check(db, batch, err);
    if (rc == 0)
        rc = sled_room(db, batch, err);
    if (rc == 0)
        rc = sled_apply_locked(db, batch, err);
    (void)pthread_mutex_unlock(&db->apply_lock);
    /* Beside others: one flush is good for all batches before it. */
    return rc == 0 ? sled_flush(db, durability, err) : rc;
}

static int
sled_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0 || db->readonly)
        return rc;
    (void)pthread_mutex_lock(&db->apply_lock);
    rc = kvfs_rust_there(db, err);
    if (rc == 0)
        rc = sled_flush(db, KVFS_DURABLE, err);
    (void)pthread_mutex_unlock(&db->apply_lock);
    return rc;
}

/* --- upkeep --------------------------------------------------------------------------------------- */

static int
sled_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
            void *progress_arg, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);
    KVFS_RUST_TEXT(text);

    if (rc != 0)
        return rc;
    (void)posix_fadvise(db->file_fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)pthread_mutex_lock(&db->apply_lock); /* the counts must not move meanwhile */
    rc = kvfs_sled_verify(db->store, finding, arg, progress, progress_arg, &text);
    (void)pthread_mutex_unlock(&db->apply_lock);
    if (rc == -EINTR)
        return kvfs_error_set(err, rc, "%s: the check was interrupted", db->path);
    return rc != 0 ? kvfs_rust_error(db, err, rc, &text) : 0;
}

static int
sled_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                        struct kvfs_error *err)
{
    return kvfs_rust_compact_need(self, path, bytes, err);
}

static int
sled_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
             void *progress_arg, struct kvfs_error *err)
{
    const struct kvfs_rust_compact how = {self, SLED_FOLDER, sled_open_alone};

    return kvfs_rust_compact(&how, path, progress, progress_arg, err);
}

static int
sled_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress, void *progress_arg,
            struct kvfs_error *err)
{
    return kvfs_rust_copy(&kvfs_engine_sled, db, path, progress, progress_arg, err);
}

const struct kvfs_engine kvfs_engine_sled = {
    .abi = KVFS_ENGINE_ABI,
    .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_COUNTS, /* no power cut: README.md */
    .name = "sled",
    .description = "sled: a B-link tree over a log, in Rust",
    .version = sled_version,
    .open = sled_open,
    .close = sled_close,
    .limits = sled_limits,
    .stat = sled_stat,
    .begin = sled_begin,
    .end = sled_end,
    .get = sled_get,
    .cursor_open = sled_cursor_open,
    .cursor_next = sled_cursor_next,
    .cursor_value = sled_cursor_value,
    .cursor_close = sled_cursor_close,
    .apply = sled_apply,
    .sync = sled_sync,
    .verify = sled_verify,
    .compact_need_bytes = sled_compact_need_bytes,
    .compact = sled_compact,
    .backup = sled_backup,
};
