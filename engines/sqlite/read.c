/* SPDX-License-Identifier: BSD-3-Clause
 *
 * read.c - snapshots, gets and scans.
 *
 *  1. A snapshot is a read transaction on a connection of its own.  It begins with
 *     a read of the counters, for in SQLite BEGIN alone fixes nothing.
 *  2. Connections are kept for the next snapshot: opening one reads the schema.
 *  3. A scan has a statement of its own from its connection; if that one is busy
 *     with another scan, it is prepared once more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sqlite_priv.h"

#define READ_WAIT_S 2 /* for a place, when all are taken */

struct kvfs_db_cursor {
    struct kvfs_db_snap *snap;
    sqlite3_stmt *stmt;
    int which;   /* statement; taken from its connection until the scan ends */
    bool keys;
    bool row;    /* the statement stands at a record */
    int ended;   /* 1: at the end; negative: failed */
    uint8_t key[KVFS_META_KEY_MAX], lo[KVFS_META_KEY_MAX], hi[KVFS_META_KEY_MAX];
};

/* --- snapshots ------------------------------------------------------------------ */

/* Count one snapshot more and take an idle connection, if there is one. */
static int
read_place(struct kvfs_db *db, struct sq_conn **connp, struct kvfs_error *err)
{
    struct timespec until;
    int rc = 0;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += READ_WAIT_S;
    (void)pthread_mutex_lock(&db->pool_lock);
    while (db->open_count >= KVFS_SQ_SNAPSHOTS_MAX && rc == 0)
        rc = pthread_cond_timedwait(&db->pool_cond, &db->pool_lock, &until);
    if (db->open_count >= KVFS_SQ_SNAPSHOTS_MAX) {
        (void)pthread_mutex_unlock(&db->pool_lock);
        return kvfs_error_set(err, -EBUSY, "%s: %u snapshots are open", db->path,
                              KVFS_SQ_SNAPSHOTS_MAX);
    }
    db->open_count++;
    *connp = db->idle;
    if (db->idle != NULL) {
        db->idle = db->idle->next;
        db->idle_count--;
    }
    (void)pthread_mutex_unlock(&db->pool_lock);
    return 0;
}

static void
read_leave(struct kvfs_db *db, struct kvfs_db_snap *snap, struct sq_conn *c)
{
    (void)pthread_mutex_lock(&db->pool_lock);
    db->open_count--;
    if (snap != NULL) {
        if (snap->older != NULL)
            snap->older->newer = snap->newer;
        else
            db->oldest = snap->newer;
        if (snap->newer != NULL)
            snap->newer->older = snap->older;
        else
            db->newest = snap->older;
    }
    if (c != NULL && db->idle_count < KVFS_SQ_IDLE_MAX) {
        c->next = db->idle;
        db->idle = c;
        db->idle_count++;
        c = NULL;
    }
    (void)pthread_cond_signal(&db->pool_cond);
    (void)pthread_mutex_unlock(&db->pool_lock);
    kvfs_sq_conn_close(c);
}

static int
read_begin(struct kvfs_db *db, struct kvfs_db_snap *snap, struct kvfs_error *err)
{
    struct sq_counts counts;
    int rc;

    if (snap->conn == NULL) {
        rc = kvfs_sq_conn_open(db, SQLITE_OPEN_READONLY, &snap->conn, err);
        if (rc != 0)
            return rc;
    }
    rc = kvfs_sq_conn_cache(snap->conn);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_run(snap->conn, SQ_BEGIN);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_counts(snap->conn, &counts);
    if (rc != SQLITE_OK)
        return kvfs_sq_error(err, rc, snap->conn, db->path, "beginning a snapshot");
    snap->commits = (uint64_t)counts.commits;
    return 0;
}

