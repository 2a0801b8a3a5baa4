/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shrink.h - the smallest set of kept, or of dropped, changes that still fails.
 */
#ifndef CRASHSIM_SHRINK_H
#define CRASHSIM_SHRINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pick.h"

/* Does the state of PICK fail?  Negative: it cannot be said, and all stops. */
typedef int (*shrink_test_fn)(void *opaque, const struct crashsim_pick *pick);

struct shrink {
    shrink_test_fn test;
    crashsim_pick_shape_fn shape;
    const void *source; /* of shape */
    void *opaque;       /* of test */
    uint64_t tests_max; /* stop there with the smallest so far */
    uint64_t tests;     /* made */
};

/* Let PICK, which fails, be a smaller one that does.  0 or the negative answer of a test; PICK is
 * the smallest so far in either case. */
int shrink_pick(struct shrink *s, struct crashsim_pick *pick);

#endif /* CRASHSIM_SHRINK_H */
