/* SPDX-License-Identifier: BSD-3-Clause
 *
 * disk.c - see disk.h.
 *
 * A change passes through
 *
 *     submit ──► in flight ──complete──► answered ──flush, destage──► durable, gone from here
 *                    │           └─FUA────────────────────────────────►
 *                    └──abandon──► gone
 *
 * and at a cut each that is in flight or answered is dropped, kept or torn.
 *
 * 1. done[] holds what was answered and is open, sorted by seq; flight[] what is in flight, by id.
 *    Together, in this order, they are the open changes.
 * 2. `visible` says for each byte which of done[] was answered last.  Where it says nothing, the
 *    base has what reads see.
 * 3. `durable` says for each byte the seq of the newest change that is in the base, as far as an
 *    older one is in done[]; where one is, `visible` or `durable` says something.  A change goes
 *    to the base only where `durable` has nothing newer, so an older one never comes back over a
 *    newer, also in part.  A change in flight is newer than all that were answered: it was still
 *    under way when they were, and either order is legal.
 * 4. A newer *open* change does not remove an older one: at a cut the newer may be dropped and the
 *    older kept.
 * 5. Whatever may need memory gets it in submit; only the two maps allocate later, and a change
 *    that they have no room for fails.
 * 6. The cache's cost counts changes, their data and the ranges of both maps.  Before a change is
 *    answered others are destaged until it fits, one after the other, in seeded order among the older
 *    half; the oldest more often than others, so that none stays for good.  So the cache holds at
 *    most one answered change beyond the bound, and what is in flight.
 * 7. The base gets whole sectors, but for what a flush writes in order.  A change that begins or
 *    ends inside a sector takes with it what older changes put there: a state in which it is there
 *    and they are not would be half a sector.
 */
#include "disk.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "disk_impl.h"
#include "random.h"

#define DISK_COST_CHANGE 224        /* a change without its data */
#define DISK_PIECE_MAX   (1u << 30) /* of one call to the base */
#define DISK_SECTOR      ((uint64_t)512)

#ifdef CRASHSIM_TEST_BUGS
enum crashsim_bug crashsim_disk_bug;
#endif

int
crashsim_disk_new(const struct crashsim_base *base, uint64_t size_bytes, uint64_t cache_bytes,
                  uint64_t seed, struct crashsim_disk **disk)
{
    struct crashsim_disk *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return -ENOMEM;
    d->base = *base;
    d->size_bytes = size_bytes;
    d->limit_bytes = cache_bytes;
    d->random = crashsim_hash(seed);
    *disk = d;
    return 0;
}

static void
disk_forget(struct crashsim_disk *d, struct crashsim_write *w)
{
    d->data_bytes -= DISK_COST_CHANGE + (w->data != NULL ? w->count : 0);
    free(w);
}

/* W is the newest of done[]. */
static void
disk_enter(struct crashsim_disk *d, struct crashsim_write *w)
{
    struct crashsim_span *span = &((struct disk_change *)w)->span;

    d->done[d->done_count++] = w;
    *span = (struct crashsim_span){.start = w->offset, .end = w->offset + w->count,
                                   .order = w->seq};
    crashsim_spans_add(&d->spans, span);
}

/* W is in done[] no more. */
static void
disk_leave(struct crashsim_disk *d, struct crashsim_write *w)
{
    crashsim_spans_remove(&d->spans, &((struct disk_change *)w)->span);
    disk_forget(d, w);
}

void
disk_forget_all(struct crashsim_disk *d)
{
    for (size_t i = 0; i < d->done_count; i++)
        disk_forget(d, d->done[i]);
    for (size_t i = 0; i < d->flight_count; i++)
        disk_forget(d, d->flight[i]);
    d->done_count = d->flight_count = 0;
    d->spans.root = NULL;
    crashsim_map_reset(&d->visible);
    crashsim_map_reset(&d->durable);
}

void
crashsim_disk_free(struct crashsim_disk *d)
{
    if (d == NULL)
        return;
    disk_forget_all(d);
    free(d->done);
    free(d->flight);
    free(d->beside);
    free(d);
}

/* --- to the base --- */

