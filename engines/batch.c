/* SPDX-License-Identifier: BSD-3-Clause
 *
 * batch.c - judging a batch (batch.h).
 */
#include "batch.h"

#include <errno.h>
#include <stdbool.h>

static bool
batch_op_sound(const struct kvfs_op *op)
{
    bool data = op->keyspace == KVFS_DATA;
    size_t max = data ? KVFS_DATA_KEY_LEN : KVFS_META_KEY_MAX;

    if ((op->keyspace != KVFS_META && !data) || op->type > KVFS_OP_EXPECT_ABSENT)
        return false;
    if (op->type == KVFS_OP_DEL_RANGE)
        return op->key_len <= max && op->key_end_len <= max;
    return op->key_len >= (data ? max : 1) && op->key_len <= max;
}

int
kvfs_batch_refuse(const struct kvfs_batch *batch, size_t i, const char *path,
                  struct kvfs_error *err)
{
    return kvfs_error_set(err, -EINVAL,
                          "%s: operation %zu has a bad type, keyspace or key (%u bytes)", path, i,
                          batch->ops[i].key_len);
}

int
kvfs_batch_check(const struct kvfs_batch *batch, const struct kvfs_engine_limits *limits,
                 const char *path, struct kvfs_error *err)
{
    uint64_t bytes = 0;

    if (batch->ops_count > limits->batch_max_ops)
        return kvfs_error_set(err, -E2BIG, "%s: a batch of %zu operations; at most %llu", path,
                              batch->ops_count, (unsigned long long)limits->batch_max_ops);
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];
        size_t head = op->value[0].iov_len, tail = op->value[1].iov_len;
        uint32_t max = limits->value_max_bytes;

        if (!batch_op_sound(op))
            return kvfs_batch_refuse(batch, i, path, err);
        if (head > max || tail > max - head)
            return kvfs_error_set(err, -E2BIG, "%s: operation %zu has a value of over %u bytes",
                                  path, i, max);
        bytes += (uint64_t)head + tail + op->key_len + op->key_end_len;
    }
    if (bytes > limits->batch_max_bytes)
        return kvfs_error_set(err, -E2BIG, "%s: a batch of %llu bytes; at most %llu", path,
                              (unsigned long long)bytes,
                              (unsigned long long)limits->batch_max_bytes);
    return 0;
}
