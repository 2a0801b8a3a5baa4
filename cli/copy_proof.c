/* SPDX-License-Identifier: BSD-3-Clause
 *
 * copy_proof.c - proving a copy: checksums taken on the way in, and again from
 * what was committed.
 *
 * The checksum is XXH3-128 over the attributes and the contents.  Contents are
 * hashed by chunks that are not all zeros, so holes need not be read and may
 * differ from zeros.  The proofs wait in a temporary file, so memory does not
 * grow with the number of files.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "copy.h"

/* --- extended attributes ------------------------------------------------------- */

struct proof_names {
    char (*list)[KVFS_NAME_MAX + 1];
    size_t count, cap;
};

static int
proof_xattr_name(void *arg, const char *name)
{
    struct proof_names *names = arg;

    if (names->count == names->cap) {
        size_t cap = names->cap == 0 ? 8 : 2 * names->cap;
        void *list = realloc(names->list, cap * sizeof(*names->list));

        if (list == NULL)
            return -ENOMEM;
        names->list = list;
        names->cap = cap;
    }
    (void)snprintf(names->list[names->count++], KVFS_NAME_MAX + 1, "%s", name);
    return 0;
}

int
copy_xattrs(struct copy *cp, struct kvfs_volume *v, uint64_t ino, uint64_t dst_ino, uint64_t *sum)
{
    struct proof_names names = {NULL, 0, 0};
    struct kvfs_error *err = &cp->c->err;
    int rc = kvfs_xattr_list(v, ino, proof_xattr_name, &names, err);
    char *value = NULL;

    *sum = 0;
    if (rc == 0 && names.count > 0) {
        value = malloc(KVFS_XATTR_VALUE_MAX);
        if (value == NULL)
            rc = -ENOMEM;
    }
    if (rc == -ENOMEM)
        (void)kvfs_error_set(err, rc, "no memory");
    for (size_t i = 0; i < names.count && rc == 0; i++) {
        const char *name = names.list[i];
        size_t len;

        rc = kvfs_xattr_get(v, ino, name, value, KVFS_XATTR_VALUE_MAX, &len, err);
        if (rc == -ENODATA) { /* removed since */
            rc = 0;
            continue;
        }
        if (rc == 0)
            *sum += XXH3_64bits_withSeed(value, len, XXH3_64bits(name, strlen(name)));
        if (rc == 0 && dst_ino != 0)
            rc = kvfs_xattr_set(cp->dst, dst_ino, name, value, len, 0, err);
    }
    free(value);
    free(names.list);
    return rc;
}

/* --- hashing --------------------------------------------------------------------- */

void
copy_hash_begin(struct copy *cp, const struct kvfs_attr *attr, uint64_t size_bytes,
                uint64_t xattrs_sum, const char *target, size_t target_len)
{
    const uint64_t facts[] = {
        attr->mode, attr->uid,  attr->gid,  attr->rdev, (uint64_t)attr->mtime_ns,
        size_bytes, xattrs_sum, target_len,
    };

    (void)XXH3_128bits_reset(cp->hash);
    (void)XXH3_128bits_update(cp->hash, facts, sizeof(facts));
    (void)XXH3_128bits_update(cp->hash, target, target_len);
}

uint64_t
copy_hash_name(const char *name, size_t len, uint32_t type)
{
    return XXH3_64bits_withSeed(name, len, type);
}

int
copy_proof_add(struct copy *cp, uint64_t dst_ino, uint64_t names_sum)
{
    struct copy_proof proof = {.dst = dst_ino};

    (void)XXH3_128bits_update(cp->hash, &names_sum, sizeof(names_sum));
    proof.hash = XXH3_128bits_digest(cp->hash);
    if (fwrite(&proof, sizeof(proof), 1, cp->proofs) != 1)
        return kvfs_error_set(&cp->c->err, -errno, "temporary file: %s", strerrordesc_np(errno));
    return 0;
}

