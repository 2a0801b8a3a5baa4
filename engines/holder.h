/* SPDX-License-Identifier: BSD-3-Clause
 *
 * holder.h - one process a store, for engines that cannot share one.
 *
 * Some libraries have no lock of their own, wait for it for ever, or do not tell
 * who holds it.  A file "holder" in the store's folder is locked by whoever has the
 * store open and says who that is.
 */
#ifndef KVFS_ENGINES_HOLDER_H
#define KVFS_ENGINES_HOLDER_H

#include <stdbool.h>

#include <kvfs/error.h>

/* Hold the store in FOLDER until kvfs_holder_drop(*fdp).  The file is made where it is
 * missing; on a medium that cannot be written nothing is locked (*fdp is -1), for
 * nobody can change the store there.
 * -EBUSY: another process holds it, ERR names it; -EACCES and others as open(2). */
int kvfs_holder_take(const char *folder, bool readonly, int *fdp, struct kvfs_error *err);
void kvfs_holder_drop(int fd);

#endif /* KVFS_ENGINES_HOLDER_H */
