/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stage.c - what a transaction has written and nobody else may see; also private journals.
 *
 * A sparse map of units over a base that stands still (a snapshot; nothing, for a journal).
 *
 * 1. A unit in the map is whole: a write of a part reads the rest first.
 * 2. Of the base only [0, base_end) is seen.  A truncate lowers base_end, for good: what a
 *    file gives up and takes again reads as zeros.
 * 3. Units lie in memory while all stages of the process together stay below
 *    STAGE_MEMORY_BYTES, else in a temporary file of the default VFS, which vanishes with
 *    its handle.  A unit stays where it was put.
 * 4. The map costs 16 bytes a unit, at most twice as many places as units.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs_priv.h"

#define STAGE_MEMORY_BYTES ((size_t)32 << 20)
#define STAGE_UNIT_MAX     65536u

static atomic_size_t stage_memory;

static uint64_t
stage_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void
vfs_stage_init(struct vfs_stage *s, unsigned unit_bytes, vfs_base_fn *base, void *arg)
{
    memset(s, 0, sizeof(*s));
    while ((1u << s->shift) < unit_bytes)
        s->shift++;
    s->base = base;
    s->base_arg = arg;
}

void
vfs_stage_begin(struct vfs_stage *s, uint64_t size)
{
    if (s->active)
        return;
    s->active = true;
    s->size = size;
    s->base_end = size;
}

static void
stage_slot_free(struct vfs_stage *s, const struct vfs_slot *slot)
{
    if ((slot->place & 1) != 0)
        return; /* its place in the spill file is not used again */
    sqlite3_free((void *)(uintptr_t)slot->place);
    atomic_fetch_sub(&stage_memory, (size_t)1 << s->shift);
}

void
vfs_stage_drop(struct vfs_stage *s)
{
    for (uint64_t i = 0; i < s->slots_cap; i++) {
        if (s->slots[i].key != 0)
            stage_slot_free(s, &s->slots[i]);
    }
    sqlite3_free(s->slots);
    if (s->spill != NULL) {
        (void)s->spill->pMethods->xClose(s->spill);
        sqlite3_free(s->spill);
    }
    s->slots = NULL;
    s->slots_cap = 0;
    s->slots_count = 0;
    s->spill = NULL;
    s->spill_next = 0;
    s->active = false;
}

/* --- the map ---------------------------------------------------------------- */

static struct vfs_slot *
stage_place(struct vfs_slot *slots, uint64_t cap, uint64_t key)
{
    uint64_t at = (key * UINT64_C(0x9e3779b97f4a7c15)) >> 20;

    for (;; at++) {
        struct vfs_slot *slot = &slots[at & (cap - 1)];

        if (slot->key == key || slot->key == 0)
            return slot;
    }
}

static struct vfs_slot *
stage_find(const struct vfs_stage *s, uint64_t unit)
{
    struct vfs_slot *slot;

    if (s->slots_count == 0)
        return NULL;
    slot = stage_place(s->slots, s->slots_cap, unit + 1);
    return slot->key != 0 ? slot : NULL;
}

/* Move what lies before unit END to a table of CAP places; free the rest. */
static int
stage_rehash(struct vfs_stage *s, uint64_t cap, uint64_t end)
{
    struct vfs_slot *slots = sqlite3_malloc64(cap * sizeof(*slots));
    uint64_t count = 0;

    if (slots == NULL)
        return SQLITE_IOERR_NOMEM;
    memset(slots, 0, cap * sizeof(*slots));
    for (uint64_t i = 0; i < s->slots_cap; i++) {
        const struct vfs_slot *slot = &s->slots[i];

        if (slot->key == 0)
            continue;
        if (slot->key > end) {
            stage_slot_free(s, slot);
            continue;
        }
        *stage_place(slots, cap, slot->key) = *slot;
        count++;
    }
    sqlite3_free(s->slots);
    s->slots = slots;
    s->slots_cap = cap;
    s->slots_count = count;
    return SQLITE_OK;
}