/* [START, END) of W, whatever is there. */
static int
disk_put_piece(struct crashsim_disk *d, const struct crashsim_write *w, uint64_t start,
               uint64_t end)
{
    int r = 0;

    while (r == 0 && start < end) {
        uint32_t n = end - start < DISK_PIECE_MAX ? (uint32_t)(end - start) : DISK_PIECE_MAX;

        if (w->kind == CRASHSIM_WRITE)
            r = d->base.pwrite(d->base.opaque, w->data + (start - w->offset), n, start);
        else
            r = d->base.zero(d->base.opaque, n, start, w->kind == CRASHSIM_TRIM);
        start += n;
    }
    return r;
}

int
disk_put(struct crashsim_disk *d, const struct crashsim_write *w, uint64_t seq, uint64_t start,
         uint64_t end)
{
    struct crashsim_range newer;
    int r = 0;

    while (r == 0 && start < end) {
        if (!crashsim_map_next(&d->durable, start, &newer) || newer.start >= end)
            return disk_put_piece(d, w, start, end);
        if (newer.value < seq || CRASHSIM_HAS_BUG(CRASHSIM_BUG_OLDER_OVER_NEWER))
            r = disk_put_piece(d, w, start, newer.end < end ? newer.end : end);
        else if (newer.start > start)
            r = disk_put_piece(d, w, start, newer.start);
        start = newer.end;
    }
    return r;
}

static int
disk_compare(const void *a, const void *b)
{
    const struct crashsim_write *const *x = a, *const *y = b;

    return (*x)->seq < (*y)->seq ? -1 : (*x)->seq > (*y)->seq;
}

/* The changes before SEQ that are to be seen in the sector at START, into beside[], oldest first; their
 * number.  Of those that begin at one place an older one is seen only where it is longer. */
static size_t
disk_collect(struct crashsim_disk *d, uint64_t seq, uint64_t start)
{
    uint64_t from = start + DISK_SECTOR;
    struct crashsim_span *s;
    size_t n = 0;

    while ((s = crashsim_spans_before(&d->spans, from, 0, start)) != NULL) {
        uint64_t order = seq, end = start;

        from = s->start;
        while (end < start + DISK_SECTOR &&
               (s = crashsim_spans_before(&d->spans, from, order, end)) != NULL && s->start == from) {
            d->beside[n++] = &((struct disk_change *)((char *)s - offsetof(struct disk_change, span)))->w;
            order = s->order;
            end = s->end;
        }
    }
    if (n > 1)
        qsort(d->beside, n, sizeof(void *), disk_compare);
    return n;
}

/* A disk writes sectors.  Where W begins or ends inside one, that sector goes down as it was when W
 * was answered: with what older changes put there, before W itself. */
static int
disk_put_beside(struct crashsim_disk *d, uint64_t seq, uint64_t at)
{
    uint64_t sector = at / DISK_SECTOR * DISK_SECTOR;
    size_t n = at != sector ? disk_collect(d, seq, sector) : 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        const struct crashsim_write *old = d->beside[i];
        uint64_t start = old->offset > sector ? old->offset : sector;
        uint64_t end = old->offset + old->count;

        r = disk_put(d, old, old->seq, start,
                     end < sector + DISK_SECTOR ? end : sector + DISK_SECTOR);
    }
    return r;
}

int
disk_put_sectors(struct crashsim_disk *d, const struct crashsim_write *w, uint64_t seq,
                 uint64_t start, uint64_t end)
{
    int r = disk_put_beside(d, seq, start);

    if (r == 0 && (end / DISK_SECTOR != start / DISK_SECTOR || start % DISK_SECTOR == 0))
        r = disk_put_beside(d, seq, end);
    return r < 0 ? r : disk_put(d, w, seq, start, end);
}

