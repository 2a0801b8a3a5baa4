/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memstore.c - the table of stores in this process, and their marker files.
 *
 * Invariants:
 * 1. A store is in the table, and holds its marker open, from its making until
 *    the marker is removed; that is noticed at the next claim of any store.
 *    While it is held open no other file can have its device and inode, so
 *    these two are the store's identity, and a folder may be renamed.
 * 2. The table's lock comes before a store's locks.
 * 3. fork() happens between batches: the handlers take every lock first, so a
 *    child finds whole trees and free locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memstore.h"

#define MARKER_NAME  "mem"
#define MARKER_MAGIC "kvfs-mem "

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kvfs_memstore *table_first;
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void
table_before_fork(void)
{
    (void)pthread_mutex_lock(&table_lock);
    for (struct kvfs_memstore *s = table_first; s != NULL; s = s->next) {
        (void)pthread_mutex_lock(&s->writer);
        (void)pthread_mutex_lock(&s->lock);
    }
}

static void
table_after_fork(void)
{
    for (struct kvfs_memstore *s = table_first; s != NULL; s = s->next) {
        (void)pthread_mutex_unlock(&s->lock);
        (void)pthread_mutex_unlock(&s->writer);
    }
    (void)pthread_mutex_unlock(&table_lock);
}

static void
table_init(void)
{
    (void)pthread_atfork(table_before_fork, table_after_fork, table_after_fork);
}

/* Open the marker.  *pid is the process that made it.  Answers the descriptor,
 * -ENOENT: no file, -EINVAL: the file is something else, or what open() and
 * read() say. */
static int
marker_open(const char *marker, long *pid)
{
    const size_t magic_len = sizeof(MARKER_MAGIC) - 1;
    char text[64];
    ssize_t n;
    int fd = open(marker, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r = -EINVAL;

    if (fd < 0)
        return -errno;
    n = read(fd, text, sizeof(text) - 1);
    if (n < 0) {
        r = -errno;
    } else {
        text[n] = '\0';
        if (strncmp(text, MARKER_MAGIC, magic_len) == 0) {
            *pid = strtol(text + magic_len, NULL, 10);
            return fd;
        }
    }
    (void)close(fd);
    return r;
}

/* Make the marker, a new file even if there is one.  Answers its descriptor. */
static int
marker_make(const char *marker)
{
    char text[64];
    int len = snprintf(text, sizeof(text), MARKER_MAGIC "%ld\n", (long)getpid());
    int fd, r;

    if (unlink(marker) != 0 && errno != ENOENT)
        return -errno;
    fd = open(marker, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return -errno;
    errno = EIO; /* of a short write */
    if (write(fd, text, (size_t)len) == len && fsync(fd) == 0)
        return fd;
    r = -errno;
    (void)close(fd);
    (void)unlink(marker);
    return r;
}

static void
store_free(struct kvfs_memstore *s)
{
    kvfs_memtree_drop(s->roots[KVFS_META]);
    kvfs_memtree_drop(s->roots[KVFS_DATA]);
    (void)pthread_mutex_destroy(&s->writer);
    (void)pthread_mutex_destroy(&s->lock);
    (void)close(s->marker);
    free(s);
}

/* Forget the closed stores whose marker was removed. */
static void
table_sweep(void)
{
    struct kvfs_memstore **at = &table_first, *s;
    struct stat st;

    while ((s = *at) != NULL) {
        if (!s->open && (fstat(s->marker, &st) != 0 || st.st_nlink == 0)) {
            *at = s->next;
            store_free(s);
        } else {
            at = &s->next;
        }
    }
}

/* The store whose marker is the file FD; NULL: of another process. */
static struct kvfs_memstore *
table_find(int fd)
{
    struct stat mine, theirs;

    if (fstat(fd, &theirs) != 0)
        return NULL;
    for (struct kvfs_memstore *s = table_first; s != NULL; s = s->next)
        if (fstat(s->marker, &mine) == 0 && mine.st_dev == theirs.st_dev &&
            mine.st_ino == theirs.st_ino)
            return s;
    return NULL;
}

static int
table_make(const char *marker, struct kvfs_memstore **storep, struct kvfs_error *err)
{
    struct kvfs_memstore *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a store");
    s->marker = marker_make(marker);
    if (s->marker < 0) {
        int r = s->marker;

        free(s);
        return kvfs_error_set(err, r, "mem: %s: cannot be written: %s", marker,
                              strerrordesc_np(-r));
    }
    (void)pthread_mutex_init(&s->writer, NULL);
    (void)pthread_mutex_init(&s->lock, NULL);
    s->source.random = 0x9e3779b97f4a7c15u; /* anything but 0 */
    s->open = true;
    s->next = table_first;
    table_first = s;
    *storep = s;
    return 0;
}

static int
table_claim(const char *marker, bool create, struct kvfs_memstore **storep, struct kvfs_error *err)
{
    struct kvfs_memstore *s;
    long pid = 0;
    int fd = marker_open(marker, &pid);

    if (fd < 0 && fd != -ENOENT)
        return kvfs_error_set(err, fd, "mem: %s: %s", marker,
                              fd == -EINVAL ? "is no store of this engine" : strerrordesc_np(-fd));
    if (fd >= 0) {
        s = table_find(fd);
        (void)close(fd);
        if (s != NULL && s->open)
            return kvfs_error_set(err, -EBUSY, "mem: %s: is open in this process", marker);
        if (s != NULL) {
            s->open = true;
            *storep = s;
            return 0;
        }
    }
    if (create)
        return table_make(marker, storep, err);
    if (fd == -ENOENT)
        return kvfs_error_set(err, -ENOENT, "mem: %s: there is no store", marker);
    return kvfs_error_set(err, -ENOENT, "mem: %s: the store is in the memory of process %ld only",
                          marker, pid);
}

int
kvfs_memstore_claim(const char *path, bool create, struct kvfs_memstore **storep,
                    struct kvfs_error *err)
{
    char marker[PATH_MAX];
    int r;

    if (snprintf(marker, sizeof(marker), "%s/" MARKER_NAME, path) >= (int)sizeof(marker))
        return kvfs_error_set(err, -ENAMETOOLONG, "mem: %s: too long a path", path);
    (void)pthread_once(&table_once, table_init);
    (void)pthread_mutex_lock(&table_lock);
    table_sweep();
    r = table_claim(marker, create, storep, err);
    (void)pthread_mutex_unlock(&table_lock);
    return r;
}

void
kvfs_memstore_release(struct kvfs_memstore *store)
{
    (void)pthread_mutex_lock(&table_lock);
    store->open = false;
    (void)pthread_mutex_unlock(&table_lock);
}
