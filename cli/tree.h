/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tree.h - reading folders in pieces, removing and naming trees.
 */
#ifndef KVFS_CLI_TREE_H
#define KVFS_CLI_TREE_H

#include "cli.h"

#define CLI_ENTRIES_MAX 256 /* read at a time */

struct cli_entry {
    uint64_t ino, cookie;
    uint32_t type; /* S_IFMT part */
    char *name;
    size_t name_len;
};

struct cli_entries {
    struct cli_entry *list;
    size_t count, cap;
};

/* Add the entries of DIR behind COOKIE, at most MAX of them (0: all), so that
 * no walk of the engine stays open while they are worked on.  Fewer than MAX
 * mean the end.  Free in any case. */
int cli_entries_read(struct cli_entries *e, struct kvfs_volume *v, uint64_t dir, uint64_t cookie,
                     size_t max, struct kvfs_error *err);
void cli_entries_sort(struct cli_entries *e);
void cli_entries_free(struct cli_entries *e);

/* Remove NAME in folder DIR and all below it, however deep.  INTERRUPTIBLE: a
 * signal that asks to stop ends it with -EINTR; else it cleans up behind one. */
int cli_tree_remove(struct kvfs_volume *v, uint64_t dir, const char *name, bool interruptible,
                    struct kvfs_error *err);

/* Split PATH into the folder of its last part and that part's name.  Refused, in
 * one line about PATH: the root, "." and ".." at the end; a folder that is not
 * there; and for a name that is to be a FILE's, a slash at the end. */
int cli_path_split(struct kvfs_volume *v, const char *path, bool file, uint64_t *dir,
                   char name[KVFS_NAME_MAX + 1], struct kvfs_error *err);
/* The same for something that is there: behind a slash only a folder's name. */
int cli_path_entry(struct kvfs_volume *v, const char *path, uint64_t *dir,
                   char name[KVFS_NAME_MAX + 1], struct kvfs_error *err);

/* The last part of PATH, without slashes behind it; "" for the root. */
void cli_path_base(const char *path, char name[KVFS_NAME_MAX + 1]);

/* Where SOURCE lands that is moved, linked or copied to TARGET: into TARGET if
 * that is a folder (unless EXACT), else under the name TARGET. */
struct cli_place {
    uint64_t dir;
    char name[KVFS_NAME_MAX + 1];
    bool inside; /* TARGET is a folder, NAME is SOURCE's */
    bool slash;  /* NAME is new and stood before a slash: a folder's only */
    bool exists;
    struct kvfs_attr attr; /* of what is there, if exists */
};
int cli_place_find(struct kvfs_volume *v, const char *target, const char *source, bool exact,
                   struct cli_place *place, struct kvfs_error *err);
/* Refuse TARGET, which led to PLACE, if a file cannot get that name. */
int cli_place_file(const struct cli_place *place, const char *target, struct kvfs_error *err);

/* Names of things half made: ".kvfs-KIND-PID-TIME".  Those whose process died
 * are removed when the next is made in the same folder. */
void cli_temp_name(const char *kind, char name[KVFS_NAME_MAX + 1]);
void cli_temp_collect(struct kvfs_volume *v, uint64_t dir);

#endif /* KVFS_CLI_TREE_H */
