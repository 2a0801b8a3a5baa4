/* SPDX-License-Identifier: BSD-3-Clause
 *
 * below.c - what the log keeps in the engine below, and how its keys stay apart from those of
 * the level above.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log_priv.h"

const void *
kvfs_log_key(enum kvfs_keyspace ks, const void *key, size_t *len, uint8_t out[KVFS_META_KEY_MAX])
{
    if (ks != KVFS_META || *len == 0 || *(const uint8_t *)key != 0)
        return key;
    out[0] = 0;
    if (*len < KVFS_META_KEY_MAX) {
        memcpy(out + 1, key, *len);
        (*len)++;
        return out;
    }
    /* A bound that has no room for the byte in front.  No key below is longer than the bytes that
     * are left of it, so of all that begin with them only they themselves can be one, and they are
     * before the bound: it lies before the first string that is behind all these. */
    memcpy(out + 1, key, KVFS_META_KEY_MAX - 1);
    *len = KVFS_META_KEY_MAX;
    while (out[*len - 1] == 0xff)
        (*len)--; /* it ends at out[0] */
    out[*len - 1]++;
    return out;
}

bool
kvfs_log_key_refused(enum kvfs_keyspace ks, const void *key, size_t len)
{
    return ks == KVFS_META && len > KVFS_META_KEY_MAX - 2 && *(const uint8_t *)key == 0;
}

bool
kvfs_log_own(enum kvfs_keyspace ks, const uint8_t *key, size_t len)
{
    return ks == KVFS_META && key[0] == 0 && (len == 1 || key[1] != 0);
}

static int
below_expect(struct kvfs_batch_builder *b, const struct kvfs_op *op, const void *key, size_t len)
{
    size_t first = op->value[0].iov_len, second = op->value[1].iov_len;
    uint8_t *value;

    if (op->type == KVFS_OP_EXPECT_ABSENT) {
        kvfs_batch_expect_absent(b, op->keyspace, key, len);
        return 0;
    }
    value = malloc(first + second + 1);
    if (value == NULL)
        return -ENOMEM;
    if (first > 0)
        memcpy(value, op->value[0].iov_base, first);
    if (second > 0)
        memcpy(value + first, op->value[1].iov_base, second);
    kvfs_batch_expect(b, op->keyspace, key, len, value, first + second);
    free(value);
    return 0;
}

/* A range may hold our own keys, which are left alone: 00 01 to 00 ff. */
static void
below_range(struct kvfs_batch_builder *b, const struct kvfs_op *op)
{
    static const uint8_t ours[] = {0, 1}, behind[] = {1};
    uint8_t lo_out[KVFS_META_KEY_MAX], hi_out[KVFS_META_KEY_MAX];
    size_t lo_len = op->key_len, hi_len = op->key_end_len;
    const uint8_t *lo = op->key, *hi = op->key_end;
    bool low = lo_len == 0 || lo[0] == 0, high = hi_len == 0 || hi[0] != 0;

    if (op->keyspace == KVFS_META && low && high) {
        lo = lo_len == 0 ? lo : kvfs_log_key(KVFS_META, lo, &lo_len, lo_out);
        kvfs_batch_del_range(b, KVFS_META, lo, lo_len, ours, sizeof(ours));
        kvfs_batch_del_range(b, KVFS_META, behind, sizeof(behind), hi, hi_len);
        return;
    }
    lo = kvfs_log_key(op->keyspace, lo, &lo_len, lo_out);
    hi = kvfs_log_key(op->keyspace, hi, &hi_len, hi_out);
    kvfs_batch_del_range(b, op->keyspace, lo, lo_len, hi, hi_len);
}

int
kvfs_log_below_add(struct kvfs_batch_builder *b, const struct kvfs_op *op)
{
    uint8_t out[KVFS_META_KEY_MAX];
    size_t len = op->key_len;
    const void *key;

    if (op->type == KVFS_OP_DEL_RANGE) {
        below_range(b, op);
        return 0;
    }
    key = kvfs_log_key(op->keyspace, op->key, &len, out);
    if (op->type == KVFS_OP_PUT)
        kvfs_batch_put_borrowed(b, op->keyspace, key, len, op->value[0].iov_base,
                                op->value[0].iov_len, op->value[1].iov_base,
                                op->value[1].iov_len);
    else if (op->type == KVFS_OP_DEL)
        kvfs_batch_del(b, op->keyspace, key, len);
    else
        return below_expect(b, op, key, len);
    return 0;
}

static void
place_put(uint8_t **p, uint64_t number)
{
    number = htole64(number);
    memcpy(*p, &number, sizeof(number));
    *p += sizeof(number);
}

static uint64_t
place_take(const uint8_t **p)
{
    uint64_t number;

    memcpy(&number, *p, sizeof(number));
    *p += sizeof(number);
    return le64toh(number);
}

struct kvfs_op
kvfs_log_place_op(const struct log_place *place, uint8_t value[48])
{
    uint8_t *p = value + KVFS_RING_ID;

    memcpy(value, place->id, KVFS_RING_ID);
    place_put(&p, place->epoch);
    place_put(&p, place->tail.offset);
    place_put(&p, place->tail.seq);
    place_put(&p, place->tail.before);
    return (struct kvfs_op){
        .type = KVFS_OP_PUT,
        .keyspace = KVFS_META,
        .key = LOG_OWN_KEY,
        .key_len = LOG_OWN_KEY_LEN,
        .value = {{.iov_base = value, .iov_len = 48}},
    };
}

int
kvfs_log_place_read(struct kvfs_db *db, struct kvfs_db_snap *below, struct log_place *place,
                    struct kvfs_error *err)
{
    uint8_t value[48];
    struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
    const uint8_t *p = value + KVFS_RING_ID;
    size_t len = 0;
    int rc = db->engine->get(below, KVFS_META, LOG_OWN_KEY, LOG_OWN_KEY_LEN, 0, &iov, 1, &len, err);

    if (rc != 0)
        return rc;
    if (len != sizeof(value))
        return kvfs_error_set(err, -EIO, "%s: the place of the log is damaged", db->path);
    memcpy(place->id, value, KVFS_RING_ID);
    place->epoch = place_take(&p);
    place->tail.offset = place_take(&p);
    place->tail.seq = place_take(&p);
    place->tail.before = place_take(&p);
    return 0;
}
