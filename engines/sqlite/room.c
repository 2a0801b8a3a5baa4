/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.c - how full the store is, and room for deletes when it is full.
 *
 *  1. A batch takes room twice: frames in the log, and pages in the database when
 *     the log is checkpointed.  Both are reserved (fallocate) before a batch with
 *     puts is let in, by an estimate of the pages that it changes; so a checkpoint
 *     never meets a full medium.
 *  2. Of the room a part is kept for batches that delete: they change pages in the
 *     database and need frames in the log only.  Another part is kept for batches that
 *     fit into pages which are free: the database never becomes shorter, so what was
 *     deleted is room again only if the log has some as well.
 *  3. Where the file system cannot reserve, what it says is free has to do.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "sqlite_priv.h"

#define ROOM_HEAD_BYTES  ((uint64_t)2 << 20) /* for deletes; of the log */
#define ROOM_INSIDE_BYTES ((uint64_t)6 << 20) /* for batches that let no file grow, at most */
#define ROOM_HEAD_PAGES  (ROOM_HEAD_BYTES / KVFS_SQ_PAGE / 8) /* of the database */
#define ROOM_FRAME_BYTES (KVFS_SQ_PAGE + 24u)
#define ROOM_SLACK_PAGES 16u /* the counters, roots, the free list's trunk */
#define ROOM_ROW_HEAD    24u /* a row's numbers and types */
#define ROOM_INDEX_ENTRY 32u /* bytes of a DATA key in its index */
#define ROOM_MORE_BYTES  ((uint64_t)1 << 20) /* reserved at once, beyond what is needed */
#define ROOM_PLENTY_BYTES ((uint64_t)256 << 20) /* free on the medium */
#define ROOM_PATIENCE    200 /* times that a checkpoint asks readers to let go, 10 ms apart */

struct room_need {
    uint64_t data_puts, meta_puts, dels;
    uint64_t row_bytes; /* of new rows, in pages that are half empty at worst */
};

/* A row, whose tail lies in pages of its own where it is long (fileformat2.html, 1.6). */
static uint64_t
room_row_bytes(uint64_t len)
{
    uint64_t usable = KVFS_SQ_PAGE - 8, local_min = (usable - 12) * 32 / 255 - 23, local;

    if (len <= usable - 35)
        return 2 * len < KVFS_SQ_PAGE ? 2 * len : KVFS_SQ_PAGE;
    local = local_min + (len - local_min) % (usable - 4);
    if (local > usable - 35)
        local = local_min;
    return (len - local + usable - 5) / (usable - 4) * KVFS_SQ_PAGE +
           (2 * local < KVFS_SQ_PAGE ? 2 * local : KVFS_SQ_PAGE);
}

static void
room_need(const struct kvfs_batch *batch, struct room_need *n)
{
    *n = (struct room_need){.data_puts = 0};
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];
        uint64_t len = (uint64_t)op->key_len + op->value[0].iov_len + op->value[1].iov_len;

        if (op->type == KVFS_OP_PUT) {
            n->data_puts += op->keyspace == KVFS_DATA;
            n->meta_puts += op->keyspace == KVFS_META;
            n->row_bytes += room_row_bytes(len + ROOM_ROW_HEAD);
        } else if (op->type <= KVFS_OP_DEL_RANGE) {
            n->dels++;
        }
    }
}

/* Pages that the batch may add to the database of USED pages, and pages that it may
 * change or add, which is frames of the log.  At worst each key goes to a leaf of its
 * own and splits it, but no more leaves are touched than there are. */
static void
room_pages(const struct room_need *n, uint64_t used, uint64_t data_records, uint64_t *grow,
           uint64_t *frames)
{
    uint64_t leaves = (data_records + n->data_puts) * 2 * ROOM_INDEX_ENTRY / KVFS_SQ_PAGE + 1;
    uint64_t touched = 2 * n->data_puts + 3 * (n->meta_puts + n->dels); /* with a neighbour */

    *grow = ROOM_SLACK_PAGES + n->row_bytes / KVFS_SQ_PAGE + 1 + n->meta_puts +
            (n->data_puts < leaves ? n->data_puts : leaves);
    *frames = ROOM_SLACK_PAGES + *grow + (touched < used ? touched : used);
}

