/* SPDX-License-Identifier: BSD-3-Clause
 *
 * view.c - what the engine holds of one file, and how a block is found in it.
 *
 * A file's own fork F holds its extents.  Two things may lie between an extent
 * and its reader, both left behind by changes too large to be made at once:
 *
 * - a hole [a, b) of cut h: an extent of an earlier cut reads as zeros;
 * - a fork T over F as of cut c: T's extents and holes count as written at c.
 *
 * So the newest wins, where an extent of F is as new as its trailer says, a
 * hole as its record says, everything of T as c.  On a tie of F and T, F wins:
 * the background moves T's extents into F under the number c, and T's holes
 * after them.
 *
 * Inside T there is a count of cuts of its own (the batches that filled it).
 * T marks a block of zeros by a trailer without bytes, since absence would let
 * F shine through; so does F, as long as there is a T that would.
 */
#include "view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void
kvfs_view_free(struct kvfs_view *view)
{
    for (size_t i = 0; i < view->overs_count; i++)
        free(view->overs[i].holes.v);
    free(view->overs);
    free(view->holes.v);
    memset(view, 0, sizeof(*view));
}

int
kvfs_holes_add(struct kvfs_holes *h, uint64_t start, uint64_t end, uint64_t cut)
{
    if (h->count == h->cap) {
        size_t cap = h->cap != 0 ? 2 * h->cap : 8;
        struct kvfs_hole *grown = realloc(h->v, cap * sizeof(*grown));

        if (grown == NULL)
            return -ENOMEM;
        h->v = grown;
        h->cap = cap;
    }
    h->v[h->count++] = (struct kvfs_hole){.start = start, .end = end, .cut = cut};
    return 0;
}

int
kvfs_holes_copy(struct kvfs_holes *dst, const struct kvfs_holes *src)
{
    int rc = 0;

    for (size_t i = 0; i < src->count && rc == 0; i++)
        rc = kvfs_holes_add(dst, src->v[i].start, src->v[i].end, src->v[i].cut);
    return rc;
}

static void
hole_put(struct kvfs_batch_builder *b, uint64_t fork, const struct kvfs_hole *hole)
{
    struct kvfs_hole_record r = {.end = hole->end, .cut = hole->cut};
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;

    kvfs_key_hole(&key, fork, hole->start);
    len = kvfs_hole_encode(&r, &key, value);
    kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
}

/* Take [start, end) out of the older hole number I. */
static int
hole_cut_out(struct kvfs_holes *h, size_t i, uint64_t start, uint64_t end, uint64_t fork,
             struct kvfs_batch_builder *b)
{
    struct kvfs_hole old = h->v[i];
    struct kvfs_hole right = {.start = end, .end = old.end, .cut = old.cut};
    struct kvfs_key key;

    if (start > old.start) { /* the left part keeps its key */
        h->v[i].end = start;
        hole_put(b, fork, &h->v[i]);
    } else {
        kvfs_key_hole(&key, fork, old.start);
        kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
        h->v[i].end = h->v[i].start; /* empty: swept up by the caller */
    }
    if (end >= old.end)
        return 0;
    hole_put(b, fork, &right);
    return kvfs_holes_add(h, right.start, right.end, right.cut);
}

int
kvfs_holes_cover(struct kvfs_holes *h, struct kvfs_hole hole, uint64_t fork,
                 struct kvfs_batch_builder *b)
{
    size_t count = h->count;
    size_t kept = 0;
    int rc = 0;

