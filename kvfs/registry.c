/* SPDX-License-Identifier: BSD-3-Clause
 *
 * registry.c - finding engines, built in or loaded from a file.
 *
 * A volume remembers the name of its engine and nothing else, so a name must
 * lead to a file by itself: libkvfs-engine-NAME.so in one folder, which no
 * current folder, no name and no volume can bend.
 *
 * A wrapper stands on other engines, which are named behind a colon: it is found by
 * what is before it and makes the rest of the name its own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kvfs/engine.h>

typedef int registry_wrapper_fn(const char *name, const struct kvfs_engine **enginep,
                                struct kvfs_error *err);

#define KVFS_ENGINE(name) extern const struct kvfs_engine kvfs_engine_##name;
#define KVFS_WRAPPER(name) extern registry_wrapper_fn kvfs_wrapper_##name;
#include "engines.inc"
#undef KVFS_WRAPPER
#undef KVFS_ENGINE

#define KVFS_WRAPPER(name)
static const struct kvfs_engine *const registry_builtin[] = {
#define KVFS_ENGINE(name) &kvfs_engine_##name,
#include "engines.inc"
#undef KVFS_ENGINE
};
#undef KVFS_WRAPPER

#define KVFS_ENGINE(name)
static const struct {
    const char *prefix;
    registry_wrapper_fn *find;
} registry_wrappers[] = {
#define KVFS_WRAPPER(name) {#name ":", kvfs_wrapper_##name},
#include "engines.inc"
#undef KVFS_WRAPPER
    {NULL, NULL},
};
#undef KVFS_ENGINE

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

static int
registry_unknown(const char *name, const char *file, struct kvfs_error *err)
{
    char list[128] = "";

    for (size_t i = 0; i < REGISTRY_COUNT; i++) {
        size_t used = strlen(list);

        (void)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                       registry_builtin[i]->name);
    }
    return kvfs_error_set(err, -ENOENT, "engine '%.64s' is not built in (there is: %s)%s%s", name,
                          list, *file != '\0' ? ", and there is no " : "", file);
}

/* The file of an engine called NAME.  "": no file can be called so. */
static int
registry_file(const char *name, char *file, size_t cap, struct kvfs_error *err)
{
    const char *folder = secure_getenv("KVFS_ENGINE_DIR"); // NOLINT(concurrency-mt-unsafe): read

    *file = '\0';
    if (*name == '\0' || name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789")] != '\0')
        return 0;
    if (folder == NULL || *folder == '\0')
        folder = KVFS_ENGINE_DIR;
    if (*folder != '/') /* a server changes its folder and would find another file later */
        return kvfs_error_set(err, -EINVAL, "KVFS_ENGINE_DIR=%s: not an absolute path", folder);
    if (snprintf(file, cap, "%s/libkvfs-engine-%s.so", folder, name) >= (int)cap)
        return kvfs_error_set(err, -ENAMETOOLONG, "KVFS_ENGINE_DIR=%s: too long", folder);
    return 0;
}

int
kvfs_engine_find(const char *name, const struct kvfs_engine **enginep, struct kvfs_error *err)
{
    const struct kvfs_engine *engine;
    char file[4096];
    int rc;

    for (size_t i = 0; registry_wrappers[i].prefix != NULL; i++)
        if (strncmp(name, registry_wrappers[i].prefix, strlen(registry_wrappers[i].prefix)) == 0)
            return registry_wrappers[i].find(name, enginep, err);
    if (strchr(name, '/') != NULL)
        return registry_load(name, enginep, err);
    for (size_t i = 0; i < REGISTRY_COUNT; i++) {
        if (strcmp(registry_builtin[i]->name, name) == 0) {
            *enginep = registry_builtin[i];
            return 0;
        }
    }
    rc = registry_file(name, file, sizeof(file), err);
    if (rc < 0)
        return rc;
    if (*file == '\0' || access(file, F_OK) != 0)
        return registry_unknown(name, file, err);
    rc = registry_load(file, &engine, err);
    if (rc == 0 && strcmp(engine->name, name) != 0)
        return kvfs_error_set(err, -EINVAL, "engine %s: calls itself '%.64s', not '%s'", file,
                              engine->name, name);
    if (rc == 0)
        *enginep = engine;
    return rc;
}