static uint64_t
disk_sector_end(const struct crashsim_disk *d, uint64_t at)
{
    uint64_t end = (at + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;

    return end < d->size_bytes ? end : d->size_bytes;
}

int
disk_note_durable(struct crashsim_disk *d, uint64_t seq, uint64_t start, uint64_t end)
{
    struct crashsim_range old;
    int r = 0;

    while (r == 0 && start < end) {
        bool found = crashsim_map_next(&d->durable, start, &old) && old.start < end;
        uint64_t stop = !found ? end : old.start > start ? old.start : old.end;

        if (stop > end)
            stop = end;
        if (!found || old.start > start || old.value < seq)
            r = crashsim_map_set(&d->durable, start, stop, seq);
        start = stop;
    }
    return r;
}

/* Reads no longer see W, where they did: the base has it, or nobody. */
static int
disk_unsee(struct crashsim_disk *d, const struct crashsim_write *w)
{
    uint64_t at = w->offset, end = w->offset + w->count;
    struct crashsim_range seen;
    int r = 0;

    while (r == 0 && crashsim_map_next(&d->visible, at, &seen) && seen.start < end) {
        if (seen.value == w->seq)
            r = crashsim_map_erase(&d->visible, seen.start, seen.end);
        at = seen.end;
    }
    return r;
}

/* done[I] goes to the base and is gone. */
static int
disk_retire(struct crashsim_disk *d, size_t i)
{
    struct crashsim_write *w = d->done[i];
    uint64_t end = w->offset + w->count;
    int r = disk_put_sectors(d, w, w->seq, w->offset, end);

    if (r == 0 && i > 0) /* the oldest has none to keep away */
        r = disk_note_durable(d, w->seq, w->offset / DISK_SECTOR * DISK_SECTOR,
                              disk_sector_end(d, end));
    if (r == 0)
        r = disk_unsee(d, w);
    if (r < 0)
        return r;
    d->destaged++;
    if (d->base.destaged != NULL)
        d->base.destaged(d->base.opaque, w);
    memmove(&d->done[i], &d->done[i + 1], (d->done_count - i - 1) * sizeof(void *));
    d->done_count--;
    disk_leave(d, w);
    if (d->done_count == 0) {
        crashsim_map_reset(&d->visible);
        crashsim_map_reset(&d->durable);
    }
    return 0;
}

/* --- the cache's bound --- */

static uint64_t
disk_cost(const struct crashsim_disk *d)
{
    return d->data_bytes +
           (d->visible.count + d->durable.count) * (uint64_t)CRASHSIM_MAP_NODE_BYTES;
}

/* Forget what keeps no one away any more.  Often enough that the map stays small, seldom enough
 * that it costs nothing. */
static int
disk_prune(struct crashsim_disk *d)
{
    struct crashsim_range range;
    int r = 0;

    if (d->durable.count < d->prune_at)
        return 0;
    for (uint64_t at = 0; r == 0 && crashsim_map_next(&d->durable, at, &range); at = range.end) {
        if (range.value < d->done[0]->seq)
            r = crashsim_map_erase(&d->durable, range.start, range.end);
    }
    d->prune_at = 2 * d->durable.count + 64;
    return r;
}

static int
disk_destage(struct crashsim_disk *d)
{
    int r = 0;

    while (r == 0 && d->done_count > 0 && disk_cost(d) > d->limit_bytes) {
        uint64_t n = crashsim_random(&d->random);
        size_t i = n % 4 == 0 ? 0 : (size_t)(n / 4 % ((d->done_count + 1) / 2));

        r = disk_retire(d, i);
        if (r == 0 && d->done_count > 0)
            r = disk_prune(d);
    }
    return r;
}

/* --- changes --- */

static int
disk_reserve(struct crashsim_disk *d)
{
    size_t want = d->done_count + d->flight_count + 1, cap = d->cap < 64 ? 64 : d->cap * 2;
    void *done, *flight, *beside;

    if (want <= d->cap)
        return 0;
    done = realloc(d->done, cap * sizeof(void *));
    if (done != NULL)
        d->done = done;
    flight = realloc(d->flight, cap * sizeof(void *));
    if (flight != NULL)
        d->flight = flight;
    beside = realloc(d->beside, cap * sizeof(void *));
    if (beside != NULL)
        d->beside = beside;
    if (done == NULL || flight == NULL || beside == NULL)
        return -ENOMEM;
    d->cap = cap;
    return 0;
}

int
crashsim_disk_submit(struct crashsim_disk *d, const struct crashsim_write *w, uint64_t *id)
{
    size_t data = w->kind == CRASHSIM_WRITE ? w->count : 0;
    struct crashsim_write *own;
    struct disk_change *change;
    uint8_t *copy;

    if (d->off)
        return -ESHUTDOWN;
    if (w->count == 0 || w->offset > d->size_bytes || w->count > d->size_bytes - w->offset)
        return -EINVAL;
    if (disk_reserve(d) < 0)
        return -ENOMEM;
    change = malloc(sizeof(*change) + data);
    if (change == NULL)
        return -ENOMEM;
    own = &change->w;
    *own = *w;
    own->data = NULL;
    if (w->kind == CRASHSIM_WRITE) {
        copy = (uint8_t *)(change + 1);
        memcpy(copy, w->data, data);
        own->data = copy;
    }
    own->id = *id = ++d->next_id;
    own->seq = 0;
    d->flight[d->flight_count++] = own;
    d->data_bytes += DISK_COST_CHANGE + data;
    return 0;
}

static struct crashsim_write *
disk_land(struct crashsim_disk *d, uint64_t id)
{
    struct crashsim_write *w;
    size_t i = 0;

    while (i < d->flight_count && d->flight[i]->id != id)
        i++;
    if (i == d->flight_count)
        return NULL;
    w = d->flight[i];
    memmove(&d->flight[i], &d->flight[i + 1], (d->flight_count - i - 1) * sizeof(void *));
    d->flight_count--;
    return w;
}

/* The same of FUA at its completion, only where an older change may be open: that is where
 * `visible` or `durable` says something.  Else a stream of FUA would fill the map. */
static int
disk_note_fua(struct crashsim_disk *d, uint64_t seq, uint64_t start, uint64_t end)
{
    const struct crashsim_map *maps[] = {&d->durable, &d->visible};
    struct crashsim_range range;
    int r = 0;

    for (int i = 0; r == 0 && i < 2 && d->done_count > 0; i++) {
        for (uint64_t at = start;
             r == 0 && crashsim_map_next(maps[i], at, &range) && range.start < end;
             at = range.end)
            r = crashsim_map_set(&d->durable, range.start > start ? range.start : start,
                                 range.end < end ? range.end : end, seq);
    }
    return r;
}

/* A change with FUA is written through: older open ones stay as open as they were. */
static int
disk_write_through(struct crashsim_disk *d, const struct crashsim_write *w)
{
    uint64_t end = w->offset + w->count;
    int r = 0;

    if (CRASHSIM_HAS_BUG(CRASHSIM_BUG_FUA_BARRIER))
        r = crashsim_disk_flush(d, d->next_seq);
    if (r == 0)
        r = disk_put_sectors(d, w, w->seq, w->offset, end);
    if (r == 0)
        r = disk_note_fua(d, w->seq, w->offset / DISK_SECTOR * DISK_SECTOR,
                          disk_sector_end(d, end));
    if (r == 0)
        r = crashsim_map_erase(&d->visible, w->offset, end);
    return r;
}

int
crashsim_disk_complete(struct crashsim_disk *d, uint64_t id, uint64_t *seq)
{
    struct crashsim_write *w = disk_land(d, id);
    int r, failed = 0;

    *seq = 0;
    if (w == NULL)
        return -ESHUTDOWN;
    r = disk_destage(d); /* before it is taken in: if the base takes nothing, nor does the cache */
    if (r == 0) {
        w->seq = ++d->next_seq;
        failed = w->fua ? disk_write_through(d, w) : 0;
    }
    if (r == 0 && w->fua && failed == 0) {
        *seq = w->seq;
        disk_forget(d, w);
    } else {
        if (r == 0)
            r = crashsim_map_set(&d->visible, w->offset, w->offset + w->count, w->seq);
        if (r < 0) {
            disk_forget(d, w);
            return r;
        }
        *seq = w->seq;
        disk_enter(d, w);
    }
    return failed;
}

void
crashsim_disk_abandon(struct crashsim_disk *d, uint64_t id)
{
    struct crashsim_write *w = disk_land(d, id);

    if (w != NULL)
        disk_forget(d, w);
}

/* --- reads --- */

static const struct crashsim_write *
disk_find(const struct crashsim_disk *d, uint64_t seq)
{
    size_t lo = 0, hi = d->done_count;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (d->done[mid]->seq <= seq)
            lo = mid;
        else
            hi = mid;
    }
    return d->done[lo];
}

