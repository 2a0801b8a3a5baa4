/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cuts.h - the instants of a recording at which the power is cut.
 */
#ifndef CRASHSIM_CUTS_H
#define CRASHSIM_CUTS_H

#include <stddef.h>
#include <stdint.h>

#include "trace.h"

#define CUTS_A_ROUND 24u
#define CUTS_MAX     128u

/* Both: instants of T from event FIRST on into CUTS, ascending, perhaps one of them twice; returns
 * how many. */

/* Up to CUTS_A_ROUND instants where many changes are open; every other one below BEFORE. */
size_t cuts_at_random(const struct trace *t, size_t first, size_t before, uint64_t seed,
                      size_t cuts[CUTS_MAX]);
/* Just before a flush is answered, of each flush, or of CUTS_MAX of them. */
size_t cuts_at_flushes(const struct trace *t, size_t first, uint64_t seed, size_t cuts[CUTS_MAX]);

#endif /* CRASHSIM_CUTS_H */
