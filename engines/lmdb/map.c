/* SPDX-License-Identifier: BSD-3-Clause
 *
 * map.c - the size of LMDB's memory map, and where it lies.
 *
 * The map is only address space: 1 TiB of it, or as much as the kernel gives (a
 * Raspberry Pi's may have 39-bit addresses), so that nobody has to guess how
 * large a store will become.  With store_max_bytes it is that large instead,
 * which makes the limit exact.
 *
 * Another process may have a larger map and have grown the store beyond ours.
 * LMDB then refuses to begin transactions (MDB_MAP_RESIZED) until the map is
 * made anew, and that is allowed only while this process has no transaction: this
 * happens behind the gate (gate.c).
 *
 * Where the map lies is needed to judge pointers that LMDB hands out (read.c)
 * and pages that it is about to change (path.c).  LMDB does not tell, so it is
 * computed from the place of one record that is read both ways, through LMDB and
 * with pread.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "lmdb_priv.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MAP_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MAP_SANITIZED 1
#endif

#ifdef MAP_SANITIZED
#define MAP_BYTES ((uint64_t)64 << 30)
#else
#define MAP_BYTES ((uint64_t)1 << 40)
#endif
#define MAP_ALIGN_BYTES ((uint64_t)64 << 10) /* of every kernel's pages */

size_t
kvfs_lmdb_map_choose(uint64_t used_bytes, uint64_t limit_bytes, size_t psize)
{
    uint64_t bytes = limit_bytes > 0 && limit_bytes < MAP_BYTES ? limit_bytes : MAP_BYTES;
    uint64_t least = used_bytes + 64 * (uint64_t)psize; /* so that deletes find pages */

    if (limit_bytes > MAP_BYTES)
        bytes = limit_bytes;
    if (bytes < least)
        bytes = limit_bytes > 0 ? least : least * 2;
    return (size_t)((bytes + MAP_ALIGN_BYTES - 1) & ~(MAP_ALIGN_BYTES - 1));
}

/* --- where the map lies --------------------------------------------------------- */

struct map_find {
    struct kvfs_db *db;
    struct kvfs_db_snap *snap;
    const uint8_t *record; /* of the first database in the main tree */
    size_t record_len;
    char name[32];
    size_t name_len;
};

static int
map_find_guarded(void *arg)
{
    struct map_find *f = arg;
    MDB_cursor *mc;
    MDB_dbi dbi;
    MDB_val key, data;
    int rc = mdb_dbi_open(f->snap->txn, NULL, 0, &dbi);

    if (rc == 0)
        rc = mdb_cursor_open(f->snap->txn, dbi, &mc);
    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(mc, &key, &data, MDB_FIRST);
    if (rc == 0 && key.mv_size > sizeof(f->name))
        rc = MDB_CORRUPTED;
    if (rc == 0) {
        f->record = data.mv_data;
        f->record_len = data.mv_size;
        f->name_len = key.mv_size;
        memcpy(f->name, key.mv_data, key.mv_size);
    }
    mdb_cursor_close(mc);
    return rc;
}

/* Find the same record in the file.  *at: its offset. */
static int
map_find_in_file(const struct map_find *f, int fd, uint64_t *at)
{
    struct kvfs_lmdb_meta meta;
    struct page_header h;
    struct page_node node;
    uint8_t *page;
    uint64_t pgno;
    int rc;

    if (kvfs_lmdb_meta_read(fd, f->db->path, &meta, NULL) != 0)
        return EIO;
    rc = kvfs_lmdb_meta_of(fd, f->snap->txnid, &meta);
    if (rc != 0)
        return rc;
    page = malloc(meta.psize);
    if (page == NULL)
        return ENOMEM;
    pgno = meta.page.dbs[PAGE_DB_MAIN].root;
    for (unsigned depth = 0;; depth++) {
        if (pread(fd, page, meta.psize, (off_t)(pgno * meta.psize)) != (ssize_t)meta.psize ||
            kvfs_page_check(page, meta.psize, pgno, meta.page.last_pgno + 1, PAGE_ORDER_BYTES,
                            NULL) != NULL ||
            !kvfs_page_node(page, meta.psize, 0, &node) || depth > PAGE_DEPTH_MAX)
            rc = MDB_CORRUPTED;
        memcpy(&h, page, sizeof(h));
        if (rc != 0 || h.flags == PAGE_LEAF)
            break;
        pgno = node.child;
    }
    if (rc == 0 && (node.data == NULL || node.key_len != f->name_len ||
                    memcmp(node.key, f->name, f->name_len) != 0))
        rc = MDB_CORRUPTED;
    if (rc == 0)
        *at = pgno * meta.psize + (uint64_t)(node.data - page);
    free(page);
    return rc;
}

int
kvfs_lmdb_map_locate(struct kvfs_db *db)
{
    int rc = EAGAIN;

    for (unsigned tries = 0; rc == EAGAIN && tries < 100; tries++) {
        struct map_find f = {.db = db};
        MDB_envinfo info;
        uint64_t at = 0;
        int fd = -1;

        rc = kvfs_lmdb_begin_inside(db, &f.snap);
        if (rc != 0)
            return rc;
        rc = kvfs_lmdb_guard(map_find_guarded, &f);
        if (rc == 0)
            rc = mdb_env_get_fd(db->env, &fd);
        if (rc == 0)
            rc = kvfs_lmdb_env_info(db, &info);
        if (rc == 0)
            rc = map_find_in_file(&f, fd, &at);
        if (rc == 0) {
            db->map = f.record - at;
            db->map_bytes = info.me_mapsize;
            if ((uintptr_t)db->map % 4096 != 0)
                rc = MDB_CORRUPTED;
        }
        kvfs_lmdb_end(f.snap);
    }
    return rc;
}

/* --- growing ------------------------------------------------------------------------ */

struct map_resize {
    struct kvfs_db *db;
    size_t bytes;
};

static int
map_resize_guarded(void *arg)
{
    struct map_resize *r = arg;

    return mdb_env_set_mapsize(r->db->env, r->bytes);
}

static int
map_resize(struct kvfs_db *db, struct kvfs_error *err)
{
    struct kvfs_lmdb_meta meta;
    struct map_resize r = {.db = db};
    int fd = -1;
    int rc = mdb_env_get_fd(db->env, &fd);

    if (rc == 0)
        rc = kvfs_lmdb_meta_read(fd, db->path, &meta, err);
    if (rc != 0)
        return rc;
    r.bytes = kvfs_lmdb_map_choose((meta.page.last_pgno + 1) * meta.psize, db->limit_bytes,
                                   meta.psize);
    if (r.bytes <= db->map_bytes) /* somebody else was faster */
        return 0;
    /* Room for the other process to grow on without a new map at once. */
    r.bytes += r.bytes / 2;
    rc = kvfs_lmdb_guard(map_resize_guarded, &r);
    if (rc == 0)
        rc = kvfs_lmdb_map_locate(db);
    return rc != 0 ? kvfs_lmdb_error(err, rc, db->path, "mapping the grown store") : 0;
}

int
kvfs_lmdb_map_grow(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc;

    (void)pthread_mutex_lock(&db->apply_lock);
    if (kvfs_lmdb_gate_close(db)) {
        rc = map_resize(db, err);
        kvfs_lmdb_gate_open(db);
    } else {
        rc = kvfs_lmdb_error(err, MDB_MAP_RESIZED, db->path, "following its growth");
    }
    (void)pthread_mutex_unlock(&db->apply_lock);
    return rc;
}
