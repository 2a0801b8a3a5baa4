/* SPDX-License-Identifier: BSD-3-Clause
 *
 * view.c - logged batches as sorted trees (view.h).
 *
 *  1. A range delete takes the records in it out of the view; what is put later lies
 *     in the trees again.  So a record is always newer than the ranges of its view.
 *  2. Ranges neither overlap nor touch: a key is in at most one, the last that begins
 *     at or before it.
 */
#include "view.h"

#include <errno.h>

struct log_view
kvfs_log_view_ref(const struct log_view *v)
{
    struct log_view copy;

    for (int ks = 0; ks < 2; ks++) {
        copy.records[ks] = kvfs_memtree_ref(v->records[ks]);
        copy.ranges[ks] = kvfs_memtree_ref(v->ranges[ks]);
    }
    return copy;
}

void
kvfs_log_view_drop(struct log_view *v)
{
    for (int ks = 0; ks < 2; ks++) {
        kvfs_memtree_drop(v->records[ks]);
        kvfs_memtree_drop(v->ranges[ks]);
    }
    *v = (struct log_view){.records = {NULL}};
}

bool
kvfs_log_view_empty(const struct log_view *v)
{
    return v->records[0] == NULL && v->records[1] == NULL && v->ranges[0] == NULL &&
           v->ranges[1] == NULL;
}

uint64_t
kvfs_log_view_bytes(const struct log_view *v)
{
    return kvfs_memtree_bytes(v->records[0]) + kvfs_memtree_bytes(v->records[1]) +
           kvfs_memtree_bytes(v->ranges[0]) + kvfs_memtree_bytes(v->ranges[1]);
}

/* --- ranges --------------------------------------------------------------------------- */

struct view_bound { /* len 0: behind all keys */
    const void *key;
    size_t len;
};

static bool
view_before(const void *key, size_t len, const struct view_bound *end)
{
    return end->len == 0 || kvfs_memkey_compare(key, len, end->key, end->len) < 0;
}

static struct view_bound
view_range_end(const struct kvfs_memrecord *range)
{
    return (struct view_bound){kvfs_memrecord_value(range), range->value_len};
}

static struct view_bound
view_later(struct view_bound a, struct view_bound b)
{
    if (a.len == 0 || b.len == 0)
        return a.len == 0 ? a : b;
    return kvfs_memkey_compare(a.key, a.len, b.key, b.len) >= 0 ? a : b;
}

/* Join [lo, hi) and what it overlaps or touches into one range. */
static int
view_range_add(struct kvfs_memtree **ranges, struct view_bound lo, struct view_bound hi,
               struct kvfs_memsource *source)
{
    struct kvfs_memtree *old = kvfs_memtree_ref(*ranges); /* what the bounds point into */
    const struct kvfs_memrecord *r = kvfs_memtree_floor(old, lo.key, lo.len);
    struct kvfs_memwalk walk;
    struct iovec value;
    int rc;

    if (r != NULL) {
        struct view_bound end = view_range_end(r);

        if (end.len == 0 || kvfs_memkey_compare(end.key, end.len, lo.key, lo.len) >= 0) {
            lo = (struct view_bound){r->bytes, r->key_len};
            hi = view_later(hi, end);
        }
    }
    rc = kvfs_memwalk_start(&walk, old, lo.key, lo.len, false);
    while (rc == 0 && (rc = kvfs_memwalk_next(&walk, &r)) == 0 && r != NULL &&
           (view_before(r->bytes, r->key_len, &hi) ||
            kvfs_memkey_compare(r->bytes, r->key_len, hi.key, hi.len) == 0)) { /* touches */
        hi = view_later(hi, view_range_end(r));
        rc = kvfs_memtree_del(ranges, r->bytes, r->key_len);
    }
    kvfs_memwalk_end(&walk);
    value = (struct iovec){.iov_base = (void *)(uintptr_t)hi.key, .iov_len = hi.len};
    if (rc == 0)
        rc = kvfs_memtree_put(ranges, source, lo.key, lo.len, &value, 1);
    kvfs_memtree_drop(old);
    return rc;
}

const struct kvfs_memrecord *
kvfs_log_view_range(const struct log_view *v, enum kvfs_keyspace ks, const void *key,
                    size_t key_len)
{
    const struct kvfs_memrecord *r = kvfs_memtree_floor(v->ranges[ks], key, key_len);
    struct view_bound end;

    if (r == NULL)
        return NULL;
    end = view_range_end(r);
    return view_before(key, key_len, &end) ? r : NULL;
}

/* --- records --------------------------------------------------------------------------- */

int
kvfs_log_view_apply(struct log_view *v, const struct kvfs_op *op, struct kvfs_memsource *source)
{
    static uint8_t tags[] = {[LOG_DEL] = LOG_DEL, [LOG_PUT] = LOG_PUT};
    struct iovec value[3] = {{.iov_base = &tags[op->type == KVFS_OP_PUT ? LOG_PUT : LOG_DEL],
                              .iov_len = 1},
                             op->value[0], op->value[1]};
    struct view_bound lo = {op->key, op->key_len}, hi = {op->key_end, op->key_end_len};
    int rc;

    if (op->type != KVFS_OP_DEL_RANGE)
        return kvfs_memtree_put(&v->records[op->keyspace], source, op->key, op->key_len,
                                value, op->type == KVFS_OP_PUT ? 3 : 1);
    if (lo.len == 0)
        lo = (struct view_bound){"", 1}; /* before any key: keys are not empty */
    if (!view_before(lo.key, lo.len, &hi))
        return 0;
    rc = kvfs_memtree_del_range(&v->records[op->keyspace], lo.key, lo.len, hi.key, hi.len);
    return rc != 0 ? rc : view_range_add(&v->ranges[op->keyspace], lo, hi, source);
}

enum log_found
kvfs_log_view_get(const struct log_view *v, enum kvfs_keyspace ks, const void *key, size_t key_len,
                  const struct kvfs_memrecord **record)
{
    const struct kvfs_memrecord *r = kvfs_memtree_get(v->records[ks], key, key_len);

    if (r != NULL && kvfs_memrecord_value(r)[0] == LOG_DEL)
        return LOG_ABSENT;
    if (r != NULL) {
        *record = r;
        return LOG_PRESENT;
    }
    return kvfs_log_view_range(v, ks, key, key_len) != NULL ? LOG_ABSENT : LOG_UNKNOWN;
}
