/* SPDX-License-Identifier: BSD-3-Clause
 *
 * share.c - several processes at one store: who may log, and who asks for it.
 *
 *  1. A process logs only while it holds the lock file's first byte exclusively.  Every other
 *     writer takes that byte shared before its first read, so there is none beside it.
 *  2. Who wants the byte shared says so in a page that all map, and wakes the holder.  The
 *     holder goes on without the log: it folds what it has and makes its lock a shared one.
 *     From then on all of them write to the engine below, which knows several processes.
 *  3. Who is alone again, as trying the exclusive lock tells, logs again, after the
 *     place of the log moved, durably: what the others left below comes before what is logged,
 *     after a power cut and to readers (follow.c).
 *  4. The log of a process that died is replayed, under the lock of the second byte, by the
 *     first writer to open, before it reads anything.
 *  5. A lock on a file that has no name any more keeps nobody out: so before each write it is
 *     looked whether it has one.
 *  6. Processes that only read hold no byte: they look into the ring themselves
 *     (follow.c).
 *
 * The kernel gives locks back when a process dies.  They are those of the open file description:
 * a process's own would be gone as soon as anything in it, a checksum or a backup, closes the lock
 * file.  A child that sleeps must not keep a dead log locked: it closes its copy (../fork.h), and
 * what is mapped, which it keeps, was opened apart.  Such a lock tells no pid, so the page does.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "log_priv.h"

#define SHARE_BYTES     4096
#define SHARE_WRITE     0 /* bytes that are locked */
#define SHARE_REPLAY    1
#define SHARE_TRY_MS    100 /* a holder that dies wakes nobody */
#define SHARE_WAKE_ALL  INT_MAX

enum { SHARE_QUIET, SHARE_ASKED };

struct log_share { /* the page; a hint, the locks are what counts */
    atomic_uint wanted;  /* do others want to write?  Who logs waits here, */
    atomic_uint changes; /* of the locks; the others wait here */
    struct log_counts counts;
    atomic_uint pids[2]; /* who last had SHARE_WRITE, SHARE_REPLAY exclusively; only to tell of */
};

/* -EAGAIN: another process has it. */
static int
share_lock(struct kvfs_db *db, off_t byte, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int rc;

    do
        rc = fcntl(db->share_file->fd, F_OFD_SETLK, &lock);
    while (rc != 0 && errno == EINTR);
    if (rc != 0)
        return errno == EACCES ? -EAGAIN : -errno;
    if (type == F_WRLCK)
        atomic_store(&db->share->pids[byte], (unsigned)getpid());
    return 0;
}

static long
share_futex(atomic_uint *word, int op, int value, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

/* The page in full, holes of a copy as well: a write to what is mapped and has no room is the
 * death of the process.  -1, errno. */
static int
share_allocate(int fd)
{
    uint8_t page[SHARE_BYTES];
    ssize_t n;

    if (fallocate(fd, 0, 0, SHARE_BYTES) == 0)
        return 0;
    if (errno != EOPNOTSUPP)
        return -1;
    n = pread(fd, page, sizeof(page), 0);
    if (n == (ssize_t)sizeof(page))
        return 0;
    if (n < 0)
        return -1;
    memset(page + n, 0, sizeof(page) - (size_t)n);
    errno = ENOSPC;
    return pwrite(fd, page + n, sizeof(page) - (size_t)n, n) == (ssize_t)sizeof(page) - n ? 0 : -1;
}

/* Open the page and the lock, of the same file. */
static int
share_open_both(struct kvfs_db *db, const char *file)
{
    struct stat st[2];
    int fd;

    for (;;) {
        fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0)
            return -1;
        db->share_file = kvfs_fork_open(file, O_RDWR, 0);
        if (db->share_file != NULL && fstat(fd, &st[0]) == 0 &&
            fstat(db->share_file->fd, &st[1]) == 0 && st[0].st_ino == st[1].st_ino)
            return fd;
        if (db->share_file == NULL && errno != ENOENT) {
            int code = errno;

            (void)close(fd);
            errno = code;
            return -1;
        }
        kvfs_fork_close(db->share_file); /* it was removed in between */
        db->share_file = NULL;
        (void)close(fd);
    }
}

