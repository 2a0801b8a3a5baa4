/* SPDX-License-Identifier: BSD-3-Clause
 *
 * recording.c - see recording.h.
 *
 * 1. Each change is one entry of the log, written when it is answered; what is in flight at a cut
 *    follows at the cut.  A flush is an entry when it is answered.
 * 2. A change that does not begin and end with a sector is widened to whole sectors, with what
 *    reads see beside it.  Zeros become a write whose bytes are a hole of the file; a trim that
 *    is whole sectors becomes a discard, another becomes zeros.  Zeros of more than 1 GiB are several
 *    entries; the sidecar names the first.
 * 3. The super block counts the entries before the last flush, FUA, mark or cut; a recording
 *    whose writer was killed is whole up to there.
 */
#include "recording.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECTOR       ((uint64_t)CRASHSIM_LOG_SECTOR)
#define RECORD_PIECE (UINT64_C(1) << 30) /* of zeros, in one entry */

struct crashsim_record {
    int fd, error;
    FILE *side;
    uint64_t size_bytes, entries, at; /* at: the end of the log */
};

static const char record_letters[] = {'w', 'z', 't'};

bool
crashsim_mark_is_good(const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return false;
    }
    return len > 0 && len <= CRASHSIM_MARK_MAX;
}

static void
record_failed(struct crashsim_record *r, int error)
{
    if (r->error == 0)
        r->error = error;
}

static void
record_put(struct crashsim_record *r, const void *buf, size_t count, uint64_t at)
{
    const uint8_t *p = buf;

    while (count > 0 && r->error == 0) {
        ssize_t n = pwrite(r->fd, p, count, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            record_failed(r, n < 0 ? -errno : -EIO);
            return;
        }
        p += n;
        at += (uint64_t)n;
        count -= (size_t)n;
    }
}

static void
record_super(struct crashsim_record *r)
{
    struct crashsim_log_super super = {
        .magic = htole64(CRASHSIM_LOG_MAGIC),
        .version = htole64(CRASHSIM_LOG_VERSION),
        .nr_entries = htole64(r->entries),
        .sectorsize = htole32(CRASHSIM_LOG_SECTOR),
    };
    uint8_t sector[SECTOR] = {0};

    memcpy(sector, &super, sizeof(super));
    record_put(r, sector, sizeof(sector), 0);
    if (fflush(r->side) != 0)
        record_failed(r, -errno);
}

