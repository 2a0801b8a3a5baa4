/* SPDX-License-Identifier: BSD-3-Clause
 *
 * apply.c - one batch for two engines.
 *
 *   changes META only   one META batch
 *   changes DATA only   one DATA batch
 *   changes both        a META batch, durable, that also carries the DATA operations
 *                       as intents; then the DATA batch
 *
 * Number the batches as they come.  After a power cut META holds its batches up to some
 * one, DATA its own up to some one, each no older than what was durable there.
 *
 *  1. When batch k changes DATA, all META batches up to k are durable (meta_dirty).  So
 *     DATA is never ahead of META.
 *  2. When batch k changes META, each DATA batch before it is durable in DATA, or has
 *     intents that META keeps (data_plain: there are some of neither kind).  So
 *     where META is ahead, DATA can follow.
 *  3. Intents are deleted by a META batch after DATA was synced behind them (needed).
 *     DATA tells which it has (intent.c), so none is applied over a later batch.
 *  4. By 1 to 3, opening leaves the state after exactly one batch: the newest that
 *     either side held.  A death of the process alone is the same with every batch
 *     held; a batch it cut between its halves is finished.
 *  5. DURABLE: of both or of META only, META's batch is durable, with all META batches
 *     before; DATA's before are durable or have intents there.  Of DATA only, DATA's
 *     batch is durable, META was synced (1).  ORDERED is served as DURABLE.
 *  6. All expectations are judged before anything changes: those of a side that changes
 *     in its batch, the others here, while nobody else writes (apply_lock).
 *  7. No snapshot begins between the halves (gate), nor with a half each of two states
 *     (read.c).
 *  8. If DATA refuses its half, META's is taken back (undo.c); failing that the handle
 *     shows and writes no more, and the next open finishes the batch.
 *  9. Where DATA's engine keeps no order, no batch goes without an intent; 4 then holds
 *     over a death of the process, as nothing holds on such an engine over a power cut.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hybrid_priv.h"

/* Where DATA has less room than this and many times the batch, it may refuse. */
#define APPLY_NEAR_BYTES ((uint64_t)64 << 20)

struct apply {
    struct kvfs_db *db;
    const struct kvfs_batch *batch;
    enum kvfs_durability durability;
    struct kvfs_error *err;

    size_t changes[HYBRID_SIDES], expects[HYBRID_SIDES];
    size_t own_keys; /* META keys and bounds that begin with 00 */
    uint64_t data_put_bytes;

    struct kvfs_op *ops[HYBRID_SIDES]; /* the batches of the two engines */
    size_t ops_count[HYBRID_SIDES];
    size_t meta_changes_at; /* in ops[META]: behind the deletion of old intents */
    uint8_t *keys, *keys_free, *intents, done[8];
    size_t records, intent_bytes;
    struct kvfs_batch_builder *undo; /* of META's half; NULL: DATA has room in plenty */
};

bool
kvfs_hybrid_clean(int rc)
{
    return rc == 0 || rc == -EAGAIN || rc == -E2BIG || rc == -ENOSPC || rc == -ENOMEM ||
           rc == -EROFS || rc == -EINVAL;
}

int
kvfs_hybrid_usable(struct kvfs_db *db, struct kvfs_error *err)
{
    if (!atomic_load(&db->poisoned))
        return 0;
    return kvfs_error_set(err, -EIO, "%s: an earlier batch failed, open the store again",
                          db->folder);
}

/* --- judging ------------------------------------------------------------------------- */

/* With one byte more in front, as keys that begin with 00 lie in META, it would be too long. */
static bool
apply_key_too_long(const struct kvfs_op *op)
{
    return op->keyspace == KVFS_META && op->type != KVFS_OP_DEL_RANGE &&
           op->key_len == KVFS_META_KEY_MAX && *(const uint8_t *)op->key == HYBRID_OWN_KEY;
}

static void
apply_count(struct apply *a, const struct kvfs_op *op)
{
    if (op->type < KVFS_OP_EXPECT)
        a->changes[op->keyspace]++;
    else
        a->expects[op->keyspace]++;
    if (op->keyspace == KVFS_DATA) {
        if (op->type == KVFS_OP_PUT)
            a->data_put_bytes += op->value[0].iov_len + op->value[1].iov_len + op->key_len;
        return;
    }
    a->own_keys += op->key_len > 0 && *(const uint8_t *)op->key == HYBRID_OWN_KEY;
    a->own_keys += op->type == KVFS_OP_DEL_RANGE && op->key_end_len > 0 &&
                   *(const uint8_t *)op->key_end == HYBRID_OWN_KEY;
}

