/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dir_kvfs.c - names in a volume, by libkvfs.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "dir.h"
#include "store_kvfs.h"

#define DIR_WORK_STEPS 64

static struct kvfs_volume *dir_volume;

static int
dir_kvfs_open(const char *folder, const char *engine, const char *params, struct kvfs_error *err)
{
    struct kvfs_format_options format = {.engine = engine};
    struct kvfs_volume_options options = {.engine_params = params};
    int rc = kvfs_format(folder, &format, err);

    return rc == 0 ? kvfs_volume_open(folder, &options, &dir_volume, err) : rc;
}

static int
dir_kvfs_close(struct kvfs_error *err)
{
    return kvfs_volume_close(dir_volume, err);
}

static int
dir_kvfs_create(const char *path, bool folder, struct kvfs_error *err)
{
    const struct kvfs_create create = {.mode = folder ? S_IFDIR | 0700 : S_IFREG | 0600};
    char name[KVFS_NAME_MAX + 1];
    uint64_t dir;
    int rc = kvfs_path_parent(dir_volume, path, &dir, name, err);

    return rc == 0 ? kvfs_create(dir_volume, dir, name, &create, NULL, err) : rc;
}

static int
dir_kvfs_stat(const char *path, struct kvfs_error *err)
{
    struct kvfs_attr attr;

    return kvfs_path_lookup(dir_volume, path, false, &attr, err);
}

static int
dir_count(void *arg, const struct kvfs_dirent *entry)
{
    uint64_t *entries = arg;

    (void)entry;
    ++*entries;
    return 0;
}

static int
dir_kvfs_list(const char *path, uint64_t *entries, struct kvfs_error *err)
{
    struct kvfs_attr attr;
    int rc = kvfs_path_lookup(dir_volume, path, true, &attr, err);

    return rc == 0 ? kvfs_readdir(dir_volume, attr.ino, 0, dir_count, entries, err) : rc;
}

static int
dir_first(void *arg, const struct kvfs_dirent *entry)
{
    (void)arg;
    (void)entry;
    return 1;
}

static int
dir_kvfs_read(const char *path, bool folder, struct kvfs_error *err)
{
    struct kvfs_attr attr;
    struct kvfs_file *file;
    int rc = kvfs_path_lookup(dir_volume, path, true, &attr, err);

    if (rc == 0 && folder) {
        rc = kvfs_readdir(dir_volume, attr.ino, 0, dir_first, NULL, err);
        return rc > 0 ? 0 : rc;
    }
    if (rc == 0)
        rc = kvfs_file_open(dir_volume, attr.ino, KVFS_OPEN_READ, &file, err);
    if (rc == 0)
        kvfs_file_close(file);
    return rc;
}

static int
dir_kvfs_rename(const char *from, const char *to, struct kvfs_error *err)
{
    char old_name[KVFS_NAME_MAX + 1], new_name[KVFS_NAME_MAX + 1];
    uint64_t old_dir, new_dir;
    int rc = kvfs_path_parent(dir_volume, from, &old_dir, old_name, err);

    if (rc == 0)
        rc = kvfs_path_parent(dir_volume, to, &new_dir, new_name, err);
    return rc == 0 ? kvfs_rename(dir_volume, old_dir, old_name, new_dir, new_name, 0, err) : rc;
}

static int
dir_kvfs_remove(const char *path, bool folder, struct kvfs_error *err)
{
    char name[KVFS_NAME_MAX + 1];
    uint64_t dir;
    int rc = kvfs_path_parent(dir_volume, path, &dir, name, err);

    if (rc != 0)
        return rc;
    return folder ? kvfs_rmdir(dir_volume, dir, name, err)
                  : kvfs_unlink(dir_volume, dir, name, err);
}

static int
dir_kvfs_sync(struct kvfs_error *err)
{
    return kvfs_volume_sync(dir_volume, err);
}

static int
dir_kvfs_flush(const char *path, bool new_file, struct kvfs_error *err)
{
    (void)path;
    (void)new_file;
    return dir_kvfs_sync(err);
}

static int
dir_kvfs_settle(struct kvfs_error *err)
{
    int rc = kvfs_volume_work(dir_volume, DIR_WORK_STEPS, err), synced;

    if (rc < 0)
        return rc;
    synced = kvfs_volume_sync(dir_volume, err);
    return synced < 0 ? synced : rc;
}

static int
dir_kvfs_info(struct load_info *info, struct kvfs_error *err)
{
    return load_kvfs_info(dir_volume, info, err);
}

const struct dir_layer dir_layer_kvfs = {
    .name = "kvfs",
    .open = dir_kvfs_open,
    .close = dir_kvfs_close,
    .create = dir_kvfs_create,
    .stat = dir_kvfs_stat,
    .read = dir_kvfs_read,
    .list = dir_kvfs_list,
    .rename = dir_kvfs_rename,
    .remove = dir_kvfs_remove,
    .flush = dir_kvfs_flush,
    .sync = dir_kvfs_sync,
    .settle = dir_kvfs_settle,
    .info = dir_kvfs_info,
};
