/* SPDX-License-Identifier: BSD-3-Clause
 *
 * codec.h - operations as the bytes of a log record, and back.
 *
 * Each operation that changes something is, numbers in little-endian:
 *
 *   type 1, keyspace 1, key length 2, end key's length 2, zero 2, value length 4,
 *   key, end key (of a range), value
 *
 * A record is such operations one behind the other, of one batch or of several.
 */
#ifndef KVFS_LOG_CODEC_H
#define KVFS_LOG_CODEC_H

#include <kvfs/engine.h>

/* Bytes that a batch takes. */
size_t kvfs_log_encoded(const struct kvfs_batch *batch);
/* Write them to OUT; the byte behind. */
uint8_t *kvfs_log_encode(const struct kvfs_batch *batch, uint8_t *out);

/* Called with each operation, which points into the record. */
typedef int kvfs_log_op_fn(void *arg, const struct kvfs_op *op);

/* Decode a record of LEN bytes.  -EINVAL: malformed; or what FN answered, if not 0. */
int kvfs_log_decode(const void *bytes, size_t len, kvfs_log_op_fn *fn, void *arg);

#endif /* KVFS_LOG_CODEC_H */
