/* SPDX-License-Identifier: BSD-3-Clause
 *
 * copy.h - what the halves of `kvfs copy` share: moving a tree, and proving it.
 */
#ifndef KVFS_CLI_COPY_H
#define KVFS_CLI_COPY_H

#include <stdio.h>

#include "data.h"
#include "tree.h"

struct copy_link {
    uint64_t src, dst; /* inodes; dst 0: a free place */
};

struct copy_frame; /* one folder on the way down */

struct copy {
    struct cli *c;
    struct kvfs_volume *src, *dst;
    const char *src_path;           /* of what is copied, for errors */
    struct kvfs_snapshot *snapshot; /* of src: contents */
    uint64_t stage;                 /* folder of dst in which the copy is built */

    struct copy_frame *frames;
    size_t frames_count, frames_cap;

    struct copy_link *links; /* hash table: files of several names */
    size_t links_count, links_cap;

    FILE *proofs; /* what each new inode must hold, in a nameless temporary file */

    struct kvfs_file *f; /* being written */
    uint32_t block_size_bytes;
    XXH3_state_t *hash;
    bool single; /* one file: the bar shows positions in it */
    struct cli_progress progress;
    uint64_t files, folders, others, names, bytes;
};

/* --- copy_tree.c ------------------------------------------------------------- */
/* Copy inode SRC_INO of the source, with all below it, to NAME in folder DIR. */
int copy_tree(struct copy *cp, uint64_t src_ino, uint64_t dir, const char *name);
/* Copy what is in folder SRC_INO into folder DIR. */
int copy_children(struct copy *cp, uint64_t src_ino, uint64_t dir);
/* Set the attributes of DST_INO to those of SRC_INO. */
int copy_attributes(struct copy *cp, uint64_t src_ino, uint64_t dst_ino);
void copy_tree_free(struct copy *cp);

/* --- copy_volume.c ----------------------------------------------------------- */
struct copy_volume { /* being made under a temporary name */
    char *target;      /* NULL: none is made */
    char *parent;      /* its folder, */
    int dir;           /* ... open */
    const char *base;  /* its name there */
    char *name, *temp; /* the temporary name, and the path to it; name NULL: it has its own */
    int fd;            /* locked as long as we live */
};

/* Make the volume that shall be TARGET; opened by its path `temp`.  First removes what
 * killed copies to TARGET left.  Call copy_volume_end() in any case. */
int copy_volume_make(struct copy *cp, const char *target, const struct kvfs_format_options *options,
                     struct copy_volume *cv);
/* Give the finished, closed volume its name, durably. */
int copy_volume_name(struct copy *cp, struct copy_volume *cv);
/* Remove it if it has not got its name. */
void copy_volume_end(struct copy_volume *cv);

/* --- copy_proof.c ------------------------------------------------------------ */
/* What is proved of an inode: type, mode, owner, times, size, target, extended
 * attributes, contents, and of a folder the set of its names. */
struct copy_proof {
    uint64_t dst;
    XXH128_hash_t hash;
};

/* Copy the extended attributes of SRC_INO to DST_INO (0: only read them) and sum
 * them up, whatever their order. */
int copy_xattrs(struct copy *cp, struct kvfs_volume *v, uint64_t ino, uint64_t dst_ino,
                uint64_t *sum);
/* Begin the proof of an inode in cp->hash; contents follow by cli_hash_window(). */
void copy_hash_begin(struct copy *cp, const struct kvfs_attr *attr, uint64_t size_bytes,
                     uint64_t xattrs_sum, const char *target, size_t target_len);
/* What the name of an entry adds to its folder's proof. */
uint64_t copy_hash_name(const char *name, size_t len, uint32_t type);
/* End the proof and keep it for later. */
int copy_proof_add(struct copy *cp, uint64_t dst_ino, uint64_t names_sum);
/* Read everything back from the target and compare; -EIO names the first that
 * differs. */
int copy_proof_verify(struct copy *cp);

#endif /* KVFS_CLI_COPY_H */