static int
apply_check(struct apply *a)
{
    int rc = kvfs_batch_check(a->batch, &a->db->limits, a->db->folder, a->err);

    for (size_t i = 0; rc == 0 && i < a->batch->ops_count; i++) {
        if (apply_key_too_long(&a->batch->ops[i]))
            rc = kvfs_batch_refuse(a->batch, i, a->db->folder, a->err);
        else
            apply_count(a, &a->batch->ops[i]);
    }
    return rc;
}

static bool
apply_equals(const struct kvfs_op *op, const uint8_t *value, size_t len)
{
    size_t n = op->value[0].iov_len, m = op->value[1].iov_len;

    return len == n + m && (n == 0 || memcmp(value, op->value[0].iov_base, n) == 0) &&
           (m == 0 || memcmp(value + n, op->value[1].iov_base, m) == 0);
}

static int
apply_expect(struct apply *a, struct kvfs_db_snap *snap, size_t i)
{
    const struct kvfs_op *op = &a->batch->ops[i];
    size_t want = op->value[0].iov_len + op->value[1].iov_len, len = 0, key_len = op->key_len;
    uint8_t own[KVFS_META_KEY_MAX], *value = malloc(want + 1);
    struct iovec iov = {value, want};
    const void *key = op->key;
    bool right;
    int rc;

    if (value == NULL)
        return kvfs_error_set(a->err, -ENOMEM, "%s: no memory", a->db->folder);
    if (op->keyspace == KVFS_META)
        key = kvfs_hybrid_key(key, &key_len, false, own);
    rc = a->db->pair->side[op->keyspace]->get(snap, (enum kvfs_keyspace)op->keyspace, key, key_len,
                                              0, &iov, 1, &len, a->err);
    right = op->type == KVFS_OP_EXPECT ? rc == 0 && apply_equals(op, value, len) : rc == -ENOENT;
    free(value);
    if (rc != 0 && rc != -ENOENT)
        return rc;
    return right ? 0
                 : kvfs_error_set(a->err, -EAGAIN, "%s: operation %zu finds another value",
                                  a->db->folder, i);
}

/* The expectations of a side that does not change. */
static int
apply_expects(struct apply *a, int side)
{
    const struct kvfs_engine *engine = a->db->pair->side[side];
    struct kvfs_db_snap *snap;
    int rc;

    if (a->expects[side] == 0)
        return 0;
    rc = engine->begin(a->db->side[side], &snap, a->err);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < a->batch->ops_count && rc == 0; i++)
        if (a->batch->ops[i].keyspace == side && a->batch->ops[i].type >= KVFS_OP_EXPECT)
            rc = apply_expect(a, snap, i);
    engine->end(snap);
    return rc;
}

/* --- building ------------------------------------------------------------------------- */

static void
apply_add(struct apply *a, int side, const struct kvfs_op *op)
{
    a->ops[side][a->ops_count[side]++] = *op;
}

/* A key or bound as it lies in META. */
static const void *
apply_key(struct apply *a, const void *key, uint16_t *key_len, bool bound)
{
    size_t len = *key_len;
    const void *mapped;

    if (len == 0 || *(const uint8_t *)key != HYBRID_OWN_KEY)
        return key;
    mapped = kvfs_hybrid_key(key, &len, bound, a->keys_free);
    a->keys_free += KVFS_META_KEY_MAX;
    *key_len = (uint16_t)len;
    return mapped;
}

/* A range of the level above may have ours in its middle. */
static void
apply_add_range(struct apply *a, const struct kvfs_op *op)
{
    static const uint8_t ours[] = {HYBRID_OWN_KEY, HYBRID_OWN_FIRST}, behind[] = {HYBRID_OWN_KEY + 1};
    bool from = op->key_len == 0 || *(const uint8_t *)op->key == HYBRID_OWN_KEY;
    bool to = op->key_end_len == 0 || *(const uint8_t *)op->key_end != HYBRID_OWN_KEY;
    struct kvfs_op part = *op;

    part.key = apply_key(a, op->key, &part.key_len, true);
    part.key_end = apply_key(a, op->key_end, &part.key_end_len, true);
    if (from && to) {
        struct kvfs_op low = part;

        low.key_end = ours;
        low.key_end_len = sizeof(ours);
        apply_add(a, HYBRID_META, &low);
        part.key = behind;
        part.key_len = sizeof(behind);
    }
    apply_add(a, HYBRID_META, &part);
}