    for (size_t i = 0; i < count && rc == 0; i++) {
        struct kvfs_hole old = h->v[i];

        if (old.start >= hole.end || hole.start >= old.end || old.start == old.end)
            continue;
        if (old.cut <= hole.cut) {
            rc = hole_cut_out(h, i, old.start > hole.start ? old.start : hole.start,
                              old.end < hole.end ? old.end : hole.end, fork, b);
        } else { /* the newer one stays: go on with what is left on either side */
            struct kvfs_hole left = {.start = hole.start, .end = old.start, .cut = hole.cut};

            if (left.start < left.end)
                rc = kvfs_holes_cover(h, left, fork, b);
            hole.start = old.end;
            if (hole.start >= hole.end)
                break;
            i = (size_t)-1; /* the list may have changed: look again */
            count = h->count;
        }
    }
    for (size_t i = 0; i < h->count; i++) {
        if (h->v[i].start < h->v[i].end)
            h->v[kept++] = h->v[i];
    }
    h->count = kept;
    if (rc < 0 || hole.start >= hole.end)
        return rc;
    hole_put(b, fork, &hole);
    return kvfs_holes_add(h, hole.start, hole.end, hole.cut);
}

uint64_t
kvfs_holes_cut(const struct kvfs_holes *h, uint64_t index)
{
    uint64_t cut = 0;

    for (size_t i = 0; i < h->count; i++) {
        if (index >= h->v[i].start && index < h->v[i].end && h->v[i].cut > cut)
            cut = h->v[i].cut;
    }
    return cut;
}

/* Scan the META records from LO up to HI; FN gets key and value. */
static int
view_scan(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_key *lo,
          const struct kvfs_key *hi,
          int (*fn)(void *arg, const struct kvfs_key *key, const void *value, size_t len),
          void *arg, struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
    int rc = v->engine->cursor_open(snap, KVFS_META, lo->bytes, lo->len, hi->bytes, hi->len, 0,
                                    &cursor, err);

    if (rc < 0)
        return rc;
    for (;;) {
        struct kvfs_key key;
        const void *found;
        size_t len;

        rc = v->engine->cursor_next(cursor, &found, &key.len, &len, err);
        if (rc <= 0)
            break;
        if (key.len > sizeof(key.bytes) || len > sizeof(value)) {
            rc = kvfs_error_set(err, -EIO, "%s: a record of a fork is damaged", v->path);
            break;
        }
        memcpy(key.bytes, found, key.len);
        rc = v->engine->cursor_value(cursor, 0, &iov, 1, err);
        if (rc == 0)
            rc = fn(arg, &key, value, len);
        if (rc < 0) {
            (void)kvfs_error_set(err, rc, "%s: a record of a fork is damaged", v->path);
            break;
        }
    }
    v->engine->cursor_close(cursor);
    return rc;
}

static int
view_hole(void *arg, const struct kvfs_key *key, const void *value, size_t len)
{
    struct kvfs_key_parts parts;
    struct kvfs_hole_record r;

    if (kvfs_key_parse(key->bytes, key->len, &parts) < 0 || parts.kind != KVFS_KEY_HOLE ||
        kvfs_hole_decode(&r, key, value, len) < 0)
        return -EIO;
    return kvfs_holes_add(arg, parts.second, r.end, r.cut);
}

int
kvfs_holes_load(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t fork,
                struct kvfs_holes *h, struct kvfs_error *err)
{
    struct kvfs_key lo;
    struct kvfs_key hi;

    kvfs_key_hole(&lo, fork, 0);
    kvfs_key_hole(&hi, fork + 1, 0);
    return view_scan(v, snap, &lo, &hi, view_hole, h, err);
}

