/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file.c - reading and writing the bytes of a file.
 *
 * A write: see file_write.c.
 * A read: see read.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "file_write.h"
#include "overlay.h"
#include "read.h"
#include "work.h"

/* --- open ------------------------------------------------------------------ */

static void
file_info_set(struct kvfs_file *f, const struct kvfs_view *view)
{
    (void)pthread_mutex_lock(&f->info_lock);
    f->info = (struct kvfs_file_info){.ino = view->ino,
                                      .size_bytes = view->contents.size_bytes,
                                      .block_size_bytes = view->block_size,
                                      .version = view->contents.version};
    (void)pthread_mutex_unlock(&f->info_lock);
}

/* Read the file's facts from the engine. */
static int
file_info_load(struct kvfs_file *f, struct kvfs_error *err)
{
    struct kvfs_volume *v = f->node->v;
    struct kvfs_db_snap *snap;
    struct kvfs_view view = {0};
    int rc = v->engine->begin(v->db, &snap, err);

    if (rc < 0)
        return rc;
    rc = kvfs_view_load(v, snap, f->node->ino, &view, err);
    v->engine->end(snap);
    if (rc == 0)
        file_info_set(f, &view);
    kvfs_view_free(&view);
    return rc;
}

int
kvfs_file_open(struct kvfs_volume *v, uint64_t ino, unsigned flags, struct kvfs_file **filep,
               struct kvfs_error *err)
{
    struct kvfs_file *f;
    int rc = kvfs_volume_usable(v, err);

    if (rc < 0)
        return rc;
    f = calloc(1, sizeof(*f));
    if (f == NULL || kvfs_node_get(v, ino, &f->node) < 0) {
        free(f);
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", v->path);
    }
    f->flags = flags;
    (void)pthread_mutex_init(&f->info_lock, NULL);
    rc = file_info_load(f, err);
    if (rc == 0 && (flags & KVFS_OPEN_WRITE) != 0)
        rc = kvfs_node_write_begin(f->node, err);
    if (rc < 0) {
        kvfs_node_put(f->node);
        (void)pthread_mutex_destroy(&f->info_lock);
        free(f);
        return rc;
    }
    *filep = f;
    return 0;
}

void
kvfs_file_close(struct kvfs_file *f)
{
    if (f == NULL)
        return;
    if (!atomic_load(&f->node->v->forked)) {
        kvfs_node_unlock(f->node, f);
        if ((f->flags & KVFS_OPEN_WRITE) != 0)
            kvfs_node_write_end(f->node);
        kvfs_node_put(f->node);
    }
    (void)pthread_mutex_destroy(&f->info_lock);
    free(f);
}

int
kvfs_file_lock(struct kvfs_file *f, struct kvfs_error *err)
{
    return kvfs_node_lock(f->node, f, (f->flags & KVFS_OPEN_WRITE) != 0 ? 1 : 0, err);
}

void
kvfs_file_unlock(struct kvfs_file *f)
{
    kvfs_node_unlock(f->node, f);
}

void
kvfs_file_info(struct kvfs_file *f, struct kvfs_file_info *info)
{
    struct kvfs_node *node = f->node;
    struct kvfs_overlay *o = node->v->overlay;

    kvfs_cut_lock_shared(o);
    (void)pthread_mutex_lock(&f->info_lock);
    if (node->leased) {
        (void)pthread_mutex_lock(&node->mem_lock);
        f->info.size_bytes = node->mem.size_bytes;
        f->info.version = node->mem.version;
        (void)pthread_mutex_unlock(&node->mem_lock);
    }
    *info = f->info;
    (void)pthread_mutex_unlock(&f->info_lock);
    kvfs_cut_unlock(o);
}

static bool
file_is_leased(struct kvfs_file *f)
{
    struct kvfs_overlay *o = f->node->v->overlay;
    bool leased;

    kvfs_cut_lock_shared(o);
    leased = f->node->leased;
    kvfs_cut_unlock(o);
    return leased;
}

int
kvfs_file_refresh(struct kvfs_file *f, struct kvfs_error *err)
{
    struct kvfs_volume *v = f->node->v;
    int rc;

    if (!file_is_leased(f))
        return file_info_load(f, err);
    (void)pthread_mutex_lock(&v->overlay->commit_lock);
    rc = kvfs_commit_adopt(v, f->node, err);
    (void)pthread_mutex_unlock(&v->overlay->commit_lock);
    return rc;
}

