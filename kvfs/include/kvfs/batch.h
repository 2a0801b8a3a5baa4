/* SPDX-License-Identifier: BSD-3-Clause
 *
 * batch.h - building a struct kvfs_batch.
 *
 * A builder owns copies of all keys and of values added with the _copy calls;
 * the large values of blocks are borrowed.  Fails late: an allocation that
 * fails makes kvfs_batch_end() answer -ENOMEM, so the add calls return nothing.
 * Threads: one builder, one thread.
 */
#ifndef KVFS_BATCH_H
#define KVFS_BATCH_H

#include <kvfs/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvfs_batch_builder; /* opaque */

/* NULL only without memory.  _free(NULL) is allowed. */
struct kvfs_batch_builder *kvfs_batch_new(void);
void kvfs_batch_free(struct kvfs_batch_builder *b);

/* Forget the operations, keep the memory. */
void kvfs_batch_reset(struct kvfs_batch_builder *b);

void kvfs_batch_put(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key,
                    size_t key_len, const void *value, size_t value_len);
/* As _put, but HEAD is borrowed until the batch was applied; TAIL is copied.
 * The value is head followed by tail. */
void kvfs_batch_put_borrowed(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key,
                             size_t key_len, const void *head, size_t head_len, const void *tail,
                             size_t tail_len);
void kvfs_batch_del(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key,
                    size_t key_len);
void kvfs_batch_del_range(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *lo,
                          size_t lo_len, const void *hi, size_t hi_len);
void kvfs_batch_expect(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key,
                       size_t key_len, const void *value, size_t value_len);
void kvfs_batch_expect_absent(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key,
                              size_t key_len);

size_t kvfs_batch_ops(const struct kvfs_batch_builder *b);   /* operations so far */
size_t kvfs_batch_bytes(const struct kvfs_batch_builder *b); /* keys and values so far */

/* Hand out the batch; it is valid until the builder is added to, reset or freed.
 * -ENOMEM if any add call lacked memory, -EINVAL if a key was longer than the
 * 65535 bytes that an operation can tell. */
int kvfs_batch_end(struct kvfs_batch_builder *b, struct kvfs_batch *batch);

#ifdef __cplusplus
}
#endif

#endif /* KVFS_BATCH_H */
