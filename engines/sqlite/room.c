/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.c - how full the store is, and room for deletes when it is full.
 *
 *  1. A batch takes room twice: frames in the log, and pages in the database when
 *     the log is checkpointed.  Both are reserved (fallocate) before a batch with
 *     puts is let in, by an estimate of the pages that it changes; so a checkpoint
 *     never meets a full medium.
 *  2. Of the room a part is kept for batches that delete: they change pages in the
 *     database and need frames in the log only.
 *  3. Where the file system cannot reserve, what it says is free has to do.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "sqlite_priv.h"

#define ROOM_HEAD_BYTES  ((uint64_t)2 << 20) /* for deletes; of the log */
#define ROOM_HEAD_PAGES  (ROOM_HEAD_BYTES / KVFS_SQ_PAGE / 8) /* of the database */
#define ROOM_FRAME_BYTES (KVFS_SQ_PAGE + 24u)
#define ROOM_SLACK_PAGES 16u /* the counters, roots, the free list's trunk */
#define ROOM_MORE_BYTES  ((uint64_t)1 << 20) /* reserved at once, beyond what is needed */

struct room_need {
    uint64_t data_puts, meta_puts, dels;
    uint64_t pages; /* that may be changed or added */
};

static void
room_need(const struct kvfs_batch *batch, struct room_need *n)
{
    *n = (struct room_need){.pages = ROOM_SLACK_PAGES};
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];
        uint64_t len = (uint64_t)op->key_len + op->value[0].iov_len + op->value[1].iov_len;

        if (op->type == KVFS_OP_PUT) {
            n->data_puts += op->keyspace == KVFS_DATA;
            n->meta_puts += op->keyspace == KVFS_META;
            n->pages += len / (KVFS_SQ_PAGE - 12) + 3; /* overflow pages, leaves, a split */
        } else if (op->type <= KVFS_OP_DEL_RANGE) {
            n->dels++;
            n->pages += 3;
        }
    }
}

/* Make sure that FD has blocks up to END.  0, -ENOSPC or -EIO. */
static int
room_take(struct kvfs_db *db, int fd, uint64_t *reserved, uint64_t end)
{
    struct statvfs vfs;
    struct stat st;

    if (end <= *reserved)
        return 0;
    if (!db->no_fallocate) {
        if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(end + ROOM_MORE_BYTES)) == 0) {
            *reserved = end + ROOM_MORE_BYTES;
            return 0;
        }
        if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
            if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)end) != 0)
                return -ENOSPC;
            *reserved = end;
            return 0;
        }
        if (errno != EOPNOTSUPP && errno != ENOSYS)
            return -EIO;
        db->no_fallocate = true;
    }
    if (fstatvfs(fd, &vfs) != 0 || fstat(fd, &st) != 0)
        return -EIO;
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

void
kvfs_sq_room_before(struct kvfs_db *db, const struct kvfs_batch *batch)
{
    struct room_need n;
    int64_t pages;

    room_need(batch, &n);
    if (db->limit_bytes == 0 || kvfs_sq_number(db->writer, SQ_PAGES, &pages) != SQLITE_OK ||
        ((uint64_t)pages + n.pages) * KVFS_SQ_PAGE + room_wal_bytes(db, n.pages) +
                2 * ROOM_HEAD_BYTES <= db->limit_bytes)
        return;
    /* Readers may keep it: then the batch is refused, if it does not fit. */
    if (sqlite3_wal_checkpoint_v2(db->writer->db, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) ==
        SQLITE_OK)
        db->wal_pages = 0;
}

int
kvfs_sq_room_check(struct kvfs_db *db, const struct kvfs_batch *batch, struct kvfs_error *err)
{
    int64_t pages, unused;
    struct room_need n;
    uint64_t end, log;
    int rc;

    room_need(batch, &n);
    if (n.data_puts + n.meta_puts == 0)
        return 0;
    if (n.data_puts == 0 && n.dels > 0 && n.pages * ROOM_FRAME_BYTES <= ROOM_HEAD_BYTES / 4)
        return 0;
    rc = kvfs_sq_number(db->writer, SQ_PAGES, &pages);
    if (rc == SQLITE_OK)
        rc = kvfs_sq_number(db->writer, SQ_FREE_PAGES, &unused);
    if (rc != SQLITE_OK)
        return kvfs_sq_error(err, rc, db->writer, db->path, "looking at its size");
    end = (uint64_t)pages;
    if ((uint64_t)unused < n.pages)
        end += n.pages - (uint64_t)unused;
    log = room_wal_bytes(db, n.pages);
    if (n.data_puts > 0) {
        end += ROOM_HEAD_PAGES;
        log += ROOM_HEAD_BYTES;
    }
    if (db->limit_bytes > 0 && end * KVFS_SQ_PAGE + log > db->limit_bytes)
        return kvfs_error_set(err, -ENOSPC, "%s: the store is full: %llu of %llu KiB are used",
                              db->path, (unsigned long long)(pages - unused) * KVFS_SQ_PAGE / 1024,
                              (unsigned long long)db->limit_bytes / 1024);
    rc = room_take(db, db->file_fd, &db->file_reserved_bytes, end * KVFS_SQ_PAGE);
    if (rc == 0)
        rc = room_take(db, db->wal_fd, &db->wal_reserved_bytes, log);
    if (rc == -ENOSPC)
        return kvfs_error_set(err, rc, "%s: the file system is full: the batch needs %llu KiB",
                              db->path,
                              (unsigned long long)(n.pages * (ROOM_FRAME_BYTES + KVFS_SQ_PAGE)) >>
                                  10);
    return rc != 0 ? kvfs_error_set(err, rc, "%s: cannot reserve room", db->path) : 0;
}

void
kvfs_sq_room_reserve(struct kvfs_db *db)
{
    (void)room_take(db, db->wal_fd, &db->wal_reserved_bytes,
                    room_wal_bytes(db, 0) + ROOM_HEAD_BYTES);
}

uint64_t
kvfs_sq_room_avail(struct kvfs_db *db, uint64_t pages, uint64_t free_pages)
{
    uint64_t room = free_pages * KVFS_SQ_PAGE, keep = ROOM_HEAD_PAGES * KVFS_SQ_PAGE, grow = 0;
    struct statvfs vfs;

    if (fstatvfs(db->file_fd, &vfs) == 0)
        grow = (uint64_t)vfs.f_bavail * vfs.f_frsize / 2; /* as much for the log */
    if (db->limit_bytes > 0) {
        uint64_t held = pages * KVFS_SQ_PAGE + ROOM_HEAD_BYTES;
        uint64_t most = db->limit_bytes > held ? db->limit_bytes - held : 0;

        grow = grow < most ? grow : most;
    }
    room += grow;
    return room > keep ? room - keep : 0;
}