/* --- read ------------------------------------------------------------------ */

static int
file_beyond(struct kvfs_file *f, uint64_t count, uint64_t offset, uint64_t size,
            struct kvfs_error *err)
{
    return kvfs_error_set(err, -EINVAL,
                          "%s: inode %llu: %llu bytes at %llu reach beyond the end at %llu",
                          f->node->v->path, (unsigned long long)f->node->ino,
                          (unsigned long long)count, (unsigned long long)offset,
                          (unsigned long long)size);
}

/* A file that this process does not write: everything in one engine snapshot,
 * since whoever writes it may change all of it at any time. */
static int
file_read_foreign(struct kvfs_file *f, uint8_t *buf, size_t count, uint64_t offset,
                  struct kvfs_error *err)
{
    struct kvfs_volume *v = f->node->v;
    struct kvfs_db_snap *snap;
    struct kvfs_view view = {0};
    struct kvfs_read r;
    int rc = v->engine->begin(v->db, &snap, err);

    if (rc < 0)
        return rc;
    rc = kvfs_view_load(v, snap, f->node->ino, &view, err);
    if (rc == 0 &&
        (offset > view.contents.size_bytes || count > view.contents.size_bytes - offset))
        rc = file_beyond(f, count, offset, view.contents.size_bytes, err);
    for (size_t done = 0; rc == 0 && done < count; done += r.count) {
        kvfs_read_begin(&r, &view, buf + done, offset + done, count - done);
        for (size_t i = 0; i < r.blocks; i++) {
            r.state[i] = KVFS_SLOT_EMPTY;
            r.hole_cut[i] = kvfs_holes_cut(&view.holes, r.first + i);
        }
        rc = kvfs_read_engine(v, snap, &view, &r, err);
    }
    kvfs_view_free(&view);
    v->engine->end(snap);
    return rc;
}

int
kvfs_file_pread(struct kvfs_file *f, void *buf, size_t count, uint64_t offset,
                struct kvfs_error *err)
{
    struct kvfs_node *node = f->node;
    struct kvfs_overlay *o = node->v->overlay;
    struct kvfs_read r;
    int rc = kvfs_volume_usable(node->v, err);

    for (size_t done = 0; rc == 0 && done < count; done += r.count) {
        uint64_t size;

        kvfs_cut_lock_shared(o);
        if (!node->leased) {
            kvfs_cut_unlock(o);
            return file_read_foreign(f, (uint8_t *)buf + done, count - done, offset + done, err);
        }
        (void)pthread_mutex_lock(&node->mem_lock);
        size = node->mem.size_bytes;
        (void)pthread_mutex_unlock(&node->mem_lock);
        if (offset > size || count > size - offset) {
            kvfs_cut_unlock(o);
            return file_beyond(f, count, offset, size, err);
        }
        kvfs_read_begin(&r, &node->view, (uint8_t *)buf + done, offset + done, count - done);
        rc = kvfs_read_leased(node, &r, err);
    }
    return rc;
}

int
kvfs_file_cache(struct kvfs_file *f, uint64_t count, uint64_t offset, struct kvfs_error *err)
{
    struct kvfs_file_info info;
    uint8_t *buf;

    kvfs_file_info(f, &info);
    if (offset > info.size_bytes || count > info.size_bytes - offset)
        return file_beyond(f, count, offset, info.size_bytes, err);
    buf = malloc(1u << 20);
    while (buf != NULL && count > 0) {
        size_t n = count < (1u << 20) ? (size_t)count : 1u << 20;

        if (kvfs_file_pread(f, buf, n, offset, NULL) < 0)
            break;
        offset += n;
        count -= n;
    }
    free(buf);
    return 0;
}

/* --- write ----------------------------------------------------------------- */

static int
file_write_checks(struct kvfs_file *f, uint64_t count, uint64_t offset, unsigned flags,
                  struct kvfs_error *err)
{
    struct kvfs_node *node = f->node;
    uint64_t size;
    int rc = kvfs_volume_writable(node->v, err);

