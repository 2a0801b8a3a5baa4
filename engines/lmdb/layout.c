/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layout.c - how a record is laid into LMDB's pages.
 *
 * LMDB keeps a node of up to half a page inside a leaf page.  A longer value
 * goes into a run of overflow pages of its own, the first of which spends 16
 * bytes on a header: N pages hold N * psize - 16 bytes, and a value one byte
 * longer takes a page more.  A block of 4096 bytes would so take two pages, half
 * of the space lost.
 *
 * So the bytes beyond the last full page, the tail, are stored behind the
 * 16-byte key, inside the LMDB key.  The key's node in the leaf page is rewritten
 * by every update anyway.  A record is found by seeking the first key that is
 * not below the 16 bytes, which is unique among the stored keys.
 *
 * LMDB 0.9 has no checksums either, and a flipped bit in a key makes a record
 * vanish: what is missing reads as zeros.  So each key has a check of 16 bits,
 * behind the 16 bytes of a DATA key, in front of a META value.  Walks (walk.c)
 * believe that a key is absent only if its neighbours are what was stored.
 *
 *      LMDB key                        LMDB value
 *   DATA  key (16), check, tail        value without its tail
 *   META  key                          check, value
 *
 *  1. The value is (LMDB value) + (LMDB key from byte 18 on), so a record tells
 *     its own split: readers never compute it, and a store may mix splits.
 *  2. The end of a value is next to the key: reading only a value's last bytes
 *     (kvfs's trailer) does not touch an overflow page.
 *  3. Values that fit into a leaf page stay whole, and so do those whose tail
 *     would make the key longer than LMDB takes.
 */
#include "layout.h"

#define XXH_INLINE_ALL /* the engine links nothing for 16 bits */
#include <string.h>
#include <xxhash.h>

#include "page.h"

void
kvfs_lmdb_layout_init(struct kvfs_lmdb_layout *l, size_t psize, size_t key_max)
{
    l->psize = psize;
    l->node_max = (((psize - PAGE_HEADER_LEN) / 2) & ~(size_t)1) - sizeof(uint16_t);
    l->key_max = key_max;
}

void
kvfs_lmdb_layout_check(uint8_t check[KVFS_LMDB_CHECK_LEN], const void *key, size_t len)
{
    uint64_t hash = XXH3_64bits(key, len);

    check[0] = (uint8_t)(hash >> 8);
    check[1] = (uint8_t)hash;
}

bool
kvfs_lmdb_layout_split(enum kvfs_keyspace keyspace, const void *key, size_t key_len,
                       const void *data, size_t data_len, struct kvfs_lmdb_value *value)
{
    const uint8_t *check = data;
    uint8_t right[KVFS_LMDB_CHECK_LEN];

    value->head = data;
    value->head_len = data_len;
    value->tail = key;
    value->tail_len = 0;
    if (keyspace == KVFS_DATA) {
        if (key_len < KVFS_LMDB_DATA_HEAD)
            return false;
        check = (const uint8_t *)key + KVFS_DATA_KEY_LEN;
        value->tail = (const uint8_t *)key + KVFS_LMDB_DATA_HEAD;
        value->tail_len = key_len - KVFS_LMDB_DATA_HEAD;
        key_len = KVFS_DATA_KEY_LEN;
    } else {
        if (key_len == 0 || key_len > KVFS_META_KEY_MAX || data_len < KVFS_LMDB_CHECK_LEN)
            return false;
        value->head += KVFS_LMDB_CHECK_LEN;
        value->head_len -= KVFS_LMDB_CHECK_LEN;
    }
    kvfs_lmdb_layout_check(right, key, key_len);
    return memcmp(check, right, sizeof(right)) == 0;
}

size_t
kvfs_lmdb_layout_keep(const struct kvfs_lmdb_layout *l, size_t len)
{
    size_t pages, keep;

    if (PAGE_NODE_LEN + KVFS_LMDB_DATA_HEAD + len <= l->node_max)
        return len;
    pages = (len + PAGE_HEADER_LEN) / l->psize;
    if (pages == 0)
        return len;
    keep = pages * l->psize - PAGE_HEADER_LEN;
    return KVFS_LMDB_DATA_HEAD + (len - keep) <= l->key_max ? keep : len;
}

size_t
kvfs_lmdb_layout_overflow(const struct kvfs_lmdb_layout *l, size_t key_len, size_t len)
{
    return PAGE_NODE_LEN + key_len + len <= l->node_max ? 0 : page_overflow_pages(len, l->psize);
}

size_t
kvfs_lmdb_layout_leaf(const struct kvfs_lmdb_layout *l, size_t key_len, size_t len)
{
    size_t node = PAGE_NODE_LEN + key_len + len;

    if (node > l->node_max)
        node = PAGE_NODE_LEN + key_len + sizeof(uint64_t);
    return ((node + 1) & ~(size_t)1) + sizeof(uint16_t);
}
