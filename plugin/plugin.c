/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin.c - nbdkit-kvfs-plugin: serves the files of a kvfs volume as disks.
 *
 * Only nbdkit's callbacks, each a few lines over the public API:
 *
 * - Every write is in memory when it is acknowledged and is made durable by the
 *   volume's commits.  FUA is native: such a request waits for the commit that
 *   holds it.
 * - A flush waits for a commit of everything that was acknowledged before, of
 *   every connection, so multi-conn may be advertised.  A client that reads one
 *   instant (server.c) is told otherwise: two such clients may see two instants.
 * - Zero and trim are both "a hole from here to there", and never slower than a
 *   write; so a fast zero is never refused by the plugin itself.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "exports.h"
#include "server.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define SECTOR_BYTES 512
#define EXTENTS_MAX  4096 /* a reply */

static struct kparams params;
static struct kcmdline nbdkit;
static char *volume_path, *engine_path; /* made absolute */
static atomic_bool client_seen;

/* --- parameters and life ----------------------------------------------------- */

static int
kplugin_config(const char *key, const char *value)
{
    struct kvfs_error err = {0};

    return kparams_set(&params, key, value, &err) < 0 ? kserver_fail(&err) : 0;
}

static int
kplugin_config_complete(void)
{
    struct kvfs_error err = {0};
    const struct kvfs_engine *engine;

    kcmdline_read(&nbdkit);
    params.readonly = params.readonly || nbdkit.readonly;
    if (kparams_complete(&params, &err) < 0)
        return kserver_fail(&err);
    /* nbdkit changes folder when it goes to the background. */
    volume_path = nbdkit_absolute_path(params.volume);
    if (volume_path == NULL)
        return -1;
    params.volume = volume_path;
    if (params.engine != NULL && strchr(params.engine, '/') != NULL) {
        engine_path = nbdkit_absolute_path(params.engine);
        if (engine_path == NULL)
            return -1;
        params.engine = engine_path;
    }
    if (params.engine != NULL && kvfs_engine_find(params.engine, &engine, &err) < 0)
        return kserver_fail(&err);
    return 0;
}

static int
kplugin_get_ready(void)
{
    struct kvfs_error err = {0};

    return kserver_probe(&params, &nbdkit, &err) < 0 ? kserver_fail(&err) : 0;
}

static int
kplugin_after_fork(void)
{
    struct kvfs_error err = {0};

    return kserver_start(&params, &err) < 0 ? kserver_fail(&err) : 0;
}

static void
kplugin_cleanup(void)
{
    kserver_stop();
}

static void
kplugin_unload(void)
{
    kserver_stop(); /* where .cleanup was not called */
    free(volume_path);
    free(engine_path);
    kcmdline_free(&nbdkit);
}

static void
kplugin_dump_plugin(void)
{
    const struct kvfs_engine *engine;

    printf("kvfs_version=%s\n", KVFS_VERSION);
    printf("kvfs_engines=");
    for (size_t i = 0; (engine = kvfs_engine_at(i)) != NULL; i++)
        printf("%s%s", i > 0 ? " " : "", engine->name);
    printf("\n");
    for (size_t i = 0; (engine = kvfs_engine_at(i)) != NULL; i++)
        printf("kvfs_engine_%s=%s\n", engine->name, engine->version(engine));
}

/* --- exports ----------------------------------------------------------------- */

static int
kplugin_add_export(void *arg, const char *name, const char *description)
{
    return nbdkit_add_export(arg, name, description) < 0;
}

static int
kplugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
    struct kvfs_error err = {0};
    int r = kexports_list(kserver_volume(), kplugin_add_export, exports, &err);

    (void)readonly;
    (void)is_tls;
    if (r < 0)
        return kserver_fail(&err);
    return r == 0 ? 0 : -1; /* nbdkit said why */
}

static const char *
kplugin_default_export(int readonly, int is_tls)
{
    struct kvfs_error err = {0};
    char name[KPARAMS_NAME_MAX + 1];

    (void)readonly;
    (void)is_tls;
    if (kexports_default(kserver_volume(), params.file, name, &err) < 0) {
        kserver_fail(&err);
        return NULL;
    }
    return nbdkit_strdup_intern(name);
}

static int
kplugin_preconnect(int readonly)
{
    (void)readonly;
    atomic_store(&client_seen, true);
    return 0;
}

/* A filter may open for itself, before there is a client (crashsim/); nbdkit would log that there is
 * none to ask. */
