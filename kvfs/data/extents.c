/* SPDX-License-Identifier: BSD-3-Clause
 *
 * extents.c - what is data and what is a hole.
 *
 * The layers are a hash table, so the blocks they know of the range are
 * collected and sorted first (their number is bounded by the cache); then one
 * walk merges them with a cursor over the engine's keys.  A walk that has
 * looked at EXTENTS_LOOK_MAX keys stops with what it has: the caller asks again.
 */
#include "extents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "overlay.h"

#define EXTENTS_LOOK_MAX 100000

void
kvfs_known_free(struct kvfs_known *k)
{
    free(k->blocks);
    free(k->holes);
    memset(k, 0, sizeof(*k));
}

static int
known_block_add(struct kvfs_known *k, uint64_t index)
{
    if (k->blocks_count == k->blocks_cap) {
        size_t cap = k->blocks_cap != 0 ? 2 * k->blocks_cap : 256;
        void *grown = realloc(k->blocks, cap * sizeof(*k->blocks));

        if (grown == NULL)
            return -ENOMEM;
        k->blocks = grown;
        k->blocks_cap = cap;
    }
    k->blocks[k->blocks_count++].index = index;
    return 0;
}

static int
known_hole_add(struct kvfs_known *k, const struct kvfs_layer_hole *hole)
{
    if (k->holes_count == k->holes_cap) {
        size_t cap = k->holes_cap != 0 ? 2 * k->holes_cap : 16;
        void *grown = realloc(k->holes, cap * sizeof(*k->holes));

        if (grown == NULL)
            return -ENOMEM;
        k->holes = grown;
        k->holes_cap = cap;
    }
    k->holes[k->holes_count++] = *hole;
    return 0;
}

int
kvfs_known_add(struct kvfs_known *k, struct kvfs_layer *l, uint64_t ino, uint64_t first,
               uint64_t last)
{
    const struct kvfs_layer_node *ln;
    int rc = 0;

    (void)pthread_mutex_lock(&l->lock);
    ln = kvfs_layer_node_find(l, ino);
    (void)pthread_mutex_unlock(&l->lock);
    if (ln == NULL)
        return 0;
    for (size_t i = 0; i < ln->holes_count && rc == 0; i++) {
        if (ln->holes[i].start <= last && ln->holes[i].end > first)
            rc = known_hole_add(k, &ln->holes[i]);
    }
    for (int i = 0; i < KVFS_LAYER_SHARDS && rc == 0; i++) {
        struct kvfs_shard *s = &l->shards[i];

        (void)pthread_mutex_lock(&s->lock);
        for (uint32_t n = 0; n < s->cap && rc == 0; n++) {
            if (s->slots[n].state != KVFS_SLOT_EMPTY && s->slots[n].ino == ino &&
                s->slots[n].index >= first && s->slots[n].index <= last)
                rc = known_block_add(k, s->slots[n].index);
        }
        (void)pthread_mutex_unlock(&s->lock);
    }
    return rc;
}

static int
known_compare(const void *a, const void *b)
{
    const struct kvfs_known_block *x = a;
    const struct kvfs_known_block *y = b;

    return x->index < y->index ? -1 : x->index > y->index;
}

void
kvfs_known_sort(struct kvfs_known *k)
{
    size_t kept = 0;

    if (k->blocks_count > 1)
        qsort(k->blocks, k->blocks_count, sizeof(*k->blocks), known_compare);
    for (size_t i = 0; i < k->blocks_count; i++) {
        if (kept == 0 || k->blocks[kept - 1].index != k->blocks[i].index)
            k->blocks[kept++] = k->blocks[i];
    }
    k->blocks_count = kept;
}

/* --- the walk -------------------------------------------------------------- */

struct walk {
    struct kvfs_volume *v;
    struct kvfs_db_snap *snap;
    const struct kvfs_view *view;
    const struct kvfs_known *k;
    const struct kvfs_extents *x;
    struct kvfs_db_cursor *cursor;
    uint64_t at, stop;    /* blocks: where the walk is, and the range's end */
    size_t next;          /* in k->blocks: the first not before `at` */
    uint64_t data;        /* the engine's next data block, not before `at`; UINT64_MAX: none */
    bool data_valid;
    unsigned looked;
    /* the extent being collected */
    uint64_t run_start, run_end; /* blocks */
    bool run_hole;
    unsigned calls;
    bool done;
};

