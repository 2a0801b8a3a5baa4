/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_cut.h - an engine whose power can be cut.
 *
 * A module for kvfs_engine_find(), "cut": the mem engine, and a list of all batches of
 * each store.  A power cut leaves of each store its durable batches and some more, as
 * far as chance has it: what the contract lets an ordered engine do, and no less.
 */
#ifndef ENGINE_CUT_H
#define ENGINE_CUT_H

#include <stdatomic.h>

#include <kvfs/engine.h>

struct cut_control {
    _Atomic uint64_t steps; /* until the power goes; an apply takes two, a sync two */
    atomic_bool dead;       /* it went: every call that writes fails */
    uint64_t random;
};

/* In the module: `struct cut_control cut_control`, and these. */
typedef void cut_forget_fn(void);        /* all stores */
typedef void cut_power_fn(bool volatile_too); /* afterwards: true: a process died, no power cut */
typedef bool cut_step_fn(void); /* true: the power goes now.  For what is not an engine */

#endif /* ENGINE_CUT_H */
