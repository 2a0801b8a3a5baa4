/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memstore.c - the table of stores in this process, and their marker files.
 *
 * Invariants:
 * 1. A store is in the table from its making until its marker is gone or
 *    replaced; that is noticed at the next claim of any store.
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
#include <sys/random.h>
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

/* Read the identity out of a marker.  *pid is its process.  -ENOENT: no file;
 * -EINVAL: the file is something else; or what open() and read() say. */
static int
marker_read(const char *marker, char id[KVFS_MEMSTORE_ID_LEN + 1], long *pid)
{
    const size_t magic_len = sizeof(MARKER_MAGIC) - 1;
    char text[128];
    ssize_t n;
    int fd = open(marker, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return -errno;
    n = read(fd, text, sizeof(text) - 1);
    if (n < 0) {
        int e = errno;

        (void)close(fd);
        return -e;
    }
    (void)close(fd);
    text[n] = '\0';
    if ((size_t)n < magic_len + KVFS_MEMSTORE_ID_LEN || memcmp(text, MARKER_MAGIC, magic_len) != 0)
        return -EINVAL;
    memcpy(id, text + magic_len, KVFS_MEMSTORE_ID_LEN);
    id[KVFS_MEMSTORE_ID_LEN] = '\0';
    *pid = strtol(text + magic_len + KVFS_MEMSTORE_ID_LEN, NULL, 10);
    return 0;
}

static int
marker_write(const char *marker, const char *id)
{
    char text[128];
    int len = snprintf(text, sizeof(text), MARKER_MAGIC "%s %ld\n", id, (long)getpid());
    int fd = open(marker, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    int r = 0;

    if (fd < 0)
        return -errno;
    if (write(fd, text, (size_t)len) != len || fsync(fd) != 0)
        r = errno != 0 ? -errno : -EIO;
    if (close(fd) != 0 && r == 0)
        r = -errno;
    if (r != 0)
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
    free(s->marker);
    free(s);
}

/* Forget the closed stores whose marker is gone. */
static void
table_sweep(void)
{
    struct kvfs_memstore **at = &table_first, *s;
    char id[KVFS_MEMSTORE_ID_LEN + 1];
    long pid;

    while ((s = *at) != NULL) {
        if (!s->open && (marker_read(s->marker, id, &pid) != 0 || strcmp(id, s->id) != 0)) {
            *at = s->next;
            store_free(s);
        } else {
            at = &s->next;
        }
    }
}

/* Make a store and its marker.  Takes MARKER when it goes well. */
static int
store_new(char *marker, struct kvfs_memstore **storep, struct kvfs_error *err)
{
    struct kvfs_memstore *s;
    uint8_t bytes[KVFS_MEMSTORE_ID_LEN / 2];
    int r;

    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a store");
    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes)) {
        r = kvfs_error_set(err, -EIO, "mem: no random numbers");
        goto out;
    }
    for (size_t i = 0; i < sizeof(bytes); i++)
        (void)snprintf(s->id + 2 * i, 3, "%02x", bytes[i]);
    memcpy(&s->random, bytes, sizeof(s->random));
    s->random |= 1; /* its generator must not start at 0 */
    r = marker_write(marker, s->id);
    if (r != 0) {
        (void)kvfs_error_set(err, r, "mem: %s: cannot be written: %s", marker, strerrordesc_np(-r));
        goto out;
    }
    (void)pthread_mutex_init(&s->writer, NULL);
    (void)pthread_mutex_init(&s->lock, NULL);
    s->marker = marker;
    *storep = s;
    return 0;
out:
    free(s);
    return r;
}

/* Takes MARKER when it goes well. */
static int
table_claim(char *marker, bool create, struct kvfs_memstore **storep, struct kvfs_error *err)
{
    char id[KVFS_MEMSTORE_ID_LEN + 1];
    struct kvfs_memstore *s = NULL;
    long pid = 0;
    int r = marker_read(marker, id, &pid);

    if (r != 0 && r != -ENOENT)
        return kvfs_error_set(err, r, "mem: %s: %s", marker,
                              r == -EINVAL ? "is no store of this engine" : strerrordesc_np(-r));
    for (s = r == 0 ? table_first : NULL; s != NULL; s = s->next) {
        if (strcmp(s->id, id) != 0)
            continue;
        if (s->open)
            return kvfs_error_set(err, -EBUSY, "mem: %s: is open in this process", marker);
        free(marker);
        s->open = true;
        *storep = s;
        return 0;
    }
    if (!create && r == -ENOENT)
        return kvfs_error_set(err, -ENOENT, "mem: %s: there is no store", marker);
    if (!create)
        return kvfs_error_set(
            err, -ENOENT, "mem: %s: the store is in the memory of process %ld only", marker, pid);
    r = store_new(marker, &s, err);
    if (r != 0)
        return r;
    s->open = true;
    s->next = table_first;
    table_first = s;
    *storep = s;
    return 0;
}

int
kvfs_memstore_claim(const char *path, bool create, struct kvfs_memstore **storep,
                    struct kvfs_error *err)
{
    char *folder, *marker = NULL;
    int r;

    (void)pthread_once(&table_once, table_init);
    folder = realpath(path, NULL);
    if (folder == NULL) {
        r = -errno;
        return kvfs_error_set(err, r, "mem: %s: %s", path, strerrordesc_np(-r));
    }
    r = asprintf(&marker, "%s/" MARKER_NAME, folder);
    free(folder);
    if (r < 0)
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a path");

    (void)pthread_mutex_lock(&table_lock);
    table_sweep();
    r = table_claim(marker, create, storep, err);
    (void)pthread_mutex_unlock(&table_lock);
    if (r != 0)
        free(marker);
    return r;
}

void
kvfs_memstore_release(struct kvfs_memstore *store)
{
    (void)pthread_mutex_lock(&table_lock);
    store->open = false;
    (void)pthread_mutex_unlock(&table_lock);
}
