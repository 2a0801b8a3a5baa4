/* SPDX-License-Identifier: BSD-3-Clause
 *
 * log_priv.h - an engine with an intent log in front of it.
 *
 * The store is a sum: what the engine below has, then `folding`, then `active`, each newer
 * than what is left of it.  A commit appends a record to the ring, flushes it and adds it to
 * `active`.  A fold makes `active` the `folding` view, brings that down to the engine below
 * together with the place in the ring that it covers, and drops it.
 *
 * Locking order, outermost first:
 *   queue_lock   waiting batches, who leads; never held over input or output
 *   fold_lock    what a fold wants and has done; never held over input or output
 *   writer       the ring's head, making a new `active`, and turning `active` into `folding`;
 *                held over one write and one flush
 *   lock         active, folding, folded_below: for instants, and while a snapshot
 *                of the engine below begins
 */
#ifndef KVFS_LOG_PRIV_H
#define KVFS_LOG_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#include "../fork.h"
#include "pace.h"
#include "ring.h"
#include "view.h"

#define LOG_FILE          "log"
#define LOG_LOCK_FILE     "log.lock"
#define LOG_RING_FIRST    ((uint64_t)4 << 20)  /* it begins with */
#define LOG_RING_BYTES    ((uint64_t)64 << 20) /* it may become */
#define LOG_ROOM_PART     16u                  /* but no more than that part of what is free */
#define LOG_ROOM_BYTES    ((uint64_t)8 << 20)  /* that the engine below keeps, or nothing is logged */
#define LOG_GROUP_BYTES   ((size_t)1 << 20) /* batches that go in one record, if more than one */
#define LOG_FOLD_PART     4u /* a fold begins when the ring is a 4th full */
#define LOG_PIECE_BYTES   ((size_t)128 << 10) /* of a fold, if not asked otherwise */
#define LOG_WAIT_MS       10000u /* an opener, likewise */
#define LOG_OWN_KEY       "\0log"
#define LOG_OWN_KEY_LEN   4u

/* What tests may break (parameter unsafe-log-bug). */
enum log_bug {
    LOG_SOUND,
    LOG_BUG_NO_FLUSH,    /* durable batches are not flushed */
    LOG_BUG_TAIL_EARLY,  /* the tail moves before the fold is applied */
    LOG_BUG_LOST_RANGE,  /* a fold forgets deleted ranges */
    LOG_BUG_STALE,       /* a snapshot leaves out what is being folded */
    LOG_BUG_NO_CHECK,    /* enum kvfs_ring_bug */
    LOG_BUG_OLD_LAP,
};

/* Where tests may have the process stop itself, to be killed there (parameter unsafe-log-stop). */
enum log_stop {
    LOG_STOP_NEVER,
    LOG_STOP_FOLD,    /* a piece of a fold is applied, the last is not */
    LOG_STOP_FOLDED,  /* the last piece is applied, the tail has not moved */
    LOG_STOP_YIELD,   /* another asked to write, what was logged is not folded */
    LOG_STOP_YIELDED, /* it is folded, the lock is still exclusive */
    LOG_STOP_GRANTED, /* the lock is shared, the other does not know */
    LOG_STOP_REPLAY,  /* others are kept from replaying, nothing was read */
    LOG_STOP_READ,    /* a reader has its snapshot below and has not read the ring */
};

/* Where the ring begins to matter: kept by the engine below, in META. */
struct log_place {
    uint8_t id[KVFS_RING_ID];
    uint64_t epoch;
    struct kvfs_ring_at tail;
};

struct log_counts {
    _Atomic uint64_t commits; /* durable batches and syncs answered */
    _Atomic uint64_t flushes; /* that they took, those of folds included */
};

enum log_commit_state { LOG_COMMIT_WAITS, LOG_COMMIT_LEADS, LOG_COMMIT_DONE };

struct log_commit { /* a batch that waits for its turn, on its caller's stack */
    const struct kvfs_batch *batch;
    enum kvfs_durability durability;
    size_t bytes; /* in the log */
    struct kvfs_error *err;
    int rc;
    atomic_uint state; /* enum log_commit_state; a futex */
    struct log_commit *next;
};

struct kvfs_db {
    const struct kvfs_engine *engine; /* below */
    struct kvfs_db *below;
    char *path;
    int folder; /* the same: what is done to the log's file is done here (ring.c, invariant 8) */
    unsigned generation; /* of the process; ../fork.h */
    unsigned wait_ms;    /* for the answer of a process that logs */
    enum log_bug bug;
    enum log_stop stop;
    size_t piece_bytes; /* of a fold: one batch of the engine below */
    struct kvfs_engine_limits limits;
    uint64_t ring_first, ring_max; /* bytes of the ring's file */
    struct log_pace pace;
    atomic_bool ring_short; /* batches had to wait for room, or folds follow each other fast */
    bool pace_fixed;        /* the limit was given, not measured */
    bool readonly;
    bool remove; /* fold, and then be no log any more */
    bool anew;   /* where the ring is lost, go on with an empty one */
    bool led;    /* somebody leads; under queue_lock */
    bool share_running;
    atomic_bool share_stop;
    atomic_bool logs; /* batches are logged; changed under writer */

