/* SPDX-License-Identifier: BSD-3-Clause
 *
 * spill.c - transactions too large for one batch: fork over fork.
 *
 * Each file of such a transaction gets a fresh fork T, announced by a record
 * (T) so that it is collected if this process dies.  Every spill is one batch
 * and one step of T's own count of cuts: its extents carry that number, its
 * holes hide what earlier spills put there.  A block of zeros is a trailer
 * without bytes, since an absent block means "as in the fork below".
 *
 * The commit replaces the records T by "T over F as of cut c" (V), and the
 * contents records, in one batch.  Nothing older may then still wait in a layer
 * of these files, or it would lie on top: so the commit first brings all layers
 * down, and holds the cut lock until it is in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "txn_priv.h"
#include "work.h"

#define SPILL_EAGAIN_MAX 100

static struct kvfs_txn_file *
spill_file(const struct kvfs_txn *t, uint64_t ino)
{
    struct kvfs_txn_file *tf = t->files;

    while (tf != NULL && tf->node->ino != ino)
        tf = tf->next;
    return tf;
}

/* A fork for the file, if it has none yet. */
static int
spill_fork(struct kvfs_txn *t, struct kvfs_txn_file *tf, struct kvfs_batch_builder *b,
           struct kvfs_error *err)
{
    struct kvfs_pending_record r = {.ino = tf->node->ino};
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;
    int rc;

    if (tf->top != 0)
        return 0;
    rc = kvfs_id_new(t->v, &tf->top, err);
    if (rc < 0)
        return rc;
    kvfs_key_pending(&key, tf->top);
    len = kvfs_pending_encode(&r, &key, value);
    kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
    rc = kvfs_volume_apply(t->v, b, KVFS_ORDERED, err);
    if (rc < 0)
        tf->top = 0;
    return rc;
}

static void
spill_slot(struct kvfs_batch_builder *b, const struct kvfs_txn_file *tf,
           const struct kvfs_slot *slot)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t trailer[KVFS_TRAILER_LEN];
    size_t bs = tf->node->view.block_size;

    kvfs_key_block(key, tf->top, slot->index);
    if (slot->state == KVFS_SLOT_DATA) {
        kvfs_block_seal(trailer, key, slot->bytes, bs, tf->top_cut);
        kvfs_batch_put_borrowed(b, KVFS_DATA, key, sizeof(key), slot->bytes, bs, trailer,
                                sizeof(trailer));
    } else {
        kvfs_block_seal(trailer, key, NULL, 0, tf->top_cut);
        kvfs_batch_put(b, KVFS_DATA, key, sizeof(key), trailer, sizeof(trailer));
    }
}

/* One batch of all that the stage holds. */
static int
spill_batch(struct kvfs_txn *t, struct kvfs_batch_builder *b, struct kvfs_error *err)
{
    int rc = 0;

    for (const struct kvfs_layer_node *ln = t->stage->nodes; ln != NULL && rc == 0; ln = ln->next) {
        struct kvfs_txn_file *tf = spill_file(t, ln->ino);

        rc = spill_fork(t, tf, b, err);
        tf->top_cut++;
    }
    for (const struct kvfs_layer_node *ln = t->stage->nodes; ln != NULL && rc == 0; ln = ln->next) {
        struct kvfs_txn_file *tf = spill_file(t, ln->ino);

        for (size_t i = 0; i < ln->holes_count && rc == 0; i++) {
            struct kvfs_hole hole = {.start = ln->holes[i].start, .end = ln->holes[i].end,
                                     .cut = tf->top_cut};

            rc = kvfs_holes_cover(&tf->top_holes, hole, tf->top, b);
        }
    }
    for (int i = 0; i < KVFS_LAYER_SHARDS && rc == 0; i++) {
        const struct kvfs_shard *shard = &t->stage->shards[i];

        for (uint32_t n = 0; n < shard->cap; n++) {
            const struct kvfs_slot *slot = &shard->slots[n];

            if (slot->state == KVFS_SLOT_EMPTY)
                continue;
            if (slot->hole_seq >=
                kvfs_layer_hole_seq(kvfs_layer_node_find(t->stage, slot->ino), slot->index))
                spill_slot(b, spill_file(t, slot->ino), slot);
        }
    }
    return rc;
}

