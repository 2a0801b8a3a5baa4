/* SPDX-License-Identifier: BSD-3-Clause
 *
 * log.c - engines called log:ENGINE, a durable commit for one write and one flush.
 *
 *   ring.c    the log's file: records, and where they end after a crash
 *   codec.c   operations as bytes of a record
 *   view.c    logged batches in memory, sorted
 *   commit.c  batches become records, many at a time
 *   fold.c    what was logged goes down to the engine below
 *   pace.c    how fast both of them may go
 *   read.c    snapshots, gets, scans of the sum
 *   share.c   several processes: who may log
 *   follow.c  reading beside a process that logs
 *   below.c   what the log keeps in the engine below
 *   open.c    opening, replay, closing
 *
 * Here: names, limits, stat, verify, compact, backup.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log_priv.h"

#define LOG_PREFIX   "log:"
#define LOG_NAME_MAX 63u /* bytes: what a volume remembers */

/* --- the store as it is told --------------------------------------------------------------- */

static void
log_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    *limits = db->limits;
    limits->batch_halves_best = false; /* they are one record */
}

/* What the engine below says, and in *pending what the log will bring it.  Where it runs short
 * of room that is done at once: a delete in the log frees nothing, and who trims a full store
 * may write again. */
static int
log_stat_below(struct kvfs_db *db, struct kvfs_engine_stat *stat, uint64_t *pending,
               struct kvfs_error *err)
{
    int rc = db->engine->stat(db->below, stat, err);

    *pending = atomic_load(&db->pending_bytes);
    if (rc != 0 || *pending == 0 || db->readonly || atomic_load(&db->poisoned) != 0 ||
        stat->avail_bytes >= 2 * *pending + LOG_ROOM_BYTES)
        return rc;
    (void)kvfs_log_fold_room(db); /* refused: it counts as used */
    rc = db->engine->stat(db->below, stat, err);
    *pending = atomic_load(&db->pending_bytes);
    return rc;
}

static int
log_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    uint64_t pending;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc == 0)
        rc = log_stat_below(db, stat, &pending, err);
    if (rc != 0)
        return rc;
    stat->used_bytes += pending;
    stat->avail_bytes -= stat->avail_bytes < 2 * pending ? stat->avail_bytes : 2 * pending;
    stat->commits = 0; /* of the engine below they are folds, */
    (void)pthread_mutex_lock(&db->lock); /* behind which its readers lag */
    if (db->ring != NULL) { /* it changes in a process that reads only */
        stat->meta_records -= stat->meta_records > 0; /* the place of the log */
        stat->log_bytes = kvfs_ring_bytes(db->ring);
        stat->log_used_bytes = kvfs_ring_used(db->ring);
        stat->store_bytes += stat->log_bytes + KVFS_RING_ALIGN;
    }
    if (db->oldest != NULL)
        stat->readers_lag = db->commits - db->oldest->number;
    (void)pthread_mutex_unlock(&db->lock);
    kvfs_log_share_counts(db, &stat->log_commits, &stat->log_flushes);
    return 0;
}

/* --- upkeep -------------------------------------------------------------------------------- */

static int
log_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
           void *progress_arg, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);

    /* Opening read the ring; what is in it now is in memory as well. */
    return rc != 0 ? rc
                   : db->engine->verify(db->below, finding, arg, progress, progress_arg, err);
}

/* An empty log for the copy in the folder PATH, of the epoch that follows the copy's place. */
static int
log_backup_ring(struct kvfs_db *db, const char *path, struct kvfs_error *err)
{
    size_t len = strlen(path) + sizeof("/" LOG_FILE);
    char *name = malloc(len);
    struct kvfs_ring_file file = {.path = name, .id = db->place.id, .epoch = db->place.epoch + 1};
    int rc;

    if (name == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    (void)snprintf(name, len, "%s/%s", path, LOG_FILE);
    file.folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = file.folder >= 0 ? kvfs_ring_make(&file, KVFS_RING_MIN, err)
                          : kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    if (file.folder >= 0)
        (void)close(file.folder);
    free(name);
    return rc;
}

static int
log_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress, void *progress_arg,
           struct kvfs_error *err)
{
    int rc = db->readonly ? kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path)
                          : kvfs_log_fold_hold(db, err);

    if (rc != 0)
        return rc;
    rc = db->engine->backup(db->below, path, progress, progress_arg, err);
    if (rc == 0)
        rc = log_backup_ring(db, path, err);
    kvfs_log_fold_release(db);
    return rc;
}

/* --- names --------------------------------------------------------------------------------- */

/* An engine with a log in front of it; one for each name, for as long as the process lives. */
struct log_engine {
    struct kvfs_engine engine; /* first: what SELF is */
    const struct kvfs_engine *below;
    struct log_engine *next;
    char name[LOG_NAME_MAX + 1], version[128];
};

static struct log_engine *log_engines;
static pthread_mutex_t log_engines_lock = PTHREAD_MUTEX_INITIALIZER;

