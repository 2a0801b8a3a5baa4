/* SPDX-License-Identifier: BSD-3-Clause
 *
 * params.h - the plugin's parameters, apart from nbdkit so that they can be
 * fuzzed.
 */
#ifndef KVFS_PLUGIN_PARAMS_H
#define KVFS_PLUGIN_PARAMS_H

#include <kvfs/volume.h>

struct kparams {
    unsigned seen;         /* bit per parameter, in the order of the table */
    const char *volume;    /* strings are borrowed from the caller */
    const char *file;      /* NULL: not given */
    const char *engine;    /* NULL: not given */
    const char *engine_params; /* NULL: not given; for tests */
    uint64_t create_bytes; /* 0: not given */
    uint32_t block_size_bytes;
    size_t cache_bytes;
    unsigned commit_interval_ms;
    bool readonly; /* also for nbdkit -r */
    bool log_given, log; /* put an intent log before the engine, or take it away, first */
    bool strict;   /* refuse an engine that does not keep what a flush promises */
};

/* Longest name of an export, and so of file=; NBD's own limit. */
#define KPARAMS_NAME_MAX 4096

/* Take one key=value.  -EINVAL with one line in ERR that names both: an
 * unknown key, a value out of range, a key given twice. */
int kparams_set(struct kparams *p, const char *key, const char *value, struct kvfs_error *err);

/* After the last one: what is missing, what contradicts.  -EINVAL. */
int kparams_complete(const struct kparams *p, struct kvfs_error *err);

/* "4096", "512k", "1G", "8s" ...: digits and at most one of b s k m g t p e, as
 * nbdkit_parse_size().  -EINVAL: no number; -ERANGE: past 8 EiB - 1. */
int kparams_size(const char *text, uint64_t *bytes);

/* Is NAME a path that an export can have: not empty, at most KPARAMS_NAME_MAX
 * bytes, no part "", "." or ".." (one slash in front is allowed)?  -EINVAL and
 * one line if not. */
int kparams_check_name(const char *name, struct kvfs_error *err);

#endif /* KVFS_PLUGIN_PARAMS_H */
