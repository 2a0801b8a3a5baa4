/* SPDX-License-Identifier: BSD-3-Clause
 *
 * server.h - the plugin's one volume and its connections.
 */
#ifndef KVFS_PLUGIN_SERVER_H
#define KVFS_PLUGIN_SERVER_H

#include <pthread.h>

#include <kvfs/kvfs.h>

#include "cmdline.h"
#include "params.h"

/* One client.  Exactly one of FILE and SNAPSHOT is not NULL. */
struct kserver_conn {
    struct kvfs_file *file;         /* of a client that may write */
    struct kvfs_snapshot *snapshot; /* of one that may not; used under snapshot_lock */
    pthread_mutex_t snapshot_lock;
    const char *name;                 /* of the export, nbdkit's; for errors */
    struct kvfs_file_info info;       /* as of when the client came */
    struct kserver_conn *next, *prev; /* of the server's list */
};

/* Say ERR to nbdkit and set the errno that the client will see; -1 always. */
int kserver_fail(const struct kvfs_error *err);

/* The same, of a request of client C: names the export too. */
int kserver_conn_fail(const struct kserver_conn *c, const struct kvfs_error *err);

/* Before nbdkit forks: does the volume open, is file= there?  Makes the file if
 * create= says so.  All of it in a child process, so that this one never has an
 * engine open that must not cross a fork, and as the user that nbdkit will become. */
int kserver_probe(const struct kparams *params, const struct kcmdline *nbdkit,
                  struct kvfs_error *err);

/* After the fork: open the volume, start the thread that commits on shutdown. */
int kserver_start(const struct kparams *params, struct kvfs_error *err);

/* Commit, close what clients left open, close the volume.  Any number of times,
 * also without a start. */
void kserver_stop(void);

/* The open volume. */
struct kvfs_volume *kserver_volume(void);

/* A client of file INO came, or went. */
int kserver_conn_open(uint64_t ino, bool readonly, struct kserver_conn **connp,
                      struct kvfs_error *err);
void kserver_conn_close(struct kserver_conn *c);

#endif /* KVFS_PLUGIN_SERVER_H */
