/* SPDX-License-Identifier: BSD-3-Clause
 *
 * upstream_main.c - runs one of SQLite's own test programs, whose main() was renamed, with the
 * VFS registered: UPSTREAM_EXTENSION names the extension, UPSTREAM_DEFAULT=1 makes its VFS the
 * default for programs that know no --vfs.
 */
#include <stdio.h>
#include <stdlib.h>

#include <sqlite3.h>

int upstream_main(int argc, char **argv);

int
main(int argc, char **argv)
{
    const char *extension = getenv("UPSTREAM_EXTENSION");
    char *why = NULL;
    sqlite3 *db = NULL;

    if (extension == NULL)
        return upstream_main(argc, argv);
    if (sqlite3_open(":memory:", &db) != SQLITE_OK ||
        sqlite3_enable_load_extension(db, 1) != SQLITE_OK ||
        sqlite3_load_extension(db, extension, NULL, &why) != SQLITE_OK) {
        (void)fprintf(stderr, "%s: %s\n", extension, why != NULL ? why : "cannot be loaded");
        return 1;
    }
    (void)sqlite3_close(db);
    if (getenv("UPSTREAM_DEFAULT") != NULL)
        (void)sqlite3_vfs_register(sqlite3_vfs_find("kvfs"), 1);
    else
        (void)sqlite3_shutdown(); /* the program configures the library; the VFS stays */
    return upstream_main(argc, argv);
}
