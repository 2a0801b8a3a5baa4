/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_file.h - a trace: what a program did to the files below one folder.
 *
 * "crashsim-trace 1\n", then events.  An event is a line, a letter and fields key=value, of which the
 * last is n; then n bytes of payload and a newline.  Objects (files, folders, links) have numbers;
 * 0 is the folder itself.
 *
 *     N obj parent kind mode base     an object of kind f, d or l came to be; payload: its name, and
 *                                     of a link '\0' and its target
 *     L obj parent                    it got another name (payload)
 *     U parent                        a name (payload) was taken away
 *     R parent to swap                a name became another: payload both, '\0' between
 *     W obj offset sync base          bytes were written; sync=1: durable when it returned
 *     T obj size                      its size was set
 *     A obj offset count punch        room was made (it grows), or a range was let go (punch=1)
 *     S obj data bound offset count   fsync (data=0) or fdatasync (data=1) returned; it covers the
 *                                     events up to number `bound`; with a count, msync: of the
 *                                     writes only what lies in that range
 *     Y bound                         sync, syncfs
 *     M                               a mark (payload)
 *     E kind                          the command did not end well (payload: what it did instead); kind=u:
 *                                     and the trace does not have all that it did
 *
 * base=1: it was there before the program began.
 */
#ifndef CRASHSIM_TRACE_FILE_H
#define CRASHSIM_TRACE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_MAGIC "crashsim-trace 1\n"
#define TRACE_ERROR 256
#define TRACE_OBJECTS_MAX (1u << 20)
#define TRACE_END_MAX     200
#define TRACE_FILE_MAX    (UINT64_C(1) << 40) /* bytes of a file */

struct trace_event {
    char letter, kind;      /* kind: of N */
    bool base, sync, punch, swap, data;
    uint32_t obj, parent, to, mode, bound;
    uint64_t offset, count; /* count: of A, and of S (0: all); of T offset is the size */
    const uint8_t *bytes;   /* the payload, with a '\0' or '\n' behind */
    uint32_t n;
};

struct trace_file {
    const uint8_t *map;
    uint64_t map_bytes;
    struct trace_event *events;
    uint32_t count, cap;
    uint32_t objects; /* their numbers are below */
};

/* 0 or a negative errno, and what is wrong in ERROR. */
int trace_file_open(const char *path, struct trace_file *t, char error[TRACE_ERROR]);
/* The same of bytes in memory, which must outlive it. */
int trace_file_read(const uint8_t *bytes, uint64_t count, struct trace_file *t,
                    char error[TRACE_ERROR]);
void trace_file_close(struct trace_file *t);

#endif /* CRASHSIM_TRACE_FILE_H */
