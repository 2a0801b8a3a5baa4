/* SPDX-License-Identifier: BSD-3-Clause
 *
 * open.c - opening and closing both sides.
 *
 *     FOLDER/hybrid   one line: the full name, hybrid:META+DATA
 *     FOLDER/META/    a store of the one engine
 *     FOLDER/DATA/    a store of the other
 *
 *  1. The file `hybrid` makes the folder a store; it comes last, by rename.  Without it
 *     the two folders are what an interrupted creation left.
 *  2. Both sides hold the same random number (META: 00 'i', DATA: "id" in its META), so
 *     halves of different stores are not taken for one.
 *  3. Batches that a crash cut short are finished before anybody reads.  A store that is
 *     opened readonly is opened for writing first where there are any.
 *  4. What another process left may not be durable yet: both sides count as dirty.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../holder.h"
#include "hybrid_priv.h"

#define OPEN_ID_BYTES      16u
#define OPEN_INTENTS_BYTES ((uint64_t)4 << 20)

static const char *const open_folders[HYBRID_SIDES] = {"META", "DATA"};
static const char open_meta_id[] = {HYBRID_OWN_KEY, 'i'}, open_data_id[] = {'i', 'd'};

static char *
open_path(const char *path, const char *name)
{
    char *joined = NULL;

    return asprintf(&joined, "%s/%s", path, name) < 0 ? NULL : joined;
}

char *
kvfs_hybrid_folder(const char *path, int side)
{
    return open_path(path, open_folders[side]);
}

/* --- the file ----------------------------------------------------------------------- */

int
kvfs_hybrid_file_read(const char *path, const struct kvfs_hybrid_pair **pairp,
                      struct kvfs_error *err)
{
    char text[HYBRID_NAME_MAX + 2], *name = open_path(path, "hybrid");
    int fd, rc = 0;
    ssize_t n;

    if (name == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        rc = errno == ENOENT || errno == ENOTDIR
                 ? kvfs_error_set(err, -ENOENT, "%s: no hybrid store here", path)
                 : kvfs_error_set(err, -errno, "%s: %s", name, strerrordesc_np(errno));
        free(name);
        return rc;
    }
    n = read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    (void)close(fd);
    if (n < 0)
        rc = kvfs_error_set(err, -EIO, "%s: cannot be read", name);
    else if (strncmp(text, "hybrid:", 7) != 0 || strchr(text, '\n') == NULL)
        rc = kvfs_error_set(err, -EINVAL, "%s: does not name two engines", name);
    free(name);
    text[strcspn(text, "\n")] = '\0';
    return rc != 0 ? rc : kvfs_hybrid_pair_find(text, pairp, err);
}

static int
open_sync(const char *path, struct kvfs_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    if (fd < 0 || fsync(fd) != 0)
        rc = kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

int
kvfs_hybrid_file_write(const char *path, const struct kvfs_hybrid_pair *pair,
                       struct kvfs_error *err)
{
    char text[HYBRID_NAME_MAX + 2], *name = open_path(path, "hybrid");
    char *fresh = open_path(path, "hybrid.new");
    int fd = -1, len = snprintf(text, sizeof(text), "%s\n", pair->name), rc = 0;

    if (name == NULL || fresh == NULL) {
        rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
        goto out;
    }
    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, text, (size_t)len) != len || fsync(fd) != 0 ||
        rename(fresh, name) != 0)
        rc = kvfs_error_set(err, errno != 0 ? -errno : -EIO, "%s: %s", fresh,
                            strerrordesc_np(errno));
    if (rc == 0)
        rc = open_sync(path, err);
out:
    if (fd >= 0)
        (void)close(fd);
    free(fresh);
    free(name);
    return rc;
}

/* --- parameters ------------------------------------------------------------------------ */

static int
open_bug(struct kvfs_db *db, const char *name, size_t len)
{
    static const char *const names[] = {"none", "no-intent", "data-first", "forget-early",
                                        "meta-unsynced", "data-unsynced", "no-gate"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strlen(names[i]) == len && strncmp(names[i], name, len) == 0) {
            db->bug = (enum hybrid_bug)i;
            return 0;
        }
    return -EINVAL;
}

/* Add one parameter of LEN bytes to those of a side. */
static int
open_param_add(struct kvfs_db *db, int side, const char *text, size_t len)
{
    char *old = db->params[side], *joined = NULL;

    if (asprintf(&joined, "%s%s%.*s", old != NULL ? old : "", old != NULL ? "," : "", (int)len,
                 text) < 0)
        return -ENOMEM;
    free(old);
    db->params[side] = joined;
    return 0;
}

