/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fault_engine.c - an engine whose writes a test can refuse: the chosen one, or mem
 * where that is missing, behind two hooks.  Loaded as a file, so that kvfs finds it
 * like any foreign engine.
 */
#include "fault_engine.h"

#include "../chosen.h"

struct fault_hooks kvfs_fault_hooks;
struct kvfs_engine kvfs_engine_plugin;

static const struct kvfs_engine *below;

static int
fault_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
            struct kvfs_error *err)
{
    int rc = kvfs_fault_hooks.apply != NULL ? kvfs_fault_hooks.apply(batch, durability) : 0;

    if (rc != 0)
        return kvfs_error_set(err, rc, "planted fault %d", rc);
    rc = below->apply(db, batch, durability, err);
    return kvfs_fault_hooks.applied != NULL ? kvfs_fault_hooks.applied(rc) : rc;
}

static int
fault_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    int rc = kvfs_fault_hooks.begin != NULL ? kvfs_fault_hooks.begin() : 0;

    return rc != 0 ? kvfs_error_set(err, rc, "planted fault %d", rc) : below->begin(db, snapp, err);
}

/* A function of BELOW must be told that it is meant, and not the copy. */
static int
fault_open(const struct kvfs_engine *self, const char *path,
           const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    (void)self;
    return below->open(below, path, options, dbp, err);
}

static const char *
fault_version(const struct kvfs_engine *self)
{
    (void)self;
    return below->version(below);
}

static int
fault_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_fault_hooks.sync != NULL ? kvfs_fault_hooks.sync() : 0;

    return rc != 0 ? kvfs_error_set(err, rc, "planted fault %d", rc) : below->sync(db, err);
}

__attribute__((constructor)) static void
fault_init(void)
{
    if (kvfs_engine_find(chosen_engine(), &below, NULL) < 0)
        below = kvfs_engine_at(0);
    kvfs_engine_plugin = *below;
    kvfs_engine_plugin.name = "fault";
    kvfs_engine_plugin.version = fault_version;
    kvfs_engine_plugin.open = fault_open;
    kvfs_engine_plugin.compact = NULL;
    kvfs_engine_plugin.compact_need_bytes = NULL;
    kvfs_engine_plugin.begin = fault_begin;
    kvfs_engine_plugin.apply = fault_apply;
    kvfs_engine_plugin.sync = fault_sync;
}
