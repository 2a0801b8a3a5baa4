/* SPDX-License-Identifier: BSD-3-Clause
 *
 * format.c - making volumes, and making them small again.
 *
 * A format that is interrupted leaves no volume: the file `volume`, which makes
 * a folder one, comes last, by rename of `volume.new`, which is there from the
 * start.  A folder with `volume.new` and no `volume` was empty when that format
 * began, so the next one may clear it.  An error (not a crash) leaves the
 * folder as it was found.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "lease.h"
#include "volume_file.h"
#include "volume_priv.h"

struct format {
    const char *path;
    const struct kvfs_engine *engine;
    uint32_t block_size_bytes;
    uint64_t store_max_bytes;
    bool made; /* the folder is ours */
};

static int
format_remove_one(const char *name, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    return ftw->level == 0 ? 0 : remove(name); /* level 0 is the folder itself */
}

/* Remove everything in the folder. */
static int
format_clear(const char *path, struct kvfs_error *err)
{
    // NOLINTNEXTLINE(concurrency-mt-unsafe): only FTW_CHDIR would be
    if (nftw(path, format_remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return kvfs_error_set(err, -errno, "%s: cannot be cleared: %s", path,
                              kvfs_errno_text(errno));
    return 0;
}

enum format_found { FORMAT_EMPTY, FORMAT_HALF, FORMAT_VOLUME, FORMAT_OTHER };

static int
format_look(const char *path, enum format_found *found, struct kvfs_error *err)
{
    DIR *dir = opendir(path);
    const struct dirent *d;
    bool half = false;
    bool volume = false;
    bool other = false;

    if (dir == NULL)
        return kvfs_error_set(err, -errno, "%s: %s", path, kvfs_errno_text(errno));
    while ((d = readdir(dir)) != NULL) { // NOLINT(concurrency-mt-unsafe): its own DIR
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
            strcmp(d->d_name, "lost+found") == 0)
            continue;
        if (strcmp(d->d_name, "volume") == 0)
            volume = true;
        else if (strcmp(d->d_name, "volume.new") == 0)
            half = true;
        else
            other = true;
    }
    (void)closedir(dir);
    if (volume && !kvfs_volume_file_begins(path))
        *found = FORMAT_OTHER; /* the user's own file, or a volume damaged beyond knowing */
    else
        *found = volume  ? FORMAT_VOLUME
                 : half  ? FORMAT_HALF
                 : other ? FORMAT_OTHER
                         : FORMAT_EMPTY;
    return 0;
}

/* Make room for the new volume in a folder that exists. */
static int
format_prepare(const struct format *f, bool force, struct kvfs_error *err)
{
    struct kvfs_lease_table *leases = NULL;
    enum format_found found = FORMAT_OTHER;
    char name[4096];
    char marker[4096];
    int rc = format_look(f->path, &found, err);

    if (rc < 0 || found == FORMAT_EMPTY)
        return rc;
    if (found == FORMAT_OTHER)
        return kvfs_error_set(err, -ENOTEMPTY, "%s: the folder is not empty and is no volume",
                              f->path);
    if (found == FORMAT_HALF)
        return format_clear(f->path, err);
    if (!force)
        return kvfs_error_set(err, -EEXIST, "%s: there is a volume already", f->path);
    rc = kvfs_lease_table_open(f->path, false, true, &leases, err);
    if (rc < 0)
        return rc;
    (void)snprintf(name, sizeof(name), "%s/volume", f->path);
    (void)snprintf(marker, sizeof(marker), "%s/volume.new", f->path);
    if (rename(name, marker) < 0)
        rc = kvfs_error_set(err, -errno, "%s: %s", name, kvfs_errno_text(errno));
    if (rc == 0)
        rc = kvfs_fsync_path(f->path, err);
    if (rc == 0)
        rc = format_clear(f->path, err);
    kvfs_lease_table_close(leases);
    return rc;
}

/* The records of an empty volume. */
static void
format_records(const struct format *f, const struct kvfs_volume_file *file,
               struct kvfs_batch_builder *b)
{
    struct kvfs_super super = {.format_version = KVFS_FORMAT_VERSION,
                               .block_size_bytes = f->block_size_bytes};
    struct kvfs_inode_record root = {.mode = S_IFDIR | 0755, .nlink = 2, .parent = KVFS_ROOT_INO};
    struct kvfs_key key;
    struct timespec now;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;

    memcpy(super.uuid, file->uuid, sizeof(super.uuid));
    memcpy(super.engine, file->engine, sizeof(super.engine));
    kvfs_key_super(&key);
    len = kvfs_super_encode(&super, &key, value);
    kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);

    (void)clock_gettime(CLOCK_REALTIME, &now);
    root.crtime_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    root.atime_ns = root.mtime_ns = root.ctime_ns = root.crtime_ns;
    kvfs_key_inode(&key, KVFS_ROOT_INO);
    len = kvfs_inode_encode(&root, &key, value);
    kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);

    kvfs_key_counter(&key, KVFS_COUNTER_ID);
    len = kvfs_number_encode(16, &key, value);
    kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
    kvfs_key_counter(&key, KVFS_COUNTER_INODES);
    len = kvfs_number_encode(1, &key, value);
    kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
}

