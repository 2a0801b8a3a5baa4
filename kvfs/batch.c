/* SPDX-License-Identifier: BSD-3-Clause
 *
 * batch.c - building a struct kvfs_batch.
 *
 * Operations lie in one array that grows; the keys and values copied lie in a
 * list of chunks.
 *
 * Invariants:
 * 1. A chunk never moves and never shrinks, so operations may point into it.
 * 2. Chunks before `current` are full enough to be left alone; those behind it
 *    are empty (kept from an earlier use).
 * 3. Once `failed` is set nothing more is added; only reset clears it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <kvfs/batch.h>

#define BATCH_CHUNK_BYTES ((size_t)64 << 10)
#define BATCH_OPS_FIRST   64

struct batch_chunk {
    struct batch_chunk *next;
    size_t cap, used;
    char bytes[];
};

struct kvfs_batch_builder {
    struct kvfs_op *ops;
    size_t ops_count, ops_cap;
    size_t bytes; /* of keys and values, borrowed ones too */
    struct batch_chunk *first, *current;
    int failed; /* 0, or the negative errno that end() answers */
};

struct kvfs_batch_builder *
kvfs_batch_new(void)
{
    return calloc(1, sizeof(struct kvfs_batch_builder));
}

void
kvfs_batch_free(struct kvfs_batch_builder *b)
{
    struct batch_chunk *next;

    if (b == NULL)
        return;
    for (struct batch_chunk *c = b->first; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    free(b->ops);
    free(b);
}

void
kvfs_batch_reset(struct kvfs_batch_builder *b)
{
    for (struct batch_chunk *c = b->first; c != NULL; c = c->next)
        c->used = 0;
    b->current = b->first;
    b->ops_count = 0;
    b->bytes = 0;
    b->failed = 0;
}

/* LEN bytes that stay where they are until reset; NULL without memory. */
static void *
batch_alloc(struct kvfs_batch_builder *b, size_t len)
{
    struct batch_chunk *c = b->current;
    void *bytes;

    while (c != NULL && c->cap - c->used < len && c->next != NULL)
        c = c->next;
    if (c == NULL || c->cap - c->used < len) {
        size_t cap = len > BATCH_CHUNK_BYTES ? len : BATCH_CHUNK_BYTES;
        struct batch_chunk *fresh = malloc(sizeof(*fresh) + cap);

        if (fresh == NULL)
            return NULL;
        *fresh = (struct batch_chunk){.cap = cap};
        if (c == NULL)
            b->first = fresh;
        else
            c->next = fresh;
        c = fresh;
    }
    b->current = c;
    bytes = c->bytes + c->used;
    c->used += len;
    return bytes;
}

/* A copy of BYTES; NULL and `failed` without memory. */
static const void *
batch_copy(struct kvfs_batch_builder *b, const void *bytes, size_t len)
{
    void *copy = batch_alloc(b, len);

    if (copy == NULL) {
        b->failed = -ENOMEM;
        return NULL;
    }
    if (len > 0)
        memcpy(copy, bytes, len);
    return copy;
}

/* A fresh operation with its key copied; NULL when there is none to fill. */
static struct kvfs_op *
batch_add(struct kvfs_batch_builder *b, enum kvfs_op_type type, enum kvfs_keyspace ks,
          const void *key, size_t key_len)
{
    struct kvfs_op *op;
    const void *copy;

    if (b->failed != 0)
        return NULL;
    if (key_len > UINT16_MAX) {
        b->failed = -EINVAL;
        return NULL;
    }
    if (b->ops_count == b->ops_cap) {
        size_t cap = b->ops_cap == 0 ? BATCH_OPS_FIRST : b->ops_cap * 2;
        struct kvfs_op *ops = realloc(b->ops, cap * sizeof(*ops));

        if (ops == NULL) {
            b->failed = -ENOMEM;
            return NULL;
        }
        b->ops = ops;
        b->ops_cap = cap;
    }
    copy = batch_copy(b, key, key_len);
    if (copy == NULL)
        return NULL;
    op = &b->ops[b->ops_count++];
    *op = (struct kvfs_op){
        .type = (uint8_t)type, .keyspace = (uint8_t)ks, .key_len = (uint16_t)key_len, .key = copy};
    b->bytes += key_len;
    return op;
}

/* Let piece N of OP's value be a copy. */
static void
batch_value(struct kvfs_batch_builder *b, struct kvfs_op *op, int n, const void *bytes, size_t len)
{
    const void *copy = batch_copy(b, bytes, len);

    if (copy == NULL)
        return;
    /* An iovec serves reading too, so it has no const. */
    op->value[n] = (struct iovec){.iov_base = (void *)(uintptr_t)copy, .iov_len = len};
    b->bytes += len;
}

void
kvfs_batch_put(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key, size_t key_len,
               const void *value, size_t value_len)
{
    struct kvfs_op *op = batch_add(b, KVFS_OP_PUT, ks, key, key_len);

    if (op != NULL)
        batch_value(b, op, 0, value, value_len);
}

void
kvfs_batch_put_borrowed(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key,
                        size_t key_len, const void *head, size_t head_len, const void *tail,
                        size_t tail_len)
{
    struct kvfs_op *op = batch_add(b, KVFS_OP_PUT, ks, key, key_len);

    if (op == NULL)
        return;
    op->value[0] = (struct iovec){.iov_base = (void *)(uintptr_t)head, .iov_len = head_len};
    b->bytes += head_len;
    batch_value(b, op, 1, tail, tail_len);
}

void
kvfs_batch_del(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key, size_t key_len)
{
    (void)batch_add(b, KVFS_OP_DEL, ks, key, key_len);
}

void
kvfs_batch_del_range(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *lo,
                     size_t lo_len, const void *hi, size_t hi_len)
{
    struct kvfs_op *op = batch_add(b, KVFS_OP_DEL_RANGE, ks, lo, lo_len);

    if (op == NULL)
        return;
    if (hi_len > UINT16_MAX) {
        b->failed = -EINVAL;
        return;
    }
    op->key_end = batch_copy(b, hi, hi_len);
    op->key_end_len = (uint16_t)hi_len;
    b->bytes += hi_len;
}

void
kvfs_batch_expect(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key,
                  size_t key_len, const void *value, size_t value_len)
{
    struct kvfs_op *op = batch_add(b, KVFS_OP_EXPECT, ks, key, key_len);

    if (op != NULL)
        batch_value(b, op, 0, value, value_len);
}

void
kvfs_batch_expect_absent(struct kvfs_batch_builder *b, enum kvfs_keyspace ks, const void *key,
                         size_t key_len)
{
    (void)batch_add(b, KVFS_OP_EXPECT_ABSENT, ks, key, key_len);
}

size_t
kvfs_batch_ops(const struct kvfs_batch_builder *b)
{
    return b->ops_count;
}

size_t
kvfs_batch_bytes(const struct kvfs_batch_builder *b)
{
    return b->bytes;
}

int
kvfs_batch_end(struct kvfs_batch_builder *b, struct kvfs_batch *batch)
{
    if (b->failed != 0)
        return b->failed;
    *batch = (struct kvfs_batch){.ops = b->ops, .ops_count = b->ops_count};
    return 0;
}
