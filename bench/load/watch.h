/* SPDX-License-Identifier: BSD-3-Clause
 *
 * watch.h - what a phase costs this process and the device of the run's own.
 */
#ifndef KVFS_LOAD_WATCH_H
#define KVFS_LOAD_WATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct watch_counters {
    uint64_t cpu_ns, switches;
    uint64_t device_written, device_flushes; /* 0 without a device */
    uint64_t io_written;                     /* that this process had written to storage */
};
/* STAT_PATH: the device's `stat` in sysfs, or NULL. */
void watch_read(const char *stat_path, struct watch_counters *c);

/* -ENODEV: no block device of that name (/dev/NAME). */
int watch_device(const char *device, char *stat_path, size_t cap);

struct watch {
    const char *stat_path;
    pthread_t thread;
    atomic_bool stop;
    atomic_uint_fast64_t own_max, file_max; /* resident: RssAnon and RssShmem; RssFile; bytes */
    atomic_uint_fast64_t not_own;           /* bytes of the load's, taken off */
    struct watch_counters from;
};

/* Begin to sample the memory; 0 or a negative errno. */
int watch_start(struct watch *w, const char *stat_path);
/* Begin to count from here; ARG is a struct watch. */
void watch_mark(void *arg);
/* End; TO is what was counted. */
void watch_stop(struct watch *w, struct watch_counters *to);

/* How many threads of the process, without the caller's, run or wait for storage. */
unsigned watch_busy_threads(void);

#endif /* KVFS_LOAD_WATCH_H */
