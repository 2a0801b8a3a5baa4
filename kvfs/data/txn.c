/* SPDX-License-Identifier: BSD-3-Clause
 *
 * txn.c - one atomic change of several files.
 *
 * What a transaction writes lies in a layer of its own, the stage, that nobody
 * else sees.  A small one is submitted by making the stage the newest sealed
 * layer, under the cut lock, after its versions were compared: from then on it
 * is visible here, ordered, and on its way to the engine like any other layer.
 *
 * A stage that grows beyond TXN_STAGE_BYTES is spilled (spill.c): its blocks go
 * to a fresh fork T for each file, which nothing refers to yet.  The commit of
 * such a transaction is one record a file, "T over F as of cut c", applied in
 * one batch after everything older.  It is made under the cut lock, so nobody
 * sees half of it.
 *
 *   begin --write--> staged --submit--> sealed --commit.c--> applied
 *                      |  \--spill--> staged with forks --submit--> applied
 *                      +--abort--> gone (its forks are dead forks)
 */
#include "txn_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "read.h"
#include "work.h"

#define TXN_STAGE_BYTES ((size_t)16 << 20)

struct kvfs_ticket {
    struct kvfs_volume *v;
    struct kvfs_layer *layer; /* held; NULL: a large one, applied already */
    uint64_t id;
    uint64_t applies; /* of a large one: durable when so many are */
};

static int64_t
txn_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static size_t
txn_stage_max(const struct kvfs_volume *v)
{
    return TXN_STAGE_BYTES < v->cache_bytes / 4 ? TXN_STAGE_BYTES : v->cache_bytes / 4;
}

int
kvfs_txn_begin(struct kvfs_volume *v, struct kvfs_txn **txnp, struct kvfs_error *err)
{
    struct kvfs_txn *t;
    int rc = kvfs_volume_writable(v, err);

    if (rc < 0)
        return rc;
    t = calloc(1, sizeof(*t));
    if (t == NULL || (t->stage = kvfs_layer_take(v->overlay)) == NULL) {
        free(t);
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", v->path);
    }
    t->v = v;
    t->stage_max = txn_stage_max(v);
    *txnp = t;
    return 0;
}

static void
txn_free(struct kvfs_txn *t)
{
    while (t->files != NULL) {
        struct kvfs_txn_file *tf = t->files;

        t->files = tf->next;
        free(tf->top_holes.v);
        kvfs_node_put(tf->node);
        free(tf);
    }
    if (t->stage != NULL)
        kvfs_layer_drop(t->v->overlay, t->stage);
    free(t->bases);
    free(t);
}

void
kvfs_txn_abort(struct kvfs_txn *t)
{
    if (t == NULL)
        return;
    if (!atomic_load(&t->v->forked))
        kvfs_spill_abandon(t);
    txn_free(t);
}

/* The transaction's entry for a file, made at its first use. */
static int
txn_file(struct kvfs_txn *t, struct kvfs_file *f, uint64_t version, struct kvfs_txn_file **tfp,
         struct kvfs_error *err)
{
    struct kvfs_node *node = f->node;
    struct kvfs_txn_file *tf;
    uint64_t size_bytes;
    bool allowed;

    for (tf = t->files; tf != NULL; tf = tf->next) {
        if (tf->node == node) {
            *tfp = tf;
            return 0;
        }
    }
    kvfs_cut_lock_shared(t->v->overlay);
    allowed = node->leased && ((f->flags & KVFS_OPEN_WRITE) != 0 || kvfs_node_is_locked(node, f));
    (void)pthread_mutex_lock(&node->mem_lock);
    size_bytes = node->mem.size_bytes;
    (void)pthread_mutex_unlock(&node->mem_lock);
    kvfs_cut_unlock(t->v->overlay);
    if (!allowed)
        return kvfs_error_set(err, -EBADF, "%s: inode %llu is neither locked nor open for writing",
                              t->v->path, (unsigned long long)node->ino);
    tf = calloc(1, sizeof(*tf));
    if (tf == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", t->v->path);
    tf->node = node;
    tf->version = version;
    tf->size_bytes = size_bytes;
    kvfs_node_hold(node);
    tf->next = t->files;
    t->files = tf;
    *tfp = tf;
    return 0;
}

/* --- read ------------------------------------------------------------------ */

/* Block INDEX of the live file, zeros beyond its end. */
static int
txn_block_live(struct kvfs_node *node, uint64_t index, uint8_t *block, struct kvfs_error *err)
{
    struct kvfs_read r;

    kvfs_cut_lock_shared(node->v->overlay);
    kvfs_read_begin(&r, &node->view, block, index << node->view.shift, node->view.block_size);
    return kvfs_read_leased(node, &r, err);
}

/* Block INDEX as the transaction would leave it. */
static int
txn_block(struct kvfs_txn *t, const struct kvfs_txn_file *tf, uint64_t index, uint8_t *block,
          struct kvfs_error *err)
{
    struct kvfs_node *node = tf->node;
    enum kvfs_slot_state state =
        kvfs_layer_get(t->stage, node->ino, index, block, 0, node->view.block_size);
    int rc;

