/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine.h - what a storage engine gives to kvfs.
 *
 * An engine keeps two ordered keyspaces, META and DATA, of byte keys and byte
 * values.  It offers consistent snapshots to any number of readers and one
 * write call, `apply`, which makes one batch of operations visible at once.
 * There is deliberately nothing else: reading one's own writes is kvfs's own
 * overlay, so write batches, compare-and-swap and single-writer B+trees fit.
 *
 * Rules that hold for every function below:
 *
 * - Errors are negative errno values; the line of context goes into ERR, which
 *   may be NULL.  Out-parameters are set only on success.
 * - Keys compare as unsigned bytes, a prefix before its extensions (memcmp).
 * - The bounds of ranges and scans need not be keys: any length up to the
 *   keyspace's longest key will do, and 0 for no bound.  A range whose end is
 *   not behind its start is empty.
 * - SELF is the engine that the function was found in, itself and not a copy: engines
 *   made of others have one set of functions for many names.
 * - Nothing that belongs to the engine (a memory map, a cache page) is ever
 *   handed out: `get` and `cursor_value` copy into the caller's buffers.  So
 *   damage to a mapped file is met inside the engine, which must turn SIGBUS,
 *   SIGSEGV, failed assertions and endless walks into -EIO for that call.
 * - -EIO, or any error not named at a function, out of `apply` or `sync` means
 *   that the outcome is unknown; kvfs then writes no more through this handle.
 * - META keys that begin with byte 0x00 belong to wrapper engines (each level
 *   prefixes one byte more); a wrapper hides them from the level above.
 * - Threads: `open`, `close` and `compact` once per handle; all else from any
 *   thread at any time.  One snapshot and its cursors are used by one thread
 *   at a time, but may move between threads.
 *
 * Sources: lmdb.h; sqlite.org/wal.html; the RocksDB wiki, "Basic Operations".
 */
#ifndef KVFS_ENGINE_H
#define KVFS_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <kvfs/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this interface.  An engine in a file, a shared object, exports
 * `const struct kvfs_engine kvfs_engine_plugin`; kvfs_engine_find() refuses
 * another version and names both.  It finds no symbol of the program that loads
 * it: kvfs_error_set() is its own copy, out of libkvfs.a
 * (`pkg-config --cflags --libs kvfs`). */
#define KVFS_ENGINE_ABI 3

#define KVFS_META_KEY_MAX 320 /* bytes; at least 1 */
#define KVFS_DATA_KEY_LEN 16  /* bytes; exactly */

enum kvfs_keyspace {
    KVFS_META = 0,
    KVFS_DATA = 1,
};

/* What a batch survives once `apply` has returned.  A weaker batch never
 * endangers an earlier stronger one. */
enum kvfs_durability {
    KVFS_NONE = 0,    /* the death of the process */
    KVFS_ORDERED = 1, /* a power cut leaves some prefix of the batches */
    KVFS_DURABLE = 2, /* a power cut leaves this batch and all before it */
};

/* What an engine guarantees (not what it hopes).  A durability that is not
 * among the caps is served as the next stronger one that is, or, where there
 * is none, as well as the engine can. */
enum kvfs_cap {
    KVFS_CAP_PERSISTENT = 1u << 0,   /* a store outlives its handle */
    KVFS_CAP_ORDERED = 1u << 1,      /* keeps KVFS_ORDERED over a power cut */
    KVFS_CAP_DURABLE = 1u << 2,      /* keeps KVFS_DURABLE over a power cut */
    KVFS_CAP_MULTIPROCESS = 1u << 3, /* several processes may open one store */
    KVFS_CAP_FORK = 1u << 4,         /* a handle may be used after fork() */
    KVFS_CAP_COUNTS = 1u << 5,       /* stat counts records exactly, else it estimates */
};

struct kvfs_db;        /* one open store; defined by each engine */
struct kvfs_db_snap;   /* one snapshot of it */
struct kvfs_db_cursor; /* one scan over a snapshot */

struct kvfs_engine_options {
    bool create;             /* make a store where there is none yet */
    bool readonly;           /* write nothing, not even a lock where avoidable */
    uint64_t store_max_bytes; /* largest size of the store; 0: what the medium holds */
    const char *params;      /* "name=value,..." for the engine; NULL or "" : none.
                              * An unknown name is -EINVAL.  Unsafe modes are
                              * spelled "unsafe-..." and exist for tests only. */
};

struct kvfs_engine_limits {
    uint32_t value_max_bytes;   /* largest value */
    uint32_t value_best_bytes;  /* kvfs's default block size: the payload whose
                                 * record (payload + 24 bytes) packs best */
    uint64_t batch_max_bytes;   /* keys and values of one batch together */
    uint64_t batch_max_ops;
    uint32_t snapshots_max;     /* at once, all processes together */
    bool batch_halves_best;     /* a batch that changes both keyspaces costs more than two
                                 * that change one each */
};

