/* SPDX-License-Identifier: BSD-3-Clause
 *
 * meta.c - the meta pages, judged before LMDB maps the file.
 *
 * LMDB checks magic and version only, takes the page with the higher transaction
 * number and believes all else.  What can be wrong is found here with two reads:
 *
 *  1. Both pages have magic, format, page number and page size as they must be; the
 *     newest has flags as they must be, roots within the file and a plausible depth.
 *     (The other one has not: when LMDB cannot write a meta page it puts the old
 *     transaction number back, beside the new roots.)
 *  2. Transaction N writes page N & 1, and LMDB as we use it makes N durable
 *     before N + 1 writes its page, so the numbers are 0 and 0 (new), or they
 *     differ by one.  A flipped bit in a number, which would bring an old tree
 *     back, shows here.  (A store copied by mdb_copy -c has 0 and 1.)
 *  3. The file reaches to the last page of the newest transaction.  LMDB does
 *     not write pages that a transaction took from the end and gave back, so a
 *     shorter file is sound if the missing pages are on the free list; the list
 *     is walked only then.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lmdb_priv.h"

#define META_READ_TRIES 1000u

static int
meta_pread(int fd, void *buf, size_t len, uint64_t at)
{
    uint8_t *p = buf;

    while (len > 0) {
        ssize_t n = pread(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return EIO;
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

static bool
meta_root_ok(const struct page_db *db, uint64_t last)
{
    if (db->root == PAGE_NONE)
        return db->depth == 0;
    return db->root >= PAGE_METAS && db->root <= last && db->depth >= 1 &&
           db->depth <= PAGE_DEPTH_MAX;
}

/* What both pages must be. */
static const char *
meta_judge_either(const struct page_header *h, const struct page_meta *m, unsigned number)
{
    if (h->pgno != number)
        return "holds another page's number";
    if (m->txnid != 0 && (m->txnid & 1) != number)
        return "has the other page's transaction number";
    return NULL;
}

/* What the newest one must be. */
static const char *
meta_judge_newest(const struct page_meta *m)
{
    if (m->last_pgno < PAGE_METAS - 1 || m->last_pgno >= (uint64_t)1 << 47)
        return "has an impossible number of pages";
    if ((m->dbs[PAGE_DB_FREE].flags & PAGE_DB_INTEGER) == 0 || m->dbs[PAGE_DB_MAIN].flags != 0)
        return "has impossible flags";
    if (!meta_root_ok(&m->dbs[PAGE_DB_FREE], m->last_pgno) ||
        !meta_root_ok(&m->dbs[PAGE_DB_MAIN], m->last_pgno))
        return "has a root outside of the store";
    return NULL;
}

/* Counting the pages beyond the end of the file that the free list names. */
struct meta_walk {
    int fd;
    const struct kvfs_lmdb_meta *meta;
    uint64_t first;  /* first page beyond the end of the file */
    uint64_t found;  /* pages of [first, last_pgno] on the list */
    uint64_t budget; /* pages left to read: a walk must not loop */
};

static int
meta_walk_list(struct meta_walk *w, const struct page_node *node, const uint8_t *inside)
{
    size_t count = node->data_len / sizeof(uint64_t);
    uint64_t *list;
    int rc = 0;

    if (count == 0 || node->data_len % sizeof(uint64_t) != 0)
        return EIO;
    list = malloc(node->data_len);
    if (list == NULL)
        return ENOMEM;
    if (inside != NULL)
        memcpy(list, inside, node->data_len);
    else
        rc = meta_pread(w->fd, list, node->data_len,
                        node->child * w->meta->psize + PAGE_HEADER_LEN);
    if (rc == 0 && list[0] >= count)
        rc = EIO;
    for (size_t i = 1; rc == 0 && i <= list[0]; i++)
        if (list[i] >= w->first && list[i] <= w->meta->page.last_pgno)
            w->found++;
    free(list);
    return rc;
}

static int
meta_walk_tree(struct meta_walk *w, uint64_t pgno, unsigned depth)
{
    size_t psize = w->meta->psize;
    uint8_t *page;
    struct page_header h;
    struct page_node node;
    int rc;

    if (depth == 0 || w->budget-- == 0)
        return EIO;
    page = malloc(psize);
    if (page == NULL)
        return ENOMEM;
    rc = meta_pread(w->fd, page, psize, pgno * psize);
    if (rc == 0 && kvfs_page_check(page, psize, pgno, w->meta->page.last_pgno + 1,
                                   PAGE_ORDER_NUMBER, NULL) != NULL)
        rc = EIO;
    memcpy(&h, page, sizeof(h));
    for (size_t i = 0; rc == 0 && i < page_keys(&h); i++) {
        if (!kvfs_page_node(page, psize, i, &node))
            rc = EIO;
        else if (h.flags == PAGE_LEAF)
            rc = meta_walk_list(w, &node, node.data);
        else
            rc = meta_walk_tree(w, node.child, depth - 1);
    }
    free(page);
    return rc;
}

static int
meta_check_length(int fd, const char *path, const struct kvfs_lmdb_meta *meta,
                  struct kvfs_error *err)
{
    uint64_t last = meta->page.last_pgno;
    uint64_t need = (last + 1) * meta->psize;
    struct meta_walk w = {.fd = fd, .meta = meta, .first = meta->file_bytes / meta->psize,
                          .budget = last + 1};
    int rc = EIO;

