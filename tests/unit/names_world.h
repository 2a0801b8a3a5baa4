/* SPDX-License-Identifier: BSD-3-Clause
 *
 * names_world.h - a volume in a folder of its own, and a judge of its names,
 * for the tests of dir.c and its neighbours.
 */
#ifndef KVFS_NAMES_WORLD_H
#define KVFS_NAMES_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvfs/kvfs.h>

struct world {
    const char *engine;
    uint64_t store_max_bytes; /* 0: none; set before world_begin */
    char path[64];            /* of the volume */
    struct kvfs_volume *v;
};

/* The engines that are built in and that names are tested over, in turn. */
const char *world_engine_at(unsigned n);

/* Make a volume and open it; world_end removes it.  All three exit the process
 * with a message when they fail: nothing can be tested then. */
void world_begin(struct world *w, const char *engine);
void world_reopen(struct world *w);
void world_end(struct world *w);

/* Read every record of names and attributes and hold them against each other.
 * 0: they agree; else WHY says what does not. */
int world_judge(struct kvfs_volume *v, char *why, size_t why_cap);

/* KVFS_SEED or the time, printed; and how many times longer than usual. */
unsigned world_seed(void);
unsigned world_scale(void);

#endif /* KVFS_NAMES_WORLD_H */
