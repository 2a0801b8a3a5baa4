/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fork.h - telling a child of the process that opened a handle.
 *
 * Libraries that lock files or map them by process must not be used across
 * fork().  An engine remembers the generation in which a handle was opened; in a
 * child it differs: every call answers -EBADF there and close() only frees memory.
 */
#ifndef KVFS_ENGINES_FORK_H
#define KVFS_ENGINES_FORK_H

#include <kvfs/error.h>

/* Counts the forks that this process comes from, and one; 0: cannot be known.
 * Threads: any; cheap. */
unsigned kvfs_fork_generation(void);

/* -EBADF, with PATH in ERR, if a handle of GENERATION was opened by another process;
 * ERR may be NULL.  Threads: any; cheap. */
int kvfs_fork_check(unsigned generation, const char *path, struct kvfs_error *err);

#endif /* KVFS_ENGINES_FORK_H */
