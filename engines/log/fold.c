/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fold.c - bringing what was logged down to the engine below, many batches as one.
 *
 *  1. A fold takes the whole `active` view: of many writes of a key only the last goes
 *     down.  Deleted ranges go first, for a view's records are newer than its ranges.
 *  2. It goes down in pieces, ordered ones, and the last is durable and says which part of
 *     the ring is covered.  Until then readers find everything in `folding`, and after a
 *     crash the replay writes it all again: a half-done fold is never seen.  So the ring is
 *     flushed before the first of several pieces: a power cut must not take the records of
 *     batches whose half lies below.
 *  3. Only after the last piece was applied does the ring's tail move and `folding` go.
 *  4. A fold that fails poisons the store: reading goes on, the ring keeps everything,
 *     and the next open replays it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log_priv.h"

#define FOLD_SHRINK_AFTER 10 /* idle times */
#define FOLD_SOON_NS      1000000000u /* folds that begin so soon one after the other want a longer ring */
#define FOLD_IDLE_S       1 /* what lies in the log goes down after so long without a reason */

struct fold {
    struct kvfs_db *db;
    struct kvfs_batch_builder *batch;
    struct kvfs_error *err;
    bool flushed; /* the ring */
};

/* --- pieces ------------------------------------------------------------------------------ */

static int
fold_flush(struct fold *f)
{
    struct kvfs_db *db = f->db;
    int rc;

    if (f->flushed)
        return 0;
    (void)pthread_mutex_lock(&db->writer);
    rc = kvfs_ring_flush(db->ring, f->err);
    (void)pthread_mutex_unlock(&db->writer);
    f->flushed = rc == 0;
    return rc;
}

/* Leave the device to writers, until there is one that waits for the fold. */
static void
fold_pause(struct kvfs_db *db, uint64_t bytes, uint64_t took)
{
    uint64_t room = kvfs_log_pace_room(&db->pace, kvfs_ring_bytes(db->ring));
    uint64_t used = kvfs_ring_used(db->ring);
    uint64_t end = kvfs_log_pace_now() +
                   kvfs_log_pace_piece(&db->pace, bytes, took, room > used ? room - used : 0);
    const struct timespec until = {.tv_sec = (time_t)(end / 1000000000u),
                                   .tv_nsec = (long)(end % 1000000000u)};

    (void)pthread_mutex_lock(&db->fold_lock);
    while (!db->fold_stop && db->fold_waited == 0 &&
           pthread_cond_timedwait(&db->fold_wake, &db->fold_lock, &until) == 0)
        continue;
    (void)pthread_mutex_unlock(&db->fold_lock);
}

/* Bring down what was collected; with PLACE it is the last, and durable. */
static int
fold_piece(struct fold *f, const struct log_place *place)
{
    uint64_t begun = kvfs_log_pace_now(), bytes = kvfs_batch_bytes(f->batch);
    struct kvfs_db *db = f->db;
    uint8_t value[48];
    struct kvfs_batch batch;
    int rc;

    if (place != NULL) {
        struct kvfs_op op = kvfs_log_place_op(place, value);

        kvfs_batch_put(f->batch, KVFS_META, op.key, op.key_len, value, sizeof(value));
    }
    rc = kvfs_batch_end(f->batch, &batch);
    if (rc != 0)
        return kvfs_error_set(f->err, rc, "%s: no memory for folding the log", db->path);
    if (place == NULL)
        rc = fold_flush(f);
    if (rc == 0 && batch.ops_count > 0)
        rc = db->engine->apply(db->below, &batch, place != NULL ? KVFS_DURABLE : KVFS_ORDERED,
                               f->err);
    kvfs_batch_reset(f->batch);
    (void)atomic_fetch_add(&db->counts->flushes, 1); /* at least */
    if (rc == 0)
        kvfs_log_stop_at(db, place != NULL ? LOG_STOP_FOLDED : LOG_STOP_FOLD);
    if (rc == 0)
        fold_pause(db, bytes, kvfs_log_pace_now() - begun);
    return rc;
}

