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
    const uint8_t *leaf;
    struct page_bounds bounds;
};

static int
path_damage(struct kvfs_lmdb_path *p, uint64_t pgno, const char *what)
{
    (void)kvfs_error_set(p->err, -EIO, "%s: page %" PRIu64 " %s", p->db->path, pgno, what);
    return MDB_CORRUPTED;
}

/* The judged page PGNO, or NULL with ERR set. */
static const uint8_t *
path_page(struct kvfs_lmdb_path *p, uint64_t pgno, enum page_order order,
          const struct page_bounds *bounds)
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
    what = kvfs_page_check(page, p->db->layout.psize, pgno, p->end, order, bounds);
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

/* Judge the pages beside child I of PAGE, whose bounds are AROUND. */
static int
path_check_beside(struct kvfs_lmdb_path *p, int ks, const uint8_t *page, size_t i,
                  const struct page_bounds *around)
{
    size_t keys = path_keys(page);
    struct page_node node;

    for (size_t j = i > 0 ? i - 1 : 0; j <= i + 1 && j < keys; j++) {
        struct page_bounds bounds = *around;

        kvfs_page_bounds_child(&bounds, page, p->db->layout.psize, j);
        if (kvfs_page_node(page, p->db->layout.psize, j, &node) &&
            path_page(p, node.child, lmdb_order(ks), &bounds) == NULL)
            return MDB_CORRUPTED;
    }
    return 0;
}

/* Descend to KEY's leaf.  DELETES: LMDB may merge pages on the way. */
static int
path_descend(struct kvfs_lmdb_path *p, int ks, const void *key, size_t len, bool deletes)
{
    struct page_bounds bounds = {.lo = NULL};
    const uint8_t *page = path_page(p, p->tree[ks].root, lmdb_order(ks), &bounds);
    bool beside = true;

    p->leaf = NULL;
    for (unsigned depth = 1; page != NULL && !path_is_leaf(page); depth++) {
        size_t i = kvfs_page_search(page, p->db->layout.psize, key, len, 1, true) - 1;
        struct page_bounds around = bounds;
        const uint8_t *child;
        struct page_node node;

        if (depth > PAGE_DEPTH_MAX)
            return path_damage(p, p->tree[ks].root, "is the root of a loop");
        kvfs_page_bounds_child(&bounds, page, p->db->layout.psize, i);
        (void)kvfs_page_node(page, p->db->layout.psize, i, &node);
        child = path_page(p, node.child, lmdb_order(ks), &bounds);
        if (child == NULL)
            return MDB_CORRUPTED;
        beside = deletes || path_is_sparse(p, child);
        if (beside && path_check_beside(p, ks, page, i, &around) != 0)
            return MDB_CORRUPTED;
        page = child;
    }
    if (page == NULL)
        return MDB_CORRUPTED;
    p->leaf = page;
    p->leaf_ks = ks;
    p->leaf_beside = beside;
    p->bounds = bounds;
    return 0;
}

static bool
path_same_leaf(const struct kvfs_lmdb_path *p, int ks, const void *key, size_t len)
{
    const struct page_bounds *b = &p->bounds;

    return p->leaf != NULL && p->leaf_ks == ks &&
           (b->lo == NULL || kvfs_page_key_cmp(key, len, b->lo, b->lo_len) >= 0) &&
           (b->hi == NULL || kvfs_page_key_cmp(key, len, b->hi, b->hi_len) < 0);
}

/* Is the record of node I the one that was stored?  True where there is none. */
static int
path_check_node(struct kvfs_lmdb_path *p, size_t i, struct page_node *node)
{
    size_t psize = p->db->layout.psize;
    struct kvfs_lmdb_value value;

    if (i >= path_keys(p->leaf) || !kvfs_page_node(p->leaf, psize, i, node))
        return 0;
    return kvfs_lmdb_walk_split(p->db, (enum kvfs_keyspace)p->leaf_ks, node, &value)
               ? 0
               : path_damage(p, (uint64_t)(p->leaf - p->db->map) / psize,
                             "holds a key that was not stored so");
}

