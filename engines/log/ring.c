/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ring.c - appending to the log's file, and finding its end after a crash.
 *
 *  1. A record is believed only if its checksum, the store, the epoch, its sequence
 *     number and the checksum of the record before it are right.  An old lap has other
 *     sequence numbers, an old file another epoch, so neither is taken for new.  After a
 *     power cut sequence numbers are used again, and what lay behind the end may still be
 *     there; so each opening for writing puts a random number of its own into its records: even
 *     the same record has another checksum then, and an old one that followed it does not now.
 *  2. Records lie in the order of their sequence numbers.  One that does not fit before
 *     the file's end lies at its beginning; a reader that finds nothing looks there once.
 *  3. A record never reaches the tail: when head and tail are equal the ring is empty.
 *  4. All blocks of the file are written before its first record, so a record changes no
 *     metadata of the file system, and one flush of data is enough.  They are written in
 *     pieces, each on the device before the next, for others flush meanwhile.
 *  5. After a write or a flush failed nothing more is written: what the kernel holds
 *     of it is unknown, and a later flush could say success for lost pages.  Whatever the
 *     reason, -EIO is answered: the record may lie in the file all the same.
 *  6. A record that is flushed goes past the kernel's cache where the file system lets it
 *     (O_DIRECT with RWF_DSYNC): the shortest way to the device.  Elsewhere it is RWF_DSYNC,
 *     or a write and fdatasync().
 *  7. What a writer finds it writes once more, and flushes before or with the next that is: a
 *     process that died leaves some that only the kernel holds, and after a flush that failed
 *     the kernel takes them for written.  So it is with the file's head.
 *  8. The file is looked for in its folder, which is held open, never by its path: whoever
 *     renames the folder of a store in use and puts another there must not have that changed.
 *
 * The file, numbers in little-endian:
 *
 *      0  magic 8, version 4, zero 4, id 16, epoch 8, bytes 8, XXH3 of these 8
 *   4096  records, each at a multiple of 4096:
 *           magic 4, payload length 4, id 16, epoch 8, seq 8, before 8, opening 8,
 *           XXH3 of the record with this field zero 8, payload, zeros
 */
#include "ring.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#define RING_MAGIC      "kvfslog"
#define RING_VERSION    1u
#define RING_RECORD     0x5266766bu /* "kvfR" */
#define RING_PIECE_BYTES ((size_t)512 << 10)
#define RING_BUFFER_KEPT ((size_t)2 << 20)

struct ring_head { /* of the file */
    char magic[8];
    uint32_t version, zero;
    uint8_t id[KVFS_RING_ID];
    uint64_t epoch, bytes, check;
};

struct ring_record {
    uint32_t magic, len;
    uint8_t id[KVFS_RING_ID];
    uint64_t epoch, seq, before, opening, check;
};

_Static_assert(sizeof(struct ring_record) == KVFS_RING_HEAD, "a record's head");

struct kvfs_ring {
    char *path;
    int folder; /* the caller's */
    int fd;
    int direct_fd; /* of the same file, past the kernel's cache; -1: refused */
    int grow_fd;   /* likewise, once it grows: that of the records must not miss the news of a
                    * write of theirs that failed */
    bool readonly;
    bool failed;
    bool dirty;    /* something written waits for a flush */
    bool no_dsync; /* the file system refuses RWF_DSYNC */
    uint8_t id[KVFS_RING_ID];
    uint64_t epoch;
    uint64_t opening;     /* the number of this one */
    _Atomic uint64_t end; /* of the file; changed as the head is, read by any thread */
    struct kvfs_ring_at head;
    _Atomic uint64_t used;
    uint64_t tail;  /* offset */
    uint64_t ready; /* behind the end: zeros up to here */
    bool ready_flushed;
    enum kvfs_ring_bug bug;
    uint8_t *buffer; /* for the next record */
    size_t buffer_bytes;
};

static uint64_t
ring_round(uint64_t len)
{
    return (len + KVFS_RING_ALIGN - 1) & ~(uint64_t)(KVFS_RING_ALIGN - 1);
}