int
crashsim_disk_read(struct crashsim_disk *d, void *buf, uint32_t count, uint64_t offset)
{
    uint64_t at = offset, end = offset + count;
    uint8_t *out = buf;
    int r = 0;

    if (d->off)
        return -ESHUTDOWN;
    if (offset > d->size_bytes || count > d->size_bytes - offset)
        return -EINVAL;
    while (r == 0 && at < end) {
        struct crashsim_range seen;
        bool found = crashsim_map_next(&d->visible, at, &seen) && seen.start < end;
        uint64_t stop = !found ? end : seen.start > at ? seen.start : seen.end;
        const struct crashsim_write *w;

        if (stop > end)
            stop = end;
        if (!found || seen.start > at) {
            r = d->base.pread(d->base.opaque, out + (at - offset), (uint32_t)(stop - at), at);
        } else {
            w = disk_find(d, seen.value);
            if (w->data != NULL)
                memcpy(out + (at - offset), w->data + (at - w->offset), (size_t)(stop - at));
            else
                memset(out + (at - offset), 0, (size_t)(stop - at));
        }
        at = stop;
    }
    return r;
}

/* --- flush --- */

int
crashsim_disk_flush_begin(const struct crashsim_disk *d, uint64_t *bound)
{
    *bound = d->next_seq;
    return d->off ? -ESHUTDOWN : 0;
}

