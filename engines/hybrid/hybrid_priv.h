/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hybrid_priv.h - two engines as one: META in one, DATA in the other.
 *
 * Locking order, outermost first:
 *   apply_lock   one batch at a time; the fields marked so
 *   gate         shared: beginning a snapshot of both sides; exclusive: from the first
 *                half of a batch to the second
 */
#ifndef KVFS_HYBRID_PRIV_H
#define KVFS_HYBRID_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#include "../batch.h"
#include "../fork.h"

#define HYBRID_NAME_MAX  63u /* bytes: what a volume remembers */
#define HYBRID_OWN_KEY   0x00
#define HYBRID_OWN_FIRST 0x01 /* 00 00 ... is the level above's, 00 01 ... ours */

#define HYBRID_INTENT_KEY   ((size_t)10)
#define HYBRID_INTENT_BYTES ((size_t)15 * 4096 - 64) /* of operations in a record: whole pages */

enum { HYBRID_META = KVFS_META, HYBRID_DATA = KVFS_DATA, HYBRID_SIDES };

/* What tests may break (parameter unsafe-bug). */
enum hybrid_bug {
    HYBRID_SOUND,
    HYBRID_NO_INTENT,      /* DATA operations are not written down in META */
    HYBRID_DATA_FIRST,     /* DATA's half goes before META's */
    HYBRID_FORGET_EARLY,   /* intents go before DATA is durable */
    HYBRID_META_UNSYNCED,  /* DATA changes before META is durable */
    HYBRID_DATA_UNSYNCED,  /* META changes before DATA is durable */
    HYBRID_NO_GATE,        /* snapshots may begin between the halves */
};

/* A pair of engines; one for each name, for as long as the process lives. */
struct kvfs_hybrid_pair {
    struct kvfs_engine engine;                    /* first: what its functions are told as SELF */
    const struct kvfs_engine *side[HYBRID_SIDES]; /* NULL: as the store says */
    char name[HYBRID_NAME_MAX + 1];
    char version[128];
};

struct kvfs_db {
    const struct kvfs_hybrid_pair *pair;
    char *folder;
    bool readonly;
    enum hybrid_bug bug;
    bool pause;             /* tests only: a moment between the halves of a batch */
    uint64_t intents_bytes; /* of intents that are needed, before DATA is synced */
    unsigned generation; /* of the process; ../fork.h */
    int holder_fd;       /* ../holder.h */
    char *params[HYBRID_SIDES]; /* of the two engines */
    uint64_t max_bytes[HYBRID_SIDES];
    struct kvfs_db *side[HYBRID_SIDES];
    struct kvfs_engine_limits limits;

    pthread_rwlock_t gate;
    atomic_int poisoned; /* writes no more */
    atomic_int torn;     /* META has a batch that DATA has not: shows no more */

    pthread_mutex_t apply_lock;
    bool meta_dirty;        /* META has batches that may not be durable */
    bool data_plain;        /* DATA has such, and without an intent */
    unsigned backups;       /* that run: intents stay */
    uint64_t needed;        /* intents below it may go: DATA has them for sure */
    uint64_t pending_bytes; /* in the others */
    /* Intents in META have the numbers [first, next); changed under apply_lock. */
    atomic_uint_fast64_t first, next;
    atomic_ulong ended; /* batches of one side only, so far */
};

struct kvfs_db_snap {
    struct kvfs_db *db;
    struct kvfs_db_snap *side[HYBRID_SIDES];
};

/* --- pair.c ------------------------------------------------------------------------ */

/* The pair called NAME ("hybrid:META+DATA"). */
int kvfs_hybrid_pair_find(const char *name, const struct kvfs_hybrid_pair **pairp,
                          struct kvfs_error *err);
/* Fill in what all pairs share (hybrid.c). */
void kvfs_hybrid_engine_init(struct kvfs_engine *engine);

/* --- open.c ------------------------------------------------------------------------ */

int kvfs_hybrid_open(const struct kvfs_hybrid_pair *pair, const char *path,
                     const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                     struct kvfs_error *err);
void kvfs_hybrid_close(struct kvfs_db *db);
/* The folder of one side; malloc'd, NULL without memory. */
char *kvfs_hybrid_folder(const char *path, int side);
/* The pair of the store in folder PATH.  -ENOENT: none there. */
int kvfs_hybrid_file_read(const char *path, const struct kvfs_hybrid_pair **pairp,
                          struct kvfs_error *err);
/* Make the folder a store of PAIR, durably. */
int kvfs_hybrid_file_write(const char *path, const struct kvfs_hybrid_pair *pair,
                           struct kvfs_error *err);

