/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tree.h - files and folders in memory: what a trace's events make of them.
 */
#ifndef CRASHSIM_TREE_H
#define CRASHSIM_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trace_file.h"

struct tree_object {
    char kind; /* f, d, l; 0: not made yet */
    uint32_t mode;
    uint8_t *bytes; /* of a file: `room` bytes mapped, zeros behind `size`; of a link its target */
    uint64_t size, room;
    uint64_t hash; /* of the bytes, if hashed */
    bool hashed;
};

struct tree_entry {
    uint32_t parent, obj;
    char *name;
};

struct tree {
    struct tree_object *objects;
    uint32_t objects_count;
    struct tree_entry *entries;
    size_t entries_count, entries_cap;
};

/* Folder 0 and nothing else, with room for OBJECTS.  0 or -ENOMEM. */
int tree_open(struct tree *t, uint32_t objects);
void tree_close(struct tree *t);
/* The names of FROM and no objects. */
int tree_copy_names(struct tree *t, const struct tree *from);

/* The bytes of one object. */
int tree_copy_object(struct tree *t, const struct tree *from, uint32_t obj);

/* Do event E, of any kind but S, Y and M. */
int tree_apply(struct tree *t, const struct trace_event *e);
/* Write [AT, TO) of what W has. */
int tree_write(struct tree *t, const struct trace_event *w, uint64_t at, uint64_t to);
int tree_resize(struct tree *t, uint32_t obj, uint64_t size);

/* Names all that can be reached by names of NAMES; the objects are those of TOP where it has them,
 * else of BELOW. */
uint64_t tree_hash(const struct tree *names, struct tree *top, struct tree *below);
/* Make it in the new folder PATH. */
int tree_build(const struct tree *names, const struct tree *top, const struct tree *below,
               const char *path);
/* Remove PATH and all below. */
int tree_remove(const char *path);

#endif /* CRASHSIM_TREE_H */
