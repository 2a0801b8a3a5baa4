/* SPDX-License-Identifier: BSD-3-Clause
 *
 * database.c - an ordinary SQLite database as the source of `kvfs import`.
 *
 * It is told by its first 16 bytes, or by a rollback journal beside it (a crash in its very
 * first transaction leaves a file without them).  Two things make such a file more than its
 * bytes:
 *
 *   <source>-journal  not empty, not zeroed, and nobody has the database RESERVED: hot.  What
 *                     it saved has to be put back.
 *   <source>-wal      not empty: its committed frames have to be put in.
 *
 * 1. The source and what lies beside it are never written: recovery is SQLite's own, in a
 *    copy that no one else can reach and that has lost its names when it is read.
 * 2. While the bytes are read nobody writes them: SHARED is held on the database as SQLite
 *    would, and the -shm's locks against writers and checkpoints.  Both are read locks of an
 *    open file description, so a file that may only be read will do.
 * 3. What the copy is told to be in the volume is a database that is not in WAL mode; without
 *    a WAL that takes no more than bytes 18 and 19.
 *
 * Source: sqlite.org/fileformat2.html (headers), os_unix.c and wal.c (bytes of the locks),
 * pager.c, hasHotJournal().
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "database.h"

#ifdef KVFS_CLI_SQLITE
#include <sqlite3.h>
#endif

#define DATABASE_PENDING      0x40000000
#define DATABASE_RESERVED     (DATABASE_PENDING + 1)
#define DATABASE_SHARED       (DATABASE_PENDING + 2)
#define DATABASE_SHARED_BYTES 510
#define DATABASE_SHM_WRITE    120 /* and behind it the checkpointer's */
#define DATABASE_COPY_BYTES   ((size_t)1 << 20)

struct database {
    struct cli *c;
    const char *source;
    int fd, shm;
    char path[PATH_MAX], journal[PATH_MAX + 8], wal[PATH_MAX + 8], shared[PATH_MAX + 8];
    bool hot, has_wal;
};

static int
database_errno(struct database *db, const char *path, int code)
{
    return kvfs_error_set(&db->c->err, -code, "%s: %s", path, strerrordesc_np(code));
}

/* --- what it is -------------------------------------------------------------------- */

static size_t
database_head(const char *path, uint8_t *head, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t got = fd < 0 ? 0 : pread(fd, head, n, 0);

    if (fd >= 0)
        (void)close(fd);
    return got < 0 ? 0 : (size_t)got;
}

static bool
database_is_hot(const char *journal)
{
    uint8_t first;

    return database_head(journal, &first, 1) == 1 && first != 0;
}

static bool
database_is(const struct database *db, bool *wal_header)
{
    static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
    uint8_t head[20], journal[8];
    ssize_t n = pread(db->fd, head, sizeof(head), 0);

    *wal_header = false;
    if (n == (ssize_t)sizeof(head) && memcmp(head, "SQLite format 3", 16) == 0) {
        *wal_header = head[18] == 2 || head[19] == 2;
        return true;
    }
    return database_head(db->journal, journal, sizeof(journal)) == sizeof(journal) &&
           memcmp(journal, magic, sizeof(magic)) == 0;
}

/* --- locks ------------------------------------------------------------------------- */

/* Read-lock bytes of FD, after those who write them.  A file system without locks has
 * nobody to wait for. */
static int
database_lock(struct database *db, int fd, off_t start, off_t count)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = count};
    struct flock who = lock;

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES))
        return 0;
    if (fcntl(fd, F_OFD_GETLK, &who) == 0 && who.l_type != F_UNLCK && who.l_pid > 0)
        cli_say(db->c, "%s: waiting for process %ld, which writes to it", db->source,
                (long)who.l_pid);
    else
        cli_say(db->c, "%s: waiting for another program, which writes to it", db->source);
    while (fcntl(fd, F_OFD_SETLKW, &lock) < 0) {
        if (cli_interrupted())
            return -EINTR;
        if (errno != EINTR)
            return database_errno(db, db->source, errno);
    }
    return 0;
}

