/* SPDX-License-Identifier: BSD-3-Clause
 *
 * commit.c - batches become a record of the log.
 *
 *  1. Batches that wait together share one record, one write and one flush.  One of their
 *     threads leads: it takes what waits, in order, and wakes the others.
 *  2. An expectation is judged against everything before its batch, batches of the same
 *     record included.
 *  3. Readers see a batch after its record is written, and flushed where one of the
 *     record's batches is durable: nothing that could be lost was acknowledged as
 *     durable, nor seen by whoever waits for that.
 *  4. A record is only written if the engine below has ample room for all that is not folded;
 *     else, and for a batch above a quarter of the ring, everything is folded and
 *     the batch goes to the engine below itself, which says whether it fits.  So a fold
 *     meets a full medium only if others fill it, and then deletes are still logged.
 *  5. After a failed write or flush nothing is acknowledged any more.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../batch.h"
#include "codec.h"
#include "log_priv.h"

#define COMMIT_ROOM_AT_ONCE ((uint64_t)1 << 20) /* logged before it is asked again */
#define COMMIT_DELETES_PART 8u /* of the ring are theirs */
#define COMMIT_ROOM_NS 1000000000u /* or after so long */
#define COMMIT_ROOM_TIMES 3u /* what is folded, in a log of its own and in its pages */

int
kvfs_log_poison(struct kvfs_db *db, int code)
{
    int none = 0;

    (void)atomic_compare_exchange_strong(&db->poisoned, &none, code);
    return code;
}

int
kvfs_log_usable(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc == 0 && atomic_load(&db->poisoned) != 0)
        rc = kvfs_error_set(err, -EIO, "%s: an earlier write failed, open the store again",
                            db->path);
    return rc;
}

void
kvfs_log_stop_at(const struct kvfs_db *db, enum log_stop where)
{
    if (db->stop == where)
        (void)kill(getpid(), SIGSTOP);
}

/* --- judging ---------------------------------------------------------------------------- */

static int
commit_check(struct kvfs_db *db, const struct kvfs_batch *batch, struct kvfs_error *err)
{
    int rc = kvfs_batch_check(batch, &db->limits, db->path, err);

    for (size_t i = 0; i < batch->ops_count && rc == 0; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (op->type != KVFS_OP_DEL_RANGE &&
            kvfs_log_key_refused(op->keyspace, op->key, op->key_len))
            rc = kvfs_batch_refuse(batch, i, db->path, err);
    }
    return rc;
}

/* The engine's value for KEY equals the operation's? 0: yes, 1: no or absent. */
static int
commit_compare_below(struct kvfs_db *db, struct kvfs_db_snap *below, const struct kvfs_op *op,
                     struct kvfs_error *err)
{
    size_t want = op->value[0].iov_len + op->value[1].iov_len, len, key_len = op->key_len;
    uint8_t out[KVFS_META_KEY_MAX], *value = malloc(want + 1);
    struct iovec iov = {.iov_base = value, .iov_len = want};
    const void *key = kvfs_log_key(op->keyspace, op->key, &key_len, out);
    int rc;

    if (value == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    rc = db->engine->get(below, op->keyspace, key, key_len, 0, &iov, 1, &len, err);
    if (rc == 0)
        rc = op->type == KVFS_OP_EXPECT_ABSENT || len != want ||
             (op->value[0].iov_len > 0 &&
              memcmp(value, op->value[0].iov_base, op->value[0].iov_len) != 0) ||
             (op->value[1].iov_len > 0 &&
              memcmp(value + op->value[0].iov_len, op->value[1].iov_base, op->value[1].iov_len) != 0);
    else if (rc == -ENOENT)
        rc = op->type == KVFS_OP_EXPECT_ABSENT ? 0 : 1;
    free(value);
    return rc;
}

static bool
commit_record_equals(const struct kvfs_memrecord *r, const struct kvfs_op *op)
{
    const uint8_t *value = kvfs_memrecord_value(r) + 1;
    size_t first = op->value[0].iov_len, second = op->value[1].iov_len;

    return r->value_len - 1 == first + second &&
           (first == 0 || memcmp(value, op->value[0].iov_base, first) == 0) &&
           (second == 0 || memcmp(value + first, op->value[1].iov_base, second) == 0);
}

/* Judge all expectations against VIEW and what is under it. */
static int
commit_expect(struct kvfs_db *db, const struct log_view *view, const struct kvfs_db_snap *under,
              const struct kvfs_batch *batch, struct kvfs_error *err)
{
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];
        const struct kvfs_memrecord *r = NULL;
        enum log_found found;
        int rc;

