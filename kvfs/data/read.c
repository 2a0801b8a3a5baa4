/* SPDX-License-Identifier: BSD-3-Clause
 *
 * read.c - bringing blocks into a reader's buffer.
 *
 *   cut lock, shared: what the layers know  ->  engine snapshot: the rest
 *
 * The snapshot begins after the layers were looked through (overlay.c, 3): a
 * block that no layer had was in the engine by then, or never written.  The
 * holes that cover a missing block are taken with the look, since the
 * background may finish and forget a hole before the snapshot begins, and then
 * the snapshot has no extents under it either.  Forks over forks are rare: with
 * one the cut lock is simply held until the engine was read.
 *
 * Whole blocks are copied straight to where they are wanted and checked there;
 * a part of a block goes through a block of its own, since the checksum covers
 * all of it.  Runs of blocks are walked with a cursor, single ones looked up.
 */
#include "read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "overlay.h"

#define READ_RUN_MIN 4 /* blocks; below it, looking up is cheaper than a scan */

void
kvfs_read_begin(struct kvfs_read *r, const struct kvfs_view *view, void *buf, uint64_t offset,
                size_t count)
{
    uint64_t last;

    r->buf = buf;
    r->offset = offset;
    r->first = offset >> view->shift;
    last = (offset + count - 1) >> view->shift;
    if (last - r->first >= KVFS_READ_BLOCKS) {
        last = r->first + KVFS_READ_BLOCKS - 1;
        count = (size_t)(((last + 1) << view->shift) - offset);
    }
    r->count = count;
    r->blocks = (size_t)(last - r->first + 1);
    r->missing = 0;
}

uint8_t *
kvfs_read_part(const struct kvfs_read *r, const struct kvfs_view *view, size_t i, size_t *from,
               size_t *len)
{
    uint64_t start = (r->first + i) << view->shift;
    uint64_t end = start + view->block_size;
    uint64_t stop = r->offset + r->count;

    if (start < r->offset) {
        *from = (size_t)(r->offset - start);
        start = r->offset;
    } else {
        *from = 0;
    }
    *len = (size_t)((end < stop ? end : stop) - start);
    return r->buf + (start - r->offset);
}

static int
read_one(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
         const struct kvfs_read *r, size_t i, struct kvfs_error *err)
{
    uint8_t bounce[KVFS_BLOCK_SIZE_MAX];
    size_t from;
    size_t len;
    uint8_t *to = kvfs_read_part(r, view, i, &from, &len);
    bool whole = len == view->block_size;
    int rc = kvfs_view_block(v, snap, view, r->first + i, r->hole_cut[i], whole ? to : bounce, err);

    if (rc == 0 && !whole)
        memcpy(to, bounce + from, len);
    return rc;
}

static void
read_zeros(const struct kvfs_view *view, const struct kvfs_read *r, size_t i)
{
    size_t from;
    size_t len;
    uint8_t *to = kvfs_read_part(r, view, i, &from, &len);

    memset(to, 0, len);
}

/* The cursor stands on the record of block I: take it. */
static int
read_cursor_block(struct kvfs_volume *v, struct kvfs_db_cursor *cursor,
                  const struct kvfs_view *view, const struct kvfs_read *r, size_t i,
                  const uint8_t *key, size_t value_len, struct kvfs_error *err)
{
    uint8_t bounce[KVFS_BLOCK_SIZE_MAX];
    uint8_t trailer[KVFS_TRAILER_LEN];
    struct kvfs_trailer t;
    size_t from;
    size_t len;
    uint8_t *to = kvfs_read_part(r, view, i, &from, &len);
    uint8_t *block = len == view->block_size ? to : bounce;
    struct iovec iov[2] = {{.iov_base = block, .iov_len = view->block_size},
                           {.iov_base = trailer, .iov_len = sizeof(trailer)}};
    int rc;

    if (value_len != view->block_size + KVFS_TRAILER_LEN)
        return -EIO;
    rc = v->engine->cursor_value(cursor, 0, iov, 2, err);
    if (rc < 0)
        return rc;
    if (kvfs_block_check(&t, trailer, key, block, view->block_size) < 0)
        return -EIO;
    if (t.cut < r->hole_cut[i])
        memset(to, 0, len);
    else if (block == bounce)
        memcpy(to, bounce + from, len);
    return 0;
}

