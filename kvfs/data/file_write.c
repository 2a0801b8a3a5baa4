/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file_write.c - one request that changes a file.
 *
 *   admit (room)  ->  range lock  ->  the rest of partial blocks is read  ->
 *   cut lock, shared: all blocks into `cur`  ->  acknowledged
 *
 * Zeros of whole blocks only give space back: they are admitted to a full store too.
 * A large hole needs the cut lock exclusive, for an instant, whatever its size.
 */
#include "file_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "overlay.h"
#include "read.h"
#include "work.h"

/* Fewer blocks than this are zeroed one by one, more become a pending hole. */
#define FILE_HOLE_BLOCKS 512

static int64_t
file_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool
file_all_zeros(const uint8_t *p, size_t len)
{
    return p[0] == 0 && p[len - 1] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Block INDEX as it stands, whole.  The caller holds its range. */
static int
file_block_read(struct kvfs_node *node, uint64_t index, uint8_t *block, struct kvfs_error *err)
{
    struct kvfs_read r;

    kvfs_cut_lock_shared(node->v->overlay);
    kvfs_read_begin(&r, &node->view, block, index << node->view.shift, node->view.block_size);
    return kvfs_read_leased(node, &r, err);
}

/* Read the blocks of which the request covers only a part, and patch them. */
static int
file_edges_read(struct kvfs_file_write *w, struct kvfs_error *err)
{
    const struct kvfs_view *view = &w->node->view;
    uint64_t end = w->offset + w->count;
    size_t from = (size_t)(w->offset & (view->block_size - 1));
    size_t till = (size_t)(end & (view->block_size - 1));
    size_t len;
    int rc = 0;

    if (from != 0 || (till != 0 && w->first == w->last)) {
        w->head = malloc(view->block_size);
        if (w->head == NULL)
            return kvfs_error_set(err, -ENOMEM, "no memory");
        rc = file_block_read(w->node, w->first, w->head, err);
        len = view->block_size - from < w->count ? view->block_size - from : (size_t)w->count;
        if (rc == 0 && w->buf != NULL)
            memcpy(w->head + from, w->buf, len);
        else if (rc == 0)
            memset(w->head + from, 0, len);
    }
    if (rc == 0 && till != 0 && w->last > w->first) {
        w->tail = malloc(view->block_size);
        if (w->tail == NULL)
            return kvfs_error_set(err, -ENOMEM, "no memory");
        rc = file_block_read(w->node, w->last, w->tail, err);
        if (rc == 0 && w->buf != NULL)
            memcpy(w->tail, w->buf + (w->count - till), till);
        else if (rc == 0)
            memset(w->tail, 0, till);
    }
    return rc;
}

static int
file_put(struct kvfs_overlay *o, struct kvfs_node *node, uint64_t index, const uint8_t *bytes)
{
    size_t bs = node->view.block_size;
    size_t added;
    int rc;

    if (bytes != NULL && file_all_zeros(bytes, bs))
        bytes = NULL;
    rc = kvfs_layer_put(o, o->cur, node->ino, index, bytes, bs, &added);
    atomic_fetch_add(&o->cur->bytes, added);
    atomic_fetch_add(&o->bytes, added);
    return rc;
}

/* Put the request's whole blocks [first, last] into `cur`. */
static int
file_put_blocks(struct kvfs_overlay *o, const struct kvfs_file_write *w, uint64_t first, uint64_t last)
{
    const struct kvfs_view *view = &w->node->view;
    int rc = 0;

    for (uint64_t i = first; i <= last && rc == 0; i++) {
        const uint8_t *bytes = NULL;

        if (i == w->first && w->head != NULL)
            bytes = w->head;
        else if (i == w->last && w->tail != NULL)
            bytes = w->tail;
        else if (w->buf != NULL)
            bytes = w->buf + ((i << view->shift) - w->offset);
        rc = file_put(o, w->node, i, bytes);
    }
    return rc;
}

/* Size, time and version after the request; cut lock held.  A layer counts the version up once:
 * whoever looks in between, as a snapshot, begins another layer. */
static void
file_mem_update(const struct kvfs_file_write *w, struct kvfs_layer_node *ln)
{
    struct kvfs_node *node = w->node;
    uint64_t end = w->offset + w->count;
    int64_t now = file_now_ns();

    (void)pthread_mutex_lock(&node->mem_lock);
    if (w->new_size != UINT64_MAX) {
        node->mem.size_bytes = w->new_size;
        ln->size_set = true;
    } else if (w->extend && end > node->mem.size_bytes) {
        node->mem.size_bytes = end;
        ln->size_set = true;
    }
    if (ln->size_set)
        ln->size_bytes = node->mem.size_bytes;
    if (now > node->mem.mtime_ns)
        node->mem.mtime_ns = now;
    ln->mtime_ns = node->mem.mtime_ns;
    if (!ln->version_set) {
        ln->version_set = true;
        ln->version = node->mem.version = kvfs_node_version_next(node);
    }
    (void)pthread_mutex_unlock(&node->mem_lock);
}

/* Take the request into `cur`: all of it between two cuts. */
static int
file_write_insert(struct kvfs_file_write *w, struct kvfs_error *err)
{
    struct kvfs_node *node = w->node;
    struct kvfs_overlay *o = node->v->overlay;
    struct kvfs_layer_node *ln;
    int rc = -ENOMEM;

    kvfs_cut_lock_shared(o);
    ln = kvfs_layer_node(o->cur, node);
    if (ln != NULL) {
        atomic_store(&node->dirty_id, o->cur->id);
        rc = file_put_blocks(o, w, w->first, w->last);
        file_mem_update(w, ln);
    }
    kvfs_cut_unlock(o);
    return rc < 0 ? kvfs_error_set(err, rc, "%s: no memory", node->v->path) : 0;
}

/* As _insert, with the whole blocks [start, end) as one hole. */
static int
file_hole_insert(struct kvfs_file_write *w, uint64_t start, uint64_t end, struct kvfs_error *err)
{
    struct kvfs_node *node = w->node;
    struct kvfs_overlay *o = node->v->overlay;
    struct kvfs_layer_node *ln;
    int rc;

    kvfs_cut_lock(o);
    ln = kvfs_layer_node(o->cur, node);
    rc = ln == NULL ? -ENOMEM : kvfs_layer_hole(o->cur, ln, start, end);
    if (rc == -ENOSPC && kvfs_overlay_seal_locked(o) == 0) { /* it has all the holes it may */
        ln = kvfs_layer_node(o->cur, node);
        rc = ln == NULL ? -ENOMEM : kvfs_layer_hole(o->cur, ln, start, end);
    }
    atomic_store(&node->dirty_id, o->cur->id);
    if (rc == 0 && w->head != NULL)
        rc = file_put(o, node, w->first, w->head);
    if (rc == 0 && w->tail != NULL)
        rc = file_put(o, node, w->last, w->tail);
    if (rc == 0 && ln != NULL) {
        atomic_fetch_add(&o->cur->bytes, KVFS_SLOT_COST);
        atomic_fetch_add(&o->bytes, KVFS_SLOT_COST);
        file_mem_update(w, ln);
    }
    kvfs_cut_unlock(o);
    return rc < 0 ? kvfs_error_set(err, rc, "%s: no memory", node->v->path) : 0;
}

/* Seal a layer that is full, and start a commit when the overlay is nearly full: one
 * that is made meanwhile takes half of a burst's speed on two cores. */
static void
file_written(struct kvfs_volume *v)
{
    struct kvfs_overlay *o = v->overlay;
    bool full;

    kvfs_cut_lock_shared(o);
    full = atomic_load(&o->cur->bytes) >= atomic_load(&o->seal_bytes);
    kvfs_cut_unlock(o);
    if (full)
        (void)kvfs_overlay_seal(o);
    if (atomic_load(&o->bytes) >= o->bound_bytes / 16 * 15)
        kvfs_worker_room(v);
}

/* The file may have shrunk while the request waited for its range. */
static int
file_still_inside(const struct kvfs_file_write *w, struct kvfs_error *err)
{
    if (w->extend || w->new_size != UINT64_MAX ||
        w->offset + w->count <= kvfs_node_size(w->node))
        return 0;
    return kvfs_error_set(err, -EINVAL, "the file has shrunk meanwhile");
}

/* The blocks that the request covers whole, [start, end). */
static void
file_inner(const struct kvfs_file_write *w, uint64_t *start, uint64_t *end)
{
    uint64_t mask = w->node->view.block_size - 1;

    *start = w->first + ((w->offset & mask) != 0);
    *end = w->last + (((w->offset + w->count) & mask) == 0);
}

/* One hole, or zeros block by block?  What a shrinking file loses is always a hole: zeros
 * may have to be marked (commit.c), and nothing may lie behind the end. */
static bool
file_is_hole(const struct kvfs_file_write *w, uint64_t start, uint64_t end)
{
    return w->buf == NULL && end > start &&
           (end - start >= FILE_HOLE_BLOCKS || w->new_size != UINT64_MAX);
}

size_t
kvfs_file_zero_cost(const struct kvfs_node *node)
{
    return 2 * (size_t)node->view.block_size + 4096 + (size_t)FILE_HOLE_BLOCKS * KVFS_SLOT_COST;
}

/* What the request takes in memory, at most. */
static size_t
file_cost(const struct kvfs_file_write *w)
{
    if (w->buf == NULL)
        return kvfs_file_zero_cost(w->node);
    return (size_t)(w->last - w->first + 1) * (KVFS_SLOT_COST + w->node->view.block_size);
}

int
kvfs_file_write_locked(struct kvfs_file_write *w, struct kvfs_error *err)
{
    uint64_t start;
    uint64_t end;
    int rc = file_still_inside(w, err);

    file_inner(w, &start, &end);
    if (rc == 0)
        rc = file_edges_read(w, err);
    if (rc == 0)
        rc = file_is_hole(w, start, end) ? file_hole_insert(w, start, end, err)
                                         : file_write_insert(w, err);
    free(w->head);
    free(w->tail);
    return rc;
}

int
kvfs_file_write_run(struct kvfs_file_write *w, unsigned flags, struct kvfs_error *err)
{
    struct kvfs_node *node = w->node;
    struct kvfs_volume *v = node->v;
    uint64_t mask = node->view.block_size - 1;
    bool frees = w->buf == NULL && ((w->offset | (w->offset + w->count)) & mask) == 0;
    size_t cost = file_cost(w);
    struct kvfs_range range;
    int rc = kvfs_overlay_admit(v->overlay, cost, frees, err);

    if (rc < 0)
        return rc;
    kvfs_range_lock(&node->ranges, &range, w->first, w->last);
    rc = kvfs_file_write_locked(w, err);
    kvfs_range_unlock(&node->ranges, &range);
    kvfs_overlay_admitted(v->overlay, cost);
    if (rc < 0)
        return rc;
    file_written(v);
    if ((flags & KVFS_FUA) != 0)
        rc = kvfs_commit(v, atomic_load(&node->dirty_id), KVFS_DURABLE, err);
    return rc;
}

int
kvfs_file_size_insert(struct kvfs_file_write *w, struct kvfs_error *err)
{
    struct kvfs_overlay *o = w->node->v->overlay;
    struct kvfs_layer_node *ln;

    kvfs_cut_lock_shared(o);
    ln = kvfs_layer_node(o->cur, w->node);
    if (ln != NULL) {
        atomic_store(&w->node->dirty_id, o->cur->id);
        file_mem_update(w, ln);
    }
    kvfs_cut_unlock(o);
    return ln == NULL ? kvfs_error_set(err, -ENOMEM, "%s: no memory", w->node->v->path) : 0;
}