        if (op->type < KVFS_OP_EXPECT)
            continue;
        found = kvfs_log_view_get(view, op->keyspace, op->key, op->key_len, &r);
        if (found == LOG_UNKNOWN)
            found = kvfs_log_view_get(&under->views[1], op->keyspace, op->key, op->key_len, &r);
        if (found == LOG_UNKNOWN)
            rc = commit_compare_below(db, under->below, op, err);
        else if (found == LOG_ABSENT)
            rc = op->type == KVFS_OP_EXPECT_ABSENT ? 0 : 1;
        else
            rc = op->type == KVFS_OP_EXPECT && commit_record_equals(r, op) ? 0 : 1;
        if (rc < 0)
            return rc;
        if (rc > 0)
            return kvfs_error_set(err, -EAGAIN, "%s: operation %zu finds another value", db->path,
                                  i);
    }
    return 0;
}

static bool
commit_expects(const struct kvfs_batch *batch)
{
    for (size_t i = 0; i < batch->ops_count; i++)
        if (batch->ops[i].type >= KVFS_OP_EXPECT)
            return true;
    return false;
}

/* --- one group -------------------------------------------------------------------------- */

struct group {
    struct kvfs_db *db;
    struct log_commit *first; /* those of the group, a list of its own */
    struct log_view view;           /* `active` with their operations */
    size_t bytes; /* those that are logged, in the log; first of all that may be */
    bool durable;
};

static void
group_answer(const struct group *g, int rc, const struct kvfs_error *err)
{
    for (struct log_commit *c = g->first; c != NULL; c = c->next) {
        if (c->rc != 0) /* has an answer of its own */
            continue;
        c->rc = rc;
        if (rc != 0 && c->err != NULL)
            *c->err = *err;
    }
}

/* All of a group leaves memory with the fold that brings it down. */
static void
group_reserve(struct group *g)
{
    size_t count = 0;

    for (const struct log_commit *c = g->first; c != NULL; c = c->next)
        count += c->batch->ops_count;
    kvfs_memsource_reserve(&g->db->source, count, g->bytes);
    g->bytes = 0;
}

/* Judge the expectations of C, if it has any.  *under, for the whole group, may have been missed. */
static int
group_expect(struct group *g, const struct log_commit *c, struct kvfs_db_snap **under, bool *missed)
{
    int rc = 0;

    if (!commit_expects(c->batch))
        return 0;
    if (*under == NULL && !*missed)
        rc = kvfs_log_begin(g->db, under, c->err);
    if (rc == 0 && *under != NULL)
        return commit_expect(g->db, &g->view, *under, c->batch, c->err);
    *missed = true; /* its batches fail, nothing has changed; not once more: it waits for a while */
    return rc == 0 || rc == -EBUSY
               ? kvfs_error_set(c->err, -ENOMEM, "%s: no snapshot to judge expectations by, all "
                                "places are taken", g->db->path)
               : rc;
}

static int
group_build(struct group *g, struct kvfs_error *err)
{
    struct kvfs_db *db = g->db;
    struct kvfs_db_snap *under = NULL;
    bool missed = false;
    int rc = 0;

    group_reserve(g);
    (void)pthread_mutex_lock(&db->lock);
    g->view = kvfs_log_view_ref(&db->active);
    (void)pthread_mutex_unlock(&db->lock);
    for (struct log_commit *c = g->first; c != NULL && rc == 0; c = c->next) {
        c->rc = group_expect(g, c, &under, &missed);
        for (size_t i = 0; i < c->batch->ops_count && rc == 0 && c->rc == 0; i++)
            if (c->batch->ops[i].type < KVFS_OP_EXPECT)
                rc = kvfs_log_view_apply(&g->view, &c->batch->ops[i], &db->source);
        if (c->rc != 0)
            continue;
        g->bytes += c->bytes;
        g->durable = g->durable || c->durability == KVFS_DURABLE;
    }
    kvfs_memsource_done(&db->source);
    if (under != NULL)
        kvfs_log_end(under);
    return rc == -ENOMEM ? kvfs_error_set(err, rc, "%s: no memory", db->path) : rc;
}

