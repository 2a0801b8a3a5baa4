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
#include <sys/types.h>

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

/* A file that is open for its locks, those of the open file description (fcntl(2)): they outlast
 * whatever else the process does with that file, but a child's copy would keep them when the
 * process dies.  So children close it as they begin, whatever thread forks when. */
struct kvfs_fork_file {
    int fd; /* -1 in a child */
    struct kvfs_fork_file *_Atomic next;
};

/* As open(2), with O_CLOEXEC; NULL: errno tells why.  Threads: any. */
struct kvfs_fork_file *kvfs_fork_open(const char *path, int flags, mode_t mode);
/* Free the locks, and it; in a child they stay the parent's.  NULL is none.  Threads: any. */
void kvfs_fork_close(struct kvfs_fork_file *file);

#endif /* KVFS_ENGINES_FORK_H */
