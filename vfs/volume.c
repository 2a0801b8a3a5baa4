/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume.c - the volume and the file behind a database's name.
 *
 * libkvfs gives the same handle to everybody in a process who opens a volume, and counts: so
 * each open database holds an opening of its own, and the last one closes.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "vfs_priv.h"

/* Make the volume, if `create` says so and there is none. */
static int
volume_format(const char *name, const struct vfs_name *n)
{
    struct kvfs_format_options options = {
        .engine = sqlite3_uri_parameter(name, "engine"),
    };
    struct kvfs_error err = {0};
    struct vfs_name around;
    int rc;

    if (!sqlite3_uri_boolean(name, "create", 0))
        return vfs_refuse(SQLITE_CANTOPEN, "%s: there is no volume (create=1 makes one)",
                          n->volume);
    if (vfs_name_split(n->volume, &around)) /* its plain paths would be the outer one's */
        return vfs_refuse(SQLITE_CANTOPEN, "%s: lies in the folder of the volume %s", n->volume,
                          around.volume);
    rc = kvfs_format(n->volume, &options, &err);
    if (rc == 0 || rc == -EEXIST) /* somebody else was faster */
        return SQLITE_OK;
    return vfs_error(rc, SQLITE_CANTOPEN, &err);
}

/* libkvfs keeps the way a volume was opened first; one that could only be read stays so. */
static bool
volume_is_readonly_here(const char *path)
{
    struct kvfs_volume_info info;
    bool readonly = false;

    vfs_lock();
    for (const struct vfs_file *f = vfs_file_first(); f != NULL && !readonly; f = f->next) {
        if (f->generation == vfs_generation()) {
            kvfs_volume_info(f->v, &info);
            readonly = info.readonly && strcmp(info.path, path) == 0;
        }
    }
    vfs_unlock();
    return readonly;
}

int
vfs_volume_open(const char *name, const struct vfs_name *n, bool make, struct kvfs_volume **vp)
{
    struct kvfs_volume_options options = {
        .readonly = volume_is_readonly_here(n->volume),
        .engine_params = sqlite3_uri_parameter(name, "engine_params"),
    };
    struct kvfs_error err = {0};
    int rc = kvfs_volume_open(n->volume, &options, vp, &err);

    if (rc == -ENOENT && make) {
        int made = volume_format(name, n);

        if (made != SQLITE_OK)
            return made;
        rc = kvfs_volume_open(n->volume, &options, vp, &err);
    }
    if (rc == -EROFS || rc == -EACCES) {
        options.readonly = true;
        rc = kvfs_volume_open(n->volume, &options, vp, &err);
    }
    return rc == 0 ? SQLITE_OK : vfs_error(rc, SQLITE_CANTOPEN, &err);
}

static int
volume_create(struct kvfs_volume *v, const char *name, const struct vfs_name *n,
              struct kvfs_attr *attr, struct kvfs_error *err)
{
    sqlite3_int64 block = sqlite3_uri_int64(name, "block_size", 0);
    struct kvfs_create create = {.mode = S_IFREG | 0644,
                                 .block_size_bytes = (uint32_t)block};
    char last[KVFS_NAME_MAX + 1];
    uint64_t dir;
    int rc;

    if (block != 0 && (block < KVFS_BLOCK_SIZE_MIN || block > KVFS_BLOCK_SIZE_MAX))
        return kvfs_error_set(err, -EINVAL, "block_size=%lld: %u to %u, a power of two",
                              (long long)block, KVFS_BLOCK_SIZE_MIN, KVFS_BLOCK_SIZE_MAX);
    rc = kvfs_path_parent(v, n->file, &dir, last, err);
    if (rc == 0)
        rc = kvfs_create(v, dir, last, &create, attr, err);
    return rc;
}

int
vfs_volume_file(struct kvfs_volume *v, const char *name, const struct vfs_name *n, int flags,
                uint64_t *ino)
{
    struct kvfs_error err = {0};
    struct kvfs_attr attr;
    int rc;

    for (int tries = 0; tries < 3; tries++) {
        rc = kvfs_path_lookup(v, n->file, true, &attr, &err);
        if (rc == -ENOENT && (flags & SQLITE_OPEN_CREATE) != 0)
            rc = volume_create(v, name, n, &attr, &err);
        else if (rc == 0 && (flags & SQLITE_OPEN_EXCLUSIVE) != 0)
            return vfs_refuse(SQLITE_CANTOPEN, "%s/%s: exists", n->volume, n->file);
        if (rc != -EEXIST)
            break;
    }
    if (rc == 0 && !S_ISREG(attr.mode))
        return vfs_refuse(SQLITE_CANTOPEN, "%s/%s: is no regular file", n->volume, n->file);
    if (rc < 0) {
        int code = vfs_error(rc, SQLITE_CANTOPEN, &err);

        return code == SQLITE_FULL || code == SQLITE_BUSY ? code : SQLITE_CANTOPEN;
    }
    *ino = attr.ino;
    return SQLITE_OK;
}
