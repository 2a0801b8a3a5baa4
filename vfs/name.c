/* SPDX-License-Identifier: BSD-3-Clause
 *
 * name.c - which volume and which file a database's name means.
 *
 *   with `volume=` in the URI    that volume; the name is inside it, and may begin with its path
 *   an absolute path             the longest prefix that is a volume's folder
 *   anything else                the same below the present folder; else inside $KVFS_VOLUME;
 *                                else inside the only volume that is open in this process
 *
 * The answer is always `<absolute volume>/<file>` without links, since that is all that SQLite
 * compares with cache=shared.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs_priv.h"

/* Does it hold a file `volume` that begins as docs/FORMAT.md says? */
static bool
name_is_volume(const char *folder)
{
    static const char word[] = "kvfs-volume ";
    char path[PATH_MAX];
    char begin[sizeof(word) - 1];
    bool is = false;
    int fd;

    if (snprintf(path, sizeof(path), "%s/volume", folder) >= (int)sizeof(path))
        return false;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    is = read(fd, begin, sizeof(begin)) == (ssize_t)sizeof(begin) &&
         memcmp(begin, word, sizeof(begin)) == 0;
    (void)close(fd);
    return is;
}

/* PATH without symbolic links, also where its last part does not exist yet. */
static bool
name_real(const char *path, char real[VFS_PATH_MAX])
{
    char parent[PATH_MAX];
    char *found = realpath(path, NULL);
    size_t end = strlen(path);
    const char *last;
    size_t len;
    bool fits;

    while (end > 1 && path[end - 1] == '/')
        end--;
    last = memrchr(path, '/', end);
    len = last == NULL ? 0 : (size_t)(last - path);
    if (found == NULL && errno == ENOENT && len < sizeof(parent) - 2) {
        size_t from = last == NULL ? 0 : len + 1;

        (void)snprintf(parent, sizeof(parent), "%.*s", len == 0 ? 1 : (int)len,
                       last == NULL ? "." : path);
        if ((found = realpath(parent, NULL)) == NULL)
            return false;
        fits = snprintf(real, VFS_PATH_MAX, "%s/%.*s", strcmp(found, "/") == 0 ? "" : found,
                        (int)(end - from), path + from) < VFS_PATH_MAX;
        free(found);
        return fits;
    }
    if (found == NULL)
        return false;
    fits = snprintf(real, VFS_PATH_MAX, "%s", found) < VFS_PATH_MAX;
    free(found);
    return fits;
}

/* Keep the name of a file: no empty parts and no ".", which the volume would skip as well. */
static int
name_file(const char *name, struct vfs_name *n)
{
    size_t cap = sizeof(n->file) - strlen(n->volume) - 1; /* together they fit */
    size_t len = 0;

    while (*name != '\0') {
        size_t part = strcspn(name, "/");

        if (part > 0 && !(part == 1 && name[0] == '.')) {
            if (part == 2 && memcmp(name, "..", 2) == 0)
                return vfs_refuse(SQLITE_CANTOPEN, "%s: \"..\" has no place in a database's name",
                                  name);
            if (len + (len > 0) + part + 1 > cap)
                return vfs_refuse(SQLITE_CANTOPEN, "%.64s...: the name is too long", name);
            if (len > 0)
                n->file[len++] = '/';
            memcpy(n->file + len, name, part);
            len += part;
        }
        name += part + (name[part] == '/' ? 1 : 0);
    }
    n->file[len] = '\0';
    if (len == 0)
        return vfs_refuse(SQLITE_CANTOPEN, "%s: the name of a database is missing", n->volume);
    return SQLITE_OK;
}

