/* SPDX-License-Identifier: BSD-3-Clause
 *
 * source.h - where states come from: a recording of a disk, or a trace of system calls.
 *
 * A source stands at a cut, in front of which so many lines of the recording lie.  Some changes are
 * open there; a pick (pick.h) of them makes a state, which is a file (of a disk) or a folder (of
 * a trace).
 */
#ifndef CRASHSIM_SOURCE_H
#define CRASHSIM_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "disk.h"
#include "pick.h"

struct source;

struct source_ops {
    /* The disk or folder as the base has it and all that is durable at line AT; forward is
     * cheap. */
    int (*seek)(struct source *s, uint32_t at);
    size_t (*open_count)(const struct source *s);
    /* A crashsim_pick_shape_fn. */
    void (*shape)(const void *source, size_t i, uint64_t *offset, uint64_t *count);
    void (*describe)(const struct source *s, size_t i, char *text, size_t size);
    /* NULL, or: PICK was made by a rule; change it where that makes better states. */
    void (*adapt)(const struct source *s, struct crashsim_pick *pick);
    /* Take PICK up, and answer what names the state's bytes. */
    int (*prepare)(struct source *s, const struct crashsim_pick *pick, uint64_t *hash);
    /* Let PATH be the state that was prepared last; it may hold an older one. */
    int (*build)(struct source *s, const char *path);
    void (*close)(struct source *s);
};

struct source_mark {
    uint32_t line;
    const char *name;
};

struct source {
    const struct source_ops *ops;
    const char *file;    /* the recording */
    const char *what;    /* "disk" or "folder": what a state is */
    bool spoils;         /* it knows the tears byte and garbage */
    uint32_t lines, at;  /* how many there are; where it stands */
    uint64_t bytes;      /* about what a state takes, for the choice of a folder */
    /* Where a cut is worth it: in front of what makes something durable, behind each mark, at the
     * end.  Ascending, one at least. */
    uint32_t *cuts;
    size_t cuts_count;
    struct source_mark *marks;
    size_t marks_count;
    /* Of a trace, empty if its command ended well: what that did instead; and whether the trace lacks
     * something of it. */
    char ended[208];
    bool unsound;
    /* The cut that the recording itself ends with. */
    const struct crashsim_choice *own_cut; /* NULL: none */
    uint32_t own_cut_line;
};

/* Each prints one line and answers CMD_USAGE if it cannot.  FOLDER is for files of its own. */
int source_open_disk(const char *file, const char *base, uint64_t size, const char *folder,
                     struct source **source);
int source_open_trace(const char *file, struct source **source);
/* Any kind, told apart by how FILE begins. */
int source_open(const char *file, const char *base, uint64_t size, const char *folder,
                struct source **source);
void source_close(struct source *s);

/* "812", "mark:NAME", "flush:3", "end", "cut": the number of a line.  CMD_OK or CMD_USAGE. */
int source_parse_at(const struct source *s, const char *text, uint32_t *at);
/* Parse a choice at the present cut; NULL is the recording's own.  CMD_OK or CMD_USAGE. */
int source_parse_choice(const struct source *s, const char *text, struct crashsim_pick *pick);
/* What CHOICE makes of the changes that are open at the present cut. */
int source_choose(const struct source *s, const struct crashsim_choice *choice,
                  struct crashsim_pick *pick);
/* An open change of a disk, in words. */
void source_describe_write(const struct crashsim_write *w, char *text, size_t size);
/* How many marks lie in front of the present cut. */
size_t source_marks(const struct source *s);
/* Write them, a line each. */
int source_write_marks(const struct source *s, const char *file);

/* Helps those who fill `cuts`: adds AT if it is not the last already. */
int source_add_cut(struct source *s, size_t *cap, uint32_t at);

#endif /* CRASHSIM_SOURCE_H */
