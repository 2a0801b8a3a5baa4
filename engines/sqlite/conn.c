/* SPDX-License-Identifier: BSD-3-Clause
 *
 * conn.c - one connection to the database: its settings, its statements, and what
 * its codes mean.
 *
 * A connection is used by one thread at a time (SQLITE_OPEN_NOMUTEX).  Statements
 * are prepared when first used and kept.
 *
 * META lies in a table WITHOUT ROWID, so a small record is found in one tree.  A
 * tree with blocks among its keys branches little: DATA's keys have an index, and
 * the blocks a tree of their own.  README.md has the figures.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sqlite_priv.h"

#define CONN_CACHE_KIB     2048 /* of pages; the kernel caches the file as well */
#define CONN_CACHE_KIB_MIN 64   /* a path of every tree */

#define CONN_COUNTS_ADD \
    "UPDATE counts SET meta = meta + ?1, data = data + ?2, commits = commits + 1"

static const char *const conn_tables[] = {"meta", "data"};

static void
conn_sql(int which, char *sql, size_t len)
{
    static const char *const plain[] = {
        [SQ_BEGIN] = "BEGIN",
        [SQ_BEGIN_IMMEDIATE] = "BEGIN IMMEDIATE",
        [SQ_COMMIT] = "COMMIT",
        [SQ_ROLLBACK] = "ROLLBACK",
        [SQ_COUNTS] = "SELECT meta, data, commits FROM counts",
        [SQ_COUNTS_ADD] = CONN_COUNTS_ADD,
        [SQ_PAGES] = "PRAGMA page_count",
        [SQ_FREE_PAGES] = "PRAGMA freelist_count",
    };
    static const char *const each[][2] = { /* before the table, behind it */
        {"SELECT v FROM ", " WHERE k = ?1"},
        {"UPDATE ", " SET v = ?2 WHERE k = ?1"},
        {"INSERT INTO ", " (k, v) VALUES (?1, ?2)"},
        {"DELETE FROM ", " WHERE k = ?1"},
        {"DELETE FROM ", " WHERE k >= ?1 AND k < ?2"},
        {"DELETE FROM ", " WHERE k >= ?1"},
    };

    if (which < SQ_GET) {
        (void)snprintf(sql, len, "%s", plain[which]);
    } else if (which < SQ_SCAN) {
        int at = (which - SQ_GET) / 2;

        (void)snprintf(sql, len, "%s%s%s", each[at][0], conn_tables[(which - SQ_GET) % 2],
                       each[at][1]);
    } else {
        int kind = (which - SQ_SCAN) / 2;

        (void)snprintf(sql, len, "SELECT k%s FROM %s WHERE k >= ?1%s ORDER BY k%s",
                       kind & SQ_SCAN_KEYS ? "" : ", v", conn_tables[(which - SQ_SCAN) % 2],
                       kind & SQ_SCAN_TO ? " AND k < ?2" : "",
                       kind & SQ_SCAN_REVERSE ? " DESC" : "");
    }
}

sqlite3_stmt *
kvfs_sq_stmt(struct sq_conn *c, int which, int *rc)
{
    char sql[160];

    *rc = SQLITE_OK;
    if (c->stmt[which] != NULL) {
        (void)sqlite3_reset(c->stmt[which]);
        return c->stmt[which];
    }
    conn_sql(which, sql, sizeof(sql));
    *rc = sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &c->stmt[which], NULL);
    return c->stmt[which];
}

