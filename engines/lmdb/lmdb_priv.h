/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lmdb_priv.h - what the files of the lmdb engine know of an open store.
 *
 * Locking order, outermost first:
 *   apply_lock   one write transaction, or one change of the map, at a time
 *   LMDB's writer mutex (shared with other processes)
 *   sync_lock    a flush, and what became of it
 *   pool_lock    snapshots: idle ones, the number of open ones, the gate that
 *                keeps new ones out
 * Nothing that waits for the medium happens under pool_lock.
 */
#ifndef KVFS_LMDB_PRIV_H
#define KVFS_LMDB_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <lmdb.h>

#include <kvfs/engine.h>

#include "../batch.h"
#include "../fork.h"
#include "guard.h"
#include "layout.h"
#include "page.h"

#define KVFS_LMDB_READERS_MAX     4096u
#define KVFS_LMDB_IDLE_MAX        64u /* reset snapshots kept for the next begin */
#define KVFS_LMDB_VALUE_MAX_BYTES (16u << 20)
#define KVFS_LMDB_BATCH_MAX_BYTES (256u << 20)
#define KVFS_LMDB_BATCH_MAX_OPS   (1u << 20)
#define KVFS_LMDB_COMPACT_NAME    "data.mdb.compact" /* copy.c */
#define KVFS_LMDB_KEY_BUF         512 /* LMDB's longest key is 511 */

struct kvfs_lmdb_params {
    bool unsafe_nosync; /* tests only: no batch is ever flushed */
    bool no_readahead;
};

struct kvfs_lmdb_path; /* path.c */

struct kvfs_lmdb_room { /* room.c */
    _Atomic uint64_t reserve_end_bytes; /* the file has blocks up to here */
    bool no_fallocate;                  /* the file system cannot reserve */
};

struct kvfs_db {
    /* Set at open, then constant. */
    char *folder;
    char *path; /* of data.mdb, for messages and for an fd of our own */
    bool readonly;
    bool unlocked; /* no lock file: a read-only medium */
    unsigned generation;
    unsigned readers_max;
    struct kvfs_lmdb_layout layout;
    struct kvfs_lmdb_params params;
    uint64_t limit_bytes; /* store_max_bytes; 0: none */

    /* Changed only behind the gate (gate.c), so used only by who holds a snapshot,
     * apply_lock or kvfs_lmdb_hold(). */
    MDB_env *env;
    MDB_dbi dbi[2];
    const uint8_t *map;
    size_t map_bytes;

    pthread_mutex_t apply_lock;
    pthread_mutex_t sync_lock;
    atomic_int poisoned; /* a fault inside a write transaction, a failed flush */
    bool wedged;         /* under apply_lock: LMDB's writer mutex is lost to a fault */
    struct kvfs_lmdb_room room; /* written under apply_lock */
    struct kvfs_lmdb_path *path_state; /* under apply_lock */
    unsigned applies;           /* under apply_lock: since readers were looked after */

    pthread_mutex_t pool_lock;
    pthread_cond_t pool_cond; /* a snapshot ended, or the gate opened */
    struct kvfs_db_snap *idle;
    unsigned idle_count;
    unsigned open_count;
    bool gate_closed; /* gate.c */
};

struct kvfs_db_snap {
    struct kvfs_db *db;
    struct kvfs_db_snap *next; /* idle list */
    MDB_txn *txn;
    MDB_cursor *seek; /* DATA; for get */
    size_t txnid;
    struct page_db trees[2]; /* by keyspace; for walks */
    bool seek_ready;  /* seek belongs to the present transaction */
    bool trees_ready; /* so do trees */
    bool broken;     /* LMDB gave the transaction up and it could not be renewed */
};

static inline MDB_val
lmdb_val(const void *data, size_t len)
{
    MDB_val v = {.mv_size = len};

    memcpy(&v.mv_data, &data, sizeof(data)); /* LMDB's type has no const */
    return v;
}

/* --- error.c: the one translator -------------------------------------------- */

/* Turn RC, a code of LMDB, an errno or KVFS_LMDB_FAULT, into a negative errno
 * with one line: path, what was done, what LMDB says. */
int kvfs_lmdb_error(struct kvfs_error *err, int rc, const char *path, const char *what);
/* The same text, but -EIO whatever RC is: the outcome is unknown. */
int kvfs_lmdb_error_io(struct kvfs_error *err, int rc, const char *path, const char *what);

