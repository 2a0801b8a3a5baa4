/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stack.h - a disk whose power can be cut, as a mounted file system.
 *
 *     ext4 (at `mnt`)  -  loop device  -  nbdfuse  -  nbdkit, our filter  -  a sparse file
 *
 * Killing a process would leave its dirty pages in the kernel; here the device dies below the file
 * system.  After a cut nbdkit stays, with its file; all that is above it goes and comes anew.
 */
#ifndef CRASHSIM_STACK_H
#define CRASHSIM_STACK_H

#include "disks.h"
#include "place.h"

struct stack {
    const struct place *place;
    char file[PLACE_NAME_MAX];   /* that the disk keeps its bytes in */
    char record[PLACE_NAME_MAX]; /* FILE of the recording; FILE.side beside it */
    char mnt[PLACE_NAME_MAX];
    pid_t server, fuse;
    struct loop loop;
    bool mounted;
};

/* The filter's file: $KVFS_CRASHSIM_FILTER, else beside this program, else as installed. */
const char *stack_filter(void);

/* Is there a file NAME beside this program?  Its path. */
bool stack_beside_program(const char *name, char *path, size_t cap);

/* Begin to serve FILE; NAME tells one stack of a run from another.  PRESET: NULL: no
 * latency, and a recording; latency as crashsim-latency takes it, and no recording; or
 * STACK_PLAIN: without the filter, so without cuts and recording. */
extern const char STACK_PLAIN[];
int stack_start(struct stack *s, const struct place *p, const char *name, const char *file,
                const char *preset, struct kvfs_error *err);
void stack_stop(struct stack *s);
/* Its recordings, when it has stopped. */
void stack_remove(const struct stack *s);

/* Attach, in two steps because they are timed apart, and mount. */
int stack_attach(struct stack *s, struct kvfs_error *err);
int stack_mount(struct stack *s, struct kvfs_error *err);
/* Take it all away, above nbdkit; works also when the power is off. */
void stack_detach(struct stack *s);

/* One command to the filter, as crashsimctl would say it.  ANSWER (or NULL): its lines. */
int stack_tell(const struct stack *s, const char *command, char *answer, size_t cap,
               struct kvfs_error *err);

#endif /* CRASHSIM_STACK_H */
