/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mad_engine.c - the chosen engine, which goes mad where KVFS_MAD says: "STAGE WAY" with
 * STAGE open, verify, read or close, and WAY segv, abort, exit or hang; read
 * comes with a finding of verify.  Loaded as a file, as foreign engines are.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../chosen.h"

extern struct kvfs_engine kvfs_engine_plugin;
struct kvfs_engine kvfs_engine_plugin; /* filled when it is loaded */

static const struct kvfs_engine *below;

static bool
mad_is(const char *stage)
{
    const char *env = getenv("KVFS_MAD"); /* NOLINT(concurrency-mt-unsafe): never set here */

    return env != NULL && strncmp(env, stage, strlen(stage)) == 0;
}

static void
mad_go(const char *stage)
{
    const char *env = getenv("KVFS_MAD"); /* NOLINT(concurrency-mt-unsafe): never set here */
    const char *way = env != NULL ? strchr(env, ' ') : NULL;

    if (way == NULL || !mad_is(stage))
        return;
    if (strcmp(way, " segv") == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer would tell a story */
        (void)raise(SIGSEGV);
    } else if (strcmp(way, " abort") == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)raise(SIGABRT);
    } else if (strcmp(way, " exit") == 0) {
        _exit(3);
    }
    for (;;) /* hang */
        (void)pause();
}

static int
mad_open(const struct kvfs_engine *self, const char *path,
         const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    (void)self;
    if (!options->create)
        mad_go("open");
    return below->open(below, path, options, dbp, err);
}

static void
mad_close(struct kvfs_db *db)
{
    below->close(db);
    mad_go("close");
}

static int
mad_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    mad_go("read");
    return below->cursor_open(snap, keyspace, lo, lo_len, hi, hi_len, flags, cursorp, err);
}

static int
mad_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
           void *progress_arg, struct kvfs_error *err)
{
    if (mad_is("read"))
        finding(arg, "page 7", "is odd");
    mad_go("verify");
    return below->verify(db, finding, arg, progress, progress_arg, err);
}

__attribute__((constructor)) static void
mad_load(void)
{
    if (kvfs_engine_find(chosen_engine(), &below, NULL) != 0)
        return; /* no interface version: refused */
    kvfs_engine_plugin = *below;
    kvfs_engine_plugin.name = "mad";
    kvfs_engine_plugin.open = mad_open;
    kvfs_engine_plugin.close = mad_close;
    kvfs_engine_plugin.cursor_open = mad_cursor_open;
    kvfs_engine_plugin.verify = mad_verify;
}
