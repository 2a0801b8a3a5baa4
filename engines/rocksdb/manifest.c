/* SPDX-License-Identifier: BSD-3-Clause
 *
 * manifest.c - cut what a power cut tore off the end of MANIFEST.
 *
 * RocksDB appends an edit to MANIFEST and syncs it before anything relies on it.  A power cut in
 * between may leave a file that is long enough with sectors that were never written: ext4, for
 * one, may keep the new size and read zeros (ordered mode, an extent still unwritten).  RocksDB
 * forgives an edit that the file's end cuts off, and refuses one whose checksum is wrong, for it
 * cannot tell it from damage: the store would not open again.  Zeros up to the end of a sector or
 * of the file tell that this edit was never synced, so it and what is behind it may go.  More than
 * a block is never written between two syncs, so an edit farther from the end is left to RocksDB.
 *
 * The format: db/log_format.h of RocksDB.  Blocks of 32 KiB hold records of a checksum (4), a
 * length (2), a type (1) and so many bytes; types 1 and 5 are an edit, 2-4 and 6-8 its first,
 * middle and last part, 0 no record (filled up); a block's last 6 bytes or less hold none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rocksdb_priv.h"

#define MANIFEST_BLOCK      32768u
#define MANIFEST_HEADER     7u
#define MANIFEST_RECYCLABLE 4u /* is added to a type: a log's number stands behind the header */
#define MANIFEST_SECTOR     512u /* the least that a disk writes whole */
#define MANIFEST_MAX_BYTES  ((off_t)1 << 30)

struct manifest {
    char path[4096];
    uint8_t *bytes;
    size_t size;
};

static bool
manifest_zero(const uint8_t *bytes, size_t count)
{
    return count > 0 && bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* A sector that begins within [FROM, TO) and holds nothing up to its end or the file's. */
static bool
manifest_torn(const struct manifest *m, size_t from, size_t to)
{
    size_t at = (from + MANIFEST_SECTOR - 1) / MANIFEST_SECTOR * MANIFEST_SECTOR;

    for (; at < to && at < m->size; at += MANIFEST_SECTOR) {
        size_t left = m->size - at;

        if (manifest_zero(m->bytes + at, left < MANIFEST_SECTOR ? left : MANIFEST_SECTOR))
            return true;
    }
    return false;
}

/* Where the first torn edit begins; the size of the file: there is none. */
static size_t
manifest_first_torn(const struct manifest *m)
{
    size_t at = 0, edit = 0;

    while (at < m->size) {
        size_t room = MANIFEST_BLOCK - at % MANIFEST_BLOCK, length;
        unsigned type;

        if (room < MANIFEST_HEADER) {
            at += room;
            continue;
        }
        if (m->size - at < MANIFEST_HEADER)
            return manifest_torn(m, at, m->size) ? edit : m->size;
        length = MANIFEST_HEADER + m->bytes[at + 4] + ((size_t)m->bytes[at + 5] << 8);
        type = m->bytes[at + 6];
        if (manifest_torn(m, at, at + length))
            return edit;
        if (type == 0 || length > room) /* damaged, or nothing is here */
            return m->size;
        at += length;
        type = type > MANIFEST_RECYCLABLE ? type - MANIFEST_RECYCLABLE : type;
        if (type == 1 || type == 4)
            edit = at;
    }
    return m->size;
}

/* Which file it is, CURRENT tells in a line. */
static int
manifest_name(struct manifest *m, const struct kvfs_db *db)
{
    char line[64] = "";
    FILE *f = fopen(db->current_path, "re");

    if (f == NULL)
        return -errno;
    if (fgets(line, sizeof(line), f) == NULL)
        line[0] = '\0';
    (void)fclose(f);
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "MANIFEST-", 9) != 0 || strchr(line, '/') != NULL)
        return -EINVAL;
    return snprintf(m->path, sizeof(m->path), "%s/%s", db->folder, line) < (int)sizeof(m->path)
               ? 0
               : -ENAMETOOLONG;
}

static int
manifest_read(struct manifest *m, int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return -errno;
    if (st.st_size > MANIFEST_MAX_BYTES)
        return -EFBIG;
    m->size = (size_t)st.st_size;
    m->bytes = malloc(m->size + 1);
    if (m->bytes == NULL)
        return -ENOMEM;
    for (size_t at = 0; at < m->size;) {
        ssize_t n = pread(fd, m->bytes + at, m->size - at, (off_t)at);

        if (n <= 0)
            return n == 0 ? -EIO : -errno;
        at += (size_t)n;
    }
    return 0;
}

bool
kvfs_rocks_cut_manifest(const struct kvfs_db *db)
{
    struct manifest m = {.bytes = NULL};
    bool cut = false;
    size_t torn;
    int fd;

    if (manifest_name(&m, db) != 0)
        return false;
    fd = open(m.path, (db->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (manifest_read(&m, fd) == 0) {
        torn = manifest_first_torn(&m);
        cut = torn < m.size && m.size - torn <= MANIFEST_BLOCK &&
              (db->readonly || (ftruncate(fd, (off_t)torn) == 0 && fsync(fd) == 0));
    }
    (void)close(fd);
    free(m.bytes);
    return cut;
}
