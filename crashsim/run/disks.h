/* SPDX-License-Identifier: BSD-3-Clause
 *
 * disks.h - loop devices and ext4 on them.
 */
#ifndef CRASHSIM_DISKS_H
#define CRASHSIM_DISKS_H

#include <stdint.h>

#include "place.h"

struct loop {
    int fd; /* -1: none; it clears itself when this and the last mount are closed */
    char name[32];
};

/* A loop device over the file PATH. */
int loop_attach(const char *path, struct loop *l, struct kvfs_error *err);
/* Forget what the kernel has cached of it: the file below was written behind its back. */
int loop_forget(const struct loop *l, struct kvfs_error *err);
void loop_detach(struct loop *l);

/* A sparse file with an ext4 whose options are all given here, and no work left for later. */
int disks_make(const struct place *p, const char *path, uint64_t size_bytes,
               struct kvfs_error *err);

/* Where ext4 refuses because of a checksum, e2fsck goes first, as it does when a machine boots:
 * ext4 writes its super block of two sectors in place, and a cut may tear it.  *REPAIRED (or
 * NULL): so it was. */
int disks_mount(const struct place *p, const struct loop *l, const char *mnt, bool *repaired,
                struct kvfs_error *err);
/* However dead the disk below is. */
void disks_umount(const char *mnt);

/* Copy a sparse file, holes as holes. */
int disks_copy(const char *from, const char *to, struct kvfs_error *err);

#endif /* CRASHSIM_DISKS_H */
