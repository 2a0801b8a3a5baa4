/* SPDX-License-Identifier: BSD-3-Clause
 *
 * params.h - the parameters of an engine that are numbers: NAME=N, with commas between.
 */
#ifndef KVFS_ENGINES_PARAMS_H
#define KVFS_ENGINES_PARAMS_H

#include <stddef.h>
#include <stdint.h>

#include <kvfs/error.h>

struct kvfs_param {
    const char *name;
    uint64_t min, max;
    uint64_t *value; /* stays as it is where the parameter is not given */
};

/* Least and most of the parameter `cache-bytes`, which the engines with a cache have. */
#define KVFS_CACHE_PARAM_MIN ((uint64_t)1 << 20)
#define KVFS_CACHE_PARAM_MAX ((uint64_t)1 << 40)

/* Set the COUNT parameters of PARAMS from TEXT, which may be NULL; the last one of a name counts.
 * -EINVAL: an unknown name, no number, or one out of its range; ERR then says which there are.
 * Threads: any. */
int kvfs_params_parse(const char *engine, const char *text, const struct kvfs_param *params,
                      size_t count, struct kvfs_error *err);

#endif /* KVFS_ENGINES_PARAMS_H */
