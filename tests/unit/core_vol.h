/* SPDX-License-Identifier: BSD-3-Clause
 *
 * core_vol.h - volumes and threads for the tests of the core.
 */
#ifndef CORE_VOL_H
#define CORE_VOL_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <kvfs/kvfs.h>

#include "../chosen.h"

/* cmocka's assertions work in the main thread only; these work in any. */
static inline void __attribute__((format(printf, 3, 4), noreturn))
core_die(const char *where, const char *cond, const char *fmt, ...)
{
    va_list ap;

    (void)fprintf(stderr, "%s: %s: ", where, cond);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "\n");
    abort();
}

static inline void
core_ok(int rc, const struct kvfs_error *err, const char *where, const char *call)
{
    if (rc < 0)
        core_die(where, call, "%d: %s", rc, err->msg);
}

#define CORE_TEXT(x)     #x
#define CORE_WHERE(f, l) f ":" CORE_TEXT(l)
#define CORE_MUST(cond, ...) \
    ((cond) ? (void)0 : core_die(CORE_WHERE(__FILE__, __LINE__), #cond, __VA_ARGS__))
#define CORE_OK(call) core_ok((call), &err, CORE_WHERE(__FILE__, __LINE__), #call)

static inline uint64_t
core_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint64_t
core_seed(void)
{
    const char *env = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): no threads yet
    uint64_t seed = env != NULL ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);

    print_message("KVFS_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static inline unsigned
core_scale(void)
{
    const char *env = getenv("KVFS_SCALE"); // NOLINT(concurrency-mt-unsafe): no threads yet
    unsigned long scale = env != NULL ? strtoul(env, NULL, 10) : 1;

    return scale >= 1 && scale <= 1000 ? (unsigned)scale : 1;
}

static inline bool
core_has(const char *engine)
{
    const struct kvfs_engine *e;

    return kvfs_engine_find(engine, &e, NULL) == 0;
}

static inline int
core_remove_one(const char *name, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(name);
}

static inline void
core_remove(const char *path)
{
    (void)nftw(path, core_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A fresh volume in a new folder (PATH has 64 bytes). */
static inline void
core_format(char *path, const char *engine, uint64_t store_max_bytes)
{
    struct kvfs_format_options options = {.engine = engine, .store_max_bytes = store_max_bytes};
    struct kvfs_error err = {0};

    (void)snprintf(path, 64, "/tmp/kvfs-core-XXXXXX");
    CORE_MUST(mkdtemp(path) != NULL, "no folder");
    CORE_OK(kvfs_format(path, &options, &err));
}

static inline struct kvfs_volume *
core_open(const char *path, const struct kvfs_volume_options *options)
{
    struct kvfs_error err = {0};
    struct kvfs_volume *v;

    CORE_OK(kvfs_volume_open(path, options, &v, &err));
    return v;
}

static inline uint64_t
core_create(struct kvfs_volume *v, const char *name, uint64_t size, uint32_t block_size)
{
    struct kvfs_create create = {
        .mode = S_IFREG | 0600, .size_bytes = size, .block_size_bytes = block_size};
    struct kvfs_error err = {0};
    struct kvfs_attr attr;

    CORE_OK(kvfs_create(v, KVFS_ROOT_INO, name, &create, &attr, &err));
    return attr.ino;
}

static inline struct kvfs_file *
core_file(struct kvfs_volume *v, uint64_t ino, unsigned flags)
{
    struct kvfs_error err = {0};
    struct kvfs_file *f;

    CORE_OK(kvfs_file_open(v, ino, flags, &f, &err));
    return f;
}

static inline void
core_finding(void *arg, const char *where, const char *what)
{
    (void)arg;
    (void)fprintf(stderr, "check: %s: %s\n", where, what);
}

/* The checker finds nothing. */
static inline void
core_check(const char *path)
{
    struct kvfs_check_options options = {.finding = core_finding};
    struct kvfs_check_result result;
    struct kvfs_error err = {0};

    CORE_OK(kvfs_check(path, &options, &result, &err));
    CORE_MUST(result.findings == 0, "%llu findings", (unsigned long long)result.findings);
}

#endif /* CORE_VOL_H */
