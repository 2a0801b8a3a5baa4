/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file.h - reading and writing the bytes of a file.
 *
 * A write is acknowledged when it lies in memory; it is visible at once to
 * every handle of the file in this process.  A flush makes what was
 * acknowledged before it durable.  A request of up to KVFS_REQUEST_MAX bytes
 * lies whole in one commit, so a crash keeps all of it or nothing; if B was
 * issued after A was acknowledged, on any handle, a B that survived implies A.
 *
 * Threads: every function, any thread, also on one handle at once.
 */
#ifndef KVFS_FILE_H
#define KVFS_FILE_H

#include <kvfs/volume.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvfs_file; /* one open handle */

enum {
    KVFS_OPEN_READ = 0,
    KVFS_OPEN_WRITE = 1u << 0, /* takes the file's lease for this process */
};

/* Open file INO (see dir.h for names) of kind regular.
 * -ENOENT; -EISDIR; -EINVAL (neither file nor folder);
 * -EBUSY  WRITE, and another process holds the lease; ERR names it
 * -EROFS  WRITE on a volume opened readonly;  -EIO  a damaged inode. */
int kvfs_file_open(struct kvfs_volume *v, uint64_t ino, unsigned flags, struct kvfs_file **filep,
                   struct kvfs_error *err);

/* Does not flush; written data are committed later all the same. */
void kvfs_file_close(struct kvfs_file *f);

struct kvfs_file_info {
    uint64_t ino;
    uint64_t size_bytes;
    uint32_t block_size_bytes;
    uint64_t version; /* grows with each committed transaction (txn.h) and each batch of writes */
};
void kvfs_file_info(struct kvfs_file *f, struct kvfs_file_info *info);

/* Reread what another process may have changed (size); call when a client
 * connects.  -EIO, -ENOENT (unlinked). */
int kvfs_file_refresh(struct kvfs_file *f, struct kvfs_error *err);

/* Read COUNT bytes from OFFSET.  All of them lie inside the file, else -EINVAL.
 * Holes read as zeros.  -EIO: a damaged block, named in ERR (BUF is then
 * undefined, and never holds bytes that failed their checksum unnoticed). */
int kvfs_file_pread(struct kvfs_file *f, void *buf, size_t count, uint64_t offset,
                    struct kvfs_error *err);

enum {
    KVFS_FUA = 1u << 0,      /* return only when durable */
    KVFS_EXTEND = 1u << 1,   /* grow the file where the range ends beyond it */
    KVFS_FAST_ONLY = 1u << 2 /* zero: -EOPNOTSUPP rather than slower than a hole */
};

/* Write COUNT (1 .. KVFS_REQUEST_MAX) bytes at OFFSET.
 * -EINVAL  beyond the file's end (without KVFS_EXTEND), count out of range, FLAGS
 *          but KVFS_FUA and KVFS_EXTEND
 * -EFBIG   EXTEND beyond KVFS_FILE_SIZE_MAX
 * -ENOSPC  before anything is acknowledged; the file is as it was
 * -EBADF   the handle is not open for writing;  -EIO  poisoned volume, or a
 *          damaged block under a partial write. */
int kvfs_file_pwrite(struct kvfs_file *f, const void *buf, size_t count, uint64_t offset,
                     unsigned flags, struct kvfs_error *err);

/* Make [offset, offset+count) read as zeros and give back its space (behind).
 * Any range inside the file, also all of an 8 EiB one: the time does not
 * depend on it.  `trim` is the same; both keep neighbours byte for byte.
 * FLAGS: all of the above; errors: as kvfs_file_pwrite(). */
int kvfs_file_zero(struct kvfs_file *f, uint64_t count, uint64_t offset, unsigned flags,
                   struct kvfs_error *err);

/* Make all writes of this file acknowledged so far, on any handle, durable.
 * All that wait are served by one commit. */
int kvfs_file_flush(struct kvfs_file *f, struct kvfs_error *err);

/* Set the size.  Growing adds a hole; what is cut off reads as zeros if the
 * file grows again.  Durable on return.  Also for a handle without WRITE, and
 * while another process holds the lease and serves the file, as long as the
 * file only grows (else -EBUSY).  -EINVAL, -EFBIG, -EROFS, -EIO, -ENOSPC. */
int kvfs_file_resize(struct kvfs_file *f, uint64_t size_bytes, struct kvfs_error *err);

/* Report what is data and what is hole in [offset, offset+count) to FN, in
 * order, without gaps, adjoining pieces of one kind merged where cheap; stops
 * early when FN returns non-zero (then 0 is returned) or after LIMIT calls. */
int kvfs_file_extents(struct kvfs_file *f, uint64_t count, uint64_t offset, unsigned limit,
                      int (*fn)(void *arg, uint64_t offset, uint64_t count, bool hole), void *arg,
                      struct kvfs_error *err);

/* Read ahead into the page cache.  Best effort: only -EINVAL. */
int kvfs_file_cache(struct kvfs_file *f, uint64_t count, uint64_t offset, struct kvfs_error *err);

#ifdef __cplusplus
}
#endif

#endif /* KVFS_FILE_H */