    pthread_mutex_t queue_lock;
    struct log_commit *first, *last; /* waiting */
    uint64_t room_bytes, room_ns;    /* that the engine below has room for, when it said so */

    pthread_mutex_t writer;
    struct kvfs_ring *ring;
    struct kvfs_memsource source;

    pthread_mutex_t lock;
    struct log_view active, folding;
    struct kvfs_ring_at active_end; /* the ring's head when `active` was published */
    struct kvfs_db_snap *oldest, *newest; /* open snapshots of this process, in order */
    uint64_t commits;               /* batches since the store was opened */
    _Atomic uint64_t pending_bytes; /* that the engine below is still to take */
    _Atomic uint64_t memory_bytes;  /* that both views take */

    pthread_mutex_t fold_lock;
    pthread_cond_t fold_wake, fold_done;
    pthread_t fold_thread;
    uint64_t fold_wanted, fold_count, fold_finished; /* folds asked for, begun and done */
    unsigned fold_waited; /* callers that wait: it does not pause */
    unsigned fold_held; /* backups that need the engine below to stand still */
    int fold_error;     /* of the last fold */
    atomic_bool folding_kept; /* the engine below refused `folding` */
    struct log_place folding_place; /* the fold thread's, as the next */
    uint64_t folding_bytes;
    bool fold_running, fold_stop, fold_busy;

    struct log_place place;    /* under writer */
    bool step_owed;            /* it moves before the next record; likewise */
    struct log_place followed; /* readonly: what `active` begins at; under lock */
    atomic_int poisoned;    /* the errno of the failure, 0: sound */

    /* Other processes (share.c). */
    struct kvfs_fork_file *share_file; /* NULL: the engine below keeps others out */
    struct log_share *share; /* mapped */
    struct log_counts *counts; /* in it, or our own */
    struct log_counts own_counts;
    pthread_t share_thread;
};

struct kvfs_db_snap {
    struct kvfs_db *db;
    struct kvfs_db_snap *below;
    struct log_view views[2]; /* active, folding: newest first */
    struct kvfs_db_snap *older, *newer;
    uint64_t number; /* of the last commit in it */
};

/* --- below.c: keys of the engine below ------------------------------------------------- */

/* A META key, or bound, as it lies below: OUT or KEY itself; *len follows.  Keys that begin
 * with 00 get one more 00 in front; 00 and anything else is ours. */
const void *kvfs_log_key(enum kvfs_keyspace ks, const void *key, size_t *len,
                         uint8_t out[KVFS_META_KEY_MAX]);
/* Is it a key that begins with 00 and leaves no room for the byte in front, and for that of a
 * wrapper below?  There is none such. */
bool kvfs_log_key_refused(enum kvfs_keyspace ks, const void *key, size_t len);
/* Add the operation as it is for the engine below.  Its value must stay until the batch was
 * applied, its key need not.  -ENOMEM. */
int kvfs_log_below_add(struct kvfs_batch_builder *b, const struct kvfs_op *op);
bool kvfs_log_own(enum kvfs_keyspace ks, const uint8_t *key, size_t len);
int kvfs_log_place_read(struct kvfs_db *db, struct kvfs_db_snap *below, struct log_place *place,
                        struct kvfs_error *err);
/* The operation that keeps PLACE; VALUE is its memory. */
struct kvfs_op kvfs_log_place_op(const struct log_place *place, uint8_t value[48]);

/* --- fold.c ---------------------------------------------------------------------------- */

int kvfs_log_fold_start(struct kvfs_db *db, struct kvfs_error *err);
void kvfs_log_fold_stop(struct kvfs_db *db);
/* Ask for a fold; with WAIT, until one that began after the call is done. -ENOSPC and other
 * refusals of the engine below: everything is still in the log, a later fold may succeed. */
int kvfs_log_fold(struct kvfs_db *db, bool wait, struct kvfs_error *err);
/* As that, for the room that deletes make; not while folds are held. */
int kvfs_log_fold_room(struct kvfs_db *db);
/* Wait for the next fold that is done, whenever it began: there is more room then. */
int kvfs_log_fold_any(struct kvfs_db *db, struct kvfs_error *err);
/* Of kvfs_log_room(), what is taken: bytes of the ring, or of memory if those are more. */
uint64_t kvfs_log_used(const struct kvfs_db *db);
/* Bytes that may be unfolded now. */
uint64_t kvfs_log_room(struct kvfs_db *db);
/* The views changed; under lock. */
void kvfs_log_views_changed(struct kvfs_db *db);
/* Did the engine below change nothing, and may be asked again? */
bool kvfs_log_refused(int rc);
/* Keep folds off the engine below, which has all of one or nothing, until _release(). */
int kvfs_log_fold_hold(struct kvfs_db *db, struct kvfs_error *err);
void kvfs_log_fold_release(struct kvfs_db *db);

