/* SPDX-License-Identifier: BSD-3-Clause
 *
 * page.c - judging single pages of a data file (page.h).
 *
 * Invariant: nothing here reads outside [page, page + psize), whatever the
 * bytes are.
 */
#include "page.h"

#include <string.h>

static uint16_t
page_u16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

int
kvfs_page_key_cmp(const void *a, size_t a_len, const void *b, size_t b_len)
{
    size_t len = a_len < b_len ? a_len : b_len;
    int cmp = len > 0 ? memcmp(a, b, len) : 0;

    if (cmp != 0)
        return cmp;
    return a_len < b_len ? -1 : a_len > b_len;
}

/* The node at byte AT of a page of TYPE. */
static inline bool
page_node_at(const uint8_t *base, size_t psize, unsigned type, size_t at, struct page_node *node)
{
    size_t room;
    uint16_t lo, hi, flags, ksize;

    if (at < PAGE_HEADER_LEN || at + PAGE_NODE_LEN > psize)
        return false;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    lo = page_u16(base + at);
    hi = page_u16(base + at + 2);
#else
    hi = page_u16(base + at);
    lo = page_u16(base + at + 2);
#endif
    flags = page_u16(base + at + 4);
    ksize = page_u16(base + at + 6);
    room = psize - at - PAGE_NODE_LEN;
    if (ksize > room)
        return false;
    node->key = base + at + PAGE_NODE_LEN;
    node->key_len = ksize;
    node->data = NULL;
    node->data_len = 0;
    node->flags = 0;
    node->child = 0;
    if ((type & PAGE_BRANCH) != 0) {
        node->child = (uint64_t)lo | (uint64_t)hi << 16 | (uint64_t)flags << 32;
        return true;
    }
    node->flags = flags;
    node->data_len = (size_t)lo | (size_t)hi << 16;
    if (flags & NODE_BIGDATA) {
        if (room - ksize < sizeof(node->child))
            return false;
        memcpy(&node->child, node->key + ksize, sizeof(node->child));
        return true;
    }
    if (node->data_len > room - ksize)
        return false;
    node->data = node->key + ksize;
    return true;
}

bool
kvfs_page_node(const void *page, size_t psize, size_t i, struct page_node *node)
{
    const uint8_t *base = page;
    struct page_header h;

    memcpy(&h, base, sizeof(h));
    return PAGE_HEADER_LEN + 2 * i + 2 <= psize &&
           page_node_at(base, psize, h.flags, page_u16(base + PAGE_HEADER_LEN + 2 * i), node);
}

static const char *
page_check_node(const struct page_node *node, size_t psize, uint64_t end, unsigned type)
{
    if (type == PAGE_BRANCH)
        return node->child < PAGE_METAS || node->child >= end ? "has a child page out of bounds"
                                                              : NULL;
    if ((node->flags & ~(unsigned)(NODE_BIGDATA | NODE_SUBDATA)) != 0)
        return "has a node with unknown flags";
    if (node->key_len == 0)
        return "has a node with an empty key";
    if ((node->flags & NODE_BIGDATA) != 0 &&
        (node->child < PAGE_METAS || node->child >= end ||
         page_overflow_pages(node->data_len, psize) > end - node->child))
        return "has an overflow run out of bounds";
    return NULL;
}

/* Bytes that LMDB gives to the node. */
static size_t
page_node_bytes(const struct page_node *node, unsigned type)
{
    size_t len = PAGE_NODE_LEN + node->key_len;

    if (type == PAGE_LEAF)
        len += (node->flags & NODE_BIGDATA) != 0 ? sizeof(node->child) : node->data_len;
    return (len + 1) & ~(size_t)1;
}

static int
page_order_cmp(enum page_order order, const struct page_node *node, const uint8_t *key, size_t len)
{
    uint64_t x, y;

    if (order != PAGE_ORDER_NUMBER || node->key_len != sizeof(x) || len != sizeof(y))
        return kvfs_page_key_cmp(node->key, node->key_len, key, len);
    memcpy(&x, node->key, sizeof(x));
    memcpy(&y, key, sizeof(y));
    return x < y ? -1 : x > y;
}

/* A leaf holds one record of a DATA key.  Separators outlive theirs: a record that
 * was deleted and put again with a smaller tail lies before its old separator, and
 * may come to have one of its own there. */
