/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fork.c - counting forks (fork.h).
 */
#include "fork.h"

#include <errno.h>
#include <pthread.h>

static atomic_uint fork_generation = 1;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_once_error;

static void
fork_happened(void)
{
    (void)atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
}

static void
fork_init(void)
{
    fork_once_error = pthread_atfork(NULL, NULL, fork_happened);
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
