/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A stranger's engine in a file: a built-in one under the name x, whose stores are
 * closed while there is a file `x-closed` in their folder.  Needs nothing of the
 * program that loads it; kvfs_error_set() comes with it, out of libkvfs.a.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <kvfs/engine.h>

extern struct kvfs_engine kvfs_engine_plugin;
struct kvfs_engine kvfs_engine_plugin; /* filled when it is loaded */

static const struct kvfs_engine *below;

static int
x_open(const struct kvfs_engine *self, const char *path, const struct kvfs_engine_options *options,
       struct kvfs_db **dbp, struct kvfs_error *err)
{
    char mark[4096];

    (void)self;
    if (snprintf(mark, sizeof(mark), "%s/x-closed", path) < (int)sizeof(mark) &&
        access(mark, F_OK) == 0)
        return kvfs_error_set(err, -EACCES, "%s: engine x is closed", path);
    return below->open(below, path, options, dbp, err);
}

__attribute__((constructor)) static void
x_load(void)
{
    if (kvfs_engine_find("lmdb", &below, NULL) != 0 && kvfs_engine_find("mem", &below, NULL) != 0)
        return; /* no interface version: refused */
    kvfs_engine_plugin = *below;
    kvfs_engine_plugin.name = "x";
    kvfs_engine_plugin.open = x_open;
}
