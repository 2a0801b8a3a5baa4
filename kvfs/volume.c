/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume.c - opening and closing volumes, and the one way to change META.
 *
 * 1. A volume is open at most once in a process (an LMDB environment opened
 *    twice loses its locks): a table, keyed by device and inode of the folder,
 *    hands out the same handle and counts; another copy of the library in the
 *    process, which has a table of its own, is refused (process.c).
 * 2. A handle does not cross fork: the fork handler marks every volume of the
 *    table in the child and closes its lock file, so that the parent's locks
 *    end with the parent.
 * 3. A write whose outcome is unknown poisons the volume: nothing is written
 *    through this handle again, reads go on.  What was acknowledged and lies in
 *    memory is then neither known to be on the disk nor claimed to be.
 * 4. Opening reads the file `volume`, the superblock and what the engine needs,
 *    so its time does not depend on what the volume holds.
 * 5. What the file `volume` says counts only if it was read under the volume's
 *    lock: who changes it, the log switched on or off or a new format, holds that
 *    alone.  What was read before says no more than that there is a volume.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lease.h"
#include "data/node.h"
#include "data/overlay.h"
#include "process.h"
#include "volume_file.h"
#include "volume_priv.h"
#include "data/work.h"

#define VOLUME_IDS_RESERVED 1024

static pthread_mutex_t volume_table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kvfs_volume *volume_table;
static pthread_once_t volume_once = PTHREAD_ONCE_INIT;

static void
volume_fork_prepare(void)
{
    (void)pthread_mutex_lock(&volume_table_lock);
    kvfs_process_fork_prepare();
}

static void
volume_fork_parent(void)
{
    kvfs_process_fork_parent();
    (void)pthread_mutex_unlock(&volume_table_lock);
}

static void
volume_fork_child(void)
{
    kvfs_process_fork_child();
    for (struct kvfs_volume *v = volume_table; v != NULL; v = v->next) {
        atomic_store(&v->forked, true);
        kvfs_lease_table_forget(v->leases);
    }
    volume_table = NULL; /* the child opens its own */
    (void)pthread_mutex_unlock(&volume_table_lock);
}

static void
volume_init_once(void)
{
    (void)pthread_atfork(volume_fork_prepare, volume_fork_parent, volume_fork_child);
}

void
kvfs_volume_fork_handlers(void)
{
    (void)pthread_once(&volume_once, volume_init_once);
}

int
kvfs_volume_usable(struct kvfs_volume *v, struct kvfs_error *err)
{
    if (atomic_load_explicit(&v->forked, memory_order_relaxed))
        return kvfs_error_set(err, -EBADF,
                              "%s: the handle belongs to the parent process; open the volume again",
                              v->path);
    return 0;
}

int
kvfs_volume_writable(struct kvfs_volume *v, struct kvfs_error *err)
{
    int code = atomic_load_explicit(&v->poisoned, memory_order_relaxed);

    if (v->readonly)
        return kvfs_error_set(err, -EROFS, "%s: the volume is open for reading only", v->path);
    if (code != 0)
        return kvfs_error_set(err, -EIO,
                              "%s: an earlier write failed (%s); nothing more is written until the "
                              "volume is opened again",
                              v->path, kvfs_errno_text(code));
    return kvfs_volume_usable(v, err);
}

int
kvfs_volume_poison(struct kvfs_volume *v, int code, struct kvfs_error *err)
{
    int clean = 0;

    (void)atomic_compare_exchange_strong(&v->poisoned, &clean, code);
    if (err != NULL && err->code == code)
        err->code = -EIO; /* keep the engine's own words */
    else
        (void)kvfs_error_set(err, -EIO, "%s: a write failed: %s", v->path, kvfs_errno_text(code));
    return -EIO;
}

void
kvfs_volume_synced(struct kvfs_volume *v, uint64_t applies)
{
    uint_fast64_t synced = atomic_load(&v->applies_synced);

    while (synced < applies &&
           !atomic_compare_exchange_weak(&v->applies_synced, &synced, applies)) {
    }
}