static int
fold_add(struct fold *f, const struct kvfs_op *op)
{
    int rc = kvfs_log_below_add(f->batch, op);

    if (rc != 0)
        return kvfs_error_set(f->err, rc, "%s: no memory for folding the log", f->db->path);
    if (kvfs_batch_bytes(f->batch) < kvfs_log_pace_size(&f->db->pace, f->db->piece_bytes) &&
        kvfs_batch_ops(f->batch) + 4 < f->db->limits.batch_max_ops)
        return 0;
    return fold_piece(f, NULL);
}

static struct kvfs_op
fold_range_op(int ks, const struct kvfs_memrecord *r)
{
    return (struct kvfs_op){
        .type = KVFS_OP_DEL_RANGE,
        .keyspace = (uint8_t)ks,
        .key = r->bytes,
        .key_len = (uint16_t)r->key_len,
        .key_end = kvfs_memrecord_value(r),
        .key_end_len = (uint16_t)r->value_len,
    };
}

static struct kvfs_op
fold_record_op(int ks, const struct kvfs_memrecord *r)
{
    const uint8_t *value = kvfs_memrecord_value(r);
    struct kvfs_op op = {
        .type = value[0] == LOG_PUT ? KVFS_OP_PUT : KVFS_OP_DEL,
        .keyspace = (uint8_t)ks,
        .key = r->bytes,
        .key_len = (uint16_t)r->key_len,
    };

    op.value[0] = (struct iovec){.iov_base = (void *)(uintptr_t)(value + 1),
                                 .iov_len = r->value_len - 1};
    return op;
}

static int
fold_tree(struct fold *f, const struct kvfs_memtree *t, int ks,
          struct kvfs_op (*make)(int ks, const struct kvfs_memrecord *r))
{
    const struct kvfs_memrecord *r;
    struct kvfs_memwalk walk;
    int rc = kvfs_memwalk_start(&walk, t, NULL, 0, false);

    while (rc == 0 && (rc = kvfs_memwalk_next(&walk, &r)) == 0 && r != NULL) {
        struct kvfs_op op = make(ks, r);

        rc = fold_add(f, &op);
    }
    kvfs_memwalk_end(&walk);
    return rc;
}

static int
fold_keyspace(struct fold *f, const struct log_view *v, int ks)
{
    int rc = f->db->bug == LOG_BUG_LOST_RANGE ? 0
                                              : fold_tree(f, v->ranges[ks], ks, fold_range_op);

    return rc != 0 ? rc : fold_tree(f, v->records[ks], ks, fold_record_op);
}

/* DATA first: the place is META's, so the last piece may be META alone. */
static int
fold_view(struct fold *f, const struct log_view *v, const struct log_place *place)
{
    int rc = fold_keyspace(f, v, KVFS_DATA);

    if (rc == 0 && f->db->limits.batch_halves_best && kvfs_batch_ops(f->batch) > 0)
        rc = fold_piece(f, NULL);
    if (rc == 0)
        rc = fold_keyspace(f, v, KVFS_META);
    return rc != 0 ? rc : fold_piece(f, place);
}

/* --- a fold ------------------------------------------------------------------------------ */

/* Make `active` the view that is folded.  What is then covered is in *place and *bytes. */
static bool
fold_turn(struct kvfs_db *db, struct log_place *place, uint64_t *bytes)
{
    bool any;

    (void)pthread_mutex_lock(&db->writer);
    (void)pthread_mutex_lock(&db->lock);
    any = !kvfs_log_view_empty(&db->active) || db->place.tail.seq != db->active_end.seq;
    if (any) {
        db->folding = db->active;
        db->active = (struct log_view){.records = {NULL}};
        *place = db->place;
        place->tail = db->active_end;
        *bytes = atomic_load(&db->pending_bytes);
    }
    (void)pthread_mutex_unlock(&db->lock);
    (void)pthread_mutex_unlock(&db->writer);
    return any;
}

static void
fold_done(struct kvfs_db *db, const struct log_place *place, uint64_t bytes)
{
    struct log_view old;

    (void)pthread_mutex_lock(&db->writer);
    db->place = *place;
    kvfs_ring_release(db->ring, &place->tail);
    (void)pthread_mutex_lock(&db->lock);
    old = db->folding;
    db->folding = (struct log_view){.records = {NULL}};
    (void)pthread_mutex_unlock(&db->lock);
    (void)pthread_mutex_unlock(&db->writer);
    kvfs_log_pace_fold(&db->pace, 0);
    (void)atomic_fetch_sub(&db->pending_bytes, bytes);
    kvfs_log_view_drop(&old);
}

