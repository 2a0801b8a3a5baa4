/* SPDX-License-Identifier: BSD-3-Clause
 *
 * view.h - what logged batches say about keys, in memory and sorted.
 *
 * A view is a value: copying it takes references, changing a copy leaves the others
 * as they are (mem/memtree.h), so a snapshot is a copy.  It knows of a key that it was
 * put, that it was deleted, alone or in a range, or nothing.
 *
 * Threads: reading, _ref and _drop from any; changes of one view by one thread.
 */
#ifndef KVFS_LOG_VIEW_H
#define KVFS_LOG_VIEW_H

#include <kvfs/engine.h>

#include "../mem/memtree.h"

struct log_view {
    struct kvfs_memtree *records[2]; /* by keyspace; key -> LOG_PUT, value | LOG_DEL */
    struct kvfs_memtree *ranges[2];  /* lo -> hi, none: to the end; apart from each other */
};

enum { LOG_DEL = 0, LOG_PUT = 1 };     /* a record's first byte */

enum log_found { LOG_UNKNOWN, LOG_ABSENT, LOG_PRESENT };

struct log_view kvfs_log_view_ref(const struct log_view *v);
void kvfs_log_view_drop(struct log_view *v); /* leaves it empty */
bool kvfs_log_view_empty(const struct log_view *v);
uint64_t kvfs_log_view_bytes(const struct log_view *v); /* memory */

/* Change *V by a PUT, DEL or DEL_RANGE.  After -ENOMEM it is only fit to be dropped. */
int kvfs_log_view_apply(struct log_view *v, const struct kvfs_op *op,
                        struct kvfs_memsource *source);

/* PRESENT sets *record, which lives as long as the view does. */
enum log_found kvfs_log_view_get(const struct log_view *v, enum kvfs_keyspace ks, const void *key,
                                 size_t key_len, const struct kvfs_memrecord **record);

/* The deleted range that holds KEY, or NULL. */
const struct kvfs_memrecord *kvfs_log_view_range(const struct log_view *v, enum kvfs_keyspace ks,
                                                 const void *key, size_t key_len);

#endif /* KVFS_LOG_VIEW_H */
