/* SPDX-License-Identifier: BSD-3-Clause
 *
 * open.c - opening a store with its log, and closing it.
 *
 * Opening reads what the ring holds into memory and serves at once; folding it goes on
 * behind.  A ring is made anew only while everything is folded: first the file with the next
 * epoch, then the place in the engine below.  So a ring of the next epoch is an unused one:
 * one that was used belongs to a later state than that of the engine below, which was put back.
 * Who begins to log moves the place first, as others may have written past the log (follow.c).
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "codec.h"
#include "log_priv.h"

/* --- parameters ---------------------------------------------------------------------------- */

#define OPEN_LOG_WAIT_MAX_MS 600000u
#define OPEN_PLACE_BYTES     64u /* of a batch; the place takes them, its key included */

/* Is TEXT (LEN bytes) NAME, which ends in '='?  Its value then. */
static const char *
open_value(const char *text, size_t len, const char *name)
{
    size_t n = strlen(name);

    return len > n && memcmp(text, name, n) == 0 ? text + n : NULL;
}

/* The number at TEXT, to END.  -EINVAL. */
static int
open_number(const char *text, const char *end, uint64_t least, uint64_t most, uint64_t *number,
            struct kvfs_error *err)
{
    char *stop;

    errno = 0;
    *number = strtoull(text, &stop, 10);
    if (*text < '0' || *text > '9' || stop != end || errno != 0 || *number < least ||
        *number > most)
        return kvfs_error_set(err, -EINVAL, "log: '%.*s': a number from %llu to %llu",
                              (int)(end - text), text, (unsigned long long)least,
                              (unsigned long long)most);
    return 0;
}

/* The place of the word [text, end) in WORDS.  -EINVAL. */
static int
open_word(const char *text, const char *end, const char *const *words, size_t count,
          struct kvfs_error *err)
{
    for (size_t i = 1; i < count; i++)
        if (strlen(words[i]) == (size_t)(end - text) && memcmp(text, words[i], (size_t)(end - text)) == 0)
            return (int)i;
    return kvfs_error_set(err, -EINVAL, "log: '%.*s': no such word", (int)(end - text), text);
}

static int
open_param_unsafe(struct kvfs_db *db, const char *text, size_t len, struct kvfs_error *err)
{
    static const char *const bugs[] = {
        [LOG_BUG_NO_FLUSH] = "no-flush",     [LOG_BUG_TAIL_EARLY] = "tail-early",
        [LOG_BUG_LOST_RANGE] = "lost-range", [LOG_BUG_STALE] = "stale",
        [LOG_BUG_NO_CHECK] = "no-check",     [LOG_BUG_OLD_LAP] = "old-lap",
    };
    static const char *const stops[] = {
        [LOG_STOP_FOLD] = "fold",   [LOG_STOP_FOLDED] = "folded",
        [LOG_STOP_YIELD] = "yield", [LOG_STOP_YIELDED] = "yielded",
        [LOG_STOP_GRANTED] = "granted", [LOG_STOP_READ] = "read",
        [LOG_STOP_REPLAY] = "replay",
    };
    const char *end = text + len, *value = open_value(text, len, "unsafe-log-bug=");
    int rc;

    if (value != NULL) {
        rc = open_word(value, end, bugs, sizeof(bugs) / sizeof(bugs[0]), err);
        db->bug = rc > 0 ? (enum log_bug)rc : LOG_SOUND;
        return rc > 0 ? 1 : rc;
    }
    value = open_value(text, len, "unsafe-log-stop=");
    if (value == NULL)
        return 0;
    rc = open_word(value, end, stops, sizeof(stops) / sizeof(stops[0]), err);
    db->stop = rc > 0 ? (enum log_stop)rc : LOG_STOP_NEVER;
    return rc > 0 ? 1 : rc;
}

