/* SPDX-License-Identifier: BSD-3-Clause
 *
 * commit.c - bringing sealed layers into the engine, under the commit lock; who takes
 * it for whom is group.c's.
 *
 *   seal  ->  join layers up to a batch's size  ->  gather, sort, newest wins
 *         ->  engine->apply  ->  under the cut lock, exclusive: layers leave
 *
 * 1. One layer is never split over two batches.
 * 2. Each file in a batch gets its next cut number c.  Its extents carry c; its
 *    holes mean "extents before c"; its contents record, written in the same
 *    batch, says c, and expects the record that was there: so a resize by
 *    another process is met (-EAGAIN), taken over, and the batch made anew.
 * 3. A refusal (-ENOSPC, ...) of several joined layers: each is tried alone.
 *    A transaction's layer that is refused fails, and with it every younger
 *    transaction.  A layer of plain writes was acknowledged, so it stays, and
 *    everything behind it waits; it is tried again at the next commit.
 * 4. Any other error is an unknown outcome and poisons the volume.  Transactions that were
 *    not in by then fail, so that nobody here sees them; plain writes, which were
 *    acknowledged, stay to be read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "overlay.h"
#include "testbug.h"
#include "work.h"

#define COMMIT_EAGAIN_MAX 100

/* One file in the batch. */
struct commit_node {
    struct kvfs_node *node;
    uint64_t ino;
    size_t first, count; /* its entries in `lns`, oldest layer first */
    bool has_holes;
    uint64_t cut;
    struct kvfs_contents_record contents;
    uint8_t stored[KVFS_SMALL_RECORD_MAX]; /* the record to be */
    size_t stored_len;
    struct kvfs_holes holes; /* the list to be, if has_holes */
};

struct commit_ln {
    const struct kvfs_layer_node *ln;
    unsigned rank; /* of the layer: 0 is the oldest joined */
};

struct commit_entry {
    uint64_t index;
    const uint8_t *bytes; /* NULL: zeros */
    uint32_t node;
    uint32_t rank;
};

struct kvfs_commit_scratch {
    struct kvfs_batch_builder *batch;
    struct kvfs_layer *layers[64]; /* joined */
    unsigned layers_count;
    struct commit_ln *lns;
    size_t lns_count, lns_cap;
    struct commit_node *nodes;
    size_t nodes_count, nodes_cap;
    struct commit_entry *entries;
    size_t entries_count, entries_cap;
};

void
kvfs_commit_scratch_free(struct kvfs_commit_scratch *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->nodes_count; i++)
        free(s->nodes[i].holes.v);
    kvfs_batch_free(s->batch);
    free(s->lns);
    free(s->nodes);
    free(s->entries);
    free(s);
}

static int
commit_reserve(void *arrayp, size_t *cap, size_t want, size_t size)
{
    void *grown;
    void *old;
    size_t n = *cap != 0 ? *cap : 64;

    if (want <= *cap)
        return 0;
    while (n < want)
        n *= 2;
    memcpy(&old, arrayp, sizeof(old));
    grown = realloc(old, n * size);
    if (grown == NULL)
        return -ENOMEM;
    memcpy(arrayp, &grown, sizeof(grown));
    *cap = n;
    return 0;
}

/* --- gather ---------------------------------------------------------------- */