/* --- env.c: guarded calls; 0 or a code for kvfs_lmdb_error() -------------------- */

int kvfs_lmdb_env_info(struct kvfs_db *db, MDB_envinfo *info);
int kvfs_lmdb_env_psize(struct kvfs_db *db, size_t *psize);
/* Clear the places of readers whose process has died. */
void kvfs_lmdb_reader_check(struct kvfs_db *db);
void kvfs_lmdb_reader_list(struct kvfs_db *db, MDB_msg_func *fn, void *arg);
int kvfs_lmdb_txn_reset(MDB_txn *txn);
int kvfs_lmdb_txn_abort(MDB_txn *txn);

/* --- map.c: the size of the map and where it lies ------------------------------ */

/* Largest map to try for a store of USED bytes. */
size_t kvfs_lmdb_map_choose(uint64_t used_bytes, uint64_t limit_bytes, size_t psize);
/* Find where LMDB has mapped the file.  0 or a code for kvfs_lmdb_error(). */
int kvfs_lmdb_map_locate(struct kvfs_db *db);
/* Another process has grown the store beyond our map: wait until no snapshot
 * is open (bounded) and map anew.  The caller holds neither lock. */
int kvfs_lmdb_map_grow(struct kvfs_db *db, struct kvfs_error *err);

/* --- gate.c: changing what every snapshot uses ------------------------------------ */

/* Wait until no snapshot and no hold is left, for a bounded time, and keep new
 * ones out until _open.  False: some are left, the gate is open again.  Under
 * apply_lock. */
bool kvfs_lmdb_gate_close(struct kvfs_db *db);
void kvfs_lmdb_gate_open(struct kvfs_db *db);
/* Keep the environment as it is without a snapshot. */
void kvfs_lmdb_hold(struct kvfs_db *db);
void kvfs_lmdb_unhold(struct kvfs_db *db);

/* --- meta.c: the meta pages, read with pread ------------------------------------ */

struct kvfs_lmdb_meta {
    size_t psize;
    struct page_meta page; /* the newest */
    uint64_t file_bytes;
};

/* Read and judge both meta pages and the file's length.  -ENOENT: no or an
 * empty file; -EINVAL: not an LMDB store; -EIO: damaged or truncated. */
int kvfs_lmdb_meta_read(int fd, const char *path, struct kvfs_lmdb_meta *meta,
                        struct kvfs_error *err);

/* Replace META's page by that of transaction TXNID, which a snapshot stands on.  It
 * need not be the newest: a process that was killed between writing the meta page
 * and telling the lock file leaves readers one transaction behind until the next
 * batch.  EAGAIN: it is gone, two batches have followed.  0 or an errno. */
int kvfs_lmdb_meta_of(int fd, uint64_t txnid, struct kvfs_lmdb_meta *meta);

/* --- read.c ----------------------------------------------------------------------- */

int kvfs_lmdb_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err);
/* The same for who holds apply_lock or the gate: follows no change of the map.
 * 0 or a code for kvfs_lmdb_error(). */
int kvfs_lmdb_begin_inside(struct kvfs_db *db, struct kvfs_db_snap **snapp);
void kvfs_lmdb_end(struct kvfs_db_snap *snap);
/* Free all idle snapshots, and so their places in the reader table. */
void kvfs_lmdb_pool_drain(struct kvfs_db *db);
int kvfs_lmdb_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
                  size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
                  size_t *value_len, struct kvfs_error *err);

/* Copy a record's bytes from OFFSET on into IOV; inside a guard. */
void kvfs_lmdb_value_copy(const struct kvfs_lmdb_value *v, size_t offset, const struct iovec *iov,
                          int iov_count);
/* Do the record's bytes lie where LMDB may have put them? */
bool kvfs_lmdb_value_sound(const struct kvfs_db *db, const struct kvfs_lmdb_value *v);
/* Judge and take apart what LMDB found for WANT: of DATA it is the first stored key that is
 * not below.  0, MDB_NOTFOUND or MDB_CORRUPTED. */
int kvfs_lmdb_value_found(const struct kvfs_db *db, enum kvfs_keyspace keyspace, const void *want,
                          const MDB_val *key, const MDB_val *data, struct kvfs_lmdb_value *v);
