/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fork.c - handles after a fork().
 *
 * An environment must not be used across fork(): the reader table and the file
 * locks know the parent's process id.  A handle remembers in which generation of
 * the process it was opened; in a child every call answers -EBADF and close()
 * only frees memory.
 */
#include <errno.h>

#include "lmdb_priv.h"

static atomic_uint fork_generation = 1;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_once_error;

static void
fork_happened(void)
{
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
}

static void
fork_init(void)
{
    fork_once_error = pthread_atfork(NULL, NULL, fork_happened);
}

unsigned
kvfs_lmdb_generation(void)
{
    (void)pthread_once(&fork_once, fork_init);
    return fork_once_error != 0 ? 0 : atomic_load(&fork_generation);
}

int
kvfs_lmdb_usable(const struct kvfs_db *db, struct kvfs_error *err)
{
    if (db->generation == atomic_load_explicit(&fork_generation, memory_order_relaxed))
        return 0;
    return kvfs_error_set(err, -EBADF, "%s: opened before fork(), not usable in the child",
                          db->path);
}