/* 1: it is ours, 0: it is not. */
static int
open_param(struct kvfs_db *db, const char *text, size_t len, struct kvfs_error *err)
{
    const char *end = text + len, *value;
    uint64_t number;
    int rc;

    if ((value = open_value(text, len, "log-size=")) != NULL) {
        rc = open_number(value, end, KVFS_RING_MIN, KVFS_RING_MAX, &number, err);
        if (rc == 0)
            db->ring_max = number & ~(uint64_t)(KVFS_RING_ALIGN - 1);
    } else if ((value = open_value(text, len, "log-first=")) != NULL) {
        rc = open_number(value, end, KVFS_RING_MIN, KVFS_RING_MAX, &number, err);
        if (rc == 0)
            db->ring_first = number & ~(uint64_t)(KVFS_RING_ALIGN - 1);
    } else if ((value = open_value(text, len, "log-unfolded=")) != NULL) {
        rc = open_number(value, end, KVFS_RING_MIN, KVFS_RING_MAX, &number, err);
        if (rc == 0) {
            db->pace.limit_bytes = number;
            db->pace_fixed = true;
        }
    } else if ((value = open_value(text, len, "log-piece=")) != NULL) {
        rc = open_number(value, end, 1, KVFS_RING_MAX, &number, err);
        if (rc == 0)
            db->piece_bytes = (size_t)number;
    } else if ((value = open_value(text, len, "log-wait-ms=")) != NULL) {
        rc = open_number(value, end, 1, OPEN_LOG_WAIT_MAX_MS, &number, err);
        if (rc == 0)
            db->wait_ms = (unsigned)number;
    } else if ((value = open_value(text, len, "log-remove=")) != NULL) {
        rc = open_number(value, end, 0, 1, &number, err);
        if (rc == 0)
            db->remove = number == 1;
    } else if ((value = open_value(text, len, "log-anew=")) != NULL) {
        rc = open_number(value, end, 0, 1, &number, err);
        if (rc == 0)
            db->anew = number == 1;
    } else {
        return open_param_unsafe(db, text, len, err);
    }
    return rc == 0 ? 1 : rc;
}

/* Take our parameters; the others go to the engine below, in *rest (malloc'd). */
static int
open_params(struct kvfs_db *db, const char *params, char **rest, struct kvfs_error *err)
{
    const char *text = params != NULL ? params : "";
    char *out = malloc(strlen(text) + 1);

    *rest = out;
    if (out == NULL)
        return kvfs_error_set(err, -ENOMEM, "log: no memory");
    *out = '\0';
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        int rc = open_param(db, text, len, err);

        if (rc < 0)
            return rc;
        if (rc == 0) {
            if (out != *rest)
                *out++ = ',';
            memcpy(out, text, len);
            out += len;
            *out = '\0';
        }
        text += len + (text[len] == ',');
    }
    return 0;
}

/* --- the ring ------------------------------------------------------------------------------ */

