/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pagesum.c - a checksum behind every page of a database.
 *
 * SQLite trusts its pages: a flipped bit in a key makes a search miss a record, and
 * what kvfs does not find it reads as zeros.  So a VFS between SQLite and the
 * system's own writes XXH3 of each page into the 8 bytes that the database
 * reserves at its end, and judges it when the page is read: SQLITE_IOERR_DATA.
 * The idea is that of cksumvfs, which ships with SQLite's sources and not with
 * distributions; the sum takes the place of the page in, so that a page written to
 * the wrong place is found too.
 *
 *  1. Only the main database is judged: reads and writes of KVFS_SQ_PAGE bytes at a
 *     page's place.  Frames of the log have SQLite's own checksums, which it looks at
 *     when it recovers; until a frame has come into the database a flipped bit in it
 *     passes.
 *  2. A page of zeros passes: SQLite reads such ones beyond the end of a file.
 *     Page 1 of a database that reserves no bytes (a foreign one) is let through too:
 *     open.c refuses it by its application id.
 *  3. No memory map: SQLite would read past us.
 */
#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>

#include "sqlite_priv.h"

#define PAGESUM_LEN     8
#define PAGESUM_AT      (KVFS_SQ_PAGE - PAGESUM_LEN)
#define PAGESUM_RESERVE 20 /* byte of page 1 that tells how many bytes are reserved */

struct pagesum_file {
    sqlite3_file base;
    bool is_main;
    sqlite3_file real[]; /* of the VFS below */
};

static sqlite3_vfs *pagesum_below;

static sqlite3_file *
pagesum_real(sqlite3_file *f)
{
    return ((struct pagesum_file *)(void *)f)->real;
}

static uint64_t
pagesum_of(const uint8_t *page, sqlite3_int64 at)
{
    return XXH3_64bits_withSeed(page, PAGESUM_AT, (uint64_t)at + 1);
}

static bool
pagesum_is_page(const struct pagesum_file *f, int len, sqlite3_int64 at)
{
    return f->is_main && len == KVFS_SQ_PAGE && at % KVFS_SQ_PAGE == 0;
}

static bool
pagesum_is_right(const uint8_t *page, sqlite3_int64 at)
{
    uint64_t sum;

    memcpy(&sum, page + PAGESUM_AT, sizeof(sum));
    if (sum == pagesum_of(page, at))
        return true;
    if (at == 0 && page[PAGESUM_RESERVE] != PAGESUM_LEN)
        return true;
    return page[0] == 0 && memcmp(page, page + 1, KVFS_SQ_PAGE - 1) == 0;
}

/* --- a file ------------------------------------------------------------------ */

static int
pagesum_close(sqlite3_file *f)
{
    return pagesum_real(f)->pMethods->xClose(pagesum_real(f));
}

static int
pagesum_read(sqlite3_file *f, void *buf, int len, sqlite3_int64 at)
{
    int rc = pagesum_real(f)->pMethods->xRead(pagesum_real(f), buf, len, at);

    if (rc == SQLITE_OK && pagesum_is_page((struct pagesum_file *)(void *)f, len, at) &&
        !pagesum_is_right(buf, at))
        return SQLITE_IOERR_DATA;
    return rc;
}

static int
pagesum_write(sqlite3_file *f, const void *buf, int len, sqlite3_int64 at)
{
    uint8_t page[KVFS_SQ_PAGE];
    uint64_t sum;

    if (!pagesum_is_page((struct pagesum_file *)(void *)f, len, at) ||
        (at == 0 && ((const uint8_t *)buf)[PAGESUM_RESERVE] != PAGESUM_LEN))
        return pagesum_real(f)->pMethods->xWrite(pagesum_real(f), buf, len, at);
    memcpy(page, buf, PAGESUM_AT);
    sum = pagesum_of(page, at);
    memcpy(page + PAGESUM_AT, &sum, sizeof(sum));
    return pagesum_real(f)->pMethods->xWrite(pagesum_real(f), page, len, at);
}

static int
pagesum_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return pagesum_real(f)->pMethods->xTruncate(pagesum_real(f), size);
}

static int
pagesum_sync(sqlite3_file *f, int flags)
{
    return pagesum_real(f)->pMethods->xSync(pagesum_real(f), flags);
}

