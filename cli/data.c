/* SPDX-License-Identifier: BSD-3-Clause
 *
 * data.c - walking the data of a file, wherever it lies.
 *
 * Looking for data in a volume goes in steps: a step begins at the window size
 * and doubles while it meets holes, so a hole of exabytes takes some forty
 * questions, and no question looks far ahead into data it will not use.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data.h"

bool
cli_zeros(const void *buf, size_t count)
{
    const unsigned char *p = buf;

    return count == 0 || (p[0] == 0 && memcmp(p, p + 1, count - 1) == 0);
}

int
cli_runs(const void *buf, size_t count, uint64_t offset, size_t block_size, cli_sink_fn *sink,
         void *arg, struct kvfs_error *err)
{
    const char *p = buf;
    size_t run = 0; /* where the present run began */
    int rc;

    for (size_t at = 0; at < count; at += block_size) {
        size_t n = count - at < block_size ? count - at : block_size;

        if (!cli_zeros(p + at, n))
            continue;
        if (at > run && (rc = sink(arg, p + run, at - run, offset + run, err)) < 0)
            return rc;
        run = at + n;
    }
    return run < count ? sink(arg, p + run, count - run, offset + run, err) : 0;
}

void
cli_hash_window(XXH3_state_t *hash, const void *buf, size_t count, uint64_t offset)
{
    const char *p = buf;

    for (size_t at = 0; at < count; at += CLI_CHUNK_BYTES) {
        size_t n = count - at < CLI_CHUNK_BYTES ? count - at : CLI_CHUNK_BYTES;
        uint64_t where = offset + at;

        if (cli_zeros(p + at, n))
            continue;
        (void)XXH3_128bits_update(hash, &where, sizeof(where));
        (void)XXH3_128bits_update(hash, p + at, n);
    }
}

/* --- a file of a volume -------------------------------------------------------- */

struct data_found {
    uint64_t start, end;
    bool found;
};

static int
data_extent(void *arg, uint64_t offset, uint64_t count, bool hole)
{
    struct data_found *f = arg;

    if (hole)
        return f->found;
    if (f->found && offset != f->end)
        return 1;
    if (!f->found)
        f->start = offset;
    f->found = true;
    f->end = offset + count;
    return 0;
}

static int
data_snapshot_error(const struct cli_snapshot_source *s, int rc, struct kvfs_error *err)
{
    return s->name != NULL ? cli_about(err, rc, s->name) : rc;
}

static int
data_snapshot_next(struct cli_source *base, uint64_t offset, uint64_t *start, uint64_t *end,
                   struct kvfs_error *err)
{
    struct cli_snapshot_source *s = (struct cli_snapshot_source *)base;
    uint64_t step = CLI_WINDOW_BYTES, left;
    struct data_found f = {.found = false};
    int rc;

    while (offset < base->size_bytes) {
        left = base->size_bytes - offset;
        if (step > left)
            step = left;
        if (cli_interrupted())
            return -EINTR;
        rc = kvfs_snapshot_extents(s->snapshot, s->ino, step, offset, 64, data_extent, &f, err);
        if (rc < 0)
            return data_snapshot_error(s, rc, err);
        if (f.found) {
            *start = f.start;
            *end = f.end;
            return 0;
        }
        offset += step;
        step = step > UINT64_MAX / 2 ? UINT64_MAX : step * 2;
    }
    *start = *end = base->size_bytes;
    return 0;
}

static int
data_snapshot_read(struct cli_source *base, void *buf, size_t count, uint64_t offset,
                   struct kvfs_error *err)
{
    struct cli_snapshot_source *s = (struct cli_snapshot_source *)base;
    int rc = kvfs_snapshot_pread(s->snapshot, s->ino, buf, count, offset, err);

    return rc < 0 ? data_snapshot_error(s, rc, err) : 0;
}

int
cli_snapshot_source_init(struct cli_snapshot_source *s, struct kvfs_snapshot *snapshot,
                         uint64_t ino, struct kvfs_error *err)
{
    struct kvfs_file_info info;
    int rc = kvfs_snapshot_info(snapshot, ino, &info, err);

    if (rc < 0)
        return rc;
    *s = (struct cli_snapshot_source){
        .base = {info.size_bytes, data_snapshot_next, data_snapshot_read},
        .snapshot = snapshot,
        .ino = ino,
    };
    return 0;
}