/* LMDB blocks a read transaction after some errors: renew it, if nothing was
 * committed meanwhile, so that other records of the snapshot stay readable. */
void kvfs_lmdb_snap_heal(struct kvfs_db_snap *snap);

/* --- walk.c: a cursor that judges what it reads ---------------------------------- */

struct kvfs_lmdb_walk {
    const struct kvfs_db *db;
    enum kvfs_keyspace keyspace;
    enum page_order order;
    struct page_db tree;
    uint64_t end; /* first page beyond the map */
    const uint8_t *judged[PAGE_DEPTH_MAX]; /* by level */
    const uint8_t *leaf;
    size_t at, keys; /* place in the leaf; its number of keys */
    struct page_bounds bounds; /* of the leaf */
    /* The record at the place: valid while the snapshot is open. */
    const uint8_t *key;
    size_t key_len;
    struct kvfs_lmdb_value value;
    uint64_t bad_pgno;
    const char *bad; /* what is wrong with it; NULL: not known */
};

/* The order of a keyspace's keys. */
static inline enum page_order
lmdb_order(enum kvfs_keyspace keyspace)
{
    return keyspace == KVFS_DATA ? PAGE_ORDER_DATA : PAGE_ORDER_BYTES;
}
/* Take the record of a leaf's node apart.  False: its key is not the one that was stored. */
bool kvfs_lmdb_walk_split(const struct kvfs_db *db, enum kvfs_keyspace keyspace,
                          const struct page_node *node, struct kvfs_lmdb_value *value);

/* All inside a guard.  0, MDB_NOTFOUND or another code for _walk_error(). */
int kvfs_lmdb_walk_init(struct kvfs_lmdb_walk *w, struct kvfs_db_snap *snap,
                        enum kvfs_keyspace keyspace);
/* Go to the first record that is not below KEY. */
int kvfs_lmdb_walk_seek(struct kvfs_lmdb_walk *w, const void *key, size_t len);
int kvfs_lmdb_walk_last(struct kvfs_lmdb_walk *w);
/* Also after _seek said MDB_NOTFOUND of a tree that is not empty. */
int kvfs_lmdb_walk_prev(struct kvfs_lmdb_walk *w);
int kvfs_lmdb_walk_next(struct kvfs_lmdb_walk *w);
/* MDB_NOTFOUND: the key is truly not there. */
int kvfs_lmdb_walk_prove_absent(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace,
                                const void *key, size_t len, struct kvfs_lmdb_walk *w);
int kvfs_lmdb_walk_error(const struct kvfs_lmdb_walk *w, int rc, const char *what,
                         struct kvfs_error *err);

/* --- scan.c ------------------------------------------------------------------------- */

int kvfs_lmdb_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                          size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                          struct kvfs_db_cursor **cursorp, struct kvfs_error *err);
int kvfs_lmdb_cursor_next(struct kvfs_db_cursor *cursor, const void **key, size_t *key_len,
                          size_t *value_len, struct kvfs_error *err);
int kvfs_lmdb_cursor_value(struct kvfs_db_cursor *cursor, size_t offset, const struct iovec *iov,
                           int iov_count, struct kvfs_error *err);
void kvfs_lmdb_cursor_close(struct kvfs_db_cursor *cursor);

/* --- order.c -------------------------------------------------------------------------- */

/* The sequence in which ops[first, end) are best applied: sorted by key, of
 * several for one key the last.  NULL *order: as they are.  The caller frees.
 * False: no memory. */
bool kvfs_lmdb_order(const struct kvfs_op *ops, size_t first, size_t end, uint32_t **order,
                     size_t *count);

/* --- apply.c -------------------------------------------------------------------------- */

int kvfs_lmdb_apply(struct kvfs_db *db, const struct kvfs_batch *batch,
                    enum kvfs_durability durability, struct kvfs_error *err);
int kvfs_lmdb_sync(struct kvfs_db *db, struct kvfs_error *err);

/* --- room.c: who may grow the store ------------------------------------------------------ */

struct kvfs_lmdb_usage { /* of one transaction, in pages */
    uint64_t meta_records, data_records;
    uint64_t used_pages;  /* trees and meta pages */
    uint64_t high_pages;  /* pages of the file ever used */
    uint64_t leaf_pages[2], branch_pages[2]; /* by keyspace */
};
int kvfs_lmdb_usage(struct kvfs_db *db, MDB_txn *txn, struct kvfs_lmdb_usage *u);

