/* SPDX-License-Identifier: BSD-3-Clause
 *
 * names.c - reading names and attributes, and changing them safely.
 *
 * A change of names never waits in memory.  It is one batch, worked out on a
 * snapshot and applied at once:
 *
 *  1. The batch expects every inode record that it was worked out on, and every
 *     directory entry that it replaces, exactly as it was read.  If anybody, in
 *     this process or another, was faster, nothing is changed and the change is
 *     worked out anew (kvfs_change_run).
 *  2. Every change of a folder's entries, and of an inode's attributes, moves
 *     that inode's ctime strictly forward (kvfs_change_touch).  So its record
 *     never takes the same bytes twice, and to expect a folder's inode is to
 *     expect the folder as a whole: a create and an rmdir of its folder meet here.
 *  3. A folder that gets another parent moves the counter "moves" on.  Two such
 *     renames, each harmless, could together cut a loop off the tree; the
 *     counter lets only one of them pass.
 *  4. Within one process v->names keeps changes apart, so only other processes
 *     can make a change run again.
 *
 * Time of the last write.  Who holds the lease writes the contents record (size,
 * mtime), names and attributes are in the inode record.  A contents record that
 * is newer than the inode's ctime tells mtime and ctime; else the inode does.
 * Whoever rewrites an inode therefore folds the true mtime into it first.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "names.h"

/* --- reading --- */

const char *
kvfs_name_show(struct kvfs_shown *s, const char *name, size_t len)
{
    size_t at = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned char ch = (unsigned char)name[i];

        if (at + 8 > sizeof(s->text)) {
            memcpy(s->text + at, "...", 4);
            return s->text;
        }
        if (ch < ' ' || ch == 0x7f || ch == '\\')
            at += (size_t)snprintf(s->text + at, 5, "\\x%02x", ch);
        else
            s->text[at++] = (char)ch;
    }
    s->text[at] = '\0';
    return s->text;
}

int
kvfs_name_check(const char *name, size_t *len, struct kvfs_error *err)
{
    size_t n = strlen(name);
    struct kvfs_shown shown;

    if (n > KVFS_NAME_MAX)
        return kvfs_error_set(err, -ENAMETOOLONG, "a name of %zu bytes; the longest is %d", n,
                              KVFS_NAME_MAX);
    if (!kvfs_name_valid(name, n) || kvfs_name_is_dots(name, n))
        return kvfs_error_set(err, -EINVAL, "'%s' is no name of an entry",
                              kvfs_name_show(&shown, name, n));
    *len = n;
    return 0;
}

int
kvfs_names_begin(struct kvfs_volume *v, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    int rc = kvfs_volume_usable(v, err);

    return rc != 0 ? rc : v->engine->begin(v->db, snapp, err);
}

/* The record of inode INO as it is, decoded and raw. */
static int
inode_read_raw(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
               struct kvfs_inode_record *rec, uint8_t raw[KVFS_SMALL_RECORD_MAX], size_t *raw_len,
               struct kvfs_error *err)
{
    struct kvfs_key key;
    int rc;

    kvfs_key_inode(&key, ino);
    rc = kvfs_meta_get(v, snap, &key, raw, KVFS_SMALL_RECORD_MAX, raw_len, err);
    if (rc == -ENOENT)
        return kvfs_error_set(err, -ENOENT, "there is no inode %llu", (unsigned long long)ino);
    if (rc == 0) {
        rc = kvfs_inode_decode(rec, &key, raw, *raw_len);
        if (rc != 0)
            return kvfs_error_set(err, -EIO, "the record of inode %llu is damaged",
                                  (unsigned long long)ino);
    }
    return rc;
}

int
kvfs_inode_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
                struct kvfs_inode_record *rec, struct kvfs_error *err)
{
    uint8_t raw[KVFS_SMALL_RECORD_MAX];
    size_t raw_len;

    return inode_read_raw(v, snap, ino, rec, raw, &raw_len, err);
}

static int
folder_judge(uint64_t ino, const struct kvfs_inode_record *rec, struct kvfs_error *err)
{
    if (S_ISDIR(rec->mode))
        return 0;
    return kvfs_error_set(err, -ENOTDIR, "inode %llu is no folder", (unsigned long long)ino);
}

int
kvfs_folder_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
                 struct kvfs_inode_record *rec, struct kvfs_error *err)
{
    int rc = kvfs_inode_read(v, snap, ino, rec, err);

    return rc == 0 ? folder_judge(ino, rec, err) : rc;
}

