/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Fuzzes the names of databases: the input is up to three lines, a name, the URI's `volume`
 * and KVFS_VOLUME, in which '%' is the folder that has two volumes, `v` and, deeper, `d/w`.
 * What is accepted is absolute, without links, dots or empty parts, fits into mxPathname, names a
 * folder that is or can be made, and means the same when SQLite hands it back.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../vfs/kvfs_sqlite.h"
#include "../../vfs/vfs_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char world[64];

static void
must(int condition)
{
    if (!condition)
        abort();
}

static void
world_clean(void)
{
    static const char *const files[] = {"v/volume", "v/sub", "v", "d/w/volume", "d/w", "d", "link"};
    char path[128];

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", world, files[i]);
        (void)remove(path);
    }
    (void)rmdir(world);
}

static void
world_file(const char *name, int folder)
{
    char path[128];
    FILE *fp;

    (void)snprintf(path, sizeof(path), "%s/%s", world, name);
    if (folder) {
        must(mkdir(path, 0700) == 0);
        return;
    }
    fp = fopen(path, "w");
    must(fp != NULL && fputs("kvfs-volume 1\n", fp) > 0 && fclose(fp) == 0);
}

static void
world_make(void)
{
    char link[128];

    (void)snprintf(world, sizeof(world), "/tmp/kvfs-fuzz-XXXXXX");
    must(mkdtemp(world) != NULL && atexit(world_clean) == 0);
    world_file("v", 1);
    world_file("v/volume", 0);
    world_file("v/sub", 1);
    world_file("d", 1);
    world_file("d/w", 1);
    world_file("d/w/volume", 0);
    (void)snprintf(link, sizeof(link), "%s/link", world);
    must(symlink("d/w", link) == 0);
    must(kvfs_sqlite_register(0) == SQLITE_OK);
}

/* The next line, '%' replaced; NULL: there is none. */
static const char *
line_next(const uint8_t **data, size_t *left, char *out, size_t cap)
{
    size_t n = 0;

    if (*left == 0)
        return NULL;
    while (*left > 0 && **data != '\n') {
        if (**data == '%' && n + strlen(world) < cap) {
            memcpy(out + n, world, strlen(world));
            n += strlen(world);
        } else if (**data != '%' && **data != '\0' && n + 1 < cap) {
            out[n++] = (char)**data;
        }
        (*data)++;
        (*left)--;
    }
    if (*left > 0) {
        (*data)++;
        (*left)--;
    }
    out[n] = '\0';
    return out;
}

static void
check(const struct vfs_name *n)
{
    char path[2 * VFS_PATH_MAX], real[PATH_MAX];
    struct vfs_name again = {0};
    bool is_one;

    must(n->volume[0] == '/');
    (void)snprintf(path, sizeof(path), "%s/volume", n->volume);
    is_one = access(path, F_OK) == 0;
    if (realpath(n->volume, real) == NULL) { /* one that may be made, in a folder that is there */
        (void)snprintf(path, sizeof(path), "%s", n->volume);
        *strrchr(path, '/') = '\0';
        must(realpath(path[0] == '\0' ? "/" : path, real) != NULL);
        must(strcmp(real, path) == 0 || path[0] == '\0');
        must(strrchr(n->volume, '/')[1] != '\0');
    } else {
        must(strcmp(real, n->volume) == 0);
    }
    must(n->file[0] != '\0' && n->file[0] != '/' && strstr(n->file, "//") == NULL);
    must(n->file[strlen(n->file) - 1] != '/');
    (void)snprintf(path, sizeof(path), "/%s/", n->file);
    must(strstr(path, "/./") == NULL && strstr(path, "/../") == NULL);
    must(strlen(n->volume) + 1 + strlen(n->file) < VFS_PATH_MAX);
    (void)snprintf(path, sizeof(path), "%s/%s", n->volume, n->file);
    if (is_one && vfs_name_split(path, &again)) {
        must(strcmp(again.volume, n->volume) == 0 && strcmp(again.file, n->file) == 0);
        if (strlen(path) + strlen("-journal") <= VFS_PATH_MAX) {
            must(vfs_name_resolve(path, false, &again) == SQLITE_OK);
            must(strcmp(again.volume, n->volume) == 0 && strcmp(again.file, n->file) == 0);
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[2048], volume[2048], given[2048];
    const char *parameters[2] = {"volume", volume};
    struct vfs_name n = {0};
    const char *uri;
    int rc;

    if (world[0] == '\0')
        world_make();
    if (line_next(&data, &size, name, sizeof(name)) == NULL)
        return 0;
    uri = sqlite3_create_filename(name, "", "",
                                  line_next(&data, &size, volume, sizeof(volume)) != NULL, parameters);
    must(uri != NULL);
    if (line_next(&data, &size, given, sizeof(given)) != NULL)
        must(setenv("KVFS_VOLUME", given, 1) == 0);
    else
        must(unsetenv("KVFS_VOLUME") == 0);
    rc = vfs_name_resolve(uri, true, &n);
    if (rc == SQLITE_OK)
        check(&n);
    else
        must(kvfs_sqlite_error()[0] != '\0');
    if (vfs_name_split(name, &n))
        check(&n);
    sqlite3_free_filename((char *)(uintptr_t)uri);
    return 0;
}