static int
open_number(const char *text, size_t len, uint64_t *number)
{
    uint64_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || i >= 12)
            return -EINVAL;
        n = 10 * n + (uint64_t)(text[i] - '0');
    }
    *number = n;
    return len > 0 ? 0 : -EINVAL;
}

/* One parameter of LEN bytes. */
static int
open_param(struct kvfs_db *db, const char *p, size_t len)
{
    static const char bug[] = "unsafe-bug=", pause[] = "unsafe-pause=1", bytes[] = "intents-bytes=";

    if (strncmp(p, "meta.", 5) == 0 && len > 5)
        return open_param_add(db, HYBRID_META, p + 5, len - 5);
    if (strncmp(p, "data.", 5) == 0 && len > 5)
        return open_param_add(db, HYBRID_DATA, p + 5, len - 5);
    if (len >= sizeof(bytes) && strncmp(p, bytes, sizeof(bytes) - 1) == 0)
        return open_number(p + sizeof(bytes) - 1, len - sizeof(bytes) + 1, &db->intents_bytes);
    if (len >= sizeof(bug) && strncmp(p, bug, sizeof(bug) - 1) == 0)
        return open_bug(db, p + sizeof(bug) - 1, len - sizeof(bug) + 1);
    if (len == sizeof(pause) - 1 && strncmp(p, pause, len) == 0) {
        db->pause = true;
        return 0;
    }
    return -EINVAL;
}

static int
open_params(struct kvfs_db *db, const char *params, struct kvfs_error *err)
{
    const char *p = params;

    while (p != NULL && *p != '\0') {
        size_t len = strcspn(p, ",");
        int rc = open_param(db, p, len);

        if (rc != 0)
            return kvfs_error_set(err, rc, "hybrid: unknown parameter '%.*s' (there are "
                                  "intents-bytes=N, and meta.* and data.*, which go to the two "
                                  "engines)", (int)(len < 64 ? len : 64), p);
        p += len + (p[len] == ',');
    }
    return 0;
}

/* --- both sides ---------------------------------------------------------------------- */

static int
open_side(struct kvfs_db *db, int side, bool create, bool readonly, struct kvfs_error *err)
{
    const struct kvfs_engine *engine = db->pair->side[side];
    const struct kvfs_engine_options options = {
        .create = create,
        .readonly = readonly,
        .store_max_bytes = db->max_bytes[side],
        .params = db->params[side],
    };
    bool lasts = (engine->caps & KVFS_CAP_PERSISTENT) != 0;
    char *folder = kvfs_hybrid_folder(db->folder, side);
    int rc = 0;

    if (folder == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->folder);
    if (create && mkdir(folder, 0777) != 0 && errno != EEXIST)
        rc = kvfs_error_set(err, -errno, "%s: %s", folder, strerrordesc_np(errno));
    if (rc == 0)
        rc = engine->open(engine, folder, &options, &db->side[side], err);
    if (rc == -ENOENT && lasts)
        rc = kvfs_error_set(err, -EIO, "%s: the %s store is missing", folder, engine->name);
    free(folder);
    return rc;
}

static void
open_sides_close(struct kvfs_db *db)
{
    for (int i = 0; i < HYBRID_SIDES; i++)
        if (db->side[i] != NULL) {
            db->pair->side[i]->close(db->side[i]);
            db->side[i] = NULL;
        }
}

static int
open_sides(struct kvfs_db *db, bool create, bool readonly, struct kvfs_error *err)
{
    int rc = open_side(db, HYBRID_META, create, readonly, err);

    if (rc == 0)
        rc = open_side(db, HYBRID_DATA, create, readonly, err);
    if (rc != 0)
        open_sides_close(db);
    return rc;
}

/* --- the number that both sides hold --------------------------------------------------- */

/* 1: it is there, 0: it is not. */
static int
open_id_read(struct kvfs_db *db, int side, uint8_t id[OPEN_ID_BYTES], struct kvfs_error *err)
{
    const struct kvfs_engine *engine = db->pair->side[side];
    struct iovec iov = {id, OPEN_ID_BYTES};
    struct kvfs_db_snap *snap;
    size_t len = 0;
    int rc = engine->begin(db->side[side], &snap, err);

    if (rc != 0)
        return rc;
    rc = engine->get(snap, KVFS_META, side == HYBRID_META ? open_meta_id : open_data_id,
                     sizeof(open_meta_id), 0, &iov, 1, &len, err);
    engine->end(snap);
    if (rc == 0 && len != OPEN_ID_BYTES)
        return kvfs_error_set(err, -EIO, "%s: the number of the store is damaged", db->folder);
    return rc == -ENOENT ? 0 : rc == 0 ? 1 : rc;
}

