/* SPDX-License-Identifier: BSD-3-Clause
 *
 * replay.c - the disk at an instant of a recording; see trace.h.
 *
 * The durable bytes lie in memory, so that a fork has a copy of the disk for nothing; of each
 * page is known whether it was ever written, so that writing it out is short.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace.h"

#define REPLAY_PAGE        ((uint64_t)4096)
#define REPLAY_CACHE_BYTES ((uint64_t)1 << 32)

struct replay {
    const struct trace *t;
    size_t at;
    uint8_t *image, *used; /* used: by page */
    struct crashsim_disk *disk;
    uint64_t *ids;  /* of the disk, by that of the recording */
    uint64_t *seqs; /* of the recording, by that of the disk less one: both only grow */
    size_t seqs_count;
};

static int
replay_base_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    const struct replay *r = opaque;

    memcpy(buf, r->image + offset, count);
    return 0;
}

static int
replay_base_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    struct replay *r = opaque;

    memcpy(r->image + offset, buf, count);
    for (uint64_t page = offset / REPLAY_PAGE;
         count > 0 && page <= (offset + count - 1) / REPLAY_PAGE; page++)
        r->used[page] = 1;
    return 0;
}

static int
replay_base_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    struct replay *r = opaque;
    uint64_t end = offset + count, page_end;

    (void)trim;
    for (; offset < end; offset = page_end) {
        page_end = (offset / REPLAY_PAGE + 1) * REPLAY_PAGE;
        if (page_end > end)
            page_end = end;
        if (r->used[offset / REPLAY_PAGE])
            memset(r->image + offset, 0, page_end - offset);
    }
    return 0;
}

static int
replay_load(struct replay *r, const char *base, struct kvfs_error *err)
{
    int fd = open(base, O_RDONLY | O_CLOEXEC), rc = 0;
    off_t at = 0, end;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return kvfs_error_set(err, -errno, "%s: %s", base, strerrordesc_np(errno));
    if ((uint64_t)st.st_size != r->t->size_bytes) {
        (void)close(fd);
        return kvfs_error_set(err, -EINVAL, "%s has %lld bytes, the recording is of a disk of %llu",
                              base, (long long)st.st_size, (unsigned long long)r->t->size_bytes);
    }
    while (rc == 0 && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
        end = lseek(fd, at, SEEK_HOLE);
        memset(r->used + (uint64_t)at / REPLAY_PAGE, 1,
               ((uint64_t)end + REPLAY_PAGE - 1) / REPLAY_PAGE - (uint64_t)at / REPLAY_PAGE);
        while (rc == 0 && at < end) {
            ssize_t n = pread(fd, r->image + at, (size_t)(end - at), at);

            if (n <= 0)
                rc = kvfs_error_set(err, -EIO, "%s cannot be read", base);
            at += n;
        }
    }
    (void)close(fd);
    return rc;
}

static struct crashsim_base
replay_base(struct replay *r)
{
    return (struct crashsim_base){.opaque = r,
                                  .pread = replay_base_pread,
                                  .pwrite = replay_base_pwrite,
                                  .zero = replay_base_zero};
}

