/* SPDX-License-Identifier: BSD-3-Clause
 *
 * upkeep.c - verify, compact and backup.
 *
 *  1. verify looks at the medium: a connection of its own, after the kernel's copy
 *     of the file was dropped.  SQLite's own check walks all trees and the free
 *     list; each page's checksum is judged on the way (pagesum.c).
 *  2. compact and backup let SQLite write a new database (VACUUM INTO), sync it and
 *     rename it, so there is a whole store at every instant.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sqlite_priv.h"

#define UPKEEP_FINDINGS_MAX   100
#define UPKEEP_PROGRESS_EVERY 10000 /* instructions of SQLite's machine */
#define UPKEEP_NEW            KVFS_SQ_FILE ".compact"

struct upkeep_progress {
    kvfs_progress_fn *fn;
    void *arg;
    uint64_t done, total;
};

static int
upkeep_progress(void *arg)
{
    struct upkeep_progress *p = arg;

    if (p->done < p->total)
        p->done++;
    return p->fn(p->arg, p->done, p->total);
}

static void
upkeep_watch(struct sq_conn *c, struct upkeep_progress *p)
{
    if (p->fn != NULL)
        sqlite3_progress_handler(c->db, UPKEEP_PROGRESS_EVERY, upkeep_progress, p);
}

/* --- verify ------------------------------------------------------------------------ */

static int
upkeep_check_pages(struct sq_conn *c, kvfs_finding_fn *finding, void *arg)
{
    sqlite3_stmt *stmt;
    char sql[64];
    int rc;

    (void)snprintf(sql, sizeof(sql), "PRAGMA integrity_check(%d)", UPKEEP_FINDINGS_MAX);
    rc = sqlite3_prepare_v2(c->db, sql, -1, &stmt, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);

        rc = SQLITE_OK;
        if (text == NULL || strcmp(text, "ok") == 0 || finding == NULL)
            continue;
        /* The text of several findings may come in one row. */
        for (const char *line = text; *line != '\0';) {
            size_t len = strcspn(line, "\n");
            char one[200];

            (void)snprintf(one, sizeof(one), "%.*s", (int)(len < 190 ? len : 190), line);
            if (len > 0)
                finding(arg, KVFS_SQ_FILE, one);
            line += len + (line[len] == '\n');
        }
    }
    (void)sqlite3_finalize(stmt);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int
upkeep_check_counts(struct sq_conn *c, kvfs_finding_fn *finding, void *arg)
{
    static const char *const sql[] = {"SELECT count(*) FROM meta", "SELECT count(*) FROM data"};
    static const char *const names[] = {"META", "DATA"};
    struct sq_counts counts;
    int rc = kvfs_sq_counts(c, &counts);

    for (int i = 0; i < 2 && rc == SQLITE_OK; i++) {
        sqlite3_stmt *stmt;
        char what[100];

        rc = sqlite3_prepare_v2(c->db, sql[i], -1, &stmt, NULL);
        if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
            rc = SQLITE_OK;
            if (sqlite3_column_int64(stmt, 0) != counts.records[i] && finding != NULL) {
                (void)snprintf(what, sizeof(what), "counts %" PRId64 " records, there are %lld",
                               counts.records[i], sqlite3_column_int64(stmt, 0));
                finding(arg, names[i], what);
            }
        }
        (void)sqlite3_finalize(stmt);
    }
    return rc;
}

int
kvfs_sq_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg,
               kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err)
{
    struct upkeep_progress p = {.fn = progress, .arg = progress_arg};
    struct sq_conn *c;
    struct stat st;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    (void)posix_fadvise(db->file_fd, 0, 0, POSIX_FADV_DONTNEED);
    if (fstat(db->file_fd, &st) == 0)
        p.total = (uint64_t)st.st_size / KVFS_SQ_PAGE;
    rc = kvfs_sq_conn_open(db, SQLITE_OPEN_READONLY, &c, err);
    if (rc != 0)
        return rc;
    upkeep_watch(c, &p);
    rc = kvfs_sq_run(c, SQ_BEGIN);
    if (rc == SQLITE_OK)
        rc = upkeep_check_pages(c, finding, arg);
    if (rc == SQLITE_OK)
        rc = upkeep_check_counts(c, finding, arg);
    if (rc == SQLITE_INTERRUPT) {
        rc = kvfs_error_set(err, -EINTR, "%s: the check was interrupted", db->path);
    } else if (rc != SQLITE_OK) {
        struct kvfs_error local;
        int code = kvfs_sq_error(&local, rc, c, db->path, "checking");

        if (code == -EIO || code == -EINVAL) { /* damage: a finding, and the end of the walk */
            if (finding != NULL)
                finding(arg, KVFS_SQ_FILE, local.msg);
            rc = 0;
        } else {
            rc = kvfs_error_set(err, code, "%s", local.msg);
        }
    }
    if (rc == 0 && progress != NULL && progress(progress_arg, p.total, p.total) != 0)
        rc = kvfs_error_set(err, -EINTR, "%s: the check was interrupted", db->path);
    kvfs_sq_conn_close(c);
    return rc;
}

/* --- copies --------------------------------------------------------------------------- */

static int
upkeep_sync(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC), rc;

    if (fd < 0)
        return -errno;
    rc = fsync(fd) != 0 ? -errno : 0;
    (void)close(fd);
    return rc;
}