static int
open_id_write(struct kvfs_db *db, int side, const uint8_t id[OPEN_ID_BYTES],
              struct kvfs_error *err)
{
    const struct kvfs_op put = {.type = KVFS_OP_PUT, .keyspace = KVFS_META,
                                .key = side == HYBRID_META ? open_meta_id : open_data_id,
                                .key_len = sizeof(open_meta_id),
                                .value = {{(void *)(uintptr_t)id, OPEN_ID_BYTES}}};
    const struct kvfs_batch batch = {&put, 1};

    return db->pair->side[side]->apply(db->side[side], &batch, KVFS_DURABLE, err);
}

static int
open_id(struct kvfs_db *db, bool create, struct kvfs_error *err)
{
    uint8_t id[HYBRID_SIDES][OPEN_ID_BYTES];
    int has[HYBRID_SIDES], rc = 0;

    for (int i = 0; i < HYBRID_SIDES; i++)
        if ((has[i] = open_id_read(db, i, id[i], err)) < 0)
            return has[i];
    if (has[HYBRID_META] && has[HYBRID_DATA] && memcmp(id[0], id[1], OPEN_ID_BYTES) == 0)
        return 0;
    if (has[HYBRID_META] || !create) /* META's comes last */
        return kvfs_error_set(err, -EIO, "%s: META and DATA belong to different stores",
                              db->folder);
    if (!has[HYBRID_DATA]) {
        if (getrandom(id[HYBRID_DATA], OPEN_ID_BYTES, 0) != (ssize_t)OPEN_ID_BYTES)
            return kvfs_error_set(err, -EIO, "%s: no random numbers", db->folder);
        rc = open_id_write(db, HYBRID_DATA, id[HYBRID_DATA], err);
    }
    return rc != 0 ? rc : open_id_write(db, HYBRID_META, id[HYBRID_DATA], err);
}

/* --- opening --------------------------------------------------------------------------- */

/* Limits: the lesser of both, less what intents take (apply.c). */
static void
open_limits(struct kvfs_db *db)
{
    struct kvfs_engine_limits m, d, *l = &db->limits;
    uint64_t ops, bytes, records;

    db->pair->side[HYBRID_META]->limits(db->side[HYBRID_META], &m);
    db->pair->side[HYBRID_DATA]->limits(db->side[HYBRID_DATA], &d);
    *l = d;
    m.value_max_bytes -= 64; /* head and checksum of an intent */
    if (l->value_max_bytes > m.value_max_bytes)
        l->value_max_bytes = m.value_max_bytes;
    if (l->snapshots_max > m.snapshots_max)
        l->snapshots_max = m.snapshots_max;
    if (l->snapshots_max != UINT32_MAX)
        l->snapshots_max -= 2; /* for our own looks */
    bytes = d.batch_max_bytes < m.batch_max_bytes ? d.batch_max_bytes : m.batch_max_bytes;
    ops = d.batch_max_ops < m.batch_max_ops ? d.batch_max_ops : m.batch_max_ops;
    records = 2 * bytes / HYBRID_INTENT_BYTES + 2; /* two neighbours fill more than one */
    ops = ops > records + 8 ? (ops - records - 8) / 2 : 1; /* a range may become two */
    if (ops > bytes / 64)
        ops = bytes / 64;
    l->batch_max_ops = ops;
    l->batch_halves_best = true; /* they need no intent */
    l->batch_max_bytes = bytes - 16 * ops - 32 * records - 64;
}

/* Batches that a crash cut short. */
static int
open_finish(struct kvfs_db *db, struct kvfs_error *err)
{
    bool missing = false;
    int rc = kvfs_hybrid_intent_find(db, &missing, err);

    if (rc != 0)
        return rc;
    if (!db->readonly)
        return atomic_load(&db->first) < atomic_load(&db->next)
                   ? kvfs_hybrid_intent_replay(db, err)
                   : 0;
    if (!missing)
        return 0;
    open_sides_close(db);
    rc = open_sides(db, false, false, err);
    if (rc == 0)
        rc = kvfs_hybrid_intent_replay(db, err);
    if (rc == -EACCES || rc == -EROFS || rc == -EPERM)
        rc = kvfs_error_set(err, -EROFS, "%s: a batch that a crash cut short must be finished "
                            "first, where the store can be written", db->folder);
    open_sides_close(db);
    if (rc == 0)
        rc = open_sides(db, false, true, err);
    return rc != 0 ? rc : kvfs_hybrid_intent_find(db, &missing, err);
}

