/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume.h - making, opening and looking at volumes.
 *
 * A volume is a folder that holds one store of one engine, a text file
 * `volume` (format, uuid, engine) and a file `lock`.  It keeps files, folders
 * and links; a file may be served as a disk or hold a database.
 *
 * The promise: after any crash a file holds exactly the state of one commit,
 * never older than the last acknowledged flush.
 */
#ifndef KVFS_VOLUME_H
#define KVFS_VOLUME_H

#include <kvfs/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVFS_BLOCK_SIZE_MIN 512u
#define KVFS_BLOCK_SIZE_MAX 65536u
#define KVFS_FILE_SIZE_MAX ((uint64_t)INT64_MAX) /* 8 EiB - 1 */
#define KVFS_NAME_MAX 255                        /* bytes; any but '/' and NUL */
#define KVFS_REQUEST_MAX (32u << 20)             /* bytes of one atomic write */

/* Defaults of struct kvfs_volume_options. */
#define KVFS_CACHE_BYTES_DEFAULT ((size_t)64 << 20)
#define KVFS_CACHE_BYTES_MIN ((size_t)1 << 20)
#define KVFS_COMMIT_INTERVAL_MS_DEFAULT 5000u

struct kvfs_volume; /* an open volume; usable from any thread */

struct kvfs_format_options {
    const char *engine;        /* name or path, as kvfs_engine_find(); NULL: a
                                * log before the first that is persistent */
    uint32_t block_size_bytes; /* of new files; power of two, KVFS_BLOCK_SIZE_*;
                                * 0: what the engine likes best */
    bool force;                /* replace a volume that is there (not one in use),
                                * and accept a network file system */
    uint64_t store_max_bytes;  /* as struct kvfs_engine_options */
};

/* Make a volume in folder PATH, which is created if missing (its parent must
 * exist).  All or nothing: after an error, or a crash, there is no volume and
 * nothing that was there before has changed.  Durable on return (every file,
 * the folder and its parent are synced).
 *
 * An engine without KVFS_CAP_PERSISTENT ("mem") is for tests: this process alone
 * can open the volume, and the folder that stays behind is none to any other.
 *
 * -EEXIST   a volume is there already (without `force`)
 * -ENOTEMPTY the folder holds other things
 * -EINVAL   block size, engine parameters
 * -ENOENT   unknown engine, also one that was given by path and cannot be found by
 *           its name (ERR says where to put the file), or no parent folder
 * -EBUSY    `force`, but the volume is in use; ERR says by whom
 * -ENOTSUP  a network file system (without `force`)
 * -EACCES, -EROFS, -ENOSPC, -EIO, -ENOTDIR as usual. */
int kvfs_format(const char *path, const struct kvfs_format_options *options,
                struct kvfs_error *err);

struct kvfs_volume_options {
    const char *engine;            /* must be the volume's; NULL: whatever it is */
    bool readonly;                 /* no write, no lease, no background work */
    bool force;                    /* accept a network file system */
    size_t cache_bytes;            /* bounds unwritten data, both generations and
                                    * the engine's copy of a batch together; one
                                    * request may exceed it; 0: the default */
    unsigned commit_interval_ms;   /* longest time until a write is committed;
                                    * 0: the default */
    size_t batch_bytes;            /* a commit starts when that much is unwritten;
                                    * 0: 1/64 of the stored data (1/256 while
                                    * it grows), 1..16 MiB; at most an eighth of
                                    * the cache */
    const char *engine_params;     /* passed to the engine; for tuning and tests */
    uint64_t store_max_bytes;      /* as struct kvfs_engine_options */
};

/* Open the volume in folder PATH; OPTIONS may be NULL.  Opening one volume
 * twice in a process gives the same handle (counted; the options of the first
 * hold, but asking to write what was opened readonly is -EBUSY).  A relative
 * PATH is resolved now.
 *
 * -ENOENT   no such folder, or no volume in it
 * -EINVAL   not a volume, another engine, a mismatch of `volume` and superblock
 * -ENOTSUP  a newer format or unknown feature; an engine that is not to be found; a
 *           network file system
 * -EBUSY    held by another process (single-process engines, or being compacted)
 * -EIO      damaged beyond opening
 * -EACCES, -EROFS, -ENOMEM as usual.
 * Time: independent of what the volume holds, also after a crash. */
