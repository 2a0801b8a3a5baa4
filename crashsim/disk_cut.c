/* SPDX-License-Identifier: BSD-3-Clause
 *
 * disk_cut.c - the cut of disk.h: what of the open changes goes to the base.
 */
#include <errno.h>
#include <string.h>

#include "disk_impl.h"
#include "random.h"

size_t
crashsim_disk_open_count(const struct crashsim_disk *d)
{
    return d->done_count + d->flight_count;
}

const struct crashsim_write *
crashsim_disk_open(const struct crashsim_disk *d, size_t i)
{
    return i < d->done_count ? d->done[i] : d->flight[i - d->done_count];
}

/* [START, END) of W survives.  What was not answered is noted: the next such may share a sector with
 * it, and must not put older changes over it. */
static int
disk_survive(struct crashsim_disk *d, const struct crashsim_write *w, uint64_t seq, uint64_t start,
             uint64_t end)
{
    int r = disk_put_sectors(d, w, seq, start, end);

    return r == 0 && w->seq == 0 ? disk_note_durable(d, seq, start, end) : r;
}

/* The sector that a tear spoils, where the change may write at all. */
static int
disk_spoil(struct crashsim_disk *d, const struct crashsim_choice *choice, size_t i,
           const struct crashsim_write *w, uint64_t seq)
{
    uint32_t new_bytes;
    uint64_t sector = crashsim_choice_spoilt(choice, i, w->offset, w->count, &new_bytes);
    uint64_t start = sector * 512, end = start + 512;
    uint8_t garbage[512];
    struct crashsim_write spoilt = {.kind = CRASHSIM_WRITE, .data = garbage};

    if (choice->tear == CRASHSIM_TEAR_BYTE)
        end = start + new_bytes;
    start = start < w->offset ? w->offset : start;
    end = end > w->offset + w->count ? w->offset + w->count : end;
    if (start >= end)
        return 0;
    if (choice->tear == CRASHSIM_TEAR_BYTE)
        return disk_put(d, w, seq, start, end);
    for (size_t k = 0; k < sizeof(garbage); k++)
        garbage[k] = (uint8_t)crashsim_hash2(choice->seed ^ sector, k);
    spoilt.offset = start;
    spoilt.count = (uint32_t)(end - start);
    return disk_put(d, &spoilt, seq, start, end);
}

static int
disk_tear(struct crashsim_disk *d, const struct crashsim_choice *choice, size_t i,
          const struct crashsim_write *w, uint64_t seq, struct crashsim_cut *cut)
{
    uint64_t at = w->offset, end = w->offset + w->count, stop, spoilt = UINT64_MAX;
    uint32_t new_bytes;
    int r = 0;

    if (choice->tear == CRASHSIM_TEAR_BYTE || choice->tear == CRASHSIM_TEAR_GARBAGE) {
        spoilt = crashsim_choice_spoilt(choice, i, w->offset, w->count, &new_bytes);
        r = disk_spoil(d, choice, i, w, seq);
        cut->spoilt++;
    }
    for (; r == 0 && at < end; at = stop) {
        bool keep = crashsim_choice_piece(choice, i, w->offset, w->count, at, &stop);

        if (at / 512 <= spoilt && (stop - 1) / 512 >= spoilt)
            keep = false;
        if (keep)
            r = disk_survive(d, w, seq, at, stop);
    }
    return r;
}

int
crashsim_disk_cut(struct crashsim_disk *d, const struct crashsim_choice *choice,
                  struct crashsim_cut *cut)
{
    size_t n = crashsim_disk_open_count(d);
    int r = 0;

    memset(cut, 0, sizeof(*cut));
    if (d->off)
        return -ESHUTDOWN;
    d->off = true;
    d->cuts++;
    cut->open = n;
    cut->in_flight = d->flight_count;
    for (size_t i = 0; r == 0 && i < n; i++) {
        const struct crashsim_write *w = crashsim_disk_open(d, i);
        uint64_t seq = w->seq != 0 ? w->seq : UINT64_MAX - n + i;
        enum crashsim_fate fate = crashsim_choice_fate(choice, i, n);

        if (CRASHSIM_HAS_BUG(CRASHSIM_BUG_UNANSWERED) && w->seq == 0)
            fate = CRASHSIM_DROPPED;
        if (fate == CRASHSIM_KEPT) {
            cut->kept++;
            r = disk_survive(d, w, seq, w->offset, w->offset + w->count);
        } else if (fate == CRASHSIM_TORN) {
            cut->torn++;
            r = disk_tear(d, choice, i, w, seq, cut);
        } else {
            cut->dropped++;
        }
    }
    d->broken = r < 0;
    if (CRASHSIM_HAS_BUG(CRASHSIM_BUG_DRAIN))
        return r;
    disk_forget_all(d);
    return r;
}

static int
disk_tear_picked(struct crashsim_disk *d, const struct crashsim_pick *pick, size_t i,
                 const struct crashsim_write *w, uint64_t seq)
{
    uint64_t at = w->offset, end = w->offset + w->count, stop;
    int r = 0;

    for (size_t piece = 0; r == 0 && at < end; piece++, at = stop) {
        stop = crashsim_pick_piece_end(pick, w->offset, w->count, at);
        if (crashsim_pick_keeps(pick, i, piece))
            r = disk_survive(d, w, seq, at, stop);
    }
    return r;
}

static int
disk_survive_picked(struct crashsim_disk *d, const struct crashsim_pick *pick, size_t i)
{
    const struct crashsim_write *w = crashsim_disk_open(d, i);
    uint64_t seq = w->seq != 0 ? w->seq : UINT64_MAX - pick->count + i;
    const struct crashsim_pick_fate *f = &pick->fates[i];
    struct crashsim_cut cut = {0};

    if (f->fate == CRASHSIM_KEPT)
        return disk_survive(d, w, seq, w->offset, w->offset + w->count);
    if (f->fate == CRASHSIM_TORN)
        return f->pieces != NULL ? disk_tear_picked(d, pick, i, w, seq)
                                 : disk_tear(d, &pick->choice, i, w, seq, &cut);
    return 0;
}

int
crashsim_disk_peek(struct crashsim_disk *d, const struct crashsim_pick *pick,
                   const struct crashsim_base *sink)
{
    struct crashsim_base base = d->base;
    struct crashsim_map durable = d->durable, copy = {.root = NULL};
    struct crashsim_range range;
    int r = 0;

    if (d->flight_count > 0) { /* disk_survive() notes those */
        for (uint64_t at = 0; r == 0 && crashsim_map_next(&durable, at, &range); at = range.end)
            r = crashsim_map_set(&copy, range.start, range.end, range.value);
        d->durable = copy;
    }
    d->base = *sink;
    for (size_t i = 0; r == 0 && i < pick->count; i++)
        r = disk_survive_picked(d, pick, i);
    d->base = base;
    if (d->flight_count > 0) {
        crashsim_map_reset(&d->durable);
        d->durable = durable;
    }
    return r;
}