static int
ring_error(struct kvfs_error *err, int code, const char *path, const char *what)
{
    return kvfs_error_set(err, code, "%s: %s: %s", path, what, strerrordesc_np(-code));
}

/* Of errno, which a call that ended early may not have set. */
static int
ring_errno(struct kvfs_error *err, const char *path, const char *what)
{
    return ring_error(err, errno != 0 ? -errno : -EIO, path, what);
}

/* --- the file ------------------------------------------------------------------------ */

static void
ring_head_fill(struct ring_head *h, const uint8_t id[KVFS_RING_ID], uint64_t epoch, uint64_t bytes)
{
    *h = (struct ring_head){
        .magic = RING_MAGIC,
        .version = htole32(RING_VERSION),
        .epoch = htole64(epoch),
        .bytes = htole64(bytes),
    };
    memcpy(h->id, id, KVFS_RING_ID);
    h->check = htole64(XXH3_64bits(h, offsetof(struct ring_head, check)));
}

static int
ring_write_fd(int fd, const void *buffer, size_t bytes, uint64_t offset, int flags)
{
    const uint8_t *from = buffer;

    while (bytes > 0) {
        struct iovec iov = {.iov_base = (void *)(uintptr_t)from, .iov_len = bytes};
        ssize_t n = pwritev2(fd, &iov, 1, (off_t)offset, flags);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        from += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* Have what was written to [at, at + len) on the device.  It does no flush where it can do
 * without one. */
static int
ring_push(int fd, uint64_t at, size_t len)
{
    int rc = sync_file_range(fd, (off_t)at, (off_t)len,
                             SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                 SYNC_FILE_RANGE_WAIT_AFTER);

    if (rc != 0 && (errno == EINVAL || errno == ENOSYS || errno == ESPIPE || errno == EOPNOTSUPP))
        rc = fdatasync(fd);
    return rc == 0 ? 0 : -errno;
}

/* Write zeros over [at, end).  The caller flushes. */
static int
ring_zero(int fd, uint64_t at, uint64_t end)
{
    uint8_t *zeros = calloc(1, RING_PIECE_BYTES);
    int rc = zeros != NULL ? 0 : -ENOMEM;

    while (at < end && rc == 0) {
        size_t want = end - at < RING_PIECE_BYTES ? (size_t)(end - at) : RING_PIECE_BYTES;

        rc = ring_write_fd(fd, zeros, want, at, 0);
        if (rc == 0)
            rc = ring_push(fd, at, want);
        at += want;
    }
    free(zeros);
    return rc;
}

static int
ring_fill(int fd, const struct ring_head *h, uint64_t bytes)
{
    int rc = ring_zero(fd, 0, bytes);

    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    if (rc == 0)
        rc = ring_write_fd(fd, h, sizeof(*h), 0, 0);
    return rc != 0 ? rc : fsync(fd) == 0 ? 0 : -errno;
}

static const char *
ring_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

int
kvfs_ring_make(const struct kvfs_ring_file *file, uint64_t bytes, struct kvfs_error *err)
{
    const char *name = ring_name(file->path);
    size_t len = strlen(name) + sizeof(".new");
    char *fresh = malloc(len);
    struct ring_head h;
    int fd, rc = 0;

    if (fresh == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", file->path);
    (void)snprintf(fresh, len, "%s.new", name);
    ring_head_fill(&h, file->id, file->epoch, bytes);
    fd = openat(file->folder, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    rc = fd >= 0 ? ring_fill(fd, &h, bytes) : -errno;
    if (rc == 0 && renameat(file->folder, fresh, file->folder, name) != 0)
        rc = -errno;
    if (fd >= 0)
        (void)close(fd);
    if (rc != 0) {
        (void)unlinkat(file->folder, fresh, 0);
        (void)ring_error(err, rc, file->path, "making the log");
    } else if (fsync(file->folder) != 0) {
        (void)ring_errno(err, file->path, "flushing the log's folder");
        rc = -EIO; /* whatever it was: the old file may be gone, or come back */
    }
    free(fresh);
    return rc;
}

/* Is this the log of ID and EPOCH?  NULL, or what is wrong. */
static const char *
ring_head_judge(const struct ring_head *h, const struct stat *st, const uint8_t id[KVFS_RING_ID],
                uint64_t epoch)
{
    if (memcmp(h->magic, RING_MAGIC, sizeof(RING_MAGIC)) != 0)
        return "not a log";
    if (le64toh(h->check) != XXH3_64bits(h, offsetof(struct ring_head, check)))
        return "the log's head is damaged";
    if (le32toh(h->version) != RING_VERSION)
        return "a log of another version";
    if (memcmp(h->id, id, KVFS_RING_ID) != 0)
        return "the log of another store";
    if (le64toh(h->epoch) != epoch)
        return "a log that was replaced";
    if (le64toh(h->bytes) < KVFS_RING_MIN || le64toh(h->bytes) > KVFS_RING_MAX ||
        le64toh(h->bytes) % KVFS_RING_ALIGN != 0 || (uint64_t)st->st_size < le64toh(h->bytes))
        return "the log is shorter than its head says";
    return NULL;
}

/* Read the head of the open file, which may have become longer. */
static int
ring_head_read(struct kvfs_ring *r, struct kvfs_error *err)
{
    struct ring_head h;
    const char *what;
    struct stat st;

    if (fstat(r->fd, &st) != 0)
        return ring_errno(err, r->path, "opening the log");
    if (pread(r->fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
        return kvfs_error_set(err, -EINVAL, "%s: not a log", r->path);
    what = ring_head_judge(&h, &st, r->id, r->epoch);
    if (what != NULL)
        return kvfs_error_set(err, -EINVAL, "%s: %s", r->path, what);
    atomic_store(&r->end, le64toh(h.bytes));
    return 0;
}

/* One more descriptor of the same file.  -1, errno. */
static int
ring_open_again(const struct kvfs_ring *r, int flags)
{
    int fd = openat(r->folder, ring_name(r->path), flags | O_CLOEXEC);
    struct stat ours, st;

    if (fd < 0 || (fstat(r->fd, &ours) == 0 && fstat(fd, &st) == 0 && st.st_ino == ours.st_ino &&
                   st.st_dev == ours.st_dev))
        return fd;
    (void)close(fd);
    errno = ESTALE;
    return -1;
}

static int
ring_open(struct kvfs_ring *r, struct kvfs_error *err)
{
    r->fd = openat(r->folder, ring_name(r->path), (r->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (r->fd < 0)
        return ring_errno(err, r->path, "opening the log");
    if (!r->readonly &&
        getrandom(&r->opening, sizeof(r->opening), 0) != (ssize_t)sizeof(r->opening))
        return kvfs_error_set(err, -EIO, "%s: no random numbers", r->path);
    r->direct_fd = r->readonly ? -1 : ring_open_again(r, O_WRONLY | O_DIRECT);
    return ring_head_read(r, err);
}

int
kvfs_ring_open(const struct kvfs_ring_file *file, bool readonly, struct kvfs_ring **ringp,
               struct kvfs_error *err)
{
    struct kvfs_ring *r = calloc(1, sizeof(*r));
    int rc;

    if (r == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", file->path);
    r->folder = file->folder;
    r->fd = r->direct_fd = r->grow_fd = -1;
    r->readonly = readonly;
    r->epoch = file->epoch;
    r->head = kvfs_ring_first();
    r->tail = r->head.offset;
    memcpy(r->id, file->id, KVFS_RING_ID);
    r->path = strdup(file->path);
    rc = r->path != NULL ? ring_open(r, err)
                         : kvfs_error_set(err, -ENOMEM, "%s: no memory", file->path);
    if (rc == 0)
        *ringp = r;
    else
        kvfs_ring_close(r);
    return rc;
}

void
kvfs_ring_unsafe(struct kvfs_ring *r, enum kvfs_ring_bug bug)
{
    r->bug = bug;
}

static void
ring_files_close(struct kvfs_ring *r)
{
    if (r->fd >= 0)
        (void)close(r->fd);
    if (r->direct_fd >= 0)
        (void)close(r->direct_fd);
    if (r->grow_fd >= 0)
        (void)close(r->grow_fd);
}

void
kvfs_ring_become(struct kvfs_ring *r, struct kvfs_ring *next)
{
    ring_files_close(r);
    r->fd = next->fd;
    r->direct_fd = next->direct_fd;
    r->grow_fd = next->grow_fd;
    next->fd = next->direct_fd = next->grow_fd = -1;
    r->ready = next->ready;
    r->ready_flushed = next->ready_flushed;
    r->failed = next->failed;
    r->dirty = next->dirty;
    r->no_dsync = next->no_dsync;
    memcpy(r->id, next->id, KVFS_RING_ID);
    r->epoch = next->epoch;
    r->opening = next->opening;
    atomic_store(&r->end, atomic_load(&next->end));
    r->head = next->head;
    r->tail = next->tail;
    atomic_store(&r->used, atomic_load(&next->used));
    kvfs_ring_close(next);
}

void
kvfs_ring_close(struct kvfs_ring *r)
{
    if (r == NULL)
        return;
    ring_files_close(r);
    free(r->buffer);
    free(r->path);
    free(r);
}

struct kvfs_ring_at
kvfs_ring_first(void)
{
    return (struct kvfs_ring_at){.offset = KVFS_RING_ALIGN, .seq = 1};
}

/* --- recovery ------------------------------------------------------------------------ */

static ssize_t
ring_pread(const struct kvfs_ring *r, void *to, size_t len, uint64_t offset)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = pread(r->fd, (uint8_t *)to + got, len - got, (off_t)(offset + got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? n : (ssize_t)got;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

bool
kvfs_ring_unused(const struct kvfs_ring *r)
{
    uint8_t first[KVFS_RING_ALIGN]; /* the first record of a ring lies here */

    if (ring_pread(r, first, sizeof(first), KVFS_RING_ALIGN) != (ssize_t)sizeof(first))
        return false;
    for (size_t i = 0; i < sizeof(first); i++)
        if (first[i] != 0)
            return false;
    return true;
}

static uint64_t
ring_check(struct ring_record *rec, size_t len)
{
    uint64_t kept = rec->check, check;

    rec->check = 0;
    check = XXH3_64bits(rec, sizeof(*rec) + len);
    rec->check = kept;
    return check;
}

/* Does the record's head fit AT?  Its length lies in the file then. */
static bool
ring_head_fits(const struct kvfs_ring *r, const struct kvfs_ring_at *at,
               const struct ring_record *rec)
{
    if (rec->magic != htole32(RING_RECORD) || memcmp(rec->id, r->id, KVFS_RING_ID) != 0 ||
        le64toh(rec->epoch) != r->epoch ||
        le32toh(rec->len) > r->end - at->offset - sizeof(*rec))
        return false;
    if (r->bug == KVFS_RING_BUG_OLD_LAP)
        return true;
    return le64toh(rec->seq) == at->seq &&
           (le64toh(rec->before) == at->before || r->bug == KVFS_RING_BUG_NO_CHECK);
}

/* The record at AT in *bufferp (which grows), and its payload's length; 1: it fits, 0: it does
 * not. */
static int
ring_read(struct kvfs_ring *r, const struct kvfs_ring_at *at, void **bufferp, size_t *cap,
          size_t *len)
{
    struct ring_record rec;
    ssize_t n;

    if (at->offset + KVFS_RING_ALIGN > r->end)
        return 0;
    n = ring_pread(r, &rec, sizeof(rec), at->offset);
    if (n < 0)
        return -errno;
    *len = le32toh(rec.len);
    if (n != (ssize_t)sizeof(rec) || !ring_head_fits(r, at, &rec))
        return 0;
    if (*cap < sizeof(rec) + *len) {
        void *more = realloc(*bufferp, sizeof(rec) + *len);

        if (more == NULL)
            return -ENOMEM;
        *bufferp = more;
        *cap = sizeof(rec) + *len;
    }
    n = ring_pread(r, *bufferp, sizeof(rec) + *len, at->offset);
    if (n < 0)
        return -errno;
    if (r->bug == KVFS_RING_BUG_NO_CHECK)
        return 1;
    return n == (ssize_t)(sizeof(rec) + *len) &&
           ring_check(*bufferp, *len) == le64toh(((struct ring_record *)*bufferp)->check);
}

static uint64_t
ring_distance(const struct kvfs_ring *r, uint64_t from, uint64_t to)
{
    return to >= from ? to - from : r->end - from + to - KVFS_RING_ALIGN;
}

/* Would a record at OFFSET, looked for from AT on, have reached the tail?  (Invariant 3.) */
static bool
ring_reaches_tail(const struct kvfs_ring *r, uint64_t at, uint64_t offset, size_t len)
{
    return (offset < r->tail || offset != at) &&
           offset + ring_round(KVFS_RING_HEAD + len) >= r->tail;
}

/* Invariant 7. */
static int
ring_again(struct kvfs_ring *r, const void *bytes, size_t len, uint64_t offset)
{
    r->dirty = !r->readonly;
    return r->readonly ? 0 : ring_write_fd(r->fd, bytes, len, offset, 0);
}

static int
ring_head_again(struct kvfs_ring *r, struct kvfs_error *err)
{
    struct ring_head h;
    int rc;

    ring_head_fill(&h, r->id, r->epoch, r->end);
    rc = ring_again(r, &h, sizeof(h), 0);
    return rc == 0 ? 0 : ring_error(err, rc, r->path, "writing the log's head once more");
}

int
kvfs_ring_recover(struct kvfs_ring *r, const struct kvfs_ring_at *tail, kvfs_ring_fn *fn, void *arg,
                  struct kvfs_error *err)
{
    struct kvfs_ring_at at = *tail;
    void *buffer = NULL;
    size_t cap = 0, len = 0;
    int rc = ring_head_read(r, err);

    if (rc == 0)
        rc = ring_head_again(r, err);
    if (rc != 0)
        return rc;
    if (at.offset < KVFS_RING_ALIGN || at.offset > r->end || at.offset % KVFS_RING_ALIGN != 0)
        return kvfs_error_set(err, -EINVAL, "%s: no record can begin at %llu", r->path,
                              (unsigned long long)at.offset);
    r->tail = at.offset;
    while (at.seq - tail->seq < r->end / KVFS_RING_ALIGN) { /* more it cannot hold */
        struct kvfs_ring_at next = at;

        rc = ring_read(r, &at, &buffer, &cap, &len);
        if (rc == 0 && at.offset != KVFS_RING_ALIGN) {
            next.offset = KVFS_RING_ALIGN;
            rc = ring_read(r, &next, &buffer, &cap, &len);
        }
        if (rc <= 0 || buffer == NULL || ring_reaches_tail(r, at.offset, next.offset, len))
            break;
        rc = fn(arg, &next, (uint8_t *)buffer + KVFS_RING_HEAD, len);
        if (rc >= 0)
            rc = ring_again(r, buffer, KVFS_RING_HEAD + len, next.offset);
        if (rc < 0)
            break;
        at.before = le64toh(((struct ring_record *)buffer)->check);
        at.seq++;
        at.offset = next.offset + ring_round(KVFS_RING_HEAD + len);
    }
    free(buffer);
    r->head = at;
    atomic_store(&r->used, ring_distance(r, r->tail, at.offset));
    return rc >= 0 ? 0 : ring_error(err, rc, r->path, "recovering the log");
}

/* --- appending ------------------------------------------------------------------------ */

uint8_t *
kvfs_ring_payload(struct kvfs_ring *r, size_t len)
{
    size_t bytes = ring_round(KVFS_RING_HEAD + len);

    if (bytes > r->buffer_bytes || r->buffer_bytes > RING_BUFFER_KEPT) {
        free(r->buffer);
        r->buffer = aligned_alloc(KVFS_RING_ALIGN, bytes);
        r->buffer_bytes = r->buffer != NULL ? bytes : 0;
        if (r->buffer == NULL)
            return NULL;
    }
    memset(r->buffer + KVFS_RING_HEAD + len, 0, bytes - KVFS_RING_HEAD - len);
    return r->buffer + KVFS_RING_HEAD;
}

/* Where a record of BYTES goes; 0: nowhere (invariant 3). */
static uint64_t
ring_place(const struct kvfs_ring *r, uint64_t bytes)
{
    uint64_t at = r->head.offset;

    if (at >= r->tail) {
        if (bytes <= r->end - at)
            return at;
        at = KVFS_RING_ALIGN;
        return at + bytes < r->tail ? at : 0;
    }
    return at + bytes < r->tail ? at : 0;
}

const char *
kvfs_ring_path(const struct kvfs_ring *r)
{
    return r->path;
}

uint64_t
kvfs_ring_takes(size_t len)
{
    return ring_round(KVFS_RING_HEAD + len);
}

bool
kvfs_ring_fits(const struct kvfs_ring *r, size_t len)
{
    return ring_place(r, ring_round(KVFS_RING_HEAD + len)) != 0;
}

/* Write, and with DSYNC flush what was written; what the file system refuses is
 * not asked of it again. */
static int
ring_write(struct kvfs_ring *r, const void *buffer, size_t bytes, uint64_t offset, bool *dsync)
{
    bool direct = *dsync && r->direct_fd >= 0;
    int rc = ring_write_fd(direct ? r->direct_fd : r->fd, buffer, bytes, offset,
                           *dsync ? RWF_DSYNC : 0);

    if (rc == -EINVAL && direct) {
        (void)close(r->direct_fd);
        r->direct_fd = -1;
        rc = ring_write_fd(r->fd, buffer, bytes, offset, *dsync ? RWF_DSYNC : 0);
    }
    if (rc == -EOPNOTSUPP && *dsync) {
        r->no_dsync = true;
        *dsync = false;
        rc = ring_write_fd(r->fd, buffer, bytes, offset, 0);
    }
    return rc;
}

static int
ring_fail(struct kvfs_ring *r, int code, const char *what, struct kvfs_error *err)
{
    r->failed = true;
    return kvfs_error_set(err, -EIO, "%s: %s: %s", r->path, what, strerrordesc_np(-code));
}

/* Also: is it still there?  What goes to a file without a name is lost at the next open.  Times
 * are not asked for: a kernel with fine-grained ones would write the inode anew with each record. */
static int
ring_usable(struct kvfs_ring *r, struct kvfs_error *err)
{
    struct statx st;

    if (r->failed)
        return kvfs_error_set(err, -EIO, "%s: an earlier write failed", r->path);
    if (statx(r->fd, "", AT_EMPTY_PATH, STATX_NLINK, &st) != 0)
        return ring_fail(r, -errno, "looking at the log", err);
    if (st.stx_nlink == 0) {
        r->failed = true;
        return kvfs_error_set(err, -EIO, "%s: the log was removed", r->path);
    }
    return 0;
}

int
kvfs_ring_flush(struct kvfs_ring *r, struct kvfs_error *err)
{
    int rc = ring_usable(r, err);

    if (rc != 0 || !r->dirty)
        return rc;
    if (fdatasync(r->fd) != 0)
        return ring_fail(r, -errno, "flushing the log", err);
    r->dirty = false;
    return 0;
}

int
kvfs_ring_append(struct kvfs_ring *r, size_t len, bool flush, struct kvfs_ring_at *at,
                 struct kvfs_error *err)
{
    uint64_t bytes = ring_round(KVFS_RING_HEAD + len), offset = ring_place(r, bytes);
    /* One call does both where nothing else waits for a flush. */
    bool dsync = flush && !r->dirty && !r->no_dsync;
    struct ring_record *rec = (struct ring_record *)(void *)r->buffer;
    int rc = ring_usable(r, err);

    if (rc != 0)
        return rc;
    if (offset == 0)
        return kvfs_error_set(err, -EAGAIN, "%s: no room for %zu bytes", r->path, len);
    *rec = (struct ring_record){
        .magic = htole32(RING_RECORD),
        .len = htole32((uint32_t)len),
        .epoch = htole64(r->epoch),
        .seq = htole64(r->head.seq),
        .before = htole64(r->head.before),
        .opening = htole64(r->opening),
    };
    memcpy(rec->id, r->id, KVFS_RING_ID);
    rec->check = htole64(ring_check(rec, len));
    rc = ring_write(r, rec, bytes, offset, &dsync);
    if (rc != 0)
        return ring_fail(r, rc, "writing the log", err);
    if (at != NULL)
        *at = (struct kvfs_ring_at){offset, r->head.seq, r->head.before};
    r->head = (struct kvfs_ring_at){offset + bytes, r->head.seq + 1, le64toh(rec->check)};
    atomic_store(&r->used, ring_distance(r, r->tail, r->head.offset));
    if (dsync)
        return 0;
    r->dirty = true;
    return flush ? kvfs_ring_flush(r, err) : 0;
}

bool
kvfs_ring_may_grow(const struct kvfs_ring *r)
{
    return r->head.offset >= r->tail && !r->failed;
}

int
kvfs_ring_grow_prepare(struct kvfs_ring *r, uint64_t bytes, struct kvfs_error *err)
{
    uint64_t at = r->ready > r->end ? r->ready : r->end, end = bytes;
    int rc;

    if (r->grow_fd < 0)
        r->grow_fd = ring_open_again(r, O_WRONLY);
    if (r->grow_fd < 0)
        return ring_errno(err, r->path, "making the log longer");
    if (end > at + RING_PIECE_BYTES)
        end = at + RING_PIECE_BYTES;
    /* Behind the end that the head tells nobody reads. */
    rc = ring_zero(r->grow_fd, at, end);
    if (rc == 0 && end > at) {
        r->ready = end;
        r->ready_flushed = false;
    }
    if (rc == 0 && end == bytes && !r->ready_flushed) {
        rc = fsync(r->grow_fd) == 0 ? 0 : -errno;
        r->ready_flushed = rc == 0;
    }
    if (rc == 0)
        return end < bytes;
    (void)ftruncate(r->grow_fd, (off_t)r->end);
    r->ready = 0;
    return ring_error(err, rc, r->path, "making the log longer");
}

int
kvfs_ring_grow(struct kvfs_ring *r, uint64_t bytes, struct kvfs_error *err)
{
    struct ring_head h;
    int rc;

    ring_head_fill(&h, r->id, r->epoch, bytes);
    rc = ring_write_fd(r->fd, &h, sizeof(h), 0, 0);
    if (rc == 0 && fdatasync(r->fd) != 0)
        rc = -errno;
    if (rc != 0)
        return ring_fail(r, rc, "making the log longer", err);
    atomic_store(&r->end, bytes);
    atomic_store(&r->used, ring_distance(r, r->tail, r->head.offset));
    return 0;
}

void
kvfs_ring_release(struct kvfs_ring *r, const struct kvfs_ring_at *tail)
{
    r->tail = tail->offset;
    atomic_store(&r->used, ring_distance(r, r->tail, r->head.offset));
}

void
kvfs_ring_skip(struct kvfs_ring *r)
{
    r->head.seq++;
}

struct kvfs_ring_at
kvfs_ring_head(const struct kvfs_ring *r)
{
    return r->head;
}

uint64_t
kvfs_ring_bytes(const struct kvfs_ring *r)
{
    return r->end - KVFS_RING_ALIGN;
}

uint64_t
kvfs_ring_used(const struct kvfs_ring *r)
{
    return atomic_load(&r->used);
}