static int
view_over(void *arg, const struct kvfs_key *key, const void *value, size_t len)
{
    struct kvfs_view *view = arg;
    struct kvfs_key_parts parts;
    struct kvfs_over_record r;
    struct kvfs_over *grown;

    if (kvfs_key_parse(key->bytes, key->len, &parts) < 0 || parts.kind != KVFS_KEY_OVER ||
        kvfs_over_decode(&r, key, value, len) < 0)
        return -EIO;
    grown = realloc(view->overs, (view->overs_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    view->overs = grown;
    grown[view->overs_count++] = (struct kvfs_over){.top = r.top, .cut = parts.second};
    return 0;
}

int
kvfs_view_overs(struct kvfs_volume *v, struct kvfs_db_snap *snap, struct kvfs_view *view,
                struct kvfs_error *err)
{
    struct kvfs_key lo;
    struct kvfs_key hi;
    int rc;

    kvfs_key_over(&lo, view->fork, 0);
    kvfs_key_over(&hi, view->fork + 1, 0);
    rc = view_scan(v, snap, &lo, &hi, view_over, view, err);
    for (size_t i = 0; rc == 0 && i < view->overs_count; i++)
        rc = kvfs_holes_load(v, snap, view->overs[i].top, &view->overs[i].holes, err);
    return rc;
}

int
kvfs_view_contents(struct kvfs_volume *v, struct kvfs_db_snap *snap, struct kvfs_view *view,
                   struct kvfs_error *err)
{
    struct kvfs_contents_record c;
    struct kvfs_key key;
    int rc;

    kvfs_key_contents(&key, view->ino);
    rc = kvfs_meta_get(v, snap, &key, view->stored, sizeof(view->stored), &view->stored_len, err);
    if (rc == 0 && kvfs_contents_decode(&c, &key, view->stored, view->stored_len) < 0)
        rc = -EIO;
    if (rc == -ENOENT || rc == -EIO)
        return kvfs_error_set(err, -EIO, "%s: the contents record of inode %llu is %s", v->path,
                              (unsigned long long)view->ino,
                              rc == -ENOENT ? "missing" : "damaged");
    if (rc == 0)
        view->contents = c;
    return rc;
}

int
kvfs_view_load(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
               struct kvfs_view *view, struct kvfs_error *err)
{
    struct kvfs_inode_record inode = {0};
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;
    int rc;

    memset(view, 0, sizeof(*view));
    view->ino = ino;
    kvfs_key_inode(&key, ino);
    rc = kvfs_meta_get(v, snap, &key, value, sizeof(value), &len, err);
    if (rc == -ENOENT)
        return kvfs_error_set(err, rc, "%s: there is no inode %llu", v->path,
                              (unsigned long long)ino);
    if (rc == 0 && kvfs_inode_decode(&inode, &key, value, len) < 0)
        rc = kvfs_error_set(err, -EIO, "%s: inode %llu is damaged", v->path,
                            (unsigned long long)ino);
    if (rc < 0)
        return rc;
    if (S_ISDIR(inode.mode))
        return kvfs_error_set(err, -EISDIR, "%s: inode %llu is a folder", v->path,
                              (unsigned long long)ino);
    if (!S_ISREG(inode.mode))
        return kvfs_error_set(err, -EINVAL, "%s: inode %llu is no regular file", v->path,
                              (unsigned long long)ino);
    view->block_size = inode.block_size_bytes;
    view->shift = (unsigned)__builtin_ctz(inode.block_size_bytes);
    view->fork = inode.fork;
    rc = kvfs_view_contents(v, snap, view, err);
    if (rc == 0)
        rc = kvfs_holes_load(v, snap, view->fork, &view->holes, err);
    if (rc == 0)
        rc = kvfs_view_overs(v, snap, view, err);
    return rc;
}

static int
view_damaged(struct kvfs_volume *v, const struct kvfs_view *view, uint64_t index, const char *what,
             struct kvfs_error *err)
{
    return kvfs_error_set(err, -EIO, "%s: inode %llu, block %llu (offset %llu): %s", v->path,
                          (unsigned long long)view->ino, (unsigned long long)index,
                          (unsigned long long)index << view->shift, what);
}

int
kvfs_fork_block(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
                uint64_t fork, uint64_t index, void *buf, struct kvfs_trailer *t,
                struct kvfs_error *err)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t trailer[KVFS_TRAILER_LEN];
    struct iovec iov[2] = {{.iov_base = buf, .iov_len = view->block_size},
                           {.iov_base = trailer, .iov_len = sizeof(trailer)}};
    size_t len;
    int rc;

    kvfs_key_block(key, fork, index);
    rc = v->engine->get(snap, KVFS_DATA, key, sizeof(key), 0, iov, 2, &len, err);
    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return rc;
    if (len == KVFS_TRAILER_LEN) {
        memcpy(trailer, buf, sizeof(trailer));
        memset(buf, 0, view->block_size);
        return kvfs_block_check(t, trailer, key, NULL, 0) < 0
                   ? view_damaged(v, view, index, "its checksum does not match", err)
                   : 1;
    }
    if (len != view->block_size + KVFS_TRAILER_LEN)
        return view_damaged(v, view, index, "it has a wrong length", err);
    if (kvfs_block_check(t, trailer, key, buf, view->block_size) < 0)
        return view_damaged(v, view, index, "its checksum does not match", err);
    return 1;
}

int
kvfs_view_block(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
                uint64_t index, uint64_t hole_cut, void *buf, struct kvfs_error *err)
{
    struct kvfs_trailer t = {0};
    bool live;
    int rc = kvfs_fork_block(v, snap, view, view->fork, index, buf, &t, err);

    if (rc < 0)
        return rc;
    live = rc == 1 && t.cut >= hole_cut;
    for (size_t i = view->overs_count; i-- > 0;) {
        const struct kvfs_over *o = &view->overs[i];
        struct kvfs_trailer top = {0};
        uint64_t top_hole;

        if ((live && t.cut >= o->cut) || hole_cut > o->cut)
            break;
        top_hole = kvfs_holes_cut(&o->holes, index);
        rc = kvfs_fork_block(v, snap, view, o->top, index, buf, &top, err);
        if (rc < 0)
            return rc;
        if (rc == 1 && top.cut >= top_hole)
            return 0;
        if (rc == 1 || top_hole != 0) {
            memset(buf, 0, view->block_size);
            return 0;
        }
    }
    if (!live)
        memset(buf, 0, view->block_size);
    else if (view->overs_count > 0) /* a fork on top may have used BUF */
        rc = kvfs_fork_block(v, snap, view, view->fork, index, buf, &t, err);
    return rc < 0 ? rc : 0;
}

int
kvfs_fork_trailer(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
             uint64_t fork, uint64_t index, struct kvfs_trailer *t, bool *zeros,
             struct kvfs_error *err)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t trailer[KVFS_TRAILER_LEN];
    struct iovec iov = {.iov_base = trailer, .iov_len = sizeof(trailer)};
    size_t len;
    int rc;

    kvfs_key_block(key, fork, index);
    rc = v->engine->get(snap, KVFS_DATA, key, sizeof(key), view->block_size, &iov, 1, &len, err);
    if (rc == 0 && len == KVFS_TRAILER_LEN)
        rc = v->engine->get(snap, KVFS_DATA, key, sizeof(key), 0, &iov, 1, &len, err);
    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return rc;
    *zeros = len == KVFS_TRAILER_LEN;
    if ((!*zeros && len != view->block_size + KVFS_TRAILER_LEN) ||
        kvfs_trailer_decode(t, trailer) < 0)
        return view_damaged(v, view, index, "its trailer is damaged", err);
    return 1;
}

int
kvfs_view_is_data(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
                  uint64_t index, struct kvfs_error *err)
{
    uint64_t hole_cut = kvfs_holes_cut(&view->holes, index);
    struct kvfs_trailer t = {0};
    bool zeros = false;
    bool own_zeros;
    bool live;
    int rc = kvfs_fork_trailer(v, snap, view, view->fork, index, &t, &zeros, err);

    if (rc < 0)
        return rc;
    own_zeros = zeros;
    live = rc == 1 && t.cut >= hole_cut;
    for (size_t i = view->overs_count; i-- > 0;) {
        const struct kvfs_over *o = &view->overs[i];
        struct kvfs_trailer top = {0};
        uint64_t top_hole;

        if ((live && t.cut >= o->cut) || hole_cut > o->cut)
            break;
        top_hole = kvfs_holes_cut(&o->holes, index);
        rc = kvfs_fork_trailer(v, snap, view, o->top, index, &top, &zeros, err);
        if (rc < 0)
            return rc;
        if (rc == 1 && top.cut >= top_hole)
            return !zeros;
        if (rc == 1 || top_hole != 0)
            return 0;
    }
    return live && !own_zeros;
}