int kvfs_volume_open(const char *path, const struct kvfs_volume_options *options,
                     struct kvfs_volume **volumep, struct kvfs_error *err);

/* Commit everything, durably, and close; the last of several opens does so.
 * The handle is gone whatever is returned: 0, or why the last commit failed. */
int kvfs_volume_close(struct kvfs_volume *v, struct kvfs_error *err);

/* Make all that was acknowledged so far, on every file, durable.
 * -EIO (the volume is poisoned), -ENOSPC (kept in memory, tried again later). */
int kvfs_volume_sync(struct kvfs_volume *v, struct kvfs_error *err);

/* Facts of a volume.  Strings live as long as the handle. */
struct kvfs_volume_info {
    const char *path; /* absolute */
    const char *engine;
    char uuid[37];
    uint32_t format_version;
    uint32_t block_size_bytes; /* default of new files */
    bool readonly;
    int poisoned; /* 0, or the negative errno that poisoned it */
    struct kvfs_engine_limits limits;
    uint32_t engine_caps;
    uint64_t open_ns;        /* how long the first open here took, recovery included, and */
    uint64_t open_engine_ns; /* of that the engine's own */
};
void kvfs_volume_info(struct kvfs_volume *v, struct kvfs_volume_info *info);

struct kvfs_volume_stat {
    struct kvfs_engine_stat engine;
    uint64_t inodes;           /* files, folders and links */
    size_t dirty_bytes;        /* acknowledged, not yet committed */
    size_t cache_bytes;        /* their bound */
    uint64_t commits;          /* since the volume was opened here */
    uint64_t commits_durable;
    uint64_t forks_deleting;   /* left to the background */
    uint64_t holes_pending;
};

/* Constant time but for the two last, which count at most 10,000. */
int kvfs_volume_stat(struct kvfs_volume *v, struct kvfs_volume_stat *stat, struct kvfs_error *err);

/* Who uses a volume: openers, leases and pinned snapshots of all processes. */
struct kvfs_holder {
    enum { KVFS_HOLDER_LEASE, KVFS_HOLDER_SNAPSHOT, KVFS_HOLDER_OPEN } kind;
    uint64_t ino;     /* of the leased file; else 0 */
    int64_t pid;
    char command[32];
    int64_t since_s;  /* seconds since 1970 */
};

/* Call FN for each holder.  Works on a path, so also without opening.
 * -ENOENT: no volume; else what FN returned if not 0. */
int kvfs_volume_holders(const char *path, int (*fn)(void *arg, const struct kvfs_holder *holder),
                        void *arg, struct kvfs_error *err);

enum {
    KVFS_COMPACT_DRY_RUN = 1u << 0, /* only tell NEED_BYTES; reads, as a readonly open does */
    KVFS_COMPACT_FORCE = 1u << 1,   /* accept a network file system */
};

/* Rewrite the volume's store in its smallest form.  NEED_BYTES, if not NULL,
 * is told the free space it takes before anything is done.  FLAGS:
 * KVFS_COMPACT_*.  -EBUSY: in use, ERR says by whom; -ENOSPC: less than NEED
 * free; -ENOTSUP: the engine cannot, or a network file system; -EINTR: PROGRESS
 * said so (nothing changed); else as kvfs_volume_open(). */
int kvfs_volume_compact(const char *path, unsigned flags, uint64_t *need_bytes,
                        kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err);

/* Put an intent log in front of the volume's engine, or take it away: then what it holds is
 * brought to the engine first, which may take seconds.  0 also where that is so already.
 * FORCE: accept a network file system.  Crash-safe: the volume is whole at every instant,
 * and has a log until this is done.
 *
 * -EBUSY    in use; ERR says by whom
 * -EINVAL   the engine can have none (mem, a name that gets too long)
 * else as kvfs_volume_open(). */
int kvfs_volume_log(const char *path, bool on, bool force, struct kvfs_error *err);

/* Run up to MAX_STEPS pieces of background work (deleted forks, holes) now, in
 * the caller's thread; 1: there is more, 0: none left, negative: as sync. */
int kvfs_volume_work(struct kvfs_volume *v, unsigned max_steps, struct kvfs_error *err);

#ifdef __cplusplus
}
#endif

#endif /* KVFS_VOLUME_H */
