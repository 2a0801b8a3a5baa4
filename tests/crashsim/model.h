/* SPDX-License-Identifier: BSD-3-Clause
 *
 * model.h - the disk of crashsim/ against a plain one: a byte has a value and the number of who
 * wrote it, open changes stand in a list, and nothing is clever.
 */
#ifndef CRASHSIM_TESTS_MODEL_H
#define CRASHSIM_TESTS_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "disk.h"

struct model_counts { /* of all rounds: what came about */
    uint64_t cuts, kept, torn, dropped, in_flight_kept, destaged, kept_away, fua, flushes;
};

/* One disk, OPS random operations among them cuts, from SEED.  false: the disk was not what the
 * plain one says, and it is printed unless QUIET. */
bool model_round(uint64_t seed, unsigned ops, bool quiet, struct model_counts *counts);

uint64_t model_seed(void);    /* KVFS_SEED or the clock; printed */
unsigned model_scale(void);   /* KVFS_SCALE or 1 */

#endif /* CRASHSIM_TESTS_MODEL_H */