int
kvfs_dentry_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t dir, const char *name,
                 size_t name_len, struct kvfs_dentry_record *rec, struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_shown shown;
    struct kvfs_key key;
    size_t len;
    int rc;

    kvfs_key_dentry(&key, dir, name, name_len);
    rc = kvfs_meta_get(v, snap, &key, value, sizeof(value), &len, err);
    if (rc == -ENOENT)
        return kvfs_error_set(err, -ENOENT, "'%s': no such entry",
                              kvfs_name_show(&shown, name, name_len));
    if (rc == 0) {
        rc = kvfs_dentry_decode(rec, &key, value, len);
        if (rc != 0)
            return kvfs_error_set(err, -EIO, "'%s' in folder %llu: the entry is damaged",
                                  kvfs_name_show(&shown, name, name_len), (unsigned long long)dir);
    }
    return rc;
}

/* The newest known contents of a regular file. */
static int
contents_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
              struct kvfs_contents_record *rec, struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;
    size_t len;
    int rc;

    if (kvfs_node_contents(v, ino, rec))
        return 0;
    kvfs_key_contents(&key, ino);
    rc = kvfs_meta_get(v, snap, &key, value, sizeof(value), &len, err);
    if (rc == 0)
        rc = kvfs_contents_decode(rec, &key, value, len) == 0 ? 0 : -EIO;
    else if (rc != -ENOENT)
        return rc;
    if (rc != 0)
        return kvfs_error_set(err, -EIO, "the record of file %llu's contents is %s",
                              (unsigned long long)ino, rc == -ENOENT ? "missing" : "damaged");
    return 0;
}

/* The later of two records of time: see the top. */
static void
times_fold(struct kvfs_inode_record *rec, const struct kvfs_contents_record *contents)
{
    if (contents->mtime_ns > rec->ctime_ns)
        rec->mtime_ns = rec->ctime_ns = contents->mtime_ns;
}

int
kvfs_target_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino, char *target,
                 size_t *len, struct kvfs_error *err)
{
    uint8_t value[KVFS_SYMLINK_MAX + 16];
    const void *bytes;
    struct kvfs_key key;
    size_t value_len;
    int rc;

    kvfs_key_symlink(&key, ino);
    rc = kvfs_meta_get(v, snap, &key, value, sizeof(value), &value_len, err);
    if (rc == 0)
        rc = kvfs_bytes_decode(&bytes, len, &key, value, value_len) == 0 ? 0 : -EIO;
    else if (rc != -ENOENT)
        return rc;
    if (rc != 0)
        return kvfs_error_set(err, -EIO, "the target of link %llu is %s", (unsigned long long)ino,
                              rc == -ENOENT ? "missing" : "damaged");
    memcpy(target, bytes, *len);
    target[*len] = '\0';
    return 0;
}

int
kvfs_attr_read(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
               struct kvfs_attr *attr, struct kvfs_error *err)
{
    struct kvfs_contents_record contents = {0};
    struct kvfs_inode_record rec = {0};
    char target[KVFS_SYMLINK_MAX + 1];
    size_t target_len = 0;
    int rc = kvfs_inode_read(v, snap, ino, &rec, err);

    if (rc == 0 && S_ISREG(rec.mode)) {
        rc = contents_read(v, snap, ino, &contents, err);
        if (rc == 0)
            times_fold(&rec, &contents);
    } else if (rc == 0 && S_ISLNK(rec.mode)) {
        rc = kvfs_target_read(v, snap, ino, target, &target_len, err);
        if (rc == 0)
            contents.size_bytes = target_len;
    }
    if (rc != 0)
        return rc;
    *attr = (struct kvfs_attr){
        .ino = ino,
        .mode = rec.mode,
        .uid = rec.uid,
        .gid = rec.gid,
        .nlink = rec.nlink,
        .rdev = rec.rdev,
        .size_bytes = contents.size_bytes,
        .block_size_bytes = rec.block_size_bytes,
        .atime_ns = rec.atime_ns,
        .mtime_ns = rec.mtime_ns,
        .ctime_ns = rec.ctime_ns,
        .crtime_ns = rec.crtime_ns,
        .version = contents.version,
    };
    return 0;
}

/* --- changing --- */

