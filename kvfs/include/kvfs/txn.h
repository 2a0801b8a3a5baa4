/* SPDX-License-Identifier: BSD-3-Clause
 *
 * txn.h - snapshots of a volume, and atomic changes of several files.
 *
 * A snapshot is one instant of the volume, seen through any number of files; it
 * stands still until it is closed and keeps the engine from reusing space
 * meanwhile (kvfs_volume_holders() shows who and since when, once it has
 * stood for a second or so).
 *
 * A transaction collects writes and sizes of several files in private memory
 * and commits them as one: all or nothing, over any crash.  Beyond a bound it
 * writes its blocks under fresh forks in bounded batches, which one small
 * record makes visible at the commit; so it may be of any size.
 *
 * Versions: each file counts the transactions committed on it.  A transaction
 * names the versions it was built on; if one has moved on, the commit changes
 * nothing and answers -EAGAIN.
 */
#ifndef KVFS_TXN_H
#define KVFS_TXN_H

#include <kvfs/file.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvfs_snapshot;
struct kvfs_txn;
struct kvfs_ticket; /* a submitted transaction's answer, to be waited for */

/* Pin an instant: all that was committed or sealed for commit, of this process
 * and of others; writes of kvfs_file_pwrite() that no cut has taken up yet are
 * taken up first.  -EBUSY: no free place for a reader.
 * Threads: a snapshot may be read by one thread at a time. */
int kvfs_snapshot_open(struct kvfs_volume *v, struct kvfs_snapshot **snapshotp,
                       struct kvfs_error *err);
void kvfs_snapshot_close(struct kvfs_snapshot *s);

/* Does it show, of this process, a transaction that failed after it could be seen? */
bool kvfs_snapshot_failed(const struct kvfs_snapshot *s);

/* Facts of regular file INO at that instant.  -ENOENT: it was not there; -EISDIR;
 * -EINVAL (neither file nor folder); -EIO. */
int kvfs_snapshot_info(struct kvfs_snapshot *s, uint64_t ino, struct kvfs_file_info *info,
                       struct kvfs_error *err);

/* As kvfs_file_pread(), at that instant; reading past the end is -EINVAL. */
int kvfs_snapshot_pread(struct kvfs_snapshot *s, uint64_t ino, void *buf, size_t count,
                        uint64_t offset, struct kvfs_error *err);

/* As kvfs_file_extents(), at that instant. */
int kvfs_snapshot_extents(struct kvfs_snapshot *s, uint64_t ino, uint64_t count, uint64_t offset,
                          unsigned limit,
                          int (*fn)(void *arg, uint64_t offset, uint64_t count, bool hole),
                          void *arg, struct kvfs_error *err);

/* The exclusive right to change a file, among all handles of this process and
 * all processes: what a database calls its RESERVED lock.  Never waits.
 * -EBUSY: taken (ERR names the process, if it has held it for a second);  -EROFS.  F need not be open for
 * WRITE.  On success the file's facts are fresh (kvfs_file_info). */
int kvfs_file_lock(struct kvfs_file *f, struct kvfs_error *err);
void kvfs_file_unlock(struct kvfs_file *f);

/* Begin a transaction.  -EROFS, -ENOMEM.  Threads: one at a time. */
int kvfs_txn_begin(struct kvfs_volume *v, struct kvfs_txn **txnp, struct kvfs_error *err);

/* Stage a write or a size; F is open for WRITE or locked by kvfs_file_lock()
 * until the commit or abort.  A write past the end grows the file.  VERSION is
 * that of kvfs_file_info() or kvfs_snapshot_info() which the change is built
 * on; the first call for a file counts.  -ENOSPC, -EFBIG, -EIO, -EBADF. */
int kvfs_txn_write(struct kvfs_txn *t, struct kvfs_file *f, uint64_t version, const void *buf,
                   size_t count, uint64_t offset, struct kvfs_error *err);
int kvfs_txn_truncate(struct kvfs_txn *t, struct kvfs_file *f, uint64_t version,
                      uint64_t size_bytes, struct kvfs_error *err);

/* What the transaction writes was made of what SNAPSHOT shows, which stays open until the
 * submission.  If that holds another's transaction which was visible and failed then, the
 * submission fails with that one's code.  -ENOMEM. */
int kvfs_txn_built_on(struct kvfs_txn *t, struct kvfs_snapshot *snapshot, struct kvfs_error *err);

/* Read as the transaction would leave it (stage over the file's newest state). */
int kvfs_txn_pread(struct kvfs_txn *t, struct kvfs_file *f, void *buf, size_t count,
                   uint64_t offset, struct kvfs_error *err);

/* Would a transaction fit that writes so many blocks, of a file with blocks of that size?
 * 0 or -ENOSPC, as well as can be told before.  GROWS: it adds more blocks than it
 * replaces by zeros; such a one leaves some room for those that do not (a delete in a
 * database writes pages, too).  kvfs_txn_commit() keeps to the same. */
int kvfs_txn_room(struct kvfs_volume *v, uint64_t blocks, uint32_t block_size_bytes, bool grows,
                  struct kvfs_error *err);

/* Commit with DURABILITY (ORDERED or DURABLE) and end the transaction, whatever
 * is returned.  On 0 the change is visible to all processes; each file's
 * version has grown by one.  An empty transaction commits nothing and bumps
 * nothing.
 * -EAGAIN  a version has moved on; nothing was changed
 * -ENOSPC  nothing was changed
 * -EIO     unknown outcome; the volume is poisoned */
int kvfs_txn_commit(struct kvfs_txn *t, enum kvfs_durability durability, struct kvfs_error *err);

/* The same in two steps, so that the next writer need not wait for the disk.
 * After _submit the change is ordered and visible inside this process: to new
 * snapshots and to the next transaction, whose versions may build on it.  The
 * transaction is ended, and the file locks may be passed on.  The ticket (NULL
 * for an empty transaction; waiting for NULL is 0 at once) is waited for exactly
 * once, by any thread, which frees it; what _wait answers is the commit's answer.
 * A transaction that built on one that failed fails too. */
int kvfs_txn_submit(struct kvfs_txn *t, struct kvfs_ticket **ticketp, struct kvfs_error *err);

/* As _submit, and *SNAPSHOTP pins the very state that the transaction makes; its place is
 * secured before anything is changed (-ENOMEM).  NULL where all places for readers are taken,
 * for an empty transaction, and for one that was spilled, which is applied within this call,
 * with DURABILITY.  If _wait
 * then fails, the snapshot shows what never came to be: close it. */
int kvfs_txn_submit_pinned(struct kvfs_txn *t, enum kvfs_durability durability,
                           struct kvfs_ticket **ticketp, struct kvfs_snapshot **snapshotp,
                           struct kvfs_error *err);

int kvfs_txn_wait(struct kvfs_ticket *ticket, enum kvfs_durability durability,
                  struct kvfs_error *err);

void kvfs_txn_abort(struct kvfs_txn *t); /* NULL allowed */

#ifdef __cplusplus
}
#endif

#endif /* KVFS_TXN_H */
