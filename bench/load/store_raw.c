/* SPDX-License-Identifier: BSD-3-Clause
 *
 * store_raw.c - a plain file, for what the medium and the kernel cost alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store.h"

struct load_store {
    struct load_dataset data;
    int fd;
};

static int
raw_error(struct kvfs_error *err, const char *what)
{
    int code = errno;

    // NOLINTNEXTLINE(concurrency-mt-unsafe): glibc's is per thread
    return kvfs_error_set(err, -code, "raw file: %s: %s", what, strerror(code));
}

static int
raw_open(const struct load_target *t, bool create, struct load_store **storep,
         struct kvfs_error *err)
{
    struct load_store *s = calloc(1, sizeof(*s));
    char path[4096];
    int rc = 0;

    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    s->data = t->data;
    (void)snprintf(path, sizeof(path), "%s/raw", t->folder);
    s->fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (s->fd < 0)
        rc = raw_error(err, path);
    else if (ftruncate(s->fd, (off_t)(t->data.blocks * t->data.block_bytes)) != 0)
        rc = raw_error(err, "size");
    if (rc == 0) {
        *storep = s;
        return 0;
    }
    if (s->fd >= 0)
        (void)close(s->fd);
    free(s);
    return rc;
}

static int
raw_close(struct load_store *s, struct kvfs_error *err)
{
    int rc = close(s->fd) == 0 ? 0 : raw_error(err, "close");

    free(s);
    return rc;
}

static int
raw_write(struct load_store *s, const struct load_piece *pieces, uint32_t count, bool durable,
          struct kvfs_error *err)
{
    (void)durable;
    for (uint32_t i = 0; i < count; i++) {
        size_t size = (size_t)pieces[i].count * s->data.block_bytes;
        ssize_t n = pwrite(s->fd, pieces[i].bytes, size,
                           (off_t)(pieces[i].index * s->data.block_bytes));

        if (n >= 0 && (size_t)n != size)
            errno = ENOSPC; /* what a short one means */
        if (n < 0 || (size_t)n != size)
            return raw_error(err, "pwrite");
    }
    return 0;
}

static int
raw_read(struct load_store *s, const struct load_piece *piece, struct kvfs_error *err)
{
    size_t size = (size_t)piece->count * s->data.block_bytes;
    ssize_t n = pread(s->fd, piece->bytes, size, (off_t)(piece->index * s->data.block_bytes));

    if (n >= 0 && (size_t)n != size)
        errno = EIO;
    return n >= 0 && (size_t)n == size ? 0 : raw_error(err, "pread");
}

static int
raw_flush(struct load_store *s, struct kvfs_error *err)
{
    return fdatasync(s->fd) == 0 ? 0 : raw_error(err, "fdatasync");
}

static int
raw_info(struct load_store *s, struct load_info *info, struct kvfs_error *err)
{
    (void)s;
    (void)err;
    *info = (struct load_info){.version = "",
                               .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_DURABLE |
                                       KVFS_CAP_MULTIPROCESS | KVFS_CAP_FORK};
    return 0;
}

static int
raw_remove(struct load_store *s, struct kvfs_error *err)
{
    if (ftruncate(s->fd, 0) != 0 ||
        ftruncate(s->fd, (off_t)(s->data.blocks * s->data.block_bytes)) != 0)
        return raw_error(err, "size");
    return raw_flush(s, err);
}

const struct load_layer load_layer_raw = {
    .name = "raw",
    .open = raw_open,
    .close = raw_close,
    .write = raw_write,
    .read = raw_read,
    .flush = raw_flush,
    .settle = raw_flush,
    .info = raw_info,
    .remove = raw_remove,
};
