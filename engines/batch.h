/* SPDX-License-Identifier: BSD-3-Clause
 *
 * batch.h - may an engine be given this batch?
 *
 * The one judgement of what every engine refuses before it looks at its store: operations that
 * cannot be, and batches beyond its limits.
 */
#ifndef KVFS_ENGINES_BATCH_H
#define KVFS_ENGINES_BATCH_H

#include <kvfs/engine.h>

/* Judge BATCH by LIMITS: of them value_max_bytes, batch_max_bytes and batch_max_ops.
 *   -EINVAL  an operation's type or keyspace does not exist; a key is empty or longer than its
 *            keyspace takes (DATA: not exactly KVFS_DATA_KEY_LEN); a bound of a range is longer
 *   -E2BIG   too many operations, a value too large, keys and values too large together
 * Texts in ERR, which may be NULL, begin with PATH.  Reads nothing that keys and values point
 * to.  Threads: any. */
int kvfs_batch_check(const struct kvfs_batch *batch, const struct kvfs_engine_limits *limits,
                     const char *path, struct kvfs_error *err);

/* What kvfs_batch_check() says of operation I, for an engine that refuses more: -EINVAL. */
int kvfs_batch_refuse(const struct kvfs_batch *batch, size_t i, const char *path,
                      struct kvfs_error *err);

#endif /* KVFS_ENGINES_BATCH_H */