static int
walk_emit(struct walk *w)
{
    const struct kvfs_extents *x = w->x;
    uint64_t start = w->run_start << w->view->shift;
    uint64_t end = w->run_end << w->view->shift;

    if (w->run_start == w->run_end || w->done)
        return 0;
    if (start < x->offset)
        start = x->offset;
    if (end > x->offset + x->count || end < start) /* "<": past the largest offset */
        end = x->offset + x->count;
    if (x->fn(x->arg, start, end - start, w->run_hole) != 0 ||
        (x->limit != 0 && ++w->calls >= x->limit))
        w->done = true;
    return 0;
}

static void
walk_add(struct walk *w, uint64_t end, bool hole)
{
    if (w->run_start != w->run_end && w->run_hole != hole) {
        (void)walk_emit(w);
        w->run_start = w->at;
    }
    w->run_hole = hole;
    w->run_end = end;
    w->at = end;
}

/* Find the engine's next data block. */
static int
walk_engine_next(struct walk *w, struct kvfs_error *err)
{
    const struct kvfs_engine *e = w->v->engine;
    bool plain = w->view->holes.count == 0;
    uint8_t lo[KVFS_DATA_KEY_LEN];
    uint8_t hi[KVFS_DATA_KEY_LEN];
    int rc = 0;

    if (w->cursor == NULL) {
        kvfs_key_block(lo, w->view->fork, w->at);
        kvfs_key_block(hi, w->view->fork, w->stop);
        rc = e->cursor_open(w->snap, KVFS_DATA, lo, sizeof(lo), hi, sizeof(hi),
                            KVFS_SCAN_KEYS_ONLY, &w->cursor, err);
    }
    while (rc >= 0) {
        const void *key;
        size_t key_len;
        size_t len;
        uint64_t fork;

        rc = e->cursor_next(w->cursor, &key, &key_len, &len, err);
        if (rc <= 0)
            break;
        w->looked++;
        kvfs_key_block_parse(key, &fork, &w->data);
        if (w->data < w->at)
            continue; /* passed over: a layer knew better */
        rc = plain ? 1 : kvfs_view_is_data(w->v, w->snap, w->view, w->data, err);
        if (rc == 1) {
            w->data_valid = true;
            return 0;
        }
        if (rc == 0 && w->looked >= EXTENTS_LOOK_MAX) {
            w->data_valid = true; /* go no further than here */
            return 0;
        }
    }
    w->data = UINT64_MAX;
    w->data_valid = true;
    return rc < 0 ? rc : 0;
}

/* From `at` to LIMIT no layer knows anything: ask the engine for one run. */
static int
walk_engine(struct walk *w, uint64_t limit, struct kvfs_error *err)
{
    int rc = 0;

    if (w->view->overs_count > 0) { /* rare: block by block */
        rc = kvfs_view_is_data(w->v, w->snap, w->view, w->at, err);
        w->looked++;
        if (rc >= 0)
            walk_add(w, w->at + 1, rc == 0);
        return rc < 0 ? rc : 0;
    }
    if (!w->data_valid || (w->data != UINT64_MAX && w->data < w->at)) {
        w->data_valid = false;
        rc = walk_engine_next(w, err);
    }
    if (rc < 0)
        return rc;
    if (w->data == w->at) {
        walk_add(w, w->at + 1, false);
        w->data_valid = false;
    } else {
        walk_add(w, w->data < limit ? w->data : limit, true);
    }
    return 0;
}

static int
walk_step(struct walk *w, struct kvfs_error *err)
{
    const struct kvfs_known *k = w->k;
    uint64_t limit = w->stop;
    uint64_t hole_end = 0;

    while (w->next < k->blocks_count && k->blocks[w->next].index < w->at)
        w->next++;
    if (w->next < k->blocks_count) {
        if (k->blocks[w->next].index == w->at) {
            walk_add(w, w->at + 1, !k->blocks[w->next].data);
            return 0;
        }
        if (k->blocks[w->next].index < limit)
            limit = k->blocks[w->next].index;
    }
    for (size_t i = 0; i < k->holes_count; i++) {
        if (w->at >= k->holes[i].start && w->at < k->holes[i].end && k->holes[i].end > hole_end)
            hole_end = k->holes[i].end;
    }
    if (hole_end != 0) {
        walk_add(w, hole_end < limit ? hole_end : limit, true);
        return 0;
    }
    for (size_t i = 0; i < k->holes_count; i++) {
        if (k->holes[i].start > w->at && k->holes[i].start < limit)
            limit = k->holes[i].start;
    }
    return walk_engine(w, limit, err);
}