/* --- intent.c: DATA operations kept in META until DATA has them for sure -------------- */

/* An operation that changes DATA. */
bool kvfs_hybrid_changes(const struct kvfs_op *op, int side);
/* How many records a batch's DATA operations fill, and their bytes. */
size_t kvfs_hybrid_intent_size(const struct kvfs_batch *batch, size_t *bytes);
/* Add as many puts to OPS, with numbers from NUMBER on; BYTES and KEYS have room for
 * what _size() told and for HYBRID_INTENT_KEY bytes a record. */
void kvfs_hybrid_intent_put(const struct kvfs_batch *batch, uint64_t number, uint8_t *bytes,
                            uint8_t *keys, struct kvfs_op *ops);
/* The range of the records [first, end), as an operation; KEYS has room for two. */
struct kvfs_op kvfs_hybrid_intent_del(uint64_t first, uint64_t end, uint8_t *keys);
/* The record in DATA's own META keyspace that says which intents DATA has. */
struct kvfs_op kvfs_hybrid_intent_done(uint64_t number, uint8_t value[8]);
/* Find what there is: first, next; *missing: DATA lacks some of it. */
int kvfs_hybrid_intent_find(struct kvfs_db *db, bool *missing, struct kvfs_error *err);
/* Apply what DATA lacks, sync it and forget the records. */
int kvfs_hybrid_intent_replay(struct kvfs_db *db, struct kvfs_error *err);
/* Judge the records: 0, -EIO with a line in ERR. */
int kvfs_hybrid_intent_verify(struct kvfs_db *db, struct kvfs_error *err);

/* --- apply.c, undo.c ------------------------------------------------------------------ */

int kvfs_hybrid_apply(struct kvfs_db *db, const struct kvfs_batch *batch,
                      enum kvfs_durability durability, struct kvfs_error *err);
int kvfs_hybrid_sync(struct kvfs_db *db, struct kvfs_error *err);
/* Sync META.  Under apply_lock. */
int kvfs_hybrid_meta_sync(struct kvfs_db *db, struct kvfs_error *err);
/* Sync DATA: what it has is durable, so no intent is needed.  Under apply_lock. */
int kvfs_hybrid_data_sync(struct kvfs_db *db, struct kvfs_error *err);
/* Delete the intents that are not needed, durably.  Under apply_lock. */
int kvfs_hybrid_forget(struct kvfs_db *db, struct kvfs_error *err);
/* Did an apply leave everything as it was? */
bool kvfs_hybrid_clean(int rc);
/* -EIO, with a line, where an earlier batch failed. */
int kvfs_hybrid_usable(struct kvfs_db *db, struct kvfs_error *err);

/* A batch that puts META back to what it is, after OPS will have changed it. */
int kvfs_hybrid_undo(struct kvfs_db *db, const struct kvfs_op *ops, size_t ops_count,
                     struct kvfs_batch_builder **builderp, struct kvfs_error *err);

/* --- read.c --------------------------------------------------------------------------- */

int kvfs_hybrid_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err);
void kvfs_hybrid_end(struct kvfs_db_snap *snap);
int kvfs_hybrid_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
                    size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
                    size_t *value_len, struct kvfs_error *err);
int kvfs_hybrid_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                            size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                            struct kvfs_db_cursor **cursorp, struct kvfs_error *err);
int kvfs_hybrid_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                            size_t *value_len, struct kvfs_error *err);
int kvfs_hybrid_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                             int iov_count, struct kvfs_error *err);
void kvfs_hybrid_cursor_close(struct kvfs_db_cursor *c);

/* A META key or bound of the level above as it lies in our META: OUT, or KEY itself.
 * A key that would be too long has *len 0; a bound becomes the next shorter one. */
const void *kvfs_hybrid_key(const void *key, size_t *len, bool bound,
                            uint8_t out[KVFS_META_KEY_MAX]);

/* --- copy.c --------------------------------------------------------------------------- */

int kvfs_hybrid_compact_need_bytes(const struct kvfs_hybrid_pair *pair, const char *path,
                                   uint64_t *bytes, struct kvfs_error *err);
int kvfs_hybrid_compact(const struct kvfs_hybrid_pair *pair, const char *path,
                        kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err);
int kvfs_hybrid_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress,
                       void *progress_arg, struct kvfs_error *err);

/* Progress of two sides, one after the other, as one of a whole. */
struct kvfs_hybrid_progress {
    kvfs_progress_fn *fn;
    void *arg;
    unsigned side; /* at present */
};
int kvfs_hybrid_progress(void *arg, uint64_t done, uint64_t total);

#endif /* KVFS_HYBRID_PRIV_H */
