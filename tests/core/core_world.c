/* SPDX-License-Identifier: BSD-3-Clause */
#include "core_world.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct kvfs_error world_err;
char world_path[64];

static int
world_remove_one(const char *name, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(name);
}

void
world_folder(void)
{
    (void)snprintf(world_path, sizeof(world_path), "/tmp/kvfs-core-XXXXXX");
    assert_non_null(mkdtemp(world_path));
}

void
world_format(const char *engine, uint32_t block_size)
{
    struct kvfs_format_options fo = {.engine = engine != NULL ? engine : chosen_engine(),
                                     .block_size_bytes = block_size};

    MUST(kvfs_format(world_path, &fo, &world_err));
}

void
world_make(const char *engine, uint32_t block_size)
{
    world_folder();
    world_format(engine, block_size);
}

void
world_remove(void)
{
    (void)nftw(world_path, world_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct kvfs_volume *
world_open(const char *engine, size_t cache_bytes)
{
    struct kvfs_volume_options vo = {.engine = engine, .cache_bytes = cache_bytes};
    struct kvfs_volume *v = NULL;

    MUST(kvfs_volume_open(world_path, &vo, &v, &world_err));
    return v;
}

uint64_t
world_file(struct kvfs_volume *v, const char *name, uint64_t size)
{
    struct kvfs_create c = {.mode = S_IFREG | 0644, .size_bytes = size};
    struct kvfs_attr attr = {0};

    if (kvfs_lookup(v, KVFS_ROOT_INO, name, &attr, NULL) == -ENOENT)
        MUST(kvfs_create(v, KVFS_ROOT_INO, name, &c, &attr, &world_err));
    return attr.ino;
}

struct kvfs_file *
world_file_open(struct kvfs_volume *v, const char *name, unsigned flags)
{
    struct kvfs_file *f = NULL;
    struct kvfs_attr attr;

    MUST(kvfs_lookup(v, KVFS_ROOT_INO, name, &attr, &world_err));
    MUST(kvfs_file_open(v, attr.ino, flags, &f, &world_err));
    return f;
}

bool
world_is(struct kvfs_file *f, uint64_t offset, size_t count, int byte)
{
    unsigned char *buf = malloc(count);
    bool same = true;

    assert_non_null(buf);
    MUST(kvfs_file_pread(f, buf, count, offset, &world_err));
    for (size_t i = 0; i < count && same; i++)
        same = buf[i] == (unsigned char)byte;
    free(buf);
    return same;
}

uint64_t
world_version(struct kvfs_file *f)
{
    struct kvfs_file_info info;

    kvfs_file_info(f, &info);
    return info.version;
}

void
world_fill(struct kvfs_file *f, uint64_t offset, size_t count, int byte)
{
    unsigned char *buf = malloc(count);

    assert_non_null(buf);
    memset(buf, byte, count);
    MUST(kvfs_file_pwrite(f, buf, count, offset, 0, &world_err));
    free(buf);
}

unsigned
world_seed(void)
{
    const char *set = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): one thread yet
    struct timespec now;
    unsigned seed;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    seed = set != NULL ? (unsigned)strtoul(set, NULL, 10) : (unsigned)now.tv_nsec;
    print_message("KVFS_SEED=%u\n", seed);
    return seed;
}

unsigned
world_rounds(unsigned n)
{
    const char *scale = getenv("KVFS_SCALE"); // NOLINT(concurrency-mt-unsafe): one thread yet

    return scale != NULL ? n * (unsigned)strtoul(scale, NULL, 10) : n;
}