/* Make sure that FD has blocks up to END.  0, -ENOSPC or -EIO. */
static int
room_take(struct kvfs_db *db, int fd, uint64_t *reserved, uint64_t end)
{
    struct statvfs vfs;
    struct stat st;
    uint64_t more;

    if (end <= *reserved)
        return 0;
    if (fstatvfs(fd, &vfs) != 0 || fstat(fd, &st) != 0)
        return -EIO;
    if (!db->no_fallocate) {
        /* Where room is dear, what one file holds in reserve the other one lacks. */
        more = (uint64_t)vfs.f_bavail * vfs.f_frsize > ROOM_PLENTY_BYTES ? ROOM_MORE_BYTES : 0;
        if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(end + more)) == 0) {
            *reserved = end + more;
            return 0;
        }
        if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
            return -ENOSPC;
        if (errno != EOPNOTSUPP && errno != ENOSYS)
            return -EIO;
        db->no_fallocate = true;
    }
    return end <= (uint64_t)st.st_size + (uint64_t)vfs.f_bavail * vfs.f_frsize ? 0 : -ENOSPC;
}

/* Bytes of the log once N more frames are in it: the file never becomes shorter by
 * itself, and new frames follow the old ones or begin anew. */
static uint64_t
room_wal_bytes(const struct kvfs_db *db, uint64_t n)
{
    uint64_t end = ((uint64_t)db->wal_pages + n) * ROOM_FRAME_BYTES;
    struct stat st;

    return fstat(db->wal_fd, &st) == 0 && (uint64_t)st.st_size > end ? (uint64_t)st.st_size : end;
}

/* What is kept of the log for batches that fit into free pages. */
static uint64_t
room_inside_bytes(const struct kvfs_db *db)
{
    uint64_t share = db->limit_bytes / 16;

    return db->limit_bytes > 0 && share < ROOM_INSIDE_BYTES ? share : ROOM_INSIDE_BYTES;
}

static int
room_full(const struct kvfs_db *db, uint64_t need_bytes, struct kvfs_error *err)
{
    if (db->limit_bytes > 0)
        return kvfs_error_set(err, -ENOSPC, "%s: the store is full: a batch may need %llu KiB, "
                              "%llu are allowed in all", db->path,
                              (unsigned long long)need_bytes >> 10,
                              (unsigned long long)db->limit_bytes >> 10);
    return kvfs_error_set(err, -ENOSPC, "%s: the file system is full: a batch may need %llu KiB",
                          db->path, (unsigned long long)need_bytes >> 10);
}

/* Inside a write transaction. */
static int
room_judge(struct kvfs_db *db, const struct room_need *n, struct kvfs_error *err)
{
    uint64_t end, log, grow, frames, need_bytes;
    struct sq_counts counts;
    int64_t pages, unused;
    struct stat st;
    int rc = kvfs_sq_number(db->writer, SQ_PAGES, &pages);

    if (rc == SQLITE_OK)
        rc = kvfs_sq_number(db->writer, SQ_FREE_PAGES, &unused);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_counts(db->writer, &counts);
    if (rc != SQLITE_OK)
        return kvfs_sq_error(err, rc, db->writer, db->path, "looking at its size");
    room_pages(n, (uint64_t)(pages - unused), (uint64_t)counts.records[KVFS_DATA], &grow, &frames);
    need_bytes = grow * KVFS_SQ_PAGE + frames * ROOM_FRAME_BYTES;
    end = (uint64_t)pages;
    if ((uint64_t)unused < grow)
        end += grow - (uint64_t)unused;
    log = room_wal_bytes(db, frames);
    if (n->data_puts > 0) {
        end += ROOM_HEAD_PAGES;
        log += ROOM_HEAD_BYTES + ((uint64_t)unused < grow ? room_inside_bytes(db) : 0);
    }
    if (db->limit_bytes > 0 && end * KVFS_SQ_PAGE + log > db->limit_bytes)
        return room_full(db, need_bytes, err);
    if (fstat(db->wal_fd, &st) == 0 && (uint64_t)st.st_blocks * 512 < db->wal_reserved_bytes)
        db->wal_reserved_bytes = (uint64_t)st.st_blocks * 512; /* another process emptied it */
    rc = room_take(db, db->file_fd, &db->file_reserved_bytes, end * KVFS_SQ_PAGE);
    if (rc == 0)
        rc = room_take(db, db->wal_fd, &db->wal_reserved_bytes, log);
    if (rc == -ENOSPC)
        return room_full(db, need_bytes, err);
    return rc != 0 ? kvfs_error_set(err, rc, "%s: cannot reserve room", db->path) : 0;
}

