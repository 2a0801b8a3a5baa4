/* SPDX-License-Identifier: BSD-3-Clause
 *
 * copy.c - backup and compact of the jammdb and sled engines: record by record.
 *
 *  1. A copy is of one snapshot and made through the engine's own calls, so the new store
 *     is in its smallest form and none of the old one's damage is in it.
 *  2. compact: the copy is made in a folder of its own, brought to the medium, and takes the
 *     store's place by one rename (of a folder: an exchange).  What a crash leaves of the
 *     copy is removed by the next open for writing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rust_priv.h"

#define COPY_BATCH_BYTES ((size_t)8 << 20)
#define COPY_BATCH_OPS   8192u

struct copy {
    const struct kvfs_engine *engine;
    struct kvfs_db *from, *to;
    kvfs_progress_fn *progress;
    void *progress_arg;
    uint64_t done, total;
    struct kvfs_error *err;

    uint8_t *bytes; /* keys and values of the batch to come */
    size_t used;
    struct kvfs_op *ops;
    size_t count;
};

static int
copy_flush(struct copy *c)
{
    const struct kvfs_batch batch = {.ops = c->ops, .ops_count = c->count};
    int rc = 0;

    if (c->count > 0)
        rc = c->engine->apply(c->to, &batch, KVFS_NONE, c->err);
    c->done += c->count;
    c->count = 0;
    c->used = 0;
    if (rc == 0 && c->progress != NULL &&
        c->progress(c->progress_arg, c->done, c->total > c->done ? c->total : c->done) != 0)
        rc = kvfs_error_set(c->err, -EINTR, "%s: interrupted", c->from->path);
    return rc;
}

static int
copy_record(struct copy *c, struct kvfs_db_cursor *cursor, enum kvfs_keyspace keyspace,
            const void *key, size_t key_len, size_t value_len)
{
    struct iovec iov;
    int rc = 0;

    if (c->count == COPY_BATCH_OPS || c->used + key_len + value_len > COPY_BATCH_BYTES)
        rc = copy_flush(c);
    if (rc != 0)
        return rc;
    memcpy(c->bytes + c->used, key, key_len);
    iov = (struct iovec){.iov_base = c->bytes + c->used + key_len, .iov_len = value_len};
    c->ops[c->count] = (struct kvfs_op){.type = KVFS_OP_PUT,
                                        .keyspace = (uint8_t)keyspace,
                                        .key = c->bytes + c->used,
                                        .key_len = (uint16_t)key_len,
                                        .value = {iov}};
    rc = c->engine->cursor_value(cursor, 0, &iov, 1, c->err);
    c->count++;
    c->used += key_len + value_len;
    return rc;
}

static int
copy_keyspace(struct copy *c, struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace)
{
    struct kvfs_db_cursor *cursor;
    size_t key_len, value_len;
    const void *key;
    int rc = c->engine->cursor_open(snap, keyspace, NULL, 0, NULL, 0, 0, &cursor, c->err);

    if (rc != 0)
        return rc;
    while ((rc = c->engine->cursor_next(cursor, &key, &key_len, &value_len, c->err)) == 1) {
        rc = copy_record(c, cursor, keyspace, key, key_len, value_len);
        if (rc != 0)
            break;
    }
    c->engine->cursor_close(cursor);
    return rc == 0 ? copy_flush(c) : rc;
}

static int
copy_all(struct copy *c)
{
    struct kvfs_engine_stat stat;
    struct kvfs_db_snap *snap;
    int rc = c->engine->stat(c->from, &stat, c->err);

    if (rc != 0)
        return rc;
    c->total = stat.meta_records + stat.data_records;
    rc = c->engine->begin(c->from, &snap, c->err);
    if (rc != 0)
        return rc;
    rc = copy_keyspace(c, snap, KVFS_META);
    if (rc == 0)
        rc = copy_keyspace(c, snap, KVFS_DATA);
    c->engine->end(snap);
    return rc;
}

