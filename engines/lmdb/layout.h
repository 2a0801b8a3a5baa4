/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layout.h - how a DATA record is laid into LMDB's pages.
 */
#ifndef KVFS_LMDB_LAYOUT_H
#define KVFS_LMDB_LAYOUT_H

#include <stddef.h>

struct kvfs_lmdb_layout {
    size_t psize;    /* page size of the store */
    size_t node_max; /* longest node that stays inside a leaf page */
    size_t key_max;  /* longest key LMDB takes */
};

void kvfs_lmdb_layout_init(struct kvfs_lmdb_layout *l, size_t psize, size_t key_max);

/* How many of a DATA value's LEN bytes become the LMDB value; the rest, its
 * tail, goes behind the key. */
size_t kvfs_lmdb_layout_keep(const struct kvfs_lmdb_layout *l, size_t len);

/* Overflow pages and bytes of leaf page that a record takes. */
size_t kvfs_lmdb_layout_overflow(const struct kvfs_lmdb_layout *l, size_t key_len, size_t len);
size_t kvfs_lmdb_layout_leaf(const struct kvfs_lmdb_layout *l, size_t key_len, size_t len);

#endif /* KVFS_LMDB_LAYOUT_H */
