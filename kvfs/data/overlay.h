/* SPDX-License-Identifier: BSD-3-Clause
 *
 * overlay.h - acknowledged data that the engine does not hold yet (overlay.c),
 * and how it gets there (commit.c).
 */
#ifndef KVFS_OVERLAY_H
#define KVFS_OVERLAY_H

#include <semaphore.h>

#include "layer.h"

struct kvfs_view;

/* One that waits for a commit that another makes (group.c). */
struct kvfs_commit_waiter {
    struct kvfs_commit_waiter *next;
    uint64_t id;
    enum kvfs_durability durability;
    struct kvfs_commit_waiter *next_woken; /* which this one wakes */
    sem_t wake;
    bool done; /* it has what it wants; else it makes the next one */
};

struct kvfs_overlay {
    struct kvfs_volume *v;

    /* Shared: looking, adding to `cur`.  Exclusive: all else below.  Taken by kvfs_cut_*(). */
    pthread_rwlock_t cut;
    unsigned cut_tries; /* before a thread sleeps; 0 on one processor */
    struct kvfs_layer *cur;             /* takes writes */
    struct kvfs_layer *oldest, *newest; /* sealed, waiting for their commit */

    atomic_size_t bytes;       /* of all these layers */
    size_t bound_bytes;        /* writers wait beyond it */
    atomic_size_t seal_bytes;  /* a layer is sealed at that size */
    atomic_size_t join_bytes;  /* layers are joined in a batch up to this */
    uint64_t records;          /* DATA records after the last look; commit_lock */
    size_t untuned;            /* blocks committed since then; commit_lock */
    int64_t tuned_ms;          /* when that was */
    atomic_uint_fast64_t applied_id; /* layers up to this are in the engine (or failed) */
    atomic_uint_fast64_t durable_id; /* ... and survive a power cut */
    uint64_t next_id;

    /* One commit, or one piece of background work, at a time. */
    pthread_mutex_t commit_lock;
    struct kvfs_commit_scratch *scratch; /* commit.c's memory, kept */

    pthread_mutex_t lead_lock; /* who commits for all that wait; see kvfs_commit() */
    bool leading;
    struct kvfs_commit_waiter *waiters, **waiters_end; /* first come, first */

    pthread_mutex_t space_lock; /* waiting for room */
    pthread_cond_t space_cond;
    atomic_uint space_waiters;
    atomic_size_t reserved; /* admitted, not in a layer yet; grows under space_lock */
    bool gate;              /* nothing is admitted; space_lock */
    unsigned space_wakes; /* counted, so that none is missed */
    atomic_int full;                 /* 0, or -ENOSPC while a layer does not fit */
    atomic_uint_fast64_t avail_bytes; /* the engine's, as of the last look */
    atomic_uint_fast64_t used_bytes;
    atomic_uint block_min; /* smallest block of the files written so far */
    atomic_uint spread; /* 16ths of a byte in the store that a dirty one may take */

    pthread_mutex_t pool_lock; /* chunks, spare layers, reference counts */
    struct kvfs_chunk *chunks;
    struct kvfs_layer *spare;
    size_t chunk_bytes;

    atomic_uint_fast64_t commits, commits_durable;
};

/* Everybody holds it for some microseconds at most, several times a commit: one who slept at once
 * would make all behind him sleep as well, so these try for a while. */
void kvfs_cut_lock_shared(struct kvfs_overlay *o);
void kvfs_cut_lock(struct kvfs_overlay *o);
void kvfs_cut_unlock(struct kvfs_overlay *o);

int kvfs_overlay_new(struct kvfs_volume *v, struct kvfs_overlay **overlayp);
void kvfs_overlay_free(struct kvfs_overlay *o);

size_t kvfs_chunk_bytes(const struct kvfs_overlay *o);
struct kvfs_chunk *kvfs_chunk_take(struct kvfs_overlay *o); /* NULL without memory */

struct kvfs_layer *kvfs_layer_take(struct kvfs_overlay *o); /* an empty one; NULL: no memory */
void kvfs_layer_hold(struct kvfs_overlay *o, struct kvfs_layer *l);
void kvfs_layer_drop(struct kvfs_overlay *o, struct kvfs_layer *l); /* the last frees */

/* Look again at what the engine holds and can still take. */
int kvfs_overlay_refresh(struct kvfs_overlay *o, struct kvfs_error *err);
/* The same after a commit of BLOCKS, and choose the size of the next ones. */
void kvfs_overlay_tune(struct kvfs_overlay *o, size_t blocks);

