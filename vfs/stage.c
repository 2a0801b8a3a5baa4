/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stage.c - what a transaction has written and nobody else may see; also private journals.
 *
 * A sparse map of units over a base that stands still (a snapshot; nothing, for a journal).
 *
 * 1. A unit of the stage is whole: a write of a part reads the rest first.
 * 2. Of the base only [0, base_end) is seen.  A truncate lowers base_end, for good: what a
 *    file gives up and takes again reads as zeros.
 * 3. Units lie in memory while all stages of the process together stay below
 *    32 MiB, else in a temporary file of the default VFS, which vanishes with
 *    its handle.  A unit stays where it was put.
 * 4. In the temporary file a unit lies where it lies in the database, so the file is sparse
 *    and one bit tells that it is there: 32 MiB of memory for 1 TiB of blocks of 4 KiB.
 *    Units in memory are few, by 3; their table and its sorted copy are small beside them.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs_priv.h"

#define STAGE_UNIT_MAX     65536u
#define STAGE_GROUP_SHIFT  15 /* units that one piece of the map of bits stands for */

struct vfs_stage_group {
    uint64_t bits[(1u << STAGE_GROUP_SHIFT) / 64];
};

size_t vfs_stage_memory_max_bytes = (size_t)32 << 20;
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
    sqlite3_free(slot->bytes);
    atomic_fetch_sub(&stage_memory, (size_t)1 << s->shift);
}

void
vfs_stage_drop(struct vfs_stage *s)
{
    for (uint64_t i = 0; i < s->slots_cap; i++) {
        if (s->slots[i].key != 0)
            stage_slot_free(s, &s->slots[i]);
    }
    for (uint64_t i = 0; i < s->groups_count; i++)
        sqlite3_free(s->groups[i]);
    sqlite3_free(s->slots);
    sqlite3_free(s->groups);
    if (s->spill != NULL) {
        (void)s->spill->pMethods->xClose(s->spill);
        sqlite3_free(s->spill);
    }
    s->slots = NULL;
    s->slots_cap = 0;
    s->slots_count = 0;
    s->groups = NULL;
    s->groups_count = 0;
    s->spill = NULL;
    s->spilled = 0;
    s->active = false;
}

bool
vfs_stage_is_empty(const struct vfs_stage *s)
{
    return s->slots_count == 0 && s->spilled == 0;
}

/* --- units in memory -------------------------------------------------------------- */

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