static bool
page_order_follows(unsigned type, enum page_order order, const struct page_node *before,
                   const struct page_node *node)
{
    if (type == PAGE_LEAF && order == PAGE_ORDER_DATA && before->key_len >= PAGE_DATA_KEY &&
        node->key_len >= PAGE_DATA_KEY)
        return memcmp(before->key, node->key, PAGE_DATA_KEY) < 0;
    return page_order_cmp(order, before, node->key, node->key_len) < 0;
}

static const char *
page_check_nodes(const void *page, size_t psize, uint64_t end, enum page_order order,
                 const struct page_bounds *bounds)
{
    struct page_node node, before = {.key_len = 0};
    struct page_header h;
    size_t keys, first, bytes = 0;

    memcpy(&h, page, sizeof(h));
    keys = page_keys(&h);
    first = h.flags == PAGE_BRANCH ? 1 : 0; /* of those whose key counts */
    for (size_t i = 0; i < keys; i++, before = node) {
        size_t at = page_u16((const uint8_t *)page + PAGE_HEADER_LEN + 2 * i);
        const char *what;

        if (at < h.u.room.upper || (at & 1) != 0 ||
            !page_node_at(page, psize, h.flags, at, &node))
            return "has a node outside its node area";
        what = page_check_node(&node, psize, end, h.flags);
        if (what != NULL)
            return what;
        if (i > first && !page_order_follows(h.flags, order, &before, &node))
            return "has keys out of order";
        if (bounds != NULL && i == first && bounds->lo != NULL &&
            page_order_cmp(order, &node, bounds->lo, bounds->lo_len) < 0)
            return "has a key below those that the branch above says";
        bytes += page_node_bytes(&node, h.flags);
    }
    if (bounds != NULL && bounds->hi != NULL &&
        page_order_cmp(order, &before, bounds->hi, bounds->hi_len) >= 0)
        return "has a key beyond those that the branch above says";
    return bytes != psize - h.u.room.upper ? "has a gap between its nodes" : NULL;
}

const char *
kvfs_page_check(const void *page, size_t psize, uint64_t pgno, uint64_t end,
                enum page_order order, const struct page_bounds *bounds)
{
    struct page_header h;

    memcpy(&h, page, sizeof(h));
    if (h.pgno != pgno)
        return "holds another page's number";
    if (h.flags != PAGE_BRANCH && h.flags != PAGE_LEAF)
        return "is neither a branch nor a leaf page";
    if (h.u.room.lower < PAGE_HEADER_LEN || (h.u.room.lower & 1) != 0 ||
        h.u.room.lower > h.u.room.upper || h.u.room.upper > psize)
        return "has impossible bounds";
    if (page_keys(&h) < (h.flags == PAGE_BRANCH ? 2 : 1))
        return "has too few keys";
    return page_check_nodes(page, psize, end, order, bounds);
}

size_t
kvfs_page_search(const void *page, size_t psize, const void *key, size_t len, size_t first,
                 bool behind)
{
    struct page_header h;
    struct page_node node;
    size_t lo = first, hi;

    memcpy(&h, page, sizeof(h));
    hi = page_keys(&h);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int cmp = kvfs_page_node(page, psize, mid, &node)
                      ? kvfs_page_key_cmp(node.key, node.key_len, key, len)
                      : 1;

        if (cmp < 0 || (cmp == 0 && behind))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void
kvfs_page_bounds_child(struct page_bounds *bounds, const void *page, size_t psize, size_t i)
{
    struct page_header h;
    struct page_node node;

    memcpy(&h, page, sizeof(h));
    if (i > 0 && kvfs_page_node(page, psize, i, &node)) {
        bounds->lo = node.key;
        bounds->lo_len = node.key_len;
    }
    if (i + 1 < page_keys(&h) && kvfs_page_node(page, psize, i + 1, &node)) {
        bounds->hi = node.key;
        bounds->hi_len = node.key_len;
    }
}

const char *
kvfs_page_check_overflow(const void *page, size_t psize, uint64_t pgno, size_t len, bool exact)
{
    size_t need = page_overflow_pages(len, psize);
    struct page_header h;

    memcpy(&h, page, sizeof(h));
    if (h.pgno != pgno)
        return "holds another page's number";
    if (h.flags != PAGE_OVERFLOW)
        return "is not an overflow page";
    if (h.u.overflow_pages < need || (exact && h.u.overflow_pages != need))
        return "has an overflow run of another length than its value";
    return NULL;
}