int
kvfs_volume_apply(struct kvfs_volume *v, struct kvfs_batch_builder *b,
                  enum kvfs_durability durability, struct kvfs_error *err)
{
    struct kvfs_batch batch;
    int rc = kvfs_volume_writable(v, err);

    if (rc == 0 && kvfs_lease_table_gone(v->leases)) {
        (void)kvfs_error_set(err, -EIO, "%s: the folder of the volume was removed", v->path);
        rc = kvfs_volume_poison(v, -EIO, err);
    }
    if (rc == 0)
        rc = kvfs_batch_end(b, &batch);
    if (rc == -ENOMEM)
        rc = kvfs_error_set(err, -ENOMEM, "%s: no memory for a batch", v->path);
    if (rc == 0) {
        uint64_t before = atomic_load(&v->applies);

        rc = v->engine->apply(v->db, &batch, durability, err);
        if (rc == 0 && durability == KVFS_DURABLE)
            kvfs_volume_synced(v, before);
        else if (rc == 0)
            atomic_fetch_add(&v->applies, 1);
        if (rc < 0 && rc != -EAGAIN && rc != -ENOSPC && rc != -E2BIG && rc != -ENOMEM)
            rc = kvfs_volume_poison(v, rc, err);
    }
    kvfs_batch_reset(b);
    return rc;
}

int
kvfs_meta_get(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_key *key,
              void *value, size_t cap, size_t *len, struct kvfs_error *err)
{
    struct iovec iov = {.iov_base = value, .iov_len = cap};
    int rc = v->engine->get(snap, KVFS_META, key->bytes, key->len, 0, &iov, 1, len, err);

    if (rc == 0 && *len > cap)
        return kvfs_error_set(err, -EIO, "%s: a record of %zu bytes is too long", v->path, *len);
    return rc;
}

/* Reserve a range of numbers, for good, whoever else does so at the same time. */
static int
volume_ids_reserve(struct kvfs_volume *v, struct kvfs_error *err)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_key key;
    uint8_t old[KVFS_SMALL_RECORD_MAX];
    uint8_t new[KVFS_SMALL_RECORD_MAX];
    int rc = b == NULL ? -ENOMEM : -EAGAIN;

    kvfs_key_counter(&key, KVFS_COUNTER_ID);
    for (int tries = 0; rc == -EAGAIN && tries < 1000; tries++) {
        struct kvfs_db_snap *snap;
        uint64_t n = 0;
        size_t len;

        rc = v->engine->begin(v->db, &snap, err);
        if (rc < 0)
            break;
        rc = kvfs_meta_get(v, snap, &key, old, sizeof(old), &len, err);
        v->engine->end(snap);
        if (rc == 0 && kvfs_number_decode(&n, &key, old, len) < 0)
            rc = -EIO;
        if (rc < 0) {
            rc = kvfs_error_set(err, -EIO, "%s: the counter of numbers is damaged", v->path);
            break;
        }
        kvfs_batch_expect(b, KVFS_META, key.bytes, key.len, old, len);
        len = kvfs_number_encode(n + VOLUME_IDS_RESERVED, &key, new);
        kvfs_batch_put(b, KVFS_META, key.bytes, key.len, new, len);
        rc = kvfs_volume_apply(v, b, KVFS_ORDERED, err);
        if (rc == 0) {
            v->id_next = n;
            v->id_end = n + VOLUME_IDS_RESERVED;
        }
    }
    kvfs_batch_free(b);
    return rc;
}

int
kvfs_id_new(struct kvfs_volume *v, uint64_t *id, struct kvfs_error *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&v->id_lock);
    if (v->id_next == v->id_end)
        rc = volume_ids_reserve(v, err);
    if (rc == 0)
        *id = v->id_next++;
    (void)pthread_mutex_unlock(&v->id_lock);
    return rc;
}

