/* SPDX-License-Identifier: BSD-3-Clause
 *
 * data.h - moving the bytes of files: sources, walks over their data, runs.
 *
 * A walk visits only what may hold data, in windows whose start is a multiple
 * of CLI_CHUNK_BYTES, so that block boundaries of source and target agree and
 * a hole stays a hole whatever lies on either side.
 */
#ifndef KVFS_CLI_DATA_H
#define KVFS_CLI_DATA_H

#include <sys/types.h>
#include <xxhash.h>

#include "cli.h"

#define CLI_WINDOW_BYTES ((size_t)4 << 20) /* one read, one write at most */
#define CLI_CHUNK_BYTES  65536u            /* the largest block size */

struct cli_source {
    uint64_t size_bytes;
    /* The first range at or behind OFFSET that may hold data; *start is the
     * size when there is none. */
    int (*next)(struct cli_source *s, uint64_t offset, uint64_t *start, uint64_t *end,
                struct kvfs_error *err);
    int (*read)(struct cli_source *s, void *buf, size_t count, uint64_t offset,
                struct kvfs_error *err);
};

/* A file of a volume at one instant. */
struct cli_snapshot_source {
    struct cli_source base;
    struct kvfs_snapshot *snapshot;
    uint64_t ino;
    const char *name; /* put before errors; NULL: the caller does */
};
int cli_snapshot_source_init(struct cli_snapshot_source *s, struct kvfs_snapshot *snapshot,
                             uint64_t ino, struct kvfs_error *err);

/* A regular file or a block device of the system, from byte BASE. */
struct cli_fd_source {
    struct cli_source base;
    const char *name; /* for errors */
    int fd;
    off_t base_offset;
    uint64_t data_start, data_end; /* the range last found */
};
void cli_fd_source_init(struct cli_fd_source *s, int fd, const char *name, off_t base_offset,
                        uint64_t size_bytes);

typedef int cli_sink_fn(void *arg, const void *buf, size_t count, uint64_t offset,
                        struct kvfs_error *err);

/* Read the data of S and hand them to SINK in order.  PROGRESS counts positions;
 * NULL: none.  -EINTR: a signal asked to stop. */
int cli_source_walk(struct cli_source *s, cli_sink_fn *sink, void *arg,
                    struct cli_progress *progress, struct kvfs_error *err);

/* Hand out the runs of blocks in BUF that are not all zeros. */
int cli_runs(const void *buf, size_t count, uint64_t offset, size_t block_size, cli_sink_fn *sink,
             void *arg, struct kvfs_error *err);
bool cli_zeros(const void *buf, size_t count);

/* Checksum of contents that does not know holes from zeros: over the offset and
 * bytes of each chunk that is not all zeros. */
void cli_hash_window(XXH3_state_t *hash, const void *buf, size_t count, uint64_t offset);

#endif /* KVFS_CLI_DATA_H */