static const char *
kplugin_export(void)
{
    const char *export = atomic_load(&client_seen) ? nbdkit_export_name() : NULL;

    return export != NULL ? export : "";
}

static void *
kplugin_open(int readonly)
{
    struct kvfs_error err = {0};
    struct kserver_conn *c;
    struct kvfs_attr attr;
    char name[KPARAMS_NAME_MAX + 1];
    const char *export = kplugin_export();
    struct kvfs_error why = {0};
    int r = 0;

    if (*export == '\0') { /* nbdkit -s and old clients come without .default_export */
        r = kexports_default(kserver_volume(), params.file, name, &err);
        export = name;
    }
    if (r == 0)
        r = kexports_find(kserver_volume(), export, &attr, &err);
    if (r == 0 && (r = kserver_conn_open(attr.ino, readonly || params.readonly, &c, &why)) < 0)
        r = kvfs_error_set(&err, r, "export '%.128s': %s", export, why.msg);
    if (r != 0) {
        kserver_fail(&err);
        return NULL;
    }
    c->name = nbdkit_strdup_intern(export); /* as long as the client stays */
    if (c->name == NULL) {
        kserver_conn_close(c);
        return NULL;
    }
    return c;
}

static void
kplugin_close(void *handle)
{
    kserver_conn_close(handle);
}

static const char *
kplugin_export_description(void *handle)
{
    const struct kserver_conn *c = handle;
    char text[KEXPORTS_DESCRIPTION_MAX];

    kexports_describe(c->info.size_bytes, c->info.block_size_bytes, text);
    return nbdkit_strdup_intern(text);
}

/* --- what a client is told ----------------------------------------------------- */

static int64_t
kplugin_get_size(void *handle)
{
    const struct kserver_conn *c = handle;

    return (int64_t)c->info.size_bytes;
}

static int
kplugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    const struct kserver_conn *c = handle;

    /* Any byte range works.  But a client that is told 1 sends such; and one
     * that is told 512 cannot reach the tail of a file of any other size. */
    *minimum = c->info.size_bytes % SECTOR_BYTES == 0 ? SECTOR_BYTES : 1;
    *preferred = c->info.block_size_bytes;
    *maximum = KVFS_REQUEST_MAX;
    return 0;
}

static int
kplugin_can_write(void *handle)
{
    const struct kserver_conn *c = handle;

    return c->file != NULL;
}

static int
kplugin_can_multi_conn(void *handle)
{
    const struct kserver_conn *c = handle;

    return c->snapshot == NULL;
}

static int
kplugin_yes(void *handle)
{
    (void)handle;
    return 1;
}

static int
kplugin_no(void *handle)
{
    (void)handle;
    return 0;
}

static int
kplugin_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int
kplugin_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NATIVE;
}

/* --- requests ------------------------------------------------------------------ */

static int
kplugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct kserver_conn *c = handle;
    struct kvfs_error err = {0};
    int r;

    (void)flags;
    if (c->snapshot == NULL) {
        r = kvfs_file_pread(c->file, buf, count, offset, &err);
    } else {
        pthread_mutex_lock(&c->snapshot_lock);
        r = kvfs_snapshot_pread(c->snapshot, c->info.ino, buf, count, offset, &err);
        pthread_mutex_unlock(&c->snapshot_lock);
    }
    return r < 0 ? kserver_conn_fail(c, &err) : 0;
}

static unsigned
kplugin_flags(uint32_t flags)
{
    return ((flags & NBDKIT_FLAG_FUA) != 0 ? KVFS_FUA : 0) |
           ((flags & NBDKIT_FLAG_FAST_ZERO) != 0 ? KVFS_FAST_ONLY : 0);
}

static int
kplugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct kserver_conn *c = handle;
    struct kvfs_error err = {0};

    return kvfs_file_pwrite(c->file, buf, count, offset, kplugin_flags(flags), &err) < 0
               ? kserver_conn_fail(c, &err)
               : 0;
}

static int
kplugin_flush(void *handle, uint32_t flags)
{
    struct kserver_conn *c = handle;
    struct kvfs_error err = {0};

    (void)flags;
    if (c->file == NULL)
        return 0;
    return kvfs_file_flush(c->file, &err) < 0 ? kserver_conn_fail(c, &err) : 0;
}

