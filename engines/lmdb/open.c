/* SPDX-License-Identifier: BSD-3-Clause
 *
 * open.c - opening and closing a store.
 *
 * Opening reads the meta pages and the two trees' records and nothing else: LMDB
 * needs no recovery, and opening takes the same time whatever the store holds.
 *
 * A store on a medium that cannot be written is opened without a lock file.
 * LMDB then sees no other process, which is sound because nobody can write it
 * here; if the medium is shared and somebody writes it elsewhere, readers here
 * may meet pages that were reused, that is: kvfs finds wrong checksums.
 *
 * LMDB maps its lock file and touches it where a reader's place is.  On a full
 * file system that would be SIGBUS, so its blocks are reserved first.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lmdb_priv.h"

#define OPEN_LOCK_BYTES (KVFS_LMDB_READERS_MAX * (off_t)64 + 4096)

const char *const kvfs_lmdb_names[2] = {[KVFS_META] = "meta", [KVFS_DATA] = "data"};

/* --- parameters ---------------------------------------------------------------------- */

static int
open_param(const char *text, size_t len, struct kvfs_lmdb_params *p, struct kvfs_error *err)
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
open_params(const char *text, struct kvfs_lmdb_params *p, struct kvfs_error *err)
{
    int rc = 0;

    while (rc == 0 && text != NULL && *text != '\0') {
        size_t len = strcspn(text, ",");

        rc = open_param(text, len, p, err);
        text += len + (text[len] == ',');
    }
    return rc;
}

/* --- opening --------------------------------------------------------------------------- */

struct opening {
    struct kvfs_db *db;
    const char *folder;
    bool create;
    bool fresh; /* there was no store */
    struct kvfs_lmdb_meta meta;
    unsigned flags;
};

static void
open_assert(MDB_env *env, const char *text)
{
    (void)env;
    kvfs_lmdb_guard_assert(text);
}

/* Look at the file before LMDB does. */
static int
open_probe(struct opening *o, struct kvfs_error *err)
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
    return o->fresh && o->create ? 0 : rc;
}

/* 0, or why the lock file cannot be had in full. */
static int
open_reserve_lock(struct opening *o)
{
    char *path;
    int fd;
    int rc = 0;

    if (asprintf(&path, "%s/lock.mdb", o->folder) < 0)
        return ENOMEM;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    free(path);
    if (fd < 0)
        return errno == ENOSPC || errno == EDQUOT ? errno : 0; /* else LMDB will tell */
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, OPEN_LOCK_BYTES) != 0 &&
        (errno == ENOSPC || errno == EDQUOT))
        rc = errno;
    (void)close(fd);
    return rc;
}

static int
open_env_guarded(void *arg)
{
    struct opening *o = arg;

    return mdb_env_open(o->db->env, o->folder, o->flags, 0666);
}

