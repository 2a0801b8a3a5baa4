/* SPDX-License-Identifier: BSD-3-Clause
 *
 * page.h - the pages of an LMDB 0.9 data file (data version 1), as needed to
 * judge them before LMDB trusts them.
 *
 * LMDB keeps these structures in host byte order with `size_t` page numbers,
 * so a file belongs to one word size and byte order; kvfs supports 64 bits.
 *
 * A page begins with a header of 16 bytes.  Branch and leaf pages then hold an
 * array of node offsets, sorted by key, that grows up to `lower`; the nodes lie
 * from `upper` to the end of the page.  A value too long for a node lies in a
 * run of overflow pages, of which only the first has a header.  Pages 0 and 1
 * are the meta pages; transaction N writes page N & 1.
 *
 * Source: mdb.c of LMDB 0.9.24 (MDB_page, MDB_node, MDB_meta, MDB_db).
 */
#ifndef KVFS_LMDB_PAGE_H
#define KVFS_LMDB_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(size_t) == 8, "the lmdb engine needs 64-bit page numbers");

enum {
    PAGE_BRANCH = 0x01,
    PAGE_LEAF = 0x02,
    PAGE_OVERFLOW = 0x04,
    PAGE_META = 0x08,
};

enum {
    NODE_BIGDATA = 0x01, /* the data is the number of an overflow page */
    NODE_SUBDATA = 0x02, /* the data is the record of a named database */
};

#define PAGE_HEADER_LEN  16u
#define PAGE_NODE_LEN    8u /* header of a node; key and data follow */
#define PAGE_SIZE_MIN    512u
#define PAGE_SIZE_MAX    65536u
#define PAGE_NONE        UINT64_MAX /* root of an empty tree */
#define PAGE_METAS       2u
#define PAGE_DEPTH_MAX   32u
#define PAGE_DB_FREE     0
#define PAGE_DB_MAIN     1
#define PAGE_DB_INTEGER  0x08u /* flag of the free list's tree */
#define PAGE_META_MAGIC  0xBEEFC0DEu
#define PAGE_META_FORMAT 1u

struct page_header {
    uint64_t pgno;
    uint16_t pad;
    uint16_t flags;
    union {
        struct {
            uint16_t lower, upper;
        } room;
        uint32_t overflow_pages;
    } u;
};
_Static_assert(sizeof(struct page_header) == PAGE_HEADER_LEN, "as LMDB's PAGEHDRSZ");

struct page_db { /* one tree */
    uint32_t pad; /* of the free list's: the page size */
    uint16_t flags;
    uint16_t depth;
    uint64_t branch_pages, leaf_pages, overflow_pages;
    uint64_t entries;
    uint64_t root;
};
_Static_assert(sizeof(struct page_db) == 48, "as LMDB's MDB_db");

struct page_meta {
    uint32_t magic, format;
    uint64_t address;
    uint64_t map_bytes;
    struct page_db dbs[2];
    uint64_t last_pgno;
    uint64_t txnid;
};
_Static_assert(sizeof(struct page_meta) == 136, "as LMDB's MDB_meta");

struct page_node { /* one node of a branch or leaf page, bounds checked */
    const uint8_t *key;
    size_t key_len;
    unsigned flags;       /* leaf */
    uint64_t child;       /* branch; leaf with NODE_BIGDATA: its overflow page */
    const uint8_t *data;  /* leaf, unless NODE_BIGDATA */
    size_t data_len;      /* leaf: of the whole value, wherever it lies */
};

enum page_order { /* of the keys of a tree */
    PAGE_ORDER_NUMBER, /* the free list's: 8 bytes in host order */
    PAGE_ORDER_BYTES,
    PAGE_ORDER_DATA, /* bytes; the first PAGE_DATA_KEY of two keys differ */
};
#define PAGE_DATA_KEY 16u

struct page_bounds { /* the separators around a page; NULL: none */
    const uint8_t *lo, *hi; /* keys of the page: lo <= key < hi */
    size_t lo_len, hi_len;
};

/* Number of nodes; only after page_check() or on a page known good. */
static inline size_t
page_keys(const struct page_header *h)
{
    return (size_t)(h->u.room.lower - PAGE_HEADER_LEN) / 2;
}

static inline size_t
page_overflow_pages(size_t len, size_t psize)
{
    return (PAGE_HEADER_LEN - 1 + len) / psize + 1;
}

/* Judge a branch or leaf page of PSIZE bytes that should be page PGNO: header,
 * offsets, nodes within the page that fill its node area without a gap, page
 * numbers below END, keys strictly in ORDER and within BOUNDS (NULL: not known).
 * The first key of a branch page stands for "everything below" and is not
 * looked at.  NULL: sound; otherwise one line that says what is wrong. */
const char *kvfs_page_check(const void *page, size_t psize, uint64_t pgno, uint64_t end,
                            enum page_order order, const struct page_bounds *bounds);

/* Judge the first page of an overflow run that should hold LEN bytes.  LMDB keeps
 * a longer run than needed if a value shrinks within one transaction; EXACT: that
 * cannot have been, as for DATA, whose records are always deleted first. */
const char *kvfs_page_check_overflow(const void *page, size_t psize, uint64_t pgno, size_t len,
                                     bool exact);

/* Take node I of a page apart; false if it leaves the page. */
bool kvfs_page_node(const void *page, size_t psize, size_t i, struct page_node *node);

/* In a sound page, the first node from FIRST on whose key is not below KEY; BEHIND:
 * beyond KEY.  The number of nodes if there is none. */
size_t kvfs_page_search(const void *page, size_t psize, const void *key, size_t len, size_t first,
                        bool behind);

/* Narrow BOUNDS, those of a sound branch page, to those of its child I. */
void kvfs_page_bounds_child(struct page_bounds *bounds, const void *page, size_t psize, size_t i);

/* Memcmp order, a prefix first: the order of the engine's trees. */
int kvfs_page_key_cmp(const void *a, size_t a_len, const void *b, size_t b_len);

#endif /* KVFS_LMDB_PAGE_H */