static int
copy_into(struct copy *c, const char *to)
{
    const struct kvfs_engine_options options = {.create = true};
    int rc;

    c->bytes = malloc(COPY_BATCH_BYTES);
    c->ops = calloc(COPY_BATCH_OPS, sizeof(*c->ops));
    rc = c->bytes != NULL && c->ops != NULL
             ? c->engine->open(c->engine, to, &options, &c->to, c->err)
             : kvfs_error_set(c->err, -ENOMEM, "%s: no memory for a copy", to);
    if (rc == 0) {
        rc = copy_all(c);
        c->engine->close(c->to);
    }
    free(c->bytes);
    free(c->ops);
    if (rc != 0)
        return rc;
    rc = kvfs_rust_sync_folder(to, true);
    return rc != 0 ? kvfs_error_set(c->err, rc, "%s: %s", to, strerrordesc_np(-rc)) : 0;
}

int
kvfs_rust_copy(const struct kvfs_engine *engine, struct kvfs_db *db, const char *to,
               kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err)
{
    struct copy c = {.engine = engine, .from = db, .progress = progress,
                     .progress_arg = progress_arg, .err = err};
    int rc = kvfs_fork_check(db->generation, db->path, err);

    return rc != 0 ? rc : copy_into(&c, to);
}

/* --- compact ------------------------------------------------------------------------------- */

/* Put FRESH, a file or a folder, in the place of OLD. */
static int
copy_replace(const char *folder, const char *fresh, const char *old)
{
    struct stat st;
    int rc = 0;

    if (stat(fresh, &st) != 0 ||
        (S_ISDIR(st.st_mode) ? renameat2(AT_FDCWD, fresh, AT_FDCWD, old, RENAME_EXCHANGE)
                             : rename(fresh, old)) != 0)
        rc = -errno;
    return rc != 0 ? rc : kvfs_rust_sync_folder(folder, false);
}

static int
copy_aside(const struct kvfs_rust_compact *how, const char *path, const char *aside,
           kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.create = false};
    struct kvfs_db *db;
    int rc;

    kvfs_rust_remove(aside);
    if (mkdir(aside, 0777) != 0)
        return kvfs_error_set(err, -errno, "%s: %s", aside, strerrordesc_np(errno));
    rc = how->open(path, &options, &db, err);
    if (rc != 0)
        return rc;
    rc = kvfs_rust_copy(how->engine, db, aside, progress, progress_arg, err);
    how->engine->close(db);
    return rc;
}

int
kvfs_rust_compact(const struct kvfs_rust_compact *how, const char *path,
                  kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err)
{
    char *aside = kvfs_rust_join(path, KVFS_RUST_COMPACT), *old = kvfs_rust_join(path, how->name);
    char *fresh = aside != NULL ? kvfs_rust_join(aside, how->name) : NULL;
    int holder = -1;
    int rc = fresh == NULL || old == NULL ? kvfs_error_set(err, -ENOMEM, "%s: no memory", path)
                                          : kvfs_holder_take(path, false, &holder, err);

    if (rc == 0) {
        rc = copy_aside(how, path, aside, progress, progress_arg, err);
        if (rc == 0) {
            rc = copy_replace(path, fresh, old);
            if (rc != 0)
                rc = kvfs_error_set(err, rc, "%s: %s", old, strerrordesc_np(-rc));
        }
        kvfs_rust_remove(aside);
        kvfs_holder_drop(holder);
    }
    free(aside);
    free(fresh);
    free(old);
    return rc;
}

int
kvfs_rust_compact_need(const struct kvfs_engine *engine, const char *path, uint64_t *bytes,
                       struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.readonly = true};
    struct kvfs_engine_stat stat;
    struct kvfs_db *db;
    int rc = engine->open(engine, path, &options, &db, err);

    if (rc != 0)
        return rc;
    rc = engine->stat(db, &stat, err);
    engine->close(db);
    if (rc == 0)
        *bytes = stat.used_bytes + stat.used_bytes / 4 + ((uint64_t)4 << 20);
    return rc;
}
