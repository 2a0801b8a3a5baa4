/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fold.c - bringing what was logged down to the engine below, many batches as one.
 *
 *  1. A fold takes the whole `active` view: of many writes of a key only the last goes
 *     down.  Deleted ranges go first, for a view's records are newer than its ranges.
 *  2. It goes down in pieces that promise nothing, and the last is durable and says which part of
 *     the ring is covered.  Until then readers find everything in `folding`, and after a
 *     crash the replay writes it all again: a half-done fold is never seen.  So the ring is
 *     flushed before the first of several pieces: a power cut must not take the records of
 *     batches whose half lies below.
 *  3. Only after the last piece was applied does the ring's tail move and `folding` go.
 *  4. What the engine below refuses, as a full medium, stays in `folding`, and the next fold tries
 *     it again together with what was logged since, which may make room.  Any other failure poisons the
 *     store: reading goes on, the ring keeps everything, and the next open replays it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log_priv.h"

#define FOLD_SHRINK_AFTER 10 /* idle times */
#define FOLD_AGAIN_PART   16u
#define FOLD_SOON_NS      1000000000u /* folds that begin so soon one after the other want a longer ring */
#define FOLD_IDLE_S       1 /* what lies in the log goes down after so long without a reason */

struct fold {
    struct kvfs_db *db;
    struct kvfs_batch_builder *batch;
    struct kvfs_error *err;
    bool flushed; /* the ring */
    bool again;   /* it was refused before: what makes room first, and little at once */
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
fold_leave(struct kvfs_db *db, uint64_t ns)
{
    uint64_t end = kvfs_log_pace_now() + ns;
    const struct timespec until = {.tv_sec = (time_t)(end / 1000000000u),
                                   .tv_nsec = (long)(end % 1000000000u)};

    (void)pthread_mutex_lock(&db->fold_lock);
    while (!db->fold_stop && db->fold_waited == 0 &&
           pthread_cond_timedwait(&db->fold_wake, &db->fold_lock, &until) == 0)
        continue;
    (void)pthread_mutex_unlock(&db->fold_lock);
}

/* Does somebody wait for the fold, or for its thread? */
static bool
fold_awaited(struct kvfs_db *db)
{
    bool awaited;

    (void)pthread_mutex_lock(&db->fold_lock);
    awaited = db->fold_stop || db->fold_waited > 0;
    (void)pthread_mutex_unlock(&db->fold_lock);
    return awaited;
}

static void
fold_pause(struct kvfs_db *db, uint64_t bytes, uint64_t took)
{
    uint64_t room = kvfs_log_room(db), used = kvfs_log_used(db);

    fold_leave(db, kvfs_log_pace_piece(&db->pace, bytes, took, room > used ? room - used : 0));
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
    rc = kvfs_log_share_check(db, f->err);
    if (rc == 0 && place == NULL)
        rc = fold_flush(f);
    if (rc == 0 && batch.ops_count > 0)
        rc = db->engine->apply(db->below, &batch, place != NULL ? KVFS_DURABLE : KVFS_NONE,
                               f->err);
    kvfs_batch_reset(f->batch);
    (void)atomic_fetch_add(&db->counts->flushes, 1); /* at least */
    if (rc == 0)
        kvfs_log_stop_at(db, place != NULL ? LOG_STOP_FOLDED : LOG_STOP_FOLD);
    if (rc == 0 && place == NULL)
        fold_pause(db, bytes, kvfs_log_pace_now() - begun);
    return rc;
}

static size_t
fold_size(const struct fold *f)
{
    size_t bytes = kvfs_log_pace_size(&f->db->pace, f->db->piece_bytes);
    size_t most = f->db->limits.batch_max_bytes / 2;

    if (f->again)
        bytes = f->db->piece_bytes / FOLD_AGAIN_PART;
    return bytes < most ? bytes : most;
}

static int
fold_add(struct fold *f, const struct kvfs_op *op)
{
    int rc = kvfs_log_below_add(f->batch, op);

    if (rc != 0)
        return kvfs_error_set(f->err, rc, "%s: no memory for folding the log", f->db->path);
    if (kvfs_batch_bytes(f->batch) < fold_size(f) &&
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

/* Bring down all of T, or with DELETES only the deletes in it. */
static int
fold_tree(struct fold *f, const struct kvfs_memtree *t, int ks, bool deletes,
          struct kvfs_op (*make)(int ks, const struct kvfs_memrecord *r))
{
    const struct kvfs_memrecord *r;
    struct kvfs_memwalk walk;
    int rc = kvfs_memwalk_start(&walk, t, NULL, 0, false);

    while (rc == 0 && (rc = kvfs_memwalk_next(&walk, &r)) == 0 && r != NULL) {
        struct kvfs_op op = make(ks, r);

        if (!deletes || op.type != KVFS_OP_PUT)
            rc = fold_add(f, &op);
    }
    kvfs_memwalk_end(&walk);
    return rc;
}

static int
fold_keyspace(struct fold *f, const struct log_view *v, int ks, bool deletes)
{
    int rc = f->db->bug == LOG_BUG_LOST_RANGE
                 ? 0
                 : fold_tree(f, v->ranges[ks], ks, deletes, fold_range_op);

    return rc != 0 ? rc : fold_tree(f, v->records[ks], ks, deletes, fold_record_op);
}

/* DATA first: the place is META's, so the last piece may be META alone. */
static int
fold_view(struct fold *f, const struct log_view *v, const struct log_place *place)
{
    int rc = f->again ? fold_keyspace(f, v, KVFS_DATA, true) : 0;

    if (rc == 0 && f->again)
        rc = fold_keyspace(f, v, KVFS_META, true);
    if (rc == 0)
        rc = fold_keyspace(f, v, KVFS_DATA, false);
    if (rc == 0 && f->db->limits.batch_halves_best && kvfs_batch_ops(f->batch) > 0)
        rc = fold_piece(f, NULL);
    if (rc == 0)
        rc = fold_keyspace(f, v, KVFS_META, false);
    return rc != 0 ? rc : fold_piece(f, place);
}

/* --- a fold ------------------------------------------------------------------------------ */

uint64_t
kvfs_log_used(const struct kvfs_db *db)
{
    uint64_t ring = kvfs_ring_used(db->ring), memory = atomic_load(&db->memory_bytes);

    return ring > memory ? ring : memory;
}

uint64_t
kvfs_log_room(struct kvfs_db *db)
{
    return kvfs_log_pace_room(&db->pace, kvfs_ring_bytes(db->ring));
}

void
kvfs_log_views_changed(struct kvfs_db *db)
{
    atomic_store(&db->memory_bytes,
                 kvfs_log_view_bytes(&db->active) + kvfs_log_view_bytes(&db->folding));
}

/* Lay OVER on *V.  -ENOMEM: *V is only fit to be dropped. */
static int
fold_lay_tree(struct log_view *v, const struct kvfs_memtree *over, int ks,
              struct kvfs_memsource *source,
              struct kvfs_op (*make)(int ks, const struct kvfs_memrecord *r))
{
    const struct kvfs_memrecord *r;
    struct kvfs_memwalk walk;
    int rc = kvfs_memwalk_start(&walk, over, NULL, 0, false);

    while (rc == 0 && (rc = kvfs_memwalk_next(&walk, &r)) == 0 && r != NULL) {
        struct kvfs_op op = make(ks, r);

        rc = kvfs_log_view_apply(v, &op, source);
    }
    kvfs_memwalk_end(&walk);
    return rc;
}

/* What `folding` and `active` are together, in *sum. */
static int
fold_sum(struct kvfs_db *db, struct log_view *sum)
{
    bool kept = atomic_load(&db->folding_kept);
    int rc = 0;

    *sum = kvfs_log_view_ref(kept ? &db->folding : &db->active);
    if (!kept)
        return 0;
    for (int ks = 0; ks < 2 && rc == 0; ks++) {
        rc = fold_lay_tree(sum, db->active.ranges[ks], ks, &db->source, fold_range_op);
        if (rc == 0)
            rc = fold_lay_tree(sum, db->active.records[ks], ks, &db->source, fold_record_op);
    }
    if (rc != 0)
        kvfs_log_view_drop(sum);
    return rc;
}

/* Make `active` the view that is folded, or what it and one that was refused are together.  1; 0:
 * there is nothing to fold; -ENOMEM. */
static int
fold_turn(struct kvfs_db *db)
{
    struct log_view sum, were[2];
    bool any, turn;
    int rc = 0;

    (void)pthread_mutex_lock(&db->writer);
    (void)pthread_mutex_lock(&db->lock);
    any = !kvfs_log_view_empty(&db->active) || db->place.tail.seq != db->active_end.seq;
    if (any)
        rc = fold_sum(db, &sum);
    turn = any && rc == 0;
    were[0] = were[1] = (struct log_view){.records = {NULL}};
    if (turn) {
        were[0] = db->folding;
        were[1] = db->active;
        db->folding = sum;
        db->active = (struct log_view){.records = {NULL}};
        db->folding_place = db->place;
        db->folding_place.tail = db->active_end;
        db->folding_bytes = atomic_load(&db->pending_bytes);
        kvfs_log_views_changed(db);
    }
    (void)pthread_mutex_unlock(&db->lock);
    (void)pthread_mutex_unlock(&db->writer);
    kvfs_log_view_drop(&were[0]);
    kvfs_log_view_drop(&were[1]);
    return rc != 0 ? rc : any || atomic_load(&db->folding_kept);
}

static void
fold_done(struct kvfs_db *db)
{
    struct log_view old;

    (void)pthread_mutex_lock(&db->writer);
    db->place = db->folding_place;
    kvfs_ring_release(db->ring, &db->place.tail);
    (void)pthread_mutex_lock(&db->lock);
    old = db->folding;
    db->folding = (struct log_view){.records = {NULL}};
    kvfs_log_views_changed(db);
    (void)pthread_mutex_unlock(&db->lock);
    (void)pthread_mutex_unlock(&db->writer);
    kvfs_log_pace_fold(&db->pace, 0);
    (void)atomic_fetch_sub(&db->pending_bytes, db->folding_bytes);
    kvfs_log_view_drop(&old);
}

/* What an engine answers that has changed nothing and may be asked again. */
bool
kvfs_log_refused(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT || rc == -ENOMEM || rc == -EBUSY;
}

static int
fold_once(struct kvfs_db *db)
{
    struct kvfs_error err = {.code = 0};
    struct fold f = {.db = db, .err = &err, .again = atomic_load(&db->folding_kept)};
    uint64_t bytes, pending;
    int rc;

    if (atomic_load(&db->poisoned) != 0)
        return -EIO;
    rc = fold_turn(db);
    if (rc <= 0)
        return rc;
    bytes = kvfs_log_view_bytes(&db->folding);
    pending = db->folding_bytes;
    kvfs_log_pace_fold(&db->pace, bytes < pending ? bytes : pending);
    if (db->bug == LOG_BUG_TAIL_EARLY) {
        f.batch = kvfs_batch_new();
        if (f.batch != NULL)
            (void)fold_piece(&f, &db->folding_place);
        kvfs_batch_free(f.batch);
    }
    f.batch = kvfs_batch_new();
    rc = f.batch != NULL ? fold_view(&f, &db->folding, &db->folding_place) : -ENOMEM;
    kvfs_batch_free(f.batch);
    atomic_store(&db->folding_kept, kvfs_log_refused(rc));
    if (rc == 0)
        fold_done(db);
    else
        kvfs_log_pace_fold(&db->pace, 0); /* nobody is slowed for what does not go on */
    if (rc != 0 && !kvfs_log_refused(rc))
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
    if (next <= now || kvfs_log_pace_room(&db->pace, now) < now ||
        db->engine->stat(db->below, &stat, NULL) != 0 || next > stat.avail_bytes / LOG_ROOM_PART)
        return 0;
    return next;
}

/* Write the ring's new room, as long as no fold is due: 1: the rest after the next. */
static int
fold_prepare(struct kvfs_db *db, uint64_t bytes)
{
    int rc;

    do {
        uint64_t begun = kvfs_log_pace_now();

        rc = kvfs_ring_grow_prepare(db->ring, bytes, NULL);
        if (rc > 0)
            fold_leave(db, kvfs_log_pace_now() - begun);
    } while (rc > 0 && kvfs_log_used(db) < kvfs_log_room(db) / 2 && !fold_awaited(db));
    return rc;
}

/* Batches had to wait: make the ring longer.  It can wait, and a failure does no harm. */
static void
fold_grow(struct kvfs_db *db)
{
    uint64_t bytes = fold_next_size(db);
    int rc;

    if (bytes == 0 || !atomic_load(&db->logs)) {
        atomic_store(&db->ring_short, false);
        return;
    }
    rc = fold_prepare(db, bytes);
    if (rc > 0)
        return; /* after the next fold */
    if (rc < 0) {
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

/* Under fold_lock.  What was refused is tried again after a while, or for who waits. */
static void
fold_rest(struct kvfs_db *db)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FOLD_IDLE_S;
    while (!db->fold_stop && db->fold_waited == 0 &&
           pthread_cond_timedwait(&db->fold_wake, &db->fold_lock, &until) == 0)
        continue;
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
        (void)pthread_mutex_lock(&db->fold_lock);
        db->fold_finished = count;
        db->fold_error = rc;
        (void)pthread_cond_broadcast(&db->fold_done);
        (void)pthread_mutex_unlock(&db->fold_lock);
        if (rc == 0 && atomic_load(&db->ring_short))
            fold_grow(db);
        if (rc == 0 && idle >= FOLD_SHRINK_AFTER)
            fold_shrink(db);
        (void)pthread_mutex_lock(&db->fold_lock);
        db->fold_busy = false;
        (void)pthread_cond_broadcast(&db->fold_done);
        if (rc != 0)
            fold_rest(db);
    }
    (void)pthread_mutex_unlock(&db->fold_lock);
    return NULL;
}

/* Under fold_lock.  Ask for the fold of NUMBER and wait until it is done; a later one that
 * succeeds has done its work, too. */
static int
fold_wait(struct kvfs_db *db, uint64_t number, struct kvfs_error *err)
{
    int rc;

    if (db->fold_wanted < number)
        db->fold_wanted = number;
    db->fold_waited++;
    (void)pthread_cond_signal(&db->fold_wake);
    while (db->fold_finished < number)
        (void)pthread_cond_wait(&db->fold_done, &db->fold_lock);
    db->fold_waited--;
    rc = db->fold_error;
    if (rc == 0)
        return 0;
    /* Its callers know no -EBUSY of an apply. */
    return kvfs_error_set(err, rc == -EBUSY ? -ENOMEM : kvfs_log_refused(rc) ? rc : -EIO,
                          "%s: the log cannot be folded: %s", db->path, strerrordesc_np(-rc));
}

int
kvfs_log_fold(struct kvfs_db *db, bool wait, struct kvfs_error *err)
{
    int rc = 0;

    (void)pthread_mutex_lock(&db->fold_lock);
    if (wait) {
        rc = fold_wait(db, db->fold_count + 1, err);
    } else if (db->fold_wanted <= db->fold_count) {
        db->fold_wanted = db->fold_count + 1;
        (void)pthread_cond_signal(&db->fold_wake);
    }
    (void)pthread_mutex_unlock(&db->fold_lock);
    return rc;
}

int
kvfs_log_fold_room(struct kvfs_db *db)
{
    int rc = -EBUSY;

    (void)pthread_mutex_lock(&db->fold_lock);
    if (db->fold_held == 0 && db->fold_running)
        rc = fold_wait(db, db->fold_count + 1, NULL);
    (void)pthread_mutex_unlock(&db->fold_lock);
    return rc;
}

int
kvfs_log_fold_any(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc;

    (void)pthread_mutex_lock(&db->fold_lock);
    rc = fold_wait(db, db->fold_finished + 1, err);
    (void)pthread_mutex_unlock(&db->fold_lock);
    return rc;
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
    rc = db->fold_error; /* it may have left half of itself below */
    db->fold_held -= rc != 0;
    (void)pthread_cond_signal(&db->fold_wake);
    (void)pthread_mutex_unlock(&db->fold_lock);
    return rc == 0 ? 0 : kvfs_error_set(err, rc, "%s: the log cannot be folded", db->path);
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
