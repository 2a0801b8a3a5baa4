/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_calls.h - what a system call does to the files of a trace.
 */
#ifndef CRASHSIM_TRACE_CALLS_H
#define CRASHSIM_TRACE_CALLS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "trace_record.h"

struct call_name { /* an entry of a folder */
    uint32_t parent; /* TRACE_NONE: not below ours */
    char name[NAME_MAX + 1];
    char path[PATH_MAX + NAME_MAX + 80]; /* by which we reach it */
    bool exists;
    struct stat st; /* if it does, not followed */
};

struct call { /* a thread that is inside a system call, or NULLs */
    pid_t tid;
    const struct call_kind *kind; /* NULL: outside */
    uint64_t args[6];
    uint32_t bound; /* events when it began */
    uint32_t obj;
    struct call_name a, b;
    uint8_t *data;
    uint64_t count;   /* of data */
    int64_t offset;   /* -1: where the descriptor stands */
    uint64_t place;   /* of a write, if it could be found */
    bool sync, is_mark, append, not_append, placed;
    bool last;     /* the process is about to end */
    uint64_t held; /* not 0: it waits for another call to end, with this number in the queue */
};

struct calls {
    struct trace_record *record;
    struct stat marks; /* of the file that takes marks */
};

struct call_kind {
    int number;
    unsigned changes; /* CALL_NAMES, CALL_BYTES */
    /* At the beginning: false, it is of no interest.  At the end, if it did not fail. */
    bool (*enter)(struct calls *calls, struct call *c);
    void (*leave)(struct calls *calls, struct call *c, int64_t result);
};

#define CALL_NAMES 1u
#define CALL_BYTES 2u

/* All of them; *COUNT. */
const struct call_kind *calls_kinds(size_t *count);
void calls_begin(struct calls *calls, struct call *c, int number, const uint64_t args[6]);
void calls_end(struct calls *calls, struct call *c, int64_t result);
/* Do the calls that A and B are in change the same: names, or bytes of one file?  Then one is to wait,
 * or nobody can tell in which order they happened, and where what was appended lies.  A process
 * that ends waits for every change, and every change for it: what its threads were doing could not be
 * asked any more.  (Which process a thread is of is not asked.) */
bool calls_meet(const struct call *a, const struct call *b);
/* C is to wait: nothing is known of its call any more. */
void calls_forget(struct call *c);

#endif /* CRASHSIM_TRACE_CALLS_H */