int
kvfs_change_inode(struct kvfs_change *c, uint64_t ino, struct kvfs_change_inode **inodep)
{
    struct kvfs_change_inode *i;
    struct kvfs_contents_record contents;
    int rc;

    for (unsigned n = 0; n < c->inodes_count; n++) {
        if (c->inodes[n].ino == ino) {
            *inodep = &c->inodes[n];
            return 0;
        }
    }
    i = &c->inodes[c->inodes_count];
    i->ino = ino;
    i->changed = i->removed = false;
    rc = inode_read_raw(c->v, c->snap, ino, &i->rec, i->raw, &i->raw_len, c->err);
    if (rc == 0 && S_ISREG(i->rec.mode)) {
        rc = contents_read(c->v, c->snap, ino, &contents, c->err);
        if (rc == 0)
            times_fold(&i->rec, &contents);
    }
    if (rc == 0) {
        c->inodes_count++;
        *inodep = i;
    }
    return rc;
}

int
kvfs_change_folder(struct kvfs_change *c, uint64_t ino, struct kvfs_change_inode **inodep)
{
    struct kvfs_change_inode *i;
    int rc = kvfs_change_inode(c, ino, &i);

    if (rc == 0)
        rc = folder_judge(ino, &i->rec, c->err);
    if (rc == 0)
        *inodep = i;
    return rc;
}

int
kvfs_change_entry(struct kvfs_change *c, uint64_t dir, const char *name, size_t name_len,
                  struct kvfs_dentry_record *dentry, struct kvfs_change_inode **inodep)
{
    struct kvfs_dentry_record found = {0};
    struct kvfs_shown shown;
    int rc = kvfs_dentry_read(c->v, c->snap, dir, name, name_len, &found, c->err);

    if (rc != 0)
        return rc;
    rc = kvfs_change_inode(c, found.ino, inodep);
    if (rc == -ENOENT) /* of one snapshot, so not a race */
        return kvfs_error_set(c->err, -EIO, "'%s' names inode %llu, which is missing",
                              kvfs_name_show(&shown, name, name_len),
                              (unsigned long long)found.ino);
    if (rc == 0)
        *dentry = found;
    return rc;
}

void
kvfs_change_touch(struct kvfs_change *c, struct kvfs_change_inode *inode, bool mtime)
{
    int64_t now = c->now_ns;

    if (now <= inode->rec.ctime_ns && inode->rec.ctime_ns < INT64_MAX)
        now = inode->rec.ctime_ns + 1; /* forward, even where the clock went back */
    inode->rec.ctime_ns = now;
    if (mtime)
        inode->rec.mtime_ns = now;
    inode->changed = true;
}

static void
change_dentry_expect(struct kvfs_change *c, const struct kvfs_key *key,
                     const struct kvfs_dentry_record *old)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];

    if (old == NULL)
        kvfs_batch_expect_absent(c->b, KVFS_META, key->bytes, key->len);
    else
        kvfs_batch_expect(c->b, KVFS_META, key->bytes, key->len, value,
                          kvfs_dentry_encode(old, key, value));
}

void
kvfs_change_dentry_put(struct kvfs_change *c, uint64_t dir, const char *name, size_t name_len,
                       const struct kvfs_dentry_record *old, const struct kvfs_dentry_record *new)
{
    uint8_t value[KVFS_NAME_MAX + 16 > KVFS_SMALL_RECORD_MAX ? KVFS_NAME_MAX + 16
                                                             : KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;

    kvfs_key_dentry(&key, dir, name, name_len);
    change_dentry_expect(c, &key, old);
    kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, value,
                   kvfs_dentry_encode(new, &key, value));
    if (old != NULL && old->cookie == new->cookie)
        return;
    kvfs_key_cookie(&key, dir, new->cookie);
    kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, value,
                   kvfs_bytes_encode(name, name_len, &key, value));
}

void
kvfs_change_dentry_del(struct kvfs_change *c, uint64_t dir, const char *name, size_t name_len,
                       const struct kvfs_dentry_record *old)
{
    struct kvfs_key key;

    kvfs_key_dentry(&key, dir, name, name_len);
    change_dentry_expect(c, &key, old);
    kvfs_batch_del(c->b, KVFS_META, key.bytes, key.len);
    kvfs_key_cookie(&key, dir, old->cookie);
    kvfs_batch_del(c->b, KVFS_META, key.bytes, key.len);
}

