/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_record.h - writing a trace (trace_file.h): which file has which number, and the events.
 *
 * The first error is kept and nothing is written after it; trace_record_close() answers it.
 */
#ifndef CRASHSIM_TRACE_RECORD_H
#define CRASHSIM_TRACE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct trace_record;

#define TRACE_NONE UINT32_MAX /* no object of ours */

/* Make FILE; what is below FOLDER now is the base.  0 or a negative errno. */
int trace_record_open(const char *file, const char *folder, struct trace_record **record);
int trace_record_close(struct trace_record *t);

uint32_t trace_record_find(const struct trace_record *t, const struct stat *st);
uint32_t trace_record_count(const struct trace_record *t); /* of events */

/* Each is an event of trace_file.h. */
uint32_t trace_record_new(struct trace_record *t, const struct stat *st, uint32_t parent,
                          const char *name, const char *target);
void trace_record_name(struct trace_record *t, char letter, uint32_t obj, uint32_t parent,
                       const char *name);
void trace_record_rename(struct trace_record *t, uint32_t parent, const char *name, uint32_t to,
                         const char *name2, bool swap);
void trace_record_write(struct trace_record *t, uint32_t obj, uint64_t offset, const void *data,
                        size_t count, bool sync);
void trace_record_size(struct trace_record *t, uint32_t obj, uint64_t size);
void trace_record_room(struct trace_record *t, uint32_t obj, uint64_t offset, uint64_t count,
                       bool punch);
void trace_record_sync(struct trace_record *t, uint32_t obj, bool data, uint32_t bound);
void trace_record_sync_range(struct trace_record *t, uint32_t obj, uint32_t bound, uint64_t offset,
                             uint64_t count);
void trace_record_sync_all(struct trace_record *t, uint32_t bound);
void trace_record_mark(struct trace_record *t, const char *name, size_t len);

/* The command did not end well: WHAT it did instead, cut to what a trace takes; UNSOUND: and not all of that is here. */
void trace_record_end(struct trace_record *t, const char *what, bool unsound);

/* OBJ is mapped for writing; PATH opens it.  Its stores are found by looking, whenever
 * trace_record_look() is called. */
void trace_record_map(struct trace_record *t, uint32_t obj, const char *path);
void trace_record_look(struct trace_record *t);

/* Something happened that a trace cannot say. */
void trace_record_unseen(struct trace_record *t, const char *what);
const char *trace_record_what_unseen(const struct trace_record *t); /* NULL: nothing */

#endif /* CRASHSIM_TRACE_RECORD_H */