int
kvfs_log_share_open(struct kvfs_db *db, struct kvfs_error *err)
{
    size_t len = strlen(db->path) + sizeof("/" LOG_LOCK_FILE);
    char *file = malloc(len);
    void *page = MAP_FAILED;
    int fd, code;

    if (file == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    (void)snprintf(file, len, "%s/%s", db->path, LOG_LOCK_FILE);
    fd = share_open_both(db, file);
    if (fd >= 0 && share_allocate(fd) == 0)
        page = mmap(NULL, SHARE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    code = errno;
    if (fd >= 0)
        (void)close(fd);
    free(file);
    if (page == MAP_FAILED)
        return kvfs_error_set(err, -code, "%s/%s: %s", db->path, LOG_LOCK_FILE,
                              strerrordesc_np(code));
    db->share = page;
    db->counts = &db->share->counts;
    return 0;
}

void
kvfs_log_share_counts(const struct kvfs_db *db, uint64_t *commits, uint64_t *flushes)
{
    size_t len = strlen(db->path) + sizeof("/" LOG_LOCK_FILE);
    char *file = malloc(len);
    struct log_share page;
    int fd = -1;

    *commits = atomic_load(&db->counts->commits);
    *flushes = atomic_load(&db->counts->flushes);
    if (file != NULL && db->readonly) {
        (void)snprintf(file, len, "%s/%s", db->path, LOG_LOCK_FILE);
        fd = open(file, O_RDONLY | O_CLOEXEC);
    }
    if (fd >= 0 && pread(fd, &page, sizeof(page), 0) == (ssize_t)sizeof(page)) {
        *commits = atomic_load(&page.counts.commits);
        *flushes = atomic_load(&page.counts.flushes);
    }
    if (fd >= 0)
        (void)close(fd);
    free(file);
}

/* Tell others, who wait, to try the lock again. */
static void
share_changed(struct kvfs_db *db)
{
    (void)atomic_fetch_add(&db->share->changes, 1);
    (void)share_futex(&db->share->changes, FUTEX_WAKE, SHARE_WAKE_ALL, NULL);
}

static void
share_became_alone(struct kvfs_db *db)
{
    atomic_store(&db->share->wanted, SHARE_QUIET);
}

/* 0: locked, and *alone tells how; -EAGAIN: another process logs. */
static int
share_try(struct kvfs_db *db, bool *alone)
{
    int rc = share_lock(db, SHARE_WRITE, F_WRLCK);

    *alone = rc == 0;
    return rc == -EAGAIN ? share_lock(db, SHARE_WRITE, F_RDLCK) : rc;
}

static uint64_t
share_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Wait until the locks change, seen as SEEN. */
static void
share_wait(struct kvfs_db *db, unsigned seen)
{
    const struct timespec pause = {.tv_nsec = SHARE_TRY_MS * 1000000L};

    (void)share_futex(&db->share->changes, FUTEX_WAIT, (int)seen, &pause);
}

/* Why BYTE could not be had. */
static int
share_refuse(const struct kvfs_db *db, off_t byte, int rc, struct kvfs_error *err)
{
    if (rc == -EAGAIN)
        return kvfs_error_set(err, -EBUSY, "%s: process %u %s and does not answer", db->path,
                              atomic_load(&db->share->pids[byte]),
                              byte == SHARE_WRITE ? "logs here" : "opens the log");
    return kvfs_error_set(err, rc, "%s/%s: cannot be locked: %s", db->path, LOG_LOCK_FILE,
                          strerrordesc_np(-rc));
}

int
kvfs_log_share_check(struct kvfs_db *db, struct kvfs_error *err)
{
    struct statx st;

    if (db->share_file == NULL || (statx(db->share_file->fd, "", AT_EMPTY_PATH, STATX_NLINK, &st) ==
                                       0 && st.stx_nlink > 0))
        return 0;
    return kvfs_log_poison(db, kvfs_error_set(err, -EIO, "%s/%s was removed: another process may "
                                              "log here, too", db->path, LOG_LOCK_FILE));
}

int
kvfs_log_share_enter(struct kvfs_db *db, struct kvfs_error *err)
{
    uint64_t end = share_now_ms() + db->wait_ms;
    bool alone;
    int rc;

    for (;;) {
        unsigned seen = atomic_load(&db->share->changes);

        rc = share_try(db, &alone);
        if (rc != -EAGAIN || share_now_ms() >= end)
            break;
        if (atomic_exchange(&db->share->wanted, SHARE_ASKED) != SHARE_ASKED)
            (void)share_futex(&db->share->wanted, FUTEX_WAKE, SHARE_WAKE_ALL, NULL);
        share_wait(db, seen);
    }
    if (rc != 0)
        return share_refuse(db, SHARE_WRITE, rc, err);
    rc = kvfs_log_share_check(db, err); /* by who had it before */
    if (rc != 0)
        return rc;
    if (alone)
        share_became_alone(db);
    atomic_store(&db->logs, alone);
    return 0;
}

void
kvfs_log_share_close(struct kvfs_db *db)
{
    kvfs_fork_close(db->share_file);
    if (db->share == NULL)
        return;
    share_changed(db);
    (void)munmap(db->share, SHARE_BYTES);
    db->counts = &db->own_counts;
}

int
kvfs_log_share_replay(struct kvfs_db *db, struct kvfs_error *err)
{
    uint64_t end = share_now_ms() + db->wait_ms;
    int rc;

    if (db->share_file == NULL)
        return 0;
    for (;;) {
        unsigned seen = atomic_load(&db->share->changes);

        rc = share_lock(db, SHARE_REPLAY, F_WRLCK);
        if (rc != -EAGAIN || share_now_ms() >= end)
            break;
        share_wait(db, seen);
    }
    return rc == 0 ? 0 : share_refuse(db, SHARE_REPLAY, rc, err);
}

void
kvfs_log_share_replayed(struct kvfs_db *db)
{
    if (db->share_file == NULL)
        return;
    (void)share_lock(db, SHARE_REPLAY, F_UNLCK);
    share_changed(db);
}

/* --- while it is open ---------------------------------------------------------------------- */

/* Others want to write: go on without the log.  False: it cannot be folded, so this process keeps
 * it, and nobody else writes. */
static bool
share_yield(struct kvfs_db *db)
{
    bool folded;

    (void)pthread_mutex_lock(&db->writer);
    atomic_store(&db->logs, false);
    (void)pthread_mutex_unlock(&db->writer);
    kvfs_log_stop_at(db, LOG_STOP_YIELD);
    folded = kvfs_log_fold(db, true, NULL) == 0;
    if (!folded) {
        (void)pthread_mutex_lock(&db->writer);
        atomic_store(&db->logs, true);
        (void)pthread_mutex_unlock(&db->writer);
        return false;
    }
    kvfs_log_stop_at(db, LOG_STOP_YIELDED);
    (void)share_lock(db, SHARE_WRITE, F_RDLCK);
    kvfs_log_stop_at(db, LOG_STOP_GRANTED);
    share_changed(db);
    return true;
}

/* Alone again?  While others wrote, nobody logged: the ring is as it was left. */
static void
share_regain(struct kvfs_db *db)
{
    int rc;

    if (atomic_load(&db->poisoned) != 0 ||
        share_lock(db, SHARE_WRITE, F_WRLCK) != 0 ||
        kvfs_log_share_check(db, NULL) != 0)
        return;
    share_became_alone(db);
    (void)pthread_mutex_lock(&db->writer);
    /* What could not be folded kept the lock from being shared: then nobody wrote. */
    rc = atomic_load(&db->pending_bytes) > 0 ? 0 : kvfs_log_place_step(db, NULL);
    atomic_store(&db->logs, rc == 0);
    if (rc != 0 && !kvfs_log_refused(rc))
        (void)kvfs_log_poison(db, rc);
    (void)pthread_mutex_unlock(&db->writer);
    if (rc == 0)
        return;
    (void)share_lock(db, SHARE_WRITE, F_RDLCK); /* until another time */
    share_changed(db);
}

static void *
share_main(void *arg)
{
    const struct timespec second = {.tv_sec = 1};
    struct kvfs_db *db = arg;

    while (!atomic_load(&db->share_stop)) {
        unsigned asked = atomic_load(&db->share->wanted);
        unsigned changes = atomic_load(&db->share->changes);
        bool yields = true;

        if (!atomic_load(&db->logs)) {
            share_regain(db);
        } else if (asked == SHARE_ASKED) {
            yields = share_yield(db);
            changes = atomic_load(&db->share->changes); /* who asked comes first */
        }
        if (atomic_load(&db->share_stop))
            break;
        /* The words are shared by processes: not private futexes. */
        if (!atomic_load(&db->logs) || !yields)
            (void)share_futex(&db->share->changes, FUTEX_WAIT, (int)changes, &second);
        else
            (void)share_futex(&db->share->wanted, FUTEX_WAIT, SHARE_QUIET, &second);
    }
    return NULL;
}

int
kvfs_log_share_start(struct kvfs_db *db, struct kvfs_error *err)
{
    if (db->share_file == NULL)
        return 0;
    if (pthread_create(&db->share_thread, NULL, share_main, db) != 0)
        return kvfs_error_set(err, -ENOMEM, "%s: no thread for the log", db->path);
    db->share_running = true;
    return 0;
}

void
kvfs_log_share_stop(struct kvfs_db *db)
{
    if (!db->share_running)
        return;
    atomic_store(&db->share_stop, true);
    do { /* it may have looked at share_stop just before */
        (void)share_futex(&db->share->wanted, FUTEX_WAKE, SHARE_WAKE_ALL, NULL);
        share_changed(db);
        (void)sched_yield();
    } while (pthread_tryjoin_np(db->share_thread, NULL) == EBUSY);
    db->share_running = false;
}