static uint64_t
record_now(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int
crashsim_record_probe(const char *path)
{
    char *name = NULL;
    int r = 0;

    for (int i = 0; r == 0 && i < 2; i++) {
        int fd;

        if (asprintf(&name, "%s%s", path, i == 0 ? "" : ".side") < 0)
            return -ENOMEM;
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        r = fd < 0 ? -errno : 0;
        if (fd >= 0 && (close(fd) < 0 || unlink(name) < 0))
            r = -errno;
        free(name);
    }
    return r;
}

int
crashsim_record_new(const char *path, uint64_t size_bytes, uint64_t seed,
                    struct crashsim_record **record)
{
    struct crashsim_record *r = calloc(1, sizeof(*r));
    char *side = NULL;
    int fd = -1, error;

    if (r == NULL || asprintf(&side, "%s.side", path) < 0) {
        free(r);
        return -ENOMEM;
    }
    *r = (struct crashsim_record){.fd = -1, .size_bytes = size_bytes, .at = SECTOR};
    fd = open(side, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    r->side = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (r->side != NULL)
        r->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (r->fd < 0) {
        error = -errno;
        if (r->side != NULL)
            (void)fclose(r->side);
        if (fd >= 0)
            (void)unlink(side);
        free(side);
        free(r);
        return error;
    }
    free(side);
    if (fprintf(r->side, "crashsim-sidecar 1 size=%" PRIu64 " sector=%d seed=%" PRIu64 " t=%" PRIu64
                "\n", size_bytes, CRASHSIM_LOG_SECTOR, seed, record_now()) < 0)
        record_failed(r, -EIO);
    record_super(r);
    *record = r;
    return 0;
}

int
crashsim_record_error(const struct crashsim_record *r)
{
    return r->error;
}

uint64_t
crashsim_record_entries(const struct crashsim_record *r)
{
    return r->entries;
}

int
crashsim_record_free(struct crashsim_record *r)
{
    int error;

    record_super(r);
    if (r->error == 0 && ftruncate(r->fd, (off_t)r->at) < 0)
        record_failed(r, -errno);
    if (fclose(r->side) != 0)
        record_failed(r, -errno);
    if (close(r->fd) < 0)
        record_failed(r, -errno);
    error = r->error;
    free(r);
    return error;
}

/* A sector with the head of an entry; answers where it lies. */
static uint64_t
record_entry(struct crashsim_record *r, uint64_t sector, uint64_t nr_sectors, uint64_t flags,
             const char *name)
{
    size_t len = name != NULL ? strlen(name) : 0;
    struct crashsim_log_entry entry = {
        .sector = htole64(sector),
        .nr_sectors = htole64(nr_sectors),
        .flags = htole64(flags),
        .data_len = htole64(len),
    };
    uint8_t buf[SECTOR] = {0};
    uint64_t at = r->at;

    memcpy(buf, &entry, sizeof(entry));
    if (len > 0)
        (void)snprintf((char *)buf + sizeof(entry), sizeof(buf) - sizeof(entry), "%s", name);
    record_put(r, buf, sizeof(buf), at);
    r->entries++;
    r->at += SECTOR;
    if ((flags & CRASHSIM_LOG_DISCARD) == 0)
        r->at += nr_sectors * SECTOR;
    return at;
}

void
crashsim_record_submit(struct crashsim_record *r, const struct crashsim_write *w)
{
    if (r->error == 0 &&
        fprintf(r->side, "S id=%" PRIu64 " conn=%" PRIu32 " kind=%c offset=%" PRIu64
                " count=%" PRIu32 " fua=%d t=%" PRIu64 "\n", w->id, w->conn,
                record_letters[w->kind], w->offset, w->count, w->fua, record_now()) < 0)
        record_failed(r, -EIO);
}

/* What W puts into the sector that begins at START, as reads see the rest of it. */
static void
record_edge(struct crashsim_record *r, struct crashsim_disk *d, const struct crashsim_write *w,
            uint64_t start, uint64_t at)
{
    uint64_t stop = start + SECTOR, from = w->offset > start ? w->offset : start;
    uint64_t to = w->offset + w->count < stop ? w->offset + w->count : stop;
    uint8_t sector[SECTOR] = {0};
    int error;

    stop = stop < r->size_bytes ? stop : r->size_bytes;
    error = crashsim_disk_read(d, sector, (uint32_t)(stop - start), start);
    if (error < 0)
        record_failed(r, error);
    if (w->data != NULL)
        memcpy(sector + (from - start), w->data + (from - w->offset), (size_t)(to - from));
    else
        memset(sector + (from - start), 0, (size_t)(to - from));
    record_put(r, sector, sizeof(sector), at);
}

/* The entry of W; answers where it lies. */
static uint64_t
record_change(struct crashsim_record *r, struct crashsim_disk *d, const struct crashsim_write *w)
{
    uint64_t end = w->offset + w->count, first = w->offset / SECTOR;
    uint64_t sectors = (end + SECTOR - 1) / SECTOR - first, at, data;
    bool head = w->offset % SECTOR != 0, tail = end % SECTOR != 0;
    bool discard = w->kind == CRASHSIM_TRIM && !head && !tail;
    uint64_t flags = (w->fua ? CRASHSIM_LOG_FUA : 0) | (discard ? CRASHSIM_LOG_DISCARD : 0);

    at = record_entry(r, first, sectors, flags, NULL);
    data = at + SECTOR;
    if (head || (tail && sectors == 1))
        record_edge(r, d, w, first * SECTOR, data);
    if (tail && sectors > 1)
        record_edge(r, d, w, (first + sectors - 1) * SECTOR, data + (sectors - 1) * SECTOR);
    if (w->kind == CRASHSIM_WRITE) {
        uint64_t from = (first + (head || (tail && sectors == 1) ? 1 : 0)) * SECTOR;
        uint64_t to = end / SECTOR * SECTOR;

        if (from < to)
            record_put(r, w->data + (from - w->offset), (size_t)(to - from),
                       data + (from - first * SECTOR));
    } else if (r->error == 0 && ftruncate(r->fd, (off_t)r->at) < 0) {
        record_failed(r, -errno);
    }
    return at;
}

void
crashsim_record_write(struct crashsim_record *r, struct crashsim_disk *d,
                      const struct crashsim_write *w)
{
    struct crashsim_write piece = *w;
    uint64_t end = w->offset + w->count, entry = r->entries, at = UINT64_MAX;
    bool whole = w->kind == CRASHSIM_WRITE ||
                 (w->kind == CRASHSIM_TRIM && w->offset % SECTOR == 0 && end % SECTOR == 0);

    /* Others read the bytes of an entry at once, and read() takes less than 2 GiB. */
    for (; r->error == 0 && piece.offset < end; piece.offset += piece.count) {
        uint64_t stop = (piece.offset / RECORD_PIECE + 1) * RECORD_PIECE, from;

        piece.count = (uint32_t)((whole || stop > end ? end : stop) - piece.offset);
        from = record_change(r, d, &piece);
        at = at == UINT64_MAX ? from : at;
    }
    if (r->error != 0)
        return;
    if (w->seq != 0 &&
        fprintf(r->side, "C id=%" PRIu64 " seq=%" PRIu64 " entry=%" PRIu64 " at=%" PRIu64
                " t=%" PRIu64 "\n", w->id, w->seq, entry, at, record_now()) < 0)
        record_failed(r, -EIO);
    if (w->seq == 0 && fprintf(r->side, "I id=%" PRIu64 " entry=%" PRIu64 " at=%" PRIu64 "\n",
                               w->id, entry, at) < 0)
        record_failed(r, -EIO);
    if (w->fua)
        record_super(r);
}

void
crashsim_record_fail(struct crashsim_record *r, uint64_t id, int error)
{
    if (r->error == 0 &&
        fprintf(r->side, "E id=%" PRIu64 " error=%d t=%" PRIu64 "\n", id, error, record_now()) < 0)
        record_failed(r, -EIO);
}

void
crashsim_record_destage(struct crashsim_record *r, uint64_t id)
{
    if (r->error == 0 && fprintf(r->side, "D id=%" PRIu64 " t=%" PRIu64 "\n", id, record_now()) < 0)
        record_failed(r, -EIO);
}

void
crashsim_record_flush(struct crashsim_record *r, uint32_t conn, uint64_t bound, bool lies)
{
    if (r->error != 0)
        return;
    if (fprintf(r->side, "F conn=%" PRIu32 " bound=%" PRIu64 " lies=%d entry=%" PRIu64 " t=%" PRIu64
                "\n", conn, bound, lies, r->entries, record_now()) < 0)
        record_failed(r, -EIO);
    (void)record_entry(r, 0, 0, CRASHSIM_LOG_FLUSH, NULL);
    record_super(r);
}

void
crashsim_record_give_up(struct crashsim_record *r, int error)
{
    record_failed(r, error);
}

void
crashsim_record_mark(struct crashsim_record *r, const char *name)
{
    if (r->error != 0)
        return;
    if (fprintf(r->side, "M entry=%" PRIu64 " t=%" PRIu64 " name=%s\n", r->entries, record_now(),
                name) < 0)
        record_failed(r, -EIO);
    (void)record_entry(r, 0, 0, CRASHSIM_LOG_MARK, name);
    record_super(r);
}

void
crashsim_record_cut(struct crashsim_record *r, struct crashsim_disk *d,
                    const struct crashsim_choice *choice)
{
    size_t n = crashsim_disk_open_count(d);

    for (size_t i = 0; i < n; i++) {
        if (crashsim_disk_open(d, i)->seq == 0)
            crashsim_record_write(r, d, crashsim_disk_open(d, i));
    }
    if (r->error == 0 &&
        fprintf(r->side, "X open=%zu survive=%s", n,
                crashsim_choice_survive_name(choice->survive)) < 0)
        record_failed(r, -EIO);
    if (choice->indexed && r->error == 0 && fprintf(r->side, ":%" PRIu64, choice->index) < 0)
        record_failed(r, -EIO);
    if (r->error == 0 && fprintf(r->side, " tear=%s seed=%" PRIu64 " t=%" PRIu64 "\n",
                                 crashsim_choice_tear_name(choice->tear), choice->seed,
                                 record_now()) < 0)
        record_failed(r, -EIO);
    crashsim_record_mark(r, "crashsim-cut");
}
