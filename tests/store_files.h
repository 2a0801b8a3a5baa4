/* SPDX-License-Identifier: BSD-3-Clause
 *
 * store_files.h - the files in which an engine keeps a store, whatever engine it
 * is, so that a test can damage them.
 *
 * Not among them: empty files, the volume's own (`volume`, `lock`), and what says
 * who holds a store or what happened to it (`lock.*`, `holder`, `LOG`).
 */
#ifndef KVFS_TESTS_STORE_FILES_H
#define KVFS_TESTS_STORE_FILES_H

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define STORE_FILES_MAX 64

struct store_file {
    char path[256];
    uint64_t size_bytes;
};

struct store_files {
    struct store_file file[STORE_FILES_MAX];
    size_t count;
};

static struct store_files store_files_found;

static inline int
store_files_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    const char *name = path + ftw->base;
    struct store_file *f = &store_files_found.file[store_files_found.count];

    if (type != FTW_F || st->st_size == 0 || strcmp(name, "volume") == 0 ||
        strncmp(name, "lock", 4) == 0 || strcmp(name, "holder") == 0 ||
        strncmp(name, "LOG", 3) == 0 || strlen(path) >= sizeof(f->path) ||
        store_files_found.count == STORE_FILES_MAX)
        return 0;
    (void)strcpy(f->path, path); /* NOLINT(clang-analyzer-security*): measured above */
    f->size_bytes = (uint64_t)st->st_size;
    store_files_found.count++;
    return 0;
}

static inline int
store_files_compare(const void *a, const void *b)
{
    return strcmp(((const struct store_file *)a)->path, ((const struct store_file *)b)->path);
}

/* All of them, by path, so that a seed finds the same again.  One thread at a time. */
static inline const struct store_files *
store_files_find(const char *folder)
{
    store_files_found.count = 0;
    (void)nftw(folder, store_files_one, 8, FTW_PHYS);
    qsort(store_files_found.file, store_files_found.count, sizeof(store_files_found.file[0]),
          store_files_compare);
    return &store_files_found;
}

/* The largest; NULL: there is none. */
static inline const struct store_file *
store_files_largest(const char *folder)
{
    const struct store_files *all = store_files_find(folder);
    const struct store_file *largest = NULL;

    for (size_t i = 0; i < all->count; i++) {
        if (largest == NULL || all->file[i].size_bytes > largest->size_bytes)
            largest = &all->file[i];
    }
    return largest;
}

#endif /* KVFS_TESTS_STORE_FILES_H */