static int
commit_ln_compare(const void *a, const void *b)
{
    const struct commit_ln *x = a;
    const struct commit_ln *y = b;

    if (x->ln->ino != y->ln->ino)
        return x->ln->ino < y->ln->ino ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* The files of the joined layers, sorted by inode. */
static int
commit_gather_nodes(struct kvfs_commit_scratch *s)
{
    for (size_t i = 0; i < s->nodes_count; i++)
        free(s->nodes[i].holes.v);
    s->lns_count = s->nodes_count = 0;
    for (unsigned rank = 0; rank < s->layers_count; rank++) {
        for (const struct kvfs_layer_node *ln = s->layers[rank]->nodes; ln != NULL; ln = ln->next) {
            if (commit_reserve(&s->lns, &s->lns_cap, s->lns_count + 1, sizeof(*s->lns)) < 0)
                return -ENOMEM;
            s->lns[s->lns_count++] = (struct commit_ln){.ln = ln, .rank = rank};
        }
    }
    if (s->lns_count > 1)
        qsort(s->lns, s->lns_count, sizeof(*s->lns), commit_ln_compare);
    if (commit_reserve(&s->nodes, &s->nodes_cap, s->lns_count, sizeof(*s->nodes)) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < s->lns_count; i++) {
        const struct kvfs_layer_node *ln = s->lns[i].ln;
        struct commit_node *cn;

        if (i == 0 || ln->ino != s->lns[i - 1].ln->ino) {
            cn = &s->nodes[s->nodes_count++];
            memset(cn, 0, sizeof(*cn));
            cn->node = ln->node;
            cn->ino = ln->ino;
            cn->first = i;
        }
        cn = &s->nodes[s->nodes_count - 1];
        cn->count++;
        cn->has_holes = cn->has_holes || ln->holes_count > 0;
    }
    return 0;
}

static size_t
commit_node_find(const struct kvfs_commit_scratch *s, uint64_t ino)
{
    size_t lo = 0;
    size_t hi = s->nodes_count;

    while (lo + 1 < hi) {
        size_t mid = (lo + hi) / 2;

        if (s->nodes[mid].ino <= ino)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Was the entry made before a hole over it, in its own layer or a newer one? */
static bool
commit_is_dead(const struct kvfs_commit_scratch *s, const struct commit_node *cn,
               const struct kvfs_slot *slot, unsigned rank)
{
    for (size_t i = cn->first; i < cn->first + cn->count; i++) {
        const struct commit_ln *c = &s->lns[i];
        uint32_t seq;

        if (c->rank < rank || c->ln->holes_count == 0)
            continue;
        seq = kvfs_layer_hole_seq(c->ln, slot->index);
        if (c->rank > rank ? seq != 0 : seq > slot->hole_seq)
            return true;
    }
    return false;
}

static int
commit_gather_entries(struct kvfs_commit_scratch *s)
{
    s->entries_count = 0;
    for (unsigned rank = 0; rank < s->layers_count; rank++) {
        const struct kvfs_layer *l = s->layers[rank];

        for (int i = 0; i < KVFS_LAYER_SHARDS; i++) {
            const struct kvfs_shard *shard = &l->shards[i];

            if (shard->used == 0)
                continue;
            if (commit_reserve(&s->entries, &s->entries_cap, s->entries_count + shard->used,
                               sizeof(*s->entries)) < 0)
                return -ENOMEM;
            for (uint32_t n = 0; n < shard->cap; n++) {
                const struct kvfs_slot *slot = &shard->slots[n];
                size_t node;

                if (slot->state == KVFS_SLOT_EMPTY)
                    continue;
                node = commit_node_find(s, slot->ino);
                if (s->nodes[node].has_holes &&
                    commit_is_dead(s, &s->nodes[node], slot, rank))
                    continue;
                s->entries[s->entries_count++] = (struct commit_entry){
                    .index = slot->index,
                    .bytes = slot->state == KVFS_SLOT_DATA ? slot->bytes : NULL,
                    .node = (uint32_t)node,
                    .rank = rank};
            }
        }
    }
    return 0;
}

/* By the order of DATA keys (the nodes' forks stand in for them), newest first. */
static int
commit_entry_compare(const void *a, const void *b)
{
    const struct commit_entry *x = a;
    const struct commit_entry *y = b;

    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->rank > y->rank ? -1 : x->rank < y->rank;
}

/* --- the batch ------------------------------------------------------------- */

static int
commit_holes(struct kvfs_commit_scratch *s, struct commit_node *cn)
{
    const struct kvfs_view *view = &cn->node->view;
    int rc = kvfs_holes_copy(&cn->holes, &view->holes);

    for (size_t i = cn->first; i < cn->first + cn->count && rc == 0; i++) {
        const struct kvfs_layer_node *ln = s->lns[i].ln;

        for (size_t h = 0; h < ln->holes_count && rc == 0; h++) {
            struct kvfs_hole hole = {.start = ln->holes[h].start, .end = ln->holes[h].end,
                                     .cut = cn->cut};

            rc = kvfs_holes_cover(&cn->holes, hole, view->fork, s->batch);
        }
    }
    return rc;
}

/* The records of one file: contents, holes. */
static int
commit_node_records(struct kvfs_commit_scratch *s, struct commit_node *cn)
{
    const struct kvfs_view *view = &cn->node->view;
    struct kvfs_key key;

    cn->contents = view->contents;
    cn->contents.cut++;
    cn->cut = cn->contents.cut;
    for (size_t i = cn->first; i < cn->first + cn->count; i++) { /* the newest wins */
        const struct kvfs_layer_node *ln = s->lns[i].ln;

        if (ln->size_set)
            cn->contents.size_bytes = ln->size_bytes;
        if (ln->version_set)
            cn->contents.version = ln->version;
        if (ln->mtime_ns > cn->contents.mtime_ns)
            cn->contents.mtime_ns = ln->mtime_ns;
    }
    kvfs_key_contents(&key, cn->ino);
    kvfs_batch_expect(s->batch, KVFS_META, key.bytes, key.len, view->stored, view->stored_len);
    cn->stored_len = kvfs_contents_encode(&cn->contents, &key, cn->stored);
    kvfs_batch_put(s->batch, KVFS_META, key.bytes, key.len, cn->stored, cn->stored_len);
    return cn->has_holes ? commit_holes(s, cn) : 0;
}

static void
commit_put_data(struct kvfs_commit_scratch *s, const struct commit_entry *e)
{
    const struct commit_node *cn = &s->nodes[e->node];
    const struct kvfs_view *view = &cn->node->view;
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t trailer[KVFS_TRAILER_LEN];

    kvfs_key_block(key, view->fork, e->index);
    kvfs_block_seal(trailer, key, e->bytes, view->block_size, cn->cut);
    kvfs_batch_put_borrowed(s->batch, KVFS_DATA, key, sizeof(key), e->bytes, view->block_size,
                            trailer, sizeof(trailer));
}

/* A mark of zeros: where a fork lies over the file's, absence would not do. */
static void
commit_mark_zeros(struct kvfs_commit_scratch *s, const struct commit_node *cn, uint64_t index)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t trailer[KVFS_TRAILER_LEN];

    kvfs_key_block(key, cn->node->view.fork, index);
    kvfs_block_seal(trailer, key, NULL, 0, cn->cut);
    kvfs_batch_put(s->batch, KVFS_DATA, key, sizeof(key), trailer, sizeof(trailer));
}

/* Blocks [first, last] of a file become holes. */
static void
commit_put_zeros(struct kvfs_commit_scratch *s, const struct commit_node *cn, uint64_t first,
                 uint64_t last)
{
    uint8_t lo[KVFS_DATA_KEY_LEN];
    uint8_t hi[KVFS_DATA_KEY_LEN];

    if (cn->node->view.overs_count > 0) {
        for (uint64_t i = first; i <= last; i++)
            commit_mark_zeros(s, cn, i);
        return;
    }
    kvfs_key_block(lo, cn->node->view.fork, first);
    kvfs_key_block(hi, cn->node->view.fork, last + 1);
    if (first == last)
        kvfs_batch_del(s->batch, KVFS_DATA, lo, sizeof(lo));
    else
        kvfs_batch_del_range(s->batch, KVFS_DATA, lo, sizeof(lo), hi, sizeof(hi));
}

/* From *i on, skip what newer layers replaced; false at the end. */
static bool
commit_next(const struct kvfs_commit_scratch *s, size_t *i)
{
    while (*i < s->entries_count && *i > 0 &&
           s->entries[*i].node == s->entries[*i - 1].node &&
           s->entries[*i].index == s->entries[*i - 1].index)
        (*i)++;
    return *i < s->entries_count;
}

static void
commit_entries(struct kvfs_commit_scratch *s, size_t from, size_t to)
{
    for (size_t i = from; commit_next(s, &i) && i < to;) {
        const struct commit_entry *e = &s->entries[i++];
        uint64_t last = e->index;

        if (e->bytes != NULL) {
            if (!(i == s->entries_count / 2 && kvfs_test_bug("drop-block")))
                commit_put_data(s, e);
            continue;
        }
        while (commit_next(s, &i) && i < to && s->entries[i].node == e->node &&
               s->entries[i].bytes == NULL && s->entries[i].index == last + 1) {
            last++;
            i++;
        }
        commit_put_zeros(s, &s->nodes[e->node], e->index, last);
    }
}

static int
commit_build(struct kvfs_commit_scratch *s)
{
    int rc = commit_gather_nodes(s);

    kvfs_batch_reset(s->batch);
    if (rc == 0)
        rc = commit_gather_entries(s);
    for (size_t i = 0; i < s->nodes_count && rc == 0; i++)
        rc = commit_node_records(s, &s->nodes[i]);
    if (rc < 0)
        return rc;
    if (s->entries_count > 1)
        qsort(s->entries, s->entries_count, sizeof(*s->entries), commit_entry_compare);
    commit_entries(s, 0, s->entries_count);
    return 0;
}

/* --- after the apply ---------------------------------------------------------- */

static void
commit_unlink(struct kvfs_overlay *o, struct kvfs_layer *l)
{
    if (l->older != NULL)
        l->older->newer = l->newer;
    else
        o->oldest = l->newer;
    if (l->newer != NULL)
        l->newer->older = l->older;
    else
        o->newest = l->older;
    atomic_fetch_sub(&o->bytes, atomic_load(&l->bytes));
}

/* The batch is in: the layers leave, the nodes know what the engine holds. */
static void
commit_done(struct kvfs_overlay *o, struct kvfs_commit_scratch *s, enum kvfs_durability durability)
{
    uint64_t id = s->layers[s->layers_count - 1]->id;
    bool holes = false;

    kvfs_cut_lock(o);
    atomic_store(&o->applied_id, id);
    if (durability == KVFS_DURABLE)
        atomic_store(&o->durable_id, id);
    for (unsigned i = 0; i < s->layers_count; i++)
        commit_unlink(o, s->layers[i]);
    for (size_t i = 0; i < s->nodes_count; i++) {
        struct commit_node *cn = &s->nodes[i];
        struct kvfs_view *view = &cn->node->view;

        view->contents = cn->contents;
        memcpy(view->stored, cn->stored, cn->stored_len);
        view->stored_len = cn->stored_len;
        if (cn->has_holes) {
            struct kvfs_holes old = view->holes;

            view->holes = cn->holes;
            cn->holes = old;
            holes = true;
        }
        kvfs_node_release_locked(cn->node);
    }
    kvfs_cut_unlock(o);
    atomic_fetch_add(&o->commits, 1);
    if (durability == KVFS_DURABLE)
        atomic_fetch_add(&o->commits_durable, 1);
    atomic_store(&o->full, 0);
    for (unsigned i = 0; i < s->layers_count; i++)
        kvfs_layer_drop(o, s->layers[i]);
    kvfs_overlay_tune(o, s->entries_count);
    kvfs_overlay_wake(o);
    if (holes)
        kvfs_work_wake(o->v);
}

int
kvfs_commit_adopt(struct kvfs_volume *v, struct kvfs_node *node, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    struct kvfs_view fresh = {.ino = node->ino};
    int rc = v->engine->begin(v->db, &snap, err);

    if (rc < 0)
        return rc;
    rc = kvfs_view_contents(v, snap, &fresh, err);
    v->engine->end(snap);
    if (rc < 0)
        return rc;
    kvfs_cut_lock(v->overlay);
    if (node->leased) {
        if (fresh.contents.size_bytes != node->view.contents.size_bytes &&
            node->mem.size_bytes == node->view.contents.size_bytes)
            node->mem.size_bytes = fresh.contents.size_bytes;
        node->view.contents = fresh.contents;
        memcpy(node->view.stored, fresh.stored, fresh.stored_len);
        node->view.stored_len = fresh.stored_len;
    }
    kvfs_cut_unlock(v->overlay);
    return 0;
}

/* --- failure --------------------------------------------------------------- */

/* What was acknowledged of a file, after layers were taken out of the middle. */
static void
commit_mem_rebuild(struct kvfs_overlay *o, struct kvfs_node *node)
{
    node->mem = node->view.contents;
    for (const struct kvfs_layer *l = o->oldest;; l = l->newer) {
        const struct kvfs_layer_node *ln =
            kvfs_layer_node_find(l != NULL ? l : o->cur, node->ino);

        if (ln != NULL && ln->size_set)
            node->mem.size_bytes = ln->size_bytes;
        if (ln != NULL && ln->version_set)
            node->mem.version = ln->version;
        if (ln != NULL && ln->mtime_ns > node->mem.mtime_ns)
            node->mem.mtime_ns = ln->mtime_ns;
        if (l == NULL)
            break;
    }
}

/* Every transaction from layer FROM on fails with CODE. */
static void
commit_fail_txns(struct kvfs_overlay *o, struct kvfs_layer *from, int code)
{
    struct kvfs_layer *failed = NULL;

    kvfs_cut_lock(o);
    for (struct kvfs_layer *l = from, *next; l != NULL; l = next) {
        next = l->newer;
        if (!l->is_txn)
            continue;
        atomic_store(&l->result, code);
        commit_unlink(o, l);
        l->newer = failed;
        failed = l;
    }
    for (const struct kvfs_layer *l = failed; l != NULL; l = l->newer) {
        for (const struct kvfs_layer_node *ln = l->nodes; ln != NULL; ln = ln->next)
            commit_mem_rebuild(o, ln->node);
    }
    if (o->oldest == NULL) /* nothing waits any more */
        atomic_store(&o->applied_id, o->cur->id - 1);
    for (const struct kvfs_layer *l = failed; l != NULL; l = l->newer) {
        for (const struct kvfs_layer_node *ln = l->nodes; ln != NULL; ln = ln->next)
            kvfs_node_release_locked(ln->node);
    }
    kvfs_cut_unlock(o);
    while (failed != NULL) {
        struct kvfs_layer *l = failed;

        failed = l->newer;
        kvfs_layer_drop(o, l);
    }
    kvfs_overlay_wake(o);
}

/* --- commit ---------------------------------------------------------------- */

/* Planted bugs: half of the blocks, or all records, go first, in a batch of their own. */
static int
commit_split(struct kvfs_volume *v, struct kvfs_commit_scratch *s, bool records,
             struct kvfs_error *err)
{
    int rc = 0;

    kvfs_batch_reset(s->batch);
    if (!records)
        commit_entries(s, 0, s->entries_count / 2);
    for (size_t i = 0; i < s->nodes_count && records && rc == 0; i++)
        rc = commit_node_records(s, &s->nodes[i]);
    if (rc == 0)
        rc = kvfs_volume_apply(v, s->batch, KVFS_ORDERED, err);
    if (rc < 0 || !records)
        return rc < 0 ? rc : commit_build(s);
    kvfs_batch_reset(s->batch);
    commit_entries(s, 0, s->entries_count);
    return 0;
}

/* Apply the layers in S as one batch. */
static int
commit_apply(struct kvfs_volume *v, struct kvfs_commit_scratch *s, enum kvfs_durability durability,
             struct kvfs_error *err)
{
    int rc = -EAGAIN;

    for (int tries = 0; rc == -EAGAIN && tries < COMMIT_EAGAIN_MAX; tries++) {
        rc = commit_build(s);
        if (rc == 0 && (kvfs_test_bug("split-request") || kvfs_test_bug("meta-first")))
            rc = commit_split(v, s, kvfs_test_bug("meta-first"), err);
        if (rc == 0)
            rc = kvfs_volume_apply(v, s->batch, durability, err);
        for (size_t i = 0; rc == -EAGAIN && i < s->nodes_count; i++) {
            int adopted = kvfs_commit_adopt(v, s->nodes[i].node, err);

            rc = adopted < 0 ? adopted : rc;
        }
    }
    if (rc == -EAGAIN)
        rc = kvfs_error_set(err, -EIO, "%s: the record of a file keeps changing under its writer",
                            v->path);
    if (rc == 0)
        commit_done(v->overlay, s, durability);
    else if (rc == -ENOMEM)
        (void)kvfs_error_set(err, rc, "%s: no memory for a commit", v->path);
    else if (rc != -ENOSPC && rc != -E2BIG)
        rc = kvfs_volume_poison(v, rc, err);
    return rc;
}

/* Choose what goes into the next batch: the oldest layers, MAX at most, together up to
 * join_bytes.  *last: these are all. */
static bool
commit_join(struct kvfs_overlay *o, struct kvfs_commit_scratch *s, unsigned max, bool *last)
{
    size_t bytes = 0;
    size_t join = atomic_load(&o->join_bytes);

    s->layers_count = 0;
    kvfs_cut_lock_shared(o);
    for (struct kvfs_layer *l = o->oldest; l != NULL && s->layers_count < max; l = l->newer) {
        bytes += atomic_load(&l->bytes);
        if (s->layers_count > 0 && bytes > join)
            break;
        s->layers[s->layers_count++] = l;
        *last = l->newer == NULL;
    }
    kvfs_cut_unlock(o);
    return s->layers_count > 0;
}

/* Apply sealed layers until ID is in; what others seal meanwhile is theirs. */
static int
commit_sealed(struct kvfs_volume *v, uint64_t id, enum kvfs_durability durability,
              struct kvfs_error *err)
{
    struct kvfs_overlay *o = v->overlay;
    struct kvfs_commit_scratch *s = o->scratch;
    unsigned max = sizeof(s->layers) / sizeof(s->layers[0]);
    bool last = true;
    int rc = 0;

    while (rc == 0 && atomic_load(&o->applied_id) < id && commit_join(o, s, max, &last)) {
        struct kvfs_layer *first = s->layers[0];

        rc = commit_apply(v, s, last ? durability : KVFS_ORDERED, err);
        if (rc == -EIO) /* what was told to have failed is not to be seen here */
            commit_fail_txns(o, first, rc);
        if (rc == 0 || rc == -EIO)
            continue;
        if (s->layers_count > 1) {
            max = 1; /* each alone */
            rc = 0;
        } else {
            bool alone = first->is_txn; /* then `result` tells */

            commit_fail_txns(o, first, rc);
            if (alone)
                rc = 0;
            else
                atomic_store(&o->full, rc);
        }
    }
    return rc;
}

/* Seal `cur` if the commit is to cover it; one that somebody waits for takes
 * along all that others may wait for. */
static int
commit_seal(struct kvfs_overlay *o, uint64_t id, enum kvfs_durability durability)
{
    bool needed;

    kvfs_cut_lock_shared(o); /* between transactions there is as a rule nothing to seal */
    needed = (durability == KVFS_DURABLE || o->cur->id <= id) && !kvfs_overlay_is_sealed(o);
    kvfs_cut_unlock(o);
    return needed ? kvfs_overlay_seal(o) : 0;
}

int
kvfs_commit_locked(struct kvfs_volume *v, uint64_t id, enum kvfs_durability durability,
              struct kvfs_error *err)
{
    struct kvfs_overlay *o = v->overlay;
    int rc = kvfs_volume_writable(v, err);

    if (rc < 0)
        return rc;
    if (atomic_load(&o->applied_id) < id) {
        if (o->scratch == NULL) {
            o->scratch = calloc(1, sizeof(*o->scratch));
            if (o->scratch == NULL || (o->scratch->batch = kvfs_batch_new()) == NULL) {
                free(o->scratch);
                o->scratch = NULL;
                return kvfs_error_set(err, -ENOMEM, "%s: no memory", v->path);
            }
        }
        rc = commit_seal(o, id, durability);
        if (rc < 0)
            return kvfs_error_set(err, rc, "%s: no memory", v->path);
        rc = commit_sealed(v, id, durability, err);
    }
    if (rc == 0 && durability == KVFS_DURABLE &&
        atomic_load(&o->durable_id) < atomic_load(&o->applied_id)) {
        uint64_t applied = atomic_load(&o->applied_id);

        rc = v->engine->sync(v->db, err);
        if (rc < 0)
            return kvfs_volume_poison(v, rc, err);
        atomic_store(&o->durable_id, applied);
        atomic_fetch_add(&o->commits_durable, 1);
    }
    return rc;
}

bool
kvfs_commit_is_done(struct kvfs_overlay *o, uint64_t id, enum kvfs_durability durability)
{
    return atomic_load(&o->durable_id) >= id ||
           (durability != KVFS_DURABLE && atomic_load(&o->applied_id) >= id);
}

int
kvfs_commit_give_up(struct kvfs_volume *v, uint64_t id, enum kvfs_durability durability,
                    struct kvfs_error *err)
{
    struct kvfs_overlay *o = v->overlay;
    struct kvfs_layer *oldest;
    int rc = -EIO;

    (void)pthread_mutex_lock(&o->commit_lock);
    if (kvfs_commit_is_done(o, id, durability)) {
        rc = 0;
    } else if (atomic_load(&o->applied_id) < id && kvfs_volume_writable(v, NULL) < 0) {
        kvfs_cut_lock_shared(o);
        oldest = o->oldest;
        kvfs_cut_unlock(o);
        commit_fail_txns(o, oldest, -EIO);
    }
    (void)pthread_mutex_unlock(&o->commit_lock);
    return rc == 0 ? 0 : kvfs_volume_writable(v, err) < 0 ? -EIO : rc;
}

int
kvfs_commit_full(struct kvfs_volume *v, struct kvfs_error *err)
{
    struct kvfs_overlay *o = v->overlay;
    uint64_t id;
    bool sealed;

    kvfs_cut_lock_shared(o);
    sealed = o->oldest != NULL;
    id = o->cur->id - 1;
    kvfs_cut_unlock(o);
    return sealed ? kvfs_commit(v, id, KVFS_ORDERED, err) : kvfs_commit_all(v, KVFS_ORDERED, err);
}

int
kvfs_commit_all_locked(struct kvfs_volume *v, enum kvfs_durability durability,
                       struct kvfs_error *err)
{
    struct kvfs_overlay *o = v->overlay;
    uint64_t id;

    kvfs_cut_lock_shared(o);
    id = kvfs_overlay_is_sealed(o) ? o->cur->id - 1 : o->cur->id;
    kvfs_cut_unlock(o);
    return kvfs_commit_locked(v, id, durability, err);
}

int
kvfs_commit_all(struct kvfs_volume *v, enum kvfs_durability durability, struct kvfs_error *err)
{
    struct kvfs_overlay *o = v->overlay;
    int rc;

    (void)pthread_mutex_lock(&o->commit_lock);
    rc = kvfs_commit_all_locked(v, durability, err);
    (void)pthread_mutex_unlock(&o->commit_lock);
    return rc;
}