    if (state == KVFS_SLOT_ZEROS)
        memset(block, 0, node->view.block_size);
    if (state != KVFS_SLOT_EMPTY)
        return 0;
    if (tf->top != 0) {
        rc = kvfs_spill_block(t, tf, index, block, err);
        if (rc != 0)
            return rc < 0 ? rc : 0;
    }
    return txn_block_live(node, index, block, err);
}

int
kvfs_txn_pread(struct kvfs_txn *t, struct kvfs_file *f, void *buf, size_t count, uint64_t offset,
               struct kvfs_error *err)
{
    const struct kvfs_view *view = &f->node->view;
    uint8_t block[KVFS_BLOCK_SIZE_MAX];
    struct kvfs_txn_file *tf;
    struct kvfs_txn_file *known = NULL;
    size_t done = 0;
    int rc = kvfs_volume_usable(t->v, err);

    for (tf = t->files; tf != NULL; tf = tf->next) {
        if (tf->node == f->node)
            known = tf;
    }
    if (rc == 0 && known == NULL) /* nothing staged: as it is */
        return kvfs_file_pread(f, buf, count, offset, err);
    if (rc == 0 && (offset > known->size_bytes || count > known->size_bytes - offset))
        rc = kvfs_error_set(err, -EINVAL, "%s: reading beyond the end of inode %llu", t->v->path,
                            (unsigned long long)f->node->ino);
    while (rc == 0 && done < count) {
        size_t from = (size_t)((offset + done) & (view->block_size - 1));
        size_t len = view->block_size - from < count - done ? view->block_size - from
                                                            : count - done;

        rc = txn_block(t, known, (offset + done) >> view->shift, block, err);
        if (rc == 0)
            memcpy((uint8_t *)buf + done, block + from, len);
        done += len;
    }
    return rc;
}

/* --- write ----------------------------------------------------------------- */

static int
txn_put(struct kvfs_txn *t, struct kvfs_txn_file *tf, uint64_t index, const uint8_t *block,
        struct kvfs_error *err)
{
    size_t bs = tf->node->view.block_size;
    size_t added;

    if (block != NULL && block[0] == 0 && memcmp(block, block + 1, bs - 1) == 0)
        block = NULL;
    if (kvfs_layer_node(t->stage, tf->node) == NULL ||
        kvfs_layer_put(t->v->overlay, t->stage, tf->node->ino, index, block, bs, &added) < 0)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", t->v->path);
    atomic_fetch_add(&t->stage->bytes, added);
    if (atomic_load(&t->stage->bytes) >= t->stage_max)
        return kvfs_spill(t, err);
    return 0;
}

int
kvfs_txn_write(struct kvfs_txn *t, struct kvfs_file *f, uint64_t version, const void *buf,
               size_t count, uint64_t offset, struct kvfs_error *err)
{
    const struct kvfs_view *view = &f->node->view;
    uint8_t block[KVFS_BLOCK_SIZE_MAX];
    struct kvfs_txn_file *tf = NULL;
    size_t done = 0;
    int rc = kvfs_volume_writable(t->v, err);

    if (rc == 0 && (offset > KVFS_FILE_SIZE_MAX || count > KVFS_FILE_SIZE_MAX - offset))
        rc = kvfs_error_set(err, -EFBIG, "%s: a file holds at most 8 EiB - 1", t->v->path);
    if (rc == 0)
        rc = txn_file(t, f, version, &tf, err);
    while (rc == 0 && done < count) {
        uint64_t index = (offset + done) >> view->shift;
        size_t from = (size_t)((offset + done) & (view->block_size - 1));
        size_t len = view->block_size - from < count - done ? view->block_size - from
                                                            : count - done;

        if (len < view->block_size) {
            rc = txn_block(t, tf, index, block, err);
            if (rc == 0) {
                memcpy(block + from, (const uint8_t *)buf + done, len);
                rc = txn_put(t, tf, index, block, err);
            }
        } else {
            rc = txn_put(t, tf, index, (const uint8_t *)buf + done, err);
        }
        done += len;
    }
    if (rc == 0 && offset + count > tf->size_bytes) {
        tf->size_bytes = offset + count;
        tf->size_set = true;
    }
    return rc;
}

/* Blocks from FIRST to the old end become one hole of the stage. */
static int
txn_cut_off(struct kvfs_txn *t, struct kvfs_txn_file *tf, uint64_t first, uint64_t end,
            struct kvfs_error *err)
{
    struct kvfs_layer_node *ln;
    int rc = 0;