/* The superblock must agree with the file `volume`: two folders mixed up, or a
 * store replaced by hand, are refused before anything is believed. */
static int
volume_super_read(struct kvfs_volume *v, const struct kvfs_volume_file *file,
                  struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;
    int rc;

    kvfs_key_super(&key);
    rc = v->engine->begin(v->db, &snap, err);
    if (rc < 0)
        return rc;
    rc = kvfs_meta_get(v, snap, &key, value, sizeof(value), &len, err);
    v->engine->end(snap);
    if (rc == -ENOENT)
        return kvfs_error_set(err, -EINVAL, "%s: the store has no superblock", v->path);
    if (rc < 0)
        return rc;
    rc = kvfs_super_decode(&v->super, &key, value, len);
    if (rc == -ENOTSUP)
        return kvfs_error_set(err, rc, "%s: the superblock is of a newer format", v->path);
    if (rc < 0)
        return kvfs_error_set(err, -EIO, "%s: the superblock is damaged", v->path);
    if (v->super.format_version > KVFS_FORMAT_VERSION)
        return kvfs_error_set(err, -ENOTSUP, "%s: the volume has format %u, this kvfs knows up to %u",
                              v->path, v->super.format_version, KVFS_FORMAT_VERSION);
    if (memcmp(v->super.uuid, file->uuid, sizeof(file->uuid)) != 0)
        return kvfs_error_set(err, -EINVAL, "%s: file 'volume' and the store are of two volumes",
                              v->path);
    if (strcmp(v->super.engine, file->engine) != 0)
        return kvfs_error_set(err, -EINVAL, "%s: file 'volume' says engine %s, the store says %s",
                              v->path, file->engine, v->super.engine);
    if ((v->super.features_incompat & ~(uint64_t)KVFS_FEATURES_INCOMPAT) != 0)
        return kvfs_error_set(err, -ENOTSUP, "%s: the volume uses features unknown to this kvfs",
                              v->path);
    if ((v->super.features_ro_compat & ~(uint64_t)KVFS_FEATURES_RO_COMPAT) != 0 && !v->readonly)
        return kvfs_error_set(err, -ENOTSUP,
                              "%s: the volume uses features that this kvfs can only read", v->path);
    return 0;
}

static void
volume_free(struct kvfs_volume *v)
{
    kvfs_nodes_free(v->nodes);
    kvfs_overlay_free(v->overlay);
    if (v->db != NULL)
        v->engine->close(v->db);
    kvfs_lease_table_close(v->leases);
    (void)pthread_mutex_destroy(&v->names);
    (void)pthread_mutex_destroy(&v->id_lock);
    free(v->path);
    free(v);
}

static int
volume_options_take(struct kvfs_volume *v, const struct kvfs_volume_options *o,
                    struct kvfs_error *err)
{
    v->readonly = o->readonly;
    v->cache_bytes = o->cache_bytes != 0 ? o->cache_bytes : KVFS_CACHE_BYTES_DEFAULT;
    v->batch_bytes = o->batch_bytes;
    v->commit_interval_ms =
        o->commit_interval_ms != 0 ? o->commit_interval_ms : KVFS_COMMIT_INTERVAL_MS_DEFAULT;
    if (v->cache_bytes < KVFS_CACHE_BYTES_MIN)
        return kvfs_error_set(err, -EINVAL, "%s: a cache of %zu bytes is less than the least, %zu",
                              v->path, v->cache_bytes, KVFS_CACHE_BYTES_MIN);
    return 0;
}

/* The engine that the folder names, held against the one that was asked for. */
static int
volume_engine_find(struct kvfs_volume *v, const struct kvfs_volume_file *file, const char *wanted,
                   struct kvfs_error *err)
{
    char own[KVFS_ENGINE_NAME_CAP];
    const char *name = own;
    struct kvfs_error why = {0};
    int rc;

