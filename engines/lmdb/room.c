/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.c - how full the store is, and room for deletes when it is full.
 *
 * LMDB changes no page in place.  A delete, too, first takes new pages for every
 * page on the way to the record, and only then are the old ones free, for a later
 * transaction.  A store filled to the last page could so never be emptied.
 *
 *  1. Headroom: a part of the room, growing with the store from 256 KiB to 4 MiB,
 *     is for deletes.  A batch with puts is refused with -ENOSPC, before anything
 *     is changed, if an estimate of the pages that it takes would leave less.  Half
 *     of it may be used by batches that put META records only (a trim is one).
 *  2. Reserve: on a file system the headroom consists of blocks that belong to the
 *     file already: fallocate() reserves them behind the last used page, at open
 *     and after each batch that came near.  So neither other users of the file
 *     system nor our own puts can take them.  Where the file system cannot reserve
 *     (or, copying on write, cannot promise), what it says is free has to do.
 *  3. Room is the free pages inside the file plus the pages by which it may still
 *     grow: the least of map, limit and file system.  Growth is exact and looked at
 *     first.  Only if it does not suffice the free list is summed up, without the
 *     entries that an open snapshot, of any process, still holds back.  What the
 *     newest transaction freed may be taken not by the next one but by the one
 *     after it; if that would do, an empty transaction is put in between, or a
 *     store emptied by one large delete would stay full.
 *     What snapshots hold back that last only for a moment, as a look at the store's
 *     size does, a batch waits for a little.
 *  4. Estimates may be wrong (the free pages may not lie in a row as a large value
 *     needs); then LMDB meets the end of the map or ENOSPC itself, aborts, and
 *     nothing is changed either.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lmdb_priv.h"

#define ROOM_HEAD_MIN_BYTES ((uint64_t)256 << 10)
#define ROOM_HEAD_MAX_BYTES ((uint64_t)4 << 20)
#define ROOM_HEAD_SHARE     128 /* of the used pages */
#define ROOM_PROBE_BYTES    ((uint64_t)1 << 20)
#define ROOM_SLACK_PAGES    16 /* main tree, roots, ends of the free list */

int
kvfs_lmdb_usage(struct kvfs_db *db, MDB_txn *txn, struct kvfs_lmdb_usage *u)
{
    MDB_dbi dbi[4] = {db->dbi[KVFS_META], db->dbi[KVFS_DATA], PAGE_DB_FREE, PAGE_DB_MAIN};
    uint64_t entries[2] = {0, 0};
    MDB_envinfo info;
    int rc;

    u->used_pages = PAGE_METAS;
    for (int i = 0; i < 4; i++) {
        MDB_stat st;

        rc = mdb_stat(txn, dbi[i], &st);
        if (rc != 0)
            return rc;
        u->used_pages += st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages;
        if (i < 2) {
            entries[i] = st.ms_entries;
            u->leaf_pages[i] = st.ms_leaf_pages;
            u->branch_pages[i] = st.ms_branch_pages;
        }
    }
    u->meta_records = entries[KVFS_META];
    u->data_records = entries[KVFS_DATA];
    rc = mdb_env_info(db->env, &info);
    if (rc != 0)
        return rc;
    u->high_pages = info.me_last_pgno + 1;
    if (u->high_pages < u->used_pages) /* a snapshot older than the newest state */
        u->high_pages = u->used_pages;
    return 0;
}

static uint64_t
room_headroom(const struct kvfs_db *db, const struct kvfs_lmdb_usage *u)
{
    uint64_t bytes = u->used_pages * db->layout.psize / ROOM_HEAD_SHARE;

    if (bytes < ROOM_HEAD_MIN_BYTES)
        bytes = ROOM_HEAD_MIN_BYTES;
    if (bytes > ROOM_HEAD_MAX_BYTES)
        bytes = ROOM_HEAD_MAX_BYTES;
    return bytes / db->layout.psize;
}

/* Pages by which the file may still grow. */
static uint64_t
room_growth(const struct kvfs_db *db, const struct kvfs_lmdb_usage *u)
{
    uint64_t high = u->high_pages * db->layout.psize;
    uint64_t end = db->map_bytes;
    uint64_t medium;
    struct statvfs vfs;
    mdb_filehandle_t fd;

    if (db->limit_bytes > 0 && db->limit_bytes < end)
        end = db->limit_bytes;
    if (mdb_env_get_fd(db->env, &fd) != 0 || fstatvfs(fd, &vfs) != 0)
        return 0;
    medium = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    medium += db->room.reserve_end_bytes > high ? db->room.reserve_end_bytes : high;
    if (medium < end)
        end = medium;
    return end > high ? (end - high) / db->layout.psize : 0;
}

/* --- free pages that may be used now ----------------------------------------------- */

struct room_free {
    struct kvfs_db_snap *snap;
    uint64_t oldest_reader; /* of others; UINT64_MAX: none */
    uint64_t now;           /* pages that the next transaction may take */
    uint64_t later;         /* pages that the one after it may take besides */
    uint64_t held;          /* and those that readers hold back */
};

