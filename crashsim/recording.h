/* SPDX-License-Identifier: BSD-3-Clause
 *
 * recording.h - what happened to a disk, in a file.
 *
 * FILE is a log as the kernel's dm-log-writes makes it, in the order of answers, which other
 * people's replay-log and QEMU's blklogwrites read too.  FILE.side is text that says exactly
 * what that format cannot; docs/CRASHSIM.md describes it.
 *
 * The first error is kept, and nothing is written after it; crashsim_record_error() tells.
 */
#ifndef CRASHSIM_RECORDING_H
#define CRASHSIM_RECORDING_H

#include <stdint.h>

#include "disk.h"

#define CRASHSIM_LOG_MAGIC   0x6a736677736872u
#define CRASHSIM_LOG_VERSION 1
#define CRASHSIM_LOG_FLUSH   (1u << 0)
#define CRASHSIM_LOG_FUA     (1u << 1)
#define CRASHSIM_LOG_DISCARD (1u << 2)
#define CRASHSIM_LOG_MARK    (1u << 3)
#define CRASHSIM_LOG_SECTOR  512

#define CRASHSIM_MARK_MAX 255 /* bytes of a mark's name */

/* Printable ASCII and UTF-8, not empty, not too long. */
bool crashsim_mark_is_good(const char *name);

/* On the disk, little-endian, each in a sector of its own.  An entry that is no discard is
 * followed by nr_sectors of data; a mark's name follows the entry in its sector. */
struct crashsim_log_super {
    uint64_t magic, version, nr_entries;
    uint32_t sectorsize;
};
struct crashsim_log_entry {
    uint64_t sector, nr_sectors, flags, data_len;
};

struct crashsim_record;

/* Could they be made?  Leaves nothing behind. */
int crashsim_record_probe(const char *path);

/* Make FILE and FILE.side; -EEXIST if one of them is there. */
int crashsim_record_new(const char *path, uint64_t size_bytes, uint64_t seed,
                        struct crashsim_record **record);
/* The first error that there was. */
int crashsim_record_error(const struct crashsim_record *r);
uint64_t crashsim_record_entries(const struct crashsim_record *r);
/* Answers the first error, or that of closing. */
int crashsim_record_free(struct crashsim_record *r);

void crashsim_record_submit(struct crashsim_record *r, const struct crashsim_write *w);
/* W was answered (seq), or is in flight at a cut (seq 0).  D is asked for what lies beside it in
 * its sectors. */
void crashsim_record_write(struct crashsim_record *r, struct crashsim_disk *d,
                           const struct crashsim_write *w);
void crashsim_record_fail(struct crashsim_record *r, uint64_t id, int error);
void crashsim_record_destage(struct crashsim_record *r, uint64_t id);
/* A flush by CONN was answered; it covers what was answered up to BOUND, or nothing if it lies. */
void crashsim_record_flush(struct crashsim_record *r, uint32_t conn, uint64_t bound, bool lies);
/* What happened cannot be said: the recording ends here, with ERROR (negative). */
void crashsim_record_give_up(struct crashsim_record *r, int error);
void crashsim_record_mark(struct crashsim_record *r, const char *name);
/* Before the cut: what is in flight, then the cut. */
void crashsim_record_cut(struct crashsim_record *r, struct crashsim_disk *d,
                         const struct crashsim_choice *choice);

#endif /* CRASHSIM_RECORDING_H */
