/* SPDX-License-Identifier: BSD-3-Clause
 *
 * history.h - a recording, read: what happened to the disk, as a list of events.
 *
 * With its sidecar a recording is exact.  A log without one, as dm-log-writes or QEMU made it, says
 * less: each entry is then a change that was answered where the entry stands, a flush covers the
 * entries before it, and FUA its own.
 */
#ifndef CRASHSIM_HISTORY_H
#define CRASHSIM_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk.h"

enum crashsim_event_kind {
    CRASHSIM_EVENT_SUBMIT,   /* changes[change] was taken in */
    CRASHSIM_EVENT_COMPLETE, /* it was answered */
    CRASHSIM_EVENT_ABANDON,  /* it failed */
    CRASHSIM_EVENT_DESTAGE,  /* it became durable by itself */
    CRASHSIM_EVENT_FLUSH,    /* the first `bound` answered changes are durable */
    CRASHSIM_EVENT_MARK,     /* names + name */
    CRASHSIM_EVENT_NONE,     /* nothing that matters: a lying flush, the cut */
};

struct crashsim_event {
    enum crashsim_event_kind kind;
    uint32_t line; /* which line of the sidecar (from 1, its head not counted), or entry of the
                      log, says so; several may come of one entry */
    union {
        size_t change;
        uint64_t bound;
        size_t name;
    } u;
};

struct crashsim_change {
    uint64_t id, offset, at; /* at: of its bytes in the log */
    uint32_t count, conn;
    enum crashsim_kind kind;
    bool fua, known;    /* known: its bytes are in the log */
    bool answered;      /* while reading */
    bool destaged;      /* it was before it was answered */
};

struct crashsim_history {
    int log; /* descriptor, owned */
    bool sidecar;
    bool unfinished; /* the last line of the sidecar is not whole and was left out */
    uint64_t size_bytes;
    uint32_t lines; /* the number of the last line or entry */
    struct crashsim_event *events;
    size_t events_count, events_cap;
    struct crashsim_change *changes;
    size_t changes_count, changes_cap;
    char *names; /* of marks, one behind the other with their '\0' */
    size_t names_len, names_cap;
    struct crashsim_choice cut; /* of the recording's own cut, if has_cut; cut_line: where */
    bool has_cut;
    uint32_t cut_line;
};

#define CRASHSIM_HISTORY_ERROR 256

/* Read FILE, and FILE.side if there is one.  0 or a negative errno and what is wrong in ERROR, of
 * CRASHSIM_HISTORY_ERROR bytes, without the name of FILE. */
int crashsim_history_open(const char *file, struct crashsim_history **history, char *error);
/* The same of a log's descriptor (taken) and the text of a sidecar, or NULL. */
int crashsim_history_read(int log, const char *side, size_t side_len,
                          struct crashsim_history **history, char *error);
void crashsim_history_close(struct crashsim_history *h);

/* The bytes of a change of kind CRASHSIM_WRITE. */
int crashsim_history_data(const struct crashsim_history *h, size_t change, void *buf);

/* Do event I to disk D, which is over a disk of size_bytes and has a cache without bound. */
int crashsim_history_apply(const struct crashsim_history *h, size_t i, struct crashsim_disk *d);

#endif /* CRASHSIM_HISTORY_H */