    if (rc < 0)
        return rc;
    if ((flags & ~(unsigned)(KVFS_FUA | KVFS_EXTEND | KVFS_FAST_ONLY)) != 0)
        return kvfs_error_set(err, -EINVAL, "%s: unknown flags 0x%x", node->v->path, flags);
    if ((f->flags & KVFS_OPEN_WRITE) == 0)
        return kvfs_error_set(err, -EBADF, "%s: inode %llu is not open for writing", node->v->path,
                              (unsigned long long)node->ino);
    if (offset > KVFS_FILE_SIZE_MAX || count > KVFS_FILE_SIZE_MAX - offset)
        return kvfs_error_set(err, -EFBIG, "%s: a file holds at most 8 EiB - 1", node->v->path);
    size = kvfs_node_size(node);
    if ((flags & KVFS_EXTEND) == 0 && (offset > size || count > size - offset))
        return file_beyond(f, count, offset, size, err);
    return 0;
}

int
kvfs_file_pwrite(struct kvfs_file *f, const void *buf, size_t count, uint64_t offset,
                 unsigned flags, struct kvfs_error *err)
{
    struct kvfs_file_write w = {.node = f->node, .buf = buf, .offset = offset, .count = count,
                           .new_size = UINT64_MAX, .extend = (flags & KVFS_EXTEND) != 0};
    int rc;

    if (count == 0 || count > KVFS_REQUEST_MAX)
        return kvfs_error_set(err, -EINVAL, "a write of %zu bytes (1 to %u are possible)", count,
                              KVFS_REQUEST_MAX);
    if ((flags & KVFS_FAST_ONLY) != 0)
        return kvfs_error_set(err, -EINVAL, "a write is never only a hole (flags 0x%x)", flags);
    rc = file_write_checks(f, count, offset, flags, err);
    if (rc < 0)
        return rc;
    w.first = offset >> f->node->view.shift;
    w.last = (offset + count - 1) >> f->node->view.shift;
    return kvfs_file_write_run(&w, flags, err);
}

/* The background has fallen behind with this file's holes: help. */
static int
file_holes_help(struct kvfs_node *node, struct kvfs_error *err)
{
    struct kvfs_overlay *o = node->v->overlay;
    int rc = 0;

    for (;;) {
        size_t count;

        kvfs_cut_lock_shared(o);
        count = node->view.holes.count;
        kvfs_cut_unlock(o);
        if (count < KVFS_HOLES_MAX || rc < 0)
            return rc;
        (void)pthread_mutex_lock(&o->commit_lock);
        rc = kvfs_work_node(node->v, node, err);
        (void)pthread_mutex_unlock(&o->commit_lock);
    }
}

int
kvfs_file_zero(struct kvfs_file *f, uint64_t count, uint64_t offset, unsigned flags,
               struct kvfs_error *err)
{
    struct kvfs_file_write w = {.node = f->node, .offset = offset, .count = count,
                           .new_size = UINT64_MAX, .extend = (flags & KVFS_EXTEND) != 0};
    int rc = file_write_checks(f, count, offset, flags, err);

    if (rc < 0 || count == 0)
        return rc;
    rc = file_holes_help(f->node, err);
    if (rc < 0)
        return rc;
    w.first = offset >> f->node->view.shift;
    w.last = (offset + count - 1) >> f->node->view.shift;
    return kvfs_file_write_run(&w, flags, err);
}

int
kvfs_file_flush(struct kvfs_file *f, struct kvfs_error *err)
{
    struct kvfs_node *node = f->node;
    struct kvfs_volume *v = node->v;
    int rc = kvfs_volume_usable(v, err);
    unsigned leases = atomic_load(&node->leases);
    bool others;

    if (rc < 0 || v->readonly)
        return rc;
    /* What another process wrote, and did not flush, may have been read here. */
    others = (v->engine->caps & KVFS_CAP_MULTIPROCESS) != 0 &&
             (!file_is_leased(f) || atomic_load(&node->leases_flushed) != leases);
    rc = kvfs_commit(v, atomic_load(&node->dirty_id), KVFS_DURABLE, err);
    if (rc == 0 && others)
        rc = kvfs_volume_sync_applies(v, UINT64_MAX, err);
    if (rc == 0) /* not before: a flush beside this one must not rely on it */
        atomic_store(&node->leases_flushed, leases);
    return rc;
}
