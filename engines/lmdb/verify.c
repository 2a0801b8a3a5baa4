/* SPDX-License-Identifier: BSD-3-Clause
 *
 * verify.c - walking the page structure with pread, before the map is trusted.
 *
 * LMDB 0.9 has no checksums of pages.  What its structure says more than once
 * can be held against itself:
 *
 *  1. Every page says its own number and type; its bounds, node offsets and page
 *     numbers lie within the page and the store.
 *  2. Keys increase strictly inside a page and lie between the separators of the
 *     branch pages above, nodes fill the page; leaves all have the depth that the
 *     tree's record tells; each record's check of its key is right.
 *  3. An overflow run is as long as its value needs, and lies within the store.
 *  4. Every page up to the last is used exactly once, by a tree or by the free
 *     list; the free list's records are sorted.
 *  5. The trees' records count their pages and entries right.
 *
 * The walk needs a page per level and a bit per page of the store.  It follows
 * one snapshot, whose pages a live writer spares; the meta page of that very
 * snapshot is read under apply_lock, and again if another process was faster.
 * The kernel's cached copy of the file is dropped first where nothing maps it,
 * so that the medium is read.
 *
 * What it cannot see: a flipped bit inside a value.  kvfs checks its own
 * checksums on top.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lmdb_priv.h"

#define VERIFY_META_TRIES     1000u
#define VERIFY_PROGRESS_EVERY 1024u

enum verify_kind { VERIFY_FREE, VERIFY_MAIN, VERIFY_META, VERIFY_DATA };
static const char *const verify_names[] = {"free list", "main tree", "META", "DATA"};

struct verify {
    int fd;
    struct kvfs_lmdb_meta meta;
    size_t psize;
    uint64_t end; /* first page beyond the store */
    uint8_t *seen; /* a bit per page */
    kvfs_finding_fn *finding;
    void *finding_arg;
    kvfs_progress_fn *progress;
    void *progress_arg;
    uint64_t pages; /* visited */
    int stop;       /* a negative errno that ends the walk */
};

struct verify_tree {
    enum verify_kind kind;
    struct page_db db;       /* what its record says */
    struct page_db counted;  /* what the walk finds */
    struct page_db sub[2]; /* of the main tree: META, DATA */
    bool has_sub[2];
};

static enum page_order
verify_order(const struct verify_tree *t)
{
    if (t->kind == VERIFY_FREE)
        return PAGE_ORDER_NUMBER;
    return t->kind == VERIFY_DATA ? PAGE_ORDER_DATA : PAGE_ORDER_BYTES;
}

