/* SPDX-License-Identifier: BSD-3-Clause
 *
 * world.h - a real nbdkit with the crash simulator's filter, and what talks to it.
 *
 * What fails for a reason that is not under test prints why and ends the program with status 1.
 */
#ifndef CRASHSIM_TESTS_WORLD_H
#define CRASHSIM_TESTS_WORLD_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct world {
    bool plain; /* no filter, so nothing to control either */
    char dir[64], socket[96], control[96], record[96], log[96];
    pid_t pid;
};

void world_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Exit with 77 where nbdkit or the filter is missing; a fresh folder. */
void world_begin(struct world *w);
void world_end(struct world *w);

/* nbdkit -f --filter=crashsim ARGS (NULL-terminated: the plugin, then parameters), with a control
 * socket; it serves when this returns. */
void world_start(struct world *w, const char *const *args);
/* SIGTERM; its exit status must be 0, and no sanitizer may have complained. */
void world_stop(struct world *w);
void world_kill(struct world *w);

struct nbd_handle *world_connect(const struct world *w);

/* crashsimctl SOCKET COMMAND: its exit status; what it printed, if OUT is given (freed by the
 * caller). */
int world_ctl(const struct world *w, const char *command, char **out);
/* A number of `stats`. */
uint64_t world_stat(const struct world *w, const char *key);

#endif /* CRASHSIM_TESTS_WORLD_H */
