/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lmdb.c - the lmdb engine: opening, closing and what a store says of itself.
 *
 * One environment of LMDB with two named databases, "meta" and "data", in the
 * files data.mdb and lock.mdb of the store's folder.  The parts:
 *
 *   meta.c    the meta pages, judged before LMDB maps the file
 *   page.c    single pages            path.c   pages that a batch will change
 *   map.c     size and place of the map
 *   guard.c   faults become -EIO      error.c  codes
 *   read.c    snapshots, get          scan.c   scans
 *   layout.c  blocks in pages         order.c  sorting a batch
 *   apply.c   write transactions      room.c   space, headroom, readers
 *   verify.c  the page structure      copy.c   backup, compact
 *
 * Opening reads the meta pages, the two database records and, where LMDB was
 * stopped in the middle, nothing else: it needs no recovery, and opening takes
 * the same time whatever the store holds.
 *
 * An environment must not be used across fork(): the reader table and the file
 * locks know the parent's process id.  A handle remembers in which generation of
 * the process it was opened; in a child every call answers -EBADF and close()
 * only frees memory.
 *
 * A store on a medium that cannot be written is opened without a lock file.
 * LMDB then sees no other process, which is sound because nobody can write it
 * here; if the medium is shared and somebody writes it elsewhere, readers here
 * may meet pages that were reused, that is: kvfs finds wrong checksums.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lmdb_priv.h"

const char *const kvfs_lmdb_names[2] = {[KVFS_META] = "meta", [KVFS_DATA] = "data"};

/* --- fork ------------------------------------------------------------------------- */

static atomic_uint lmdb_generation = 1;
static pthread_once_t lmdb_once = PTHREAD_ONCE_INIT;
static int lmdb_once_error;

static void
lmdb_forked(void)
{
    atomic_fetch_add_explicit(&lmdb_generation, 1, memory_order_relaxed);
}

static void
lmdb_init(void)
{
    lmdb_once_error = pthread_atfork(NULL, NULL, lmdb_forked);
}

int
kvfs_lmdb_usable(const struct kvfs_db *db, struct kvfs_error *err)
{
    if (db->generation == atomic_load_explicit(&lmdb_generation, memory_order_relaxed))
        return 0;
    return kvfs_error_set(err, -EBADF, "%s: opened before fork(), not usable in the child",
                          db->path);
}

/* --- parameters ---------------------------------------------------------------------- */

static int
lmdb_param(const char *text, size_t len, struct kvfs_lmdb_params *p, struct kvfs_error *err)
{
    const char *eq = memchr(text, '=', len);
    size_t name_len = eq != NULL ? (size_t)(eq - text) : len;
    bool on;

    if (eq == NULL || len != name_len + 2 || (eq[1] != '0' && eq[1] != '1'))
        return kvfs_error_set(err, -EINVAL, "lmdb: parameter '%.*s': give name=0 or name=1",
                              (int)len, text);
    on = eq[1] == '1';
    if (name_len == strlen("readahead") && memcmp(text, "readahead", name_len) == 0)
        p->no_readahead = !on;
    else if (name_len == strlen("unsafe-nosync") && memcmp(text, "unsafe-nosync", name_len) == 0)
        p->unsafe_nosync = on;
    else
        return kvfs_error_set(err, -EINVAL,
                              "lmdb: unknown parameter '%.*s' (there are: readahead, "
                              "unsafe-nosync)",
                              (int)name_len, text);
    return 0;
}

static int
lmdb_params(const char *text, struct kvfs_lmdb_params *p, struct kvfs_error *err)
{
    int rc = 0;

    while (rc == 0 && text != NULL && *text != '\0') {
        size_t len = strcspn(text, ",");

        rc = lmdb_param(text, len, p, err);
        text += len + (text[len] == ',');
    }
    return rc;
}

/* --- opening --------------------------------------------------------------------------- */