static void
apply_add_meta(struct apply *a, const struct kvfs_op *op)
{
    struct kvfs_op mapped = *op;

    if (op->type == KVFS_OP_DEL_RANGE) {
        apply_add_range(a, op);
        return;
    }
    mapped.key = apply_key(a, op->key, &mapped.key_len, false);
    apply_add(a, HYBRID_META, &mapped);
}

/* Always there: so to META a batch of deletes and a few puts looks like one, and
 * it keeps headroom for those. */
static void
apply_add_forget(struct apply *a)
{
    uint64_t first = atomic_load(&a->db->first);
    struct kvfs_op del = kvfs_hybrid_intent_del(first, a->db->needed, a->keys_free);

    a->keys_free += 2 * HYBRID_INTENT_KEY;
    apply_add(a, HYBRID_META, &del);
}

static int
apply_build(struct apply *a)
{
    bool both = a->changes[HYBRID_META] > 0 || a->records > 0;
    size_t most = 2 * a->batch->ops_count + a->records + 2;

    a->keys = malloc(a->own_keys * KVFS_META_KEY_MAX + (a->records + 2) * HYBRID_INTENT_KEY);
    a->intents = malloc(a->intent_bytes + 1);
    for (int i = 0; i < HYBRID_SIDES; i++)
        a->ops[i] = malloc(most * sizeof(*a->ops[i]));
    if (a->keys == NULL || a->intents == NULL || a->ops[HYBRID_META] == NULL ||
        a->ops[HYBRID_DATA] == NULL)
        return kvfs_error_set(a->err, -ENOMEM, "%s: no memory for a batch", a->db->folder);
    a->keys_free = a->keys;
    if (both)
        apply_add_forget(a);
    a->meta_changes_at = a->ops_count[HYBRID_META];
    for (size_t i = 0; i < a->batch->ops_count; i++) {
        const struct kvfs_op *op = &a->batch->ops[i];

        if (op->keyspace == KVFS_META && both)
            apply_add_meta(a, op);
        else if (op->keyspace == KVFS_DATA && a->changes[HYBRID_DATA] > 0 &&
                 (op->type < KVFS_OP_EXPECT || !both))
            apply_add(a, HYBRID_DATA, op);
    }
    if (a->records > 0) {
        uint64_t next = atomic_load(&a->db->next);
        const struct kvfs_op done = kvfs_hybrid_intent_done(next + a->records - 1, a->done);

        if (a->db->bug != HYBRID_NO_INTENT) {
            kvfs_hybrid_intent_put(a->batch, next, a->intents, a->keys_free,
                                   a->ops[HYBRID_META] + a->ops_count[HYBRID_META]);
            a->ops_count[HYBRID_META] += a->records;
        }
        apply_add(a, HYBRID_DATA, &done);
    }
    return 0;
}

/* --- applying ------------------------------------------------------------------------ */

static int
apply_side(struct apply *a, int side, enum kvfs_durability durability)
{
    const struct kvfs_batch batch = {a->ops[side], a->ops_count[side]};
    int rc = a->db->pair->side[side]->apply(a->db->side[side], &batch, durability, a->err);

    if (!kvfs_hybrid_clean(rc))
        atomic_store(&a->db->poisoned, 1);
    return rc;
}

static int
apply_synced(struct kvfs_db *db, int side, struct kvfs_error *err)
{
    int rc = db->pair->side[side]->sync(db->side[side], err);

    if (rc != 0) {
        atomic_store(&db->poisoned, 1);
        if (kvfs_hybrid_clean(rc)) /* of a sync nothing is known */
            rc = kvfs_error_set(err, -EIO, "%s: %s could not be synced", db->folder,
                                db->pair->side[side]->name);
    }
    return rc;
}

int
kvfs_hybrid_meta_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = apply_synced(db, HYBRID_META, err);

    db->meta_dirty = rc != 0;
    return rc;
}

int
kvfs_hybrid_data_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = apply_synced(db, HYBRID_DATA, err);

    if (rc != 0)
        return rc;
    db->data_plain = false;
    if (db->backups == 0) {
        db->needed = atomic_load(&db->next);
        db->pending_bytes = 0;
    }
    return 0;
}