/* Write the database of C into the new file TO, in WAL mode as ours are, and sync it. */
static int
upkeep_copy(struct sq_conn *c, const char *to, struct upkeep_progress *p, const char *about,
            struct kvfs_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc, reserve = 8;

    upkeep_watch(c, p);
    rc = sqlite3_file_control(c->db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserve);
    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v2(c->db, "VACUUM INTO ?1", -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_text(stmt, 1, to, -1, SQLITE_STATIC);
    if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_DONE)
        rc = SQLITE_OK;
    (void)sqlite3_finalize(stmt);
    if (rc == SQLITE_INTERRUPT)
        rc = kvfs_error_set(err, -EINTR, "%s: interrupted", about);
    else if (rc != SQLITE_OK)
        rc = kvfs_sq_error(err, rc, c, about, "copying");
    if (rc == 0) {
        rc = upkeep_sync(to, O_RDONLY);
        if (rc != 0)
            (void)kvfs_error_set(err, rc, "%s: %s", to, strerrordesc_np(-rc));
    }
    if (rc != 0)
        (void)unlink(to);
    return rc;
}

/* The copy is in rollback mode: bring it into WAL mode. */
static int
upkeep_wal(struct kvfs_db *db, struct kvfs_error *err)
{
    struct sq_conn *c;
    int rc = kvfs_sq_conn_open(db, SQLITE_OPEN_READWRITE, &c, err);

    if (rc != 0)
        return rc;
    rc = kvfs_sq_exec(c, "PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL");
    if (rc != SQLITE_OK)
        rc = kvfs_sq_error(err, rc, c, db->path, "copying");
    kvfs_sq_conn_close(c);
    return rc;
}

static int
upkeep_copy_to(struct sq_conn *c, const char *folder, const char *name, const char *about,
               struct upkeep_progress *p, struct kvfs_error *err)
{
    size_t len = strlen(folder) + strlen(name) + 2;
    struct kvfs_db copy = {.path = malloc(len)};
    int rc;

    if (copy.path == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", about);
    (void)snprintf(copy.path, len, "%s/%s", folder, name);
    if (unlink(copy.path) != 0 && errno != ENOENT)
        rc = kvfs_error_set(err, -errno, "%s: %s", copy.path, strerrordesc_np(errno));
    else
        rc = upkeep_copy(c, copy.path, p, about, err);
    if (rc == 0)
        rc = upkeep_wal(&copy, err);
    if (rc == 0)
        rc = upkeep_sync(copy.path, O_RDONLY);
    free(copy.path);
    return rc;
}

int
kvfs_sq_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress,
               void *progress_arg, struct kvfs_error *err)
{
    struct upkeep_progress p = {.fn = progress, .arg = progress_arg};
    struct sq_conn *c;
    struct stat st;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if (fstat(db->file_fd, &st) == 0)
        p.total = (uint64_t)st.st_size / KVFS_SQ_PAGE;
    rc = kvfs_sq_conn_open(db, SQLITE_OPEN_READONLY, &c, err);
    if (rc != 0)
        return rc;
    rc = upkeep_copy_to(c, path, KVFS_SQ_FILE, db->path, &p, err);
    kvfs_sq_conn_close(c);
    if (rc == 0)
        rc = upkeep_sync(path, O_RDONLY | O_DIRECTORY);
    return rc;
}

/* Put the compacted file in the place of the old one. */
static int
upkeep_replace(const char *folder, struct kvfs_error *err)
{
    size_t len = strlen(folder) + sizeof(UPKEEP_NEW) + 8;
    char *from = malloc(len), *to = malloc(len);
    int rc = from != NULL && to != NULL ? 0 : -ENOMEM;

    if (rc == 0) {
        static const char *const logs[] = {"-wal", "-shm"}; /* empty, and of the old file */

        for (size_t i = 0; i < 2; i++) {
            (void)snprintf(from, len, "%s/%s%s", folder, KVFS_SQ_FILE, logs[i]);
            (void)unlink(from);
        }
        (void)snprintf(from, len, "%s/%s", folder, UPKEEP_NEW);
        (void)snprintf(to, len, "%s/%s", folder, KVFS_SQ_FILE);
        rc = rename(from, to) != 0 ? -errno : upkeep_sync(folder, O_RDONLY | O_DIRECTORY);
    }
    if (rc != 0)
        (void)kvfs_error_set(err, rc, "%s: %s", folder, strerrordesc_np(-rc));
    free(from);
    free(to);
    return rc;
}

int
kvfs_sq_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                           struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.readonly = true};
    struct kvfs_engine_stat stat;
    struct kvfs_db *db;
    int rc = kvfs_sq_open(self, path, &options, &db, err);

    if (rc != 0)
        return rc;
    rc = kvfs_engine_sqlite.stat(db, &stat, err);
    kvfs_sq_close(db);
    if (rc == 0)
        *bytes = stat.used_bytes + stat.used_bytes / 8;
    return rc;
}

int
kvfs_sq_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
                void *progress_arg, struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.create = false};
    struct upkeep_progress p = {.fn = progress, .arg = progress_arg};
    struct kvfs_db *db;
    int rc = kvfs_sq_open(self, path, &options, &db, err), code;

    if (rc != 0)
        return rc;
    rc = upkeep_copy_to(db->writer, path, UPKEEP_NEW, db->path, &p, err);
    if (rc == 0) {
        sqlite3_progress_handler(db->writer->db, 0, NULL, NULL);
        /* An old log must not be taken for the new file's. */
        code = kvfs_sq_exec(db->writer, "PRAGMA wal_checkpoint(TRUNCATE)");
        if (code != SQLITE_OK)
            rc = kvfs_sq_error(err, code, db->writer, db->path, "emptying its log");
    }
    kvfs_sq_close(db);
    return rc == 0 ? upkeep_replace(path, err) : rc;
}
