/* SPDX-License-Identifier: BSD-3-Clause
 *
 * serve.h - a file of a volume as a disk: nbdkit with the kvfs plugin.
 */
#ifndef CRASHSIM_SERVE_H
#define CRASHSIM_SERVE_H

#include "scenario.h"

/* Can nbdkit load the plugin? */
int serve_look(const struct place *p, struct kvfs_error *err);

/* Serve file FILE of VOLUME at a new socket, whose path goes into SOCKET. */
int serve_volume(const struct subject *s, const char *volume, const char *file, uint64_t seed,
                 char socket[PLACE_NAME_MAX], pid_t *server, struct kvfs_error *err);

#endif /* CRASHSIM_SERVE_H */