/* Which two engines?  *fresh: there is no store yet. */
static int
open_pair(struct kvfs_db *db, const struct kvfs_engine_options *o, bool *fresh,
          struct kvfs_error *err)
{
    const struct kvfs_hybrid_pair *found = NULL;
    int rc;

    *fresh = false;
    if (db->pair->side[HYBRID_META] != NULL &&
        (db->pair->engine.caps & KVFS_CAP_PERSISTENT) == 0) {
        *fresh = o->create && !o->readonly;
        return 0; /* the engines know what there is */
    }
    rc = kvfs_hybrid_file_read(db->folder, &found, err);
    if (rc == -ENOENT && o->create && !o->readonly) {
        *fresh = true;
        if (db->pair->side[HYBRID_META] == NULL)
            return kvfs_error_set(err, -EINVAL, "engine 'hybrid': which two?  It is called "
                                  "hybrid:META+DATA, for instance hybrid:lmdb+rocksdb");
        return access(db->folder, F_OK) == 0 ? 0 : rc;
    }
    if (rc != 0)
        return rc;
    if (db->pair->side[HYBRID_META] == NULL)
        db->pair = found;
    if (db->pair != found)
        return kvfs_error_set(err, -EINVAL, "%s: the store is one of %s, not of %s", db->folder,
                              found->name, db->pair->name);
    return 0;
}

static int
open_db(struct kvfs_db *db, const struct kvfs_engine_options *o, struct kvfs_error *err)
{
    bool fresh = false;
    int rc = open_params(db, o->params, err);

    if (rc == 0)
        rc = open_pair(db, o, &fresh, err);
    if (rc == 0)
        rc = kvfs_holder_take(db->folder, o->readonly, &db->holder_fd, err);
    if (rc == 0)
        rc = open_sides(db, fresh, o->readonly, err);
    if (rc == 0)
        rc = open_id(db, fresh, err);
    if (rc == 0 && fresh && (db->pair->engine.caps & KVFS_CAP_PERSISTENT) != 0)
        rc = kvfs_hybrid_file_write(db->folder, db->pair, err);
    if (rc == 0)
        rc = open_finish(db, err);
    if (rc == 0)
        open_limits(db);
    return rc;
}

static void
open_lock_init(struct kvfs_db *db)
{
    pthread_rwlockattr_t attr;

    /* Readers come again and again, and no thread takes it twice. */
    (void)pthread_rwlockattr_init(&attr);
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&db->gate, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
    (void)pthread_mutex_init(&db->apply_lock, NULL);
}

int
kvfs_hybrid_open(const struct kvfs_hybrid_pair *pair, const char *path,
                 const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                 struct kvfs_error *err)
{
    struct kvfs_db *db = calloc(1, sizeof(*db));
    int rc;

    if (db == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    db->pair = pair;
    db->readonly = options->readonly;
    db->intents_bytes = OPEN_INTENTS_BYTES;
    db->holder_fd = -1;
    db->generation = kvfs_fork_generation();
    db->meta_dirty = db->data_plain = true;
    db->max_bytes[HYBRID_META] = options->store_max_bytes / 4;
    db->max_bytes[HYBRID_DATA] = options->store_max_bytes - db->max_bytes[HYBRID_META];
    open_lock_init(db);
    db->folder = strdup(path);
    rc = db->folder != NULL ? open_db(db, options, err)
                            : kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    if (rc == 0) {
        *dbp = db;
    } else {
        db->readonly = true; /* closing has nothing to tidy up */
        kvfs_hybrid_close(db);
    }
    return rc;
}

void
kvfs_hybrid_close(struct kvfs_db *db)
{
    bool ours = kvfs_fork_check(db->generation, db->folder, NULL) == 0;

    /* So that the next one may open it readonly; where it fails, that one finishes. */
    if (ours && !db->readonly && !atomic_load(&db->poisoned) &&
        atomic_load(&db->first) < atomic_load(&db->next) &&
        kvfs_hybrid_data_sync(db, NULL) == 0)
        (void)kvfs_hybrid_forget(db, NULL);
    open_sides_close(db); /* each knows of fork() itself */
    kvfs_holder_drop(db->holder_fd);
    (void)pthread_mutex_destroy(&db->apply_lock);
    (void)pthread_rwlock_destroy(&db->gate);
    for (int i = 0; i < HYBRID_SIDES; i++)
        free(db->params[i]);
    free(db->folder);
    free(db);
}
