/* SPDX-License-Identifier: BSD-3-Clause
 *
 * image.c - see image.h.
 *
 * 1. The hash is a sum over blocks of 4096 bytes of a hash of number and bytes, less what the base
 *    has there: 0 for the base.  A block of zeros counts 0, so that holes cost nothing.  A sum can
 *    follow each write for the price of the blocks that it touches.
 * 2. The base is opened for reading only, and never written.
 * 3. What image_build() leaves in FILE is the image under the overlay whatever FILE held before:
 *    all data of either file are compared, none of the holes.
 */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "random.h"

#define IMAGE_BLOCK 4096u
#define IMAGE_CHUNK (1u << 18)

struct image_block { /* of the overlay */
    uint64_t number, hash_below;
    size_t slot;
    uint8_t *bytes; /* IMAGE_BLOCK */
};

struct image {
    char file[PATH_MAX], *base;
    int fd;
    uint64_t size;
    uint64_t hash;
    struct image_block *blocks;
    size_t used, blocks_cap;
    uint32_t *slots;    /* a hash table: 1 and an index into blocks, 0: free */
    size_t slots_count; /* a power of 2, more than twice `used` */
    uint8_t *a, *b;     /* IMAGE_CHUNK each */
};

static int
image_pread(int fd, void *buf, size_t count, uint64_t at)
{
    uint8_t *p = buf;

    while (count > 0) {
        ssize_t n = pread(fd, p, count, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0) { /* behind the end is nothing */
            memset(p, 0, count);
            return 0;
        }
        p += n;
        at += (uint64_t)n;
        count -= (size_t)n;
    }
    return 0;
}

