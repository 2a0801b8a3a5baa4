/* SPDX-License-Identifier: BSD-3-Clause
 *
 * read.c - snapshots and single reads.
 *
 *  1. A snapshot is a read transaction of LMDB with a place of its own in the
 *     table of readers (MDB_NOTLS), so it may move between threads, and writers
 *     of every process spare its pages.
 *  2. An ended snapshot is reset at once: it keeps its place for the next begin,
 *     but holds no pages back.  At most KVFS_LMDB_IDLE_MAX are kept.
 *  3. Everything that touches the map runs inside a guard, copies included, and
 *     bytes are copied only from where LMDB may have put them.
 *  4. LMDB's word that a record is there is held against the record's check, its
 *     word that there is none is proved (walk.c).
 *  5. Of the key's transaction nothing is remembered after damage: LMDB marks a
 *     read transaction as failed when it meets an impossible page number, which
 *     would fail all later reads of that snapshot.  It is renewed if that gives
 *     the same state again, and is otherwise lost (-ESTALE).
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "lmdb_priv.h"

#define READ_WAIT_STEP_NS   10000000L /* other processes cannot wake us */
#define READ_WAIT_STEPS_MAX 100u

void
kvfs_lmdb_value_copy(const struct kvfs_lmdb_value *v, size_t offset, const struct iovec *iov,
                     int iov_count)
{
    const uint8_t *part[2] = {v->head, v->tail};
    size_t part_len[2] = {v->head_len, v->tail_len};
    size_t used = 0; /* of iov[0] */

    for (int p = 0; p < 2; p++) {
        size_t skip = offset < part_len[p] ? offset : part_len[p];
        const uint8_t *from = part[p] + skip;
        size_t left = part_len[p] - skip;

        offset -= skip;
        while (left > 0 && iov_count > 0) {
            size_t n = iov->iov_len - used < left ? iov->iov_len - used : left;

            if (n > 0)
                memcpy((uint8_t *)iov->iov_base + used, from, n);
            from += n;
            left -= n;
            used += n;
            if (used == iov->iov_len) {
                iov++;
                iov_count--;
                used = 0;
            }
        }
    }
}

bool
kvfs_lmdb_value_sound(const struct kvfs_db *db, const struct kvfs_lmdb_value *v)
{
    uintptr_t lo = (uintptr_t)db->map;
    uintptr_t hi = lo + db->map_bytes;
    uintptr_t head = (uintptr_t)v->head;
    uintptr_t tail = (uintptr_t)v->tail;

    if (v->head_len > 0 && (head < lo || head >= hi || v->head_len > hi - head))
        return false;
    return v->tail_len == 0 || (tail >= lo && tail < hi && v->tail_len <= hi - tail);
}

int
kvfs_lmdb_value_found(const struct kvfs_db *db, enum kvfs_keyspace keyspace, const void *want,
                      const MDB_val *key, const MDB_val *data, struct kvfs_lmdb_value *v)
{
    if (keyspace == KVFS_DATA && (key->mv_size < KVFS_DATA_KEY_LEN ||
                                  memcmp(key->mv_data, want, KVFS_DATA_KEY_LEN) != 0))
        return MDB_NOTFOUND;
    return kvfs_lmdb_layout_split(keyspace, key->mv_data, key->mv_size, data->mv_data,
                                  data->mv_size, v) &&
                   kvfs_lmdb_value_sound(db, v)
               ? 0
               : MDB_CORRUPTED;
}

/* --- snapshots ---------------------------------------------------------------- */

static int
read_renew(void *arg)
{
    struct kvfs_db_snap *snap = arg;
    int rc;

    if (snap->db->env == NULL) /* given up, and not opened anew */
        return MDB_PANIC;
    if (snap->txn != NULL)
        rc = mdb_txn_renew(snap->txn);
    else
        rc = mdb_txn_begin(snap->db->env, NULL, MDB_RDONLY, &snap->txn);
    if (rc == 0)
        snap->txnid = mdb_txn_id(snap->txn);
    return rc;
}

static void
read_snap_free(struct kvfs_db_snap *snap)
{
    if (snap->seek != NULL)
        mdb_cursor_close(snap->seek);
    if (snap->txn != NULL)
        (void)kvfs_lmdb_txn_abort(snap->txn);
    free(snap);
}

void
kvfs_lmdb_pool_drain(struct kvfs_db *db)
{
    struct kvfs_db_snap *snap, *next;

    (void)pthread_mutex_lock(&db->pool_lock);
    snap = db->idle;
    db->idle = NULL;
    db->idle_count = 0;
    (void)pthread_mutex_unlock(&db->pool_lock);
    for (; snap != NULL; snap = next) {
        next = snap->next;
        read_snap_free(snap);
    }
}