/* Add DELTA to a counter.  One that is not there counts as 0. */
static int
change_counter(struct kvfs_change *c, uint8_t which, int64_t delta)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;
    uint64_t n = 0;
    size_t len;
    int rc;

    kvfs_key_counter(&key, which);
    rc = kvfs_meta_get(c->v, c->snap, &key, value, sizeof(value), &len, c->err);
    if (rc == -ENOENT) {
        kvfs_batch_expect_absent(c->b, KVFS_META, key.bytes, key.len);
    } else if (rc != 0) {
        return rc;
    } else {
        if (kvfs_number_decode(&n, &key, value, len) != 0)
            return kvfs_error_set(c->err, -EIO, "counter %u is damaged", which);
        kvfs_batch_expect(c->b, KVFS_META, key.bytes, key.len, value, len);
    }
    if (delta < 0 && n < (uint64_t)-delta)
        n = 0; /* a wrong count is for `check` to mend; it must not stop a deletion */
    else
        n += (uint64_t)delta;
    kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, value, kvfs_number_encode(n, &key, value));
    return 0;
}

/* Add what every change ends in: inodes and counters. */
static int
change_finish(struct kvfs_change *c)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;
    int rc = 0;

    for (unsigned n = 0; n < c->inodes_count; n++) {
        const struct kvfs_change_inode *i = &c->inodes[n];

        kvfs_key_inode(&key, i->ino);
        kvfs_batch_expect(c->b, KVFS_META, key.bytes, key.len, i->raw, i->raw_len);
        if (i->changed && !i->removed)
            kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, value,
                           kvfs_inode_encode(&i->rec, &key, value));
    }
    if (c->inodes_delta != 0)
        rc = change_counter(c, KVFS_COUNTER_INODES, c->inodes_delta);
    if (rc == 0 && c->folder_moves)
        rc = change_counter(c, KVFS_COUNTER_MOVES, 1);
    return rc;
}

static bool
change_is_empty(const struct kvfs_change *c)
{
    for (unsigned n = 0; n < c->inodes_count; n++) {
        if (c->inodes[n].changed)
            return false;
    }
    return kvfs_batch_ops(c->b) == 0;
}

static int64_t
change_now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int
change_try(struct kvfs_change *c, kvfs_change_fn *fn, void *arg)
{
    bool empty;
    int rc;

    c->now_ns = change_now_ns();
    c->inodes_delta = 0;
    c->folder_moves = c->leased = c->work = false;
    c->unlinking = 0;
    c->inodes_count = 0;
    kvfs_batch_reset(c->b);
    rc = kvfs_names_begin(c->v, &c->snap, c->err);
    if (rc != 0)
        return rc;
    rc = fn(c, arg);
    empty = change_is_empty(c);
    if (rc == 0 && !empty)
        rc = change_finish(c);
    c->v->engine->end(c->snap); /* before the write: an old reader keeps pages from reuse */
    if (rc == 0 && !empty)
        rc = kvfs_volume_apply(c->v, c->b, KVFS_ORDERED, c->err);
    if (c->unlinking != 0)
        kvfs_node_unlink_done(c->v, c->unlinking);
    return rc;
}

static void
change_pause(long ns)
{
    const struct timespec pause = {.tv_nsec = ns};

    (void)nanosleep(&pause, NULL);
}

static int
change_tries(struct kvfs_change *c, kvfs_change_fn *fn, void *arg)
{
    unsigned tries = 0, leased = 0;
    int rc;

    for (;;) {
        rc = change_try(c, fn, arg);
        if (rc == -EBUSY && c->leased && ++leased < KVFS_CHANGE_LEASE_TRIES) {
            change_pause(1000000);
        } else if (rc == -EAGAIN && ++tries < KVFS_CHANGE_TRIES) {
            if (tries > 4) /* the others get on meanwhile */
                change_pause(tries < 50 ? 20000L * tries : 1000000);
        } else {
            return rc;
        }
    }
}

int
kvfs_change_run(struct kvfs_volume *v, kvfs_change_fn *fn, void *arg, struct kvfs_error *err)
{
    struct kvfs_change c = {.v = v, .err = err};
    int rc = kvfs_volume_writable(v, err);

    if (rc != 0)
        return rc;
    c.b = kvfs_batch_new();
    if (c.b == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory for a change of names");
    (void)pthread_mutex_lock(&v->names);
    rc = change_tries(&c, fn, arg);
    (void)pthread_mutex_unlock(&v->names);
    kvfs_batch_free(c.b);
    if (rc == -EAGAIN)
        return kvfs_error_set(err, -EBUSY, "other processes change the same names all the time");
    if (rc == 0 && c.work)
        kvfs_work_wake(v);
    if (rc == 0 && err != NULL) /* a try that failed, or a name that might have been */
        *err = (struct kvfs_error){0};
    return rc;
}
