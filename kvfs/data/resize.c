/* SPDX-License-Identifier: BSD-3-Clause
 *
 * resize.c - the size of a file.
 *
 * Who holds the lease changes the size like any other write: in the overlay,
 * and then by a commit.  Who does not may still grow the file, by a batch that
 * expects the record it read; the holder meets that at its next commit or when
 * its next client connects (kvfs_commit_adopt).
 */
#include <errno.h>

#include "file_write.h"
#include "node.h"
#include "overlay.h"

/* Grow a file that some other process may be writing. */
static int
resize_foreign(struct kvfs_volume *v, uint64_t ino, uint64_t size, bool *smaller,
               struct kvfs_error *err)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_view view = {.ino = ino};
    struct kvfs_db_snap *snap;
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;
    int rc = b == NULL ? kvfs_error_set(err, -ENOMEM, "%s: no memory", v->path) : -EAGAIN;

    kvfs_key_contents(&key, ino);
    for (int tries = 0; rc == -EAGAIN && tries < 1000; tries++) {
        rc = v->engine->begin(v->db, &snap, err);
        if (rc < 0)
            break;
        rc = kvfs_view_contents(v, snap, &view, err);
        v->engine->end(snap);
        if (rc < 0)
            break;
        *smaller = size < view.contents.size_bytes;
        if (*smaller || size == view.contents.size_bytes)
            break;
        kvfs_batch_expect(b, KVFS_META, key.bytes, key.len, view.stored, view.stored_len);
        view.contents.size_bytes = size;
        len = kvfs_contents_encode(&view.contents, &key, value);
        kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
        rc = kvfs_volume_apply(v, b, KVFS_DURABLE, err);
    }
    kvfs_batch_free(b);
    return rc;
}

/* Holds everything behind the new end: who extends the file meanwhile does so before
 * or after, and nothing of it stays hidden behind the end. */
static int
resize_leased(struct kvfs_node *node, uint64_t size, struct kvfs_error *err)
{
    struct kvfs_file_write w = {.node = node, .new_size = size};
    struct kvfs_overlay *o = node->v->overlay;
    bool frees = (size & (node->view.block_size - 1)) == 0;
    size_t cost = kvfs_file_zero_cost(node);
    struct kvfs_range range;
    uint64_t old;
    int rc = kvfs_overlay_admit(o, cost, frees, err);

    if (rc < 0)
        return rc;
    kvfs_range_lock(&node->ranges, &range, size >> node->view.shift, UINT64_MAX);
    old = kvfs_node_size(node);
    if (size < old) { /* what is cut off becomes zeros, in the same cut */
        w.offset = size;
        w.first = size >> node->view.shift;
        w.last = (old - 1) >> node->view.shift;
        w.count = ((w.last + 1) << node->view.shift) - size;
        rc = kvfs_file_write_locked(&w, err);
    } else {
        rc = kvfs_file_size_insert(&w, err);
    }
    kvfs_range_unlock(&node->ranges, &range);
    kvfs_overlay_admitted(o, cost);
    if (rc < 0)
        return rc;
    return kvfs_commit(node->v, atomic_load(&node->dirty_id), KVFS_DURABLE, err);
}

int
kvfs_file_resize(struct kvfs_file *f, uint64_t size_bytes, struct kvfs_error *err)
{
    struct kvfs_node *node = f->node;
    struct kvfs_volume *v = node->v;
    bool smaller = false;
    bool leased;
    int rc = kvfs_volume_writable(v, err);

    if (rc < 0)
        return rc;
    if (size_bytes > KVFS_FILE_SIZE_MAX)
        return kvfs_error_set(err, -EFBIG, "%s: a file holds at most 8 EiB - 1", v->path);
    kvfs_cut_lock_shared(v->overlay);
    leased = node->leased;
    kvfs_cut_unlock(v->overlay);
    if (!leased) {
        rc = resize_foreign(v, node->ino, size_bytes, &smaller, err);
        if (rc < 0 || !smaller)
            return rc < 0 ? rc : kvfs_file_refresh(f, err);
    }
    if (kvfs_node_is_locked(node, f))
        return resize_leased(node, size_bytes, err);
    rc = kvfs_node_write_begin(node, err);
    if (rc < 0)
        return rc;
    rc = resize_leased(node, size_bytes, err);
    kvfs_node_write_end(node);
    return rc == 0 && !leased ? kvfs_file_refresh(f, err) : rc;
}