    for (int tries = 0; tries < 2; tries++) {
        ln = kvfs_layer_node(t->stage, tf->node);
        if (ln == NULL)
            return kvfs_error_set(err, -ENOMEM, "%s: no memory", t->v->path);
        rc = kvfs_layer_hole(t->stage, ln, first, end);
        if (rc != -ENOSPC)
            break;
        rc = kvfs_spill(t, err);
        if (rc < 0)
            return rc;
    }
    if (rc < 0)
        return kvfs_error_set(err, rc, "%s: no memory", t->v->path);
    atomic_fetch_add(&t->stage->bytes, KVFS_SLOT_COST);
    return 0;
}

int
kvfs_txn_truncate(struct kvfs_txn *t, struct kvfs_file *f, uint64_t version, uint64_t size_bytes,
                  struct kvfs_error *err)
{
    const struct kvfs_view *view = &f->node->view;
    uint8_t block[KVFS_BLOCK_SIZE_MAX];
    struct kvfs_txn_file *tf = NULL;
    size_t keep = (size_t)(size_bytes & (view->block_size - 1));
    uint64_t first = size_bytes >> view->shift;
    uint64_t end;
    int rc = kvfs_volume_writable(t->v, err);

    if (rc == 0 && size_bytes > KVFS_FILE_SIZE_MAX)
        rc = kvfs_error_set(err, -EFBIG, "%s: a file holds at most 8 EiB - 1", t->v->path);
    if (rc == 0)
        rc = txn_file(t, f, version, &tf, err);
    if (rc != 0)
        return rc;
    if (size_bytes < tf->size_bytes) {
        end = ((tf->size_bytes - 1) >> view->shift) + 1;
        if (keep != 0) {
            rc = txn_block(t, tf, first, block, err);
            memset(block + keep, 0, view->block_size - keep);
            if (rc == 0)
                rc = txn_put(t, tf, first, block, err);
            first++;
        }
        if (rc == 0 && first < end)
            rc = txn_cut_off(t, tf, first, end, err);
    }
    if (rc == 0 && size_bytes != tf->size_bytes) {
        tf->size_bytes = size_bytes;
        tf->size_set = true;
        if (kvfs_layer_node(t->stage, tf->node) == NULL)
            rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", t->v->path);
    }
    return rc;
}

/* --- commit ---------------------------------------------------------------- */

int
kvfs_txn_built_on(struct kvfs_txn *t, struct kvfs_snapshot *snapshot, struct kvfs_error *err)
{
    struct kvfs_snapshot **grown;

    for (size_t i = 0; i < t->bases_count; i++) {
        if (t->bases[i] == snapshot)
            return 0;
    }
    grown = realloc(t->bases, (t->bases_count + 1) * sizeof(struct kvfs_snapshot *));
    if (grown == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", t->v->path);
    t->bases = grown;
    t->bases[t->bases_count++] = snapshot;
    return 0;
}

/* Are all files as they were when the change was built?  Cut lock held. */
int
kvfs_txn_versions(const struct kvfs_txn *t, struct kvfs_error *err)
{
    for (size_t i = 0; i < t->bases_count; i++) {
        int code = kvfs_snapshot_failure(t->bases[i]);

        if (code != 0)
            return kvfs_error_set(err, code, "%s: a transaction that this one was built on has "
                                  "failed", t->v->path);
    }
    for (const struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next) {
        if (!tf->node->leased)
            return kvfs_error_set(err, -EBADF, "%s: inode %llu is no longer locked", t->v->path,
                                  (unsigned long long)tf->node->ino);
        if (tf->node->mem.version != tf->version)
            return kvfs_error_set(err, -EAGAIN, "%s: inode %llu has changed meanwhile", t->v->path,
                                  (unsigned long long)tf->node->ino);
    }
    return 0;
}

/* Seal the stage as a layer, and pin the state that it makes where SNAPSHOT is not NULL; cut
 * lock held, exclusive.  All that can fail comes first. */
static int
txn_seal(struct kvfs_txn *t, struct kvfs_snapshot *snapshot, struct kvfs_error *err)
{
    struct kvfs_overlay *o = t->v->overlay;
    int64_t now = txn_now_ns();
    int rc = kvfs_txn_versions(t, err);

    if (rc < 0)
        return rc;
    for (struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next) {
        if (kvfs_layer_node(t->stage, tf->node) == NULL)
            return kvfs_error_set(err, -ENOMEM, "%s: no memory", t->v->path);
    }
    if (kvfs_overlay_seal_locked(o) < 0)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", t->v->path);
    if (snapshot != NULL) {
        rc = kvfs_snapshot_pin_locked(snapshot, err);
        if (rc == 0)
            kvfs_snapshot_add_locked(snapshot, t->stage);
        else if (rc != -EBUSY) /* that: all places for readers are taken, which must not undo it */
            return rc;
    }
    t->stage->id = o->cur->id; /* `cur` is empty: it takes the next number */
    o->cur->id = ++o->next_id;
    t->stage->is_txn = true;
    for (struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next) {
        struct kvfs_layer_node *ln = kvfs_layer_node_find(t->stage, tf->node->ino);
        struct kvfs_node *node = tf->node;

        node->mem.version = kvfs_node_version_next(node);
        if (tf->size_set)
            node->mem.size_bytes = tf->size_bytes;
        if (now > node->mem.mtime_ns)
            node->mem.mtime_ns = now;
        ln->version_set = true;
        ln->version = node->mem.version;
        ln->size_set = tf->size_set;
        ln->size_bytes = tf->size_bytes;
        ln->mtime_ns = node->mem.mtime_ns;
        atomic_store(&node->dirty_id, t->stage->id);
    }
    atomic_fetch_add(&o->bytes, atomic_load(&t->stage->bytes));
    kvfs_overlay_push_locked(o, t->stage);
    return 0;
}

/* Does the stage add more blocks than it takes away?  Looked at only where space is scarce. */
static bool
txn_grows(struct kvfs_txn *t)
{
    static const uint8_t zeros[KVFS_BLOCK_SIZE_MAX];
    uint8_t block[KVFS_BLOCK_SIZE_MAX];
    int64_t added = 0;

    for (int i = 0; i < KVFS_LAYER_SHARDS; i++) {
        const struct kvfs_shard *shard = &t->stage->shards[i];

        for (uint32_t n = 0; n < shard->cap; n++) {
            const struct kvfs_slot *slot = &shard->slots[n];
            struct kvfs_node *node;
            bool was;

            if (slot->state == KVFS_SLOT_EMPTY)
                continue;
            node = kvfs_layer_node_find(t->stage, slot->ino)->node;
            was = txn_block_live(node, slot->index, block, NULL) < 0 || /* damaged, but there */
                  memcmp(block, zeros, node->view.block_size) != 0;
            added += (slot->state == KVFS_SLOT_DATA) - was;
        }
    }
    return added > 0;
}

/* A transaction that adds to a store which is nearly full leaves room for deletes. */
static int
txn_leave_reserve(struct kvfs_txn *t, size_t bytes, struct kvfs_error *err)
{
    struct kvfs_overlay *o = t->v->overlay;
    size_t reserve = kvfs_overlay_reserve(o);

    if (kvfs_overlay_fits(o, bytes + reserve, 0) || !txn_grows(t))
        return 0;
    return kvfs_overlay_room(o, bytes + reserve, 0, err);
}

int
kvfs_txn_room(struct kvfs_volume *v, uint64_t blocks, uint32_t block_size_bytes, bool grows,
              struct kvfs_error *err)
{
    uint64_t bytes = blocks * (block_size_bytes + KVFS_SLOT_COST);
    size_t batch = bytes < txn_stage_max(v) ? (size_t)bytes : txn_stage_max(v);
    size_t reserve = grows ? kvfs_overlay_reserve(v->overlay) : 0;

    return kvfs_overlay_room(v->overlay, batch + reserve, bytes - batch, err);
}

static int
txn_submit_small(struct kvfs_txn *t, struct kvfs_snapshot *snapshot, struct kvfs_ticket *ticket,
                 struct kvfs_error *err)
{
    struct kvfs_overlay *o = t->v->overlay;
    size_t bytes = atomic_load(&t->stage->bytes);
    int rc = txn_leave_reserve(t, bytes, err);

    if (rc == 0)
        rc = kvfs_overlay_admit(o, bytes, false, err);
    if (rc < 0)
        return rc;
    kvfs_layer_hold(o, t->stage); /* for the ticket */
    kvfs_cut_lock(o);
    rc = txn_seal(t, snapshot, err);
    kvfs_cut_unlock(o);
    kvfs_overlay_admitted(o, bytes);
    if (rc < 0) {
        kvfs_layer_drop(o, t->stage);
        return rc;
    }
    ticket->layer = t->stage;
    ticket->id = t->stage->id;
    t->stage = NULL; /* the overlay's now */
    return 0;
}

static int
txn_submit(struct kvfs_txn *t, enum kvfs_durability durability, struct kvfs_snapshot *snapshot,
           struct kvfs_ticket **ticketp, struct kvfs_error *err)
{
    struct kvfs_ticket *ticket = NULL;
    bool large = false;
    int rc = kvfs_volume_writable(t->v, err);

    for (const struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next)
        large = large || tf->top != 0;
    if (rc == 0 && (large || t->stage->nodes != NULL)) {
        ticket = calloc(1, sizeof(*ticket));
        if (ticket == NULL)
            rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", t->v->path);
    }
    if (rc == 0 && ticket != NULL) {
        ticket->v = t->v;
        rc = large ? kvfs_spill_commit(t, durability, err) : txn_submit_small(t, snapshot, ticket, err);
        ticket->applies = atomic_load(&t->v->applies);
    }
    if (rc < 0) {
        free(ticket);
        kvfs_txn_abort(t);
        return rc;
    }
    txn_free(t);
    *ticketp = ticket;
    return 0;
}

int
kvfs_txn_submit(struct kvfs_txn *t, struct kvfs_ticket **ticketp, struct kvfs_error *err)
{
    return txn_submit(t, KVFS_ORDERED, NULL, ticketp, err);
}

int
kvfs_txn_submit_pinned(struct kvfs_txn *t, enum kvfs_durability durability,
                       struct kvfs_ticket **ticketp, struct kvfs_snapshot **snapshotp,
                       struct kvfs_error *err)
{
    struct kvfs_volume *v = t->v;
    struct kvfs_snapshot *s = NULL;
    bool small = t->stage->nodes != NULL;
    int rc = 0;

    for (const struct kvfs_txn_file *tf = t->files; tf != NULL; tf = tf->next)
        small = small && tf->top == 0;
    if (small)
        rc = kvfs_snapshot_new(v, &s, err);
    if (rc < 0) {
        kvfs_txn_abort(t);
        return rc;
    }
    rc = txn_submit(t, durability, s, ticketp, err);
    if (rc < 0 || (s != NULL && !kvfs_snapshot_is_pinned(s))) {
        kvfs_snapshot_close(s);
        s = NULL;
    }
    if (rc == 0)
        *snapshotp = s;
    return rc;
}

int
kvfs_txn_wait(struct kvfs_ticket *ticket, enum kvfs_durability durability, struct kvfs_error *err)
{
    struct kvfs_volume *v;
    int failed = 0;
    int rc;

    if (ticket == NULL)
        return 0;
    v = ticket->v;
    if (ticket->layer != NULL) {
        rc = kvfs_commit(v, ticket->id, durability, err);
        if (rc == -EIO)
            rc = kvfs_commit_give_up(v, ticket->id, durability, err);
        failed = atomic_load(&ticket->layer->result);
        if (failed != 0)
            rc = kvfs_error_set(err, failed, "%s: the transaction failed: %s", v->path,
                                failed == -ENOSPC ? "no space left in the store"
                                                  : "nothing was changed");
        kvfs_layer_drop(v->overlay, ticket->layer);
    } else {
        rc = durability == KVFS_DURABLE ? kvfs_volume_sync_applies(v, ticket->applies, err) : 0;
    }
    free(ticket);
    return rc;
}

int
kvfs_txn_commit(struct kvfs_txn *t, enum kvfs_durability durability, struct kvfs_error *err)
{
    struct kvfs_ticket *ticket;
    int rc = txn_submit(t, durability, NULL, &ticket, err);

    return rc < 0 ? rc : kvfs_txn_wait(ticket, durability, err);
}
