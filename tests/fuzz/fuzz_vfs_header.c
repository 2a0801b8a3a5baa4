/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Fuzzes the header of a database on its way into a volume: the first 100 bytes of the input are
 * what is stored, the rest are writes: two bytes of offset, one of length, the bytes.  Whatever
 * they are, a header that is staged never says WAL mode, the change counter grows with the commit,
 * and nothing but the bytes for that is touched.
 */
#include <stdlib.h>
#include <string.h>

#include "../../vfs/kvfs_sqlite.h"
#include "../../vfs/vfs_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BASE_BYTES  1024u
#define MODEL_BYTES 4096u

static void
must(int condition)
{
    if (!condition)
        abort();
}

static uint32_t
number(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int
base_read(void *arg, void *buf, size_t n, uint64_t offset)
{
    const struct vfs_file *f = arg;
    const uint8_t *base = (const uint8_t *)f->path;

    must(offset + n <= f->size);
    memcpy(buf, base + offset, n);
    return SQLITE_OK;
}

static int
is_database(const uint8_t *h)
{
    return memcmp(h, "SQLite format 3", 16) == 0;
}

/* Equal but for what header.c may change; BYTES before it did. */
static void
check_bytes(struct vfs_stage *s, const uint8_t *bytes, uint8_t *now)
{
    memset(now, 0, MODEL_BYTES);
    must(vfs_stage_read(s, now, (size_t)s->size, 0) == SQLITE_OK);
    for (size_t i = 0; i < s->size; i++) {
        int ours = i == 18 || i == 19 || (i >= 24 && i < 28) || (i >= 92 && i < 96);

        must(now[i] == bytes[i] || (ours && is_database(now)));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t base[BASE_BYTES], model[MODEL_BYTES], now[MODEL_BYTES];
    struct vfs_file f = {.path = (char *)base};
    size_t stored = size < 100 ? size : 100;

    memset(base, 0, sizeof(base));
    memcpy(base, data, stored);
    f.size = size == 0 ? 0 : BASE_BYTES;
    memset(model, 0, sizeof(model));
    memcpy(model, base, (size_t)f.size);
    must(kvfs_sqlite_register(0) == SQLITE_OK);
    vfs_stage_init(&f.stage, 512, base_read, &f);
    vfs_stage_begin(&f.stage, f.size);
    data += stored;
    size -= stored;
    while (size >= 3) {
        size_t offset = ((size_t)data[0] << 8 | data[1]) % 2048;
        size_t n = data[2] < size - 3 ? data[2] : size - 3;

        data += 3;
        size -= 3;
        if (n == 0)
            break;
        memcpy(model + offset, data, n);
        must(vfs_stage_write(&f.stage, data, n, offset) == SQLITE_OK);
        must(vfs_header_written(&f.stage, offset, n) == SQLITE_OK);
        check_bytes(&f.stage, model, now);
        memcpy(model, now, (size_t)f.stage.size);
        must(f.stage.size < 100 || !is_database(now) || offset > 19 || offset + n <= 18 ||
             (now[18] < 2 && now[19] < 2));
        data += n;
        size -= n;
    }
    must(vfs_header_count(&f) == SQLITE_OK);
    check_bytes(&f.stage, model, now);
    if (f.stage.size >= 100 && f.size >= 100 && is_database(now) && is_database(base))
        must((int32_t)(number(now + 24) - number(base + 24)) > 0);
    vfs_stage_drop(&f.stage);
    return 0;
}
