/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_program.h - the memory, the descriptors and the names of a thread that stands in a call.
 *
 * Names are resolved by the kernel, through /proc/TID.
 */
#ifndef CRASHSIM_TRACE_PROGRAM_H
#define CRASHSIM_TRACE_PROGRAM_H

#include <sys/stat.h>

#include "trace_calls.h"

#define CALL_MAPPED_PATH (PATH_MAX + 64)

/* COUNT bytes of its memory at AT, all or false. */
bool call_read(const struct call *c, uint64_t at, void *buf, size_t count);
/* The name by which we reach descriptor FD. */
void call_fd_path(const struct call *c, uint64_t fd, char path[64]);
/* What of a file is known here and now: its device, number and kind in *ST.  No server of its file
 * system is asked for more (FUSE): the command may have started that, and it stands still with us. */
int call_stat(const char *path, struct stat *st);
/* The object that descriptor FD is open on. */
uint32_t call_object(const struct calls *calls, const struct call *c, uint64_t fd);
/* Where FD stands, and its flags. */
bool call_position(const struct call *c, uint64_t fd, uint64_t *pos, unsigned *flags);
/* The entry that the path at AT, from folder DIRFD, names.  false: it cannot be read, or is not
 * below our folder. */
bool call_resolve(const struct calls *calls, const struct call *c, uint64_t dirfd, uint64_t at,
                  struct call_name *name);
/* The object that is mapped shared at ADDRESS, and *PATH by which we reach it.  *RANGE, if not NULL: where in
 * the file that is, and how many bytes of the file are mapped from there on without a gap. */
struct call_range {
    uint64_t offset, count;
};
uint32_t call_mapped(const struct calls *calls, const struct call *c, uint64_t address,
                     char path[CALL_MAPPED_PATH], struct call_range *range);

#endif /* CRASHSIM_TRACE_PROGRAM_H */
