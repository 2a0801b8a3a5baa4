/* SPDX-License-Identifier: BSD-3-Clause
 *
 * open.c - opening, making and closing a store.
 *
 *  1. The header is looked at with plain reads before SQLite sees the file, so what
 *     is no store of ours is refused in words of ours, and nothing is changed.
 *  2. A store is made under a name of its own and renamed when it is whole.
 *  3. A descriptor of our own on the database must outlive every connection: POSIX
 *     drops a process's locks on a file when any descriptor of it is closed.
 *  4. On a medium that cannot be written the database is opened as one that does not
 *     change (immutable=1), which is so unless its log holds frames.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../params.h"
#include "sqlite_priv.h"

#define OPEN_NEW      KVFS_SQ_FILE ".new"
#define OPEN_HEAD_LEN 100

static const char open_schema[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE meta (k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE data (k BLOB NOT NULL UNIQUE, v BLOB NOT NULL);" /* why: README.md */
    "CREATE TABLE counts (meta INTEGER NOT NULL, data INTEGER NOT NULL, "
    "commits INTEGER NOT NULL);"
    "INSERT INTO counts VALUES (0, 0, 0);"
    "COMMIT";

static int
open_params(struct kvfs_db *db, const char *params, struct kvfs_error *err)
{
    uint64_t nosync = 0;
    const struct kvfs_param known[] = {
        {"cache-bytes", KVFS_CACHE_PARAM_MIN, KVFS_CACHE_PARAM_MAX, &db->cache_bytes},
        {"unsafe-nosync", 0, 1, &nosync},
    };
    int rc = kvfs_params_parse("sqlite", params, known, sizeof(known) / sizeof(known[0]), err);

    db->unsafe_nosync = nosync == 1;
    return rc;
}

static uint32_t
open_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Is the file at FD a store of ours, as long as it says? */
static int
open_judge(struct kvfs_db *db, int fd, uint64_t wal_bytes, struct kvfs_error *err)
{
    static const char magic[16] = "SQLite format 3";
    uint8_t head[OPEN_HEAD_LEN];
    struct stat st;
    ssize_t n = pread(fd, head, sizeof(head), 0);
    uint64_t pages;

    if (n < 0 || fstat(fd, &st) != 0)
        return kvfs_error_set(err, -EIO, "%s: cannot be read", db->path);
    if (n != sizeof(head) && wal_bytes == 0)
        return kvfs_error_set(err, -EINVAL, "%s: %zd bytes are no SQLite database", db->path, n);
    if (memcmp(head, magic, sizeof(magic)) != 0)
        return kvfs_error_set(err, -EINVAL, "%s: not an SQLite database", db->path);
    if (open_be32(head + 68) != KVFS_SQ_APPLICATION_ID)
        return kvfs_error_set(err, -EINVAL, "%s: an SQLite database, but no store of kvfs",
                              db->path);
    if ((head[16] << 8 | head[17]) != KVFS_SQ_PAGE || head[20] != 8)
        return kvfs_error_set(err, -EIO, "%s: a store of pages of another kind: damaged",
                              db->path);
    pages = open_be32(head + 28);
    /* While its log holds frames the file may be shorter than page 1 already says. */
    if (wal_bytes == 0 && (uint64_t)st.st_size < pages * KVFS_SQ_PAGE)
        return kvfs_error_set(err, -EIO, "%s: %llu bytes, should be %llu: truncated", db->path,
                              (unsigned long long)st.st_size,
                              (unsigned long long)(pages * KVFS_SQ_PAGE));
    return 0;
}

static char *
open_name(const char *a, const char *b)
{
    size_t len = strlen(a) + strlen(b) + 1;
    char *s = malloc(len);

    if (s != NULL)
        (void)snprintf(s, len, "%s%s", a, b);
    return s;
}

static void
open_unlink(const char *path)
{
    static const char *const more[] = {"", "-wal", "-shm", "-journal"};

    for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
        char *name = open_name(path, more[i]);

        if (name != NULL)
            (void)unlink(name);
        free(name);
    }
}