/* Take an idle snapshot and count it as open.  NULL without memory. */
static struct kvfs_db_snap *
read_snap_take(struct kvfs_db *db, bool inside)
{
    struct kvfs_db_snap *snap;

    (void)pthread_mutex_lock(&db->pool_lock);
    while (db->gate_closed && !inside)
        (void)pthread_cond_wait(&db->pool_cond, &db->pool_lock);
    db->open_count++;
    snap = db->idle;
    if (snap != NULL) {
        db->idle = snap->next;
        db->idle_count--;
    }
    (void)pthread_mutex_unlock(&db->pool_lock);
    if (snap == NULL) {
        snap = calloc(1, sizeof(*snap));
        if (snap != NULL)
            snap->db = db;
    }
    return snap;
}

/* Count one snapshot less; keep SNAP (or NULL) for the next begin.  *spare: one
 * that the caller frees. */
static void
read_snap_give(struct kvfs_db *db, struct kvfs_db_snap *snap, struct kvfs_db_snap **spare)
{
    *spare = NULL;
    (void)pthread_mutex_lock(&db->pool_lock);
    db->open_count--;
    if (snap != NULL && db->idle_count < KVFS_LMDB_IDLE_MAX && !snap->broken) {
        snap->next = db->idle;
        db->idle = snap;
        db->idle_count++;
    } else {
        *spare = snap;
    }
    (void)pthread_cond_broadcast(&db->pool_cond);
    (void)pthread_mutex_unlock(&db->pool_lock);
}

/* All places for readers are taken: give back our idle ones, clear those of dead
 * processes, then wait a moment for a snapshot to end. */
static void
read_wait_place(struct kvfs_db *db, bool inside)
{
    struct timespec until;

    kvfs_lmdb_pool_drain(db);
    if (!inside)
        kvfs_lmdb_hold(db);
    kvfs_lmdb_reader_check(db);
    if (!inside)
        kvfs_lmdb_unhold(db);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += READ_WAIT_STEP_NS;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    (void)pthread_mutex_lock(&db->pool_lock);
    if (db->idle_count == 0)
        (void)pthread_cond_timedwait(&db->pool_cond, &db->pool_lock, &until);
    (void)pthread_mutex_unlock(&db->pool_lock);
}

static int
read_begin(struct kvfs_db *db, bool inside, struct kvfs_db_snap **snapp)
{
    struct kvfs_db_snap *snap = read_snap_take(db, inside);
    struct kvfs_db_snap *spare;
    int rc = ENOMEM;

    if (snap != NULL) {
        snap->seek_ready = snap->trees_ready = false;
        rc = kvfs_lmdb_guard(read_renew, snap);
    }
    if (rc == 0) {
        *snapp = snap;
        return 0;
    }
    read_snap_give(db, NULL, &spare);
    if (snap != NULL)
        read_snap_free(snap);
    return rc;
}

/* For who counts as open already. */
int
kvfs_lmdb_begin_inside(struct kvfs_db *db, struct kvfs_db_snap **snapp)
{
    int rc = read_begin(db, true, snapp);

    for (unsigned waits = 0; rc == MDB_READERS_FULL && waits < READ_WAIT_STEPS_MAX; waits++) {
        read_wait_place(db, true);
        rc = read_begin(db, true, snapp);
    }
    return rc;
}

int
kvfs_lmdb_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    for (unsigned waits = 0; waits < READ_WAIT_STEPS_MAX; waits++) {
        rc = read_begin(db, false, snapp);
        if (rc == 0)
            return 0;
        if (rc == MDB_READERS_FULL) {
            read_wait_place(db, false);
        } else if (rc == MDB_MAP_RESIZED) {
            rc = kvfs_lmdb_map_grow(db, err);
            if (rc != 0)
                return rc;
        } else if (rc == MDB_PANIC) {
            rc = kvfs_lmdb_reopen(db, err);
            if (rc != 0)
                return rc;
        } else {
            break;
        }
    }
    return kvfs_lmdb_error(err, rc, db->path, "beginning a snapshot");
}

void
kvfs_lmdb_end(struct kvfs_db_snap *snap)
{
    struct kvfs_db *db = snap->db;
    struct kvfs_db_snap *spare;

    if (kvfs_fork_check(db->generation, db->path, NULL) != 0) {
        free(snap); /* in a forked child: the reader's place is the parent's */
        return;
    }
    if (!snap->broken && kvfs_lmdb_txn_reset(snap->txn) != 0)
        snap->broken = true;
    read_snap_give(db, snap, &spare);
    if (spare != NULL)
        read_snap_free(spare);
}