static int
room_free_guarded(void *arg)
{
    struct room_free *f = arg;
    uint64_t newest = f->snap->txnid;
    MDB_cursor *mc;
    MDB_val key, data;
    int rc = mdb_cursor_open(f->snap->txn, PAGE_DB_FREE, &mc);

    if (rc != 0)
        return rc;
    while ((rc = mdb_cursor_get(mc, &key, &data, MDB_NEXT)) == 0) {
        uint64_t txnid, count;

        if (key.mv_size != sizeof(txnid) || data.mv_size < sizeof(count))
            break;
        memcpy(&txnid, key.mv_data, sizeof(txnid));
        memcpy(&count, data.mv_data, sizeof(count));
        if (txnid >= f->oldest_reader)
            f->held += count;
        else if (txnid < newest)
            f->now += count;
        else
            f->later += count;
    }
    mdb_cursor_close(mc);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* SNAP: a snapshot of the newest state. */
static void
room_free_pages(struct kvfs_db *db, struct kvfs_db_snap *snap, struct room_free *f)
{
    struct kvfs_lmdb_readers readers;

    *f = (struct room_free){.snap = snap};
    kvfs_lmdb_readers(db, snap, &readers);
    f->oldest_reader = readers.oldest_txnid != 0 ? readers.oldest_txnid : UINT64_MAX;
    if (kvfs_lmdb_guard(room_free_guarded, f) != 0)
        f->now = f->later = f->held = 0;
}

/* --- what a batch takes --------------------------------------------------------------- */

static void
room_need_put(const struct kvfs_lmdb_layout *l, const struct kvfs_op *op, struct kvfs_lmdb_need *n)
{
    size_t len = op->value[0].iov_len + op->value[1].iov_len;
    bool data = op->keyspace == KVFS_DATA;
    size_t keep = data ? kvfs_lmdb_layout_keep(l, len) : len + KVFS_LMDB_CHECK_LEN;
    size_t key_len = data ? KVFS_LMDB_DATA_HEAD + len - keep : op->key_len;
    size_t overflow;

    n->puts[op->keyspace]++;
    n->leaf_bytes += kvfs_lmdb_layout_leaf(l, key_len, keep);
    overflow = kvfs_lmdb_layout_overflow(l, key_len, keep);
    n->overflow_pages += overflow;
    n->runs = n->runs || overflow > 1;
}

static uint64_t
room_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void
kvfs_lmdb_need(const struct kvfs_db *db, const struct kvfs_batch *batch,
               const struct kvfs_lmdb_usage *u, struct kvfs_lmdb_need *n)
{
    uint64_t pages;

    *n = (struct kvfs_lmdb_need){.dels = 0};
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (op->type == KVFS_OP_PUT)
            room_need_put(&db->layout, op, n);
        else if (op->type == KVFS_OP_DEL || op->type == KVFS_OP_DEL_RANGE)
            n->dels++;
        else
            continue;
        n->touched[op->keyspace]++;
    }
    pages = n->overflow_pages + 2 * n->leaf_bytes / db->layout.psize;
    for (int i = 0; i < 2; i++)
        pages += room_min(n->touched[i], u->leaf_pages[i]) +
                 room_min(n->touched[i], u->branch_pages[i]);
    /* As many pages become free; their numbers are written down. */
    n->pages = pages + 2 * pages * sizeof(uint64_t) / db->layout.psize + ROOM_SLACK_PAGES;
}

enum kvfs_lmdb_room_answer
kvfs_lmdb_room_check(struct kvfs_db *db, const struct kvfs_lmdb_need *n,
                     const struct kvfs_lmdb_usage *u, struct kvfs_lmdb_patience patience,
                     struct kvfs_error *err)
{
    struct room_free f = {.now = 0};
    struct kvfs_db_snap *snap;
    uint64_t keep = room_headroom(db, u);
    uint64_t need = n->pages;
    uint64_t room;

    if (n->puts[KVFS_DATA] == 0) {
        if (n->dels > 0 && n->leaf_bytes + n->overflow_pages * db->layout.psize <=
                              keep * db->layout.psize / 8)
            return KVFS_LMDB_ROOM_OK;
        if (n->puts[KVFS_META] == 0)
            return KVFS_LMDB_ROOM_OK;
        keep /= 2;
    }
    room = room_growth(db, u);
    if (room >= need + keep)
        return KVFS_LMDB_ROOM_OK;
    if (kvfs_lmdb_begin_inside(db, &snap) == 0) {
        room_free_pages(db, snap, &f);
        kvfs_lmdb_end(snap);
    }
    room += f.now;
    if (room >= need + keep)
        return KVFS_LMDB_ROOM_OK;
    if (room + f.later >= need + keep && patience.turns)
        return KVFS_LMDB_ROOM_TURN;
    if (room + f.later + f.held >= need + keep && patience.waits)
        return KVFS_LMDB_ROOM_HELD;
    (void)kvfs_error_set(err, -ENOSPC,
                         "%s: %s full: the batch needs %llu KiB, %llu KiB are left beside %llu "
                         "KiB kept for deletes",
                         db->path, db->limit_bytes > 0 ? "the store is" : "the file system is",
                         (unsigned long long)(need * db->layout.psize >> 10),
                         (unsigned long long)((room > keep ? room - keep : 0) * db->layout.psize >>
                                              10),
                         (unsigned long long)(keep * db->layout.psize >> 10));
    return KVFS_LMDB_ROOM_FULL;
}

