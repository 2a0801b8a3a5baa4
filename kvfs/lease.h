/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lease.h - who uses what in a volume, across processes (lease.c).
 */
#ifndef KVFS_LEASE_H
#define KVFS_LEASE_H

#include <kvfs/volume.h>

struct kvfs_lease_table;

/* Open the volume's lock file in folder PATH and take the volume's lock: shared
 * (every opener), or exclusive (compact, repair).  READONLY writes nothing
 * where that is possible.  -EBUSY: ERR names the holder. */
int kvfs_lease_table_open(const char *path, bool readonly, bool exclusive,
                          struct kvfs_lease_table **tablep, struct kvfs_error *err);
void kvfs_lease_table_close(struct kvfs_lease_table *t);

/* Was the volume's folder removed under us?  What is written then is lost. */
bool kvfs_lease_table_gone(const struct kvfs_lease_table *t);
/* Has no other process the volume open? */
bool kvfs_lease_table_alone(const struct kvfs_lease_table *t);

/* In a forked child: give up the inherited descriptor; nothing is unlocked. */
void kvfs_lease_table_forget(struct kvfs_lease_table *t);

/* Take the lease of file INO for this process, once.  -EBUSY; ERR names the
 * holder.  LASTING: others are told our name at once, else if it lasts.  The
 * caller (node.c) keeps track of its own users of it. */
int kvfs_lease_take(struct kvfs_lease_table *t, uint64_t ino, bool lasting,
                    struct kvfs_error *err);
void kvfs_lease_drop(struct kvfs_lease_table *t, uint64_t ino);

/* The right to do the background work that belongs to no file.  Never waits. */
bool kvfs_lease_janitor(struct kvfs_lease_table *t);
void kvfs_lease_janitor_drop(struct kvfs_lease_table *t);

/* Note a pinned snapshot, so that others can be told; negative: there was no
 * room, which is harmless. */
int kvfs_lease_pin(struct kvfs_lease_table *t);
void kvfs_lease_unpin(struct kvfs_lease_table *t, int name);

/* Tell others of what has been held since the last call but one.  From the first call on,
 * what does not last is told that way only. */
void kvfs_lease_announce(struct kvfs_lease_table *t);

#endif /* KVFS_LEASE_H */