/* The file of db->place; *pathp is malloc'd. */
static int
open_file(struct kvfs_db *db, char **pathp, struct kvfs_ring_file *file, struct kvfs_error *err)
{
    size_t len = strlen(db->path) + sizeof("/" LOG_FILE);

    *pathp = malloc(len);
    if (*pathp == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    (void)snprintf(*pathp, len, "%s/%s", db->path, LOG_FILE);
    *file = (struct kvfs_ring_file){
        .folder = db->folder, .path = *pathp, .id = db->place.id, .epoch = db->place.epoch};
    return 0;
}

static int
open_place_write(struct kvfs_db *db, const struct log_place *place, struct kvfs_error *err)
{
    uint8_t value[48];
    struct kvfs_op ops[2] = {{.type = KVFS_OP_DEL, /* so it has room in a full store as well */
                              .keyspace = KVFS_META,
                              .key = LOG_OWN_KEY,
                              .key_len = LOG_OWN_KEY_LEN},
                             kvfs_log_place_op(place, value)};
    struct kvfs_batch batch = {.ops = ops, .ops_count = 2};

    return db->engine->apply(db->below, &batch, KVFS_DURABLE, err);
}

struct log_place
kvfs_log_place_next(const struct kvfs_db *db)
{
    struct log_place place = db->place;

    assert(kvfs_ring_used(db->ring) == 0); /* else what is in it would be lost */
    place.tail.seq++;
    return place;
}

void
kvfs_log_place_stepped(struct kvfs_db *db)
{
    db->place = kvfs_log_place_next(db);
    db->step_owed = false;
    kvfs_ring_skip(db->ring);
    (void)pthread_mutex_lock(&db->lock);
    db->active_end = kvfs_ring_head(db->ring);
    (void)pthread_mutex_unlock(&db->lock);
}

int
kvfs_log_place_step(struct kvfs_db *db, struct kvfs_error *err)
{
    const struct log_place place = kvfs_log_place_next(db);
    int rc = open_place_write(db, &place, err);

    if (rc == 0)
        kvfs_log_place_stepped(db);
    return rc;
}

/* A ring for an engine below that has none yet. */
static int
open_fresh(struct kvfs_db *db, struct kvfs_error *err)
{
    struct kvfs_ring_file file;
    char *path;
    int rc;

    db->place.epoch = 1;
    db->place.tail = kvfs_ring_first();
    rc = open_file(db, &path, &file, err);
    if (rc != 0)
        return rc;
    if (getrandom(db->place.id, sizeof(db->place.id), 0) != (ssize_t)sizeof(db->place.id))
        rc = kvfs_error_set(err, -EIO, "%s: no random numbers", db->path);
    if (rc == 0)
        rc = kvfs_ring_make(&file, db->ring_first, err);
    free(path);
    return rc == 0 ? open_place_write(db, &db->place, err) : rc;
}

/* The ring is lost, and one asked for going on without what only it held. */
static int
open_anew(struct kvfs_db *db, const struct kvfs_ring_file *file, struct kvfs_error *err)
{
    int rc = 0;

    /* Whatever lies there may still be of use to somebody. */
    if (renameat(db->folder, LOG_FILE, db->folder, LOG_FILE ".old") != 0 && errno != ENOENT)
        rc = kvfs_error_set(err, -errno, "%s: %s", file->path, strerrordesc_np(errno));
    if (rc == 0)
        rc = kvfs_ring_make(file, db->ring_first, err);
    if (rc == 0)
        rc = kvfs_ring_open(file, false, &db->ring, err);
    if (rc == 0) {
        db->place.epoch = file->epoch;
        db->place.tail = kvfs_ring_first();
    }
    return rc;
}

/* The ring of the next epoch, then db->place follows.  -ESTALE: it was used. */
static int
open_next(struct kvfs_db *db, const struct kvfs_ring_file *file, struct kvfs_error *err)
{
    struct kvfs_ring *next;
    int rc = kvfs_ring_open(file, db->readonly, &next, NULL);

    if (rc != 0)
        return rc;
    db->place.epoch++;
    db->place.tail = kvfs_ring_first();
    if (!kvfs_ring_unused(next)) {
        kvfs_ring_close(next);
        return -ESTALE;
    }
    db->ring = next;
    /* Whoever made it may not have come to flush its name. */
    return db->readonly || fsync(db->folder) == 0
               ? 0
               : kvfs_error_set(err, -EIO, "%s: %s", file->path, strerrordesc_np(errno));
}

/* Open the ring of db->place, or the unused one that follows it. */
static int
open_ring(struct kvfs_db *db, struct kvfs_error *err)
{
    struct kvfs_ring_file file;
    char *path;
    int rc = open_file(db, &path, &file, err);

    if (rc != 0)
        return rc;
    rc = kvfs_ring_open(&file, db->readonly, &db->ring, err);
    file.epoch = db->place.epoch + 1;
    if (rc == -EINVAL)
        rc = open_next(db, &file, err);
    file.epoch = db->place.epoch + 1;
    if ((rc == -EINVAL || rc == -ENOENT || rc == -ESTALE) && db->anew && !db->readonly)
        rc = open_anew(db, &file, err);
    if (rc == 0 && db->bug >= LOG_BUG_NO_CHECK)
        kvfs_ring_unsafe(db->ring, db->bug == LOG_BUG_NO_CHECK ? KVFS_RING_BUG_NO_CHECK
                                                               : KVFS_RING_BUG_OLD_LAP);
    if (rc == -EINVAL || rc == -ENOENT)
        rc = kvfs_error_set(err, -EIO, "%s: the log of this store is missing", path);
    else if (rc == -ESTALE)
        rc = kvfs_error_set(err, -EIO, "%s: this log is newer than the store beside it: put back "
                            "both of one time", path);
    free(path);
    return rc;
}

static int
replay_op(void *arg, const struct kvfs_op *op)
{
    struct kvfs_db *db = arg;

    return kvfs_log_view_apply(&db->active, op, &db->source);
}

static int
replay_record(void *arg, const struct kvfs_ring_at *at, const void *payload, size_t len)
{
    struct kvfs_db *db = arg;

    (void)at;
    (void)atomic_fetch_add(&db->pending_bytes, len);
    return kvfs_log_decode(payload, len, replay_op, db);
}

int
kvfs_log_ring_anew(struct kvfs_db *db, uint64_t bytes, struct kvfs_error *err)
{
    struct log_place was = db->place;
    struct kvfs_ring *fresh = NULL;
    struct kvfs_ring_file file;
    char *path;
    int rc = open_file(db, &path, &file, err);

    if (rc != 0)
        return rc;
    file.epoch++;
    rc = kvfs_log_share_check(db, err);
    if (rc == 0)
        rc = kvfs_ring_make(&file, bytes, err);
    if (rc != 0) {
        free(path);
        return rc;
    }
    /* From here on it is done, or the store is of no use until it is opened again. */
    db->place.epoch++;
    db->place.tail = kvfs_ring_first();
    if (kvfs_ring_open(&file, false, &fresh, err) != 0 ||
        open_place_write(db, &db->place, err) != 0) {
        db->place = was;
        rc = -EIO;
        kvfs_ring_close(fresh);
    }
    free(path);
    if (rc != 0)
        return rc;
    kvfs_ring_become(db->ring, fresh);
    (void)pthread_mutex_lock(&db->lock);
    db->active_end = kvfs_ring_head(db->ring);
    (void)pthread_mutex_unlock(&db->lock);
    return 0;
}

int
kvfs_log_ring_read(struct kvfs_db *db, const struct kvfs_ring_at *from, struct kvfs_error *err)
{
    int rc = kvfs_ring_recover(db->ring, from, replay_record, db, err);

    db->active_end = kvfs_ring_head(db->ring);
    kvfs_log_views_changed(db);
    return rc != -EINVAL ? rc
                         : kvfs_error_set(err, -EIO, "%s: the log, or a sound record in "
                                          "it, cannot be understood", db->path);
}

int
kvfs_log_ring_load(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = open_ring(db, err);

    return rc != 0 ? rc : kvfs_log_ring_read(db, &db->place.tail, err);
}

/* For a writer: the ring, which may have to be made, and what is in it. */
static int
open_replay(struct kvfs_db *db, struct kvfs_error *err)
{
    struct kvfs_db_snap *below;
    uint64_t epoch;
    int rc = db->engine->begin(db->below, &below, err);

    if (rc != 0)
        return rc;
    rc = kvfs_log_place_read(db, below, &db->place, err);
    db->engine->end(below);
    if (rc == -ENOENT)
        rc = open_fresh(db, err);
    epoch = db->place.epoch;
    if (rc == 0)
        rc = kvfs_log_ring_load(db, err);
    if (rc != 0)
        return rc;
    if (epoch != db->place.epoch)
        return open_place_write(db, &db->place, err);
    /* What was written past the log, also by others, comes before what will be in it. */
    return atomic_load(&db->logs) && kvfs_ring_used(db->ring) == 0
               ? kvfs_log_place_step(db, err)
               : db->engine->sync(db->below, err);
}

/* --- open, close ---------------------------------------------------------------------------- */

static int
open_locks(struct kvfs_db *db, struct kvfs_error *err)
{
    pthread_condattr_t attr;

    (void)pthread_mutex_init(&db->queue_lock, NULL);
    (void)pthread_mutex_init(&db->writer, NULL);
    (void)pthread_mutex_init(&db->lock, NULL);
    (void)pthread_mutex_init(&db->fold_lock, NULL);
    if (pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&db->fold_wake, &attr) != 0 ||
        pthread_cond_init(&db->fold_done, &attr) != 0)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    (void)pthread_condattr_destroy(&attr);
    return 0;
}