uint64_t
kvfs_lmdb_room_avail(struct kvfs_db *db, struct kvfs_db_snap *snap,
                     const struct kvfs_lmdb_usage *u)
{
    uint64_t keep = room_headroom(db, u);
    uint64_t room = room_growth(db, u);
    struct room_free f;

    /* The free list is summed up only when it matters. */
    if (room * db->layout.psize < 16 * ROOM_HEAD_MAX_BYTES) {
        room_free_pages(db, snap, &f);
        room += f.now + f.later;
    } else {
        room += u->high_pages - u->used_pages;
    }
    return room > keep ? (room - keep) * db->layout.psize : 0;
}

/* --- the reserve -------------------------------------------------------------------------- */

void
kvfs_lmdb_room_reserve(struct kvfs_db *db)
{
    struct kvfs_lmdb_usage u = {.used_pages = 0};
    MDB_envinfo info;
    mdb_filehandle_t fd;
    uint64_t high, want, least;

    if (db->room.no_fallocate || kvfs_lmdb_env_info(db, &info) != 0 ||
        mdb_env_get_fd(db->env, &fd) != 0)
        return;
    u.used_pages = info.me_last_pgno + 1; /* a larger store, a larger reserve */
    high = u.used_pages * db->layout.psize;
    want = room_headroom(db, &u) * db->layout.psize;
    least = high + want;
    if (db->room.reserve_end_bytes >= least)
        return;
    /* Somewhat more than needed, so that not every batch comes here; less, where
     * there is not that much. */
    for (want += want / 2; want >= db->layout.psize; want /= 2) {
        if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)high, (off_t)want) == 0) {
            if (db->room.reserve_end_bytes < high + want)
                db->room.reserve_end_bytes = high + want;
            return;
        }
        if (errno == EOPNOTSUPP || errno == ENOSYS) {
            db->room.no_fallocate = true;
            return;
        }
    }
}

bool
kvfs_lmdb_room_exhausted(struct kvfs_db *db)
{
    struct statvfs vfs;
    mdb_filehandle_t fd;
    uint64_t end = db->room.reserve_end_bytes;
    MDB_envinfo info;

    if (mdb_env_get_fd(db->env, &fd) != 0 || kvfs_lmdb_env_info(db, &info) != 0)
        return false;
    if (end < (info.me_last_pgno + 1) * db->layout.psize)
        end = (info.me_last_pgno + 1) * db->layout.psize;
    if (!db->room.no_fallocate) {
        if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)end, (off_t)ROOM_PROBE_BYTES) != 0)
            return errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
        db->room.reserve_end_bytes = end + ROOM_PROBE_BYTES;
    }
    return fstatvfs(fd, &vfs) == 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize < ROOM_PROBE_BYTES;
}

/* --- readers ------------------------------------------------------------------------------- */

/* One line of mdb_reader_list(): pid, thread, transaction or "-". */
static int
room_reader_line(const char *line, void *arg)
{
    struct kvfs_lmdb_readers *r = arg;
    char *end;
    long pid = strtol(line, &end, 10);
    unsigned long long txnid;

    if (pid <= 0 || *end != ' ')
        return 0; /* the heading */
    (void)strtoull(end, &end, 16);
    if (*end != ' ' || end[1] < '0' || end[1] > '9')
        return 0; /* a place kept, no snapshot */
    txnid = strtoull(end, &end, 10);
    if (pid == r->own_pid && txnid == r->skip_txnid) {
        r->skip_txnid = 0;
        return 0;
    }
    r->count++;
    r->foreign = r->foreign || pid != r->own_pid;
    if (r->oldest_txnid == 0 || txnid < r->oldest_txnid) {
        r->oldest_txnid = txnid;
        r->oldest_pid = (uint32_t)pid;
    }
    return 0;
}

void
kvfs_lmdb_readers(struct kvfs_db *db, const struct kvfs_db_snap *mine,
                  struct kvfs_lmdb_readers *r)
{
    for (unsigned tries = 0; tries < 2; tries++) {
        *r = (struct kvfs_lmdb_readers){.own_pid = getpid(),
                                        .skip_txnid = mine != NULL ? mine->txnid : 0};
        kvfs_lmdb_reader_list(db, room_reader_line, r);
        /* Another process may have died with its snapshots. */
        if (!r->foreign || tries > 0 || db->unlocked)
            return;
        kvfs_lmdb_reader_check(db);
    }
}