static int
fold_once(struct kvfs_db *db)
{
    struct kvfs_error err = {.code = 0};
    struct fold f = {.db = db, .err = &err};
    struct log_place place;
    uint64_t bytes;
    int rc;

    if (atomic_load(&db->poisoned) != 0)
        return -EIO;
    if (!fold_turn(db, &place, &bytes))
        return 0;
    kvfs_log_pace_fold(&db->pace, bytes);
    if (db->bug == LOG_BUG_TAIL_EARLY) {
        f.batch = kvfs_batch_new();
        if (f.batch != NULL)
            (void)fold_piece(&f, &place);
        kvfs_batch_free(f.batch);
    }
    f.batch = kvfs_batch_new();
    rc = f.batch != NULL ? fold_view(&f, &db->folding, &place) : -ENOMEM;
    kvfs_batch_free(f.batch);
    if (rc == 0)
        fold_done(db, &place, bytes);
    else
        (void)kvfs_log_poison(db, rc);
    return rc;
}

/* --- the ring's size ------------------------------------------------------------------------ */

/* The size that the ring should have next: twice as much, if that may be used, and the store and
 * its file system have it to spare. */
static uint64_t
fold_next_size(struct kvfs_db *db)
{
    uint64_t now = kvfs_ring_bytes(db->ring) + KVFS_RING_ALIGN, next = 2 * now;
    struct kvfs_engine_stat stat;

    if (next > db->ring_max)
        next = db->ring_max;
    if (next <= now || kvfs_log_pace_room(&db->pace, now) < now || db->engine->stat(db->below, &stat, NULL) != 0 ||
        next > stat.avail_bytes / LOG_ROOM_PART)
        return 0;
    return next;
}

/* Batches had to wait: make the ring longer.  It can wait, and a failure does no harm. */
static void
fold_grow(struct kvfs_db *db)
{
    uint64_t bytes = fold_next_size(db);

    if (bytes == 0 || !atomic_load(&db->logs)) {
        atomic_store(&db->ring_short, false);
        return;
    }
    if (kvfs_ring_grow_prepare(db->ring, bytes, NULL) != 0) {
        atomic_store(&db->ring_short, false); /* until a batch has to wait again */
        return;
    }
    (void)pthread_mutex_lock(&db->writer);
    /* Once others write, they know the ring as it was. */
    if (atomic_load(&db->logs) && kvfs_ring_may_grow(db->ring)) {
        if (kvfs_ring_grow(db->ring, bytes, NULL) != 0)
            (void)kvfs_log_poison(db, -EIO);
        atomic_store(&db->ring_short, false);
    }
    (void)pthread_mutex_unlock(&db->writer);
}

/* Nothing was logged for a while: a short ring again, if all is folded. */
static void
fold_shrink(struct kvfs_db *db)
{
    int rc = 0;

    (void)pthread_mutex_lock(&db->writer);
    if (atomic_load(&db->logs) && kvfs_ring_used(db->ring) == 0 &&
        kvfs_ring_bytes(db->ring) + KVFS_RING_ALIGN > db->ring_first &&
        atomic_load(&db->poisoned) == 0)
        rc = kvfs_log_ring_anew(db, db->ring_first, NULL);
    if (rc != 0 && rc != -ENOSPC && rc != -EDQUOT && rc != -ENOMEM) /* those did no harm */
        (void)kvfs_log_poison(db, -EIO);
    (void)pthread_mutex_unlock(&db->writer);
}

/* --- the thread --------------------------------------------------------------------------- */

/* Under fold_lock.  Wait until there is something to do; true: nobody asked for it. */
static bool
fold_sleep(struct kvfs_db *db)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FOLD_IDLE_S;
    while (!db->fold_stop && (db->fold_held > 0 || db->fold_wanted <= db->fold_count)) {
        if (db->fold_held > 0) {
            (void)pthread_cond_wait(&db->fold_wake, &db->fold_lock);
            continue;
        }
        if (pthread_cond_timedwait(&db->fold_wake, &db->fold_lock, &until) == ETIMEDOUT)
            return true;
    }
    return false;
}

