/* SPDX-License-Identifier: BSD-3-Clause
 *
 * intent.c - DATA operations kept in META until DATA has them for sure.
 *
 *     META   00 'h' number(8)   operations, each: type (1), key length (2), end length
 *                               (2), value length (4), all big-endian, then key, end
 *                               and value; XXH3 of all that and the number (8)
 *     DATA   "done" in its META keyspace: number(8) of the newest intent it has
 *
 *  1. Numbers grow by one from record to record and are never used again.  A batch's
 *     records follow each other, and its META batch brings all of them or none.
 *  2. DATA's batch writes "done" with the operations: so DATA knows what it has, and
 *     only what it lacks is replayed, in order.  Where DATA's engine keeps no order
 *     over a power cut, "done" proves nothing; then every batch has an intent (apply.c)
 *     and all of them are replayed: an operation says what shall be, so once more does
 *     no harm.  META is synced before.
 *  3. A record is replayed as one batch with its own "done": a crash during the replay
 *     leaves less to do.  Nobody reads before the end.
 *  4. A record holds up to HYBRID_INTENT_BYTES, or one operation.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include <kvfs/batch.h>

#include "hybrid_priv.h"

#define INTENT_OP_HEAD 9u
#define INTENT_SUM     8u /* bytes */
#define INTENT_TAG     'h'

static const char intent_done[] = "done";

static void
intent_put_be(uint8_t *to, uint64_t n, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(n >> (8 * (bytes - 1 - i)));
}

static uint64_t
intent_get_be(const uint8_t *from, int bytes)
{
    uint64_t n = 0;

    for (int i = 0; i < bytes; i++)
        n = n << 8 | from[i];
    return n;
}

static void
intent_key(uint8_t key[HYBRID_INTENT_KEY], uint64_t number)
{
    key[0] = HYBRID_OWN_KEY;
    key[1] = INTENT_TAG;
    intent_put_be(key + 2, number, 8);
}

/* --- writing ----------------------------------------------------------------------- */

bool
kvfs_hybrid_changes(const struct kvfs_op *op, int side)
{
    return op->keyspace == side && op->type <= KVFS_OP_DEL_RANGE;
}

static size_t
intent_op_bytes(const struct kvfs_op *op)
{
    size_t n = INTENT_OP_HEAD + op->key_len;

    if (op->type == KVFS_OP_DEL_RANGE)
        n += op->key_end_len;
    if (op->type == KVFS_OP_PUT)
        n += op->value[0].iov_len + op->value[1].iov_len;
    return n;
}

static void
intent_seal(uint8_t *to, const uint8_t *value, size_t len, uint64_t number)
{
    intent_put_be(to, XXH3_64bits_withSeed(value, len, number), INTENT_SUM);
}

/* The operations from *at on that go into one record: its bytes, 0 if there are none
 * left; *at becomes where the next begins. */
static size_t
intent_span(const struct kvfs_batch *batch, size_t *at)
{
    size_t bytes = 0;

    for (; *at < batch->ops_count; ++*at) {
        size_t n;

        if (!kvfs_hybrid_changes(&batch->ops[*at], HYBRID_DATA))
            continue;
        n = intent_op_bytes(&batch->ops[*at]);
        if (bytes > 0 && bytes + n > HYBRID_INTENT_BYTES)
            break;
        bytes += n;
    }
    return bytes;
}

size_t
kvfs_hybrid_intent_size(const struct kvfs_batch *batch, size_t *bytes)
{
    size_t at = 0, n, records = 0;

    *bytes = 0;
    while ((n = intent_span(batch, &at)) > 0) {
        *bytes += n + INTENT_SUM;
        records++;
    }
    return records;
}

static uint8_t *
intent_copy(uint8_t *to, const void *from, size_t len)
{
    if (len > 0)
        memcpy(to, from, len);
    return to + len;
}