/* Blocks [i, end) of the piece, none of which a layer knows. */
static int
read_run(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
         const struct kvfs_read *r, size_t i, size_t end, struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor;
    uint8_t lo[KVFS_DATA_KEY_LEN];
    uint8_t hi[KVFS_DATA_KEY_LEN];
    uint8_t key[KVFS_DATA_KEY_LEN];
    int rc;

    kvfs_key_block(lo, view->fork, r->first + i);
    kvfs_key_block(hi, view->fork, r->first + end);
    rc = v->engine->cursor_open(snap, KVFS_DATA, lo, sizeof(lo), hi, sizeof(hi), 0, &cursor, err);
    if (rc < 0)
        return rc;
    while (i < end) {
        const void *found;
        size_t key_len;
        size_t value_len;
        uint64_t fork;
        uint64_t index = r->first + end;

        rc = v->engine->cursor_next(cursor, &found, &key_len, &value_len, err);
        if (rc < 0)
            break;
        if (rc == 1) {
            memcpy(key, found, sizeof(key));
            kvfs_key_block_parse(key, &fork, &index);
        }
        for (; i < end && r->first + i < index; i++)
            read_zeros(view, r, i);
        if (rc == 0)
            break;
        rc = read_cursor_block(v, cursor, view, r, i, key, value_len, err);
        if (rc == -EIO) /* once more, slowly, for the right words */
            rc = read_one(v, snap, view, r, i, err);
        if (rc < 0)
            break;
        i++;
    }
    v->engine->cursor_close(cursor);
    return rc < 0 ? rc : 0;
}

int
kvfs_read_engine(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
                 const struct kvfs_read *r, struct kvfs_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < r->blocks && rc == 0;) {
        size_t end = i;

        while (end < r->blocks && r->state[end] == KVFS_SLOT_EMPTY)
            end++;
        if (end - i >= READ_RUN_MIN && view->overs_count == 0) {
            rc = read_run(v, snap, view, r, i, end, err);
            i = end;
        }
        for (; i < end && rc == 0; i++)
            rc = read_one(v, snap, view, r, i, err);
        i++; /* the known block, if any */
    }
    return rc;
}

/* Take from the layers what they know of the piece; cut lock held. */
static void
read_layers(struct kvfs_node *node, struct kvfs_read *r)
{
    const struct kvfs_overlay *o = node->v->overlay;
    bool dirty = atomic_load(&node->dirty_id) > atomic_load(&o->applied_id);

    for (size_t i = 0; i < r->blocks; i++) {
        size_t from;
        size_t len;
        uint8_t *to = kvfs_read_part(r, &node->view, i, &from, &len);

        r->state[i] = (uint8_t)(dirty ? kvfs_overlay_get(o, node->ino, r->first + i, to, from, len)
                                      : KVFS_SLOT_EMPTY);
        r->hole_cut[i] = 0;
        if (r->state[i] == KVFS_SLOT_ZEROS)
            memset(to, 0, len);
        if (r->state[i] != KVFS_SLOT_EMPTY)
            continue;
        r->missing++;
        if (node->view.holes.count > 0)
            r->hole_cut[i] = kvfs_holes_cut(&node->view.holes, r->first + i);
    }
}

int
kvfs_read_leased(struct kvfs_node *node, struct kvfs_read *r, struct kvfs_error *err)
{
    struct kvfs_volume *v = node->v;
    struct kvfs_view view = node->view; /* block size and fork never change */
    struct kvfs_db_snap *snap;
    bool locked = true;
    int rc = 0;

    read_layers(node, r);
    if (view.overs_count == 0) {
        kvfs_cut_unlock(v->overlay);
        locked = false;
    }
    if (r->missing > 0) {
        rc = v->engine->begin(v->db, &snap, err);
        if (rc == 0) {
            rc = kvfs_read_engine(v, snap, &view, r, err);
            v->engine->end(snap);
        }
    }
    if (locked)
        kvfs_cut_unlock(v->overlay);
    return rc;
}
