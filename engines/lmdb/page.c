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

bool
kvfs_page_node(const void *page, size_t psize, size_t i, struct page_node *node)
{
    const uint8_t *base = page;
    struct page_header h;
    size_t at, room;
    uint16_t lo, hi, flags, ksize;

    memcpy(&h, base, sizeof(h));
    if (PAGE_HEADER_LEN + 2 * i + 2 > psize)
        return false;
    at = page_u16(base + PAGE_HEADER_LEN + 2 * i);
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
    if (h.flags & PAGE_BRANCH) {
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

static const char *
page_check_node(const void *page, size_t psize, size_t i, uint64_t end, unsigned type)
{
    struct page_node node;
    size_t at = page_u16((const uint8_t *)page + PAGE_HEADER_LEN + 2 * i);
    struct page_header h;

    memcpy(&h, page, sizeof(h));
    if (at < h.u.room.upper || (at & 1) != 0 || !kvfs_page_node(page, psize, i, &node))
        return "a node lies outside the page's node area";
    if (type == PAGE_BRANCH)
        return node.child < PAGE_METAS || node.child >= end ? "a child page is out of bounds"
                                                            : NULL;
    if ((node.flags & ~(unsigned)(NODE_BIGDATA | NODE_SUBDATA)) != 0)
        return "a node has unknown flags";
    if (node.key_len == 0)
        return "a node has an empty key";
    if ((node.flags & NODE_BIGDATA) != 0 &&
        (node.child < PAGE_METAS || node.child >= end ||
         page_overflow_pages(node.data_len, psize) > end - node.child))
        return "an overflow run is out of bounds";
    return NULL;
}

const char *
kvfs_page_check(const void *page, size_t psize, uint64_t pgno, uint64_t end)
{
    struct page_header h;
    size_t keys;

    memcpy(&h, page, sizeof(h));
    if (h.pgno != pgno)
        return "holds another page's number";
    if (h.flags != PAGE_BRANCH && h.flags != PAGE_LEAF)
        return "is neither a branch nor a leaf page";
    if (h.u.room.lower < PAGE_HEADER_LEN || (h.u.room.lower & 1) != 0 ||
        h.u.room.lower > h.u.room.upper || h.u.room.upper > psize)
        return "has impossible bounds";
    keys = page_keys(&h);
    if (keys < (h.flags == PAGE_BRANCH ? 2 : 1))
        return "has too few keys";
    for (size_t i = 0; i < keys; i++) {
        const char *what = page_check_node(page, psize, i, end, h.flags);

        if (what != NULL)
            return what;
    }
    return NULL;
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