int
kvfs_spill(struct kvfs_txn *t, struct kvfs_error *err)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_layer *fresh = kvfs_layer_take(t->v->overlay);
    int rc = b == NULL || fresh == NULL ? -ENOMEM : 0;

    if (rc == 0)
        rc = kvfs_overlay_refresh(t->v->overlay, err);
    if (rc == 0)
        rc = kvfs_overlay_room(t->v->overlay, atomic_load(&t->stage->bytes) +
                                                  kvfs_overlay_reserve(t->v->overlay), 0, err);
    if (rc == 0)
        rc = spill_batch(t, b, err);
    if (rc == 0)
        rc = kvfs_volume_apply(t->v, b, KVFS_ORDERED, err);
    if (rc == -ENOMEM)
        (void)kvfs_error_set(err, rc, "%s: no memory", t->v->path);
    if (rc == 0) {
        struct kvfs_layer *old = t->stage;

        t->stage = fresh;
        fresh = old;
    }
    if (fresh != NULL)
        kvfs_layer_drop(t->v->overlay, fresh);
    kvfs_batch_free(b);
    return rc;
}

int
kvfs_spill_block(struct kvfs_txn *t, const struct kvfs_txn_file *tf, uint64_t index, uint8_t *block,
                 struct kvfs_error *err)
{
    struct kvfs_volume *v = t->v;
    struct kvfs_db_snap *snap;
    struct kvfs_trailer trailer;
    uint64_t hole = kvfs_holes_cut(&tf->top_holes, index);
    int rc = v->engine->begin(v->db, &snap, err);

    if (rc < 0)
        return rc;
    rc = kvfs_fork_block(v, snap, &tf->node->view, tf->top, index, block, &trailer, err);
    v->engine->end(snap);
    if (rc < 0 || (rc == 1 && trailer.cut >= hole))
        return rc;
    if (hole == 0)
        return 0;
    memset(block, 0, tf->node->view.block_size);
    return 1;
}

void
kvfs_spill_abandon(struct kvfs_txn *t)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;

    if (b == NULL)
        return; /* the next opener collects them */
    for (const struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next) {
        if (tf->top == 0)
            continue;
        kvfs_key_pending(&key, tf->top);
        kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
        kvfs_key_dead(&key, tf->top);
        len = kvfs_number_encode(0, &key, value);
        kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
    }
    if (kvfs_batch_ops(b) > 0) {
        (void)kvfs_volume_apply(t->v, b, KVFS_ORDERED, NULL);
        kvfs_work_wake(t->v);
    }
    kvfs_batch_free(b);
}

/* --- the commit of a large transaction ------------------------------------------ */

/* A file has too many forks over it already: help until there is room. */
static int
spill_make_room(struct kvfs_txn *t, struct kvfs_error *err)
{
    int rc = 0;

    for (const struct kvfs_txn_file *tf = t->files; tf != NULL && rc >= 0; tf = tf->next) {
        while (rc >= 0 && tf->node->view.overs_count >= KVFS_OVERS_MAX)
            rc = kvfs_work_node(t->v, tf->node, err);
    }
    return rc < 0 ? rc : 0;
}

static void
spill_contents(const struct kvfs_txn_file *tf, struct kvfs_contents_record *c)
{
    *c = tf->node->view.contents;
    c->cut++;
    c->version = tf->version_next;
    if (tf->size_set)
        c->size_bytes = tf->size_bytes;
}

static void
spill_records(const struct kvfs_txn *t, struct kvfs_batch_builder *b)
{
    for (const struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next) {
        const struct kvfs_view *view = &tf->node->view;
        struct kvfs_over_record over = {.top = tf->top};
        struct kvfs_contents_record c;
        struct kvfs_key key;
        uint8_t value[KVFS_SMALL_RECORD_MAX];
        size_t len;

        spill_contents(tf, &c);
        kvfs_key_contents(&key, view->ino);
        kvfs_batch_expect(b, KVFS_META, key.bytes, key.len, view->stored, view->stored_len);
        len = kvfs_contents_encode(&c, &key, value);
        kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
        if (tf->top == 0)
            continue;
        kvfs_key_pending(&key, tf->top);
        kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
        kvfs_key_over(&key, view->fork, c.cut);
        len = kvfs_over_encode(&over, &key, value);
        kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
    }
}

