/* SPDX-License-Identifier: BSD-3-Clause
 *
 * process.h - one copy of the library a volume, in each process (process.c).
 */
#ifndef KVFS_PROCESS_H
#define KVFS_PROCESS_H

#include <kvfs/error.h>

struct kvfs_process_hold;

/* Be the copy of the library that uses the volume PATH in this process, until _drop(), as often as
 * wanted.  FD is open for the volume's lock file, its own description, and is taken over.
 * -EBUSY: another copy uses it. */
int kvfs_process_hold(const char *path, int fd, struct kvfs_process_hold **holdp,
                      struct kvfs_error *err);
/* NULL is none; in a child, a hold of the parent is only forgotten. */
void kvfs_process_drop(struct kvfs_process_hold *hold);

/* The fork handlers of volume.c: the child has no holds. */
void kvfs_process_fork_prepare(void);
void kvfs_process_fork_parent(void);
void kvfs_process_fork_child(void);

#endif /* KVFS_PROCESS_H */