/* O(1) to obtain: read at every commit. */
struct kvfs_engine_stat {
    uint64_t meta_records;  /* an estimate without KVFS_CAP_COUNTS */
    uint64_t data_records;
    uint64_t store_bytes;   /* size of the engine's files */
    uint64_t used_bytes;    /* in pages that hold records or index */
    uint64_t free_bytes;    /* inside the store, reusable by later batches */
    uint64_t avail_bytes;   /* what batches may still add before -ENOSPC: free
                             * inside plus what the file system or the set
                             * limit still lets the store grow */
    uint64_t commits;       /* batches since the store was made, 0: unknown */
    uint64_t readers;       /* open snapshots, all processes, 0: unknown */
    uint64_t readers_lag;   /* commits that the oldest of them is behind */
    uint32_t readers_pid;   /* process that holds that one; 0: none or unknown */
    /* Of an intent log in front of the engine; 0: there is none. */
    uint64_t log_bytes;     /* that it has room for */
    uint64_t log_used_bytes; /* not yet in the engine behind it */
    uint64_t log_commits;   /* durable batches and syncs answered since the log was made, */
    uint64_t log_flushes;   /* and the flushes, of log and engine, that this took */
};

enum kvfs_op_type {
    KVFS_OP_PUT,       /* key := value */
    KVFS_OP_DEL,       /* remove key; a missing one is fine */
    KVFS_OP_DEL_RANGE, /* remove all keys in [key, key_end) of the keyspace;
                        * key_len 0: from its start, key_end_len 0: to its end */
    KVFS_OP_EXPECT,    /* key must hold exactly value; */
    KVFS_OP_EXPECT_ABSENT, /* ... must not exist; else the batch is -EAGAIN */
};

/* One operation.  Everything pointed to is borrowed until `apply` returns.  A
 * value may come in two pieces, so that a block and its trailer need not be
 * copied together first. */
struct kvfs_op {
    uint8_t type;     /* enum kvfs_op_type */
    uint8_t keyspace; /* enum kvfs_keyspace */
    uint16_t key_len;
    uint16_t key_end_len; /* DEL_RANGE only */
    const void *key;
    const void *key_end;
    struct iovec value[2]; /* PUT and EXPECT; an unused piece has length 0 */
};

/* Operations act in the order added.  All expectations are judged first,
 * against the state before the batch. */
struct kvfs_batch {
    const struct kvfs_op *ops;
    size_t ops_count;
};

enum {
    KVFS_SCAN_REVERSE = 1u << 0,   /* from the end of the range to its start */
    KVFS_SCAN_KEYS_ONLY = 1u << 1, /* cursor_value will not be called */
};

/* A finding of `verify`.  WHAT is one line; WHERE names page, key or file. */
typedef void kvfs_finding_fn(void *arg, const char *where, const char *what);

/* Called now and then by long work; a non-zero return interrupts it, which
 * then answers -EINTR.  TOTAL may be an estimate, 0 when unknown. */
typedef int kvfs_progress_fn(void *arg, uint64_t done, uint64_t total);

struct kvfs_engine {
    uint32_t abi;            /* KVFS_ENGINE_ABI; first for all time */
    uint32_t caps;           /* enum kvfs_cap, or-ed */
    const char *name;        /* [a-z0-9]+; a wrapper's tells what it stands on behind a
                              * colon, as hybrid:lmdb+rocksdb */
    const char *description; /* one line */
    const char *(*version)(const struct kvfs_engine *self); /* of the library underneath;
                                                             * static storage */

    /* Open the store in folder PATH, which exists.
     *
     * -ENOENT   no store there and `create` is not set
     * -EINVAL   not a store of this engine, unknown params
     * -EIO      damaged beyond opening (only what every use needs is read, so
     *           that opening takes the same time whatever the store holds)
     * -EBUSY    held by another process (single-process engines); ERR names it
     * -EACCES, -EROFS, -ENOSPC, -ENOMEM as usual
     * Durability: a store made by `create` is on stable storage on return.
     * A store is opened at most once per process at a time (kvfs sees to it). */
    int (*open)(const struct kvfs_engine *self, const char *path,
                const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                struct kvfs_error *err);

    /* Close.  All snapshots have ended.  Applied batches survive. */
    void (*close)(struct kvfs_db *db);

    void (*limits)(struct kvfs_db *db, struct kvfs_engine_limits *limits);

    /* Fill STAT in constant time; -EIO. */
    int (*stat)(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err);

    /* Begin a snapshot of the state after the last applied batch (of every
     * process).  It never changes under its reader.
     * -EBUSY: all places for readers are taken (waited for a while already);
     * -ENOMEM, -EIO. */
    int (*begin)(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err);
    void (*end)(struct kvfs_db_snap *snap);