static int
kplugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct kserver_conn *c = handle;
    struct kvfs_error err = {0};

    if (kvfs_file_zero(c->file, count, offset, kplugin_flags(flags), &err) == 0)
        return 0;
    if (err.code != -EOPNOTSUPP)
        return kserver_conn_fail(c, &err);
    nbdkit_set_error(EOPNOTSUPP); /* not fast: an answer, and no error */
    return -1;
}

static int
kplugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    return kplugin_zero(handle, count, offset, flags & NBDKIT_FLAG_FUA);
}

struct extents_reply {
    struct nbdkit_extents *extents;
    bool failed;
};

static int
kplugin_add_extent(void *arg, uint64_t offset, uint64_t count, bool hole)
{
    struct extents_reply *reply = arg;
    uint32_t type = hole ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;

    reply->failed = nbdkit_add_extent(reply->extents, offset, count, type) < 0;
    return reply->failed;
}

static int
kplugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                struct nbdkit_extents *extents)
{
    struct kserver_conn *c = handle;
    struct extents_reply reply = {.extents = extents};
    struct kvfs_error err = {0};
    unsigned limit = (flags & NBDKIT_FLAG_REQ_ONE) != 0 ? 1 : EXTENTS_MAX;
    int r;

    if (c->snapshot == NULL) {
        r = kvfs_file_extents(c->file, count, offset, limit, kplugin_add_extent, &reply, &err);
    } else {
        pthread_mutex_lock(&c->snapshot_lock);
        r = kvfs_snapshot_extents(c->snapshot, c->info.ino, count, offset, limit,
                                  kplugin_add_extent, &reply, &err);
        pthread_mutex_unlock(&c->snapshot_lock);
    }
    if (r < 0)
        return kserver_conn_fail(c, &err);
    return reply.failed ? -1 : 0;
}

static int
kplugin_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct kserver_conn *c = handle;
    struct kvfs_error err = {0};

    (void)flags;
    if (c->file == NULL)
        return 0;
    return kvfs_file_cache(c->file, count, offset, &err) < 0 ? kserver_conn_fail(c, &err) : 0;
}

static struct nbdkit_plugin plugin = {
    .name = "kvfs",
    .longname = "kvfs: disks in a key-value store",
    .version = KVFS_VERSION,
    .description = "Serves the files of a kvfs volume as disks.",
    .unload = kplugin_unload,
    .config = kplugin_config,
    .config_complete = kplugin_config_complete,
    .config_help = "[volume=]PATH            (required) Folder of the volume.\n"
                   "file=NAME                The default export: a path in the volume.\n"
                   "engine=NAME              Insist that the volume has this engine.\n"
                   "create=SIZE              Make the file if it is missing (thin).\n"
                   "block-size=N             Block size of a file that create= makes.\n"
                   "cache=SIZE               Memory for unwritten data (default 64M).\n"
                   "commit-interval=SECONDS  Longest time until a write is on disk (default 5).\n"
                   "readonly=true            Open the volume for reading only.\n"
                   "log=on|off               Put an intent log before the engine, or take it\n"
                   "                         away, for good.\n"
                   "engine-params=TEXT       For the engine; for tuning and tests.\n"
                   "strict=true              Refuse an engine whose flush is not proof\n"
                   "                         against a power cut.",
    .magic_config_key = "volume",
    .get_ready = kplugin_get_ready,
    .after_fork = kplugin_after_fork,
    .cleanup = kplugin_cleanup,
    .dump_plugin = kplugin_dump_plugin,
    .preconnect = kplugin_preconnect,
    .list_exports = kplugin_list_exports,
    .default_export = kplugin_default_export,
    .export_description = kplugin_export_description,
    .open = kplugin_open,
    .close = kplugin_close,
    .get_size = kplugin_get_size,
    .block_size = kplugin_block_size,
    .is_rotational = kplugin_no,
    .can_write = kplugin_can_write,
    .can_flush = kplugin_yes,
    .can_trim = kplugin_yes,
    .can_zero = kplugin_yes,
    .can_fast_zero = kplugin_yes,
    .can_extents = kplugin_yes,
    .can_fua = kplugin_can_fua,
    .can_multi_conn = kplugin_can_multi_conn,
    .can_cache = kplugin_can_cache,
    .pread = kplugin_pread,
    .pwrite = kplugin_pwrite,
    .flush = kplugin_flush,
    .trim = kplugin_trim,
    .zero = kplugin_zero,
    .extents = kplugin_extents,
    .cache = kplugin_cache,
};

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* plugin_init() */
NBDKIT_REGISTER_PLUGIN(plugin)
