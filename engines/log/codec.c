/* SPDX-License-Identifier: BSD-3-Clause
 *
 * codec.c - operations as bytes (codec.h).
 *
 * Invariant: decoding reads nothing outside [bytes, bytes + len), whatever they are,
 * and accepts only what encoding makes.
 */
#include "codec.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define CODEC_HEAD 12u

static bool
codec_takes(const struct kvfs_op *op)
{
    return op->type == KVFS_OP_PUT || op->type == KVFS_OP_DEL || op->type == KVFS_OP_DEL_RANGE;
}

size_t
kvfs_log_encoded(const struct kvfs_batch *batch)
{
    size_t len = 0;

    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (!codec_takes(op))
            continue;
        len += CODEC_HEAD + op->key_len;
        if (op->type == KVFS_OP_DEL_RANGE)
            len += op->key_end_len;
        if (op->type == KVFS_OP_PUT)
            len += op->value[0].iov_len + op->value[1].iov_len;
    }
    return len;
}

static uint8_t *
codec_bytes(uint8_t *out, const void *bytes, size_t len)
{
    if (len > 0)
        memcpy(out, bytes, len);
    return out + len;
}

uint8_t *
kvfs_log_encode(const struct kvfs_batch *batch, uint8_t *out)
{
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];
        size_t end_len = op->type == KVFS_OP_DEL_RANGE ? op->key_end_len : 0;
        size_t value_len = op->type == KVFS_OP_PUT
                               ? op->value[0].iov_len + op->value[1].iov_len
                               : 0;
        uint16_t lens[3] = {htole16(op->key_len), htole16((uint16_t)end_len), 0};
        uint32_t value = htole32((uint32_t)value_len);

        if (!codec_takes(op))
            continue;
        *out++ = op->type;
        *out++ = op->keyspace;
        out = codec_bytes(out, lens, sizeof(lens));
        out = codec_bytes(out, &value, sizeof(value));
        out = codec_bytes(out, op->key, op->key_len);
        out = codec_bytes(out, op->key_end, end_len);
        if (value_len > 0) {
            out = codec_bytes(out, op->value[0].iov_base, op->value[0].iov_len);
            out = codec_bytes(out, op->value[1].iov_base, op->value[1].iov_len);
        }
    }
    return out;
}

static bool
codec_sound(const struct kvfs_op *op)
{
    bool data = op->keyspace == KVFS_DATA;
    size_t max = data ? KVFS_DATA_KEY_LEN : KVFS_META_KEY_MAX;

    if ((!data && op->keyspace != KVFS_META) || !codec_takes(op))
        return false;
    if (op->type != KVFS_OP_PUT && op->value[0].iov_len != 0)
        return false;
    if (op->type == KVFS_OP_DEL_RANGE)
        return op->key_len <= max && op->key_end_len <= max;
    return op->key_end_len == 0 && op->key_len >= (data ? max : 1) && op->key_len <= max;
}

int
kvfs_log_decode(const void *bytes, size_t len, kvfs_log_op_fn *fn, void *arg)
{
    const uint8_t *p = bytes;

    while (len > 0) {
        uint16_t lens[3];
        uint32_t value;
        struct kvfs_op op = {.type = 0};
        int rc;

        if (len < CODEC_HEAD)
            return -EINVAL;
        memcpy(lens, p + 2, sizeof(lens));
        memcpy(&value, p + 8, sizeof(value));
        op.type = p[0];
        op.keyspace = p[1];
        op.key_len = le16toh(lens[0]);
        op.key_end_len = le16toh(lens[1]);
        op.value[0].iov_len = le32toh(value);
        if (lens[2] != 0 || !codec_sound(&op) ||
            len - CODEC_HEAD < (size_t)op.key_len + op.key_end_len ||
            len - CODEC_HEAD - op.key_len - op.key_end_len < op.value[0].iov_len)
            return -EINVAL;
        op.key = p + CODEC_HEAD;
        op.key_end = p + CODEC_HEAD + op.key_len;
        op.value[0].iov_base = (void *)(uintptr_t)(p + CODEC_HEAD + op.key_len + op.key_end_len);
        rc = fn(arg, &op);
        if (rc != 0)
            return rc;
        p += CODEC_HEAD + op.key_len + op.key_end_len + op.value[0].iov_len;
        len -= CODEC_HEAD + op.key_len + op.key_end_len + op.value[0].iov_len;
    }
    return 0;
}
