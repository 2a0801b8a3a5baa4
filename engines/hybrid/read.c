/* SPDX-License-Identifier: BSD-3-Clause
 *
 * read.c - snapshots of both sides, gets and scans.
 *
 *  1. A snapshot's two halves begin under the gate, which apply holds alone from one
 *     half of a batch to the other.  Batches of one side do not take it, for they wait
 *     for the medium; should some have ended meanwhile (`ended`), the halves begin anew:
 *     with none, at most one was on its way, and either half shows a state around it.
 *  2. META keys of the level above that begin with 00 have one more 00 here; all other
 *     keys that begin with 00 are ours and never show.  The order of keys stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hybrid_priv.h"

#define READ_TRIES 32

struct kvfs_db_cursor {
    struct kvfs_db_snap *snap;
    const struct kvfs_engine *engine;
    struct kvfs_db_cursor *real;
    bool meta;
};

/* The first key behind the N bytes of KEY and all that begin with them, in place. */
static size_t
read_behind(uint8_t *key, size_t n)
{
    while (n > 0 && key[n - 1] == 0xff)
        n--;
    if (n > 0)
        key[n - 1]++;
    return n;
}

const void *
kvfs_hybrid_key(const void *key, size_t *len, bool bound, uint8_t out[KVFS_META_KEY_MAX])
{
    const uint8_t *k = key;

    if (*len == 0 || k[0] != HYBRID_OWN_KEY)
        return key;
    out[0] = HYBRID_OWN_KEY;
    if (*len < KVFS_META_KEY_MAX) {
        memcpy(out + 1, key, *len);
        ++*len;
    } else if (bound) { /* no key can lie between it and the next of one byte less */
        memcpy(out + 1, key, KVFS_META_KEY_MAX - 1);
        *len = read_behind(out, KVFS_META_KEY_MAX);
    } else {
        *len = 0;
    }
    return out;
}

/* Under the gate, shared. */
static int
read_begin(struct kvfs_db *db, struct kvfs_db_snap *snap, struct kvfs_error *err)
{
    const struct kvfs_engine *const *side = db->pair->side;
    int rc = side[HYBRID_META]->begin(db->side[HYBRID_META], &snap->side[HYBRID_META], err);

    if (rc != 0)
        return rc;
    rc = side[HYBRID_DATA]->begin(db->side[HYBRID_DATA], &snap->side[HYBRID_DATA], err);
    if (rc != 0)
        side[HYBRID_META]->end(snap->side[HYBRID_META]);
    return rc;
}

/* -EAGAIN: batches ended meanwhile. */
static int
read_begin_gated(struct kvfs_db *db, struct kvfs_db_snap *snap, struct kvfs_error *err)
{
    unsigned long ended;
    int rc = 0;

    (void)pthread_rwlock_rdlock(&db->gate);
    if (atomic_load(&db->torn))
        rc = kvfs_error_set(err, -EIO, "%s: a batch is half done, open the store again",
                            db->folder);
    ended = atomic_load(&db->ended);
    if (rc == 0)
        rc = read_begin(db, snap, err);
    if (rc == 0 && ended != atomic_load(&db->ended)) {
        for (int i = 0; i < HYBRID_SIDES; i++)
            db->pair->side[i]->end(snap->side[i]);
        rc = -EAGAIN;
    }
    (void)pthread_rwlock_unlock(&db->gate);
    return rc;
}

int
kvfs_hybrid_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    snap = calloc(1, sizeof(*snap));
    if (snap == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a snapshot", db->folder);
    snap->db = db;
    for (int i = 0; i < READ_TRIES && (rc = read_begin_gated(db, snap, err)) == -EAGAIN; i++)
        ;
    if (rc == -EAGAIN) { /* quicker batches than begins: keep them off */
        (void)pthread_mutex_lock(&db->apply_lock);
        rc = read_begin_gated(db, snap, err);
        (void)pthread_mutex_unlock(&db->apply_lock);
    }
    if (rc == 0)
        *snapp = snap;
    else
        free(snap);
    return rc;
}

void
kvfs_hybrid_end(struct kvfs_db_snap *snap)
{
    for (int i = 0; i < HYBRID_SIDES; i++)
        snap->db->pair->side[i]->end(snap->side[i]); /* each knows of fork() itself */
    free(snap);
}

int
kvfs_hybrid_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
                size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
                size_t *value_len, struct kvfs_error *err)
{
    uint8_t own[KVFS_META_KEY_MAX];
    int rc = kvfs_fork_check(snap->db->generation, snap->db->folder, err);

    if (rc != 0)
        return rc;
    if (keyspace == KVFS_META && key_len <= KVFS_META_KEY_MAX)
        key = kvfs_hybrid_key(key, &key_len, false, own);
    return snap->db->pair->side[keyspace]->get(snap->side[keyspace], keyspace, key, key_len, offset,
                                               iov, iov_count, value_len, err);
}

int
kvfs_hybrid_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                        size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                        struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    uint8_t own_lo[KVFS_META_KEY_MAX], own_hi[KVFS_META_KEY_MAX];
    struct kvfs_db_cursor *c;
    int rc = kvfs_fork_check(snap->db->generation, snap->db->folder, err);

    if (rc != 0)
        return rc;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a scan", snap->db->folder);
    c->snap = snap;
    c->engine = snap->db->pair->side[keyspace];
    c->meta = keyspace == KVFS_META;
    if (c->meta && lo_len <= KVFS_META_KEY_MAX && hi_len <= KVFS_META_KEY_MAX) {
        lo = kvfs_hybrid_key(lo, &lo_len, true, own_lo);
        hi = kvfs_hybrid_key(hi, &hi_len, true, own_hi);
    }
    rc = c->engine->cursor_open(snap->side[keyspace], keyspace, lo, lo_len, hi, hi_len, flags,
                                &c->real, err);
    if (rc == 0)
        *cursorp = c;
    else
        free(c);
    return rc;
}

int
kvfs_hybrid_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                        size_t *value_len, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(c->snap->db->generation, c->snap->db->folder, err);

    if (rc != 0)
        return rc;
    for (;;) {
        const uint8_t *k;

        rc = c->engine->cursor_next(c->real, key, key_len, value_len, err);
        if (rc != 1 || !c->meta)
            return rc;
        k = *key;
        if (*key_len == 0 || k[0] != HYBRID_OWN_KEY)
            return rc;
        if (*key_len > 1 && k[1] == HYBRID_OWN_KEY) {
            *key = k + 1;
            --*key_len;
            return rc;
        }
    }
}

int
kvfs_hybrid_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                         int iov_count, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(c->snap->db->generation, c->snap->db->folder, err);

    return rc != 0 ? rc : c->engine->cursor_value(c->real, offset, iov, iov_count, err);
}

void
kvfs_hybrid_cursor_close(struct kvfs_db_cursor *c)
{
    c->engine->cursor_close(c->real);
    free(c);
}
