/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dir.h - names, folders, links and attributes.
 *
 * Changes of names are applied to the engine at once (never held back in
 * memory), ordered; kvfs_volume_sync() makes them durable.  Rules are POSIX's
 * where this page is silent.  Names are 1..KVFS_NAME_MAX bytes, any but '/'
 * and NUL; "." and ".." are refused as names of new entries.
 *
 * Threads: any.  Other processes may change names at the same time.
 * Every function may also answer -EIO (damage, poisoned), -ENOMEM; those that
 * change something -EROFS (readonly) and -ENOSPC.
 */
#ifndef KVFS_DIR_H
#define KVFS_DIR_H

#include <kvfs/volume.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVFS_ROOT_INO 1
#define KVFS_SYMLINK_MAX 4095     /* bytes of a link's target */
#define KVFS_XATTR_VALUE_MAX 65536

struct kvfs_attr {
    uint64_t ino;
    uint32_t mode; /* type and permissions, as st_mode */
    uint32_t uid, gid;
    uint32_t nlink;
    uint64_t rdev;
    uint64_t size_bytes; /* of a file, of a link's target; entries of a folder are not counted: 0 */
    uint32_t block_size_bytes;
    int64_t atime_ns, mtime_ns, ctime_ns, crtime_ns; /* since 1970 */
    uint64_t version;   /* of a file's contents: see txn.h */
};

/* One entry by name.  -ENOENT, -ENOTDIR, -ENAMETOOLONG, -EINVAL (a bad name). */
int kvfs_lookup(struct kvfs_volume *v, uint64_t dir, const char *name, struct kvfs_attr *attr,
                struct kvfs_error *err);

/* One inode by number.  -ENOENT. */
int kvfs_getattr(struct kvfs_volume *v, uint64_t ino, struct kvfs_attr *attr,
                 struct kvfs_error *err);

/* Resolve PATH from the root: parts between slashes, empty ones and "."
 * skipped, ".." understood, links followed (the last one only with FOLLOW;
 * more than 40: -ELOOP). */
int kvfs_path_lookup(struct kvfs_volume *v, const char *path, bool follow, struct kvfs_attr *attr,
                     struct kvfs_error *err);

/* Resolve all but the last part: the folder's number and the last name (copied;
 * 256 bytes).  -EINVAL if there is no last part. */
int kvfs_path_parent(struct kvfs_volume *v, const char *path, uint64_t *dir, char *name,
                     struct kvfs_error *err);

struct kvfs_create {
    uint32_t mode;  /* type and permissions: S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, ... */
    uint32_t uid, gid;
    uint64_t rdev;
    uint64_t size_bytes;        /* S_IFREG: a hole of that size */
    uint32_t block_size_bytes;  /* S_IFREG: 0: the volume's default */
    const char *target;         /* S_IFLNK */
};

/* Make a file, folder, link or special file; ATTR may be NULL.
 * -EEXIST, -ENOENT (the folder), -ENOTDIR, -EINVAL, -EFBIG, -ENAMETOOLONG. */
int kvfs_create(struct kvfs_volume *v, uint64_t dir, const char *name,
                const struct kvfs_create *create, struct kvfs_attr *attr, struct kvfs_error *err);

/* Hard link.  -EPERM (a folder), -EEXIST, -EMLINK. */
int kvfs_link(struct kvfs_volume *v, uint64_t ino, uint64_t dir, const char *name,
              struct kvfs_error *err);

/* Remove a name that is no folder.  The last name of a file that is open in
 * this process makes it an orphan, reclaimed at the last close; -EBUSY if
 * another process holds its lease (ERR names it).  -EISDIR. */
int kvfs_unlink(struct kvfs_volume *v, uint64_t dir, const char *name, struct kvfs_error *err);

/* Remove an empty folder.  -ENOTEMPTY, -ENOTDIR, -EBUSY (the root). */
int kvfs_rmdir(struct kvfs_volume *v, uint64_t dir, const char *name, struct kvfs_error *err);

enum { KVFS_RENAME_NOREPLACE = 1u << 0, KVFS_RENAME_EXCHANGE = 1u << 1 };

/* Rename as rename(2), FLAGS as renameat2(2).  -EINVAL also for a folder moved
 * below itself. */
int kvfs_rename(struct kvfs_volume *v, uint64_t old_dir, const char *old_name, uint64_t new_dir,
                const char *new_name, unsigned flags, struct kvfs_error *err);

/* Read a link's target: *len bytes, no NUL added; at most CAP are copied. */
int kvfs_readlink(struct kvfs_volume *v, uint64_t ino, char *buf, size_t cap, size_t *len,
                  struct kvfs_error *err);

enum {
    KVFS_SET_MODE = 1u << 0, /* permission bits only */
    KVFS_SET_UID = 1u << 1,
    KVFS_SET_GID = 1u << 2,
    KVFS_SET_ATIME = 1u << 3,
    KVFS_SET_MTIME = 1u << 4,
};
/* Set the attributes named by MASK; ctime follows. */
int kvfs_setattr(struct kvfs_volume *v, uint64_t ino, unsigned mask, const struct kvfs_attr *attr,
                 struct kvfs_error *err);

struct kvfs_dirent {
    uint64_t ino;
    uint64_t cookie; /* pass to kvfs_readdir() to go on behind this entry; > 2 */
    uint32_t type;   /* S_IFMT part of the mode */
    const char *name; /* NUL-terminated, valid during the call */
    size_t name_len;
};

/* Call FN for each entry behind COOKIE (0: from the start), "." and ".." left
 * out.  Entries that exist during the whole walk are seen exactly once, however
 * the folder changes meanwhile, also over several calls.  A non-zero return of
 * FN stops the walk and is returned. */
int kvfs_readdir(struct kvfs_volume *v, uint64_t dir, uint64_t cookie,
                 int (*fn)(void *arg, const struct kvfs_dirent *entry), void *arg,
                 struct kvfs_error *err);

/* Extended attributes.  Names as file names; FLAGS as setxattr(2) (1: create,
 * 2: replace).  -ENODATA, -EEXIST, -E2BIG. */
int kvfs_xattr_set(struct kvfs_volume *v, uint64_t ino, const char *name, const void *value,
                   size_t len, int flags, struct kvfs_error *err);
/* *len becomes the whole length; at most CAP bytes are copied. */
int kvfs_xattr_get(struct kvfs_volume *v, uint64_t ino, const char *name, void *buf, size_t cap,
                   size_t *len, struct kvfs_error *err);
int kvfs_xattr_list(struct kvfs_volume *v, uint64_t ino, int (*fn)(void *arg, const char *name),
                    void *arg, struct kvfs_error *err);
int kvfs_xattr_remove(struct kvfs_volume *v, uint64_t ino, const char *name,
                      struct kvfs_error *err);

#ifdef __cplusplus
}
#endif

#endif /* KVFS_DIR_H */
