/* SPDX-License-Identifier: BSD-3-Clause
 *
 * path.c - judging the pages that a batch is about to change.
 *
 * A read over a damaged page reads nonsense, and the guard or kvfs's checksums
 * turn it into -EIO.  A write is worse: LMDB copies pages by the bounds that they
 * state, frees as many overflow pages as a run says it has and hands out whatever
 * page numbers the free list holds.  A flipped bit there would overwrite our heap
 * or give away pages in use.  So before the first change, inside the write
 * transaction, when the newest tree is all there is, the pages that LMDB will
 * follow are judged in the map:
 *
 *  1. for every put and delete the pages from the root to the leaf, and the
 *     overflow run of a record that is replaced;
 *  2. for deletes, and where a leaf is nearly empty, the neighbours on each level
 *     too, with which LMDB may merge;
 *  3. for a range all pages below it;
 *  4. of the free list the edges of its tree and as many records as the batch may
 *     use up; and the main tree.
 *
 * A page is judged once a batch (a small cache remembers), and operations that
 * follow each other in one leaf cost nothing more: a few hundred nanoseconds an
 * operation for random ones.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lmdb_priv.h"

#define PATH_CACHE_SIZE 1024u
#define PATH_FEW_KEYS   3u

struct kvfs_lmdb_path {
    const struct kvfs_db *db;
    struct kvfs_error *err;
    uint64_t end; /* first page beyond the newest tree */
    uint64_t checked[PATH_CACHE_SIZE];
    struct page_db tree[2]; /* by keyspace */
    /* The leaf that the newest operation fell into, and the keys it is for. */
    int leaf_ks;
    bool leaf_beside; /* its neighbours were judged */
    const uint8_t *leaf, *lo, *hi;
    size_t lo_len, hi_len;
};

static int
path_damage(struct kvfs_lmdb_path *p, uint64_t pgno, const char *what)
{
    (void)kvfs_error_set(p->err, -EIO, "%s: page %" PRIu64 " %s", p->db->path, pgno, what);
    return MDB_CORRUPTED;
}

/* The judged page PGNO, or NULL with ERR set. */
static const uint8_t *
path_page(struct kvfs_lmdb_path *p, uint64_t pgno)
{
    const uint8_t *page;
    uint64_t *slot = &p->checked[pgno % PATH_CACHE_SIZE];
    const char *what;

    if (pgno < PAGE_METAS || pgno >= p->end) {
        (void)path_damage(p, pgno, "is out of bounds");
        return NULL;
    }
    page = p->db->map + pgno * p->db->layout.psize;
    if (*slot == pgno)
        return page;
    what = kvfs_page_check(page, p->db->layout.psize, pgno, p->end);
    if (what != NULL) {
        (void)path_damage(p, pgno, what);
        return NULL;
    }
    *slot = pgno;
    return page;
}

static size_t
path_keys(const uint8_t *page)
{
    struct page_header h;

    memcpy(&h, page, sizeof(h));
    return page_keys(&h);
}

static bool
path_is_leaf(const uint8_t *page)
{
    struct page_header h;

    memcpy(&h, page, sizeof(h));
    return h.flags == PAGE_LEAF;
}

/* May replacing one record leave so little that LMDB merges the page? */
static bool
path_is_sparse(const struct kvfs_lmdb_path *p, const uint8_t *page)
{
    struct page_header h;

    memcpy(&h, page, sizeof(h));
    return page_keys(&h) <= PATH_FEW_KEYS ||
           (size_t)(h.u.room.upper - h.u.room.lower) > p->db->layout.psize / 2;
}