int
kvfs_hybrid_forget(struct kvfs_db *db, struct kvfs_error *err)
{
    uint8_t keys[2 * HYBRID_INTENT_KEY];
    struct kvfs_op del = kvfs_hybrid_intent_del(atomic_load(&db->first), db->needed, keys);
    const struct kvfs_batch batch = {&del, 1};
    int rc;

    if (atomic_load(&db->first) >= db->needed)
        return 0;
    rc = db->pair->side[HYBRID_META]->apply(db->side[HYBRID_META], &batch, KVFS_DURABLE, err);
    if (!kvfs_hybrid_clean(rc))
        atomic_store(&db->poisoned, 1);
    if (rc == 0) {
        db->meta_dirty = false;
        atomic_store(&db->first, db->needed);
    }
    return rc;
}

/* META is about to change: rule 2. */
static int
apply_settle_data(struct apply *a)
{
    if (!a->db->data_plain || a->db->bug == HYBRID_DATA_UNSYNCED)
        return 0;
    return kvfs_hybrid_data_sync(a->db, a->err);
}

static int
apply_meta_only(struct apply *a)
{
    struct kvfs_db *db = a->db;
    int rc = apply_settle_data(a);

    if (rc == 0)
        rc = apply_build(a);
    if (rc == 0)
        rc = apply_side(a, HYBRID_META, a->durability);
    (void)atomic_fetch_add(&db->ended, 1);
    if (rc == 0) {
        db->meta_dirty = a->durability != KVFS_DURABLE;
        atomic_store(&db->first, db->needed);
    }
    return rc;
}

static int
apply_data_only(struct apply *a)
{
    struct kvfs_db *db = a->db;
    int rc = 0;

    if (db->meta_dirty && db->bug != HYBRID_META_UNSYNCED) /* rule 1 */
        rc = kvfs_hybrid_meta_sync(db, a->err);
    if (rc == 0)
        rc = apply_build(a);
    if (rc == 0) /* rule 4 wants order even where nobody asked for it */
        rc = apply_side(a, HYBRID_DATA, a->durability == KVFS_NONE ? KVFS_ORDERED : KVFS_DURABLE);
    (void)atomic_fetch_add(&db->ended, 1);
    if (rc != 0)
        return rc;
    db->data_plain = a->durability != KVFS_DURABLE;
    if (!db->data_plain) {
        db->needed = atomic_load(&db->next);
        db->pending_bytes = 0;
    }
    return 0;
}

/* May DATA refuse its half?  Then know what META holds before it. */
static int
apply_look_before(struct apply *a)
{
    const struct kvfs_engine *const *side = a->db->pair->side;
    struct kvfs_batch_builder *undo = NULL;
    struct kvfs_engine_stat stat;
    int rc = side[HYBRID_DATA]->stat(a->db->side[HYBRID_DATA], &stat, a->err);

    /* Without it a refusal ends this handle, and is no worse for what is stored. */
    if (rc == 0 && stat.avail_bytes < APPLY_NEAR_BYTES + 8 * a->data_put_bytes)
        (void)kvfs_hybrid_undo(a->db, a->ops[HYBRID_META] + a->meta_changes_at,
                               a->ops_count[HYBRID_META] - a->meta_changes_at, &undo, NULL);
    a->undo = undo;
    return rc;
}

/* DATA refused with RC what META has taken. */
static int
apply_take_back(struct apply *a, int rc)
{
    struct kvfs_db *db = a->db;
    struct kvfs_batch batch;

    if (rc != -ENOMEM && rc != -ENOSPC)
        rc = -EIO;
    if (a->undo != NULL && rc != -EIO && kvfs_batch_end(a->undo, &batch) == 0 &&
        db->pair->side[HYBRID_META]->apply(db->side[HYBRID_META], &batch, KVFS_DURABLE, NULL) == 0)
        return rc; /* with DATA's words */
    atomic_store(&db->torn, 1);
    atomic_store(&db->poisoned, 1);
    return kvfs_error_set(a->err, -EIO, "%s: a batch was stopped half way, open the store again",
                          db->folder);
}

/* So that tests which kill at any moment meet this one often. */
static void
apply_pause(const struct kvfs_db *db)
{
    const struct timespec moment = {.tv_nsec = 2000000};

    if (db->pause)
        (void)nanosleep(&moment, NULL);
}