static int
group_append(struct group *g, struct kvfs_error *err)
{
    struct kvfs_db *db = g->db;
    uint8_t *payload = g->bytes > 0 ? kvfs_ring_payload(db->ring, g->bytes) : NULL;
    int rc = kvfs_log_share_check(db, err);

    if (rc != 0)
        return rc;
    if (g->bytes > 0 && payload == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->path);
    for (struct log_commit *c = g->first; c != NULL && payload != NULL; c = c->next)
        if (c->rc == 0)
            payload = kvfs_log_encode(c->batch, payload);
    if (payload != NULL)
        rc = kvfs_ring_append(db->ring, g->bytes, g->durable && db->bug != LOG_BUG_NO_FLUSH, NULL,
                              err);
    else if (g->durable) /* expectations only, or nothing */
        rc = kvfs_ring_flush(db->ring, err);
    if (rc != 0 && rc != -EAGAIN) /* that: no room, and nothing was written */
        (void)kvfs_log_poison(db, rc);
    return rc;
}

/* A batch that goes past the log is as durable as all before it, which was folded. */
static enum kvfs_durability
direct_durability(const struct kvfs_db *db, const struct log_commit *c)
{
    return atomic_load(&db->logs) ? KVFS_DURABLE : c->durability;
}

/* Apply what B holds of C to the engine below, and with it, while we log, the place: it moves
 * (follow.c, invariant 3); where a batch is better not of both keyspaces, before the next record.
 * Under writer. */
static int
direct_apply(struct kvfs_db *db, struct kvfs_batch_builder *b, const struct log_commit *c)
{
    bool moves = atomic_load(&db->logs) && kvfs_batch_ops(b) > 0;
    bool steps = moves && !db->limits.batch_halves_best;
    struct log_place place;
    struct kvfs_batch batch;
    uint8_t value[48];
    int rc;

    if (moves && kvfs_ring_used(db->ring) > 0)
        return kvfs_error_set(c->err, -ENOMEM, "%s: the log is not folded", db->path);
    if (steps) {
        struct kvfs_op op;

        place = kvfs_log_place_next(db);
        op = kvfs_log_place_op(&place, value);
        kvfs_batch_put(b, KVFS_META, op.key, op.key_len, value, sizeof(value));
    }
    rc = kvfs_batch_end(b, &batch);
    if (rc != 0)
        return kvfs_error_set(c->err, rc, "%s: no memory", db->path);
    rc = kvfs_log_share_check(db, c->err);
    if (rc != 0)
        return rc;
    rc = batch.ops_count > 0 || c->durability != KVFS_DURABLE
             ? db->engine->apply(db->below, &batch, direct_durability(db, c), c->err)
             : db->engine->sync(db->below, c->err);
    if (rc == 0 && steps)
        kvfs_log_place_stepped(db);
    db->step_owed = db->step_owed || (moves && !steps);
    (void)pthread_mutex_lock(&db->lock);
    db->commits += rc == 0;
    (void)pthread_mutex_unlock(&db->lock);
    return rc;
}

/* A flush while something is not folded, so that nobody else writes. */
static int
direct_flush(struct kvfs_db *db, struct log_commit *c)
{
    int rc;

    (void)pthread_mutex_lock(&db->writer);
    rc = kvfs_ring_flush(db->ring, c->err);
    if (rc == 0)
        rc = db->engine->sync(db->below, c->err);
    (void)pthread_mutex_unlock(&db->writer);
    if (rc != 0)
        (void)kvfs_log_poison(db, rc);
    return rc;
}

