/* SPDX-License-Identifier: BSD-3-Clause
 *
 * check.h - verifying a volume, as fsck does for a disk.
 */
#ifndef KVFS_CHECK_H
#define KVFS_CHECK_H

#include <kvfs/volume.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvfs_check_options {
    bool repair; /* needs the volume writable and alone */
    bool force;  /* accept a network file system */
    kvfs_finding_fn *finding; /* each problem: WHERE ("file /a block 17"), WHAT; NULL: none */
    void *finding_arg;
    kvfs_progress_fn *progress; /* records seen so far; NULL: none */
    void *progress_arg;
};

struct kvfs_check_result {
    uint64_t records, inodes, blocks; /* looked at */
    uint64_t findings;
    uint64_t repaired; /* of them */
};

/* Verify every record, checksum, link count, name and orphan, and the engine's
 * own structure.  0 whenever the check was done, whatever it found;
 * negative only when it could not be done: as kvfs_volume_open(), -EINTR. */
int kvfs_check(const char *path, const struct kvfs_check_options *options,
               struct kvfs_check_result *result, struct kvfs_error *err);

#ifdef __cplusplus
}
#endif

#endif /* KVFS_CHECK_H */
