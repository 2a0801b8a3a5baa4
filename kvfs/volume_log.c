/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume_log.c - putting an intent log in front of a volume's engine, and taking it away.
 *
 * The file `volume` says whether there is one: before the first record of a log exists, and
 * until the last was folded and the log's own traces are gone from the store.  In between a
 * crash leaves a volume with a log, perhaps an empty one.
 */
#include <errno.h>

#include "lease.h"
#include "volume_file.h"
#include "volume_priv.h"

/* Open and close the engine NAME, with PARAMS. */
static int
log_engine_open(const char *path, const char *name, const char *params, struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.params = params};
    const struct kvfs_engine *engine;
    struct kvfs_db *db;
    int rc = kvfs_engine_find(name, &engine, err);

    if (rc == 0)
        rc = engine->open(engine, path, &options, &db, err);
    if (rc == 0)
        engine->close(db);
    return rc;
}

/* Is it a volume that this version may change, and is the log one that its engine can have?
 * Opening answers that. */
static int
log_judge(const char *path, const struct kvfs_volume_file *file, bool force, struct kvfs_error *err)
{
    const struct kvfs_volume_options options = {.readonly = true, .force = force};
    char name[KVFS_ENGINE_NAME_CAP];
    const struct kvfs_engine *engine;
    struct kvfs_volume *v;
    int rc;

    kvfs_volume_file_engine(file, name);
    rc = kvfs_engine_find(name, &engine, err);
    if (rc != 0)
        return rc;
    rc = kvfs_volume_open(path, &options, &v, err);
    return rc != 0 ? rc : kvfs_volume_close(v, err);
}

int
kvfs_volume_log(const char *path, bool on, bool force, struct kvfs_error *err)
{
    struct kvfs_lease_table *leases = NULL;
    struct kvfs_volume_file file, after;
    char name[KVFS_ENGINE_NAME_CAP];
    int rc = kvfs_volume_file_read(path, &file, err);

    if (rc != 0 || file.log == on)
        return rc;
    after = file;
    after.log = on;
    rc = log_judge(path, on ? &after : &file, force, err);
    if (rc == 0)
        rc = kvfs_volume_file_lock(path, &file, false, &leases, err);
    if (rc != 0)
        return rc;
    kvfs_volume_file_engine(&file, name);
    if (!on)
        rc = log_engine_open(path, name, "log-remove=1", err);
    if (rc == 0)
        rc = kvfs_volume_file_write(path, &after, err);
    kvfs_lease_table_close(leases);
    return rc;
}