/* Give one batch to the engine below, everything before it folded. */
static void
group_direct(struct kvfs_db *db, struct log_commit *c)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    int rc = b == NULL ? -ENOMEM : 0;

    if (rc == 0 && atomic_load(&db->pending_bytes) > 0)
        rc = kvfs_log_fold(db, true, c->err);
    for (size_t i = 0; i < c->batch->ops_count && rc == 0; i++)
        rc = kvfs_log_below_add(b, &c->batch->ops[i]);
    if (rc == -ENOMEM)
        (void)kvfs_error_set(c->err, rc, "%s: no memory", db->path);
    if (rc == 0) {
        (void)pthread_mutex_lock(&db->writer);
        rc = direct_apply(db, b, c);
        (void)pthread_mutex_unlock(&db->writer);
        if (rc == 0 && c->durability == KVFS_DURABLE) {
            (void)atomic_fetch_add(&db->counts->commits, 1);
            (void)atomic_fetch_add(&db->counts->flushes, 1);
        }
        if (rc == -EBUSY)
            rc = kvfs_error_set(c->err, -ENOMEM, "%s: busy", db->path);
        if (rc != 0 && rc != -EAGAIN && rc != -E2BIG && rc != -EINVAL && !kvfs_log_refused(rc))
            (void)kvfs_log_poison(db, rc);
    }
    kvfs_batch_free(b);
    c->rc = rc;
}

static void
group_direct_all(struct group *g)
{
    for (struct log_commit *c = g->first; c != NULL; c = c->next) {
        c->rc = kvfs_log_usable(g->db, c->err);
        if (c->rc == 0 && c->batch->ops_count == 0 && atomic_load(&g->db->pending_bytes) > 0)
            c->rc = direct_flush(g->db, c);
        else if (c->rc == 0)
            group_direct(g->db, c);
    }
}

static void
group_count(const struct group *g)
{
    for (const struct log_commit *c = g->first; c != NULL; c = c->next)
        if (c->rc == 0 && c->durability == KVFS_DURABLE)
            (void)atomic_fetch_add(&g->db->counts->commits, 1);
    if (g->durable)
        (void)atomic_fetch_add(&g->db->counts->flushes, 1);
}

/* The place moves before the next record, if it has to (direct_apply()).  Under writer. */
static int
group_step(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = db->step_owed ? kvfs_log_place_step(db, err) : 0;

    if (rc == -EBUSY)
        rc = kvfs_error_set(err, -ENOMEM, "%s: busy", db->path);
    else if (rc != 0 && !kvfs_log_refused(rc))
        (void)kvfs_log_poison(db, rc);
    return rc;
}

/* Log and publish one group. */
static void
group_log(struct group *g)
{
    struct kvfs_error err = {.code = 0};
    struct kvfs_db *db = g->db;
    struct log_view old;
    bool full;
    int rc;

    (void)pthread_mutex_lock(&db->writer);
    /* Meanwhile others came, or the ring became shorter? */
    if (!atomic_load(&db->logs) || (g->bytes > 0 && !kvfs_ring_fits(db->ring, g->bytes))) {
        (void)pthread_mutex_unlock(&db->writer);
        group_direct_all(g);
        return;
    }
    rc = group_step(db, &err);
    if (rc == 0)
        rc = group_build(g, &err);
    if (rc == 0)
        rc = group_append(g, &err);
    if (rc == 0) {
        (void)pthread_mutex_lock(&db->lock);
        old = db->active;
        db->active = g->view;
        db->active_end = kvfs_ring_head(db->ring);
        for (struct log_commit *c = g->first; c != NULL; c = c->next)
            db->commits += c->rc == 0;
        kvfs_log_views_changed(db);
        (void)pthread_mutex_unlock(&db->lock);
        group_count(g);
        (void)atomic_fetch_add(&db->pending_bytes, g->bytes);
        kvfs_log_view_drop(&old);
    } else {
        kvfs_log_view_drop(&g->view);
    }
    full = kvfs_log_used(db) > kvfs_log_room(db) / LOG_FOLD_PART;
    (void)pthread_mutex_unlock(&db->writer);
    if (full)
        (void)kvfs_log_fold(db, false, NULL);
    group_answer(g, rc, &err);
}