struct lmdb_open {
    struct kvfs_db *db;
    const char *folder;
    const struct kvfs_engine_options *options;
    bool fresh; /* there was no store */
    struct kvfs_lmdb_meta meta;
    unsigned flags;
};

static void
lmdb_assert(MDB_env *env, const char *text)
{
    (void)env;
    kvfs_lmdb_guard_assert(text);
}

/* Look at the file before LMDB does. */
static int
lmdb_open_probe(struct lmdb_open *o, struct kvfs_error *err)
{
    int fd = open(o->db->path, O_RDONLY | O_CLOEXEC);
    int rc;

    if (fd < 0 && errno != ENOENT)
        return kvfs_lmdb_error(err, errno, o->db->path, "opening");
    if (fd < 0) {
        rc = kvfs_error_set(err, -ENOENT, "%s: no store there", o->db->path);
    } else {
        rc = kvfs_lmdb_meta_read(fd, o->db->path, &o->meta, err);
        (void)close(fd);
    }
    /* Meta pages only: making the store was interrupted. */
    if (rc == 0 && o->meta.page.txnid == 0)
        rc = kvfs_error_set(err, -ENOENT, "%s: an empty store", o->db->path);
    o->fresh = rc == -ENOENT;
    return o->fresh && o->options->create && !o->options->readonly ? 0 : rc;
}

static int
lmdb_open_env_guarded(void *arg)
{
    struct lmdb_open *o = arg;

    return mdb_env_open(o->db->env, o->folder, o->flags, 0666);
}

/* Open the environment, with the largest map that the kernel gives. */
static int
lmdb_open_env(struct lmdb_open *o)
{
    uint64_t used = o->fresh ? 0 : (o->meta.page.last_pgno + 1) * o->meta.psize;
    size_t psize = o->fresh ? (size_t)sysconf(_SC_PAGESIZE) : o->meta.psize;
    size_t bytes = kvfs_lmdb_map_choose(used, o->db->limit_bytes, psize);
    int rc;

    for (;;) {
        MDB_env *env;

        rc = mdb_env_create(&env);
        if (rc != 0)
            return rc;
        o->db->env = env;
        rc = mdb_env_set_mapsize(env, bytes);
        if (rc == 0)
            rc = mdb_env_set_maxdbs(env, 2);
        if (rc == 0)
            rc = mdb_env_set_maxreaders(env, KVFS_LMDB_READERS_MAX);
        if (rc == 0)
            rc = mdb_env_set_assert(env, lmdb_assert);
        if (rc == 0)
            rc = kvfs_lmdb_guard(lmdb_open_env_guarded, o);
        if (rc == 0 || rc == KVFS_LMDB_FAULT)
            return rc;
        mdb_env_close(env);
        o->db->env = NULL;
        if (rc == ENOMEM && bytes / 2 > used) {
            bytes /= 2;
        } else if ((rc == EROFS || rc == EACCES) && (o->flags & MDB_RDONLY) != 0 &&
                   (o->flags & MDB_NOLOCK) == 0) {
            o->flags |= MDB_NOLOCK;
            o->db->unlocked = true;
        } else {
            return rc;
        }
    }
}

/* Closing an environment that could not be opened destroys mutexes in its lock
 * table, which may lie on a full medium: LMDB 0.9.31 faults there once more. */
static int
lmdb_close_env_guarded(void *arg)
{
    mdb_env_close(arg);
    return 0;
}

static int
lmdb_open_dbs_guarded(void *arg)
{
    struct lmdb_open *o = arg;
    MDB_txn *txn;
    int rc = mdb_txn_begin(o->db->env, NULL, o->fresh ? 0 : MDB_RDONLY, &txn);

    if (rc != 0)
        return rc;
    for (int i = 0; rc == 0 && i < 2; i++)
        rc = mdb_dbi_open(txn, kvfs_lmdb_names[i], o->fresh ? MDB_CREATE : 0, &o->db->dbi[i]);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

static int
lmdb_sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (fd < 0)
        return errno;
    rc = fsync(fd) != 0 ? errno : 0;
    (void)close(fd);
    return rc;
}