/* Wait until BYTES more may be acknowledged, and reserve them; FREES: the request only
 * gives space back.  -ENOSPC: the store could not take them; -EIO: poisoned while
 * waiting.  After 0 the caller calls _admitted with the same BYTES, when the request
 * lies in its layer, or has failed. */
/* A file with blocks of that size is about to be written: see overlay_fits(). */
void kvfs_overlay_expect(struct kvfs_overlay *o, uint32_t block_size_bytes);
int kvfs_overlay_admit(struct kvfs_overlay *o, size_t bytes, bool frees, struct kvfs_error *err);
void kvfs_overlay_admitted(struct kvfs_overlay *o, size_t bytes);
/* Room in the store for BYTES more in one batch, after REST more in batches before it? */
bool kvfs_overlay_fits(const struct kvfs_overlay *o, size_t bytes, uint64_t rest);
/* The same, having made what room there can be: 0 or -ENOSPC. */
int kvfs_overlay_room(struct kvfs_overlay *o, size_t bytes, uint64_t rest, struct kvfs_error *err);
/* What transactions that add to the store leave for those that do not: deletes in a
 * database write pages, too. */
size_t kvfs_overlay_reserve(const struct kvfs_overlay *o);
/* CLOSED: admit nothing until it is opened again, which is soon. */
void kvfs_overlay_gate(struct kvfs_overlay *o, bool closed);
void kvfs_overlay_wake(struct kvfs_overlay *o); /* room was made, or all is lost */

/* Move `cur`, if anything is in it, to the sealed ones; cut lock held, exclusive. */
int kvfs_overlay_seal_locked(struct kvfs_overlay *o);
int kvfs_overlay_seal(struct kvfs_overlay *o);
/* Is there nothing to seal?  Cut lock held, shared. */
bool kvfs_overlay_is_sealed(struct kvfs_overlay *o);
/* Append layer L (a transaction's) as the newest sealed one; likewise. */
void kvfs_overlay_push_locked(struct kvfs_overlay *o, struct kvfs_layer *l);

/* Look a block up in all layers, newest first; cut lock held, shared. */
enum kvfs_slot_state kvfs_overlay_get(const struct kvfs_overlay *o, uint64_t ino, uint64_t index,
                                      void *buf, size_t from, size_t len);

/* --- commit.c --------------------------------------------------------------- */

/* After kvfs_commit() has answered -EIO: 0 if all up to ID was in before; else, if the volume is
 * poisoned, what waits of transactions has failed: nobody may see it any longer.  -EIO. */
int kvfs_commit_give_up(struct kvfs_volume *v, uint64_t id, enum kvfs_durability durability,
                        struct kvfs_error *err);

/* Is every layer up to ID in, durably if DURABILITY is KVFS_DURABLE?  Threads: any. */
bool kvfs_commit_is_done(struct kvfs_overlay *o, uint64_t id, enum kvfs_durability durability);

/* kvfs_commit() with the commit lock held. */
int kvfs_commit_locked(struct kvfs_volume *v, uint64_t id, enum kvfs_durability durability,
                       struct kvfs_error *err);

/* Everything acknowledged so far. */
int kvfs_commit_all(struct kvfs_volume *v, enum kvfs_durability durability,
                    struct kvfs_error *err);

/* Make room: the sealed layers, or everything where none is sealed yet. */
int kvfs_commit_full(struct kvfs_volume *v, struct kvfs_error *err);

/* kvfs_commit_all() with the commit lock held. */
int kvfs_commit_all_locked(struct kvfs_volume *v, enum kvfs_durability durability,
                           struct kvfs_error *err);

/* Another process changed the contents record of the view's file (resize):
 * take over what it says; commit lock held. */
int kvfs_commit_adopt(struct kvfs_volume *v, struct kvfs_node *node, struct kvfs_error *err);

void kvfs_commit_scratch_free(struct kvfs_commit_scratch *s);

/* --- group.c ---------------------------------------------------------------- */

/* Bring every layer up to ID into the engine with DURABILITY at least.  0 also
 * when that is so already. */
int kvfs_commit(struct kvfs_volume *v, uint64_t id, enum kvfs_durability durability,
                struct kvfs_error *err);

#endif /* KVFS_OVERLAY_H */
