/* SPDX-License-Identifier: BSD-3-Clause
 *
 * names.h - what the files about names and attributes share (dir.c, unlink.c,
 * rename.c, readdir.c, path.c, xattr.c).  Private to kvfs/.
 */
#ifndef KVFS_NAMES_H
#define KVFS_NAMES_H

#include <sys/stat.h>

#include <kvfs/dir.h>

#include "volume_priv.h"

#define KVFS_NLINK_MAX 0x7fffffffu

/* --- reading, at one snapshot ---------------------------------------------- */

/* A name made fit for an error message: control bytes escaped, long ones cut. */
struct kvfs_shown {
    char text[100];
};
const char *kvfs_name_show(struct kvfs_shown *s, const char *name, size_t len);

/* The length of NAME, judged as the name of a new entry or of an old one.
 * -EINVAL (empty, a slash, "." or ".."), -ENAMETOOLONG. */
int kvfs_name_check(const char *name, size_t *len, struct kvfs_error *err);

/* As the engine's begin; refuses on a handle that is not usable. */
int kvfs_names_begin(struct kvfs_volume *v, struct kvfs_db_snap **snapp, struct kvfs_error *err);

/* -ENOENT (ERR says so), -EIO. */
int kvfs_inode_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
                    struct kvfs_inode_record *rec, struct kvfs_error *err);

/* The inode of a folder: also -ENOTDIR. */
int kvfs_folder_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
                     struct kvfs_inode_record *rec, struct kvfs_error *err);

/* -ENOENT, -EIO.  DIR is not looked at. */
int kvfs_dentry_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t dir,
                     const char *name, size_t name_len, struct kvfs_dentry_record *rec,
                     struct kvfs_error *err);

/* All attributes of an inode, those of its contents merged in.  -ENOENT, -EIO. */
int kvfs_attr_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
                   struct kvfs_attr *attr, struct kvfs_error *err);

/* Copy a link's target into TARGET (KVFS_SYMLINK_MAX + 1 bytes, NUL-terminated). */
int kvfs_target_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino, char *target,
                     size_t *len, struct kvfs_error *err);

/* --- changing ------------------------------------------------------------------ */

/* An inode that a change has looked at: the batch expects it unchanged. */
struct kvfs_change_inode {
    uint64_t ino;
    struct kvfs_inode_record rec; /* as it shall be; mtime is the file's true one */
    bool changed;                 /* put REC */
    bool removed;                 /* the batch removes it otherwise */
    size_t raw_len;
    uint8_t raw[KVFS_SMALL_RECORD_MAX]; /* as it was read */
};

#define KVFS_CHANGE_INODES 4 /* a rename: two folders, what moves, what it replaces */

/* One try of a change: read through SNAP, collected in B. */
struct kvfs_change {
    struct kvfs_volume *v;
    struct kvfs_db_snap *snap;
    struct kvfs_batch_builder *b;
    struct kvfs_error *err;
    int64_t now_ns;
    int64_t inodes_delta; /* inodes that gain their first name less those that lose their last */
    bool folder_moves;    /* a folder gets another parent */
    uint64_t unlinking;   /* kvfs_node_unlink_prepare() was called for; 0: none */
    bool leased;          /* refused, because another process holds a file's lease */
    bool work;            /* leaves work to the background */
    unsigned inodes_count;
    struct kvfs_change_inode inodes[KVFS_CHANGE_INODES];
};

/* Fill C for one try; a negative errno ends the change. */
typedef int kvfs_change_fn(struct kvfs_change *c, void *arg);

/* Run FN and apply what it collected (nothing: fine), again as long as others
 * change the same records.  What FN answers, or as kvfs_volume_apply(); -EBUSY
 * after KVFS_CHANGE_TRIES tries in vain.  A lease that is in the way may be that
 * of another process that is just removing the same file, so it is tried again
 * for about KVFS_CHANGE_LEASE_TRIES ms. */
#define KVFS_CHANGE_TRIES       1000
#define KVFS_CHANGE_LEASE_TRIES 50
int kvfs_change_run(struct kvfs_volume *v, kvfs_change_fn *fn, void *arg, struct kvfs_error *err);

/* Read an inode to be changed, or to be guarded; the same one again gives the
 * same object.  -ENOENT, -EIO. */
int kvfs_change_inode(struct kvfs_change *c, uint64_t ino, struct kvfs_change_inode **inodep);
int kvfs_change_folder(struct kvfs_change *c, uint64_t ino, struct kvfs_change_inode **inodep);

/* Read an entry and the inode that it names.  -ENOENT (no such entry), -EIO. */
int kvfs_change_entry(struct kvfs_change *c, uint64_t dir, const char *name, size_t name_len,
                      struct kvfs_dentry_record *dentry, struct kvfs_change_inode **inodep);

/* The inode has changed now; MTIME: so have the entries of the folder. */
void kvfs_change_touch(struct kvfs_change *c, struct kvfs_change_inode *inode, bool mtime);

/* Put or delete a name, with its cookie.  OLD: what was there, expected still to
 * be; NULL: expect nothing there. */
void kvfs_change_dentry_put(struct kvfs_change *c, uint64_t dir, const char *name, size_t name_len,
                            const struct kvfs_dentry_record *old,
                            const struct kvfs_dentry_record *new);
void kvfs_change_dentry_del(struct kvfs_change *c, uint64_t dir, const char *name, size_t name_len,
                            const struct kvfs_dentry_record *old);

/* One name less for what is no folder; without names it is removed or becomes
 * an orphan (unlink.c).  -EBUSY, -EIO. */
int kvfs_change_unlink(struct kvfs_change *c, struct kvfs_change_inode *inode);
/* Remove an empty folder that PARENT loses.  -ENOTEMPTY, -EIO. */
int kvfs_change_rmdir(struct kvfs_change *c, struct kvfs_change_inode *folder,
                      struct kvfs_change_inode *parent);

#endif /* KVFS_NAMES_H */
