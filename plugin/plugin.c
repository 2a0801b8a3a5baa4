/* SPDX-License-Identifier: BSD-3-Clause
 *
 * nbdkit-kvfs-plugin: serves one kvfs volume as a disk.
 */
#include <errno.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <kvfs/engine.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static void *
kplugin_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t
kplugin_get_size(void *handle)
{
    (void)handle;
    return 1 << 20;
}

static int
kplugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)offset;
    (void)flags;
    memset(buf, 0, count);
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "kvfs",
    .open = kplugin_open,
    .get_size = kplugin_get_size,
    .pread = kplugin_pread,
};

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* plugin_init() */
NBDKIT_REGISTER_PLUGIN(plugin)