int
replay_new(const struct trace *t, const char *base, struct replay **replay, struct kvfs_error *err)
{
    struct replay *r = calloc(1, sizeof(*r));
    struct crashsim_base calls = replay_base(r);
    int rc = -ENOMEM;

    if (r == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    r->t = t;
    r->used = calloc(t->size_bytes / REPLAY_PAGE + 2, 1);
    r->ids = calloc(t->ids_max + 1, sizeof(*r->ids));
    r->seqs = calloc(t->count + 1, sizeof(*r->seqs));
    r->image = mmap(NULL, t->size_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r->image == MAP_FAILED)
        r->image = NULL;
    if (r->used != NULL && r->ids != NULL && r->seqs != NULL && r->image != NULL)
        rc = crashsim_disk_new(&calls, t->size_bytes, REPLAY_CACHE_BYTES, 0, &r->disk);
    rc = rc < 0 ? kvfs_error_set(err, rc, "a disk in memory: %s", strerrordesc_np(-rc))
                : replay_load(r, base, err);
    if (rc < 0)
        replay_free(r);
    else
        *replay = r;
    return rc;
}

void
replay_free(struct replay *r)
{
    if (r == NULL)
        return;
    if (r->disk != NULL)
        crashsim_disk_free(r->disk);
    if (r->image != NULL)
        (void)munmap(r->image, r->t->size_bytes);
    free(r->used);
    free(r->ids);
    free(r->seqs);
    free(r);
}

static int
replay_event(struct replay *r, const struct trace_event *e)
{
    uint64_t seq;

    switch (e->type) {
    case 'S':
        return crashsim_disk_submit(r->disk, &e->write, &r->ids[e->id]);
    case 'C':
        r->seqs[r->seqs_count++] = e->bound;
        return crashsim_disk_complete(r->disk, r->ids[e->id], &seq);
    case 'E':
        crashsim_disk_abandon(r->disk, r->ids[e->id]);
        return 0;
    case 'F':
        seq = r->seqs_count;
        while (seq > 0 && r->seqs[seq - 1] > e->bound)
            seq--;
        return seq == 0 ? 0 : crashsim_disk_flush(r->disk, seq);
    case 'D':
        return crashsim_disk_destage(r->disk, r->ids[e->id]);
    default:
        return 0;
    }
}

int
replay_go(struct replay *r, size_t at, struct kvfs_error *err)
{
    for (; r->at < at && r->at < r->t->count; r->at++) {
        const struct trace_event *e = &r->t->events[r->at];
        int rc = replay_event(r, e);

        if (rc < 0)
            return kvfs_error_set(err, rc, "event %zu (%c) of the recording: %s", r->at, e->type,
                                  strerrordesc_np(-rc));
    }
    return 0;
}

size_t
replay_open_count(const struct replay *r)
{
    return crashsim_disk_open_count(r->disk);
}

int
replay_cut(struct replay *r, const struct crashsim_choice *choice, struct crashsim_cut *cut,
           struct kvfs_error *err)
{
    int rc = crashsim_disk_cut(r->disk, choice, cut);

    return rc < 0 ? kvfs_error_set(err, rc, "cutting: %s", strerrordesc_np(-rc)) : 0;
}

int
replay_cut_picked(struct replay *r, const struct crashsim_pick *pick, struct kvfs_error *err)
{
    struct crashsim_base base = replay_base(r);
    int rc = crashsim_disk_peek(r->disk, pick, &base);

    return rc < 0 ? kvfs_error_set(err, rc, "cutting: %s", strerrordesc_np(-rc)) : 0;
}

const struct crashsim_write *
replay_open(const struct replay *r, size_t i)
{
    return crashsim_disk_open(r->disk, i);
}

void
replay_shape(const void *replay, size_t i, uint64_t *offset, uint64_t *count)
{
    const struct crashsim_write *w = replay_open(replay, i);

    *offset = w->offset;
    *count = w->count;
}

int
replay_write(const struct replay *r, int fd, struct kvfs_error *err)
{
    uint64_t pages = r->t->size_bytes / REPLAY_PAGE, first = 0, next;

    /* Away with what the last one left. */
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)r->t->size_bytes) < 0)
        return kvfs_error_set(err, -errno, "a disk's copy: %s", strerrordesc_np(errno));
    for (; first < pages; first = next) {
        uint64_t at = first * REPLAY_PAGE, count;

        for (next = first + 1; next < pages && r->used[next] == r->used[first]; next++)
            ;
        if (!r->used[first])
            continue;
        for (count = (next - first) * REPLAY_PAGE; count > 0;) {
            ssize_t n = pwrite(fd, r->image + at, count, (off_t)at);

            if (n <= 0)
                return kvfs_error_set(err, -errno, "a disk's copy: %s", strerrordesc_np(errno));
            at += (uint64_t)n;
            count -= (uint64_t)n;
        }
    }
    return 0;
}

int
replay_compare(const struct replay *r, const char *file, struct kvfs_error *err)
{
    uint64_t size = r->t->size_bytes;
    int fd = open(file, O_RDONLY | O_CLOEXEC), rc = 0;
    uint8_t *map = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);

    if (fd >= 0)
        (void)close(fd);
    if (map == MAP_FAILED)
        return kvfs_error_set(err, -errno, "%s: %s", file, strerrordesc_np(errno));
    for (uint64_t at = 0; rc == 0 && at < size; at += REPLAY_PAGE) {
        if (r->used[at / REPLAY_PAGE] && memcmp(map + at, r->image + at, REPLAY_PAGE) != 0)
            rc = kvfs_error_set(err, -EILSEQ, "the disk holds at %llu what its recording does not",
                                (unsigned long long)at);
    }
    (void)munmap(map, size);
    return rc;
}
