/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer.c - one generation of unwritten data: a sharded hash table.
 *
 * 1. A block's bytes lie in chunks that belong to the layer and are given back
 *    with it; a block that is written again in the same layer is overwritten in
 *    place, under its shard's lock, so readers see it old or new.
 * 2. A large hole is one record, not an entry a block.  It gets the layer's
 *    next number; an entry made before it (with a smaller number) is dead.
 *    Requests that overlap hold their ranges (range.h), so an entry and a hole
 *    over the same block are never made at the same time.
 * 3. What a layer says of a block: a live entry, else zeros under a hole, else
 *    nothing, and an older layer or the engine is asked.
 */
#include "layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "overlay.h"

#define LAYER_CAP_FIRST 64

struct kvfs_layer *
kvfs_layer_new(void)
{
    struct kvfs_layer *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    for (int i = 0; i < KVFS_LAYER_SHARDS; i++)
        (void)pthread_mutex_init(&l->shards[i].lock, NULL);
    (void)pthread_mutex_init(&l->lock, NULL);
    l->refs = 1;
    return l;
}

void
kvfs_layer_free(struct kvfs_layer *l)
{
    if (l == NULL)
        return;
    for (int i = 0; i < KVFS_LAYER_SHARDS; i++) {
        (void)pthread_mutex_destroy(&l->shards[i].lock);
        free(l->shards[i].slots);
    }
    while (l->nodes != NULL) {
        struct kvfs_layer_node *ln = l->nodes;

        l->nodes = ln->next;
        free(ln->holes);
        free(ln);
    }
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

static uint64_t
layer_hash(uint64_t ino, uint64_t index)
{
    uint64_t h = (index ^ (ino << 40) ^ (ino >> 24)) * 0x9E3779B97F4A7C15u;

    h ^= h >> 32;
    return h * 0xD6E8FEB86659FD93u;
}

static struct kvfs_slot *
shard_find(const struct kvfs_shard *s, uint64_t hash, uint64_t ino, uint64_t index)
{
    uint32_t i = (uint32_t)hash & (s->cap - 1);

    while (s->slots[i].state != KVFS_SLOT_EMPTY &&
           (s->slots[i].index != index || s->slots[i].ino != ino))
        i = (i + 1) & (s->cap - 1);
    return &s->slots[i];
}

static int
shard_grow(struct kvfs_shard *s)
{
    struct kvfs_shard grown = {.cap = s->cap != 0 ? 2 * s->cap : LAYER_CAP_FIRST};

    grown.slots = calloc(grown.cap, sizeof(*grown.slots));
    if (grown.slots == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->cap; i++) {
        const struct kvfs_slot *old = &s->slots[i];

        if (old->state != KVFS_SLOT_EMPTY)
            *shard_find(&grown, layer_hash(old->ino, old->index), old->ino, old->index) = *old;
    }
    free(s->slots);
    s->slots = grown.slots;
    s->cap = grown.cap;
    return 0;
}

/* A place for a block in the layer's chunks. */
static uint8_t *
layer_alloc(struct kvfs_overlay *o, struct kvfs_layer *l, size_t block_size)
{
    size_t chunk_bytes = kvfs_chunk_bytes(o);
    uint8_t *p = NULL;

    (void)pthread_mutex_lock(&l->lock);
    if (l->chunks == NULL || l->chunks->used + block_size > chunk_bytes) {
        struct kvfs_chunk *c = kvfs_chunk_take(o);

        if (c != NULL) {
            c->next = l->chunks;
            l->chunks = c;
        }
    }
    if (l->chunks != NULL && l->chunks->used + block_size <= chunk_bytes) {
        p = (uint8_t *)l->chunks + l->chunks->used;
        l->chunks->used += block_size;
    }
    (void)pthread_mutex_unlock(&l->lock);
    return p;
}

int
kvfs_layer_put(struct kvfs_overlay *o, struct kvfs_layer *l, uint64_t ino, uint64_t index,
               const void *bytes, size_t block_size, size_t *added)
{
    uint64_t hash = layer_hash(ino, index);
    struct kvfs_shard *s = &l->shards[hash >> 58];
    struct kvfs_slot *slot;
    int rc = 0;

    *added = 0;
    (void)pthread_mutex_lock(&s->lock);
    if (4 * (s->used + 1) > 3 * s->cap)
        rc = shard_grow(s);
    if (rc < 0)
        goto out;
    slot = shard_find(s, hash, ino, index);
    if (bytes != NULL && slot->bytes == NULL) {
        slot->bytes = layer_alloc(o, l, block_size);
        if (slot->bytes == NULL) {
            rc = -ENOMEM; /* the slot is as it was */
            goto out;
        }
        *added += block_size;
    }
    if (slot->state == KVFS_SLOT_EMPTY) {
        s->used++;
        *added += KVFS_SLOT_COST;
    }
    slot->ino = ino;
    slot->index = index;
    slot->hole_seq = l->hole_seq;
    if (l->hole_seq > 0)
        atomic_store_explicit(&l->entries_after_hole, true, memory_order_relaxed);
    slot->state = bytes != NULL ? KVFS_SLOT_DATA : KVFS_SLOT_ZEROS;
    if (bytes != NULL)
        memcpy(slot->bytes, bytes, block_size);
out:
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}

struct kvfs_layer_node *
kvfs_layer_node_find(const struct kvfs_layer *l, uint64_t ino)
{
    struct kvfs_layer_node *ln = l->nodes;

    while (ln != NULL && ln->ino != ino)
        ln = ln->next;
    return ln;
}

struct kvfs_layer_node *
kvfs_layer_node(struct kvfs_layer *l, struct kvfs_node *node)
{
    struct kvfs_layer_node *ln;

    (void)pthread_mutex_lock(&l->lock);
    ln = kvfs_layer_node_find(l, node->ino);
    if (ln == NULL && (ln = calloc(1, sizeof(*ln))) != NULL) {
        ln->node = node;
        ln->ino = node->ino;
        kvfs_node_hold(node);
        ln->next = l->nodes;
        l->nodes = ln;
    }
    (void)pthread_mutex_unlock(&l->lock);
    return ln;
}

int
kvfs_layer_hole(struct kvfs_layer *l, struct kvfs_layer_node *ln, uint64_t start, uint64_t end)
{
    struct kvfs_layer_hole *last = ln->holes_count > 0 ? &ln->holes[ln->holes_count - 1] : NULL;
    struct kvfs_layer_hole *grown;

    /* A run of trims, one behind the other, is one hole, if nothing that was
     * written since the last one lies in between. */
    if (last != NULL && last->seq == l->hole_seq && last->end == start &&
        !atomic_load(&l->entries_after_hole)) {
        last->end = end;
        return 0;
    }
    if (l->holes_total == KVFS_LAYER_HOLES_MAX)
        return -ENOSPC;
    grown = realloc(ln->holes, (ln->holes_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    ln->holes = grown;
    grown[ln->holes_count++] =
        (struct kvfs_layer_hole){.start = start, .end = end, .seq = ++l->hole_seq};
    l->holes_total++;
    atomic_store(&l->entries_after_hole, false);
    return 0;
}

uint32_t
kvfs_layer_hole_seq(const struct kvfs_layer_node *ln, uint64_t index)
{
    for (size_t i = ln->holes_count; i-- > 0;) {
        if (index >= ln->holes[i].start && index < ln->holes[i].end)
            return ln->holes[i].seq;
    }
    return 0;
}

enum kvfs_slot_state
kvfs_layer_get(struct kvfs_layer *l, uint64_t ino, uint64_t index, void *buf, size_t from,
               size_t len)
{
    uint64_t hash = layer_hash(ino, index);
    struct kvfs_shard *s = &l->shards[hash >> 58];
    const struct kvfs_layer_node *ln = NULL;
    enum kvfs_slot_state state = KVFS_SLOT_EMPTY;
    uint32_t hole = 0;

    if (l->holes_total > 0) { /* only then is the list of nodes needed */
        (void)pthread_mutex_lock(&l->lock);
        ln = kvfs_layer_node_find(l, ino);
        (void)pthread_mutex_unlock(&l->lock);
        if (ln != NULL)
            hole = kvfs_layer_hole_seq(ln, index);
    }
    (void)pthread_mutex_lock(&s->lock);
    if (s->cap != 0) {
        const struct kvfs_slot *slot = shard_find(s, hash, ino, index);

        if (slot->state != KVFS_SLOT_EMPTY && slot->hole_seq >= hole) {
            state = slot->state;
            if (state == KVFS_SLOT_DATA && buf != NULL)
                memcpy(buf, slot->bytes + from, len);
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    return state == KVFS_SLOT_EMPTY && hole != 0 ? KVFS_SLOT_ZEROS : state;
}