int
crashsim_disk_flush(struct crashsim_disk *d, uint64_t bound)
{
    size_t count = 0, gone = 0;
    int r = 0;

    if (d->off)
        return -ESHUTDOWN;
    while (count < d->done_count && d->done[count]->seq <= bound)
        count++;
    while (r == 0 && gone < count) {
        struct crashsim_write *w = d->done[gone];

        if (!(CRASHSIM_HAS_BUG(CRASHSIM_BUG_FLUSH_FORGETS) && w->id % 8 == 5))
            r = disk_put(d, w, w->seq, w->offset, w->offset + w->count);
        if (r == 0)
            r = disk_unsee(d, w);
        if (r == 0)
            gone++;
    }
    if (gone == 0)
        return r;
    for (size_t i = 0; i < gone; i++) {
        if (r < 0 && d->base.destaged != NULL)
            d->base.destaged(d->base.opaque, d->done[i]);
        disk_leave(d, d->done[i]);
    }
    memmove(d->done, d->done + gone, (d->done_count - gone) * sizeof(void *));
    d->done_count -= gone;
    if (d->done_count == 0) {
        crashsim_map_reset(&d->visible);
        crashsim_map_reset(&d->durable);
    }
    return r;
}

/* --- others --- */

int
crashsim_disk_destage(struct crashsim_disk *d, uint64_t id)
{
    size_t lo = 0, hi = d->done_count;

    while (lo < hi) { /* the answers are nearly in the order of coming: it is not far from there */
        size_t mid = lo + (hi - lo) / 2;

        if (d->done[mid]->id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (size_t k = 0; k <= d->done_count; k++) {
        if (k <= lo && lo - k < d->done_count && d->done[lo - k]->id == id)
            return disk_retire(d, lo - k);
        if (lo + k < d->done_count && d->done[lo + k]->id == id)
            return disk_retire(d, lo + k);
    }
    return -ENOENT;
}

bool
crashsim_disk_is_off(const struct crashsim_disk *d)
{
    return d->off;
}

int
crashsim_disk_power_on(struct crashsim_disk *d)
{
    if (!d->off)
        return -EALREADY;
    if (d->broken)
        return -EIO;
    d->off = false;
    return 0;
}

void
crashsim_disk_stats(const struct crashsim_disk *d, struct crashsim_disk_stats *stats)
{
    stats->open = crashsim_disk_open_count(d);
    stats->in_flight = d->flight_count;
    stats->cache_bytes = disk_cost(d);
    stats->destaged = d->destaged;
    stats->cuts = d->cuts;
}
