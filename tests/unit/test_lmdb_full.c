/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The lmdb engine on a file system that is full: small ones of our own, mounted in
 * a mount namespace of this process, so that nothing is left behind.
 */
#include "lmdb_world.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define FULL_MIB      24u
#define FULL_SKIPPED  77
#define FULL_PER_PUT  16u
#define FULL_MANY     400u

static bool full_is_root; /* of the machine, not of a user namespace only */

/* A mount namespace of our own, as root or as the root of a user namespace. */
static bool
full_unshare(void)
{
    full_is_root = geteuid() == 0;
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return false;
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static int
full_mount_tmpfs(void **state)
{
    struct world *w;
    char options[32];

    if (world_setup(state) != 0)
        return -1;
    w = *state;
    (void)snprintf(options, sizeof(options), "size=%um", FULL_MIB);
    if (mount("tmpfs", w->folder, "tmpfs", 0, options) == 0 && mkdir(w->store, 0777) == 0)
        return 0;
    (void)world_teardown(state);
    return -1;
}

/* Make a file system in IMAGE and mount it at FOLDER. */
static bool
full_loop(const char *image, const char *folder)
{
    char command[512];

    (void)snprintf(command, sizeof(command),
                   "mkfs.ext4 -q -m 0 -F %s && mount -o loop %s %s && rm %s", image, image, folder,
                   image);
    return system(command) == 0; // NOLINT(cert-env33-c,concurrency-mt-unsafe): our own paths
}

static int
full_mount_ext4(void **state)
{
    struct world *w;
    char image[100];
    int fd;

    if (world_setup(state) != 0)
        return -1;
    w = *state;
    (void)snprintf(image, sizeof(image), "%s.img", w->folder);
    fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && ftruncate(fd, (off_t)FULL_MIB << 20) == 0 && close(fd) == 0 &&
        full_loop(image, w->folder) && mkdir(w->store, 0777) == 0)
        return 0;
    (void)unlink(image);
    (void)world_teardown(state);
    return -1;
}

static int
full_unmount(void **state)
{
    struct world *w = *state;
    char folder[sizeof(w->folder)];

    memcpy(folder, w->folder, sizeof(folder));
    if (w->db != NULL)
        world_close(w);
    if (umount(folder) != 0)
        print_error("umount %s: %s\n", folder, strerror(errno)); // NOLINT(concurrency-mt-unsafe)
    return world_teardown(state);
}

/* Put blocks from FIRST on until there is no room; how many there are then. */
static uint64_t
full_fill(struct world *w, uint64_t first)
{
    uint64_t n = first;
    int rc;

    for (;;) {
        for (uint64_t i = 0; i < FULL_PER_PUT; i++)
            world_put(w, n + i, 1);
        rc = world_apply(w, KVFS_ORDERED);
        if (rc != 0)
            break;
        n += FULL_PER_PUT;
        assert_true(n < ((uint64_t)FULL_MIB << 20) / w->block);
    }
    assert_int_equal(rc, -ENOSPC);
    assert_null(strstr(w->err.msg, "MAP_FULL"));
    return n;
}

static void
full_check(struct world *w, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i += 7)
        assert_int_equal(world_check(w, i, 1), 0);
    assert_int_equal(world_stat(w).data_records, to - from);
}

/* Another user of the file system takes all that is left. */
static int
full_hog(struct world *w)
{
    static uint8_t bytes[4096];
    char path[100];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/hog", w->folder);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    memset(bytes, 1, sizeof(bytes));
    for (size_t len = sizeof(bytes); len > 0; len /= 2)
        while (write(fd, bytes, len) > 0)
            continue;
    assert_int_equal(close(fd), 0);
    return 0;
}

/* The store filled until -ENOSPC: it stays whole, deletes work, also when others
 * have taken the last block, and what they free can be used. */
