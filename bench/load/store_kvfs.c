/* SPDX-License-Identifier: BSD-3-Clause
 *
 * store_kvfs.c - a file in a volume, through libkvfs.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "store_kvfs.h"

#define KVFS_NAME       "load"
#define KVFS_WORK_STEPS 16

struct load_store {
    struct kvfs_volume *volume;
    struct kvfs_file *file;
    struct load_dataset data;
    bool own; /* the volume is closed with the store */
};

int
load_kvfs_attach(struct kvfs_volume *v, uint64_t ino, const struct load_dataset *data,
                 struct load_store **storep, struct kvfs_error *err)
{
    struct load_store *s = calloc(1, sizeof(*s));
    int rc;

    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    *s = (struct load_store){.volume = v, .data = *data};
    rc = kvfs_file_open(v, ino, KVFS_OPEN_WRITE, &s->file, err);
    if (rc == 0)
        *storep = s;
    else
        free(s);
    return rc;
}

static int
kvfs_make(struct kvfs_volume *v, const struct load_dataset *d, struct kvfs_attr *attr,
          struct kvfs_error *err)
{
    const struct kvfs_create create = {.mode = S_IFREG | 0600,
                                       .size_bytes = d->blocks * d->block_bytes,
                                       .block_size_bytes = d->block_bytes};

    return kvfs_create(v, KVFS_ROOT_INO, KVFS_NAME, &create, attr, err);
}

static int
kvfs_store_open(const struct load_target *t, bool create, struct load_store **storep,
                struct kvfs_error *err)
{
    struct kvfs_format_options format = {.engine = t->engine,
                                         .block_size_bytes = t->data.block_bytes};
    struct kvfs_volume_options options = {.engine_params = t->params};
    struct kvfs_volume *v = NULL;
    struct kvfs_attr attr;
    int rc = create ? kvfs_format(t->folder, &format, err) : 0;

    if (rc == 0)
        rc = kvfs_volume_open(t->folder, &options, &v, err);
    if (rc == 0)
        rc = create ? kvfs_make(v, &t->data, &attr, err)
                    : kvfs_lookup(v, KVFS_ROOT_INO, KVFS_NAME, &attr, err);
    if (rc == 0 && create)
        rc = kvfs_volume_sync(v, err);
    if (rc == 0)
        rc = load_kvfs_attach(v, attr.ino, &t->data, storep, err);
    if (rc == 0)
        (*storep)->own = true;
    else if (v != NULL)
        (void)kvfs_volume_close(v, NULL);
    return rc;
}

static int
kvfs_store_close(struct load_store *s, struct kvfs_error *err)
{
    int rc = 0;

    if (s->file != NULL)
        kvfs_file_close(s->file);
    if (s->own)
        rc = kvfs_volume_close(s->volume, err);
    free(s);
    return rc;
}

static int
kvfs_store_write(struct load_store *s, const struct load_piece *pieces, uint32_t count,
                 bool durable, struct kvfs_error *err)
{
    int rc = 0;

    (void)durable;
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = kvfs_file_pwrite(s->file, pieces[i].bytes,
                              (size_t)pieces[i].count * s->data.block_bytes,
                              pieces[i].index * s->data.block_bytes, 0, err);
    return rc;
}

static int
kvfs_store_read(struct load_store *s, const struct load_piece *piece, struct kvfs_error *err)
{
    return kvfs_file_pread(s->file, piece->bytes, (size_t)piece->count * s->data.block_bytes,
                           piece->index * s->data.block_bytes, err);
}

static int
kvfs_store_flush(struct load_store *s, struct kvfs_error *err)
{
    return kvfs_file_flush(s->file, err);
}

static int
kvfs_store_settle(struct load_store *s, struct kvfs_error *err)
{
    int rc = kvfs_volume_sync(s->volume, err);

    return rc == 0 ? kvfs_volume_work(s->volume, KVFS_WORK_STEPS, err) : rc;
}

int
load_kvfs_info(struct kvfs_volume *v, struct load_info *info, struct kvfs_error *err)
{
    const struct kvfs_engine *engine;
    struct kvfs_volume_info volume;
    struct kvfs_volume_stat stat;
    int rc = kvfs_volume_stat(v, &stat, err);

    kvfs_volume_info(v, &volume);
    if (rc == 0)
        rc = kvfs_engine_find(volume.engine, &engine, err);
    if (rc == 0)
        *info = (struct load_info){.version = engine->version(engine),
                                   .caps = volume.engine_caps,
                                   .used_bytes = stat.engine.used_bytes,
                                   .behind = stat.engine.log_used_bytes + stat.dirty_bytes};
    return rc;
}

static int
kvfs_store_info(struct load_store *s, struct load_info *info, struct kvfs_error *err)
{
    return load_kvfs_info(s->volume, info, err);
}

/* The file goes, and an empty one takes its place. */
static int
kvfs_store_remove(struct load_store *s, struct kvfs_error *err)
{
    struct kvfs_attr attr;
    int rc = kvfs_unlink(s->volume, KVFS_ROOT_INO, KVFS_NAME, err);

    if (rc == 0)
        rc = kvfs_make(s->volume, &s->data, &attr, err);
    if (rc == 0) {
        kvfs_file_close(s->file);
        s->file = NULL;
        rc = kvfs_file_open(s->volume, attr.ino, KVFS_OPEN_WRITE, &s->file, err);
    }
    if (rc == 0)
        rc = kvfs_volume_sync(s->volume, err);
    while (rc == 0 && (rc = kvfs_volume_work(s->volume, KVFS_WORK_STEPS, err)) > 0)
        rc = 0;
    return rc;
}

static int
kvfs_store_compact(const struct load_target *t, struct kvfs_error *err)
{
    return kvfs_volume_compact(t->folder, 0, NULL, NULL, NULL, err);
}

const struct load_layer load_layer_kvfs = {
    .name = "kvfs",
    .open = kvfs_store_open,
    .close = kvfs_store_close,
    .write = kvfs_store_write,
    .read = kvfs_store_read,
    .flush = kvfs_store_flush,
    .settle = kvfs_store_settle,
    .info = kvfs_store_info,
    .remove = kvfs_store_remove,
    .compact = kvfs_store_compact,
};