/* The longer the ring, the more of what is written twice goes down once. */
static bool
fold_soon(uint64_t *begun)
{
    uint64_t now = kvfs_log_pace_now(), before = *begun;

    *begun = now;
    return before > 0 && now - before < FOLD_SOON_NS;
}

static void *
fold_main(void *arg)
{
    struct kvfs_db *db = arg;
    uint64_t begun = 0;
    unsigned idle = 0;

    if (!db->pace_fixed)
        kvfs_log_pace_measure(&db->pace, kvfs_ring_path(db->ring));
    (void)pthread_mutex_lock(&db->fold_lock);
    for (;;) {
        uint64_t count;
        int rc;

        idle = fold_sleep(db) ? idle + 1 : 0;
        if (db->fold_stop)
            break;
        if (db->fold_held > 0)
            continue;
        count = ++db->fold_count;
        db->fold_busy = true;
        (void)pthread_mutex_unlock(&db->fold_lock);
        if (idle == 0 && fold_soon(&begun))
            atomic_store(&db->ring_short, true);
        rc = fold_once(db);
        if (rc == 0 && atomic_load(&db->ring_short))
            fold_grow(db);
        if (rc == 0 && idle == FOLD_SHRINK_AFTER)
            fold_shrink(db);
        (void)pthread_mutex_lock(&db->fold_lock);
        db->fold_busy = false;
        db->fold_finished = count;
        if (rc != 0)
            db->fold_error = rc;
        (void)pthread_cond_broadcast(&db->fold_done);
    }
    (void)pthread_mutex_unlock(&db->fold_lock);
    return NULL;
}

/* A fold that begins after now is number fold_count + 1. */
static int
fold_wait(struct kvfs_db *db, uint64_t number)
{
    while (db->fold_finished < number && db->fold_error == 0)
        (void)pthread_cond_wait(&db->fold_done, &db->fold_lock);
    return db->fold_error;
}

int
kvfs_log_fold(struct kvfs_db *db, bool wait, struct kvfs_error *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&db->fold_lock);
    if (db->fold_wanted < db->fold_count + 1)
        db->fold_wanted = db->fold_count + 1;
    db->fold_waited += wait;
    (void)pthread_cond_signal(&db->fold_wake);
    if (wait)
        rc = fold_wait(db, db->fold_count + 1);
    db->fold_waited -= wait;
    (void)pthread_mutex_unlock(&db->fold_lock);
    return rc != 0 ? kvfs_error_set(err, -EIO, "%s: the log cannot be folded: %s", db->path,
                                    strerrordesc_np(-rc))
                   : 0;
}

int
kvfs_log_fold_hold(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_log_fold(db, true, err);

    if (rc != 0)
        return rc;
    (void)pthread_mutex_lock(&db->fold_lock);
    db->fold_held++;
    while (db->fold_busy) /* one that was asked for meanwhile */
        (void)pthread_cond_wait(&db->fold_done, &db->fold_lock);
    (void)pthread_mutex_unlock(&db->fold_lock);
    return 0;
}

void
kvfs_log_fold_release(struct kvfs_db *db)
{
    (void)pthread_mutex_lock(&db->fold_lock);
    db->fold_held--;
    (void)pthread_cond_signal(&db->fold_wake);
    (void)pthread_mutex_unlock(&db->fold_lock);
}

int
kvfs_log_fold_start(struct kvfs_db *db, struct kvfs_error *err)
{
    if (pthread_create(&db->fold_thread, NULL, fold_main, db) != 0)
        return kvfs_error_set(err, -ENOMEM, "%s: no thread for folding the log", db->path);
    db->fold_running = true;
    return 0;
}

void
kvfs_log_fold_stop(struct kvfs_db *db)
{
    if (!db->fold_running)
        return;
    (void)pthread_mutex_lock(&db->fold_lock);
    db->fold_stop = true;
    (void)pthread_cond_signal(&db->fold_wake);
    (void)pthread_mutex_unlock(&db->fold_lock);
    (void)pthread_join(db->fold_thread, NULL);
    db->fold_running = false;
}
