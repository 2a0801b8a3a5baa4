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

#include <stdatomic.h>

#include <kvfs/error.h>

/* Counts the forks that this process comes from, and one; 0: cannot be known.
 * Threads: any; cheap. */
unsigned kvfs_fork_generation(void);

/* -EBADF, with PATH in ERR, if a handle of GENERATION was opened by another process;
 * ERR may be NULL.  Threads: any; cheap. */
int kvfs_fork_check(unsigned generation, const char *path, struct kvfs_error *err);

/* For a library whose threads serve all stores of a process, so that none can be opened in a
 * child of one that has used it: it would wait for those threads for ever.  FIRST, zero at the
 * beginning, remembers the generation that used LIBRARY first.
 * -EBADF in a child.  Threads: any. */
int kvfs_fork_check_library(atomic_uint *first, const char *library, const char *path,
                            struct kvfs_error *err);

#endif /* KVFS_ENGINES_FORK_H */