/* What the ring takes of a store that may have MAX bytes. */
static uint64_t
open_share(uint64_t max)
{
    uint64_t bytes = max / LOG_ROOM_PART & ~(uint64_t)(KVFS_RING_ALIGN - 1);

    return bytes < KVFS_RING_MIN ? KVFS_RING_MIN : bytes < LOG_RING_BYTES ? bytes : LOG_RING_BYTES;
}

/* Nor does it begin with more where there is little room. */
static void
open_first(struct kvfs_db *db)
{
    struct kvfs_engine_stat stat;
    uint64_t most;

    if (db->readonly || db->engine->stat(db->below, &stat, NULL) != 0)
        return;
    most = open_share(stat.avail_bytes);
    db->ring_first = db->ring_first < most ? db->ring_first : most;
}

static int
open_writer(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_log_share_replay(db, err);

    if (rc != 0)
        return rc;
    kvfs_log_stop_at(db, LOG_STOP_REPLAY);
    rc = open_replay(db, err);
    if (rc == 0)
        rc = kvfs_log_fold_start(db, err);
    if (rc == 0 && !atomic_load(&db->logs)) /* beside others there is no log */
        rc = kvfs_log_fold(db, true, err);
    kvfs_log_share_replayed(db);
    return rc == 0 ? kvfs_log_share_start(db, err) : rc;
}

static int
open_unlink(const struct kvfs_db *db, const char *name, struct kvfs_error *err)
{
    return unlinkat(db->folder, name, 0) == 0 || errno == ENOENT
               ? 0
               : kvfs_error_set(err, -errno, "%s/%s: %s", db->path, name, strerrordesc_np(errno));
}

/* Leave a store of the engine below, as if there never had been a log.  First it loses the
 * place of the log: a ring that is found without one counts for nothing. */
