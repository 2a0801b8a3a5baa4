/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fork.h - telling a child of the process that opened a handle.
 *
 * Libraries that lock files or map them by process must not be used across
 * fork().  An engine remembers the generation in which a handle was opened; in a
 * child it differs, so that calls can be refused there.
 */
#ifndef KVFS_ENGINES_FORK_H
#define KVFS_ENGINES_FORK_H

/* Counts the forks that this process comes from, and one; 0: cannot be known.
 * Threads: any; cheap. */
unsigned kvfs_fork_generation(void);

#endif /* KVFS_ENGINES_FORK_H */
