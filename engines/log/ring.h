/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ring.h - the log's file: records one behind the other in a preallocated ring.
 *
 * The ring does not know what records hold.  It writes each with one aligned write
 * and, where asked, one flush, and finds after a crash exactly those that can be
 * trusted: from a given place on, up to the first that does not fit.
 *
 * Threads: one at a time for everything but the getters of sizes.
 */
#ifndef KVFS_LOG_RING_H
#define KVFS_LOG_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvfs/error.h>

#define KVFS_RING_ID      16   /* bytes: of the store that the log belongs to */
#define KVFS_RING_ALIGN   4096 /* records begin at multiples of it, in the file and in memory */
#define KVFS_RING_HEAD    64   /* bytes before a record's payload */
#define KVFS_RING_MIN     ((uint64_t)64 << 10)
#define KVFS_RING_MAX     ((uint64_t)1 << 32)

/* A place in the log: where the next record goes or is looked for. */
struct kvfs_ring_at {
    uint64_t offset; /* in the file */
    uint64_t seq;    /* of the record at it; the first is 1 */
    uint64_t before; /* checksum of the record before; 0 for the first */
};

struct kvfs_ring;

/* Which file, and whose. */
struct kvfs_ring_file {
    int folder;        /* where it lies: a descriptor, which stays open as long as the ring */
    const char *path;  /* its last name is the file's; all of it is for messages */
    const uint8_t *id; /* KVFS_RING_ID bytes */
    uint64_t epoch;    /* differs from that of every earlier file of this store */
};

/* Make the file of BYTES (a multiple of KVFS_RING_ALIGN, MIN to MAX), zeroed and written once so
 * that later writes change no metadata, and durable on return, folder included.
 * An older file of that name is replaced by rename.
 * -ENOSPC, -EDQUOT, -EIO, -EACCES, -ENOMEM as usual; the old file is then untouched, but after
 * -EIO either may be there. */
int kvfs_ring_make(const struct kvfs_ring_file *file, uint64_t bytes, struct kvfs_error *err);

/* Open it.  -ENOENT: no file; -EINVAL: not a log, or of another store or epoch (which
 * a caller takes for an empty log after it had another made); -EIO. */
int kvfs_ring_open(const struct kvfs_ring_file *file, bool readonly, struct kvfs_ring **ringp,
                   struct kvfs_error *err);
void kvfs_ring_close(struct kvfs_ring *r);

/* R becomes NEXT, which is closed: the log of a later epoch in the same place.  Getters in other
 * threads see the one or the other. */
void kvfs_ring_become(struct kvfs_ring *r, struct kvfs_ring *next);

/* What tests may break. */
enum kvfs_ring_bug {
    KVFS_RING_SOUND,
    KVFS_RING_BUG_NO_CHECK, /* a record's checksums are believed unseen */
    KVFS_RING_BUG_OLD_LAP,  /* records of earlier laps are taken for new ones */
};
void kvfs_ring_unsafe(struct kvfs_ring *r, enum kvfs_ring_bug bug);

/* The place of the first record of a fresh file. */
struct kvfs_ring_at kvfs_ring_first(void);

/* Called with each record that fits, in order; a negative answer ends the walk. */
typedef int kvfs_ring_fn(void *arg, const struct kvfs_ring_at *at, const void *payload, size_t len);

/* Was no record ever written to it? */
bool kvfs_ring_unused(const struct kvfs_ring *r);

/* Read all records from TAIL on, which becomes the tail (and see whether another process made the
 * ring longer), and stand behind the last.
 * Whatever does not fit ends the log: a torn record, an old lap, zeros.  Opened for writing, what
 * was found is written once more: the next flush makes it durable, whatever became of it before.
 * -EIO: the file cannot be read; -ENOMEM; or what FN answered. */
int kvfs_ring_recover(struct kvfs_ring *r, const struct kvfs_ring_at *tail, kvfs_ring_fn *fn,
                      void *arg, struct kvfs_error *err);

/* Where the next record's LEN bytes of payload are put, before it is appended.  Of the ring's own
 * memory, until the next call.  NULL without memory. */
uint8_t *kvfs_ring_payload(struct kvfs_ring *r, size_t len);

const char *kvfs_ring_path(const struct kvfs_ring *r);
/* Bytes of the ring that a record with LEN bytes of payload takes. */
uint64_t kvfs_ring_takes(size_t len);
/* Has the ring room for one? */
bool kvfs_ring_fits(const struct kvfs_ring *r, size_t len);

/* Append the record whose LEN bytes were put into kvfs_ring_payload(), and with FLUSH make it and
 * all before it durable.  AT, if not NULL, becomes the record's place.
 * -EAGAIN: no room before the tail, nothing was written.
 * -EIO, whatever the reason: the ring takes no more records, for what is in the file is unknown. */
int kvfs_ring_append(struct kvfs_ring *r, size_t len, bool flush, struct kvfs_ring_at *at,
                     struct kvfs_error *err);
/* Make all records durable.  As above. */
int kvfs_ring_flush(struct kvfs_ring *r, struct kvfs_error *err);

/* Make the ring BYTES long, more than it is.  Only while the records do not lie around its
 * end: kvfs_ring_may_grow().  _prepare() writes some of the new room, and may run beside appends;
 * 1: there is more of it, so it is called again; what is done is not done twice.
 * Its -ENOSPC and others: the ring stays as it was, and may be used. */
bool kvfs_ring_may_grow(const struct kvfs_ring *r);
int kvfs_ring_grow_prepare(struct kvfs_ring *r, uint64_t bytes, struct kvfs_error *err);
int kvfs_ring_grow(struct kvfs_ring *r, uint64_t bytes, struct kvfs_error *err);

/* The next record of the empty ring gets the number behind its own: who looks for one from the
 * place before finds none. */
void kvfs_ring_skip(struct kvfs_ring *r);

/* Records before TAIL are needed no more. */
void kvfs_ring_release(struct kvfs_ring *r, const struct kvfs_ring_at *tail);

struct kvfs_ring_at kvfs_ring_head(const struct kvfs_ring *r); /* of the next record */
uint64_t kvfs_ring_bytes(const struct kvfs_ring *r);           /* that records may take */
uint64_t kvfs_ring_used(const struct kvfs_ring *r);            /* that they take */

#endif /* KVFS_LOG_RING_H */