/* Is a writer at work, so that the journal is its own? */
static bool
database_reserved(const struct database *db)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = DATABASE_RESERVED,
                         .l_len = 1};

    return fcntl(db->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static int
database_lock_all(struct database *db)
{
    struct flock pending = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = DATABASE_PENDING,
                            .l_len = 1};
    int rc = database_lock(db, db->fd, DATABASE_PENDING, 1);

    if (rc == 0)
        rc = database_lock(db, db->fd, DATABASE_SHARED, DATABASE_SHARED_BYTES);
    (void)fcntl(db->fd, F_OFD_SETLK, &pending);
    if (rc < 0)
        return rc;
    db->shm = open(db->shared, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return db->shm < 0 ? 0 : database_lock(db, db->shm, DATABASE_SHM_WRITE, 2);
}

/* --- recovery ------------------------------------------------------------------------ */

#ifdef KVFS_CLI_SQLITE
/* The same through a buffer. */
static ssize_t
database_copy_plain(int in, int out)
{
    char *buf = malloc(DATABASE_COPY_BYTES);
    ssize_t n = -1;

    if (buf == NULL)
        return -1;
    while (!cli_interrupted() && (n = read(in, buf, DATABASE_COPY_BYTES)) > 0) {
        for (ssize_t done = 0, put; done < n; done += put) {
            put = write(out, buf + done, (size_t)(n - done));
            if (put < 0) {
                free(buf);
                return -1;
            }
        }
    }
    free(buf);
    return n;
}

static int
database_copy_bytes(struct database *db, const char *from, int in, int out)
{
    ssize_t n;

    do { /* file systems that share blocks copy nothing here */
        n = copy_file_range(in, NULL, out, NULL, (size_t)1 << 30, 0);
    } while (n > 0 && !cli_interrupted());
    if (n < 0 && lseek(out, 0, SEEK_CUR) == 0 && lseek(in, 0, SEEK_SET) == 0)
        n = database_copy_plain(in, out);
    if (cli_interrupted())
        return -EINTR;
    if (n < 0)
        return kvfs_error_set(&db->c->err, -errno,
                              "%s: no private copy of it could be made (below TMPDIR): %s", from,
                              strerrordesc_np(errno));
    return 0;
}

static int
database_copy(struct database *db, int in, const char *from, const char *to)
{
    int own = in < 0 ? open(from, O_RDONLY | O_CLOEXEC) : in;
    int out = own < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = out < 0 ? database_errno(db, own < 0 ? from : to, errno)
                     : database_copy_bytes(db, from, own, out);

    if (out >= 0 && close(out) < 0 && rc == 0)
        rc = database_errno(db, to, errno);
    if (own >= 0 && own != in)
        (void)close(own);
    return rc;
}

/* Let SQLite roll back or put in what belongs to the copy in PATH. */
static int
database_recover(struct database *db, const char *path)
{
    sqlite3_stmt *stmt = NULL;
    sqlite3 *copy = NULL;
    bool stays = true; /* in WAL mode */
    /* Exclusive: no shared memory is made. */
    int rc = sqlite3_open_v2(path, &copy, SQLITE_OPEN_READWRITE, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(copy, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA schema_version", NULL, NULL,
                          NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v2(copy, "PRAGMA journal_mode=DELETE", -1, &stmt, NULL);
    if (rc == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW &&
        sqlite3_stricmp((const char *)sqlite3_column_text(stmt, 0), "delete") == 0)
        stays = false;
    if (rc == SQLITE_OK)
        rc = sqlite3_finalize(stmt);
    if (rc == SQLITE_OK && stays)
        rc = SQLITE_ERROR;
    if (rc != SQLITE_OK)
        rc = kvfs_error_set(&db->c->err, -EIO,
                            "%s: SQLite cannot recover it: %s (--as-is takes it as it is)",
                            db->source, copy != NULL ? sqlite3_errmsg(copy) : "no memory");
    (void)sqlite3_close(copy);
    return rc;
}

static int
database_replace(struct database *db, int *fd)
{
    static const char *const tails[] = {"", "-journal", "-wal", "-shm"};
    const char *tmp = getenv("TMPDIR"); // NOLINT(concurrency-mt-unsafe): one thread
    bool shm = db->shm >= 0;
    char dir[PATH_MAX], path[PATH_MAX + 8], beside[PATH_MAX + 16];
    int copy = -1, rc;

    (void)snprintf(dir, sizeof(dir), "%s/kvfs-import-XXXXXX",
                   tmp != NULL && tmp[0] == '/' ? tmp : "/var/tmp");
    if (mkdtemp(dir) == NULL)
        return database_errno(db, dir, errno);
    (void)snprintf(path, sizeof(path), "%s/db", dir);
    rc = database_copy(db, db->fd, db->path, path);
    if (rc == 0 && db->hot) {
        (void)snprintf(beside, sizeof(beside), "%s-journal", path);
        rc = database_copy(db, -1, db->journal, beside);
    }
    if (rc == 0 && db->has_wal) {
        (void)snprintf(beside, sizeof(beside), "%s-wal", path);
        rc = database_copy(db, -1, db->wal, beside);
    }
    if (rc == 0 && !shm && access(db->shared, F_OK) == 0)
        rc = kvfs_error_set(&db->c->err, -EAGAIN,
                            "%s: a program began to use it meanwhile: try again", db->source);
    if (rc == 0)
        rc = database_recover(db, path);
    if (rc == 0 && (copy = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        rc = database_errno(db, path, errno);
    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        (void)snprintf(beside, sizeof(beside), "%s%s", path, tails[i]);
        (void)unlink(beside);
    }
    (void)rmdir(dir);
    if (rc == 0) {
        (void)close(*fd);
        *fd = copy;
    }
    return rc;
}
#else
static int
database_replace(struct database *db, int *fd)
{
    (void)fd;
    return kvfs_error_set(&db->c->err, -ENOTSUP,
                          "%s: this kvfs was built without SQLite, which must put in what is in %s "
                          "(--as-is leaves that out)",
                          db->source, db->has_wal ? "its -wal file" : "its journal");
}
#endif

int
cli_database_prepare(struct cli *c, const char *source, int *fd, struct cli_database *d)
{
    struct database db = {.c = c, .source = source, .fd = *fd, .shm = -1};
    struct stat st;
    int rc;

    *d = (struct cli_database){0};
    if (realpath(source, db.path) == NULL) /* SQLite follows links as well */
        return 0;
    (void)snprintf(db.journal, sizeof(db.journal), "%s-journal", db.path);
    (void)snprintf(db.wal, sizeof(db.wal), "%s-wal", db.path);
    (void)snprintf(db.shared, sizeof(db.shared), "%s-shm", db.path);
    if (!database_is(&db, &d->wal_header))
        return 0;
    rc = database_lock_all(&db);
    if (rc == 0) {
        (void)database_is(&db, &d->wal_header); /* as it stands still */
        db.hot = !database_reserved(&db) && database_is_hot(db.journal);
        db.has_wal = stat(db.wal, &st) == 0 && st.st_size > 0;
        if (db.hot || db.has_wal)
            rc = database_replace(&db, fd);
        d->recovered = rc == 0 && (db.hot || db.has_wal);
    }
    if (db.shm >= 0)
        (void)close(db.shm);
    return rc;
}

void
cli_database_say(const struct cli *c, const char *source, const struct cli_database *d)
{
    if (c->o.quiet)
        return;
    if (d->recovered)
        cli_say(c, "%s: a SQLite database: what was in its journal is in the copy, the source is "
                   "as it was", source);
    else if (d->wal_header)
        cli_say(c, "%s: a SQLite database in WAL mode: the copy is a plain one", source);
}