int
kvfs_sq_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    snap = calloc(1, sizeof(*snap));
    if (snap == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a snapshot", db->path);
    snap->db = db;
    rc = read_place(db, &snap->conn, err);
    if (rc != 0) {
        free(snap);
        return rc;
    }
    rc = read_begin(db, snap, err);
    if (rc != 0) {
        kvfs_sq_conn_close(snap->conn);
        read_leave(db, NULL, NULL);
        free(snap);
        return rc;
    }
    (void)pthread_mutex_lock(&db->pool_lock);
    snap->older = db->newest;
    if (db->newest != NULL)
        db->newest->newer = snap;
    else
        db->oldest = snap;
    db->newest = snap;
    (void)pthread_mutex_unlock(&db->pool_lock);
    *snapp = snap;
    return 0;
}

void
kvfs_sq_end(struct kvfs_db_snap *snap)
{
    struct kvfs_db *db = snap->db;
    struct sq_conn *c = snap->conn;

    if (kvfs_fork_check(db->generation, db->path, NULL) == 0) {
        if (kvfs_sq_run(c, SQ_COMMIT) != SQLITE_OK) {
            kvfs_sq_conn_close(c);
            c = NULL;
        }
        read_leave(db, snap, c);
    }
    free(snap);
}

/* --- reading ----------------------------------------------------------------------- */

/* Copy bytes [offset, len) of VALUE into IOV. */
static void
read_copy(const uint8_t *value, size_t len, size_t offset, const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count && offset < len; i++) {
        size_t n = iov[i].iov_len < len - offset ? iov[i].iov_len : len - offset;

        if (n > 0)
            memcpy(iov[i].iov_base, value + offset, n);
        offset += n;
    }
}

/* A column of the present row; false: no memory to bring it in. */
static bool
read_column(struct sq_conn *c, sqlite3_stmt *stmt, int at, const void **bytes, size_t *len)
{
    *bytes = sqlite3_column_blob(stmt, at);
    *len = (size_t)sqlite3_column_bytes(stmt, at);
    return *bytes != NULL || *len == 0 ? sqlite3_errcode(c->db) != SQLITE_NOMEM : false;
}

int
kvfs_sq_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
            size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
            size_t *value_len, struct kvfs_error *err)
{
    struct kvfs_db *db = snap->db;
    const void *value;
    sqlite3_stmt *stmt;
    size_t len;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if (key_len == 0 || key_len > KVFS_META_KEY_MAX ||
        (keyspace == KVFS_DATA && key_len != KVFS_DATA_KEY_LEN))
        return kvfs_error_set(err, -EINVAL, "%s: a key of %zu bytes", db->path, key_len);
    stmt = kvfs_sq_stmt(snap->conn, SQ_GET + (int)keyspace, &rc);
    if (stmt != NULL)
        rc = kvfs_sq_bind(stmt, 1, key, key_len);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        if (read_column(snap->conn, stmt, 0, &value, &len)) {
            read_copy(value, len, offset, iov, iov_count);
            if (value_len != NULL)
                *value_len = len;
            rc = 0;
        } else {
            rc = kvfs_error_set(err, -ENOMEM, "%s: no memory for a value", db->path);
        }
    } else if (rc == SQLITE_DONE) {
        rc = kvfs_error_set(err, -ENOENT, "%s: no such record", db->path);
    } else {
        rc = kvfs_sq_error(err, rc, snap->conn, db->path, "reading");
    }
    if (stmt != NULL)
        (void)sqlite3_reset(stmt);
    return rc;
}

/* --- scans ---------------------------------------------------------------------------- */

static int
read_scan_prepare(struct kvfs_db_cursor *c, int which)
{
    struct sq_conn *conn = c->snap->conn;
    int rc;

    if (conn->stmt[which] == NULL && kvfs_sq_stmt(conn, which, &rc) == NULL)
        return rc;
    c->stmt = conn->stmt[which];
    conn->stmt[which] = NULL; /* taken, until the scan ends */
    return SQLITE_OK;
}