void
kvfs_lmdb_snap_heal(struct kvfs_db_snap *snap)
{
    size_t txnid = snap->txnid;

    if (snap->broken)
        return;
    (void)kvfs_lmdb_txn_reset(snap->txn);
    snap->seek_ready = snap->trees_ready = false;
    if (kvfs_lmdb_guard(read_renew, snap) == 0) {
        if (snap->txnid == txnid)
            return;
        (void)kvfs_lmdb_txn_reset(snap->txn);
    }
    snap->broken = true;
}

/* --- get ------------------------------------------------------------------------ */

struct read_get {
    struct kvfs_db_snap *snap;
    enum kvfs_keyspace keyspace;
    const void *key;
    size_t key_len;
    size_t offset;
    const struct iovec *iov;
    int iov_count;
    struct kvfs_lmdb_value value;
    struct kvfs_lmdb_walk walk;
};

/* Make sure that the snapshot's own cursor stands in its present transaction. */
static int
read_seek_ready(struct kvfs_db_snap *snap)
{
    MDB_stat ignored;
    int rc;

    if (snap->seek_ready)
        return 0;
    /* Reads the database's record first: opening a cursor would do so with
     * memory in hand, which a fault would leak. */
    rc = mdb_stat(snap->txn, snap->db->dbi[KVFS_DATA], &ignored);
    if (rc != 0)
        return rc;
    if (snap->seek != NULL)
        rc = mdb_cursor_renew(snap->txn, snap->seek);
    else
        rc = mdb_cursor_open(snap->txn, snap->db->dbi[KVFS_DATA], &snap->seek);
    snap->seek_ready = rc == 0;
    return rc;
}

/* Ask LMDB; what it finds is judged by the record's own check. */
static int
read_find(struct read_get *g)
{
    MDB_val key = lmdb_val(g->key, g->key_len);
    MDB_val data;
    int rc;

    if (g->keyspace == KVFS_DATA) {
        rc = read_seek_ready(g->snap);
        if (rc == 0)
            rc = mdb_cursor_get(g->snap->seek, &key, &data, MDB_SET_RANGE);
    } else {
        rc = mdb_get(g->snap->txn, g->snap->db->dbi[KVFS_META], &key, &data);
    }
    return rc != 0 ? rc
                   : kvfs_lmdb_value_found(g->snap->db, g->keyspace, g->key, &key, &data, &g->value);
}

static int
read_get_guarded(void *arg)
{
    struct read_get *g = arg;
    int rc = read_find(g);

    if (rc == MDB_NOTFOUND)
        return kvfs_lmdb_walk_prove_absent(g->snap, g->keyspace, g->key, g->key_len, &g->walk);
    if (rc == 0)
        kvfs_lmdb_value_copy(&g->value, g->offset, g->iov, g->iov_count);
    return rc;
}

int
kvfs_lmdb_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
              size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
              size_t *value_len, struct kvfs_error *err)
{
    struct read_get g;
    int rc = kvfs_fork_check(snap->db->generation, snap->db->path, err);

    if (rc != 0)
        return rc;
    if (snap->broken)
        return kvfs_error_set(err, -ESTALE, "%s: the snapshot was lost to damage", snap->db->path);
    if (key_len == 0 || key_len > KVFS_META_KEY_MAX ||
        (keyspace == KVFS_DATA && key_len != KVFS_DATA_KEY_LEN))
        return kvfs_error_set(err, -EINVAL, "%s: a key of %zu bytes", snap->db->path, key_len);
    g.snap = snap;
    g.keyspace = keyspace;
    g.key = key;
    g.key_len = key_len;
    g.offset = offset;
    g.iov = iov;
    g.iov_count = iov_count;
    g.walk.db = snap->db; /* the rest of it is set where it is needed */
    g.walk.bad = NULL;
    rc = kvfs_lmdb_guard(read_get_guarded, &g);
    if (rc == MDB_NOTFOUND)
        return kvfs_error_set(err, -ENOENT, "%s: no such record", snap->db->path);
    if (rc != 0) {
        kvfs_lmdb_snap_heal(snap);
        return kvfs_lmdb_walk_error(&g.walk, rc, "reading", err);
    }
    if (value_len != NULL)
        *value_len = g.value.head_len + g.value.tail_len;
    return 0;
}
