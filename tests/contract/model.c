/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

static void *
model_alloc(void *old, size_t size)
{
    void *p = realloc(old, size);

    if (p == NULL)
        abort();
    return p;
}

struct model *
model_new(void)
{
    struct model *m = model_alloc(NULL, sizeof(*m));

    *m = (struct model){.count = {0, 0}};
    return m;
}

struct model *
model_clone(const struct model *m)
{
    struct model *copy = model_new();

    for (int ks = 0; ks < 2; ks++) {
        size_t n = m->count[ks];

        copy->entries[ks] = model_alloc(NULL, (n + 1) * sizeof(*copy->entries[ks]));
        if (n > 0)
            memcpy(copy->entries[ks], m->entries[ks], n * sizeof(*copy->entries[ks]));
        copy->count[ks] = n;
        copy->cap[ks] = n + 1;
        for (size_t i = 0; i < n; i++)
            copy->entries[ks][i].value->refs++;
    }
    return copy;
}

static void
model_value_drop(struct model_value *v)
{
    if (--v->refs == 0)
        free(v);
}

void
model_free(struct model *m)
{
    if (m == NULL)
        return;
    for (int ks = 0; ks < 2; ks++) {
        for (size_t i = 0; i < m->count[ks]; i++)
            model_value_drop(m->entries[ks][i].value);
        free(m->entries[ks]);
    }
    free(m);
}

int
model_compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    const uint8_t *x = a, *y = b;

    for (size_t i = 0;; i++) {
        if (i == a_len || i == b_len)
            return (i < a_len) - (i < b_len);
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    }
}

size_t
model_lower(const struct model *m, int ks, const void *key, size_t key_len)
{
    size_t i = 0;

    while (i < m->count[ks] &&
           model_compare(m->entries[ks][i].key, m->entries[ks][i].key_len, key, key_len) < 0)
        i++;
    return i;
}

const struct model_entry *
model_find(const struct model *m, int ks, const void *key, size_t key_len)
{
    size_t i = model_lower(m, ks, key, key_len);

    if (i == m->count[ks] || m->entries[ks][i].key_len != key_len ||
        memcmp(m->entries[ks][i].key, key, key_len) != 0)
        return NULL;
    return &m->entries[ks][i];
}

/* Remove entries [from, to). */
static void
model_cut(struct model *m, int ks, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        model_value_drop(m->entries[ks][i].value);
    if (m->count[ks] > to)
        memmove(&m->entries[ks][from], &m->entries[ks][to],
                (m->count[ks] - to) * sizeof(m->entries[ks][0]));
    m->count[ks] -= to - from;
}

static struct model_value *
model_value_new(const struct iovec value[2])
{
    size_t len = value[0].iov_len + value[1].iov_len;
    struct model_value *v = model_alloc(NULL, sizeof(*v) + len);

    v->refs = 1;
    v->len = len;
    if (value[0].iov_len > 0)
        memcpy(v->bytes, value[0].iov_base, value[0].iov_len);
    if (value[1].iov_len > 0)
        memcpy(v->bytes + value[0].iov_len, value[1].iov_base, value[1].iov_len);
    return v;
}

static void
model_put(struct model *m, const struct kvfs_op *op)
{
    int ks = op->keyspace;
    size_t at = model_lower(m, ks, op->key, op->key_len);
    struct model_entry *e;

    if (model_find(m, ks, op->key, op->key_len) != NULL)
        model_cut(m, ks, at, at + 1);
    if (m->count[ks] == m->cap[ks]) {
        m->cap[ks] = m->cap[ks] * 2 + 16;
        m->entries[ks] = model_alloc(m->entries[ks], m->cap[ks] * sizeof(*e));
    }
    e = &m->entries[ks][at];
    memmove(e + 1, e, (m->count[ks] - at) * sizeof(*e));
    e->key_len = op->key_len;
    memcpy(e->key, op->key, op->key_len);
    e->value = model_value_new(op->value);
    m->count[ks]++;
}

static void
model_del_range(struct model *m, const struct kvfs_op *op)
{
    int ks = op->keyspace;
    size_t from = model_lower(m, ks, op->key, op->key_len);
    size_t to =
        op->key_end_len == 0 ? m->count[ks] : model_lower(m, ks, op->key_end, op->key_end_len);

    if (from < to)
        model_cut(m, ks, from, to);
}

static bool
model_expects(const struct model *m, const struct kvfs_op *op)
{
    const struct model_entry *e = model_find(m, op->keyspace, op->key, op->key_len);
    struct model_value *want;
    bool same;

    if (op->type == KVFS_OP_EXPECT_ABSENT)
        return e == NULL;
    if (e == NULL)
        return false;
    want = model_value_new(op->value);
    same = want->len == e->value->len && memcmp(want->bytes, e->value->bytes, want->len) == 0;
    model_value_drop(want);
    return same;
}

int
model_apply(struct model *m, const struct kvfs_batch *batch)
{
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if ((op->type == KVFS_OP_EXPECT || op->type == KVFS_OP_EXPECT_ABSENT) &&
            !model_expects(m, op))
            return -EAGAIN;
    }
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (op->type == KVFS_OP_PUT) {
            model_put(m, op);
        } else if (op->type == KVFS_OP_DEL_RANGE) {
            model_del_range(m, op);
        } else if (op->type == KVFS_OP_DEL) {
            size_t at = model_lower(m, op->keyspace, op->key, op->key_len);

            if (model_find(m, op->keyspace, op->key, op->key_len) != NULL)
                model_cut(m, op->keyspace, at, at + 1);
        }
    }
    return 0;
}