/* --- a file of the system -------------------------------------------------------- */

static int
data_fd_error(const struct cli_fd_source *s, int code, struct kvfs_error *err)
{
    return kvfs_error_set(err, -code, "%s: %s", s->name, strerrordesc_np(code));
}

static int
data_fd_next(struct cli_source *base, uint64_t offset, uint64_t *start, uint64_t *end,
             struct kvfs_error *err)
{
    struct cli_fd_source *s = (struct cli_fd_source *)base;
    off_t from, to;

    if (offset < s->data_start || offset >= s->data_end) {
        from = lseek(s->fd, s->base_offset + (off_t)offset, SEEK_DATA);
        if (from < 0 && errno == ENXIO) {
            *start = *end = base->size_bytes;
            return 0;
        }
        if (from < 0 && errno != EINVAL)
            return data_fd_error(s, errno, err);
        to = from < 0 ? -1 : lseek(s->fd, from, SEEK_HOLE);
        /* A file system without these calls: all of it may be data. */
        s->data_start = from < 0 ? offset : (uint64_t)(from - s->base_offset);
        s->data_end = to < 0 ? base->size_bytes : (uint64_t)(to - s->base_offset);
        if (s->data_start >= base->size_bytes)
            s->data_start = s->data_end = base->size_bytes; /* it has grown since */
    }
    *start = offset > s->data_start ? offset : s->data_start;
    *end = s->data_end;
    return 0;
}

static int
data_fd_read(struct cli_source *base, void *buf, size_t count, uint64_t offset,
             struct kvfs_error *err)
{
    struct cli_fd_source *s = (struct cli_fd_source *)base;

    for (size_t done = 0; done < count;) {
        ssize_t n = pread(s->fd, (char *)buf + done, count - done,
                          s->base_offset + (off_t)(offset + done));

        if (n < 0 && errno == EINTR && !cli_interrupted())
            continue;
        if (n < 0)
            return data_fd_error(s, errno, err);
        if (n == 0)
            return kvfs_error_set(err, -EIO, "%s: became shorter while it was read", s->name);
        done += (size_t)n;
    }
    return 0;
}

void
cli_fd_source_init(struct cli_fd_source *s, int fd, const char *name, off_t base_offset,
                   uint64_t size_bytes)
{
    *s = (struct cli_fd_source){
        .base = {size_bytes, data_fd_next, data_fd_read},
        .name = name,
        .fd = fd,
        .base_offset = base_offset,
    };
}

/* --- the walk ---------------------------------------------------------------------- */

int
cli_source_walk(struct cli_source *s, cli_sink_fn *sink, void *arg, struct cli_progress *progress,
                struct kvfs_error *err)
{
    uint64_t pos = 0, start, end, moved = 0;
    char *buf = malloc(CLI_WINDOW_BYTES);
    int rc = 0;

    if (buf == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    while (pos < s->size_bytes) {
        size_t count = CLI_WINDOW_BYTES;

        rc = cli_interrupted() ? -EINTR : s->next(s, pos, &start, &end, err);
        if (rc < 0 || start >= s->size_bytes)
            break;
        start -= start % CLI_CHUNK_BYTES; /* POS is aligned, so START stays behind it */
        if (end > s->size_bytes)
            end = s->size_bytes;
        if (end - start < count)
            count = (size_t)(end - start + CLI_CHUNK_BYTES - 1) / CLI_CHUNK_BYTES * CLI_CHUNK_BYTES;
        if (count > s->size_bytes - start)
            count = (size_t)(s->size_bytes - start);
        rc = s->read(s, buf, count, start, err);
        if (rc == 0)
            rc = sink(arg, buf, count, start, err);
        if (rc < 0)
            break;
        pos = start + count;
        moved += count;
        if (progress != NULL)
            cli_progress_update(progress, pos, moved);
    }
    free(buf);
    if (rc == 0 && progress != NULL)
        cli_progress_update(progress, s->size_bytes, moved);
    return rc;
}