/* Open the environment, with the largest map that the kernel gives. */
static int
open_env(struct opening *o)
{
    uint64_t used = o->fresh ? 0 : (o->meta.page.last_pgno + 1) * o->meta.psize;
    size_t psize = o->fresh ? (size_t)sysconf(_SC_PAGESIZE) : o->meta.psize;
    size_t bytes = kvfs_lmdb_map_choose(used, o->db->limit_bytes, psize);
    int rc = open_reserve_lock(o);

    if (rc != 0)
        return rc;
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
            rc = mdb_env_set_assert(env, open_assert);
        if (rc == 0)
            rc = kvfs_lmdb_guard(open_env_guarded, o);
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

static int
open_dbs_guarded(void *arg)
{
    struct opening *o = arg;
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
open_sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (fd < 0)
        return errno;
    rc = fsync(fd) != 0 ? errno : 0;
    (void)close(fd);
    return rc;
}

static int
open_store(struct opening *o, struct kvfs_error *err)
{
    struct kvfs_db *db = o->db;
    mdb_filehandle_t fd;
    size_t psize = 0;
    int rc = open_env(o);

    if (rc != 0)
        return kvfs_lmdb_error(err, rc, db->path, "opening");
    kvfs_lmdb_reader_check(db);
    rc = kvfs_lmdb_guard(open_dbs_guarded, o);
    if (rc == KVFS_LMDB_FAULT && o->fresh)
        db->wedged = true;
    if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
        return kvfs_error_set(err, -EINVAL, "%s: an LMDB store, but not one of kvfs", db->path);
    if (rc == 0)
        rc = mdb_env_get_fd(db->env, &fd);
    if (rc == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        rc = errno;
    if (rc == 0)
        rc = kvfs_lmdb_env_psize(db, &psize);
    if (rc == 0)
        rc = mdb_env_get_maxreaders(db->env, &db->readers_max);
    if (rc == 0 && o->fresh)
        rc = mdb_env_sync(db->env, 1);
    if (rc == 0 && o->fresh)
        rc = open_sync_folder(o->folder);
    if (rc != 0)
        return kvfs_lmdb_error(err, rc, db->path, o->fresh ? "making the store" : "opening");
    kvfs_lmdb_layout_init(&db->layout, psize, (size_t)mdb_env_get_maxkeysize(db->env));
    rc = kvfs_lmdb_map_locate(db);
    if (rc != 0)
        return kvfs_lmdb_error(err, rc, db->path, "locating the map");
    if ((o->flags & MDB_RDONLY) == 0)
        kvfs_lmdb_room_reserve(db);
    return 0;
}

static int
open_env_close_guarded(void *arg)
{
    mdb_env_close(arg);
    return 0;
}

/* Inside a guard: closing an environment that could not be opened destroys mutexes
 * in its lock table, where it may have faulted before (LMDB 0.9.31). */
static void
open_env_close(struct kvfs_db *db)
{
    kvfs_lmdb_pool_drain(db);
    /* A mutex that is locked must stay mapped until its thread ends. */
    if (db->env != NULL && !db->wedged)
        (void)kvfs_lmdb_guard(open_env_close_guarded, db->env);
    db->env = NULL;
}

static void
open_free(struct kvfs_db *db)
{
    (void)pthread_cond_destroy(&db->pool_cond);
    (void)pthread_mutex_destroy(&db->pool_lock);
    (void)pthread_mutex_destroy(&db->sync_lock);
    (void)pthread_mutex_destroy(&db->apply_lock);
    free(db->path_state);
    free(db->path);
    free(db->folder);
    free(db);
}

void
kvfs_lmdb_close(struct kvfs_db *db)
{
    if (kvfs_fork_check(db->generation, db->path, NULL) == 0)
        open_env_close(db);
    open_free(db);
}

static struct kvfs_db *
open_new(const char *folder)
{
    struct kvfs_db *db = calloc(1, sizeof(*db));

    if (db == NULL)
        return NULL;
    db->path_state = kvfs_lmdb_path_new();
    db->folder = strdup(folder);
    if (db->path_state == NULL || db->folder == NULL ||
        asprintf(&db->path, "%s/data.mdb", folder) < 0) {
        free(db->path_state);
        free(db->folder);
        free(db);
        return NULL;
    }
    (void)pthread_mutex_init(&db->apply_lock, NULL);
    (void)pthread_mutex_init(&db->sync_lock, NULL);
    (void)pthread_mutex_init(&db->pool_lock, NULL);
    (void)pthread_cond_init(&db->pool_cond, NULL);
    db->generation = kvfs_fork_generation();
    return db;
}

static void
open_unlink(const char *folder, const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return;
    (void)unlink(path);
    free(path);
}

/* Leave nothing behind of a store that could not be made. */
static void
open_undo(const struct opening *o, bool had_file)
{
    if (!o->fresh || had_file)
        return;
    open_unlink(o->folder, "data.mdb");
    open_unlink(o->folder, "lock.mdb");
}

static unsigned
open_flags(const struct kvfs_db *db, bool readonly)
{
    return MDB_NOTLS | MDB_NOMETASYNC | (readonly ? MDB_RDONLY : 0u) |
           (db->params.unsafe_nosync ? MDB_NOSYNC : 0u) |
           (db->params.no_readahead ? MDB_NORDAHEAD : 0u);
}

int
kvfs_lmdb_open(const struct kvfs_engine *self, const char *path,
               const struct kvfs_engine_options *options, struct kvfs_db **dbp,
               struct kvfs_error *err)
{
    struct opening o = {.folder = path, .create = options->create && !options->readonly};
    bool had_file;
    int rc = kvfs_lmdb_guard_init();

    (void)self;
    if (rc != 0 || kvfs_fork_generation() == 0)
        return kvfs_error_set(err, -ENOMEM, "lmdb: signal or fork handlers cannot be installed");
    o.db = open_new(path);
    if (o.db == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    rc = open_params(options->params, &o.db->params, err);
    o.db->readonly = options->readonly;
    o.db->limit_bytes = options->store_max_bytes;
    o.flags = open_flags(o.db, options->readonly);
    had_file = access(o.db->path, F_OK) == 0;
    if (rc == 0)
        rc = open_probe(&o, err);
    if (rc == 0) {
        rc = open_store(&o, err);
        if (rc != 0)
            open_env_close(o.db);
        if (rc != 0)
            open_undo(&o, had_file);
        else if (!o.db->readonly)
            open_unlink(path, KVFS_LMDB_COMPACT_NAME); /* who compacts holds it alone */
    }
    if (rc != 0) {
        open_free(o.db);
        return rc;
    }
    *dbp = o.db;
    return 0;
}

/* --- after a meta page that could not be written --------------------------------------- */

static int
open_again(struct kvfs_db *db, struct kvfs_error *err)
{
    struct opening o = {.db = db, .folder = db->folder};
    int rc;

    open_env_close(db);
    o.flags = open_flags(db, true);
    rc = open_probe(&o, err);
    return rc != 0 ? rc : open_store(&o, err);
}

int
kvfs_lmdb_reopen(struct kvfs_db *db, struct kvfs_error *err)
{
    unsigned flags = 0;
    int rc = 0;

    (void)pthread_mutex_lock(&db->apply_lock);
    if (kvfs_lmdb_gate_close(db)) {
        if (db->env != NULL)
            (void)mdb_env_get_flags(db->env, &flags);
        if ((flags & MDB_RDONLY) == 0) /* nobody else was faster */
            rc = open_again(db, err);
        kvfs_lmdb_gate_open(db);
    } else {
        rc = kvfs_lmdb_error(err, MDB_PANIC, db->path, "beginning a snapshot");
    }
    (void)pthread_mutex_unlock(&db->apply_lock);
    return rc;
}
