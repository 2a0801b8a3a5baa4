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
    /* First look at the engine's own structure in a child process, so that an engine that
     * crashes or hangs on a damaged store is a finding.  The process must have a single
     * thread and no volume open. */
    bool child;
    unsigned patience_s; /* the child hangs when it did nothing for so long; 0: 600 */
    kvfs_finding_fn *finding; /* each problem: WHERE ("file /a block 17"), WHAT; NULL: none */
    void *finding_arg;
    /* Work so far, of an estimate: records seen, behind as many for the engine's own
     * structure, which comes first.  NULL: none. */
    kvfs_progress_fn *progress;
    void *progress_arg;
};

struct kvfs_check_result {
    uint64_t records, inodes, blocks; /* looked at */
    uint64_t findings;
    uint64_t repaired; /* of them */
};

/* Verify every record, checksum, link count, name and orphan, and the engine's
 * own structure.  0 whenever the check was done, whatever it found, also when the
 * volume is damaged beyond opening; negative only when it could not be done: as
 * kvfs_volume_open(), -EINTR.  RESULT counts what was looked at in either case.
 *
 * Without `repair` nothing is written, and the volume may be in use: what is looked
 * at is one engine snapshot, held until the end.  Memory: about 100 bytes an inode and
 * a fork; blocks are streamed.
 *
 * With `repair` the volume must not be in use (-EBUSY; ERR says by whom).  A store whose
 * own structure is damaged is left alone.  Else what can be derived is written anew,
 * what leads nowhere is removed, and what has lost its name is found in /lost+found:
 * inodes as "#<number>", contents whose inode is lost as "#fork-<number>".  Damaged
 * blocks, attributes and targets of links stay as they are, and stay findings: reads
 * go on answering -EIO.  Durable on return; a second run finds nothing else. */
int kvfs_check(const char *path, const struct kvfs_check_options *options,
               struct kvfs_check_result *result, struct kvfs_error *err);

#ifdef __cplusplus
}
#endif

#endif /* KVFS_CHECK_H */
