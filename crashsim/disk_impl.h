/* SPDX-License-Identifier: BSD-3-Clause
 *
 * disk_impl.h - what disk.c and disk_cut.c share; disk.c explains it.
 */
#ifndef CRASHSIM_DISK_IMPL_H
#define CRASHSIM_DISK_IMPL_H

#include "disk.h"
#include "map.h"
#include "spans.h"

struct disk_change { /* the data follow */
    struct crashsim_write w;
    struct crashsim_span span; /* in `spans` where it is in done[]; its order is the seq */
};

struct crashsim_disk {
    struct crashsim_base base;
    uint64_t size_bytes, limit_bytes, random;
    struct crashsim_write **done, **flight, **beside; /* beside: see disk_put_beside() */
    size_t done_count, flight_count, cap; /* cap: of each, done_count + flight_count fit */
    struct crashsim_spans spans;          /* of done[] */
    struct crashsim_map visible, durable;
    uint64_t next_id, next_seq;
    size_t prune_at; /* ranges in `durable`, see disk_prune() */
    uint64_t data_bytes; /* of the open changes, with DISK_COST_CHANGE each */
    uint64_t destaged, cuts;
    bool off, broken;
};

/* [START, END) of W to the base, where nothing newer than SEQ is durable. */
int disk_put(struct crashsim_disk *d, const struct crashsim_write *w, uint64_t seq, uint64_t start,
             uint64_t end);
/* The same by whole sectors. */
int disk_put_sectors(struct crashsim_disk *d, const struct crashsim_write *w, uint64_t seq,
                     uint64_t start, uint64_t end);
/* SEQ is durable in [START, END): note it where nothing newer is. */
int disk_note_durable(struct crashsim_disk *d, uint64_t seq, uint64_t start, uint64_t end);
void disk_forget_all(struct crashsim_disk *d);

#endif /* CRASHSIM_DISK_IMPL_H */
