/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume_file.h - the text file `volume` of a volume's folder (volume_file.c).
 */
#ifndef KVFS_VOLUME_FILE_H
#define KVFS_VOLUME_FILE_H

#include <kvfs/volume.h>

struct kvfs_lease_table;

struct kvfs_volume_file {
    uint32_t format_version;
    uint8_t uuid[16];
    char engine[64]; /* below the log, if there is one */
    bool log;
};

#define KVFS_LOG_PREFIX "log:"
/* The META key of an engine with a log before it (engines/log/below.c). */
#define KVFS_LOG_KEY     "\0log"
#define KVFS_LOG_KEY_LEN 4u
/* Bytes of an engine's name, the log's prefix and the end included. */
#define KVFS_ENGINE_NAME_CAP (64 + sizeof(KVFS_LOG_PREFIX))

/* Read `volume` in folder PATH.  -ENOENT: there is none; -EINVAL: it is not
 * one; -ENOTSUP: a newer format. */
int kvfs_volume_file_read(const char *path, struct kvfs_volume_file *f, struct kvfs_error *err);

/* The engine as kvfs_engine_find() knows it: with "log:" in front if the log is on. */
void kvfs_volume_file_engine(const struct kvfs_volume_file *f, char name[KVFS_ENGINE_NAME_CAP]);

/* Make engine and log those of the engine NAME.  -EINVAL: too long. */
int kvfs_volume_file_engine_set(struct kvfs_volume_file *f, const char *name);

/* Is there a file `volume` in folder PATH that begins as one of any format does?
 * It may be damaged further on. */
bool kvfs_volume_file_begins(const char *path);

/* Write it anew, crash-safe and durable (a rename, with syncs of file and folder). */
int kvfs_volume_file_write(const char *path, const struct kvfs_volume_file *f,
                           struct kvfs_error *err);

/* Take the volume's lock (kvfs_lease_table_open()) for a volume about which FILE, read before,
 * said all that was judged.  -EBUSY: in use, or it is another by now. */
int kvfs_volume_file_lock(const char *path, const struct kvfs_volume_file *f, bool shared,
                          struct kvfs_lease_table **leasesp, struct kvfs_error *err);

void kvfs_uuid_text(const uint8_t uuid[16], char text[37]);

/* fsync the file or folder PATH. */
int kvfs_fsync_path(const char *path, struct kvfs_error *err);

/* -ENOTSUP if PATH lies on a network file system, where locks and memory maps
 * of other machines do not meet. */
int kvfs_local_check(const char *path, struct kvfs_error *err);

/* A function so that every caller gets the thread-safe text. */
const char *kvfs_errno_text(int errnum);

#endif /* KVFS_VOLUME_FILE_H */
