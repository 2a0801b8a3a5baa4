/* SPDX-License-Identifier: BSD-3-Clause
 *
 * walk.c - reading a tree in which every page is judged before it is believed.
 *
 * LMDB 0.9 follows whatever a page says.  A flipped bit in a key, in an offset or
 * in a branch page sends its search past a record, and what a key-value store
 * does not find, a disk reads as zeros, with success.  So gets ask LMDB first,
 * who is fast, and let a walk prove it when LMDB finds nothing; scans walk.
 *
 *  1. A page counts only after kvfs_page_check(): its keys are in order, fill the
 *     page without a gap and lie between the separators above it, and it has the
 *     level that the tree's record tells.
 *  2. Leaves are entered through the separators of the leaf before (or behind), so
 *     none is passed over.
 *  3. The check of each record that is met is right, that of the neighbour on
 *     the other side of the starting point too: a key that turned into another
 *     between the same neighbours is the neighbour of where it should be.
 *  4. Memory: one page a level is remembered as judged.  Nothing is ever
 *     allocated, so a fault leaks nothing.
 *
 * What passes: a child's number that turned into that of an old copy of the
 * same page.
 */
#include <errno.h>
#include <inttypes.h>

#include "lmdb_priv.h"

static int
walk_damage(struct kvfs_lmdb_walk *w, uint64_t pgno, const char *what)
{
    w->bad_pgno = pgno;
    w->bad = what;
    return MDB_CORRUPTED;
}

/* The judged page PGNO of LEVEL, within w->bounds; NULL: damaged. */
static const uint8_t *
walk_page(struct kvfs_lmdb_walk *w, uint64_t pgno, unsigned level)
{
    size_t psize = w->db->layout.psize;
    const uint8_t *page;
    const char *what;
    struct page_header h;

    if (pgno < PAGE_METAS || pgno >= w->end) {
        (void)walk_damage(w, pgno, "is out of bounds");
        return NULL;
    }
    page = w->db->map + pgno * psize;
    if (w->judged[level - 1] == page)
        return page;
    what = kvfs_page_check(page, psize, pgno, w->end, w->order, &w->bounds);
    memcpy(&h, page, sizeof(h));
    if (what == NULL && (h.flags == PAGE_LEAF) != (level == w->tree.depth))
        what = "is a leaf or branch at the wrong depth";
    if (what != NULL) {
        (void)walk_damage(w, pgno, what);
        return NULL;
    }
    w->judged[level - 1] = page;
    return page;
}

static size_t
walk_keys(const uint8_t *page)
{
    struct page_header h;

    memcpy(&h, page, sizeof(h));
    return page_keys(&h);
}

enum walk_to {
    WALK_TO_KEY,    /* the leaf that KEY belongs into */
    WALK_TO_BEFORE, /* the leaf of the last key before KEY, a separator */
    WALK_TO_LAST,
};

/* Descend to a leaf.  w->at is then KEY's place in it, or its end. */
static int
walk_descend(struct kvfs_lmdb_walk *w, const void *key, size_t len, enum walk_to to)
{
    size_t psize = w->db->layout.psize;
    uint64_t pgno = w->tree.root;
    struct page_node node;

    w->bounds = (struct page_bounds){.lo = NULL};
    for (unsigned level = 1;; level++) {
        const uint8_t *page = walk_page(w, pgno, level);
        size_t i;

        if (page == NULL)
            return MDB_CORRUPTED;
        w->leaf = page;
        w->keys = walk_keys(page);
        if (level == w->tree.depth)
            break;
        if (to == WALK_TO_LAST)
            i = w->keys;
        else
            i = kvfs_page_search(page, psize, key, len, 1, to == WALK_TO_KEY);
        i--;
        kvfs_page_bounds_child(&w->bounds, page, psize, i);
        (void)kvfs_page_node(page, psize, i, &node);
        pgno = node.child;
    }
    w->at = to == WALK_TO_KEY ? kvfs_page_search(w->leaf, psize, key, len, 0, false) : w->keys;
    return 0;
}

bool
kvfs_lmdb_walk_split(const struct kvfs_db *db, enum kvfs_keyspace keyspace,
                     const struct page_node *node, struct kvfs_lmdb_value *value)
{
    const uint8_t *data = node->data;

    if (data == NULL)
        data = db->map + node->child * db->layout.psize + PAGE_HEADER_LEN;
    return kvfs_lmdb_layout_split(keyspace, node->key, node->key_len, data, node->data_len, value);
}

/* The record of node I. */
static int
walk_node(struct kvfs_lmdb_walk *w, size_t i)
{
    size_t psize = w->db->layout.psize;
    struct page_node node;

    (void)kvfs_page_node(w->leaf, psize, i, &node);
    if (!kvfs_lmdb_walk_split(w->db, w->keyspace, &node, &w->value))
        return walk_damage(w, (uint64_t)(w->leaf - w->db->map) / psize,
                           "holds a key that was not stored so");
    w->key = node.key;
    w->key_len = w->keyspace == KVFS_DATA ? KVFS_DATA_KEY_LEN : node.key_len;
    return 0;
}