    kvfs_volume_file_engine(file, own);
    if (wanted != NULL && strchr(wanted, '/') != NULL) {
        name = wanted; /* a file; what it calls itself must be the volume's */
    } else if (wanted != NULL && strcmp(wanted, own) != 0) {
        return kvfs_error_set(err, -EINVAL, "%s: the volume has engine %s, not %s", v->path, own,
                              wanted);
    }
    rc = kvfs_engine_find(name, &v->engine, &why);
    if (rc < 0) /* there is a volume, so this is no -ENOENT */
        return kvfs_error_set(err, rc == -ENOENT ? -ENOTSUP : rc, "%s: %s", v->path, why.msg);
    if (strcmp(v->engine->name, own) != 0)
        return kvfs_error_set(err, -EINVAL, "%s: the volume has engine %s, not %s", v->path, own,
                              v->engine->name);
    return rc;
}

static uint64_t
volume_now_ns(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int
volume_start(struct kvfs_volume *v, const struct kvfs_volume_options *o, struct kvfs_error *err)
{
    struct kvfs_engine_options eo = {.readonly = o->readonly,
                                     .store_max_bytes = o->store_max_bytes,
                                     .params = o->engine_params};
    struct kvfs_volume_file file;
    int rc = kvfs_volume_file_read(v->path, &file, err);

    if (rc == 0 && !o->force)
        rc = kvfs_local_check(v->path, err);
    if (rc == 0)
        rc = volume_options_take(v, o, err);
    if (rc == 0)
        rc = kvfs_lease_table_open(v->path, o->readonly, false, &v->leases, err);
    if (rc == 0) /* it is a volume; which, and whether with a log, is settled from here on */
        rc = kvfs_volume_file_read(v->path, &file, err);
    if (rc == 0)
        rc = volume_engine_find(v, &file, o->engine, err);
    if (rc == 0) {
        v->open_engine_ns = volume_now_ns();
        rc = v->engine->open(v->engine, v->path, &eo, &v->db, err);
        v->open_engine_ns = volume_now_ns() - v->open_engine_ns;
        if (rc == -ENOENT)
            rc = kvfs_error_set(err, -EINVAL, "%s: the %s store of the volume is missing", v->path,
                                v->engine->name);
    }
    if (rc < 0)
        return rc;
    v->engine->limits(v->db, &v->limits);
    rc = volume_super_read(v, &file, err);
    if (rc == 0)
        rc = kvfs_nodes_new(&v->nodes);
    if (rc == 0)
        rc = kvfs_overlay_new(v, &v->overlay);
    if (rc == 0 && !v->readonly)
        rc = kvfs_worker_start(v, err);
    if (rc == -ENOMEM)
        rc = kvfs_error_set(err, rc, "%s: no memory", v->path);
    return rc;
}

/* Under the table's lock. */
static int
volume_open_new(char *real, const struct stat *st, const struct kvfs_volume_options *o,
                struct kvfs_volume **volumep, struct kvfs_error *err)
{
    struct kvfs_volume *v = calloc(1, sizeof(*v));
    int rc;

    if (v == NULL) {
        free(real);
        return kvfs_error_set(err, -ENOMEM, "no memory");
    }
    v->path = real;
    v->dev = st->st_dev;
    v->dirino = st->st_ino;
    v->opens = 1;
    (void)pthread_mutex_init(&v->names, NULL);
    (void)pthread_mutex_init(&v->id_lock, NULL);
    v->open_ns = volume_now_ns();
    rc = volume_start(v, o, err);
    v->open_ns = volume_now_ns() - v->open_ns;
    if (rc < 0) {
        volume_free(v);
        return rc;
    }
    v->next = volume_table;
    volume_table = v;
    *volumep = v;
    return 0;
}

int
kvfs_volume_open(const char *path, const struct kvfs_volume_options *options,
                 struct kvfs_volume **volumep, struct kvfs_error *err)
{
    static const struct kvfs_volume_options defaults;
    const struct kvfs_volume_options *o = options != NULL ? options : &defaults;
    struct kvfs_volume *v;
    struct stat st;
    char *real = realpath(path, NULL);
    int rc;

    if (real == NULL || stat(real, &st) < 0) {
        rc = kvfs_error_set(err, -errno, "%s: %s", path, kvfs_errno_text(errno));
        free(real);
        return rc;
    }
    kvfs_volume_fork_handlers();
    (void)pthread_mutex_lock(&volume_table_lock);
    for (v = volume_table; v != NULL; v = v->next) {
        if (v->dev == st.st_dev && v->dirino == st.st_ino)
            break;
    }
    if (v == NULL) {
        rc = volume_open_new(real, &st, o, volumep, err);
    } else {
        free(real);
        if (v->readonly && !o->readonly)
            rc = kvfs_error_set(err, -EBUSY, "%s: the volume is open for reading only", path);
        else if (o->engine != NULL && strchr(o->engine, '/') == NULL &&
                 strcmp(o->engine, v->engine->name) != 0)
            rc = kvfs_error_set(err, -EINVAL, "%s: the volume has engine %s, not %s", path,
                                v->engine->name, o->engine);
        else {
            v->opens++;
            *volumep = v;
            rc = 0;
        }
    }
    (void)pthread_mutex_unlock(&volume_table_lock);
    return rc;
}

int
kvfs_volume_close(struct kvfs_volume *v, struct kvfs_error *err)
{
    int rc = 0;

    if (atomic_load(&v->forked))
        return 0; /* the parent's; its threads and locks are not here */
    (void)pthread_mutex_lock(&volume_table_lock);
    if (--v->opens > 0) {
        (void)pthread_mutex_unlock(&volume_table_lock);
        return 0;
    }
    /* Under the table's lock, so that opening again waits for the end of this. */
    kvfs_worker_stop(v);
    if (!v->readonly)
        rc = kvfs_volume_sync(v, err);
    for (struct kvfs_volume **p = &volume_table; *p != NULL; p = &(*p)->next) {
        if (*p == v) {
            *p = v->next;
            break;
        }
    }
    volume_free(v);
    (void)pthread_mutex_unlock(&volume_table_lock);
    return rc;
}

int
kvfs_volume_sync_applies(struct kvfs_volume *v, uint64_t applies, struct kvfs_error *err)
{
    uint64_t all;
    int rc;

    if (atomic_load(&v->applies_synced) >= applies)
        return 0;
    rc = kvfs_volume_writable(v, err);
    if (rc < 0)
        return rc;
    all = atomic_load(&v->applies);
    rc = v->engine->sync(v->db, err);
    if (rc < 0)
        return kvfs_volume_poison(v, rc, err);
    kvfs_volume_synced(v, all);
    return 0;
}

int
kvfs_volume_sync(struct kvfs_volume *v, struct kvfs_error *err)
{
    int rc = kvfs_volume_usable(v, err);

    if (rc < 0 || v->readonly)
        return rc;
    rc = kvfs_commit_all(v, KVFS_DURABLE, err);
    if (rc < 0)
        return rc;
    /* Names went to the engine at once, ordered; so did what other processes wrote. */
    return kvfs_volume_sync_applies(v, (v->engine->caps & KVFS_CAP_MULTIPROCESS) != 0
                                           ? UINT64_MAX
                                           : atomic_load(&v->applies), err);
}

void
kvfs_volume_info(struct kvfs_volume *v, struct kvfs_volume_info *info)
{
    memset(info, 0, sizeof(*info));
    info->path = v->path;
    info->engine = v->engine->name;
    kvfs_uuid_text(v->super.uuid, info->uuid);
    info->format_version = v->super.format_version;
    info->block_size_bytes = v->super.block_size_bytes;
    info->readonly = v->readonly;
    info->poisoned = atomic_load(&v->poisoned);
    info->limits = v->limits;
    info->engine_caps = v->engine->caps;
    info->open_ns = v->open_ns;
    info->open_engine_ns = v->open_engine_ns;
}