int
kvfs_sq_room_check(struct kvfs_db *db, const struct kvfs_batch *batch, struct kvfs_error *err)
{
    struct room_need n;

    room_need(batch, &n);
    if (n.data_puts + n.meta_puts == 0)
        return 0;
    /* Deletes touch neighbours mostly.  If the headroom should not do all the same, SQLite
     * says so, and the batch is tried once more with an empty log. */
    if (n.data_puts == 0 && n.dels > 0 && n.meta_puts * 3 * ROOM_FRAME_BYTES <= ROOM_HEAD_BYTES / 4)
        return 0;
    return room_judge(db, &n, err);
}

bool
kvfs_sq_room_shrink(struct kvfs_db *db)
{
    struct stat st;

    if (fstat(db->wal_fd, &st) != 0 || st.st_size == 0)
        return false;
    db->writer->patience = ROOM_PATIENCE; /* readers may keep it */
    if (sqlite3_wal_checkpoint_v2(db->writer->db, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) ==
        SQLITE_OK) {
        db->wal_pages = 0;
        db->wal_reserved_bytes = 0; /* what lay reserved behind its end is gone as well */
    }
    db->writer->patience = 0;
    return db->wal_pages == 0;
}

void
kvfs_sq_room_reserve(struct kvfs_db *db)
{
    (void)room_take(db, db->wal_fd, &db->wal_reserved_bytes,
                    room_wal_bytes(db, 0) + ROOM_HEAD_BYTES);
}

/* A batch of X bytes by kvfs's reckoning needs at most 1.5 X in the log, for every page
 * that it touches, and beyond the pages that are free 2 X in all (measured at what
 * room_pages() demands of blocks of 512 bytes to 64 KiB). */
uint64_t
kvfs_sq_room_avail(struct kvfs_db *db, uint64_t pages, uint64_t free_pages, bool log_is_pinned)
{
    uint64_t keep = ROOM_HEAD_BYTES +
                    (ROOM_HEAD_PAGES + (uint64_t)2 * ROOM_SLACK_PAGES) * KVFS_SQ_PAGE;
    uint64_t unused = free_pages * KVFS_SQ_PAGE, used = pages * KVFS_SQ_PAGE;
    uint64_t log = 0, all, inside, growing, reserve = room_inside_bytes(db);
    struct statvfs vfs;
    struct stat st;

    /* What the log holds is its own to use again, as far as snapshots let it. */
    if (fstatvfs(db->file_fd, &vfs) == 0)
        log = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    if (db->wal_fd >= 0 && fstat(db->wal_fd, &st) == 0)
        log += (uint64_t)st.st_blocks * 512;
    all = log + (fstat(db->file_fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : used);
    if (log_is_pinned)
        used += room_wal_bytes(db, 0);
    if (db->limit_bytes > 0 && all > db->limit_bytes)
        all = db->limit_bytes;
    all = all > used + keep ? all - used - keep : 0;
    log = log > keep ? log - keep : 0;
    log = all < log ? all : log;
    inside = log * 2 / 3 < unused ? log * 2 / 3 : unused;
    log = log > reserve ? (log - reserve) * 2 / 3 : 0;
    all = all > reserve ? (all - reserve + unused) / 2 : 0;
    growing = all < log ? all : log;
    return inside > growing ? inside : growing;
}
