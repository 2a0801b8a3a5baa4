/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layout.h - how a record is laid into LMDB's pages.
 */
#ifndef KVFS_LMDB_LAYOUT_H
#define KVFS_LMDB_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvfs/engine.h>

#define KVFS_LMDB_CHECK_LEN 2u
#define KVFS_LMDB_DATA_HEAD (KVFS_DATA_KEY_LEN + KVFS_LMDB_CHECK_LEN) /* of a stored DATA key */

struct kvfs_lmdb_layout {
    size_t psize;    /* page size of the store */
    size_t node_max; /* longest node that stays inside a leaf page */
    size_t key_max;  /* longest key LMDB takes */
};

void kvfs_lmdb_layout_init(struct kvfs_lmdb_layout *l, size_t psize, size_t key_max);

/* The check of a record's key, stored with it. */
void kvfs_lmdb_layout_check(uint8_t check[KVFS_LMDB_CHECK_LEN], const void *key, size_t len);

/* The bytes of a record, where LMDB has them. */
struct kvfs_lmdb_value {
    const uint8_t *head, *tail;
    size_t head_len, tail_len;
};
/* Take a stored record apart.  False: its key is not the one that was stored. */
bool kvfs_lmdb_layout_split(enum kvfs_keyspace keyspace, const void *key, size_t key_len,
                            const void *data, size_t data_len, struct kvfs_lmdb_value *value);

/* How many of a DATA value's LEN bytes become the LMDB value; the rest, its
 * tail, goes behind the key. */
size_t kvfs_lmdb_layout_keep(const struct kvfs_lmdb_layout *l, size_t len);

/* Overflow pages and bytes of leaf page that a stored key and value take. */
size_t kvfs_lmdb_layout_overflow(const struct kvfs_lmdb_layout *l, size_t key_len, size_t len);
size_t kvfs_lmdb_layout_leaf(const struct kvfs_lmdb_layout *l, size_t key_len, size_t len);

#endif /* KVFS_LMDB_LAYOUT_H */