/* The first node whose key is not below KEY: in a branch, of nodes from 1 on. */
static size_t
path_search(const struct kvfs_lmdb_path *p, const uint8_t *page, const void *key, size_t len)
{
    size_t lo = path_is_leaf(page) ? 0 : 1;
    size_t hi = path_keys(page);
    struct page_node node;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (kvfs_page_node(page, p->db->layout.psize, mid, &node) &&
            kvfs_page_key_cmp(node.key, node.key_len, key, len) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static int
path_check_run(struct kvfs_lmdb_path *p, const struct page_node *node, bool exact)
{
    struct page_header h;
    const char *what;

    if ((node->flags & NODE_BIGDATA) == 0)
        return 0;
    /* Bounds were judged with the leaf. */
    memcpy(&h, p->db->map + node->child * p->db->layout.psize, sizeof(h));
    what = kvfs_page_check_overflow(&h, p->db->layout.psize, node->child, node->data_len, exact);
    if (what == NULL && h.u.overflow_pages > p->end - node->child)
        what = "has an overflow run beyond the store";
    return what != NULL ? path_damage(p, node->child, what) : 0;
}

/* Judge the pages beside child I of PAGE. */
static int
path_check_beside(struct kvfs_lmdb_path *p, const uint8_t *page, size_t i)
{
    size_t keys = path_keys(page);
    struct page_node node;

    for (size_t j = i > 0 ? i - 1 : 0; j <= i + 1 && j < keys; j++)
        if (kvfs_page_node(page, p->db->layout.psize, j, &node) &&
            path_page(p, node.child) == NULL)
            return MDB_CORRUPTED;
    return 0;
}

/* Descend to KEY's leaf.  DELETES: LMDB may merge pages on the way. */
static int
path_descend(struct kvfs_lmdb_path *p, int ks, const void *key, size_t len, bool deletes)
{
    const uint8_t *page = path_page(p, p->tree[ks].root);
    bool beside = true;

    p->leaf = NULL;
    p->lo = p->hi = NULL;
    for (unsigned depth = 1; page != NULL && !path_is_leaf(page); depth++) {
        size_t keys = path_keys(page);
        size_t i = path_search(p, page, key, len);
        const uint8_t *child;
        struct page_node node;

        if (depth > PAGE_DEPTH_MAX)
            return path_damage(p, p->tree[ks].root, "is the root of a loop");
        if (i < keys && kvfs_page_node(page, p->db->layout.psize, i, &node)) {
            /* Equal keys belong to the right. */
            if (kvfs_page_key_cmp(node.key, node.key_len, key, len) == 0)
                i++;
        }
        if (i < keys && kvfs_page_node(page, p->db->layout.psize, i, &node)) {
            p->hi = node.key;
            p->hi_len = node.key_len;
        }
        i--;
        (void)kvfs_page_node(page, p->db->layout.psize, i, &node);
        if (i > 0) {
            p->lo = node.key;
            p->lo_len = node.key_len;
        }
        child = path_page(p, node.child);
        if (child == NULL)
            return MDB_CORRUPTED;
        beside = deletes || path_is_sparse(p, child);
        if (beside && path_check_beside(p, page, i) != 0)
            return MDB_CORRUPTED;
        page = child;
    }
    if (page == NULL)
        return MDB_CORRUPTED;
    p->leaf = page;
    p->leaf_ks = ks;
    p->leaf_beside = beside;
    return 0;
}

static bool
path_same_leaf(const struct kvfs_lmdb_path *p, int ks, const void *key, size_t len)
{
    return p->leaf != NULL && p->leaf_ks == ks &&
           (p->lo == NULL || kvfs_page_key_cmp(key, len, p->lo, p->lo_len) >= 0) &&
           (p->hi == NULL || kvfs_page_key_cmp(key, len, p->hi, p->hi_len) < 0);
}

static int
path_check_op(struct kvfs_lmdb_path *p, const struct kvfs_op *op)
{
    bool deletes = op->type == KVFS_OP_DEL;
    int ks = op->keyspace;
    struct page_node node;
    size_t i;

    if (p->tree[ks].root == PAGE_NONE)
        return 0;
    if (!path_same_leaf(p, ks, op->key, op->key_len) || (deletes && !p->leaf_beside)) {
        int rc = path_descend(p, ks, op->key, op->key_len, deletes);

        if (rc != 0)
            return rc;
    }
    i = path_search(p, p->leaf, op->key, op->key_len);
    if (i == path_keys(p->leaf)) {
        /* A DATA key with its tail may be the first of the next leaf. */
        if (ks != KVFS_DATA || p->hi == NULL || p->hi_len < op->key_len ||
            memcmp(p->hi, op->key, op->key_len) != 0)
            return 0;
        i = 0;
        if (path_descend(p, ks, p->hi, p->hi_len, deletes) != 0)
            return MDB_CORRUPTED;
    }
    if (!kvfs_page_node(p->leaf, p->db->layout.psize, i, &node) || node.key_len < op->key_len ||
        memcmp(node.key, op->key, op->key_len) != 0)
        return 0;
    return path_check_run(p, &node, ks == KVFS_DATA);
}

/* Judge everything below PGNO that holds keys of the range. */
static int
path_check_range(struct kvfs_lmdb_path *p, const struct kvfs_op *op, uint64_t pgno, unsigned depth)
{
    const uint8_t *page = path_page(p, pgno);
    size_t psize = p->db->layout.psize;
    struct page_node node;
    size_t first;
    int rc = 0;

    if (page == NULL)
        return MDB_CORRUPTED;
    if (depth > PAGE_DEPTH_MAX)
        return path_damage(p, pgno, "is part of a loop");
    first = path_search(p, page, op->key, op->key_len);
    if (!path_is_leaf(page)) {
        first -= first > 0;
        rc = path_check_beside(p, page, first);
    }
    for (size_t i = first; rc == 0 && i < path_keys(page); i++) {
        if (!kvfs_page_node(page, psize, i, &node))
            break;
        if (i > first && op->key_end_len > 0 &&
            kvfs_page_key_cmp(node.key, node.key_len, op->key_end, op->key_end_len) >= 0) {
            if (!path_is_leaf(page)) /* may be merged with the page before */
                rc = path_page(p, node.child) != NULL ? 0 : MDB_CORRUPTED;
            break;
        }
        rc = path_is_leaf(page) ? path_check_run(p, &node, op->keyspace == KVFS_DATA)
                                : path_check_range(p, op, node.child, depth + 1);
    }
    return rc;
}

/* --- the free list and the main tree --------------------------------------------------- */

static int
path_check_list(struct kvfs_lmdb_path *p, uint64_t pgno, const struct page_node *node, uint64_t *left)
{
    const uint8_t *list = node->data;
    size_t room = node->data_len / sizeof(uint64_t);
    uint64_t count, at, before = p->end;
    int rc = path_check_run(p, node, false);

    if (rc != 0)
        return rc;
    if (list == NULL)
        list = p->db->map + node->child * p->db->layout.psize + PAGE_HEADER_LEN;
    if (room == 0 || node->data_len % sizeof(uint64_t) != 0)
        return path_damage(p, pgno, "holds a free list of impossible length");
    memcpy(&count, list, sizeof(count));
    if (count >= room)
        return path_damage(p, pgno, "holds a free list longer than its record");
    for (uint64_t i = 1; i <= count; i++) {
        memcpy(&at, list + i * sizeof(at), sizeof(at));
        if (at < PAGE_METAS || at >= before)
            return path_damage(p, pgno, "holds a free list with an impossible page number");
        before = at;
    }
    *left -= count < *left ? count : *left;
    return 0;
}

/* Judge the free list's records in order, until they hold *LEFT pages, and the
 * way to its last leaf. */
static int
path_check_free(struct kvfs_lmdb_path *p, uint64_t pgno, unsigned depth, uint64_t *left)
{
    const uint8_t *page = path_page(p, pgno);
    struct page_node node;
    bool beside = false; /* the page behind those used up was judged */
    int rc = 0;

    if (page == NULL)
        return MDB_CORRUPTED;
    if (depth > PAGE_DEPTH_MAX)
        return path_damage(p, pgno, "is part of a loop");
    for (size_t i = 0; rc == 0 && i < path_keys(page); i++) {
        bool last = i + 1 == path_keys(page);

        if (!kvfs_page_node(page, p->db->layout.psize, i, &node))
            break;
        if (path_is_leaf(page)) {
            if (*left > 0)
                rc = path_check_list(p, pgno, &node, left);
        } else if (*left > 0 || last) {
            rc = path_check_free(p, node.child, depth + 1, left);
        } else if (!beside) {
            rc = path_page(p, node.child) != NULL ? 0 : MDB_CORRUPTED;
            beside = true;
        }
    }
    return rc;
}

/* The trees' records, as the transaction finds them. */
static int
path_trees(MDB_txn *txn, struct page_db tree[2])
{
    for (int i = 0; i < 2; i++) {
        MDB_val key = lmdb_val(kvfs_lmdb_names[i], strlen(kvfs_lmdb_names[i]));
        MDB_val data;
        int rc = mdb_get(txn, PAGE_DB_MAIN, &key, &data);

        if (rc != 0)
            return rc;
        if (data.mv_size != sizeof(tree[i]))
            return MDB_CORRUPTED;
        memcpy(&tree[i], data.mv_data, sizeof(tree[i]));
    }
    return 0;
}

/* The meta page of the newest transaction: in the map, and nobody else writes. */
static int
path_meta(const struct kvfs_db *db, size_t txnid, struct page_meta *meta)
{
    const uint8_t *page = db->map + (txnid & 1) * db->layout.psize;

    memcpy(meta, page + PAGE_HEADER_LEN, sizeof(*meta));
    return meta->txnid == txnid ? 0 : MDB_CORRUPTED;
}

int
kvfs_lmdb_path_check(struct kvfs_db *db, MDB_txn *txn, const struct kvfs_batch *batch,
                     const struct kvfs_lmdb_need *need, struct kvfs_error *err)
{
    struct kvfs_lmdb_path *p = db->path_state;
    struct page_meta meta;
    /* Looking for pages in a row LMDB may read the whole list. */
    uint64_t left = need->runs ? UINT64_MAX : need->pages;
    int rc = path_meta(db, mdb_txn_id(txn) - 1, &meta);

    if (rc != 0)
        return rc;
    memset(p, 0, sizeof(*p));
    p->db = db;
    p->err = err;
    p->end = meta.last_pgno + 1;
    if (p->end > db->map_bytes / db->layout.psize)
        return path_damage(p, meta.txnid & 1, "counts more pages than the map has");
    if (meta.dbs[PAGE_DB_FREE].root != PAGE_NONE)
        rc = path_check_free(p, meta.dbs[PAGE_DB_FREE].root, 1, &left);
    if (rc == 0 && path_page(p, meta.dbs[PAGE_DB_MAIN].root) == NULL)
        rc = MDB_CORRUPTED;
    if (rc == 0)
        rc = path_trees(txn, p->tree);
    for (size_t i = 0; rc == 0 && i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (op->type == KVFS_OP_DEL_RANGE && p->tree[op->keyspace].root != PAGE_NONE)
            rc = path_check_range(p, op, p->tree[op->keyspace].root, 1);
        else if (op->type != KVFS_OP_DEL_RANGE)
            rc = path_check_op(p, op);
    }
    return rc;
}

struct kvfs_lmdb_path *
kvfs_lmdb_path_new(void)
{
    return malloc(sizeof(struct kvfs_lmdb_path));
}
