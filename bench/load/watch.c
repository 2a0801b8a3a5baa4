/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "watch.h"

#define WATCH_PERIOD_NS 20000000L

int
watch_device(const char *device, char *stat_path, size_t cap)
{
    const char *name = strrchr(device, '/');

    if (strncmp(device, "/dev/", 5) != 0 || name[1] == '\0' || name[1] == '.' ||
        snprintf(stat_path, cap, "/sys/class/block/%s/stat", name + 1) >= (int)cap ||
        access(stat_path, R_OK) != 0)
        return -ENODEV;
    return 0;
}

static void
watch_read_device(const char *stat_path, struct watch_counters *c)
{
    FILE *f = fopen(stat_path, "re");
    unsigned long long sectors = 0, flushes = 0;

    if (f == NULL)
        return;
    /* reads: 4, writes: 4, in flight, 2 times, discards: 4, flushes: 2 */
    if (fscanf(f, // NOLINT(cert-err34-c): the kernel's numbers
               "%*u %*u %*u %*u %*u %*u %llu %*u %*u %*u %*u %*u %*u %*u %*u %llu", &sectors,
               &flushes) >= 1) {
        c->device_written = sectors * 512;
        c->device_flushes = flushes;
    }
    (void)fclose(f);
}

/* The number behind NAME in one of this process's files in /proc. */
static uint64_t
watch_proc(FILE *f, const char *name)
{
    unsigned long long value = 0;
    char line[256];

    rewind(f);
    while (fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, name, strlen(name)) == 0) {
            value = strtoull(line + strlen(name), NULL, 10);
            break;
        }
    return value;
}

void
watch_read(const char *stat_path, struct watch_counters *c)
{
    struct rusage u;
    FILE *io = fopen("/proc/self/io", "re");

    *c = (struct watch_counters){.cpu_ns = 0};
    if (getrusage(RUSAGE_SELF, &u) == 0) {
        c->cpu_ns = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000u +
                    (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000u;
        c->switches = (uint64_t)u.ru_nvcsw + (uint64_t)u.ru_nivcsw;
    }
    if (io != NULL) {
        c->io_written = watch_proc(io, "write_bytes:");
        (void)fclose(io);
    }
    if (stat_path != NULL)
        watch_read_device(stat_path, c);
}

static void
watch_memory(struct watch *w)
{
    FILE *f = fopen("/proc/self/status", "re");
    uint64_t own, file;

    if (f == NULL)
        return;
    own = (watch_proc(f, "RssAnon:") + watch_proc(f, "RssShmem:")) * 1024;
    file = watch_proc(f, "RssFile:") * 1024;
    (void)fclose(f);
    own -= own < atomic_load(&w->not_own) ? own : atomic_load(&w->not_own);
    if (own > atomic_load(&w->own_max))
        atomic_store(&w->own_max, own);
    if (file > atomic_load(&w->file_max))
        atomic_store(&w->file_max, file);
}

static void *
watch_thread(void *arg)
{
    const struct timespec period = {.tv_nsec = WATCH_PERIOD_NS};
    struct watch *w = arg;

    while (!atomic_load(&w->stop)) {
        watch_memory(w);
        (void)nanosleep(&period, NULL); /* a sampling period */
    }
    return NULL;
}

int
watch_start(struct watch *w, const char *stat_path)
{
    *w = (struct watch){.stat_path = stat_path};
    return -pthread_create(&w->thread, NULL, watch_thread, w);
}

void
watch_mark(void *arg)
{
    struct watch *w = arg;

    atomic_store(&w->own_max, 0);
    atomic_store(&w->file_max, 0);
    watch_memory(w);
    watch_read(w->stat_path, &w->from);
}

void
watch_stop(struct watch *w, struct watch_counters *to)
{
    struct watch_counters now;

    atomic_store(&w->stop, true);
    (void)pthread_join(w->thread, NULL);
    watch_memory(w);
    watch_read(w->stat_path, &now);
    to->cpu_ns = now.cpu_ns - w->from.cpu_ns;
    to->switches = now.switches - w->from.switches;
    to->device_written = now.device_written - w->from.device_written;
    to->device_flushes = now.device_flushes - w->from.device_flushes;
    to->io_written = now.io_written - w->from.io_written;
}

static bool
watch_task_busy(const char *task)
{
    char path[64], text[128] = "";
    const char *end;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%.16s/stat", task);
    f = fopen(path, "re");
    if (f == NULL)
        return false; /* ended */
    if (fgets(text, sizeof(text), f) == NULL)
        text[0] = '\0';
    (void)fclose(f);
    end = strrchr(text, ')'); /* behind the name */
    return end != NULL && (strncmp(end, ") R", 3) == 0 || strncmp(end, ") D", 3) == 0);
}

unsigned
watch_busy_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    unsigned busy = 0;
    struct dirent *e;

    if (d == NULL)
        return 0;
    while ((e = readdir(d)) != NULL) // NOLINT(concurrency-mt-unsafe): a stream of our own
        if (isdigit((unsigned char)e->d_name[0]) &&
            strtol(e->d_name, NULL, 10) != (long)gettid() && watch_task_busy(e->d_name))
            busy++;
    (void)closedir(d);
    return busy;
}