int
kvfs_sq_run(struct sq_conn *c, int which)
{
    int rc;
    sqlite3_stmt *stmt = kvfs_sq_stmt(c, which, &rc);

    if (stmt == NULL)
        return rc;
    rc = sqlite3_step(stmt);
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

int
kvfs_sq_exec(struct sq_conn *c, const char *sql)
{
    return sqlite3_exec(c->db, sql, NULL, NULL, NULL);
}

int
kvfs_sq_bind(sqlite3_stmt *stmt, int at, const void *key, size_t len)
{
    return sqlite3_bind_blob64(stmt, at, len > 0 ? key : "", len, SQLITE_STATIC);
}

int
kvfs_sq_counts(struct sq_conn *c, struct sq_counts *counts)
{
    int rc;
    sqlite3_stmt *stmt = kvfs_sq_stmt(c, SQ_COUNTS, &rc);

    if (stmt == NULL)
        return rc;
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        counts->records[KVFS_META] = sqlite3_column_int64(stmt, 0);
        counts->records[KVFS_DATA] = sqlite3_column_int64(stmt, 1);
        counts->commits = sqlite3_column_int64(stmt, 2);
    }
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_ROW ? SQLITE_OK : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

int
kvfs_sq_number(struct sq_conn *c, int which, int64_t *n)
{
    int rc;
    sqlite3_stmt *stmt = kvfs_sq_stmt(c, which, &rc);

    if (stmt == NULL)
        return rc;
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *n = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_ROW ? SQLITE_OK : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

/* Writers of other processes end: wait for them.  Readers may stay for long. */
static int
conn_busy(void *arg, int tries)
{
    const struct sq_conn *c = arg;

    if (c->patience > 0 && tries >= c->patience)
        return 0;
    (void)sqlite3_sleep(tries < 10 ? 1 : 10);
    return 1;
}

/* The database's path as SQLite's URI for a file that does not change; NULL: no memory. */
static char *
conn_uri(const char *path)
{
    char *uri = malloc(3 * strlen(path) + sizeof("file:?immutable=1")), *at = uri;

    if (uri == NULL)
        return NULL;
    at += sprintf(at, "file:");
    for (; *path != '\0'; path++)
        at += sprintf(at, strchr("%?#", *path) != NULL ? "%%%02x" : "%c", (unsigned char)*path);
    (void)sprintf(at, "?immutable=1");
    return uri;
}

static int
conn_open(const struct kvfs_db *db, int flags, struct sq_conn *c)
{
    char *uri;
    int rc;

    flags |= SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_PRIVATECACHE;
    if (!db->immutable)
        return sqlite3_open_v2(db->path, &c->db, flags, KVFS_SQ_VFS);
    uri = conn_uri(db->path);
    if (uri == NULL)
        return SQLITE_NOMEM;
    rc = sqlite3_open_v2(uri, &c->db, flags | SQLITE_OPEN_URI, KVFS_SQ_VFS);
    free(uri);
    return rc;
}

int
kvfs_sq_conn_cache(struct sq_conn *c)
{
    uint64_t all_kib = c->owner->cache_bytes / 1024, kib = CONN_CACHE_KIB;
    char sql[64];
    int rc;

    if (all_kib > 0) {
        kib = all_kib / atomic_load(&c->owner->conns);
        kib = kib < CONN_CACHE_KIB_MIN ? CONN_CACHE_KIB_MIN : kib;
        kib = kib > INT32_MAX ? INT32_MAX : kib;
    }
    if (kib == c->cache_kib)
        return SQLITE_OK;
    (void)snprintf(sql, sizeof(sql), "PRAGMA cache_size = -%llu", (unsigned long long)kib);
    rc = kvfs_sq_exec(c, sql);
    if (rc == SQLITE_OK)
        c->cache_kib = kib;
    return rc;
}

int
kvfs_sq_conn_open(struct kvfs_db *db, int flags, struct sq_conn **connp, struct kvfs_error *err)
{
    struct sq_conn *c = calloc(1, sizeof(*c));
    int rc;

    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a connection", db->path);
    c->owner = db;
    (void)atomic_fetch_add(&db->conns, 1);
    rc = conn_open(db, flags, c);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_handler(c->db, conn_busy, c);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_conn_cache(c);
    if (rc == SQLITE_OK) /* what a damaged page says is not followed blindly */
        rc = kvfs_sq_exec(c, "PRAGMA cell_size_check = ON");
    if (rc == SQLITE_OK) {
        *connp = c;
        return 0;
    }
    rc = kvfs_sq_error(err, rc, c, db->path, "opening");
    kvfs_sq_conn_close(c);
    return rc;
}

void
kvfs_sq_conn_close(struct sq_conn *c)
{
    if (c == NULL)
        return;
    for (int i = 0; i < SQ_COUNT; i++)
        (void)sqlite3_finalize(c->stmt[i]);
    (void)sqlite3_close(c->db);
    (void)atomic_fetch_sub(&c->owner->conns, 1);
    free(c);
}

static int
conn_errno(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return -EACCES;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_NOTADB:
        return -EINVAL;
    case SQLITE_TOOBIG:
        return -E2BIG;
    default:
        return -EIO;
    }
}

int
kvfs_sq_error(struct kvfs_error *err, int rc, struct sq_conn *c, const char *path,
              const char *what)
{
    int code = conn_errno(rc);
    int os = c != NULL && c->db != NULL ? sqlite3_system_errno(c->db) : 0;

    if ((rc & 0xff) == SQLITE_CANTOPEN || (rc & 0xff) == SQLITE_IOERR) {
        if (os == EACCES || os == EPERM || os == EROFS || os == ENOSPC || os == ENOENT ||
            os == EMFILE)
            code = -os;
        if (os == EDQUOT)
            code = -ENOSPC;
    }
    if (rc == SQLITE_IOERR_DATA)
        return kvfs_error_set(err, -EIO, "%s: %s: a page has a wrong checksum: damaged", path,
                              what);
    return kvfs_error_set(err, code, "%s: %s: %s", path, what, sqlite3_errstr(rc));
}