static uint8_t *
stage_memory_find(const struct vfs_stage *s, uint64_t unit)
{
    return s->slots_count == 0 ? NULL : stage_place(s->slots, s->slots_cap, unit + 1)->bytes;
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

/* Put a whole unit into memory, if there is room; *done tells. */
static int
stage_memory_new(struct vfs_stage *s, uint64_t unit, const uint8_t *bytes, bool *done)
{
    size_t size = (size_t)1 << s->shift;
    uint8_t *mem = NULL;
    int rc = SQLITE_OK;

    *done = false;
    if ((s->slots_count + 1) * 4 > s->slots_cap * 3)
        rc = stage_rehash(s, s->slots_cap == 0 ? 16 : 2 * s->slots_cap, UINT64_MAX);
    if (rc != SQLITE_OK)
        return rc;
    if (atomic_fetch_add(&stage_memory, size) + size <= vfs_stage_memory_max_bytes)
        mem = sqlite3_malloc64(size);
    if (mem == NULL) {
        atomic_fetch_sub(&stage_memory, size);
        return SQLITE_OK;
    }
    memcpy(mem, bytes, size);
    *stage_place(s->slots, s->slots_cap, unit + 1) =
        (struct vfs_slot){.key = unit + 1, .bytes = mem};
    s->slots_count++;
    *done = true;
    return SQLITE_OK;
}

/* --- units in the temporary file -------------------------------------------------- */

static bool
stage_is_spilled(const struct vfs_stage *s, uint64_t unit)
{
    uint64_t group = unit >> STAGE_GROUP_SHIFT;
    uint64_t bit = unit & ((1u << STAGE_GROUP_SHIFT) - 1);

    return group < s->groups_count && s->groups[group] != NULL &&
           (s->groups[group]->bits[bit / 64] >> (bit % 64) & 1) != 0;
}

static void
stage_spill_bit(struct vfs_stage *s, uint64_t unit, bool on)
{
    uint64_t bit = unit & ((1u << STAGE_GROUP_SHIFT) - 1);
    uint64_t *word = &s->groups[unit >> STAGE_GROUP_SHIFT]->bits[bit / 64];
    uint64_t mask = UINT64_C(1) << (bit % 64);

    if (((*word & mask) != 0) == on)
        return;
    *word ^= mask;
    s->spilled += on ? 1 : UINT64_MAX;
}

/* The first unit from FROM on that is in the file; UINT64_MAX: none. */
static uint64_t
stage_spill_next(const struct vfs_stage *s, uint64_t from)
{
    for (uint64_t unit = from; unit >> STAGE_GROUP_SHIFT < s->groups_count;) {
        const struct vfs_stage_group *group = s->groups[unit >> STAGE_GROUP_SHIFT];
        uint64_t bit = unit & ((1u << STAGE_GROUP_SHIFT) - 1);
        uint64_t word = group != NULL ? group->bits[bit / 64] >> (bit % 64) : 0;

        if (group == NULL)
            unit = ((unit >> STAGE_GROUP_SHIFT) + 1) << STAGE_GROUP_SHIFT;
        else if (word == 0)
            unit = (unit / 64 + 1) * 64;
        else
            return unit + (uint64_t)__builtin_ctzll(word);
    }
    return UINT64_MAX;
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

/* Room in the map for the bits of units up to LAST. */
static int
stage_spill_reserve(struct vfs_stage *s, uint64_t first, uint64_t last)
{
    uint64_t end = (last >> STAGE_GROUP_SHIFT) + 1;

    if (end > s->groups_count) {
        uint64_t count = end + end / 8;
        struct vfs_stage_group **grown =
            sqlite3_realloc64(s->groups, count * sizeof(struct vfs_stage_group *));

        if (grown == NULL)
            return SQLITE_IOERR_NOMEM;
        for (uint64_t i = s->groups_count; i < count; i++)
            grown[i] = NULL;
        s->groups = grown;
        s->groups_count = count;
    }
    for (uint64_t i = first >> STAGE_GROUP_SHIFT; i < end; i++) {
        if (s->groups[i] != NULL)
            continue;
        s->groups[i] = sqlite3_malloc64(sizeof(struct vfs_stage_group));
        if (s->groups[i] == NULL)
            return SQLITE_IOERR_NOMEM;
        memset(s->groups[i], 0, sizeof(struct vfs_stage_group));
    }
    return SQLITE_OK;
}

/* Bytes into the file, whose folder may be full while the volume is not. */
static int
stage_spill_write(struct vfs_stage *s, const uint8_t *bytes, size_t n, uint64_t offset)
{
    int rc = kvfs_test_fault("spill") != 0 ? SQLITE_FULL : SQLITE_OK;

    if (rc == SQLITE_OK && s->spill == NULL)
        rc = stage_spill_open(s);
    if (rc == SQLITE_OK)
        rc = s->spill->pMethods->xWrite(s->spill, bytes, (int)n, (sqlite3_int64)offset);
    if (rc == SQLITE_OK || rc == SQLITE_IOERR_NOMEM)
        return rc;
    return vfs_refuse(rc, "a large transaction needs a temporary file, and %s (in the folder that "
                          "SQLITE_TMPDIR or TMPDIR names, else /var/tmp or /tmp)",
                      rc == SQLITE_FULL ? "there is no room for it" : "it cannot be written");
}

/* COUNT whole units from UNIT on go into the file. */
static int
stage_spill_put(struct vfs_stage *s, uint64_t unit, uint64_t count, const uint8_t *bytes)
{
    int rc = stage_spill_reserve(s, unit, unit + count - 1);

    if (rc == SQLITE_OK)
        rc = stage_spill_write(s, bytes, (size_t)count << s->shift, unit << s->shift);
    for (uint64_t i = 0; i < count && rc == SQLITE_OK; i++)
        stage_spill_bit(s, unit + i, true);
    return rc;
}

static int
stage_spill_read(struct vfs_stage *s, void *buf, size_t n, uint64_t offset)
{
    return s->spill->pMethods->xRead(s->spill, buf, (int)n, (sqlite3_int64)offset);
}

/* Forget the units from END on. */
static void
stage_spill_cut(struct vfs_stage *s, uint64_t end)
{
    uint64_t unit = stage_spill_next(s, end);

    if (unit == UINT64_MAX)
        return;
    for (; unit != UINT64_MAX; unit = stage_spill_next(s, unit + 1))
        stage_spill_bit(s, unit, false);
    (void)s->spill->pMethods->xTruncate(s->spill, (sqlite3_int64)end << s->shift);
}

/* --- reading and writing ------------------------------------------------------ */

/* Bytes that lie in no unit of the stage. */
static int
stage_base(struct vfs_stage *s, uint8_t *buf, size_t n, uint64_t offset)
{
    size_t seen = offset < s->base_end ? (size_t)stage_min(n, s->base_end - offset) : 0;
    int rc = seen > 0 ? s->base(s->base_arg, buf, seen, offset) : SQLITE_OK;

    if (rc == SQLITE_OK)
        memset(buf + seen, 0, n - seen);
    return rc;
}

enum stage_where { STAGE_BASE, STAGE_MEMORY, STAGE_SPILLED };

static enum stage_where
stage_where(const struct vfs_stage *s, uint64_t unit)
{
    if (stage_memory_find(s, unit) != NULL)
        return STAGE_MEMORY;
    return stage_is_spilled(s, unit) ? STAGE_SPILLED : STAGE_BASE;
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
        enum stage_where where = stage_where(s, at >> s->shift);
        uint8_t *to = (uint8_t *)buf + done;

        /* One read for all units that follow from the same place. */
        while (where != STAGE_MEMORY && done + len < inside &&
               stage_where(s, (at + len) >> s->shift) == where)
            len = (size_t)stage_min(inside - done, len + (1u << s->shift));
        if (where == STAGE_MEMORY)
            memcpy(to, stage_memory_find(s, at >> s->shift) + from, len);
        else if (where == STAGE_SPILLED)
            rc = stage_spill_read(s, to, len, at);
        else
            rc = stage_base(s, to, len, at);
        done += len;
    }
    if (rc != SQLITE_OK || inside == n)
        return rc;
    memset((uint8_t *)buf + inside, 0, n - inside);
    return SQLITE_IOERR_SHORT_READ;
}

/* LEN bytes of one unit, or as many whole units as there may be. */
static int
stage_write_new(struct vfs_stage *s, uint64_t unit, const uint8_t *buf, size_t *len)
{
    size_t size = (size_t)1 << s->shift;
    size_t count = 1;
    bool done = false;
    int rc = stage_is_spilled(s, unit) ? SQLITE_OK : stage_memory_new(s, unit, buf, &done);

    if (rc == SQLITE_OK && !done) { /* once memory is full it is so for those that follow */
        while ((count + 1) * size <= *len && stage_where(s, unit + count) != STAGE_MEMORY)
            count++;
        rc = stage_spill_put(s, unit, count, buf);
    }
    *len = count * size;
    return rc;
}

/* Write up to *LEN bytes at OFFSET; *LEN becomes how many were. */
static int
stage_write_some(struct vfs_stage *s, const uint8_t *buf, size_t *len, uint64_t offset)
{
    uint8_t whole[STAGE_UNIT_MAX];
    uint64_t unit = offset >> s->shift;
    size_t size = (size_t)1 << s->shift;
    size_t from = (size_t)(offset & (size - 1));
    size_t part = (size_t)stage_min(*len, size - from);
    uint8_t *mem = stage_memory_find(s, unit);
    int rc;

    if (mem != NULL) {
        memcpy(mem + from, buf, part);
        *len = part;
        return SQLITE_OK;
    }
    if (part == size)
        return stage_write_new(s, unit, buf, len);
    *len = part;
    if (stage_is_spilled(s, unit))
        return stage_spill_write(s, buf, part, offset);
    rc = stage_base(s, whole, size, unit << s->shift);
    if (rc != SQLITE_OK)
        return rc;
    memcpy(whole + from, buf, part);
    return stage_write_new(s, unit, whole, &size);
}

int
vfs_stage_write(struct vfs_stage *s, const void *buf, size_t n, uint64_t offset)
{
    int rc = SQLITE_OK;

    for (size_t done = 0; rc == SQLITE_OK && done < n;) {
        size_t len = n - done;

        rc = stage_write_some(s, (const uint8_t *)buf + done, &len, offset + done);
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
    uint64_t end = (size + (1u << s->shift) - 1) >> s->shift;
    size_t len = (size_t)((end << s->shift) - size);
    int rc = SQLITE_OK;

    if (size < s->size) {
        if (len > 0 && stage_where(s, size >> s->shift) != STAGE_BASE)
            rc = stage_write_some(s, zeros, &len, size);
        if (rc == SQLITE_OK && s->slots_count > 0)
            rc = stage_rehash(s, s->slots_cap, end);
        if (rc != SQLITE_OK)
            return rc;
        stage_spill_cut(s, end);
        s->base_end = stage_min(s->base_end, size);
    }
    s->size = size;
    return SQLITE_OK;
}

static int
stage_slot_order(const void *a, const void *b)
{
    uint64_t x = ((const struct vfs_slot *)a)->key;
    uint64_t y = ((const struct vfs_slot *)b)->key;

    return x < y ? -1 : x > y;
}

/* The units in memory, by number; NULL: no memory. */
static struct vfs_slot *
stage_sorted(const struct vfs_stage *s)
{
    struct vfs_slot *sorted = sqlite3_malloc64((s->slots_count + 1) * sizeof(*sorted));
    uint64_t count = 0;

    if (sorted == NULL)
        return NULL;
    for (uint64_t i = 0; i < s->slots_cap; i++) {
        if (s->slots[i].key != 0)
            sorted[count++] = s->slots[i];
    }
    qsort(sorted, (size_t)count, sizeof(*sorted), stage_slot_order);
    sorted[count] = (struct vfs_slot){.key = 0}; /* the end */
    return sorted;
}

int
vfs_stage_each(struct vfs_stage *s,
               int (*fn)(void *arg, const void *buf, size_t n, uint64_t offset), void *arg)
{
    uint64_t most = STAGE_UNIT_MAX >> s->shift;
    struct vfs_slot *sorted = stage_sorted(s);
    const struct vfs_slot *slot = sorted;
    uint8_t run[STAGE_UNIT_MAX];
    uint64_t next = stage_spill_next(s, 0);
    int rc = SQLITE_OK;

    if (sorted == NULL)
        return SQLITE_IOERR_NOMEM;
    while (rc == SQLITE_OK && (slot->key != 0 || next != UINT64_MAX)) {
        bool in_memory = slot->key != 0 && slot->key - 1 < next;
        uint64_t unit = in_memory ? slot->key - 1 : next;
        uint64_t offset = unit << s->shift;
        uint64_t count = 1;
        size_t n;

        while (!in_memory && count < most && stage_is_spilled(s, unit + count))
            count++;
        if (offset >= s->size)
            break;
        n = (size_t)stage_min(count << s->shift, s->size - offset);
        if (!in_memory)
            rc = stage_spill_read(s, run, n, offset);
        if (rc == SQLITE_OK)
            rc = fn(arg, in_memory ? slot->bytes : run, n, offset);
        if (in_memory)
            slot++;
        else
            next = stage_spill_next(s, unit + count);
    }
    sqlite3_free(sorted);
    return rc;
}
