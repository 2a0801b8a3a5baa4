/* SPDX-License-Identifier: BSD-3-Clause
 *
 * copy.c - backup and compact, through LMDB's own copy.
 *
 * LMDB copies a store into a file descriptor in one long call.  It is given one
 * end of a socket pair and runs in a thread of its own; the caller's thread takes
 * the bytes from the other end into the file, tells its progress and, to
 * interrupt, shuts the pair down.
 *
 *  1. compact: data.mdb.compact is written and flushed, renamed over data.mdb, and
 *     the folder is flushed.  At every instant data.mdb is the old or the new
 *     store.  What a crash leaves of the new one is removed by the next open for
 *     writing.
 *  2. The page structure is verified before compacting, since LMDB's compacting
 *     copy follows every pointer.  It has a second thread that uses the stack of
 *     the first; should it still meet a fault, its thread is parked, not left
 *     (guard.h), and the environment stays open until the process ends.
 *  3. A plain copy (backup) of a store in use takes the writer mutex only while
 *     the meta pages are copied.  It copies free pages too and does not look into
 *     any page.  A snapshot of ours is held meanwhile, so that the map stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lmdb_priv.h"

#define COPY_BUF_BYTES ((size_t)256 << 10)

extern const struct kvfs_engine kvfs_engine_lmdb;

struct copy {
    MDB_env *env;
    unsigned flags;
    int pair[2]; /* [0]: ours, [1]: LMDB's */
    atomic_bool parked;
    int rc; /* what LMDB answers */
};

static int
copy_run(void *arg)
{
    struct copy *c = arg;

    return mdb_env_copyfd2(c->env, c->pair[1], c->flags);
}

/* In the signal handler: let the reading side see an end. */
static void
copy_fault(void *arg)
{
    struct copy *c = arg;

    atomic_store(&c->parked, true);
    (void)shutdown(c->pair[1], SHUT_RDWR);
}

static void *
copy_thread(void *arg)
{
    struct copy *c = arg;
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    c->rc = kvfs_lmdb_guard_parked(copy_run, c, copy_fault);
    (void)shutdown(c->pair[1], SHUT_RDWR);
    return NULL;
}

static int
copy_write(int fd, const uint8_t *buf, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, buf, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        buf += n;
        len -= (size_t)n;
    }
    return 0;
}

struct copy_progress {
    kvfs_progress_fn *fn;
    void *arg;
    uint64_t base, total;
};

/* Take everything that comes into FD.  0, EINTR (interrupted) or an errno. */
static int
copy_take(struct copy *c, int fd, const struct copy_progress *p)
{
    uint8_t *buf = malloc(COPY_BUF_BYTES);
    uint64_t done = 0;
    int rc = buf != NULL ? 0 : ENOMEM;

    while (rc == 0) {
        ssize_t n = read(c->pair[0], buf, COPY_BUF_BYTES);

        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            break;
        rc = n < 0 ? errno : copy_write(fd, buf, (size_t)n);
        if (rc == EINTR)
            rc = EIO;
        done += n > 0 ? (uint64_t)n : 0;
        if (rc == 0 && p->fn != NULL && p->fn(p->arg, p->base + done, p->total) != 0)
            rc = EINTR;
    }
    free(buf);
    return rc;
}

/* Copy into FD and flush it.  *parked: the environment cannot be closed. */
static int
copy_into(struct copy *c, int fd, const struct copy_progress *p, bool *parked)
{
    pthread_t thread;
    int rc;

    *parked = false;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->pair) != 0)
        return errno;
    rc = pthread_create(&thread, NULL, copy_thread, c);
    if (rc == 0) {
        rc = copy_take(c, fd, p);
        (void)shutdown(c->pair[0], SHUT_RDWR);
        if (atomic_load(&c->parked)) {
            *parked = true;
            (void)pthread_detach(thread);
            (void)close(c->pair[0]);
            return KVFS_LMDB_FAULT;
        }
        (void)pthread_join(thread, NULL);
        if (rc == 0)
            rc = c->rc == EFAULT ? EIO : c->rc;
    }
    (void)close(c->pair[0]);
    (void)close(c->pair[1]);
    if (rc == 0 && fsync(fd) != 0)
        rc = errno;
    return rc;
}

static int
copy_sync_folder(const char *folder)
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
copy_error(struct kvfs_error *err, int rc, const char *path, const char *what)
{
    if (rc == EINTR)
        return kvfs_error_set(err, -EINTR, "%s: %s was interrupted", path, what);
    return kvfs_lmdb_error(err, rc, path, what);
}

/* --- backup --------------------------------------------------------------------------- */

