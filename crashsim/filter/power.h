/* SPDX-License-Identifier: BSD-3-Clause
 *
 * power.h - the one disk of this process, with its lock: what requests and commands do to it.
 *
 * Requests answer 0 or -1 with *err, as nbdkit wants it; commands answer 0 or -1 with one line in
 * ANSWER, or with lines of key=value.
 */
#ifndef CRASHSIM_POWER_H
#define CRASHSIM_POWER_H

#include <stdbool.h>
#include <stdint.h>

#include <nbdkit-filter.h>

#include "../disk.h"
#include "params.h"

#define POWER_ANSWER_MAX 4096

/* NEXT is the one context into the plugin; it is used under the lock only. */
int power_start(nbdkit_next *next, uint64_t size_bytes, int can_zero, int can_flush, int can_fua);
/* The end of the process.  With the power on, what is open goes to the plugin, as of a disk
 * that is switched off in order; with the power off nothing does. */
void power_end(void);

int power_read(void *buf, uint32_t count, uint64_t offset, int *err);
int power_change(struct crashsim_write *w, int *err);
int power_flush(uint32_t conn, int *err);

int power_cut(const struct crashsim_choice *choice, bool seeded, char *answer);
int power_arm(const struct crashsim_choice *choice, bool seeded, const struct trigger *trigger,
              char *answer);
int power_on(char *answer);
int power_mark(const char *name, char *answer);
int power_stats(char *answer);

/* ON_CUT is called after each cut, when what survived is written, under the lock. */
void power_watch(void (*on_cut)(void));
/* Wait until the power is off: over if it is, or was cut since power_wait_begin().  ANSWER is
 * that of power_cut(). */
uint64_t power_wait_begin(void);
bool power_wait_is_over(uint64_t cuts, char *answer);

#endif /* CRASHSIM_POWER_H */