/* --- share.c --------------------------------------------------------------------------- */

int kvfs_log_share_open(struct kvfs_db *db, struct kvfs_error *err);
void kvfs_log_share_close(struct kvfs_db *db);
/* Become a writer, one that logs or one beside others.  Waits up to wait_ms for one
 * that logs.  -EBUSY: it does not answer; ERR names it. */
int kvfs_log_share_enter(struct kvfs_db *db, struct kvfs_error *err);
/* What the processes that logged here have counted, for one that only reads. */
void kvfs_log_share_counts(const struct kvfs_db *db, uint64_t *commits, uint64_t *flushes);
/* Keep others from replaying while this process looks for a log that was left, until _replayed().
 * -EBUSY, as above. */
int kvfs_log_share_replay(struct kvfs_db *db, struct kvfs_error *err);
void kvfs_log_share_replayed(struct kvfs_db *db);
/* Are the locks still those that other processes look at?  Else the store is poisoned, -EIO: to be
 * asked before each write. */
int kvfs_log_share_check(struct kvfs_db *db, struct kvfs_error *err);
int kvfs_log_share_start(struct kvfs_db *db, struct kvfs_error *err);
void kvfs_log_share_stop(struct kvfs_db *db);

/* --- follow.c -------------------------------------------------------------------------- */

/* In a process that only reads: begin a snapshot *belowp and make `active` what the ring
 * has beyond it.  Under lock. */
int kvfs_log_follow(struct kvfs_db *db, struct kvfs_db_snap **belowp, struct kvfs_error *err);

/* --- commit.c -------------------------------------------------------------------------- */

int kvfs_log_apply(struct kvfs_db *db, const struct kvfs_batch *batch,
                   enum kvfs_durability durability, struct kvfs_error *err);
int kvfs_log_sync(struct kvfs_db *db, struct kvfs_error *err);
int kvfs_log_poison(struct kvfs_db *db, int code);
int kvfs_log_usable(struct kvfs_db *db, struct kvfs_error *err);
void kvfs_log_stop_at(const struct kvfs_db *db, enum log_stop where);

/* --- read.c ---------------------------------------------------------------------------- */

int kvfs_log_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err);
void kvfs_log_end(struct kvfs_db_snap *snap);
int kvfs_log_get(struct kvfs_db_snap *snap, enum kvfs_keyspace ks, const void *key, size_t key_len,
                 size_t offset, const struct iovec *iov, int iov_count, size_t *value_len,
                 struct kvfs_error *err);
int kvfs_log_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace ks, const void *lo,
                         size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                         struct kvfs_db_cursor **cursorp, struct kvfs_error *err);
int kvfs_log_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                         size_t *value_len, struct kvfs_error *err);
int kvfs_log_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                          int iov_count, struct kvfs_error *err);
void kvfs_log_cursor_close(struct kvfs_db_cursor *c);

/* --- open.c ---------------------------------------------------------------------------- */

int kvfs_log_open(const struct kvfs_engine *below, const char *path,
                  const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                  struct kvfs_error *err);
void kvfs_log_close(struct kvfs_db *db);
/* Open the ring of db->place, or the unused one that follows it (then db->place follows too), and
 * make `active` what it holds.  After an error both are only fit to be dropped. */
int kvfs_log_ring_load(struct kvfs_db *db, struct kvfs_error *err);
/* Replace it by an empty one of BYTES.  Everything is folded; under writer.  -ENOSPC, -EDQUOT,
 * -ENOMEM: nothing was changed. */
int kvfs_log_ring_anew(struct kvfs_db *db, uint64_t bytes, struct kvfs_error *err);
/* Let the place follow something that went to the engine below past the log: who reads beside us
 * must not take what is logged from now on for all that came after an older snapshot.  Everything
 * is folded; under writer.  _step() writes it, durably, with all that is below: -ENOSPC, -ENOMEM:
 * nothing was changed; other errors: unknown.  _stepped() only notes that
 * kvfs_log_place_next() was written. */
struct log_place kvfs_log_place_next(const struct kvfs_db *db);
void kvfs_log_place_stepped(struct kvfs_db *db);
int kvfs_log_place_step(struct kvfs_db *db, struct kvfs_error *err);
/* Add to `active` what the ring holds from FROM on. */
int kvfs_log_ring_read(struct kvfs_db *db, const struct kvfs_ring_at *from, struct kvfs_error *err);

/* --- log.c ----------------------------------------------------------------------------- */

/* The engine called NAME ("log:ENGINE"). */
int kvfs_wrapper_log(const char *name, const struct kvfs_engine **enginep, struct kvfs_error *err);

#endif /* KVFS_LOG_PRIV_H */