static const struct log_engine *
log_self(const struct kvfs_engine *self)
{
    return (const struct log_engine *)(const void *)self;
}

static const char *
log_version(const struct kvfs_engine *self)
{
    return log_self(self)->version;
}

static int
log_open(const struct kvfs_engine *self, const char *path,
         const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    return kvfs_log_open(log_self(self)->below, path, options, dbp, err);
}

static int
log_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                       struct kvfs_error *err)
{
    const struct kvfs_engine *below = log_self(self)->below;

    return below->compact_need_bytes(below, path, bytes, err);
}

static int
log_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
            void *progress_arg, struct kvfs_error *err)
{
    const struct kvfs_engine *below = log_self(self)->below;
    const struct kvfs_engine_options options = {.create = false};
    struct kvfs_db *db;
    int rc = kvfs_log_open(below, path, &options, &db, err);

    if (rc != 0)
        return rc;
    rc = kvfs_log_fold(db, true, err);
    kvfs_log_close(db);
    return rc != 0 ? rc : below->compact(below, path, progress, progress_arg, err);
}

static void
log_engine_fill(struct log_engine *e, const char *name)
{
    const struct kvfs_engine *below = e->below;

    (void)snprintf(e->name, sizeof(e->name), "%s", name);
    (void)snprintf(e->version, sizeof(e->version), "%s", below->version(below));
    e->engine = (struct kvfs_engine){
        .abi = KVFS_ENGINE_ABI,
        .caps = below->caps & ~((uint32_t)KVFS_CAP_FORK | KVFS_CAP_COUNTS),
        .name = e->name,
        .description = "an intent log in front of another engine",
        .version = log_version,
        .open = log_open,
        .close = kvfs_log_close,
        .limits = log_limits,
        .stat = log_stat,
        .begin = kvfs_log_begin,
        .end = kvfs_log_end,
        .get = kvfs_log_get,
        .cursor_open = kvfs_log_cursor_open,
        .cursor_next = kvfs_log_cursor_next,
        .cursor_value = kvfs_log_cursor_value,
        .cursor_close = kvfs_log_cursor_close,
        .apply = kvfs_log_apply,
        .sync = kvfs_log_sync,
        .verify = log_verify,
        .compact_need_bytes = below->compact != NULL ? log_compact_need_bytes : NULL,
        .compact = below->compact != NULL ? log_compact : NULL,
        .backup = below->backup != NULL ? log_backup : NULL,
    };
}

int
kvfs_wrapper_log(const char *name, const struct kvfs_engine **enginep, struct kvfs_error *err)
{
    const struct kvfs_engine *below;
    struct log_engine *e;
    int rc;

    if (strlen(name) > LOG_NAME_MAX)
        return kvfs_error_set(err, -EINVAL, "engine '%.64s...': the name is too long", name);
    if (strncmp(name + sizeof(LOG_PREFIX) - 1, LOG_PREFIX, sizeof(LOG_PREFIX) - 1) == 0 ||
        strchr(name, '/') != NULL)
        return kvfs_error_set(err, -EINVAL, "engine '%s': a log takes another engine by its name, "
                              "as log:lmdb", name);
    rc = kvfs_engine_find(name + sizeof(LOG_PREFIX) - 1, &below, err);
    if (rc != 0)
        return rc;
    if ((below->caps & KVFS_CAP_PERSISTENT) == 0)
        return kvfs_error_set(err, -EINVAL, "engine '%s': %s forgets everything, a log is no use",
                              name, below->name);
    (void)pthread_mutex_lock(&log_engines_lock);
    for (e = log_engines; e != NULL && strcmp(e->name, name) != 0;)
        e = e->next;
    if (e == NULL && (e = calloc(1, sizeof(*e))) != NULL) {
        e->below = below;
        log_engine_fill(e, name);
        e->next = log_engines;
        log_engines = e;
    }
    (void)pthread_mutex_unlock(&log_engines_lock);
    if (e == NULL)
        return kvfs_error_set(err, -ENOMEM, "engine '%s': no memory", name);
    *enginep = &e->engine;
    return 0;
}

/* `log` alone is only listed: what it stands before belongs to its name. */
static int
log_nameless(const struct kvfs_engine *self, const char *path,
             const struct kvfs_engine_options *options, struct kvfs_db **dbp,
             struct kvfs_error *err)
{
    (void)self;
    (void)options;
    (void)dbp;
    return kvfs_error_set(err, -EINVAL, "%s: say which engine the log is for, as log:lmdb", path);
}

static const char *
log_own_version(const struct kvfs_engine *self)
{
    (void)self;
    return "1";
}

extern const struct kvfs_engine kvfs_engine_log;
const struct kvfs_engine kvfs_engine_log = {
    .abi = KVFS_ENGINE_ABI,
    .caps = 0, /* those of the other */
    .name = "log",
    .description = "an intent log before any of these, as log:ENGINE: one flush a commit",
    .version = log_own_version,
    .open = log_nameless,
};