static void verify_find(struct verify *v, uint64_t pgno, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
verify_find(struct verify *v, uint64_t pgno, const char *fmt, ...)
{
    char where[40], what[160];
    va_list ap;

    if (v->finding == NULL)
        return;
    (void)snprintf(where, sizeof(where), "page %" PRIu64, pgno);
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    v->finding(v->finding_arg, where, what);
}

static bool
verify_read(struct verify *v, void *buf, size_t len, uint64_t pgno)
{
    uint8_t *p = buf;
    uint64_t at = pgno * v->psize;

    while (len > 0) {
        ssize_t n = pread(v->fd, p, len, (off_t)at);
        char text[80];

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            verify_find(v, pgno, "cannot be read: %s", strerror_r(errno, text, sizeof(text)));
            return false;
        }
        if (n == 0) {
            verify_find(v, pgno, "lies beyond the end of the file");
            return false;
        }
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return true;
}

/* Note that pages [first, first + count) are used, by WHO. */
static bool
verify_mark(struct verify *v, uint64_t first, uint64_t count, const char *who)
{
    bool fresh = true;

    for (uint64_t i = first; i < first + count && fresh; i++) {
        uint8_t bit = (uint8_t)(1u << (i % 8));

        fresh = (v->seen[i / 8] & bit) == 0;
        v->seen[i / 8] |= bit;
        if (!fresh)
            verify_find(v, i, "is referred to twice (again by %s)", who);
    }
    v->pages += count;
    if (v->progress != NULL && v->stop == 0 &&
        v->pages / VERIFY_PROGRESS_EVERY != (v->pages - count) / VERIFY_PROGRESS_EVERY &&
        v->progress(v->progress_arg, v->pages, v->end) != 0)
        v->stop = -EINTR;
    return fresh;
}

/* --- what lies in leaves ------------------------------------------------------------ */

static void
verify_free_list(struct verify *v, uint64_t pgno, const struct page_node *node,
                 const uint64_t *list)
{
    size_t room = node->data_len / sizeof(uint64_t);
    uint64_t txnid = 0;

    if (node->key_len != sizeof(txnid) || room == 0 || node->data_len % sizeof(uint64_t) != 0 ||
        list[0] >= room) {
        verify_find(v, pgno, "holds a free list of impossible length");
        return;
    }
    memcpy(&txnid, node->key, sizeof(txnid));
    if (txnid == 0 || txnid > v->meta.page.txnid)
        verify_find(v, pgno, "holds a free list of transaction %" PRIu64 ", the newest is %" PRIu64,
                    txnid, v->meta.page.txnid);
    for (uint64_t i = 1; i <= list[0] && v->stop == 0; i++) {
        if (list[i] < PAGE_METAS || list[i] >= v->end) {
            verify_find(v, pgno, "its free list names page %" PRIu64 ", there are %" PRIu64, list[i],
                        v->end);
            return;
        }
        if (i > 1 && list[i] >= list[i - 1])
            verify_find(v, pgno, "its free list is not sorted");
        (void)verify_mark(v, list[i], 1, "the free list");
    }
}

/* The run of a long value; for the free list, its contents too. */
static void
verify_overflow(struct verify *v, struct verify_tree *t, uint64_t pgno,
                const struct page_node *node)
{
    struct page_header h;
    const char *what;
    uint64_t *list;

    if (!verify_read(v, &h, sizeof(h), node->child))
        return;
    what = kvfs_page_check_overflow(&h, v->psize, node->child, node->data_len,
                                    t->kind == VERIFY_DATA);
    if (what == NULL && h.u.overflow_pages > v->end - node->child)
        what = "has an overflow run beyond the store";
    if (what != NULL) {
        verify_find(v, node->child, "%s (%s, from page %" PRIu64 ")", what, verify_names[t->kind],
                    pgno);
        return;
    }
    t->counted.overflow_pages += h.u.overflow_pages;
    if (!verify_mark(v, node->child, h.u.overflow_pages, verify_names[t->kind]) ||
        t->kind != VERIFY_FREE)
        return;
    list = malloc(node->data_len + PAGE_HEADER_LEN);
    if (list == NULL)
        v->stop = -ENOMEM;
    else if (verify_read(v, list, node->data_len + PAGE_HEADER_LEN, node->child))
        verify_free_list(v, node->child, node, list + PAGE_HEADER_LEN / sizeof(*list));
    free(list);
}

/* Is the record's key the one that was stored? */
static void
verify_key(struct verify *v, const struct verify_tree *t, uint64_t pgno,
           const struct page_node *node)
{
    uint8_t check[PAGE_HEADER_LEN + KVFS_LMDB_CHECK_LEN] = {0};
    const uint8_t *data = node->data;
    struct kvfs_lmdb_value value;

    if (data == NULL) {
        data = check + PAGE_HEADER_LEN;
        if (t->kind == VERIFY_META && !verify_read(v, check, sizeof(check), node->child))
            return;
    }
    if (!kvfs_lmdb_layout_split(t->kind == VERIFY_DATA ? KVFS_DATA : KVFS_META, node->key,
                                node->key_len, data, node->data_len, &value))
        verify_find(v, pgno, "holds a key of %s that was not stored so", verify_names[t->kind]);
}

static void
verify_record(struct verify *v, struct verify_tree *t, uint64_t pgno, const struct page_node *node)
{
    if (t->kind == VERIFY_META || t->kind == VERIFY_DATA)
        verify_key(v, t, pgno, node);
    if (t->kind != VERIFY_MAIN) {
        if ((node->flags & NODE_SUBDATA) != 0)
            verify_find(v, pgno, "holds a tree's record among records of %s", verify_names[t->kind]);
        return;
    }
    if (node->flags != NODE_SUBDATA || node->data_len != sizeof(struct page_db)) {
        verify_find(v, pgno, "holds something else than a tree's record");
        return;
    }
    for (int i = 0; i < 2; i++) {
        if (node->key_len != strlen(kvfs_lmdb_names[i]) || memcmp(node->key, kvfs_lmdb_names[i], node->key_len) != 0)
            continue;
        memcpy(&t->sub[i], node->data, sizeof(t->sub[i]));
        t->has_sub[i] = true;
        return;
    }
    verify_find(v, pgno, "holds the record of an unknown tree");
}

static void
verify_leaf_node(struct verify *v, struct verify_tree *t, uint64_t pgno,
                 const struct page_node *node)
{
    t->counted.entries++;
    verify_record(v, t, pgno, node);
    if ((node->flags & NODE_BIGDATA) != 0) {
        verify_overflow(v, t, pgno, node);
    } else if (t->kind == VERIFY_FREE) {
        uint64_t list[PAGE_SIZE_MAX / sizeof(uint64_t)];

        memcpy(list, node->data, node->data_len);
        verify_free_list(v, pgno, node, list);
    }
}

/* --- trees ---------------------------------------------------------------------------- */

static void verify_page(struct verify *v, struct verify_tree *t, uint64_t pgno, unsigned level,
                        const struct page_bounds *b);

static void
verify_branch(struct verify *v, struct verify_tree *t, const uint8_t *page, unsigned level,
              const struct page_bounds *b)
{
    struct page_header h;
    struct page_node node;

    memcpy(&h, page, sizeof(h));
    t->counted.branch_pages++;
    for (size_t i = 0; i < page_keys(&h) && v->stop == 0; i++) {
        struct page_bounds child = *b;

        kvfs_page_bounds_child(&child, page, v->psize, i);
        (void)kvfs_page_node(page, v->psize, i, &node);
        verify_page(v, t, node.child, level + 1, &child);
    }
}

/* Walk the page and what is below it; LEVEL counts from 1 at the root. */
static void
verify_page(struct verify *v, struct verify_tree *t, uint64_t pgno, unsigned level,
            const struct page_bounds *b)
{
    struct page_header h;
    struct page_node node;
    const char *what;
    uint8_t *page;

    if (!verify_mark(v, pgno, 1, verify_names[t->kind]))
        return;
    page = malloc(v->psize);
    if (page == NULL) {
        v->stop = -ENOMEM;
        return;
    }
    if (!verify_read(v, page, v->psize, pgno)) {
        free(page);
        return;
    }
    what = kvfs_page_check(page, v->psize, pgno, v->end, verify_order(t), b);
    memcpy(&h, page, sizeof(h));
    if (what == NULL && (h.flags == PAGE_LEAF) != (level == t->db.depth))
        what = "is a leaf or branch at the wrong depth";
    if (what != NULL) {
        verify_find(v, pgno, "%s (%s)", what, verify_names[t->kind]);
    } else if (h.flags == PAGE_BRANCH) {
        verify_branch(v, t, page, level, b);
    } else {
        t->counted.leaf_pages++;
        for (size_t i = 0; i < page_keys(&h) && v->stop == 0; i++)
            if (kvfs_page_node(page, v->psize, i, &node))
                verify_leaf_node(v, t, pgno, &node);
    }
    free(page);
}

static void
verify_count(struct verify *v, const struct verify_tree *t, const char *of, uint64_t told,
             uint64_t found)
{
    char what[120], where[40];

    if (told == found || v->finding == NULL || v->stop != 0)
        return;
    (void)snprintf(where, sizeof(where), "%s", verify_names[t->kind]);
    (void)snprintf(what, sizeof(what), "counts %" PRIu64 " %s, there are %" PRIu64, told, of, found);
    v->finding(v->finding_arg, where, what);
}

static void
verify_tree(struct verify *v, struct verify_tree *t)
{
    struct page_bounds all = {.lo = NULL};

    if (t->db.root != PAGE_NONE) {
        if (t->db.root < PAGE_METAS || t->db.root >= v->end || t->db.depth < 1 ||
            t->db.depth > PAGE_DEPTH_MAX) {
            verify_find(v, t->db.root, "is no possible root of %s", verify_names[t->kind]);
            return;
        }
        verify_page(v, t, t->db.root, 1, &all);
    }
    verify_count(v, t, "records", t->db.entries, t->counted.entries);
    verify_count(v, t, "branch pages", t->db.branch_pages, t->counted.branch_pages);
    verify_count(v, t, "leaf pages", t->db.leaf_pages, t->counted.leaf_pages);
    verify_count(v, t, "overflow pages", t->db.overflow_pages, t->counted.overflow_pages);
}

static void
verify_lost(struct verify *v)
{
    uint64_t first = 0, count = 0;

    for (uint64_t i = PAGE_METAS; i < v->end; i++) {
        if ((v->seen[i / 8] & (1u << (i % 8))) != 0)
            continue;
        if (count++ == 0)
            first = i;
    }
    if (count > 0)
        verify_find(v, first, "is neither used nor free, like %" PRIu64 " more", count - 1);
}

static void
verify_walk(struct verify *v)
{
    struct verify_tree list = {.kind = VERIFY_FREE, .db = v->meta.page.dbs[PAGE_DB_FREE]};
    struct verify_tree main_tree = {.kind = VERIFY_MAIN, .db = v->meta.page.dbs[PAGE_DB_MAIN]};

    verify_tree(v, &list);
    verify_tree(v, &main_tree);
    for (int i = 0; i < 2 && v->stop == 0; i++) {
        struct verify_tree sub = {.kind = i == KVFS_META ? VERIFY_META : VERIFY_DATA,
                                  .db = main_tree.sub[i]};

        if (main_tree.has_sub[i])
            verify_tree(v, &sub);
        else
            verify_find(v, v->meta.page.dbs[PAGE_DB_MAIN].root, "the record of %s is missing",
                        verify_names[sub.kind]);
    }
    if (v->stop == 0)
        verify_lost(v);
}

/* --- the call --------------------------------------------------------------------------- */

/* Begin a snapshot and read the meta page that it stands on. */
static int
verify_begin(struct kvfs_db *db, struct verify *v, struct kvfs_db_snap **snapp,
             struct kvfs_error *err)
{
    for (unsigned tries = 0; tries < VERIFY_META_TRIES; tries++) {
        int rc = kvfs_lmdb_begin(db, snapp, err);

        if (rc != 0)
            return rc;
        rc = kvfs_lmdb_meta_read(v->fd, db->path, &v->meta, err);
        if (rc == 0) {
            int of = kvfs_lmdb_meta_of(v->fd, (*snapp)->txnid, &v->meta);

            if (of == 0)
                return 0;
            if (of != EAGAIN)
                rc = kvfs_lmdb_error(err, of, db->path, "reading the meta pages");
        }
        kvfs_lmdb_end(*snapp);
        if (rc == -EIO && err != NULL && v->finding != NULL) {
            v->finding(v->finding_arg, "meta pages", err->msg);
            return 1;
        }
        if (rc != 0)
            return rc;
    }
    return kvfs_error_set(err, -EBUSY, "%s: its writer does not rest", db->path);
}

int
kvfs_lmdb_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg,
                 kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err)
{
    struct verify v = {.finding = finding, .finding_arg = arg, .progress = progress,
                       .progress_arg = progress_arg};
    struct kvfs_error own = {.code = 0};
    struct kvfs_db_snap *snap;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    v.fd = open(db->path, O_RDONLY | O_CLOEXEC);
    if (v.fd < 0)
        return kvfs_lmdb_error(err, errno, db->path, "opening");
    (void)posix_fadvise(v.fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)pthread_mutex_lock(&db->apply_lock);
    rc = verify_begin(db, &v, &snap, err != NULL ? err : &own);
    (void)pthread_mutex_unlock(&db->apply_lock);
    if (rc == 0) {
        v.psize = v.meta.psize;
        v.end = v.meta.page.last_pgno + 1;
        v.seen = calloc(v.end / 8 + 1, 1);
        if (v.seen == NULL)
            v.stop = -ENOMEM;
        else
            verify_walk(&v);
        free(v.seen);
        kvfs_lmdb_end(snap);
        rc = v.stop;
        if (rc == 0 && progress != NULL && progress(progress_arg, v.end, v.end) != 0)
            rc = -EINTR;
        if (rc != 0)
            (void)kvfs_error_set(err, rc, "%s: %s", db->path,
                                 rc == -EINTR ? "the check was interrupted" : "no memory");
    }
    (void)close(v.fd);
    return rc > 0 ? 0 : rc;
}