static int
path_check_op(struct kvfs_lmdb_path *p, const struct kvfs_op *op)
{
    bool deletes = op->type == KVFS_OP_DEL;
    int ks = op->keyspace;
    struct page_node node = {.key = op->key};
    size_t i;

    if (p->tree[ks].root == PAGE_NONE)
        return 0;
    if (!path_same_leaf(p, ks, op->key, op->key_len) || (deletes && !p->leaf_beside)) {
        int rc = path_descend(p, ks, op->key, op->key_len, deletes);

        if (rc != 0)
            return rc;
    }
    i = kvfs_page_search(p->leaf, p->db->layout.psize, op->key, op->key_len, 0, false);
    if (i > 0 && path_check_node(p, i - 1, &node) != 0)
        return MDB_CORRUPTED;
    if (i == path_keys(p->leaf)) {
        const struct page_bounds *b = &p->bounds;

        /* A DATA key with its tail may be the first of the next leaf. */
        if (ks != KVFS_DATA || b->hi == NULL || b->hi_len < op->key_len ||
            memcmp(b->hi, op->key, op->key_len) != 0)
            return 0;
        i = 0;
        if (path_descend(p, ks, b->hi, b->hi_len, deletes) != 0)
            return MDB_CORRUPTED;
    }
    if (path_check_node(p, i, &node) != 0)
        return MDB_CORRUPTED;
    if (node.key_len < op->key_len || memcmp(node.key, op->key, op->key_len) != 0)
        return 0;
    return path_check_run(p, &node, ks == KVFS_DATA);
}

/* Judge everything below PGNO that holds keys of the range. */
static int
path_check_range(struct kvfs_lmdb_path *p, const struct kvfs_op *op, uint64_t pgno, unsigned depth,
                 const struct page_bounds *bounds)
{
    enum page_order order = lmdb_order(op->keyspace);
    const uint8_t *page = path_page(p, pgno, order, bounds);
    size_t psize = p->db->layout.psize;
    struct page_node node;
    size_t first;
    int rc = 0;

    if (page == NULL)
        return MDB_CORRUPTED;
    if (depth > PAGE_DEPTH_MAX)
        return path_damage(p, pgno, "is part of a loop");
    first = kvfs_page_search(page, psize, op->key, op->key_len, path_is_leaf(page) ? 0 : 1, false);
    if (!path_is_leaf(page)) {
        first--;
        rc = path_check_beside(p, op->keyspace, page, first, bounds);
    }
    for (size_t i = first; rc == 0 && i < path_keys(page); i++) {
        struct page_bounds child = *bounds;

        if (!kvfs_page_node(page, psize, i, &node))
            break;
        kvfs_page_bounds_child(&child, page, psize, i);
        if (i > first && op->key_end_len > 0 &&
            kvfs_page_key_cmp(node.key, node.key_len, op->key_end, op->key_end_len) >= 0) {
            if (!path_is_leaf(page)) /* may be merged with the page before */
                rc = path_page(p, node.child, order, &child) != NULL ? 0 : MDB_CORRUPTED;
            break;
        }
        rc = path_is_leaf(page) ? path_check_run(p, &node, op->keyspace == KVFS_DATA)
                                : path_check_range(p, op, node.child, depth + 1, &child);
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
    const uint8_t *page = path_page(p, pgno, PAGE_ORDER_NUMBER, NULL);
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
            rc = path_page(p, node.child, PAGE_ORDER_NUMBER, NULL) != NULL ? 0 : MDB_CORRUPTED;
            beside = true;
        }
    }
    return rc;
}

int
kvfs_lmdb_trees(MDB_txn *txn, struct page_db tree[2])
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
    const struct page_bounds all = {.lo = NULL};
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
    if (rc == 0 && path_page(p, meta.dbs[PAGE_DB_MAIN].root, PAGE_ORDER_BYTES, NULL) == NULL)
        rc = MDB_CORRUPTED;
    if (rc == 0)
        rc = kvfs_lmdb_trees(txn, p->tree);
    for (size_t i = 0; rc == 0 && i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (op->type == KVFS_OP_DEL_RANGE && p->tree[op->keyspace].root != PAGE_NONE)
            rc = path_check_range(p, op, p->tree[op->keyspace].root, 1, &all);
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
