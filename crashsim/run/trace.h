/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace.h - a recording, read back; and the disk at any of its instants.
 *
 * A recording (docs/CRASHSIM.md) and a copy of what the disk held before it say what the disk
 * could hold after a cut at any instant.  An instant is named by its number of events: those
 * before it have happened, the next one has not.
 */
#ifndef CRASHSIM_TRACE_H
#define CRASHSIM_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include <kvfs/error.h>

#include "disk.h"

struct trace_event {
    char type;      /* a letter of the sidecar: S C E D F, or X at the end */
    uint64_t t;     /* nanoseconds of CLOCK_MONOTONIC */
    uint64_t id;    /* S C E D */
    uint32_t open;  /* changes, when it has happened */
    uint64_t bound; /* F: changes up to this seq are durable, 0 of one that lied; C: its seq */
    struct crashsim_write write; /* S */
};

struct trace {
    uint64_t size_bytes;
    struct trace_event *events;
    size_t count;
    uint64_t cut_ns;            /* when its own cut fell; UINT64_MAX: none */
    struct crashsim_choice cut; /* what that kept */
    uint64_t ids_max;
    const uint8_t *map;
    size_t map_bytes;
};

/* FILE and FILE.side.  -EINVAL: foreign or cut short. */
int trace_open(const char *file, struct trace *t, struct kvfs_error *err);
void trace_close(struct trace *t);

/* When a cut at instant AT falls, as late as possible: just before the next event. */
uint64_t trace_time(const struct trace *t, size_t at);

/* How many changes are open at that instant. */
size_t trace_open_count(const struct trace *t, size_t at);

struct replay; /* the disk at an instant */

int replay_new(const struct trace *t, const char *base, struct replay **r, struct kvfs_error *err);
void replay_free(struct replay *r);

/* Go on to instant AT; never back. */
int replay_go(struct replay *r, size_t at, struct kvfs_error *err);
size_t replay_open_count(const struct replay *r);
/* Cut there.  The disk is then what survived; nothing but replay_write is possible any more (so
 * callers fork first). */
int replay_cut(struct replay *r, const struct crashsim_choice *choice, struct crashsim_cut *cut,
               struct kvfs_error *err);
/* The same by PICK, which is of as many changes as are open. */
int replay_cut_picked(struct replay *r, const struct crashsim_pick *pick, struct kvfs_error *err);
/* An open change, as crashsim_disk_open() tells; and a crashsim_pick_shape_fn of a replay. */
const struct crashsim_write *replay_open(const struct replay *r, size_t i);
void replay_shape(const void *replay, size_t i, uint64_t *offset, uint64_t *count);
/* Write the disk into the open file FD, all of it. */
int replay_write(const struct replay *r, int fd, struct kvfs_error *err);
/* Does FILE hold the same?  -EILSEQ: no. */
int replay_compare(const struct replay *r, const char *file, struct kvfs_error *err);

#endif /* CRASHSIM_TRACE_H */