static int
open_remove(struct kvfs_db *db, struct kvfs_error *err)
{
    struct kvfs_op op = {.type = KVFS_OP_DEL,
                         .keyspace = KVFS_META,
                         .key = LOG_OWN_KEY,
                         .key_len = LOG_OWN_KEY_LEN};
    struct kvfs_batch batch = {.ops = &op, .ops_count = 1};
    int rc = db->readonly ? kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path)
                          : kvfs_log_fold(db, true, err);

    if (rc == 0 && !atomic_load(&db->logs))
        rc = kvfs_error_set(err, -EBUSY, "%s: another process writes here, too", db->path);
    (void)pthread_mutex_lock(&db->writer);
    (void)kvfs_log_poison(db, -EROFS); /* nothing more is written through this handle */
    (void)pthread_mutex_unlock(&db->writer);
    if (rc == 0)
        rc = db->engine->apply(db->below, &batch, KVFS_DURABLE, err);
    if (rc == 0)
        rc = open_unlink(db, LOG_FILE, err);
    if (rc == 0) /* of a crash */
        rc = open_unlink(db, LOG_FILE ".new", err);
    if (rc == 0)
        rc = open_unlink(db, LOG_LOCK_FILE, err);
    return rc;
}

static int
open_db(struct kvfs_db *db, const struct kvfs_engine_options *options, struct kvfs_error *err)
{
    struct kvfs_engine_options below = *options;
    char *rest = NULL;
    int rc = open_params(db, options->params, &rest, err);

    if (rc == 0 && !db->readonly && (db->engine->caps & KVFS_CAP_MULTIPROCESS) != 0) {
        rc = kvfs_log_share_open(db, err);
        if (rc == 0)
            rc = kvfs_log_share_enter(db, err);
    }
    if (rc == 0) {
        below.params = rest;
        if (below.store_max_bytes > 0) {
            uint64_t most = open_share(below.store_max_bytes);

            db->ring_max = db->ring_max < most ? db->ring_max : most;
            below.store_max_bytes -= db->ring_max;
        }
        db->ring_first = db->ring_max < db->ring_first ? db->ring_max : db->ring_first;
        rc = db->engine->open(db->engine, db->path, &below, &db->below, err);
    }
    free(rest);
    if (rc == 0 && (db->folder = open(db->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = kvfs_error_set(err, -errno, "%s: %s", db->path, strerrordesc_np(errno));
    if (rc != 0)
        return rc;
    db->engine->limits(db->below, &db->limits);
    open_first(db);
    db->limits.batch_max_ops--; /* the place, with a batch that goes past the log */
    db->limits.batch_max_bytes -= OPEN_PLACE_BYTES;
    rc = db->readonly ? 0 : open_writer(db, err);
    return rc == 0 && db->remove ? open_remove(db, err) : rc;
}

int
kvfs_log_open(const struct kvfs_engine *below, const char *path,
              const struct kvfs_engine_options *options, struct kvfs_db **dbp,
              struct kvfs_error *err)
{
    struct kvfs_db *db = calloc(1, sizeof(*db));
    int rc;

    if (db == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    db->engine = below;
    db->generation = kvfs_fork_generation();
    db->readonly = options->readonly;
    db->counts = &db->own_counts;
    atomic_init(&db->logs, true);
    db->folder = -1;
    db->ring_first = LOG_RING_FIRST;
    db->ring_max = LOG_RING_BYTES;
    kvfs_log_pace_init(&db->pace, LOG_RING_FIRST);
    db->piece_bytes = LOG_PIECE_BYTES;
    db->wait_ms = LOG_WAIT_MS;
    db->source.random = 88172645463325252u ^ (uintptr_t)db;
    db->path = strdup(path);
    rc = db->path != NULL ? open_locks(db, err)
                          : kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    if (rc == 0)
        rc = open_db(db, options, err);
    if (rc == 0)
        *dbp = db;
    else
        kvfs_log_close(db);
    return rc;
}

void
kvfs_log_close(struct kvfs_db *db)
{
    bool ours = db->generation == kvfs_fork_generation();

    if (ours)
        kvfs_log_share_stop(db);
    if (ours && db->fold_running) {
        (void)kvfs_log_fold(db, true, NULL); /* else the next open reads it from the ring */
        kvfs_log_fold_stop(db);
    }
    kvfs_ring_close(db->ring);
    if (db->folder >= 0)
        (void)close(db->folder);
    if (db->below != NULL)
        db->engine->close(db->below);
    kvfs_log_share_close(db);
    kvfs_log_view_drop(&db->active);
    kvfs_log_view_drop(&db->folding);
    free(db->path);
    free(db);
}