/* --- leading ---------------------------------------------------------------------------- */

static bool
commit_puts(const struct kvfs_batch *batch)
{
    for (size_t i = 0; i < batch->ops_count; i++)
        if (batch->ops[i].type == KVFS_OP_PUT)
            return true;
    return false;
}

/* Has the engine below room for this and for all that is not folded?  Under queue_lock.  Asking
 * costs more than a record, so what it answers lasts for a while. */
static bool
commit_fits_below(struct kvfs_db *db, const struct log_commit *c)
{
    uint64_t need = COMMIT_ROOM_TIMES * atomic_load(&db->pending_bytes) + LOG_ROOM_BYTES;
    uint64_t now = kvfs_log_pace_now();
    struct kvfs_engine_stat stat;

    if (!commit_puts(c->batch))
        return true;
    if (atomic_load(&db->folding_kept))
        return false;
    if (db->room_bytes < c->bytes || now - db->room_ns > COMMIT_ROOM_NS) {
        db->room_ns = now;
        db->room_bytes = 0;
        if (db->engine->stat(db->below, &stat, NULL) != 0)
            return false;
        db->room_bytes = stat.avail_bytes > need ? (stat.avail_bytes - need) / COMMIT_ROOM_TIMES : 0;
        if (db->room_bytes > COMMIT_ROOM_AT_ONCE + c->bytes)
            db->room_bytes = COMMIT_ROOM_AT_ONCE + c->bytes;
    }
    if (db->room_bytes < c->bytes)
        return false;
    db->room_bytes -= c->bytes;
    return true;
}

/* Let a fold have its part of the device: batches are slowed as the ring fills. */
static void
commit_pace(struct kvfs_db *db, size_t bytes)
{
    uint64_t room = kvfs_log_room(db), used = kvfs_log_used(db);
    uint64_t wait = kvfs_log_pace_group(&db->pace, bytes, room > used ? room - used : 0,
                                        kvfs_log_pace_now());
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = (long)wait};

    if (wait == 0)
        return;
    atomic_store(&db->ring_short, true);
    (void)nanosleep(&pause, NULL);
}

/* More than a quarter of what may be unfolded goes past the log. */
static uint64_t
commit_most(struct kvfs_db *db)
{
    return kvfs_log_room(db) / 4;
}

/* Wait until the ring has room for the group, which may have become too large for it.  The last of it
 * is for deletes: they make room where the engine below refuses all else. */
static int
commit_wait_room(struct kvfs_db *db, const struct group *g, bool *direct, struct kvfs_error *err)
{
    size_t bytes = g->bytes;
    bool puts = false;

    for (const struct log_commit *c = g->first; c != NULL; c = c->next)
        puts = puts || commit_puts(c->batch);
    for (;;) {
        uint64_t used, room;
        bool fits;
        int rc;

        (void)pthread_mutex_lock(&db->writer);
        used = kvfs_log_used(db);
        room = kvfs_log_room(db);
        fits = kvfs_ring_fits(db->ring, bytes) &&
               (used == 0 || used + bytes <= (puts ? room - room / COMMIT_DELETES_PART : room) ||
                (!puts && atomic_load(&db->folding_kept)));
        (void)pthread_mutex_unlock(&db->writer);
        *direct = bytes > commit_most(db);
        if (fits || *direct)
            return 0;
        atomic_store(&db->ring_short, true);
        rc = kvfs_log_fold_any(db, err);
        if (rc != 0)
            return rc;
    }
}

/* May C go in one record with others that have BYTES? */
static bool
commit_joins(struct kvfs_db *db, const struct log_commit *c, size_t bytes)
{
    return bytes + c->bytes <= LOG_GROUP_BYTES && bytes + c->bytes <= commit_most(db) &&
           commit_fits_below(db, c);
}

