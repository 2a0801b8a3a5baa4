/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fork.c - counting forks, and what a child gives up (fork.h).
 *
 *  1. Forking waits for no lock here: another handler or an opener may hold one of its own and
 *     wait for ours.  So the list of files is whole after each single store, as a child finds it.
 *  2. A file that was opened while a fork was under way may be in the child and not in its list:
 *     it is closed again, before it has a lock, and opened anew.
 */
#include "fork.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_uint fork_generation = 1;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_once_error;
static atomic_uint fork_begun, fork_done;
static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER; /* of who changes the list */
static struct kvfs_fork_file *_Atomic fork_files;

static void
fork_prepare(void)
{
    (void)atomic_fetch_add(&fork_begun, 1);
}

static void
fork_parent(void)
{
    (void)atomic_fetch_add(&fork_done, 1);
}

static void
fork_happened(void)
{
    (void)atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
    for (struct kvfs_fork_file *f = atomic_load(&fork_files); f != NULL; f = atomic_load(&f->next)) {
        (void)close(f->fd);
        f->fd = -1;
    }
    atomic_store(&fork_files, NULL); /* what is closed already is not closed by its children */
    atomic_store(&fork_done, atomic_load(&fork_begun));
    (void)pthread_mutex_init(&fork_lock, NULL); /* a thread of the parent may have it */
}

static void
fork_init(void)
{
    fork_once_error = pthread_atfork(fork_prepare, fork_parent, fork_happened);
}

unsigned
kvfs_fork_generation(void)
{
    (void)pthread_once(&fork_once, fork_init);
    return fork_once_error != 0 ? 0 : atomic_load_explicit(&fork_generation, memory_order_relaxed);
}

int
kvfs_fork_check(unsigned generation, const char *path, struct kvfs_error *err)
{
    if (generation == kvfs_fork_generation())
        return 0;
    return kvfs_error_set(err, -EBADF, "%s: opened before fork(), not usable in the child", path);
}

int
kvfs_fork_check_library(atomic_uint *first, const char *library, const char *path,
                        struct kvfs_error *err)
{
    unsigned now = kvfs_fork_generation(), none = 0;

    if (atomic_compare_exchange_strong(first, &none, now) || none == now)
        return 0;
    return kvfs_error_set(err, -EBADF,
                          "%s: this process comes by fork() from one that has used %s, which "
                          "does not work in the child", path, library);
}

/* One try; NULL with errno 0: there was a fork meanwhile. */
static struct kvfs_fork_file *
fork_open_once(const char *path, int flags, mode_t mode)
{
    struct kvfs_fork_file *file = malloc(sizeof(*file));
    unsigned done = atomic_load(&fork_done);
    bool forked;

    if (file == NULL)
        return NULL;
    file->fd = open(path, flags | O_CLOEXEC, mode);
    if (file->fd < 0) {
        int code = errno;

        free(file);
        errno = code;
        return NULL;
    }
    (void)pthread_mutex_lock(&fork_lock);
    atomic_init(&file->next, atomic_load(&fork_files));
    atomic_store(&fork_files, file);
    (void)pthread_mutex_unlock(&fork_lock);
    forked = atomic_load(&fork_begun) != done;
    if (!forked)
        return file;
    kvfs_fork_close(file);
    errno = 0;
    return NULL;
}

struct kvfs_fork_file *
kvfs_fork_open(const char *path, int flags, mode_t mode)
{
    struct kvfs_fork_file *file;

    if (kvfs_fork_generation() == 0) {
        errno = ENOMEM;
        return NULL;
    }
    while ((file = fork_open_once(path, flags, mode)) == NULL && errno == 0)
        (void)sched_yield();
    return file;
}

void
kvfs_fork_close(struct kvfs_fork_file *file)
{
    const struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    struct kvfs_fork_file *_Atomic *at = &fork_files;

    if (file == NULL)
        return;
    if (file->fd >= 0) /* a child that just begins has a copy */
        (void)fcntl(file->fd, F_OFD_SETLK, &all);
    (void)pthread_mutex_lock(&fork_lock);
    while (atomic_load(at) != NULL && atomic_load(at) != file)
        at = &atomic_load(at)->next;
    if (atomic_load(at) == file)
        atomic_store(at, atomic_load(&file->next));
    (void)pthread_mutex_unlock(&fork_lock);
    if (file->fd >= 0)
        (void)close(file->fd);
    free(file);
}