/* The file NAME of the volume in folder VOLUME. */
static int
name_in(const char *volume, const char *name, struct vfs_name *n)
{
    size_t len;

    if (!name_real(volume, n->volume))
        return vfs_refuse(SQLITE_CANTOPEN, "%s: there is no such folder for a volume", volume);
    len = strlen(volume);
    if (strncmp(name, volume, len) == 0 && name[len] == '/')
        return name_file(name + len, n);
    len = strlen(n->volume);
    if (strncmp(name, n->volume, len) == 0 && name[len] == '/')
        return name_file(name + len, n);
    return name_file(name, n);
}

/* The longest prefix of absolute PATH that is a volume. */
static int
name_prefix(const char *path, struct vfs_name *n)
{
    char folder[PATH_MAX];
    char *cut;

    if (snprintf(folder, sizeof(folder), "%s", path) >= (int)sizeof(folder))
        return SQLITE_CANTOPEN;
    while ((cut = strrchr(folder, '/')) != NULL && cut != folder) {
        *cut = '\0';
        if (name_is_volume(folder))
            return name_real(folder, n->volume) ? name_file(path + (cut - folder), n)
                                                : SQLITE_CANTOPEN;
    }
    return SQLITE_NOTFOUND;
}

bool
vfs_name_split(const char *path, struct vfs_name *n)
{
    return path[0] == '/' && name_prefix(path, n) == SQLITE_OK;
}

/* The folder of the only volume that is open here. */
static bool
name_only_volume(char volume[VFS_PATH_MAX])
{
    struct kvfs_volume_info info;
    struct kvfs_volume *only = NULL;
    bool one = true;

    vfs_lock();
    for (struct vfs_file *f = vfs_file_first(); f != NULL; f = f->next) {
        if (f->generation != vfs_generation())
            continue;
        one = one && (only == NULL || only == f->v);
        only = f->v;
    }
    if (only != NULL && one) {
        kvfs_volume_info(only, &info);
        one = snprintf(volume, VFS_PATH_MAX, "%s", info.path) < VFS_PATH_MAX;
    }
    vfs_unlock();
    return only != NULL && one;
}

static int
name_relative(const char *name, struct vfs_name *n)
{
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets the environment of a threaded program
    const char *given = getenv("KVFS_VOLUME");
    char path[PATH_MAX];
    char volume[VFS_PATH_MAX];
    char *here = getcwd(NULL, 0);
    int rc = SQLITE_NOTFOUND;

    if (here != NULL && snprintf(path, sizeof(path), "%s/%s", here, name) < (int)sizeof(path))
        rc = name_prefix(path, n);
    free(here);
    if (rc != SQLITE_NOTFOUND)
        return rc;
    if (given != NULL && given[0] != '\0' && !name_is_volume(given))
        return vfs_refuse(SQLITE_CANTOPEN, "%s: KVFS_VOLUME names %s, which is no volume", name,
                          given);
    if (given != NULL && given[0] != '\0')
        return name_in(given, name, n);
    if (name_only_volume(volume))
        return name_in(volume, name, n);
    return vfs_refuse(SQLITE_CANTOPEN,
                      "%s: no volume is named: say volume=PATH, or set KVFS_VOLUME", name);
}

int
vfs_name_resolve(const char *name, bool uri, struct vfs_name *n)
{
    const char *volume = uri ? sqlite3_uri_parameter(name, "volume") : NULL;
    int rc;

    if (volume != NULL && volume[0] != '\0') {
        rc = name_in(volume, name, n);
    } else if (name[0] != '/') {
        rc = name_relative(name, n);
    } else {
        rc = name_prefix(name, n);
        if (rc == SQLITE_NOTFOUND)
            rc = vfs_refuse(SQLITE_CANTOPEN, "%s: no folder on the way is a volume", name);
    }
    /* SQLite wants room for "-journal", and would not say so. */
    if (rc == SQLITE_OK && strlen(n->volume) + 1 + strlen(n->file) + 8 > VFS_PATH_MAX)
        rc = vfs_refuse(SQLITE_CANTOPEN, "%.64s...: the name is too long", name);
    return rc;
}