int
kvfs_sq_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                    size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                    struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    struct kvfs_db *db = snap->db;
    size_t max = keyspace == KVFS_DATA ? KVFS_DATA_KEY_LEN : KVFS_META_KEY_MAX;
    struct kvfs_db_cursor *c;
    int kind = (flags & KVFS_SCAN_REVERSE ? SQ_SCAN_REVERSE : 0) |
               (flags & KVFS_SCAN_KEYS_ONLY ? SQ_SCAN_KEYS : 0) | (hi_len > 0 ? SQ_SCAN_TO : 0);
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if ((keyspace != KVFS_META && keyspace != KVFS_DATA) || lo_len > max || hi_len > max)
        return kvfs_error_set(err, -EINVAL, "%s: no such range", db->path);
    c = malloc(sizeof(*c));
    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a scan", db->path);
    c->snap = snap;
    c->keys = (kind & SQ_SCAN_KEYS) != 0;
    c->row = false;
    c->ended = 0;
    c->which = SQ_SCAN + 2 * kind + (int)keyspace;
    if (lo_len > 0)
        memcpy(c->lo, lo, lo_len);
    if (hi_len > 0)
        memcpy(c->hi, hi, hi_len);
    c->stmt = NULL;
    rc = read_scan_prepare(c, c->which);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_bind(c->stmt, 1, c->lo, lo_len);
    if (rc == SQLITE_OK && hi_len > 0)
        rc = kvfs_sq_bind(c->stmt, 2, c->hi, hi_len);
    if (rc != SQLITE_OK) {
        (void)sqlite3_finalize(c->stmt);
        free(c);
        return kvfs_sq_error(err, rc, snap->conn, db->path, "scanning");
    }
    *cursorp = c;
    return 0;
}

int
kvfs_sq_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                    size_t *value_len, struct kvfs_error *err)
{
    struct kvfs_db *db = c->snap->db;
    const void *bytes;
    size_t len;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    c->row = false;
    if (c->ended != 0)
        return c->ended > 0 ? 0 : kvfs_error_set(err, c->ended, "%s: the scan failed before",
                                                 db->path);
    rc = sqlite3_step(c->stmt);
    if (rc == SQLITE_DONE) {
        c->ended = 1;
        return 0;
    }
    if (rc != SQLITE_ROW)
        return c->ended = kvfs_sq_error(err, rc, c->snap->conn, db->path, "scanning");
    bytes = sqlite3_column_blob(c->stmt, 0);
    len = (size_t)sqlite3_column_bytes(c->stmt, 0);
    if (bytes == NULL || len > sizeof(c->key))
        return c->ended = kvfs_error_set(err, -EIO, "%s: scanning: a key of %zu bytes: damaged",
                                         db->path, len);
    memcpy(c->key, bytes, len);
    *key = c->key;
    *key_len = len;
    if (!c->keys && value_len != NULL)
        *value_len = (size_t)sqlite3_column_bytes(c->stmt, 1);
    c->row = true;
    return 1;
}

int
kvfs_sq_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                     int iov_count, struct kvfs_error *err)
{
    struct kvfs_db *db = c->snap->db;
    const void *value;
    size_t len;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if (!c->row || c->keys)
        return kvfs_error_set(err, -EINVAL, "%s: the scan is not at a value", db->path);
    if (!read_column(c->snap->conn, c->stmt, 1, &value, &len))
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a value", db->path);
    read_copy(value, len, offset, iov, iov_count);
    return 0;
}

void
kvfs_sq_cursor_close(struct kvfs_db_cursor *c)
{
    struct sq_conn *conn = c->snap->conn;

    if (kvfs_fork_check(c->snap->db->generation, c->snap->db->path, NULL) == 0) {
        (void)sqlite3_reset(c->stmt);
        if (conn->stmt[c->which] == NULL)
            conn->stmt[c->which] = c->stmt;
        else
            (void)sqlite3_finalize(c->stmt);
    }
    free(c);
}