static uint8_t *
intent_op_put(uint8_t *to, const struct kvfs_op *op)
{
    size_t end_len = op->type == KVFS_OP_DEL_RANGE ? op->key_end_len : 0;
    size_t value_len = op->type == KVFS_OP_PUT ? op->value[0].iov_len + op->value[1].iov_len : 0;

    to[0] = op->type;
    intent_put_be(to + 1, op->key_len, 2);
    intent_put_be(to + 3, end_len, 2);
    intent_put_be(to + 5, value_len, 4);
    to = intent_copy(to + INTENT_OP_HEAD, op->key, op->key_len);
    to = intent_copy(to, op->key_end, end_len);
    for (int i = 0; i < 2 && op->type == KVFS_OP_PUT; i++)
        to = intent_copy(to, op->value[i].iov_base, op->value[i].iov_len);
    return to;
}

void
kvfs_hybrid_intent_put(const struct kvfs_batch *batch, uint64_t number, uint8_t *bytes,
                       uint8_t *keys, struct kvfs_op *ops)
{
    size_t at = 0, first = 0, n;

    for (; (n = intent_span(batch, &at)) > 0; first = at) {
        struct kvfs_op put = {.type = KVFS_OP_PUT, .keyspace = KVFS_META,
                              .key_len = HYBRID_INTENT_KEY, .key = keys,
                              .value = {{.iov_base = bytes, .iov_len = n + INTENT_SUM}}};

        intent_key(keys, number);
        keys += HYBRID_INTENT_KEY;
        for (size_t i = first; i < at; i++)
            if (kvfs_hybrid_changes(&batch->ops[i], HYBRID_DATA))
                bytes = intent_op_put(bytes, &batch->ops[i]);
        intent_seal(bytes, bytes - n, n, number++);
        bytes += INTENT_SUM;
        *ops++ = put;
    }
}

struct kvfs_op
kvfs_hybrid_intent_del(uint64_t first, uint64_t end, uint8_t *keys)
{
    intent_key(keys, first);
    intent_key(keys + HYBRID_INTENT_KEY, end);
    return (struct kvfs_op){.type = KVFS_OP_DEL_RANGE, .keyspace = KVFS_META,
                            .key_len = HYBRID_INTENT_KEY, .key = keys,
                            .key_end_len = HYBRID_INTENT_KEY, .key_end = keys + HYBRID_INTENT_KEY};
}

struct kvfs_op
kvfs_hybrid_intent_done(uint64_t number, uint8_t value[8])
{
    intent_put_be(value, number, 8);
    return (struct kvfs_op){.type = KVFS_OP_PUT, .keyspace = KVFS_META,
                            .key_len = sizeof(intent_done) - 1, .key = intent_done,
                            .value = {{.iov_base = value, .iov_len = 8}}};
}

/* --- after a crash ----------------------------------------------------------------- */

struct intent_walk {
    struct kvfs_db *db;
    struct kvfs_db_snap *snap;
    struct kvfs_db_cursor *cursor;
    struct kvfs_error *err;
    uint64_t number; /* of the present record */
    size_t len;      /* of its value */
};

static int
intent_walk_begin(struct intent_walk *w, struct kvfs_db *db, uint64_t from, struct kvfs_error *err)
{
    const struct kvfs_engine *meta = db->pair->side[HYBRID_META];
    const uint8_t hi[2] = {HYBRID_OWN_KEY, INTENT_TAG + 1};
    uint8_t lo[HYBRID_INTENT_KEY];
    int rc;

    *w = (struct intent_walk){.db = db, .err = err};
    rc = meta->begin(db->side[HYBRID_META], &w->snap, err);
    if (rc != 0)
        return rc;
    intent_key(lo, from);
    rc = meta->cursor_open(w->snap, KVFS_META, lo, sizeof(lo), hi, sizeof(hi), 0, &w->cursor, err);
    if (rc != 0)
        meta->end(w->snap);
    return rc;
}

/* 1: a record, 0: the end. */
static int
intent_walk_next(struct intent_walk *w)
{
    const void *key;
    size_t key_len;
    int rc = w->db->pair->side[HYBRID_META]->cursor_next(w->cursor, &key, &key_len, &w->len,
                                                         w->err);

    if (rc != 1)
        return rc;
    if (key_len != HYBRID_INTENT_KEY)
        return kvfs_error_set(w->err, -EIO, "%s: an intent in META has a key of %zu bytes",
                              w->db->folder, key_len);
    w->number = intent_get_be((const uint8_t *)key + 2, 8);
    return 1;
}

