/* SPDX-License-Identifier: BSD-3-Clause
 *
 * chosen.h - the engine that a test program runs over.
 *
 * KVFS_TEST_ENGINE names it.  Without it a program runs over the default engine
 * and, where it is made for that, over mem first; with it, over that one alone.
 */
#ifndef KVFS_TESTS_CHOSEN_H
#define KVFS_TESTS_CHOSEN_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <kvfs/engine.h>

#define CHOSEN_DEFAULT "lmdb"

static inline const char *
chosen_engine(void)
{
    const char *name = getenv("KVFS_TEST_ENGINE"); /* NOLINT(concurrency-mt-unsafe): never set */

    return name != NULL && *name != '\0' ? name : CHOSEN_DEFAULT;
}

static inline bool
chosen_by_name(void)
{
    const char *name = getenv("KVFS_TEST_ENGINE"); /* NOLINT(concurrency-mt-unsafe): never set */

    return name != NULL && *name != '\0';
}

static inline bool
chosen_is(const char *name)
{
    return strcmp(chosen_engine(), name) == 0;
}

static inline bool
chosen_is_there(void)
{
    const struct kvfs_engine *e;

    return kvfs_engine_find(chosen_engine(), &e, NULL) == 0;
}

/* Has it all of CAPS (enum kvfs_cap)? */
static inline bool
chosen_has(unsigned caps)
{
    const struct kvfs_engine *e;

    return kvfs_engine_find(chosen_engine(), &e, NULL) == 0 && (e->caps & caps) == caps;
}

#endif /* KVFS_TESTS_CHOSEN_H */