int
kvfs_extents_walk(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
                  const struct kvfs_known *k, const struct kvfs_extents *x, struct kvfs_error *err)
{
    struct walk w = {.v = v, .snap = snap, .view = view, .k = k, .x = x};
    int rc = 0;

    if (x->count == 0)
        return 0;
    w.at = w.run_start = w.run_end = x->offset >> view->shift;
    w.stop = ((x->offset + x->count - 1) >> view->shift) + 1;
    while (rc == 0 && w.at < w.stop && !w.done && w.looked < EXTENTS_LOOK_MAX)
        rc = walk_step(&w, err);
    if (rc == 0)
        rc = walk_emit(&w);
    if (w.cursor != NULL)
        v->engine->cursor_close(w.cursor);
    return rc;
}

/* --- a live file -------------------------------------------------------------- */

/* Collect what the layers know; cut lock held, shared. */
static int
extents_known(struct kvfs_node *node, struct kvfs_known *k, uint64_t first, uint64_t last)
{
    struct kvfs_overlay *o = node->v->overlay;
    int rc = kvfs_known_add(k, o->cur, node->ino, first, last);

    for (struct kvfs_layer *l = o->newest; l != NULL && rc == 0; l = l->older)
        rc = kvfs_known_add(k, l, node->ino, first, last);
    kvfs_known_sort(k);
    for (size_t i = 0; i < k->blocks_count; i++)
        k->blocks[i].data = kvfs_overlay_get(o, node->ino, k->blocks[i].index, NULL, 0, 0) ==
                            KVFS_SLOT_DATA;
    return rc;
}

/* The file's facts, as they stand in this process or in SNAP. */
static int
extents_view(struct kvfs_node *node, struct kvfs_db_snap *snap, struct kvfs_view *view,
             uint64_t *size, struct kvfs_error *err)
{
    struct kvfs_volume *v = node->v;
    int rc = kvfs_view_load(v, snap, node->ino, view, err);

    *size = view->contents.size_bytes;
    if (rc == 0 && node->leased) {
        (void)pthread_mutex_lock(&node->mem_lock);
        *size = node->mem.size_bytes;
        (void)pthread_mutex_unlock(&node->mem_lock);
    }
    return rc;
}

int
kvfs_file_extents(struct kvfs_file *f, uint64_t count, uint64_t offset, unsigned limit,
                  kvfs_extent_fn *fn, void *arg, struct kvfs_error *err)
{
    struct kvfs_node *node = f->node;
    struct kvfs_volume *v = node->v;
    struct kvfs_extents x = {.offset = offset, .count = count, .limit = limit, .fn = fn,
                             .arg = arg};
    struct kvfs_known known = {0};
    struct kvfs_view view = {0};
    struct kvfs_db_snap *snap = NULL;
    uint64_t size = 0;
    int rc = kvfs_volume_usable(v, err);

    if (rc < 0 || count == 0)
        return rc;
    /* Layers and snapshot are of one instant: the cut lock holds commits off. */
    kvfs_cut_lock_shared(v->overlay);
    rc = v->engine->begin(v->db, &snap, err);
    if (rc == 0)
        rc = extents_view(node, snap, &view, &size, err);
    if (rc == 0 && (offset > size || count > size - offset))
        rc = kvfs_error_set(err, -EINVAL, "%s: extents beyond the end of inode %llu", v->path,
                            (unsigned long long)node->ino);
    if (rc == 0 && node->leased &&
        extents_known(node, &known, offset >> view.shift, (offset + count - 1) >> view.shift) < 0)
        rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", v->path);
    kvfs_cut_unlock(v->overlay);
    if (rc == 0)
        rc = kvfs_extents_walk(v, snap, &view, &known, &x, err);
    kvfs_known_free(&known);
    kvfs_view_free(&view);
    if (snap != NULL)
        v->engine->end(snap);
    return rc;
}