int
kvfs_lmdb_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress,
                 void *progress_arg, struct kvfs_error *err)
{
    struct copy *c;
    struct copy_progress p = {.fn = progress, .arg = progress_arg};
    struct kvfs_db_snap *snap;
    MDB_envinfo info = {.me_last_pgno = 0};
    bool parked = false;
    char *target;
    int fd;
    int rc = kvfs_lmdb_begin(db, &snap, err);

    if (rc != 0)
        return rc;
    c = calloc(1, sizeof(*c));
    if (c == NULL || asprintf(&target, "%s/data.mdb", path) < 0) {
        free(c);
        kvfs_lmdb_end(snap);
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    }
    c->env = db->env;
    fd = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    rc = fd < 0 ? errno : kvfs_lmdb_env_info(db, &info);
    if (rc == 0) {
        p.total = (info.me_last_pgno + 1) * db->layout.psize;
        rc = copy_into(c, fd, &p, &parked);
    }
    if (rc == 0)
        rc = copy_sync_folder(path);
    if (fd >= 0 && close(fd) != 0 && rc == 0)
        rc = errno;
    if (rc != 0 && fd >= 0)
        (void)unlink(target);
    if (rc != 0)
        rc = copy_error(err, rc, target, "backup");
    free(target);
    if (!parked)
        free(c);
    kvfs_lmdb_end(snap);
    return rc;
}

/* --- compact ----------------------------------------------------------------------------- */

struct copy_damage {
    char text[200];
};

static void
copy_finding(void *arg, const char *where, const char *what)
{
    struct copy_damage *d = arg;

    if (d->text[0] == '\0')
        (void)snprintf(d->text, sizeof(d->text), "%s %s", where, what);
}

static int
copy_open(const char *path, struct kvfs_db **dbp, struct kvfs_engine_stat *stat,
          struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.readonly = true};
    int rc = kvfs_lmdb_open(&kvfs_engine_lmdb, path, &options, dbp, err);

    if (rc != 0)
        return rc;
    rc = kvfs_engine_lmdb.stat(*dbp, stat, err);
    if (rc != 0) {
        kvfs_lmdb_close(*dbp);
        *dbp = NULL;
    }
    return rc;
}

int
kvfs_lmdb_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                             struct kvfs_error *err)
{
    struct kvfs_engine_stat stat;
    struct kvfs_db *db;
    int rc = copy_open(path, &db, &stat, err);

    (void)self;
    if (rc != 0)
        return rc;
    kvfs_lmdb_close(db);
    *bytes = stat.used_bytes;
    return 0;
}

/* The new store takes over the old one's mode and owner. */
static int
copy_adopt(const char *from, int fd)
{
    struct stat st;

    if (stat(from, &st) != 0 || fchmod(fd, st.st_mode & 07777) != 0)
        return errno;
    if (st.st_uid != geteuid() || st.st_gid != getegid())
        return fchown(fd, st.st_uid, st.st_gid) != 0 ? errno : 0;
    return 0;
}

struct copy_halves { /* verifying is the first half of compacting */
    struct copy_progress p;
};

static int
copy_verify_progress(void *arg, uint64_t done, uint64_t total)
{
    struct copy_halves *h = arg;

    if (h->p.fn == NULL)
        return 0;
    return h->p.fn(h->p.arg, total > 0 ? (uint64_t)((double)h->p.base * (double)done / (double)total)
                                       : 0,
                   h->p.total);
}

static int
copy_verify(struct kvfs_db *db, const char *path, struct copy_halves *h, struct kvfs_error *err)
{
    struct copy_damage damage = {.text = ""};
    int rc = kvfs_lmdb_verify(db, copy_finding, &damage, copy_verify_progress, h, err);

    if (rc == 0 && damage.text[0] != '\0')
        rc = kvfs_error_set(err, -EIO, "%s: not compacted, it is damaged: %s", path, damage.text);
    return rc;
}

/* Write the smallest form of DB, which lies at OLD, to NEW. */
static int
copy_compact(struct kvfs_db *db, struct copy *c, const char *old, const char *new,
             const struct copy_progress *p, bool *parked)
{
    int fd;
    int rc;

    c->env = db->env;
    c->flags = MDB_CP_COMPACT;
    (void)unlink(new);
    fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    rc = copy_adopt(old, fd);
    if (rc == 0)
        rc = copy_into(c, fd, p, parked);
    if (close(fd) != 0 && rc == 0)
        rc = errno;
    return rc;
}

int
kvfs_lmdb_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
                  void *progress_arg, struct kvfs_error *err)
{
    struct copy_halves h = {.p = {.fn = progress, .arg = progress_arg}};
    struct copy *c = calloc(1, sizeof(*c));
    struct kvfs_engine_stat stat = {.used_bytes = 0};
    struct kvfs_db *db = NULL;
    bool parked = false;
    char *old = NULL, *new = NULL;
    int rc;

    (void)self;
    if (c == NULL || asprintf(&old, "%s/data.mdb", path) < 0 ||
        asprintf(&new, "%s/" KVFS_LMDB_COMPACT_NAME, path) < 0) {
        rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
        goto out;
    }
    rc = copy_open(path, &db, &stat, err);
    if (rc != 0 || db == NULL)
        goto out;
    h.p.base = stat.used_bytes;
    h.p.total = 2 * stat.used_bytes;
    rc = copy_verify(db, path, &h, err);
    if (rc == 0) {
        rc = copy_compact(db, c, old, new, &h.p, &parked);
        if (rc == 0 && rename(new, old) != 0)
            rc = errno;
        if (rc != 0)
            (void)unlink(new);
        else
            rc = copy_sync_folder(path);
        if (rc != 0)
            rc = copy_error(err, rc, path, "compacting");
    }
    if (!parked)
        kvfs_lmdb_close(db);
out:
    if (!parked)
        free(c);
    free(old);
    free(new);
    return rc;
}