    /* Copy the value of a key, from byte OFFSET on, into IOV, as far as both
     * reach.  *value_len, if not NULL, becomes the whole value's length.
     * -ENOENT: no such key.  -ESTALE: the engine could keep this snapshot no
     * longer.  -EIO: damage. */
    int (*get)(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
               size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
               size_t *value_len, struct kvfs_error *err);

    /* Open a scan over [lo, hi); hi_len 0: to the end of the keyspace, lo_len
     * 0: from its start.  LO and HI are copied.  FLAGS: KVFS_SCAN_*.  The
     * cursor is closed before its snapshot ends. */
    int (*cursor_open)(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                       size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                       struct kvfs_db_cursor **cursorp, struct kvfs_error *err);

    /* Step to the first or next record.  1: *key (the cursor's own copy, valid
     * until the next call), *key_len and, unless KEYS_ONLY, *value_len are set;
     * 0: the end; negative as `get`.  KEY_LEN and VALUE_LEN may not be NULL. */
    int (*cursor_next)(struct kvfs_db_cursor *cursor, const void **key, size_t *key_len,
                       size_t *value_len, struct kvfs_error *err);

    /* Copy the present record's value from OFFSET on into IOV, as `get`. */
    int (*cursor_value)(struct kvfs_db_cursor *cursor, size_t offset, const struct iovec *iov,
                        int iov_count, struct kvfs_error *err);
    void (*cursor_close)(struct kvfs_db_cursor *cursor);

    /* Apply one batch, whole or not at all; readers see it whole or not at all.
     * On return it is visible to every later `begin`, with at least DURABILITY.
     *
     * Nothing is changed and the handle stays good after:
     * -EAGAIN   an expectation failed
     * -E2BIG    beyond the limits
     * -ENOSPC   no room.  Batches that only delete (and put few META records)
     *           still have room: the engine keeps headroom for them.  What they
     *           free, snapshots apart, is room for the very next batch
     * -ENOMEM, -EROFS (opened readonly), -EINVAL (a bad key or keyspace)
     * Anything else: the outcome is unknown. */
    int (*apply)(struct kvfs_db *db, const struct kvfs_batch *batch,
                 enum kvfs_durability durability, struct kvfs_error *err);

    /* Make every batch applied so far durable; errors mean unknown outcome. */
    int (*sync)(struct kvfs_db *db, struct kvfs_error *err);

    /* Check the store's own structure, from the medium and not from a cache,
     * and report every damage to FINDING.  0: walked (findings or not); a
     * negative errno only when it could not be done at all. */
    int (*verify)(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg,
                  kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err);

    /* Rewrite the closed store in folder PATH in its smallest form, crash-safe:
     * at every instant the folder holds the old or the new store.  The caller
     * holds it alone.  compact_need_bytes tells the free space that it takes: it
     * only reads, from a store that others may have open where many may.
     * Both NULL where the engine has no such thing. */
    int (*compact_need_bytes)(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                              struct kvfs_error *err);
    int (*compact)(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
                   void *progress_arg, struct kvfs_error *err);

    /* Write a consistent copy of the store, while it is used, into the empty
     * folder PATH; durable on return.  NULL where the engine has no such thing. */
    int (*backup)(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress,
                  void *progress_arg, struct kvfs_error *err);
};

/* Find an engine by name ("lmdb", "hybrid:lmdb+rocksdb") or by path ("/opt/libkvfs-engine-x.so",
 * anything with a slash; it stays loaded).  Static storage.
 *
 * A name that is not built in is looked for in the file libkvfs-engine-NAME.so of
 * one folder: what the environment variable KVFS_ENGINE_DIR says (absolute; not
 * heeded in a set-user-ID program), else `kvfs` below the library folder that
 * libkvfs was configured for (/usr/local/lib/kvfs).  That engine's own name must
 * be NAME.  A volume remembers the name only, so kvfs_format() refuses
 * an engine that cannot be found by its name.
 *
 * hybrid:META+DATA is any two engines, by their plain names, as one: META in the one,
 * DATA in the other.  `hybrid` alone opens a store of any pair and makes none.
 *
 * -ENOENT: not built in, no such file; ERR lists what there is, and names the file.
 * -EINVAL: not an engine, of another KVFS_ENGINE_ABI (both are named), or of
 *          another name; KVFS_ENGINE_DIR is not absolute.
 * Threads: any. */
int kvfs_engine_find(const char *name, const struct kvfs_engine **enginep, struct kvfs_error *err);

/* The built-in engines in order of preference: index 0, 1, ...; NULL past the
 * last.  Threads: any. */
const struct kvfs_engine *kvfs_engine_at(size_t index);

#ifdef __cplusplus
}
#endif

#endif /* KVFS_ENGINE_H */
