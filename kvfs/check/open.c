/* SPDX-License-Identifier: BSD-3-Clause
 *
 * open.c - opening a volume, or what is left of it, for the checker.
 *
 * Without repair the volume is opened for reading as anybody would, also while
 * it is served.  Where damage forbids that, the store is opened directly, to
 * say as much as possible.  With repair the volume's lock is taken alone and the
 * store is opened directly: no cache and no background work gets in between.
 * Either way the lock comes before what the file `volume` says is believed.
 *
 * The file `volume` and the superblock say the same; each is restored from the
 * other, but for the log: of that the superblock knows nothing.  Without the file, the
 * engine is the one that opens the store, behind a log if the store holds the place of one:
 * whether there is a file `log` says nothing, for that may be lost too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_priv.h"
#include "lease.h"
#include "volume_file.h"
#include "volume_priv.h"

/* Errors that say "damaged" rather than "cannot be done now". */
static bool
open_is_damage(int rc)
{
    return rc == -EIO || rc == -EINVAL || rc == -ENOENT;
}

/* As engine->open(); 1: the engine crashes or hangs, which was reported. */
static int
open_store(struct check *c, const char *path, const struct kvfs_engine *engine, const char *params,
           struct kvfs_error *err)
{
    struct kvfs_engine_options options = {.readonly = !c->options->repair, .params = params};
    struct kvfs_db_snap *snap;
    int rc = c->probed || c->survived ? 0 : kvfs_check_probe(c, path, engine, params, err);

    if (rc != 0)
        return rc;
    rc = engine->open(engine, path, &options, &c->db, err);
    if (rc < 0)
        return rc;
    rc = engine->begin(c->db, &snap, err); /* who only reads a log looks for it here */
    if (rc < 0) {
        engine->close(c->db);
        c->db = NULL;
        return rc;
    }
    engine->end(snap);
    c->engine = engine;
    return 0;
}

/* The store of the engine NAME.  Where its log is lost a repair goes on with an empty one. */
static int
open_named(struct check *c, const char *path, const char *name, struct kvfs_error *err)
{
    const struct kvfs_engine *engine;
    int rc = kvfs_engine_find(name, &engine, err);

    if (rc == 0)
        rc = open_store(c, path, engine, NULL, err);
    if (rc != -EIO || !c->options->repair ||
        strncmp(name, KVFS_LOG_PREFIX, sizeof(KVFS_LOG_PREFIX) - 1) != 0)
        return rc;
    rc = open_store(c, path, engine, "log-anew=1", err);
    if (rc == 0)
        kvfs_check_found(c, "log", "begun anew, empty",
                         "is lost, and with it the last commits if the store had not got them yet; "
                         "what lay in its place is log.old");
    return rc;
}

/* Has the open store the place of a log?  1 or 0. */
static int
open_has_log(struct check *c, struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
    struct kvfs_db_snap *snap;
    size_t len;
    int rc = c->engine->begin(c->db, &snap, err);

    if (rc < 0)
        return rc;
    rc = c->engine->get(snap, KVFS_META, KVFS_LOG_KEY, KVFS_LOG_KEY_LEN, 0, &iov, 1, &len, err);
    c->engine->end(snap);
    return rc == -ENOENT ? 0 : rc < 0 ? rc : 1;
}

/* No file to tell the engine: the first that finds its store. */
static int
open_any_store(struct check *c, const char *path, struct kvfs_error *err)
{
    const struct kvfs_engine *engine;
    char name[KVFS_ENGINE_NAME_CAP];
    int rc = -ENOENT;

    for (size_t i = 0; rc < 0 && rc != -EINTR && (engine = kvfs_engine_at(i)) != NULL; i++)
        rc = open_store(c, path, engine, NULL, err);
    if (rc > 0 || rc == -EINTR)
        return rc;
    if (rc < 0)
        return kvfs_error_set(err, -EIO, "%s: no engine finds a store of its own", path);
    rc = open_has_log(c, err);
    if (rc == 0)
        return 0;
    (void)snprintf(name, sizeof(name), KVFS_LOG_PREFIX "%s", c->engine->name);
    c->engine->close(c->db);
    c->db = NULL;
    return rc < 0 ? rc : open_named(c, path, name, err);
}

/* Under the volume's lock. */
static int
open_directly(struct check *c, const char *path, struct kvfs_error *err)
{
    char name[KVFS_ENGINE_NAME_CAP];
    int rc;

    kvfs_volume_file_engine(&c->file, name);
    rc = c->file_ok ? open_named(c, path, name, err) : open_any_store(c, path, err);
    if (!open_is_damage(rc))
        return rc > 0 ? 0 : rc;
    kvfs_check_found(c, "store", NULL, "cannot be opened: %s", err->msg);
    return 0;
}

/* Before the volume is opened for reading.  What keeps the child from opening it keeps
 * us as well, and in better words.  0, 1 as kvfs_check_probe(), or -EINTR. */
static int
open_probe(struct check *c, const char *path, struct kvfs_error *err)
{
    const struct kvfs_engine *engine;
    struct kvfs_error local = {0};
    char name[KVFS_ENGINE_NAME_CAP];
    int rc;

    kvfs_volume_file_engine(&c->file, name);
    rc = kvfs_engine_find(name, &engine, &local);
    if (rc == 0) {
        /* One child is enough: sled, once open here, works in none. */
        rc = kvfs_check_probe(c, path, engine, NULL, &local);
        c->survived = rc <= 0 && rc != -EINTR;
    }
    if (rc == -EINTR)
        *err = local;
    return rc == -EINTR || rc == 1 ? rc : 0;
}

