/* SPDX-License-Identifier: BSD-3-Clause
 *
 * work.h - what goes on in the background (work.c).
 */
#ifndef KVFS_WORK_H
#define KVFS_WORK_H

#include "volume_priv.h"

struct kvfs_node;

int kvfs_worker_start(struct kvfs_volume *v, struct kvfs_error *err);
void kvfs_worker_stop(struct kvfs_volume *v); /* also when there is none */

/* The overlay fills: bring down what is sealed. */
void kvfs_worker_room(struct kvfs_volume *v);

/* One bounded piece of a file's holes and forks; commit lock held.  1: there is
 * more, 0: none. */
int kvfs_work_node(struct kvfs_volume *v, struct kvfs_node *node, struct kvfs_error *err);

#define KVFS_HOLES_MAX 1024 /* pending holes of a file; past it writers help */
#define KVFS_OVERS_MAX 8    /* forks over a file; past it writers help */

#endif /* KVFS_WORK_H */