static void
intent_walk_end(struct intent_walk *w)
{
    w->db->pair->side[HYBRID_META]->cursor_close(w->cursor);
    w->db->pair->side[HYBRID_META]->end(w->snap);
}

/* The number of the newest intent that DATA has; 0: none. */
static int
intent_done_read(struct kvfs_db *db, uint64_t *number, struct kvfs_error *err)
{
    const struct kvfs_engine *data = db->pair->side[HYBRID_DATA];
    struct kvfs_db_snap *snap;
    uint8_t value[8];
    struct iovec iov = {value, sizeof(value)};
    size_t len = 0;
    int rc = data->begin(db->side[HYBRID_DATA], &snap, err);

    if (rc != 0)
        return rc;
    rc = data->get(snap, KVFS_META, intent_done, sizeof(intent_done) - 1, 0, &iov, 1, &len, err);
    data->end(snap);
    *number = rc == 0 && len == sizeof(value) ? intent_get_be(value, 8) : 0;
    if (rc == 0 && len != sizeof(value))
        return kvfs_error_set(err, -EIO, "%s: DATA's record of its batches is damaged", db->folder);
    return rc == -ENOENT ? 0 : rc;
}

/* Does "done" prove what it says? */
static bool
intent_done_proves(const struct kvfs_db *db)
{
    return (db->pair->side[HYBRID_DATA]->caps & (KVFS_CAP_ORDERED | KVFS_CAP_DURABLE)) != 0;
}

int
kvfs_hybrid_intent_find(struct kvfs_db *db, bool *missing, struct kvfs_error *err)
{
    uint64_t first = 0, next, done;
    struct intent_walk w;
    int rc = intent_done_read(db, &done, err);

    if (rc == 0)
        rc = intent_walk_begin(&w, db, 0, err);
    if (rc != 0)
        return rc;
    next = done + 1;
    while ((rc = intent_walk_next(&w)) == 1) {
        if (first == 0)
            first = w.number;
        if (next <= w.number)
            next = w.number + 1;
    }
    intent_walk_end(&w);
    if (rc != 0)
        return rc;
    *missing = next > done + 1 || (first > 0 && !intent_done_proves(db));
    atomic_store(&db->first, first > 0 ? first : next);
    atomic_store(&db->next, next);
    db->needed = next; /* the caller replays and syncs */
    return 0;
}

/* Take the operations of record NUMBER apart; B may be NULL.  -EIO: it is damaged. */
static int
intent_decode(const uint8_t *value, size_t len, uint64_t number, struct kvfs_batch_builder *b)
{
    uint8_t sum[INTENT_SUM];

    if (len < INTENT_SUM)
        return -EIO;
    len -= INTENT_SUM;
    intent_seal(sum, value, len, number);
    if (memcmp(sum, value + len, INTENT_SUM) != 0)
        return -EIO;
    while (len > 0) {
        size_t key_len, end_len, value_len, need;
        const uint8_t *key;
        uint8_t type;

        if (len < INTENT_OP_HEAD)
            return -EIO;
        type = value[0];
        key_len = (size_t)intent_get_be(value + 1, 2);
        end_len = (size_t)intent_get_be(value + 3, 2);
        value_len = (size_t)intent_get_be(value + 5, 4);
        need = INTENT_OP_HEAD + key_len + end_len + value_len;
        if (type > KVFS_OP_DEL_RANGE || key_len > KVFS_DATA_KEY_LEN ||
            end_len > KVFS_DATA_KEY_LEN || len < need ||
            (type != KVFS_OP_DEL_RANGE && key_len != KVFS_DATA_KEY_LEN))
            return -EIO;
        key = value + INTENT_OP_HEAD;
        if (b != NULL && type == KVFS_OP_PUT)
            kvfs_batch_put_borrowed(b, KVFS_DATA, key, key_len, key + key_len + end_len, value_len,
                                    NULL, 0);
        else if (b != NULL && type == KVFS_OP_DEL)
            kvfs_batch_del(b, KVFS_DATA, key, key_len);
        else if (b != NULL)
            kvfs_batch_del_range(b, KVFS_DATA, key, key_len, key + key_len, end_len);
        value += need;
        len -= need;
    }
    return 0;
}

