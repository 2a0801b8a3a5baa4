/* SPDX-License-Identifier: BSD-3-Clause
 *
 * common.c - what the jammdb and sled engines do alike (rust_priv.h).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "rust_priv.h"

int
kvfs_rust_error(const struct kvfs_db *db, struct kvfs_error *err, int code,
                const struct kvfs_rust_text *text)
{
    return kvfs_error_set(err, code, "%s: %s", db->path, text->bytes);
}

char *
kvfs_rust_join(const char *folder, const char *name)
{
    size_t len = strlen(folder) + strlen(name) + 2;
    char *s = malloc(len);

    if (s != NULL)
        (void)snprintf(s, len, "%s/%s", folder, name);
    return s;
}

struct kvfs_db *
kvfs_rust_db_new(const char *folder, const char *name, const struct kvfs_engine_options *options)
{
    struct kvfs_db *db = calloc(1, sizeof(*db));

    if (db == NULL)
        return NULL;
    db->holder_fd = db->file_fd = -1;
    db->readonly = options->readonly;
    db->limit_bytes = options->store_max_bytes;
    db->generation = kvfs_fork_generation();
    (void)pthread_mutex_init(&db->apply_lock, NULL);
    (void)pthread_mutex_init(&db->list_lock, NULL);
    (void)pthread_rwlock_init(&db->gate, NULL);
    db->folder = strdup(folder);
    db->path = kvfs_rust_join(folder, name);
    if (db->folder == NULL || db->path == NULL) {
        kvfs_rust_db_free(db);
        return NULL;
    }
    return db;
}

void
kvfs_rust_db_free(struct kvfs_db *db)
{
    if (db->file_fd >= 0)
        (void)close(db->file_fd);
    kvfs_holder_drop(db->holder_fd); /* a child's copy keeps the lock with the parent */
    kvfs_keeper_free(db->keeper);
    (void)pthread_rwlock_destroy(&db->gate);
    (void)pthread_mutex_destroy(&db->list_lock);
    (void)pthread_mutex_destroy(&db->apply_lock);
    free(db->folder);
    free(db->path);
    free(db);
}

/* --- files ------------------------------------------------------------------------------ */

/* Everything below DIR, which it closes.  Stores are not deeper than DEPTH. */
static void
common_empty(int fd, int depth) // NOLINT(misc-no-recursion): bounded by DEPTH
{
    DIR *dir = fdopendir(fd);
    struct dirent *e;

    if (dir == NULL) {
        (void)close(fd);
        return;
    }
    while ((e = readdir(dir)) != NULL) { // NOLINT(concurrency-mt-unsafe): a stream of our own
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            unlinkat(dirfd(dir), e->d_name, 0) == 0)
            continue;
        fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && depth > 0)
            common_empty(fd, depth - 1);
        else if (fd >= 0)
            (void)close(fd);
        (void)unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
    }
    (void)closedir(dir);
}

void
kvfs_rust_remove(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0) {
        common_empty(fd, 3);
        (void)rmdir(path);
    } else {
        (void)unlink(path);
    }
}

int
kvfs_rust_sync_folder(const char *path, bool all)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

    if (fd < 0)
        return -errno;
    rc = (all ? syncfs(fd) : fsync(fd)) != 0 ? -errno : 0;
    (void)close(fd);
    return rc;
}

void
kvfs_rust_locker(int fd, char *who, size_t len)
{
    FILE *fp = fopen("/proc/locks", "re");
    char line[256], want[64];
    struct stat st;

    (void)snprintf(who, len, "another process");
    if (fp == NULL)
        return;
    if (fstat(fd, &st) == 0) {
        (void)snprintf(want, sizeof(want), " %02x:%02x:%llu ", major(st.st_dev), minor(st.st_dev),
                       (unsigned long long)st.st_ino);
        while (fgets(line, sizeof(line), fp) != NULL) { /* N: FLOCK ADVISORY WRITE pid dev:ino 0 EOF */
            char *p = strstr(line, want);

            if (p == NULL || strstr(line, ": FLOCK") == NULL)
                continue;
            *p = '\0';
            p = strrchr(line, ' ');
            if (p != NULL)
                (void)snprintf(who, len, "process %s", p + 1);
            break;
        }
    }
    (void)fclose(fp);
}

/* --- checks ------------------------------------------------------------------------------- */

/* For kvfs_batch_check(). */
static const struct kvfs_engine_limits common_limits = {
    .value_max_bytes = KVFS_RUST_VALUE_MAX_BYTES,
    .batch_max_bytes = KVFS_RUST_BATCH_MAX_BYTES,
    .batch_max_ops = KVFS_RUST_BATCH_MAX_OPS,
};

int
kvfs_rust_there(struct kvfs_db *db, struct kvfs_error *err)
{
    struct statx st; /* without times: a kernel with fine ones would write the inode once more */

    if (atomic_load(&db->poisoned))
        return kvfs_error_set(err, -EIO, "%s: an earlier batch failed, open the store again",
                              db->path);
    if (statx(db->file_fd, "", AT_EMPTY_PATH, STATX_NLINK, &st) != 0 || st.stx_nlink > 0)
        return 0;
    atomic_store(&db->poisoned, true);
    return kvfs_error_set(err, -EIO, "%s: was removed or replaced while it was in use", db->path);
}

int
kvfs_rust_batch_check(struct kvfs_db *db, const struct kvfs_batch *batch, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc == 0 && db->readonly)
        rc = kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path);
    if (rc == 0)
        rc = kvfs_batch_check(batch, &common_limits, db->path, err);
    return rc != 0 ? rc : kvfs_rust_there(db, err);
}

int
kvfs_rust_key_check(const struct kvfs_db *db, enum kvfs_keyspace keyspace, size_t key_len,
                    struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);
    bool sound = keyspace == KVFS_DATA ? key_len == KVFS_DATA_KEY_LEN
                                       : key_len >= 1 && key_len <= KVFS_META_KEY_MAX;

    if (rc != 0 || sound)
        return rc;
    return kvfs_error_set(err, -EINVAL, "%s: a key of %zu bytes", db->path, key_len);
}

int
kvfs_rust_bounds_check(const struct kvfs_db *db, enum kvfs_keyspace keyspace, size_t lo_len,
                       size_t hi_len, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);
    size_t max = keyspace == KVFS_DATA ? KVFS_DATA_KEY_LEN : KVFS_META_KEY_MAX;

    if (rc != 0)
        return rc;
    if ((keyspace != KVFS_META && keyspace != KVFS_DATA) || lo_len > max || hi_len > max)
        return kvfs_error_set(err, -EINVAL, "%s: no such range", db->path);
    return 0;
}

void
kvfs_rust_need(const struct kvfs_batch *batch, struct kvfs_rust_need *need)
{
    *need = (struct kvfs_rust_need){.puts = 0};
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (op->type == KVFS_OP_PUT) {
            need->puts++;
            need->put_bytes += op->key_len + op->value[0].iov_len + op->value[1].iov_len;
            need->data_puts = need->data_puts || op->keyspace == KVFS_DATA;
        }
        need->dels += op->type == KVFS_OP_DEL || op->type == KVFS_OP_DEL_RANGE;
    }
}