/* The batch is in: the nodes know of it; cut lock held, exclusive. */
static void
spill_done(struct kvfs_txn *t)
{
    for (struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next) {
        struct kvfs_view *view = &tf->node->view;
        struct kvfs_key key;

        spill_contents(tf, &view->contents);
        kvfs_key_contents(&key, view->ino);
        view->stored_len = kvfs_contents_encode(&view->contents, &key, view->stored);
        tf->node->mem = view->contents;
        if (tf->top != 0) {
            view->overs[view->overs_count++] = (struct kvfs_over){
                .top = tf->top, .cut = view->contents.cut, .holes = tf->top_holes};
            memset(&tf->top_holes, 0, sizeof(tf->top_holes));
        }
    }
}

/* Room for one more fork in every file's list, before anything can go wrong. */
static int
spill_reserve(struct kvfs_txn *t)
{
    for (struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next) {
        struct kvfs_view *view = &tf->node->view;
        struct kvfs_over *grown =
            realloc(view->overs, (view->overs_count + 1) * sizeof(*view->overs));

        if (grown == NULL)
            return -ENOMEM;
        view->overs = grown;
    }
    return 0;
}

/* Everything older is in; make the forks visible. */
static int
spill_apply(struct kvfs_txn *t, struct kvfs_batch_builder *b, enum kvfs_durability durability,
            struct kvfs_error *err)
{
    struct kvfs_overlay *o = t->v->overlay;
    int rc;

    kvfs_cut_lock(o);
    if (o->cur->nodes != NULL || o->oldest != NULL)
        rc = -EBUSY; /* somebody wrote in between: once more */
    else
        rc = kvfs_txn_versions(t, err);
    if (rc == 0)
        rc = spill_reserve(t);
    if (rc == 0) {
        for (struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next)
            tf->version_next = kvfs_node_version_next(tf->node);
        spill_records(t, b);
        rc = kvfs_volume_apply(t->v, b, durability, err);
        if (rc == -EAGAIN)
            rc = -ESTALE; /* not a version: a resize from outside */
    }
    if (rc == 0)
        spill_done(t);
    kvfs_cut_unlock(o);
    return rc;
}

int
kvfs_spill_commit(struct kvfs_txn *t, enum kvfs_durability durability, struct kvfs_error *err)
{
    struct kvfs_overlay *o = t->v->overlay;
    struct kvfs_batch_builder *b = kvfs_batch_new();
    int rc = b == NULL ? -ENOMEM : 0;

    if (rc == 0 && t->stage->nodes != NULL)
        rc = kvfs_spill(t, err);
    (void)pthread_mutex_lock(&o->commit_lock);
    if (rc == 0)
        rc = spill_make_room(t, err);
    for (int tries = 0; rc == 0; tries++) {
        if (tries == 1) /* others write all the time: hold them off for a moment */
            kvfs_overlay_gate(o, true);
        rc = kvfs_commit_all_locked(t->v, KVFS_ORDERED, err);
        if (rc == 0)
            rc = spill_apply(t, b, durability, err);
        for (const struct kvfs_txn_file *tf = t->files; tf != NULL && rc == -ESTALE; tf = tf->next) {
            int adopted = kvfs_commit_adopt(t->v, tf->node, err);

            rc = adopted < 0 ? adopted : rc;
        }
        if (rc == 0 || (rc != -EBUSY && rc != -ESTALE))
            break;
        rc = tries < SPILL_EAGAIN_MAX ? 0 : -EAGAIN;
    }
    kvfs_overlay_gate(o, false);
    (void)pthread_mutex_unlock(&o->commit_lock);
    if (rc == -ENOMEM)
        (void)kvfs_error_set(err, rc, "%s: no memory", t->v->path);
    kvfs_batch_free(b);
    if (rc == 0)
        kvfs_work_wake(t->v);
    return rc;
}