static int
format_store(struct format *f, const struct kvfs_volume_file *file, struct kvfs_error *err)
{
    struct kvfs_engine_options eo = {.create = true, .store_max_bytes = f->store_max_bytes};
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_batch batch;
    struct kvfs_engine_limits limits;
    struct kvfs_db *db = NULL;
    int rc = b == NULL ? kvfs_error_set(err, -ENOMEM, "no memory") : 0;

    if (rc == 0)
        rc = f->engine->open(f->engine, f->path, &eo, &db, err);
    if (rc < 0)
        goto out;
    f->engine->limits(db, &limits);
    if (f->block_size_bytes == 0)
        f->block_size_bytes = limits.value_best_bytes;
    if (f->block_size_bytes + KVFS_TRAILER_LEN > limits.value_max_bytes) {
        rc = kvfs_error_set(err, -EINVAL, "engine %s keeps no blocks of %u bytes", f->engine->name,
                            f->block_size_bytes);
        goto out;
    }
    format_records(f, file, b);
    rc = kvfs_batch_end(b, &batch);
    if (rc == 0)
        rc = f->engine->apply(db, &batch, KVFS_DURABLE, err);
out:
    if (db != NULL)
        f->engine->close(db);
    kvfs_batch_free(b);
    return rc;
}

static int
format_sync_one(const char *name, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    return flag == FTW_F || flag == FTW_D || flag == FTW_DP ? kvfs_fsync_path(name, NULL) : 0;
}

