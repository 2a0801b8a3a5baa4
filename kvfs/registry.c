/* SPDX-License-Identifier: BSD-3-Clause
 *
 * registry.c - finding engines, built in or loaded from a file.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <kvfs/engine.h>

#define KVFS_ENGINE(name) extern const struct kvfs_engine kvfs_engine_##name;
#include "engines.inc"
#undef KVFS_ENGINE

static const struct kvfs_engine *const registry_builtin[] = {
#define KVFS_ENGINE(name) &kvfs_engine_##name,
#include "engines.inc"
#undef KVFS_ENGINE
};

#define REGISTRY_COUNT (sizeof(registry_builtin) / sizeof(registry_builtin[0]))

const struct kvfs_engine *
kvfs_engine_at(size_t index)
{
    return index < REGISTRY_COUNT ? registry_builtin[index] : NULL;
}

static int
registry_load(const char *path, const struct kvfs_engine **enginep, struct kvfs_error *err)
{
    const struct kvfs_engine *engine;
    void *dl = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

    if (dl == NULL)
        return kvfs_error_set(err, access(path, F_OK) != 0 ? -ENOENT : -EINVAL,
                              "engine %s: cannot be loaded: %s", path,
                              dlerror()); // NOLINT(concurrency-mt-unsafe): glibc's is per thread
    engine = dlsym(dl, "kvfs_engine_plugin");
    if (engine == NULL) {
        (void)dlclose(dl);
        return kvfs_error_set(err, -EINVAL, "engine %s: not a kvfs engine (no kvfs_engine_plugin)",
                              path);
    }
    if (engine->abi != KVFS_ENGINE_ABI) {
        uint32_t abi = engine->abi;

        (void)dlclose(dl);
        return kvfs_error_set(err, -EINVAL,
                              "engine %s: has interface version %u, this kvfs has version %u", path,
                              abi, KVFS_ENGINE_ABI);
    }
    *enginep = engine;
    return 0;
}

int
kvfs_engine_find(const char *name, const struct kvfs_engine **enginep, struct kvfs_error *err)
{
    char list[128] = "";

    if (strchr(name, '/') != NULL)
        return registry_load(name, enginep, err);
    for (size_t i = 0; i < REGISTRY_COUNT; i++) {
        if (strcmp(registry_builtin[i]->name, name) == 0) {
            *enginep = registry_builtin[i];
            return 0;
        }
    }
    for (size_t i = 0; i < REGISTRY_COUNT; i++) {
        size_t used = strlen(list);

        (void)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                       registry_builtin[i]->name);
    }
    return kvfs_error_set(err, -ENOENT, "engine '%.64s' is not built in (there is: %s)", name,
                          list);
}