static int
stage_spill_open(struct vfs_stage *s)
{
    sqlite3_vfs *vfs = vfs_default();
    int flags = SQLITE_OPEN_TRANSIENT_DB | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                SQLITE_OPEN_EXCLUSIVE | SQLITE_OPEN_DELETEONCLOSE;
    sqlite3_file *file = sqlite3_malloc(vfs->szOsFile);
    int rc;

    if (file == NULL)
        return SQLITE_IOERR_NOMEM;
    memset(file, 0, (size_t)vfs->szOsFile);
    rc = vfs->xOpen(vfs, NULL, file, flags, &flags);
    if (rc != SQLITE_OK) {
        if (file->pMethods != NULL)
            (void)file->pMethods->xClose(file);
        sqlite3_free(file);
        return rc;
    }
    s->spill = file;
    return SQLITE_OK;
}

static int
stage_unit_new(struct vfs_stage *s, uint64_t unit, const uint8_t *bytes)
{
    size_t size = (size_t)1 << s->shift;
    struct vfs_slot slot = {.key = unit + 1};
    int rc = SQLITE_OK;

    if ((s->slots_count + 1) * 4 > s->slots_cap * 3)
        rc = stage_rehash(s, s->slots_cap == 0 ? 16 : 2 * s->slots_cap, UINT64_MAX);
    if (rc != SQLITE_OK)
        return rc;
    if (atomic_fetch_add(&stage_memory, size) + size <= STAGE_MEMORY_BYTES) {
        void *mem = sqlite3_malloc64(size);

        if (mem != NULL) {
            memcpy(mem, bytes, size);
            slot.place = (uintptr_t)mem;
        }
    }
    if (slot.place == 0) {
        atomic_fetch_sub(&stage_memory, size);
        if (s->spill == NULL)
            rc = stage_spill_open(s);
        if (rc == SQLITE_OK)
            rc = s->spill->pMethods->xWrite(s->spill, bytes, (int)size,
                                            (sqlite3_int64)s->spill_next << s->shift);
        if (rc != SQLITE_OK)
            return rc;
        slot.place = 1 + 2 * s->spill_next++;
    }
    *stage_place(s->slots, s->slots_cap, unit + 1) = slot;
    s->slots_count++;
    return SQLITE_OK;
}

/* A slot's memory; NULL: it lies in the spill file at *AT. */
static uint8_t *
stage_slot_memory(const struct vfs_stage *s, const struct vfs_slot *slot, sqlite3_int64 *at)
{
    *at = (sqlite3_int64)(slot->place >> 1) << s->shift;
    return (slot->place & 1) == 0 ? (uint8_t *)(uintptr_t)slot->place : NULL;
}

static int
stage_slot_get(struct vfs_stage *s, const struct vfs_slot *slot, void *buf, size_t n, size_t from)
{
    sqlite3_int64 at;
    const uint8_t *mem = stage_slot_memory(s, slot, &at);

    if (mem == NULL)
        return s->spill->pMethods->xRead(s->spill, buf, (int)n, at + (sqlite3_int64)from);
    memcpy(buf, mem + from, n);
    return SQLITE_OK;
}

static int
stage_slot_put(struct vfs_stage *s, const struct vfs_slot *slot, const void *buf, size_t n,
               size_t from)
{
    sqlite3_int64 at;
    uint8_t *mem = stage_slot_memory(s, slot, &at);

    if (mem == NULL)
        return s->spill->pMethods->xWrite(s->spill, buf, (int)n, at + (sqlite3_int64)from);
    memcpy(mem + from, buf, n);
    return SQLITE_OK;
}

/* --- reading and writing ------------------------------------------------------ */

/* Bytes that lie in no unit of the map. */
static int
stage_base(struct vfs_stage *s, uint8_t *buf, size_t n, uint64_t offset)
{
    size_t seen = offset < s->base_end ? (size_t)stage_min(n, s->base_end - offset) : 0;
    int rc = seen > 0 ? s->base(s->base_arg, buf, seen, offset) : SQLITE_OK;

    if (rc == SQLITE_OK)
        memset(buf + seen, 0, n - seen);
    return rc;
}

int
vfs_stage_read(struct vfs_stage *s, void *buf, size_t n, uint64_t offset)
{
    size_t inside = offset < s->size ? (size_t)stage_min(n, s->size - offset) : 0;
    size_t done = 0;
    int rc = SQLITE_OK;

    while (rc == SQLITE_OK && done < inside) {
        uint64_t at = offset + done;
        size_t from = (size_t)(at & ((1u << s->shift) - 1));
        size_t len = (size_t)stage_min(inside - done, (1u << s->shift) - from);
        const struct vfs_slot *slot = stage_find(s, at >> s->shift);

        if (slot != NULL) {
            rc = stage_slot_get(s, slot, (uint8_t *)buf + done, len, from);
        } else {
            /* One read of the base for all units that follow without a slot. */
            while (done + len < inside && stage_find(s, (at + len) >> s->shift) == NULL)
                len = (size_t)stage_min(inside - done, len + (1u << s->shift));
            rc = stage_base(s, (uint8_t *)buf + done, len, at);
        }
        done += len;
    }
    if (rc != SQLITE_OK || inside == n)
        return rc;
    memset((uint8_t *)buf + inside, 0, n - inside);
    return SQLITE_IOERR_SHORT_READ;
}