/* Take the volume's lock, and read the file `volume` under it: before, it only tells whether
 * there is a volume. */
static int
open_lock(struct check *c, const char *path, struct kvfs_error *err)
{
    bool repair = c->options->repair;
    int rc = kvfs_volume_file_read(path, &c->file, err);

    if (rc == 0 || rc == -EINVAL)
        rc = c->options->force ? 0 : kvfs_local_check(path, err);
    if (rc == 0)
        rc = kvfs_lease_table_open(path, !repair, repair, &c->leases, err);
    if (rc < 0)
        return rc;
    rc = kvfs_volume_file_read(path, &c->file, err);
    c->file_ok = rc == 0;
    if (rc == -EINVAL && !repair)
        kvfs_check_found(c, "file 'volume'", NULL, "%s", err->msg);
    return rc == -EINVAL ? 0 : rc;
}

int
kvfs_check_open(struct check *c, const char *path, struct kvfs_error *err)
{
    struct kvfs_volume_options readonly = {.readonly = true, .force = c->options->force};
    struct kvfs_error why = {0}; /* it is no volume to others */
    int rc;

    c->volume_path = realpath(path, NULL); /* so that all messages call it the same */
    if (c->volume_path == NULL)
        return kvfs_error_set(err, -errno, "%s: %s", path, kvfs_errno_text(errno));
    path = c->volume_path;
    rc = open_lock(c, path, err);
    if (rc < 0)
        return rc;
    if (!c->options->repair && c->file_ok) {
        rc = open_probe(c, path, err);
        if (rc != 0)
            return rc > 0 ? 0 : rc;
        rc = kvfs_volume_open(path, &readonly, &c->v, err);
        if (rc == 0) {
            c->engine = c->v->engine;
            c->db = c->v->db;
            return 0;
        }
        if (!open_is_damage(rc))
            return rc;
        why = *err;
    }
    rc = open_directly(c, path, err);
    /* Without its store no volume opens: that would be the same finding again. */
    if (why.code != 0 && (rc < 0 ? strcmp(why.msg, err->msg) != 0 : c->db != NULL))
        kvfs_check_found(c, "volume", NULL, "cannot be opened: %s", why.msg);
    return rc;
}

void
kvfs_check_close(struct check *c)
{
    if (c->v != NULL)
        (void)kvfs_volume_close(c->v, NULL); /* opened for reading: nothing to lose */
    else if (c->db != NULL)
        c->engine->close(c->db);
    kvfs_lease_table_close(c->leases);
    free(c->volume_path);
}

/* --- the superblock and the file `volume` --- */

static int
open_super_rebuild(struct check *c, struct kvfs_error *err)
{
    struct kvfs_super s = {.format_version = c->file.format_version};
    struct kvfs_engine_limits limits;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;

    kvfs_check_found(c, "superblock", c->file_ok ? "written anew" : NULL, "damaged or missing");
    if (!c->file_ok)
        return 0;
    memcpy(s.uuid, c->file.uuid, sizeof(s.uuid));
    memcpy(s.engine, c->file.engine, sizeof(s.engine));
    c->engine->limits(c->db, &limits);
    s.block_size_bytes = limits.value_best_bytes;
    kvfs_key_super(&key);
    return kvfs_check_put(c, &key, value, kvfs_super_encode(&s, &key, value), err);
}

static int
open_file_rebuild(struct check *c, struct kvfs_error *err)
{
    struct kvfs_volume_file f = {.format_version = c->super.format_version};

    memcpy(f.uuid, c->super.uuid, sizeof(f.uuid));
    memcpy(f.engine, c->super.engine, sizeof(f.engine));
    f.log = strncmp(c->engine->name, KVFS_LOG_PREFIX, sizeof(KVFS_LOG_PREFIX) - 1) == 0;
    kvfs_check_found(c, "file 'volume'", "written anew",
                     c->file_ok ? "says another uuid or engine than the superblock"
                                : "is damaged or missing");
    return kvfs_check_repairing(c) ? kvfs_volume_file_write(c->volume_path, &f, err) : 0;
}

int
kvfs_check_super(struct check *c, struct kvfs_error *err)
{
    const struct kvfs_super *s = &c->super;

    if (c->super_newer ||
        (c->super_ok && ((s->features_incompat & ~(uint64_t)KVFS_FEATURES_INCOMPAT) != 0 ||
                         (c->options->repair &&
                          (s->features_ro_compat & ~(uint64_t)KVFS_FEATURES_RO_COMPAT) != 0))))
        return kvfs_error_set(err, -ENOTSUP, "%s: the volume is of a newer format", c->volume_path);
    if (c->incomplete)
        return 0;
    if (!c->super_ok)
        return open_super_rebuild(c, err);
    if (c->file_ok && memcmp(s->uuid, c->file.uuid, sizeof(s->uuid)) == 0 &&
        strcmp(s->engine, c->file.engine) == 0)
        return 0;
    if (!c->file_ok && !c->options->repair)
        return 0; /* said when it was read */
    return open_file_rebuild(c, err);
}