static int
pagesum_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return pagesum_real(f)->pMethods->xFileSize(pagesum_real(f), size);
}

static int
pagesum_lock(sqlite3_file *f, int lock)
{
    return pagesum_real(f)->pMethods->xLock(pagesum_real(f), lock);
}

static int
pagesum_unlock(sqlite3_file *f, int lock)
{
    return pagesum_real(f)->pMethods->xUnlock(pagesum_real(f), lock);
}

static int
pagesum_reserved(sqlite3_file *f, int *out)
{
    return pagesum_real(f)->pMethods->xCheckReservedLock(pagesum_real(f), out);
}

static int
pagesum_control(sqlite3_file *f, int op, void *arg)
{
    return pagesum_real(f)->pMethods->xFileControl(pagesum_real(f), op, arg);
}

static int
pagesum_sector(sqlite3_file *f)
{
    return pagesum_real(f)->pMethods->xSectorSize(pagesum_real(f));
}

static int
pagesum_device(sqlite3_file *f)
{
    return pagesum_real(f)->pMethods->xDeviceCharacteristics(pagesum_real(f));
}

static int
pagesum_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **at)
{
    return pagesum_real(f)->pMethods->xShmMap(pagesum_real(f), page, size, extend, at);
}

static int
pagesum_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return pagesum_real(f)->pMethods->xShmLock(pagesum_real(f), at, n, flags);
}

static void
pagesum_shm_barrier(sqlite3_file *f)
{
    pagesum_real(f)->pMethods->xShmBarrier(pagesum_real(f));
}

static int
pagesum_shm_unmap(sqlite3_file *f, int remove)
{
    return pagesum_real(f)->pMethods->xShmUnmap(pagesum_real(f), remove);
}

static const sqlite3_io_methods pagesum_methods = {
    .iVersion = 2, /* without xFetch: no memory map */
    .xClose = pagesum_close,
    .xRead = pagesum_read,
    .xWrite = pagesum_write,
    .xTruncate = pagesum_truncate,
    .xSync = pagesum_sync,
    .xFileSize = pagesum_size,
    .xLock = pagesum_lock,
    .xUnlock = pagesum_unlock,
    .xCheckReservedLock = pagesum_reserved,
    .xFileControl = pagesum_control,
    .xSectorSize = pagesum_sector,
    .xDeviceCharacteristics = pagesum_device,
    .xShmMap = pagesum_shm_map,
    .xShmLock = pagesum_shm_lock,
    .xShmBarrier = pagesum_shm_barrier,
    .xShmUnmap = pagesum_shm_unmap,
};

/* --- the VFS ------------------------------------------------------------------- */

static int
pagesum_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags, int *out)
{
    struct pagesum_file *f = (struct pagesum_file *)(void *)file;
    int rc;

    (void)vfs;
    f->base.pMethods = NULL;
    f->is_main = (flags & SQLITE_OPEN_MAIN_DB) != 0;
    rc = pagesum_below->xOpen(pagesum_below, name, f->real, flags, out);
    if (f->real->pMethods != NULL)
        f->base.pMethods = &pagesum_methods;
    return rc;
}

static sqlite3_vfs pagesum_vfs; /* the one below, but for its name and xOpen */
static pthread_once_t pagesum_once = PTHREAD_ONCE_INIT;
static int pagesum_rc;

static void
pagesum_init(void)
{
    pagesum_rc = sqlite3_initialize();
    pagesum_below = pagesum_rc == SQLITE_OK ? sqlite3_vfs_find("unix") : NULL;
    if (pagesum_below == NULL) {
        pagesum_rc = pagesum_rc != SQLITE_OK ? pagesum_rc : SQLITE_ERROR;
        return;
    }
    pagesum_vfs = *pagesum_below;
    pagesum_vfs.pNext = NULL;
    pagesum_vfs.zName = KVFS_SQ_VFS;
    pagesum_vfs.szOsFile = (int)sizeof(struct pagesum_file) + pagesum_below->szOsFile;
    pagesum_vfs.xOpen = pagesum_open;
    pagesum_rc = sqlite3_vfs_register(&pagesum_vfs, 0);
}

int
kvfs_sq_pagesum_register(void)
{
    (void)pthread_once(&pagesum_once, pagesum_init);
    return pagesum_rc;
}