static int
stage_write_part(struct vfs_stage *s, const uint8_t *buf, size_t len, size_t from, uint64_t unit)
{
    uint8_t whole[STAGE_UNIT_MAX];
    const struct vfs_slot *slot = stage_find(s, unit);
    int rc;

    if (slot != NULL)
        return stage_slot_put(s, slot, buf, len, from);
    if (len == (size_t)1 << s->shift)
        return stage_unit_new(s, unit, buf);
    rc = stage_base(s, whole, (size_t)1 << s->shift, unit << s->shift);
    if (rc != SQLITE_OK)
        return rc;
    memcpy(whole + from, buf, len);
    return stage_unit_new(s, unit, whole);
}

int
vfs_stage_write(struct vfs_stage *s, const void *buf, size_t n, uint64_t offset)
{
    size_t done = 0;
    int rc = SQLITE_OK;

    while (rc == SQLITE_OK && done < n) {
        uint64_t at = offset + done;
        size_t from = (size_t)(at & ((1u << s->shift) - 1));
        size_t len = (size_t)stage_min(n - done, (1u << s->shift) - from);

        rc = stage_write_part(s, (const uint8_t *)buf + done, len, from, at >> s->shift);
        done += len;
    }
    if (rc == SQLITE_OK && offset + n > s->size)
        s->size = offset + n;
    return rc;
}

int
vfs_stage_truncate(struct vfs_stage *s, uint64_t size)
{
    static const uint8_t zeros[STAGE_UNIT_MAX];
    size_t from = (size_t)(size & ((1u << s->shift) - 1));
    const struct vfs_slot *slot = stage_find(s, size >> s->shift);
    int rc = SQLITE_OK;

    if (size < s->size) {
        if (slot != NULL && from != 0)
            rc = stage_write_part(s, zeros, ((size_t)1 << s->shift) - from, from,
                                  size >> s->shift);
        if (rc == SQLITE_OK && s->slots_count > 0)
            rc = stage_rehash(s, s->slots_cap, (size + (1u << s->shift) - 1) >> s->shift);
        s->base_end = stage_min(s->base_end, size);
    }
    if (rc == SQLITE_OK)
        s->size = size;
    return rc;
}

static int
stage_slot_order(const void *a, const void *b)
{
    uint64_t x = ((const struct vfs_slot *)a)->key;
    uint64_t y = ((const struct vfs_slot *)b)->key;

    return x < y ? -1 : x > y;
}

int
vfs_stage_each(struct vfs_stage *s,
               int (*fn)(void *arg, const void *buf, size_t n, uint64_t offset), void *arg)
{
    struct vfs_slot *sorted;
    uint8_t unit[STAGE_UNIT_MAX];
    uint64_t count = 0;
    int rc = SQLITE_OK;

    if (s->slots_count == 0)
        return SQLITE_OK;
    sorted = sqlite3_malloc64(s->slots_count * sizeof(*sorted));
    if (sorted == NULL)
        return SQLITE_IOERR_NOMEM;
    for (uint64_t i = 0; i < s->slots_cap; i++) {
        if (s->slots[i].key != 0)
            sorted[count++] = s->slots[i];
    }
    qsort(sorted, (size_t)count, sizeof(*sorted), stage_slot_order);
    for (uint64_t i = 0; i < count && rc == SQLITE_OK; i++) {
        uint64_t offset = (sorted[i].key - 1) << s->shift;
        size_t n = offset < s->size ? (size_t)stage_min((uint64_t)1 << s->shift, s->size - offset)
                                    : 0;

        if (n > 0)
            rc = stage_slot_get(s, &sorted[i], unit, n, 0);
        if (n > 0 && rc == SQLITE_OK)
            rc = fn(arg, unit, n, offset);
    }
    sqlite3_free(sorted);
    return rc;
}