/* Is the record before the present place what was stored? */
static int
walk_prove_before(struct kvfs_lmdb_walk *w, const void *key, size_t len)
{
    int rc;

    if (w->at > 0)
        return walk_node(w, w->at - 1);
    if (w->bounds.lo == NULL)
        return 0;
    rc = walk_descend(w, w->bounds.lo, w->bounds.lo_len, WALK_TO_BEFORE);
    if (rc == 0)
        rc = walk_node(w, w->keys - 1);
    return rc != 0 ? rc : walk_descend(w, key, len, WALK_TO_KEY);
}

int
kvfs_lmdb_walk_init(struct kvfs_lmdb_walk *w, struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace)
{
    const struct kvfs_db *db = snap->db;

    w->db = db;
    w->bad = NULL;
    if (!snap->trees_ready) {
        int rc = kvfs_lmdb_trees(snap->txn, snap->trees);

        if (rc != 0) /* not to be taken for an absent record */
            return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
        snap->trees_ready = true;
    }
    *w = (struct kvfs_lmdb_walk){.db = db, .keyspace = keyspace, .tree = snap->trees[keyspace]};
    w->order = lmdb_order(keyspace);
    w->end = db->map_bytes / db->layout.psize;
    if (w->tree.root == PAGE_NONE ? w->tree.entries != 0
                                  : w->tree.depth < 1 || w->tree.depth > PAGE_DEPTH_MAX)
        return walk_damage(w, w->tree.root, "is no possible root");
    return 0;
}

int
kvfs_lmdb_walk_seek(struct kvfs_lmdb_walk *w, const void *key, size_t len)
{
    int rc;

    if (w->tree.root == PAGE_NONE)
        return MDB_NOTFOUND;
    rc = walk_descend(w, key, len, WALK_TO_KEY);
    if (rc == 0)
        rc = walk_prove_before(w, key, len);
    if (rc == 0 && w->at == w->keys) {
        if (w->bounds.hi == NULL)
            return MDB_NOTFOUND;
        rc = walk_descend(w, w->bounds.hi, w->bounds.hi_len, WALK_TO_KEY);
    }
    return rc != 0 ? rc : walk_node(w, w->at);
}

int
kvfs_lmdb_walk_last(struct kvfs_lmdb_walk *w)
{
    int rc;

    if (w->tree.root == PAGE_NONE)
        return MDB_NOTFOUND;
    rc = walk_descend(w, NULL, 0, WALK_TO_LAST);
    if (rc != 0)
        return rc;
    w->at = w->keys - 1;
    return walk_node(w, w->at);
}

int
kvfs_lmdb_walk_next(struct kvfs_lmdb_walk *w)
{
    if (++w->at == w->keys) {
        int rc;

        if (w->bounds.hi == NULL)
            return MDB_NOTFOUND;
        rc = walk_descend(w, w->bounds.hi, w->bounds.hi_len, WALK_TO_KEY);
        if (rc != 0)
            return rc;
    }
    return walk_node(w, w->at);
}

int
kvfs_lmdb_walk_prev(struct kvfs_lmdb_walk *w)
{
    if (w->at == 0) {
        int rc;

        if (w->bounds.lo == NULL)
            return MDB_NOTFOUND;
        rc = walk_descend(w, w->bounds.lo, w->bounds.lo_len, WALK_TO_BEFORE);
        if (rc != 0)
            return rc;
    }
    return walk_node(w, --w->at);
}

int
kvfs_lmdb_walk_prove_absent(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
                            size_t len, struct kvfs_lmdb_walk *w)
{
    int rc = kvfs_lmdb_walk_init(w, snap, keyspace);

    if (rc == 0)
        rc = kvfs_lmdb_walk_seek(w, key, len);
    if (rc == 0 && kvfs_page_key_cmp(w->key, w->key_len, key, len) == 0)
        return walk_damage(w, (uint64_t)(w->leaf - w->db->map) / w->db->layout.psize,
                           "was changed under a search");
    return rc == 0 ? MDB_NOTFOUND : rc;
}

int
kvfs_lmdb_walk_error(const struct kvfs_lmdb_walk *w, int rc, const char *what,
                     struct kvfs_error *err)
{
    if (rc == MDB_CORRUPTED && w->bad != NULL)
        return kvfs_error_set(err, -EIO, "%s: %s: page %" PRIu64 " %s", w->db->path, what,
                              w->bad_pgno, w->bad);
    return kvfs_lmdb_error(err, rc, w->db->path, what);
}