struct kvfs_lmdb_need { /* of one batch */
    uint64_t puts[2]; /* by keyspace */
    uint64_t dels;
    uint64_t touched[2];
    uint64_t leaf_bytes;
    uint64_t overflow_pages;
    uint64_t pages; /* new pages it may take, all in all */
    bool runs;      /* some of them in a row */
};
void kvfs_lmdb_need(const struct kvfs_db *db, const struct kvfs_batch *batch,
                    const struct kvfs_lmdb_usage *u, struct kvfs_lmdb_need *need);

enum kvfs_lmdb_room_answer {
    KVFS_LMDB_ROOM_OK,
    KVFS_LMDB_ROOM_TURN, /* after one more transaction */
    KVFS_LMDB_ROOM_HELD, /* when snapshots that are open have ended */
    KVFS_LMDB_ROOM_FULL, /* ERR is set */
};

struct kvfs_lmdb_patience { /* what a batch that lacks room may still try */
    bool turns, waits;
};

/* Is there room for a batch that takes NEED?  Under apply_lock, inside a write
 * transaction. */
enum kvfs_lmdb_room_answer kvfs_lmdb_room_check(struct kvfs_db *db,
                                                const struct kvfs_lmdb_need *need,
                                                const struct kvfs_lmdb_usage *u,
                                                struct kvfs_lmdb_patience patience,
                                                struct kvfs_error *err);
/* Bring the reserve behind the used pages up to its size.  Under apply_lock. */
void kvfs_lmdb_room_reserve(struct kvfs_db *db);
/* After a failed write: is the file system full? */
bool kvfs_lmdb_room_exhausted(struct kvfs_db *db);
/* Bytes that batches may still add to the state of SNAP. */
uint64_t kvfs_lmdb_room_avail(struct kvfs_db *db, struct kvfs_db_snap *snap,
                              const struct kvfs_lmdb_usage *u);

struct kvfs_lmdb_readers {
    uint64_t count;
    uint64_t oldest_txnid; /* 0: none */
    uint32_t oldest_pid;
    bool foreign; /* some belong to another process */
    long own_pid;
    uint64_t skip_txnid; /* leave one of ours out; 0: none */
};
/* MINE, a snapshot of ours, is left out; NULL: none. */
void kvfs_lmdb_readers(struct kvfs_db *db, const struct kvfs_db_snap *mine,
                       struct kvfs_lmdb_readers *r);

/* --- verify.c, copy.c -------------------------------------------------------------------- */

int kvfs_lmdb_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg,
                     kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err);
int kvfs_lmdb_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                                 struct kvfs_error *err);
int kvfs_lmdb_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
                      void *progress_arg, struct kvfs_error *err);
int kvfs_lmdb_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress,
                     void *progress_arg, struct kvfs_error *err);

/* --- path.c ------------------------------------------------------------------------------------ */

struct kvfs_lmdb_path *kvfs_lmdb_path_new(void);
/* The records of the keyspaces' trees, as the transaction finds them. */
int kvfs_lmdb_trees(MDB_txn *txn, struct page_db tree[2]);
/* Judge the pages that BATCH will change: 0 or MDB_CORRUPTED, ERR names the
 * page; or another code.  Inside a guard, a write transaction that has changed
 * nothing yet, and apply_lock. */
int kvfs_lmdb_path_check(struct kvfs_db *db, MDB_txn *txn, const struct kvfs_batch *batch,
                         const struct kvfs_lmdb_need *need, struct kvfs_error *err);

/* --- open.c ------------------------------------------------------------------------------------ */

/* The databases' names, by keyspace. */
extern const char *const kvfs_lmdb_names[2];

int kvfs_lmdb_open(const struct kvfs_engine *self, const char *path,
                   const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                   struct kvfs_error *err);
void kvfs_lmdb_close(struct kvfs_db *db);

/* LMDB uses an environment no more, not even for reading, after it could not write
 * a meta page (MDB_PANIC): open it anew, for reading only.  Waits for snapshots
 * to end. */
int kvfs_lmdb_reopen(struct kvfs_db *db, struct kvfs_error *err);

#endif /* KVFS_LMDB_PRIV_H */