    if (meta->file_bytes >= need)
        return 0;
    if (meta->page.dbs[PAGE_DB_FREE].root != PAGE_NONE)
        rc = meta_walk_tree(&w, meta->page.dbs[PAGE_DB_FREE].root,
                            meta->page.dbs[PAGE_DB_FREE].depth);
    if (rc == ENOMEM)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    if (rc != 0 || w.found != last + 1 - w.first)
        return kvfs_error_set(err, -EIO,
                              "%s: truncated: it has %" PRIu64 " bytes and must have %" PRIu64,
                              path, meta->file_bytes, need);
    return 0;
}

struct meta_pair {
    struct {
        struct page_header header;
        struct page_meta meta;
    } p[PAGE_METAS];
};

/* Read both pages; the second lies where the first one's page size says. */
static int
meta_read_pair(int fd, const char *path, uint64_t file_bytes, struct meta_pair *pair,
               struct kvfs_error *err)
{
    size_t psize = 0;

    for (unsigned i = 0; i < PAGE_METAS; i++) {
        int rc;

        if (file_bytes < i * psize + sizeof(pair->p[i]))
            return kvfs_error_set(err, i == 0 ? -EINVAL : -EIO,
                                  i == 0 ? "%s: not an LMDB store: only %" PRIu64 " bytes"
                                         : "%s: truncated: only %" PRIu64 " bytes",
                                  path, file_bytes);
        rc = meta_pread(fd, &pair->p[i], sizeof(pair->p[i]), i * psize);
        if (rc != 0)
            return kvfs_lmdb_error(err, rc, path, "reading the meta pages");
        if (pair->p[i].meta.magic != PAGE_META_MAGIC || pair->p[i].header.flags != PAGE_META)
            return kvfs_error_set(err, i == 0 ? -EINVAL : -EIO, "%s: %s (meta page %u)", path,
                                  i == 0 ? "not an LMDB store" : "damaged", i);
        if (pair->p[i].meta.format != PAGE_META_FORMAT)
            return kvfs_error_set(err, -EINVAL, "%s: LMDB format %" PRIu32 ", only %u is known",
                                  path, pair->p[i].meta.format, PAGE_META_FORMAT);
        psize = pair->p[i].meta.dbs[PAGE_DB_FREE].pad;
        if (psize < PAGE_SIZE_MIN || psize > PAGE_SIZE_MAX || (psize & (psize - 1)) != 0)
            return kvfs_error_set(err, -EIO, "%s: damaged: meta page %u has page size %zu", path,
                                  i, psize);
    }
    if (psize != pair->p[0].meta.dbs[PAGE_DB_FREE].pad)
        return kvfs_error_set(err, -EIO, "%s: damaged: the meta pages differ in page size", path);
    return 0;
}

/* A writer in another process may be at work: two equal reads are a state that
 * was there. */
static int
meta_read_stable(int fd, const char *path, uint64_t file_bytes, struct meta_pair *pair,
                 struct kvfs_error *err)
{
    struct meta_pair again;
    int rc = meta_read_pair(fd, path, file_bytes, pair, err);

    for (unsigned tries = 0; rc == 0 && tries < META_READ_TRIES; tries++) {
        rc = meta_read_pair(fd, path, file_bytes, &again, err);
        if (rc != 0 || memcmp(pair, &again, sizeof(again)) == 0)
            return rc;
        *pair = again;
    }
    return rc != 0 ? rc : kvfs_error_set(err, -EBUSY, "%s: its writer does not rest", path);
}

int
kvfs_lmdb_meta_read(int fd, const char *path, struct kvfs_lmdb_meta *meta, struct kvfs_error *err)
{
    struct meta_pair pair;
    uint64_t id[PAGE_METAS];
    const char *what;
    struct stat st;
    int rc;

    if (fstat(fd, &st) != 0)
        return kvfs_lmdb_error(err, errno, path, "stat");
    if (!S_ISREG(st.st_mode))
        return kvfs_error_set(err, -EINVAL, "%s: not a regular file", path);
    if (st.st_size == 0)
        return kvfs_error_set(err, -ENOENT, "%s: empty, not a store yet", path);
    rc = meta_read_stable(fd, path, (uint64_t)st.st_size, &pair, err);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; i < PAGE_METAS; i++) {
        what = meta_judge_either(&pair.p[i].header, &pair.p[i].meta, i);
        if (what != NULL)
            return kvfs_error_set(err, -EIO, "%s: damaged: meta page %u %s", path, i, what);
        id[i] = pair.p[i].meta.txnid;
    }
    if (id[0] != id[1] + 1 && id[1] != id[0] + 1 && (id[0] != 0 || id[1] != 0))
        return kvfs_error_set(err, -EIO,
                              "%s: damaged: the meta pages are of transactions %" PRIu64
                              " and %" PRIu64,
                              path, id[0], id[1]);
    meta->page = pair.p[id[1] > id[0]].meta;
    what = meta_judge_newest(&meta->page);
    if (what != NULL)
        return kvfs_error_set(err, -EIO, "%s: damaged: meta page %u %s", path, id[1] > id[0],
                              what);
    meta->psize = meta->page.dbs[PAGE_DB_FREE].pad;
    if (fstat(fd, &st) != 0) /* the writer may have grown it since */
        return kvfs_lmdb_error(err, errno, path, "stat");
    meta->file_bytes = (uint64_t)st.st_size;
    return meta_check_length(fd, path, meta, err);
}

int
kvfs_lmdb_meta_of(int fd, uint64_t txnid, struct kvfs_lmdb_meta *meta)
{
    struct {
        struct page_header header;
        struct page_meta meta;
    } p;
    int rc = meta_pread(fd, &p, sizeof(p), (txnid & 1) * meta->psize);

    if (rc != 0)
        return rc;
    if (p.meta.txnid != txnid)
        return EAGAIN;
    if (meta_judge_newest(&p.meta) != NULL)
        return EIO;
    meta->page = p.meta;
    return 0;
}