/* --- verifying --------------------------------------------------------------------- */

static int
proof_window(void *arg, const void *buf, size_t count, uint64_t offset, struct kvfs_error *err)
{
    struct copy *cp = arg;

    (void)err;
    cli_hash_window(cp->hash, buf, count, offset);
    if (!cp->single)
        cli_progress_update(&cp->progress, cp->progress.done + count, cp->progress.moved + count);
    return 0;
}

static int
proof_folder(struct copy *cp, uint64_t ino, uint64_t *sum)
{
    uint64_t cookie = 0;
    size_t count;
    int rc;

    do {
        struct cli_entries e = {NULL, 0, 0};

        rc = cli_entries_read(&e, cp->dst, ino, cookie, CLI_ENTRIES_MAX, &cp->c->err);
        count = e.count;
        for (size_t i = 0; i < count; i++)
            *sum += copy_hash_name(e.list[i].name, e.list[i].name_len, e.list[i].type);
        if (count > 0)
            cookie = e.list[count - 1].cookie;
        cli_entries_free(&e);
    } while (rc == 0 && count == CLI_ENTRIES_MAX);
    return rc;
}

/* Read inode INO of the target back and hash it as the source was. */
static int
proof_read(struct copy *cp, struct kvfs_snapshot *snapshot, uint64_t ino, XXH128_hash_t *hash)
{
    struct kvfs_error *err = &cp->c->err;
    struct cli_snapshot_source source;
    char target[KVFS_SYMLINK_MAX];
    struct kvfs_attr attr;
    uint64_t xattrs, names = 0, size = 0;
    size_t len = 0;
    int rc = kvfs_getattr(cp->dst, ino, &attr, err);
    uint32_t type = rc < 0 ? 0 : attr.mode & S_IFMT;

    if (rc == 0)
        rc = copy_xattrs(cp, cp->dst, ino, 0, &xattrs);
    if (rc == 0 && type == S_IFLNK)
        rc = kvfs_readlink(cp->dst, ino, target, sizeof(target), &len, err);
    if (rc == 0 && type == S_IFREG) {
        rc = cli_snapshot_source_init(&source, snapshot, ino, err);
        size = source.base.size_bytes;
    }
    if (rc != 0)
        return rc;
    copy_hash_begin(cp, &attr, size, xattrs, target, len);
    if (type == S_IFREG)
        rc = cli_source_walk(&source.base, proof_window, cp, cp->single ? &cp->progress : NULL,
                             err);
    else if (type == S_IFDIR)
        rc = proof_folder(cp, ino, &names);
    (void)XXH3_128bits_update(cp->hash, &names, sizeof(names));
    *hash = XXH3_128bits_digest(cp->hash);
    return rc;
}

int
copy_proof_verify(struct copy *cp)
{
    struct kvfs_snapshot *snapshot;
    struct copy_proof proof;
    int rc = kvfs_snapshot_open(cp->dst, &snapshot, &cp->c->err);

    if (rc < 0)
        return rc;
    if (fseek(cp->proofs, 0, SEEK_SET) != 0)
        rc = kvfs_error_set(&cp->c->err, -EIO, "temporary file: %s", strerrordesc_np(errno));
    while (rc == 0 && fread(&proof, sizeof(proof), 1, cp->proofs) == 1) {
        XXH128_hash_t hash;

        rc = cli_interrupted() ? -EINTR : proof_read(cp, snapshot, proof.dst, &hash);
        if (rc == 0 && !XXH128_isEqual(hash, proof.hash))
            rc = kvfs_error_set(&cp->c->err, -EIO,
                                "inode %" PRIu64 " of the target reads back different from what "
                                "was copied",
                                proof.dst);
    }
    if (rc == 0 && ferror(cp->proofs))
        rc = kvfs_error_set(&cp->c->err, -EIO, "temporary file: %s", strerrordesc_np(errno));
    kvfs_snapshot_close(snapshot);
    return rc;
}