/* The lock table is mapped too: on a full file system it ends in SIGBUS. */
static bool
lmdb_medium_full(const char *folder)
{
    struct statvfs vfs;

    return statvfs(folder, &vfs) == 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize < KVFS_LMDB_READERS_MAX * UINT64_C(64);
}

static int
lmdb_open_store(struct lmdb_open *o, struct kvfs_error *err)
{
    struct kvfs_db *db = o->db;
    mdb_filehandle_t fd;
    MDB_stat st;
    int rc = lmdb_open_env(o);

    if (rc == KVFS_LMDB_FAULT && lmdb_medium_full(o->folder))
        rc = ENOSPC;
    if (rc != 0)
        return kvfs_lmdb_error(err, rc, db->path, "opening");
    (void)mdb_reader_check(db->env, NULL);
    rc = kvfs_lmdb_guard(lmdb_open_dbs_guarded, o);
    if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
        return kvfs_error_set(err, -EINVAL, "%s: an LMDB store, but not one of kvfs", db->path);
    if (rc == 0)
        rc = mdb_env_get_fd(db->env, &fd);
    if (rc == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        rc = errno;
    if (rc == 0)
        rc = mdb_env_stat(db->env, &st);
    if (rc == 0)
        rc = mdb_env_get_maxreaders(db->env, &db->readers_max);
    if (rc == 0 && o->fresh)
        rc = mdb_env_sync(db->env, 1);
    if (rc == 0 && o->fresh)
        rc = lmdb_sync_folder(o->folder);
    if (rc != 0)
        return kvfs_lmdb_error(err, rc, db->path, o->fresh ? "making the store" : "opening");
    kvfs_lmdb_layout_init(&db->layout, st.ms_psize, (size_t)mdb_env_get_maxkeysize(db->env));
    rc = kvfs_lmdb_map_locate(db);
    if (rc != 0)
        return kvfs_lmdb_error(err, rc, db->path, "locating the map");
    if (!db->readonly)
        kvfs_lmdb_room_reserve(db);
    return 0;
}

static void
lmdb_free(struct kvfs_db *db)
{
    (void)pthread_cond_destroy(&db->pool_cond);
    (void)pthread_mutex_destroy(&db->pool_lock);
    (void)pthread_mutex_destroy(&db->apply_lock);
    free(db->path_state);
    free(db->path);
    free(db);
}

static void
lmdb_close(struct kvfs_db *db)
{
    if (kvfs_lmdb_usable(db, NULL) == 0) {
        kvfs_lmdb_pool_drain(db);
        /* A mutex that is locked must stay mapped until this thread ends. */
        if (!db->wedged)
            mdb_env_close(db->env);
    }
    lmdb_free(db);
}

static struct kvfs_db *
lmdb_new(const char *folder)
{
    struct kvfs_db *db = calloc(1, sizeof(*db));

    if (db == NULL)
        return NULL;
    db->path_state = kvfs_lmdb_path_new();
    if (db->path_state == NULL || asprintf(&db->path, "%s/data.mdb", folder) < 0) {
        free(db->path_state);
        free(db);
        return NULL;
    }
    (void)pthread_mutex_init(&db->apply_lock, NULL);
    (void)pthread_mutex_init(&db->pool_lock, NULL);
    (void)pthread_cond_init(&db->pool_cond, NULL);
    db->generation = atomic_load(&lmdb_generation);
    return db;
}

static void
lmdb_unlink(const char *folder, const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return;
    (void)unlink(path);
    free(path);
}

/* Leave nothing behind of a store that could not be made. */
static void
lmdb_open_undo(const struct lmdb_open *o, bool had_file)
{
    if (!o->fresh || had_file)
        return;
    lmdb_unlink(o->folder, "data.mdb");
    lmdb_unlink(o->folder, "lock.mdb");
}

static int
lmdb_open(const char *path, const struct kvfs_engine_options *options, struct kvfs_db **dbp,
          struct kvfs_error *err)
{
    struct lmdb_open o = {.folder = path, .options = options};
    bool had_file;
    int rc = kvfs_lmdb_guard_init();

    (void)pthread_once(&lmdb_once, lmdb_init);
    if (rc != 0 || lmdb_once_error != 0)
        return kvfs_error_set(err, -ENOMEM, "lmdb: signal or fork handlers cannot be installed");
    o.db = lmdb_new(path);
    if (o.db == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    rc = lmdb_params(options->params, &o.db->params, err);
    o.db->readonly = options->readonly;
    o.db->limit_bytes = options->store_max_bytes;
    o.flags = MDB_NOTLS | MDB_NOMETASYNC | (options->readonly ? MDB_RDONLY : 0u) |
              (o.db->params.unsafe_nosync ? MDB_NOSYNC : 0u) |
              (o.db->params.no_readahead ? MDB_NORDAHEAD : 0u);
    had_file = access(o.db->path, F_OK) == 0;
    if (rc == 0)
        rc = lmdb_open_probe(&o, err);
    if (rc == 0) {
        rc = lmdb_open_store(&o, err);
        if (rc != 0 && o.db->env != NULL) {
            kvfs_lmdb_pool_drain(o.db);
            (void)kvfs_lmdb_guard(lmdb_close_env_guarded, o.db->env);
        }
        if (rc != 0)
            lmdb_open_undo(&o, had_file);
        else if (!o.db->readonly)
            lmdb_unlink(path, KVFS_LMDB_COMPACT_NAME); /* who compacts holds it alone */
    }
    if (rc != 0) {
        lmdb_free(o.db);
        return rc;
    }
    *dbp = o.db;
    return 0;
}

/* --- what a store says of itself --------------------------------------------------------- */

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
    int rc = kvfs_lmdb_usable(db, err);

    if (rc != 0)
        return rc;
    kvfs_lmdb_readers(db, &readers); /* before we are one */
    rc = kvfs_lmdb_begin(db, &s.snap, err);
    if (rc != 0)
        return rc;
    rc = kvfs_lmdb_guard(lmdb_stat_guarded, &s);
    *stat = (struct kvfs_engine_stat){.commits = s.snap->txnid};
    kvfs_lmdb_end(s.snap);
    if (rc == 0)
        rc = mdb_env_get_fd(db->env, &fd);
    if (rc == 0 && fstat(fd, &st) != 0)
        rc = errno;
    if (rc != 0) {
        (void)kvfs_lmdb_error(err, rc, db->path, "looking at its size");
        return -EIO;
    }
    stat->meta_records = s.usage.meta_records;
    stat->data_records = s.usage.data_records;
    stat->store_bytes = (uint64_t)st.st_size;
    stat->used_bytes = s.usage.used_pages * db->layout.psize;
    stat->free_bytes = (s.usage.high_pages - s.usage.used_pages) * db->layout.psize;
    stat->avail_bytes = db->unlocked ? 0 : kvfs_lmdb_room_avail(db, &s.usage);
    stat->readers = readers.count;
    if (readers.oldest_txnid != 0 && readers.oldest_txnid <= stat->commits) {
        stat->readers_lag = stat->commits - readers.oldest_txnid;
        stat->readers_pid = readers.oldest_pid;
    }
    return 0;
}

static const char *
lmdb_version(void)
{
    return mdb_version(NULL, NULL, NULL);
}

extern const struct kvfs_engine kvfs_engine_lmdb;
const struct kvfs_engine kvfs_engine_lmdb = {
    .abi = KVFS_ENGINE_ABI,
    .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_ORDERED | KVFS_CAP_DURABLE | KVFS_CAP_MULTIPROCESS,
    .name = "lmdb",
    .description = "LMDB: a copy-on-write B+tree in one memory-mapped file",
    .version = lmdb_version,
    .open = lmdb_open,
    .close = lmdb_close,
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