/* Everything below the folder, the folder, and the name of the folder. */
static int
format_sync(const struct format *f, struct kvfs_error *err)
{
    char *copy;
    int rc;

    // NOLINTNEXTLINE(concurrency-mt-unsafe): only FTW_CHDIR would be
    if (nftw(f->path, format_sync_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return kvfs_error_set(err, -EIO, "%s: cannot be synced", f->path);
    copy = strdup(f->path);
    if (copy == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    rc = kvfs_fsync_path(dirname(copy), err); // NOLINT(concurrency-mt-unsafe): on a copy
    free(copy);
    return rc;
}

static int
format_make(struct format *f, struct kvfs_error *err)
{
    struct kvfs_volume_file file = {.format_version = KVFS_FORMAT_VERSION};
    char name[4096];
    int fd;
    int rc;

    if (getrandom(file.uuid, sizeof(file.uuid), 0) != sizeof(file.uuid))
        return kvfs_error_set(err, -EIO, "no random numbers: %s", kvfs_errno_text(errno));
    file.uuid[6] = (uint8_t)((file.uuid[6] & 0x0f) | 0x40); /* a random UUID, RFC 4122 */
    file.uuid[8] = (uint8_t)((file.uuid[8] & 0x3f) | 0x80);
    if (kvfs_volume_file_engine_set(&file, f->engine->name) != 0)
        return kvfs_error_set(err, -EINVAL, "the engine's name is too long");
    (void)snprintf(name, sizeof(name), "%s/volume.new", f->path);
    fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", name, kvfs_errno_text(errno));
    (void)close(fd);
    (void)snprintf(name, sizeof(name), "%s/lock", f->path);
    fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", name, kvfs_errno_text(errno));
    (void)close(fd);
    rc = format_store(f, &file, err);
    if (rc == 0)
        rc = format_sync(f, err);
    if (rc == 0)
        rc = kvfs_volume_file_write(f->path, &file, err);
    return rc;
}

/* An engine from a file: the volume will remember its name, nothing else. */
static int
format_engine_load(const char *wanted, struct format *f, struct kvfs_error *err)
{
    const struct kvfs_engine *named;
    struct kvfs_error why = {0};
    int rc = kvfs_engine_find(wanted, &f->engine, err);

    if (rc < 0 || strchr(wanted, '/') == NULL)
        return rc;
    rc = strchr(f->engine->name, '/') != NULL ? kvfs_error_set(&why, -EINVAL, "its name is a path")
                                              : kvfs_engine_find(f->engine->name, &named, &why);
    if (rc < 0)
        return kvfs_error_set(err, rc, "%s: must lie where its name finds it: %s",
                              wanted, why.msg);
    return 0;
}

/* What is made if nothing is asked for: a log before the first engine that keeps anything. */
static int
format_engine_logged(const struct kvfs_engine *engine, const struct kvfs_engine **loggedp,
                     struct kvfs_error *err)
{
    char name[128];

    (void)snprintf(name, sizeof(name), KVFS_LOG_PREFIX "%s", engine->name);
    return kvfs_engine_find(name, loggedp, err);
}

static int
format_engine(const struct kvfs_format_options *o, struct format *f, struct kvfs_error *err)
{
    uint32_t bs = o->block_size_bytes;

    if (bs != 0 &&
        (bs < KVFS_BLOCK_SIZE_MIN || bs > KVFS_BLOCK_SIZE_MAX || (bs & (bs - 1)) != 0))
        return kvfs_error_set(err, -EINVAL, "block size %u is not a power of two from %u to %u", bs,
                              KVFS_BLOCK_SIZE_MIN, KVFS_BLOCK_SIZE_MAX);
    f->block_size_bytes = bs;
    f->store_max_bytes = o->store_max_bytes;
    if (o->engine != NULL)
        return format_engine_load(o->engine, f, err);
    for (size_t i = 0; (f->engine = kvfs_engine_at(i)) != NULL; i++) {
        if ((f->engine->caps & KVFS_CAP_PERSISTENT) != 0)
            return format_engine_logged(f->engine, &f->engine, err);
    }
    return kvfs_error_set(err, -ENOENT, "no engine that outlives its process is built in");
}

/* The folder, which exists, by its real name: nftw does not look behind a link. */
static int
format_folder(struct format *f, bool force, struct kvfs_error *err)
{
    char *full = realpath(f->path, NULL);
    const char *given = f->path;
    int rc = 0;

    if (full == NULL)
        return kvfs_error_set(err, -errno, "%s: %s", f->path, kvfs_errno_text(errno));
    f->path = full;
    if (!force)
        rc = kvfs_local_check(f->path, err);
    if (rc == 0 && !f->made)
        rc = format_prepare(f, force, err);
    if (rc == 0) {
        rc = format_make(f, err);
        if (rc < 0)
            (void)format_clear(f->path, NULL);
    }
    f->path = given;
    free(full);
    return rc;
}

int
kvfs_format(const char *path, const struct kvfs_format_options *options, struct kvfs_error *err)
{
    static const struct kvfs_format_options defaults;
    const struct kvfs_format_options *o = options != NULL ? options : &defaults;
    struct format f = {.path = path};
    int rc = format_engine(o, &f, err);

    if (rc < 0 || f.engine == NULL)
        return rc;
    if (strlen(path) > 4000)
        return kvfs_error_set(err, -ENAMETOOLONG, "%.128s...: the path is too long", path);
    if (mkdir(path, 0777) == 0)
        f.made = true;
    else if (errno != EEXIST)
        return kvfs_error_set(err, -errno, "%s: %s", path, kvfs_errno_text(errno));
    rc = format_folder(&f, o->force, err);
    if (rc < 0 && f.made)
        (void)rmdir(path);
    return rc;
}

/* Is it a volume that this version may rewrite?  Opening answers that. */
static int
compact_judge(const char *path, unsigned flags, struct kvfs_error *err)
{
    const struct kvfs_volume_options options = {
        .readonly = true,
        .force = (flags & KVFS_COMPACT_FORCE) != 0,
    };
    struct kvfs_volume *v;
    int rc = kvfs_volume_open(path, &options, &v, err);

    return rc < 0 ? rc : kvfs_volume_close(v, err);
}

int
kvfs_volume_compact(const char *path, unsigned flags, uint64_t *need_bytes,
                    kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err)
{
    struct kvfs_lease_table *leases = NULL;
    const struct kvfs_engine *engine = NULL;
    struct kvfs_volume_file file;
    char name[KVFS_ENGINE_NAME_CAP];
    const bool dry = (flags & KVFS_COMPACT_DRY_RUN) != 0;
    struct statvfs fs;
    uint64_t need = 0;
    int rc = kvfs_volume_file_read(path, &file, err);

    if (rc != 0)
        return rc;
    kvfs_volume_file_engine(&file, name);
    rc = kvfs_engine_find(name, &engine, err);
    if (rc != 0)
        return rc;
    if (engine->compact == NULL)
        return kvfs_error_set(err, -ENOTSUP, "%s: engine %s cannot be compacted", path,
                              engine->name);
    rc = compact_judge(path, flags, err);
    if (rc == 0) /* who only asks reads, beside others too */
        rc = kvfs_volume_file_lock(path, &file, dry, &leases, err);
    if (rc < 0)
        return rc;
    rc = engine->compact_need_bytes(engine, path, &need, err);
    if (rc == 0 && need_bytes != NULL)
        *need_bytes = need;
    if (rc == 0 && !dry) {
        if (statvfs(path, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < need)
            rc = kvfs_error_set(err, -ENOSPC, "%s: compacting needs %llu bytes free, there are %llu",
                                path, (unsigned long long)need,
                                (unsigned long long)fs.f_bavail * fs.f_frsize);
        else
            rc = engine->compact(engine, path, progress, progress_arg, err);
    }
    kvfs_lease_table_close(leases);
    return rc;
}
