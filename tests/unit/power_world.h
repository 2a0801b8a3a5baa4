/* SPDX-License-Identifier: BSD-3-Clause
 *
 * power_world.h - a wrapper engine over engines whose power can be cut (engine_cut.h): random
 * batches, a cut at a step of chance, and what opening leaves must be the state after exactly
 * one batch, not older than the last durable one.
 */
#ifndef POWER_WORLD_H
#define POWER_WORLD_H

#include "engine_cut.h"

#define POWER_KEYS    6u
#define POWER_BATCHES 24u /* of one life */
#define POWER_LIVES   4u  /* of one store */
#define POWER_STORES  200u

/* What every key holds: the number of the batch that put it, 0: nothing. */
struct power_state {
    uint32_t value[2][POWER_KEYS];
};

struct power {
    const struct kvfs_engine *engine;
    bool ordered_is_durable;   /* what it makes of KVFS_ORDERED */
    bool repeats;              /* batches that were lost come again, the very same */
    cut_power_fn *files;       /* cuts the power of files too; or NULL */
    void (*files_new)(const char *folder);
    struct cut_control *control;
    cut_forget_fn *forget;
    cut_power_fn *cut;
    cut_step_fn *step;
    const char *params;
    char folder[128];
    uint64_t random, seed;
    struct kvfs_batch_builder *b;

    struct kvfs_db *db;
    uint32_t number; /* of the newest batch, ever */
    struct power_state states[POWER_BATCHES * POWER_LIVES + 1]; /* after each batch */
    uint32_t numbers[POWER_BATCHES * POWER_LIVES + 1];          /* as it was before the next */
    unsigned count, durable, acked; /* indexes in states; count: of the newest */
    char wrong[256];                /* what was found, or empty */
};

uint64_t power_random(struct power *p, uint64_t bound);
/* STORES stores through some power cuts each, or fewer: p->wrong then tells what was found. */
void power_run(struct power *p, const char *params, unsigned stores);

/* For cmocka: find the engine and what its module tells. */
void power_setup(struct power *p, const char *engine);
void power_teardown(struct power *p);

#endif /* POWER_WORLD_H */