static void
full__by_ourselves__deletes_work(void **state)
{
    struct world *w = *state;
    uint64_t n, gone = 0, more;
    char first[256];

    world_open(w);
    n = full_fill(w, 0);
    assert_true(n * w->block >= ((uint64_t)FULL_MIB << 20) * 7 / 10);
    full_check(w, 0, n);
    for (int i = 0; i < 20; i++) { /* refused again and again */
        world_put(w, n + 1, 1);
        for (uint64_t j = 0; j < 2 * (uint64_t)FULL_PER_PUT; j++)
            world_put(w, n + 2 + j, 1);
        assert_int_equal(world_apply(w, KVFS_DURABLE), -ENOSPC);
    }
    full_check(w, 0, n);
    assert_int_equal(full_hog(w), 0);
    for (; gone < 100; gone++) {
        world_del(w, gone);
        world_meta(w, "counter", &gone, sizeof(gone));
        world_commit(w, gone % 2 ? KVFS_DURABLE : KVFS_ORDERED);
    }
    full_check(w, gone, n);
    for (uint64_t i = 0; i < FULL_MANY; i++) /* all over the tree at once */
        world_del(w, gone + i * ((n - gone) / FULL_MANY));
    world_commit(w, KVFS_ORDERED);
    assert_int_equal(world_verify(w, first), 0);
    world_close(w);
    world_open(w); /* still nothing free beside the reserve */
    kvfs_batch_del_range(w->batch, KVFS_DATA, NULL, 0, NULL, 0);
    world_commit(w, KVFS_DURABLE);
    assert_int_equal(world_stat(w).data_records, 0);
    more = full_fill(w, 0);
    assert_true(more >= n * 9 / 10);
    full_check(w, 0, more);
    assert_int_equal(world_verify(w, first), 0);
}

/* The file system is filled by others while the store is small. */
static void
full__by_others__deletes_work(void **state)
{
    struct world *w = *state;
    uint64_t n = ((uint64_t)4 << 20) / w->block;

    world_open(w);
    for (uint64_t i = 0; i < n; i++)
        world_put(w, i, 1);
    world_commit(w, KVFS_DURABLE);
    assert_int_equal(full_hog(w), 0);
    for (uint64_t i = 0; i < 3 * n; i++)
        world_put(w, n + i, 1);
    assert_int_equal(world_apply(w, KVFS_ORDERED), -ENOSPC);
    for (uint64_t i = 0; i < n; i++) {
        world_del(w, i);
        world_commit(w, KVFS_ORDERED);
    }
    assert_int_equal(world_stat(w).data_records, 0);
    (void)full_fill(w, 0);
}

/* stat's promise: at most what it tells is refused. */
static void
full__avail__told_before(void **state)
{
    struct world *w = *state;
    uint64_t before, n = 0;

    world_open(w);
    do {
        before = world_stat(w).avail_bytes;
        for (uint64_t i = 0; i < FULL_PER_PUT; i++)
            world_put(w, n + i, 1);
        n += FULL_PER_PUT;
    } while (world_apply(w, KVFS_NONE) == 0);
    assert_true(before <= ((uint64_t)1 << 20) + (uint64_t)4 * FULL_PER_PUT * w->block);
}

/* No room for the files of a new store: nothing is left behind. */
static void
full__create__enospc_and_nothing_left(void **state)
{
    const struct kvfs_engine_options options = {.create = true};
    struct world *w = *state;
    int rc;

    assert_int_equal(full_hog(w), 0);
    rc = world_try(w, &options);
    assert_int_equal(rc, -ENOSPC);
    assert_int_equal(rmdir(w->store), 0);
    assert_int_equal(mkdir(w->store, 0777), 0);
}

int
main(void)
{
#define ON_TMPFS(fn) {"tmpfs_" #fn, fn, full_mount_tmpfs, full_unmount, NULL}
#define ON_EXT4(fn)  {"ext4_" #fn, fn, full_mount_ext4, full_unmount, NULL}
    const struct CMUnitTest tmpfs[] = {
        ON_TMPFS(full__by_ourselves__deletes_work),
        ON_TMPFS(full__by_others__deletes_work),
        ON_TMPFS(full__avail__told_before),
        ON_TMPFS(full__create__enospc_and_nothing_left),
    };
    const struct CMUnitTest ext4[] = {
        ON_EXT4(full__by_ourselves__deletes_work),
        ON_EXT4(full__by_others__deletes_work),
        ON_EXT4(full__avail__told_before),
        ON_EXT4(full__create__enospc_and_nothing_left),
    };
    int failed;

    if (!full_unshare()) {
        (void)printf("skipped: no mount namespace\n");
        return FULL_SKIPPED;
    }
    failed = cmocka_run_group_tests(tmpfs, NULL, NULL);
    if (full_is_root)
        failed += cmocka_run_group_tests(ext4, NULL, NULL);
    else
        (void)printf("without root only tmpfs was tried\n");
    return failed;
}
