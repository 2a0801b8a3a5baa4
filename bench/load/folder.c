/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "folder.h"

/* Folders of folders: sled has some. */
#define FOLDER_DEPTH_MAX 4

typedef int folder_fn(int fd, uint64_t *sum);

static int
folder_one(int dirfd, const char *name, folder_fn *fn, uint64_t *sum)
{
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc;

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno; /* engines remove files behind our back */
    rc = fn(fd, sum);
    (void)close(fd);
    return rc;
}

/* FN of each regular file below DIRFD, which is taken. */
static int
folder_walk_take(int dirfd, int depth, folder_fn *fn, uint64_t *sum)
{
    DIR *d = fdopendir(dirfd);
    struct dirent *e;
    struct stat st;
    int rc = 0;

    if (d == NULL) {
        rc = -errno;
        (void)close(dirfd);
        return rc;
    }
    while (rc == 0 && (e = readdir(d)) != NULL) { // NOLINT(concurrency-mt-unsafe): our own stream
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        if (S_ISREG(st.st_mode)) {
            rc = folder_one(dirfd, e->d_name, fn, sum);
        } else if (S_ISDIR(st.st_mode) && depth < FOLDER_DEPTH_MAX) {
            int fd = openat(dirfd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

            if (fd >= 0)
                rc = folder_walk_take(fd, depth + 1, fn, sum); // NOLINT(misc-no-recursion)
        }
    }
    (void)closedir(d);
    return rc;
}

static int
folder_walk(const char *folder, folder_fn *fn, uint64_t *sum, struct kvfs_error *err)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -errno : folder_walk_take(fd, 0, fn, sum);

    // NOLINTNEXTLINE(concurrency-mt-unsafe): glibc's is per thread
    return rc < 0 ? kvfs_error_set(err, rc, "%s: %s", folder, strerror(-rc)) : 0;
}

bool
folder_empty(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    bool empty = d != NULL;

    while (empty && (e = readdir(d)) != NULL) // NOLINT(concurrency-mt-unsafe): our own stream
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    if (d != NULL)
        (void)closedir(d);
    return empty;
}

static int
file_allocated(int fd, uint64_t *sum)
{
    struct stat st;

    if (fstat(fd, &st) == 0)
        *sum += (uint64_t)st.st_blocks * 512;
    return 0;
}

static int
file_sync(int fd, uint64_t *sum)
{
    (void)sum;
    return fdatasync(fd) == 0 ? 0 : -errno;
}

static int
file_drop(int fd, uint64_t *sum)
{
    (void)sum;
    return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int
file_resident(int fd, uint64_t *sum)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *in;
    struct stat st;
    size_t pages;
    void *map;

    if (fstat(fd, &st) != 0 || st.st_size == 0)
        return 0;
    pages = ((size_t)st.st_size + page - 1) / page;
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return 0;
    in = malloc(pages);
    if (in != NULL && mincore(map, (size_t)st.st_size, in) == 0)
        for (size_t i = 0; i < pages; i++)
            *sum += (in[i] & 1) * page;
    free(in);
    (void)munmap(map, (size_t)st.st_size);
    return 0;
}

int
folder_allocated(const char *folder, uint64_t *bytes, struct kvfs_error *err)
{
    *bytes = 0;
    return folder_walk(folder, file_allocated, bytes, err);
}

int
folder_drop_cache(const char *folder, const char **how, uint64_t *resident, struct kvfs_error *err)
{
    int fd, rc = folder_walk(folder, file_sync, NULL, err);

    *resident = 0;
    if (rc == 0)
        rc = folder_walk(folder, file_drop, NULL, err);
    if (rc == 0)
        rc = folder_walk(folder, file_resident, resident, err);
    *how = "fadvise";
    if (rc < 0 || *resident == 0)
        return rc;
    *how = "partly";
    fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (write(fd, "1", 1) == 1)
        *how = "drop_caches";
    (void)close(fd);
    *resident = 0;
    rc = folder_walk(folder, file_resident, resident, err);
    if (*resident > 0)
        *how = "partly";
    return rc;
}
