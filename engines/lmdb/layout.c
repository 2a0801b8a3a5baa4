/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layout.c - how a DATA record is laid into LMDB's pages.
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
 *  1. The value is (LMDB value) + (LMDB key from byte 16 on), so a record tells
 *     its own split: readers never compute it, and a store may mix splits.
 *  2. The end of a value is next to the key: reading only a value's last bytes
 *     (kvfs's trailer) does not touch an overflow page.
 *  3. Values that fit into a leaf page stay whole, and so do those whose tail
 *     would make the key longer than LMDB takes.
 */
#include "layout.h"

#include <kvfs/engine.h>

#include "page.h"

void
kvfs_lmdb_layout_init(struct kvfs_lmdb_layout *l, size_t psize, size_t key_max)
{
    l->psize = psize;
    l->node_max = (((psize - PAGE_HEADER_LEN) / 2) & ~(size_t)1) - sizeof(uint16_t);
    l->key_max = key_max;
}

size_t
kvfs_lmdb_layout_keep(const struct kvfs_lmdb_layout *l, size_t len)
{
    size_t pages, keep;

    if (PAGE_NODE_LEN + KVFS_DATA_KEY_LEN + len <= l->node_max)
        return len;
    pages = (len + PAGE_HEADER_LEN) / l->psize;
    if (pages == 0)
        return len;
    keep = pages * l->psize - PAGE_HEADER_LEN;
    return KVFS_DATA_KEY_LEN + (len - keep) <= l->key_max ? keep : len;
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