/* Take a group off the queue, with its bytes in *g. */
static void
commit_take(struct kvfs_db *db, struct group *g, bool *direct)
{
    struct log_commit *last;

    (void)pthread_mutex_lock(&db->queue_lock);
    last = db->first;
    *g = (struct group){.db = db, .first = last, .bytes = last->bytes};
    *direct = !atomic_load(&db->logs) || last->bytes > commit_most(db) ||
              !commit_fits_below(db, last);
    while (!*direct && last->next != NULL && commit_joins(db, last->next, g->bytes)) {
        last = last->next;
        g->bytes += last->bytes;
    }
    db->first = last->next;
    if (db->first == NULL)
        db->last = NULL;
    last->next = NULL;
    (void)pthread_mutex_unlock(&db->queue_lock);
}

/* By a futex of its own: woken threads need no lock, so they do not wait for each other. */
static void
commit_tell(struct log_commit *c, enum log_commit_state state)
{
    atomic_store(&c->state, state);
    (void)syscall(SYS_futex, &c->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The next to lead, if there is one: it begins while those that are done are woken. */
static void
commit_pass_on(struct kvfs_db *db)
{
    struct log_commit *next;

    (void)pthread_mutex_lock(&db->queue_lock);
    next = db->first;
    db->led = next != NULL;
    (void)pthread_mutex_unlock(&db->queue_lock);
    if (next != NULL)
        commit_tell(next, LOG_COMMIT_LEADS);
}

/* Commit the first batches of the queue, OWN at their head, and wake their threads. */
static void
commit_lead(struct kvfs_db *db, const struct log_commit *own)
{
    struct kvfs_error err = {.code = 0};
    struct group g;
    bool direct;
    int rc;

    commit_take(db, &g, &direct);
    rc = kvfs_log_usable(db, &err);
    if (direct)
        atomic_store(&db->ring_short, true); /* a longer one may take the next such batch */
    if (rc == 0 && !direct && g.bytes > 0) { /* no bytes: expectations, or a flush */
        commit_pace(db, kvfs_ring_takes(g.bytes));
        rc = commit_wait_room(db, &g, &direct, &err);
    }
    if (rc != 0)
        group_answer(&g, rc, &err);
    else if (direct)
        group_direct_all(&g);
    else
        group_log(&g);
    commit_pass_on(db);
    for (struct log_commit *c = g.first, *next; c != NULL; c = next) {
        next = c->next; /* once it is done it is gone */
        if (c != own)
            commit_tell(c, LOG_COMMIT_DONE);
    }
}

static void
commit_queue(struct kvfs_db *db, struct log_commit *c)
{
    unsigned state = LOG_COMMIT_WAITS;

    (void)pthread_mutex_lock(&db->queue_lock);
    if (db->last != NULL)
        db->last->next = c;
    else
        db->first = c;
    db->last = c;
    if (!db->led)
        state = LOG_COMMIT_LEADS; /* nobody waits before us */
    db->led = true;
    (void)pthread_mutex_unlock(&db->queue_lock);
    while (state == LOG_COMMIT_WAITS) {
        (void)syscall(SYS_futex, &c->state, FUTEX_WAIT_PRIVATE, LOG_COMMIT_WAITS, NULL, NULL, 0);
        state = atomic_load(&c->state);
    }
    if (state == LOG_COMMIT_LEADS)
        commit_lead(db, c);
}

int
kvfs_log_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
               struct kvfs_error *err)
{
    struct log_commit c = {.batch = batch, .durability = durability, .err = err};
    int rc = kvfs_log_usable(db, err);

    if (rc != 0)
        return rc;
    if (db->readonly)
        return kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path);
    rc = commit_check(db, batch, err);
    if (rc != 0)
        return rc;
    c.bytes = kvfs_log_encoded(batch);
    commit_queue(db, &c);
    return c.rc;
}

int
kvfs_log_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    static const struct kvfs_batch nothing = {.ops = NULL};

    return db->readonly ? kvfs_fork_check(db->generation, db->path, err)
                        : kvfs_log_apply(db, &nothing, KVFS_DURABLE, err);
}
