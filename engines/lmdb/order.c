/* SPDX-License-Identifier: BSD-3-Clause
 *
 * order.c - the sequence in which a stretch of puts and deletes is applied.
 *
 * Neighbouring keys lie in the same leaf page, so applying them one after the
 * other finds the page warm and, in LMDB's terms, already dirty.  Within a
 * stretch without range deletes only the last operation on a key has an effect,
 * so the stretch may be sorted as long as that one is kept.  Batches that come
 * sorted, as kvfs's do, are recognized in one pass and cost nothing more.
 */
#include <stdlib.h>

#include "lmdb_priv.h"

static bool
order_takes(const struct kvfs_op *op)
{
    return op->type == KVFS_OP_PUT || op->type == KVFS_OP_DEL;
}

static int
order_cmp_key(const struct kvfs_op *a, const struct kvfs_op *b)
{
    if (a->keyspace != b->keyspace)
        return a->keyspace < b->keyspace ? -1 : 1;
    return kvfs_page_key_cmp(a->key, a->key_len, b->key, b->key_len);
}

static int
order_cmp(const void *a, const void *b, void *arg)
{
    const struct kvfs_op *ops = arg;
    uint32_t i = *(const uint32_t *)a;
    uint32_t j = *(const uint32_t *)b;
    int cmp = order_cmp_key(&ops[i], &ops[j]);

    return cmp != 0 ? cmp : i < j ? -1 : i > j;
}

static bool
order_is_sorted(const struct kvfs_op *ops, size_t first, size_t end)
{
    const struct kvfs_op *last = NULL;

    for (size_t i = first; i < end; i++) {
        if (!order_takes(&ops[i]))
            continue;
        if (last != NULL && order_cmp_key(last, &ops[i]) >= 0)
            return false;
        last = &ops[i];
    }
    return true;
}

bool
kvfs_lmdb_order(const struct kvfs_op *ops, size_t first, size_t end, uint32_t **order,
                size_t *count)
{
    uint32_t *list;
    size_t n = 0, kept = 0;
    void *arg;

    *order = NULL;
    *count = end - first;
    if (order_is_sorted(ops, first, end))
        return true;
    list = malloc((end - first) * sizeof(*list));
    if (list == NULL)
        return false;
    for (size_t i = first; i < end; i++)
        if (order_takes(&ops[i]))
            list[n++] = (uint32_t)i;
    memcpy(&arg, &ops, sizeof(arg));
    qsort_r(list, n, sizeof(*list), order_cmp, arg);
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && order_cmp_key(&ops[list[i]], &ops[list[i + 1]]) == 0)
            continue; /* a later one on the same key follows */
        list[kept++] = list[i];
    }
    *order = list;
    *count = kept;
    return true;
}