/* Both halves; under the gate. */
static int
apply_halves(struct apply *a)
{
    struct kvfs_db *db = a->db;
    int rc;

    if (db->bug == HYBRID_DATA_FIRST) {
        rc = apply_side(a, HYBRID_DATA, KVFS_DURABLE); /* or it seldom is there first */
        if (rc != 0)
            return rc;
        apply_pause(db);
    }
    rc = apply_side(a, HYBRID_META, KVFS_DURABLE);
    if (rc != 0)
        return rc;
    apply_pause(db);
    db->meta_dirty = false;
    atomic_store(&db->first, db->needed);
    if (db->bug != HYBRID_DATA_FIRST)
        rc = apply_side(a, HYBRID_DATA, KVFS_ORDERED);
    if (rc != 0)
        return apply_take_back(a, rc);
    (void)atomic_fetch_add(&db->next, a->records);
    db->pending_bytes += a->intent_bytes;
    if (db->bug == HYBRID_FORGET_EARLY)
        db->needed = atomic_load(&db->next);
    return 0;
}

static int
apply_gated(struct apply *a)
{
    bool gated = a->db->bug != HYBRID_NO_GATE;
    int rc;

    if (gated)
        (void)pthread_rwlock_wrlock(&a->db->gate);
    rc = apply_halves(a);
    if (gated)
        (void)pthread_rwlock_unlock(&a->db->gate);
    return rc;
}

static int
apply_both(struct apply *a)
{
    struct kvfs_db *db = a->db;
    int rc = apply_settle_data(a);

    a->records = kvfs_hybrid_intent_size(a->batch, &a->intent_bytes);
    if (rc == 0 && db->backups == 0 && db->pending_bytes > 0 &&
        db->pending_bytes + a->intent_bytes > db->intents_bytes)
        rc = kvfs_hybrid_data_sync(db, a->err);
    if (rc == 0)
        rc = apply_build(a);
    if (rc == 0)
        rc = apply_look_before(a);
    if (rc == 0)
        rc = apply_gated(a);
    if (rc == -ENOSPC && db->backups == 0 && atomic_load(&db->first) < atomic_load(&db->next)) {
        /* What fills META may be old intents. */
        rc = kvfs_hybrid_data_sync(db, a->err);
        if (rc == 0)
            rc = kvfs_hybrid_forget(db, a->err);
        if (rc == 0)
            rc = apply_gated(a);
    }
    return rc;
}

static void
apply_free(struct apply *a)
{
    kvfs_batch_free(a->undo);
    for (int i = 0; i < HYBRID_SIDES; i++)
        free(a->ops[i]);
    free(a->keys);
    free(a->intents);
}

/* --- the calls ------------------------------------------------------------------------ */

/* Under apply_lock. */
static int
apply_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_hybrid_data_sync(db, err);

    return rc != 0 ? rc : kvfs_hybrid_meta_sync(db, err);
}

static int
apply_locked(struct apply *a)
{
    struct kvfs_db *db = a->db;
    bool plain = db->backups == 0 && (db->pair->side[HYBRID_DATA]->caps &
                                      (KVFS_CAP_ORDERED | KVFS_CAP_DURABLE)) != 0;
    bool meta = a->changes[HYBRID_META] > 0, data = a->changes[HYBRID_DATA] > 0;
    bool meta_batch = meta || (data && !plain), data_batch = data && !meta_batch;
    int rc = kvfs_hybrid_usable(db, a->err);

    if (rc == 0 && !meta_batch)
        rc = apply_expects(a, HYBRID_META);
    if (rc == 0 && !data_batch)
        rc = apply_expects(a, HYBRID_DATA);
    if (rc != 0)
        return rc;
    if (data_batch)
        return apply_data_only(a);
    if (data)
        return apply_both(a);
    if (meta)
        return apply_meta_only(a);
    return a->durability == KVFS_DURABLE ? apply_sync(db, a->err) : 0;
}

int
kvfs_hybrid_apply(struct kvfs_db *db, const struct kvfs_batch *batch,
                  enum kvfs_durability durability, struct kvfs_error *err)
{
    struct apply a = {.db = db, .batch = batch, .err = err,
                      .durability = durability == KVFS_NONE ? KVFS_NONE : KVFS_DURABLE};
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    if (db->readonly)
        return kvfs_error_set(err, -EROFS, "%s: opened readonly", db->folder);
    rc = apply_check(&a);
    if (rc != 0)
        return rc;
    (void)pthread_mutex_lock(&db->apply_lock);
    rc = apply_locked(&a);
    apply_free(&a);
    (void)pthread_mutex_unlock(&db->apply_lock);
    return rc;
}

int
kvfs_hybrid_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0 || db->readonly)
        return rc;
    (void)pthread_mutex_lock(&db->apply_lock);
    rc = kvfs_hybrid_usable(db, err);
    if (rc == 0)
        rc = apply_sync(db, err);
    (void)pthread_mutex_unlock(&db->apply_lock);
    return rc;
}