static int
image_pwrite(int fd, const void *buf, size_t count, uint64_t at)
{
    const uint8_t *p = buf;

    while (count > 0) {
        ssize_t n = pwrite(fd, p, count, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        at += (uint64_t)n;
        count -= (size_t)n;
    }
    return 0;
}

static bool
image_is_zero(const uint8_t *p, size_t count)
{
    return count == 0 || (p[0] == 0 && memcmp(p, p + 1, count - 1) == 0);
}

/* The first range with data of FD at or behind AT; false: only a hole up to END. */
static bool
image_data(int fd, uint64_t at, uint64_t end, uint64_t *from, uint64_t *to)
{
    off_t data = at < end ? lseek(fd, (off_t)at, SEEK_DATA) : -1, hole;

    if (data < 0 || (uint64_t)data >= end)
        return false;
    hole = lseek(fd, data, SEEK_HOLE);
    *from = (uint64_t)data;
    *to = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
    return true;
}

static int
image_copy_base(struct image *im)
{
    uint64_t from, to, end = im->size;
    int fd = open(im->base, O_RDONLY | O_CLOEXEC), r = 0;

    if (fd < 0)
        return -errno;
    if (lseek(fd, 0, SEEK_END) > (off_t)end)
        r = -EFBIG;
    if (r == 0 && ioctl(im->fd, FICLONE, fd) == 0) {
        r = ftruncate(im->fd, (off_t)im->size) < 0 ? -errno : 0;
        (void)close(fd);
        return r;
    }
    for (uint64_t at = 0; r == 0 && image_data(fd, at, end, &from, &to); at = to) {
        for (uint64_t k = from; r == 0 && k < to; k += IMAGE_CHUNK) {
            size_t n = to - k < IMAGE_CHUNK ? (size_t)(to - k) : IMAGE_CHUNK;

            r = image_pread(fd, im->a, n, k);
            if (r == 0 && !image_is_zero(im->a, n))
                r = image_pwrite(im->fd, im->a, n, k);
        }
    }
    (void)close(fd);
    return r;
}

int
image_reset(struct image *im)
{
    image_overlay_clear(im);
    im->hash = 0;
    if (ftruncate(im->fd, 0) < 0 || ftruncate(im->fd, (off_t)im->size) < 0)
        return -errno;
    return im->base != NULL ? image_copy_base(im) : 0;
}

int
image_open(const char *file, const char *base, uint64_t size, struct image **image)
{
    struct image *im = calloc(1, sizeof(*im));
    int r = -ENOMEM;

    if (im == NULL)
        return -ENOMEM;
    im->fd = -1;
    im->size = size;
    im->slots_count = 1024;
    im->blocks_cap = im->slots_count / 4;
    im->slots = calloc(im->slots_count, sizeof(*im->slots));
    im->blocks = calloc(im->blocks_cap, sizeof(*im->blocks));
    im->a = malloc(IMAGE_CHUNK);
    im->b = malloc(IMAGE_CHUNK);
    im->base = base != NULL ? strdup(base) : NULL;
    (void)snprintf(im->file, sizeof(im->file), "%s", file);
    if (im->slots != NULL && im->blocks != NULL && im->a != NULL && im->b != NULL &&
        (base == NULL || im->base != NULL)) {
        im->fd = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        r = im->fd >= 0 ? image_reset(im) : -errno;
        if (r < 0 && im->fd >= 0)
            (void)unlink(file);
    }
    if (r < 0)
        image_close(im);
    else
        *image = im;
    return r;
}

void
image_close(struct image *im)
{
    if (im == NULL)
        return;
    image_overlay_clear(im);
    if (im->fd >= 0)
        (void)close(im->fd);
    free(im->slots);
    free(im->blocks);
    free(im->a);
    free(im->b);
    free(im->base);
    free(im);
}

/* --- blocks --- */

static uint64_t
image_block_hash(uint64_t number, const uint8_t *bytes)
{
    return image_is_zero(bytes, IMAGE_BLOCK) ? 0 : XXH3_64bits_withSeed(bytes, IMAGE_BLOCK, number);
}

void
image_overlay_clear(struct image *im)
{
    for (size_t i = 0; i < im->used; i++) {
        im->slots[im->blocks[i].slot] = 0;
        free(im->blocks[i].bytes);
    }
    im->used = 0;
}

static size_t
image_slot(const struct image *im, uint64_t number)
{
    size_t i = (size_t)crashsim_hash(number) & (im->slots_count - 1);

    while (im->slots[i] != 0 && im->blocks[im->slots[i] - 1].number != number)
        i = (i + 1) & (im->slots_count - 1);
    return i;
}

/* Room for one more block. */
static int
image_widen(struct image *im)
{
    size_t count = im->slots_count * 2;
    uint32_t *slots;
    void *blocks;

    if (im->used < im->blocks_cap)
        return 0;
    if (count > UINT32_MAX)
        return -EFBIG;
    blocks = reallocarray(im->blocks, count / 4, sizeof(*im->blocks));
    if (blocks == NULL)
        return -ENOMEM;
    im->blocks = blocks;
    slots = calloc(count, sizeof(*slots));
    if (slots == NULL)
        return -ENOMEM;
    free(im->slots);
    im->slots = slots;
    im->slots_count = count;
    im->blocks_cap = count / 4;
    for (size_t i = 0; i < im->used; i++) {
        im->blocks[i].slot = image_slot(im, im->blocks[i].number);
        im->slots[im->blocks[i].slot] = (uint32_t)i + 1;
    }
    return 0;
}

/* Block NUMBER of the overlay, begun with what is below. */
static int
image_block(struct image *im, uint64_t number, struct image_block **block)
{
    size_t slot = image_slot(im, number);
    struct image_block *b;
    int r;

    if (im->slots[slot] != 0) {
        *block = &im->blocks[im->slots[slot] - 1];
        return 0;
    }
    r = image_widen(im);
    if (r < 0)
        return r;
    b = &im->blocks[im->used];
    b->number = number;
    b->slot = image_slot(im, number);
    b->bytes = malloc(IMAGE_BLOCK);
    r = b->bytes != NULL ? image_pread(im->fd, b->bytes, IMAGE_BLOCK, number * IMAGE_BLOCK)
                         : -ENOMEM;
    if (r < 0) {
        free(b->bytes);
        return r;
    }
    b->hash_below = image_block_hash(number, b->bytes);
    im->slots[b->slot] = (uint32_t)++im->used;
    *block = b;
    return 0;
}

/* BUF, or zeros. */
static int
image_put_overlay(struct image *im, const uint8_t *buf, uint64_t offset, uint64_t count)
{
    uint64_t end = offset + count, data = UINT64_MAX, data_end = 0;
    int r = 0;

    for (uint64_t at = offset, stop; r == 0 && at < end; at = stop) {
        uint64_t number = at / IMAGE_BLOCK;
        struct image_block *b;

        stop = (number + 1) * IMAGE_BLOCK < end ? (number + 1) * IMAGE_BLOCK : end;
        if (buf == NULL && im->slots[image_slot(im, number)] == 0) {
            /* Zeros over a hole: nothing to note, and a disk may be all holes. */
            if (at >= data_end && !image_data(im->fd, at, im->size, &data, &data_end))
                data = data_end = UINT64_MAX;
            if (data > at && (data == UINT64_MAX || data / IMAGE_BLOCK > number)) {
                if (im->used == 0 && data > stop)
                    stop = data < end ? data / IMAGE_BLOCK * IMAGE_BLOCK : end;
                continue;
            }
        }
        r = image_block(im, number, &b);
        if (r < 0)
            return r;
        if (buf != NULL)
            memcpy(b->bytes + at % IMAGE_BLOCK, buf + (at - offset), (size_t)(stop - at));
        else
            memset(b->bytes + at % IMAGE_BLOCK, 0, (size_t)(stop - at));
    }
    return r;
}

uint64_t
image_hash(const struct image *im)
{
    uint64_t hash = im->hash;

    for (size_t i = 0; i < im->used; i++)
        hash += image_block_hash(im->blocks[i].number, im->blocks[i].bytes) -
                im->blocks[i].hash_below;
    return hash;
}

static int
image_write_overlay(struct image *im, int fd)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < im->used; i++) {
        uint64_t at = im->blocks[i].number * IMAGE_BLOCK;

        r = image_pwrite(fd, im->blocks[i].bytes,
                         im->size - at < IMAGE_BLOCK ? (size_t)(im->size - at) : IMAGE_BLOCK, at);
    }
    return r;
}