/* Read the present record; *valuep is malloc'd. */
static int
intent_load(struct intent_walk *w, uint8_t **valuep)
{
    uint8_t *value = malloc(w->len + 1);
    struct iovec iov = {value, w->len};
    int rc;

    if (value == NULL)
        return kvfs_error_set(w->err, -ENOMEM, "%s: no memory for an intent", w->db->folder);
    rc = w->db->pair->side[HYBRID_META]->cursor_value(w->cursor, 0, &iov, 1, w->err);
    if (rc == 0)
        *valuep = value;
    else
        free(value);
    return rc;
}

static int
intent_damaged(struct intent_walk *w)
{
    return kvfs_error_set(w->err, -EIO, "%s: intent %llu in META is damaged", w->db->folder,
                          (unsigned long long)w->number);
}

static int
intent_replay_one(struct intent_walk *w, struct kvfs_batch_builder *b)
{
    struct kvfs_db *db = w->db;
    struct kvfs_error why = {0};
    struct kvfs_batch batch;
    uint8_t done[8], *value;
    int rc = intent_load(w, &value);

    if (rc != 0)
        return rc;
    kvfs_batch_reset(b);
    if (intent_decode(value, w->len, w->number, b) != 0)
        rc = intent_damaged(w);
    if (rc == 0) {
        const struct kvfs_op op = kvfs_hybrid_intent_done(w->number, done);

        kvfs_batch_put(b, KVFS_META, op.key, op.key_len, done, sizeof(done));
        rc = kvfs_batch_end(b, &batch);
        if (rc == 0)
            rc = db->pair->side[HYBRID_DATA]->apply(db->side[HYBRID_DATA], &batch, KVFS_ORDERED,
                                                    &why);
        if (rc != 0)
            (void)kvfs_error_set(w->err, rc, "%s: a batch that a crash cut short cannot be "
                                 "finished: %s", db->folder, why.msg);
    }
    free(value);
    return rc;
}

int
kvfs_hybrid_intent_replay(struct kvfs_db *db, struct kvfs_error *err)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct intent_walk w;
    uint64_t done = 0;
    int rc = b == NULL ? kvfs_error_set(err, -ENOMEM, "%s: no memory", db->folder) : 0;

    /* A process that died may have left the intents where a power cut takes them; DATA must
     * not be ahead then (apply.c, 1). */
    if (rc == 0)
        rc = kvfs_hybrid_meta_sync(db, err);
    if (rc == 0 && intent_done_proves(db))
        rc = intent_done_read(db, &done, err);
    if (rc == 0)
        rc = intent_walk_begin(&w, db, done + 1, err);
    if (rc == 0) {
        while ((rc = intent_walk_next(&w)) == 1)
            if ((rc = intent_replay_one(&w, b)) != 0)
                break;
        intent_walk_end(&w);
    }
    kvfs_batch_free(b);
    if (rc == 0)
        rc = kvfs_hybrid_data_sync(db, err);
    return rc != 0 ? rc : kvfs_hybrid_forget(db, err);
}

int
kvfs_hybrid_intent_verify(struct kvfs_db *db, struct kvfs_error *err)
{
    struct intent_walk w;
    uint8_t *value;
    int rc = intent_walk_begin(&w, db, 0, err);

    if (rc != 0)
        return rc;
    while ((rc = intent_walk_next(&w)) == 1) {
        rc = intent_load(&w, &value);
        if (rc != 0)
            break;
        if (intent_decode(value, w.len, w.number, NULL) != 0)
            rc = intent_damaged(&w);
        free(value);
        if (rc != 0)
            break;
    }
    intent_walk_end(&w);
    return rc;
}