static int
open_sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

    if (fd < 0)
        return -errno;
    rc = fsync(fd) != 0 ? -errno : 0;
    (void)close(fd);
    return rc;
}

static int
open_make_tables(struct sq_conn *c)
{
    char sql[128];
    int reserve = 8, rc;

    rc = kvfs_sq_exec(c, "PRAGMA page_size = 4096");
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(c->db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserve);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_exec(c, "PRAGMA journal_mode = WAL");
    if (rc == SQLITE_OK)
        rc = kvfs_sq_exec(c, "PRAGMA synchronous = FULL");
    if (rc == SQLITE_OK) {
        (void)snprintf(sql, sizeof(sql), "PRAGMA application_id = %d", KVFS_SQ_APPLICATION_ID);
        rc = kvfs_sq_exec(c, sql);
    }
    if (rc == SQLITE_OK)
        rc = kvfs_sq_exec(c, open_schema);
    return rc == SQLITE_OK ? kvfs_sq_exec(c, "PRAGMA wal_checkpoint(TRUNCATE)") : rc;
}

static int
open_make(struct kvfs_db *db, struct kvfs_error *err)
{
    char *final = db->path, *fresh = open_name(db->folder, "/" OPEN_NEW);
    struct sq_conn *c;
    int rc;

    if (fresh == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    open_unlink(fresh);
    db->path = fresh;
    rc = kvfs_sq_conn_open(db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &c, err);
    if (rc == 0) {
        int code = open_make_tables(c);

        if (code != SQLITE_OK)
            rc = kvfs_sq_error(err, code, c, final, "making the store");
        kvfs_sq_conn_close(c); /* the last one takes the log away */
    }
    db->path = final;
    if (rc == 0 && rename(fresh, final) != 0)
        rc = kvfs_error_set(err, -errno, "%s: %s", final, strerrordesc_np(errno));
    if (rc == 0) {
        rc = open_sync_folder(db->folder);
        if (rc != 0)
            (void)kvfs_error_set(err, rc, "%s: %s", db->folder, strerrordesc_np(-rc));
    } else {
        open_unlink(fresh);
    }
    free(fresh);
    return rc;
}

/* Find the store, or make it.  db->file_fd is then open. */
static int
open_find(struct kvfs_db *db, bool create, struct kvfs_error *err)
{
    char *wal = open_name(db->path, "-wal");
    int flags = db->readonly ? O_RDONLY : O_RDWR, rc;
    struct stat st, log = {.st_size = 0};
    struct statvfs vfs;

    if (wal == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    (void)stat(wal, &log);
    free(wal);
    if (stat(db->path, &st) != 0 && errno == ENOENT) {
        if (!create)
            return kvfs_error_set(err, -ENOENT, "%s: no store here", db->path);
        rc = db->readonly ? kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path)
                          : open_make(db, err);
        if (rc != 0)
            return rc;
        log.st_size = 0;
    }
    db->file_fd = open(db->path, flags | O_CLOEXEC);
    if (db->file_fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", db->path, strerrordesc_np(errno));
    db->immutable = db->readonly && log.st_size == 0 && fstatvfs(db->file_fd, &vfs) == 0 &&
                    (vfs.f_flag & ST_RDONLY) != 0;
    return open_judge(db, db->file_fd, (uint64_t)log.st_size, err);
}

static int
open_wal_hook(void *arg, sqlite3 *conn, const char *name, int pages)
{
    struct kvfs_db *db = arg;

    (void)conn;
    (void)name;
    db->wal_pages = pages;
    return SQLITE_OK;
}

static int
open_writer(struct kvfs_db *db, struct kvfs_error *err)
{
    int on = 1, rc = kvfs_sq_conn_open(db, SQLITE_OPEN_READWRITE, &db->writer, err);
    struct sq_counts counts;

    if (rc != 0)
        return rc;
    rc = kvfs_sq_exec(db->writer, db->unsafe_nosync ? "PRAGMA synchronous = OFF"
                                                    : "PRAGMA synchronous = NORMAL");
    if (rc == SQLITE_OK)
        rc = sqlite3_file_control(db->writer->db, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
    if (rc == SQLITE_OK)
        rc = sqlite3_wal_autocheckpoint(db->writer->db, 0);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_counts(db->writer, &counts); /* recovers, where that is due */
    if (rc != SQLITE_OK)
        return kvfs_sq_error(err, rc, db->writer, db->path, "opening");
    (void)sqlite3_wal_hook(db->writer->db, open_wal_hook, db);
    db->wal_path = open_name(db->path, "-wal");
    if (db->wal_path != NULL)
        db->wal_fd = open(db->wal_path, O_RDWR | O_CLOEXEC);
    if (db->wal_fd < 0)
        return kvfs_error_set(err, -EIO, "%s-wal: cannot be opened", db->path);
    kvfs_sq_room_reserve(db);
    return 0;
}

static int
open_parts(struct kvfs_db *db, const struct kvfs_engine_options *options, struct kvfs_error *err)
{
    int rc = kvfs_sq_pagesum_register();

    if (rc != SQLITE_OK)
        return kvfs_sq_error(err, rc, NULL, db->path, "loading SQLite");
    rc = open_params(db, options->params, err);
    if (rc == 0)
        rc = open_find(db, options->create, err);
    if (rc == 0 && !db->readonly)
        rc = open_writer(db, err);
    if (rc == 0 && db->readonly) {
        struct kvfs_db_snap *snap;

        rc = kvfs_sq_begin(db, &snap, err); /* can it be read at all? */
        if (rc == 0)
            kvfs_sq_end(snap);
    }
    return rc;
}

int
kvfs_sq_open(const struct kvfs_engine *self, const char *path,
             const struct kvfs_engine_options *options, struct kvfs_db **dbp,
             struct kvfs_error *err)
{
    struct kvfs_db *db = calloc(1, sizeof(*db));
    int rc;

    (void)self;
    if (db == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    db->file_fd = db->wal_fd = -1;
    db->readonly = options->readonly;
    db->limit_bytes = options->store_max_bytes;
    db->generation = kvfs_fork_generation();
    (void)pthread_mutex_init(&db->apply_lock, NULL);
    (void)pthread_mutex_init(&db->pool_lock, NULL);
    (void)pthread_cond_init(&db->pool_cond, NULL);
    db->folder = strdup(path);
    db->path = open_name(path, "/" KVFS_SQ_FILE);
    rc = db->folder != NULL && db->path != NULL
             ? open_parts(db, options, err)
             : kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    if (rc == 0)
        *dbp = db;
    else
        kvfs_sq_close(db);
    return rc;
}

void
kvfs_sq_close(struct kvfs_db *db)
{
    int off = 0;

    /* In a forked child the connections are the parent's. */
    if (kvfs_fork_check(db->generation, db->path, NULL) == 0) {
        while (db->idle != NULL) {
            struct sq_conn *c = db->idle;

            db->idle = c->next;
            kvfs_sq_conn_close(c);
        }
        if (db->writer != NULL) /* the last one to close takes the log away, empty */
            (void)sqlite3_file_control(db->writer->db, "main", SQLITE_FCNTL_PERSIST_WAL, &off);
        kvfs_sq_conn_close(db->writer);
        if (db->wal_fd >= 0)
            (void)close(db->wal_fd);
        if (db->file_fd >= 0)
            (void)close(db->file_fd);
    }
    (void)pthread_cond_destroy(&db->pool_cond);
    (void)pthread_mutex_destroy(&db->pool_lock);
    (void)pthread_mutex_destroy(&db->apply_lock);
    free(db->folder);
    free(db->path);
    free(db->wal_path);
    free(db);
}