int
image_settle(struct image *im)
{
    uint64_t hash = image_hash(im);
    int r = image_write_overlay(im, im->fd);

    im->hash = hash;
    image_overlay_clear(im);
    return r;
}

/* --- as a base --- */

static int
image_base_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    const struct image *im = opaque;

    return image_pread(im->fd, buf, count, offset);
}

static int
image_overlay_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    return image_put_overlay(opaque, buf, offset, count);
}

static int
image_overlay_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    (void)trim;
    return image_put_overlay(opaque, NULL, offset, count);
}

/* Through the overlay, so that the hash follows. */
static int
image_base_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    int r = image_put_overlay(opaque, buf, offset, count);

    return r < 0 ? r : image_settle(opaque);
}

static int
image_base_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    struct image *im = opaque;
    int r = image_overlay_zero(opaque, count, offset, trim);

    if (r == 0)
        r = image_settle(im);
    if (r == 0) /* fewer data to compare; where it cannot be done, zeros are there */
        (void)fallocate(im->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                        (off_t)count);
    return r;
}

struct crashsim_base
image_base(struct image *im)
{
    return (struct crashsim_base){.opaque = im, .pread = image_base_pread,
                                  .pwrite = image_base_pwrite, .zero = image_base_zero};
}

struct crashsim_base
image_overlay(struct image *im)
{
    return (struct crashsim_base){.opaque = im, .pread = image_base_pread,
                                  .pwrite = image_overlay_pwrite, .zero = image_overlay_zero};
}

/* --- files --- */

/* [FROM, TO) of FD as the image has it.  HOLE: the image has no data there. */
static int
image_refresh(struct image *im, int fd, uint64_t from, uint64_t to, bool hole)
{
    int r = 0;

    if (hole && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                          (off_t)(to - from)) == 0)
        return 0;
    for (uint64_t at = from, stop; r == 0 && at < to; at = stop) {
        size_t n = to - at < IMAGE_CHUNK ? (size_t)(to - at) : IMAGE_CHUNK;

        stop = at + n;
        r = image_pread(im->fd, im->a, n, at);
        if (r == 0)
            r = image_pread(fd, im->b, n, at);
        for (size_t k = 0; r == 0 && k < n; k += IMAGE_BLOCK) {
            size_t len = n - k < IMAGE_BLOCK ? n - k : IMAGE_BLOCK;

            if (memcmp(im->a + k, im->b + k, len) != 0)
                r = image_pwrite(fd, im->a + k, len, at + k);
        }
    }
    return r;
}

/* All of FD as the image: where either has data. */
static int
image_refresh_all(struct image *im, int fd)
{
    uint64_t at = 0, end = im->size;
    int r = 0;

    while (r == 0 && at < end) {
        uint64_t from = end, to = end, own = end, own_end = end;
        bool hole = true;

        if (!image_data(fd, at, end, &own, &own_end))
            own = end;
        if (image_data(im->fd, at, end, &from, &to) && from <= own)
            hole = false;
        else
            to = own_end < from ? own_end : from;
        from = hole ? own : from;
        if (from >= end)
            break;
        r = image_refresh(im, fd, from, to, hole);
        at = to;
    }
    return r;
}

int
image_build(struct image *im, const char *file)
{
    struct stat st;
    int fd = open(file, O_RDWR | O_CLOEXEC | O_NOFOLLOW), r = 0;

    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1)) {
        (void)close(fd);
        fd = -1;
    }
    if (fd < 0) {
        (void)unlink(file);
        fd = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)im->size) < 0)
        r = -errno;
    if (r == 0)
        r = image_refresh_all(im, fd);
    if (r == 0)
        r = image_write_overlay(im, fd);
    if (close(fd) < 0 && r == 0)
        r = -errno;
    return r;
}
