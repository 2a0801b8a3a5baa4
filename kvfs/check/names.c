/* SPDX-License-Identifier: BSD-3-Clause
 *
 * names.c - names, cookies, attributes and link targets.
 *
 * First all sound names are counted, which also tells the tables a folder that
 * names each inode; then, when it is known which inodes exist, each record is
 * judged:
 *
 *  - an entry points to an inode that exists, with the same type;
 *  - a folder has exactly one name, the one in the folder above that its record
 *    speaks of, if there is such a one; the root has none;
 *  - entries and cookies belong together one to one.
 *
 * A damaged entry is written anew when what is left of it agrees with its cookie
 * and with an inode that lacks a name; else it goes, and the inode that loses
 * its last name is found in /lost+found.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "check_priv.h"

#define NAMES_DAMAGED "damaged: its checksum does not match or its fields are impossible"

static int
names_scan(struct check *c, check_record_fn *fn, struct kvfs_error *err)
{
    struct kvfs_key lo, hi;

    kvfs_key_letter(&lo, 'I');
    kvfs_key_letter(&hi, 'I' + 1);
    return kvfs_check_scan(c, KVFS_META, &lo, &hi, false, fn, err);
}

/* --- counting --- */

static int
names_count_record(struct check *c, struct check_record *r, struct kvfs_error *err)
{
    struct kvfs_key_parts parts;
    struct kvfs_dentry_record d;
    struct check_inode *i;
    int rc = kvfs_check_step(c, 0);

    if (rc < 0)
        return rc;
    if (kvfs_check_key(&r->key, &parts) != 0 || parts.kind != KVFS_KEY_DENTRY ||
        kvfs_check_value(c, r, NULL) != 0 ||
        kvfs_dentry_decode(&d, &r->key, c->value, r->value_len) != 0)
        return 0;
    kvfs_check_id_seen(c, d.cookie);
    i = kvfs_check_table_add(&c->inodes, d.ino);
    if (i == NULL)
        return kvfs_error_set(err, -ENOMEM, "check: no memory for the tables of inodes and forks");
    i->names++;
    if (i->dir == 0 || (i->parent == parts.id && S_ISDIR(i->mode)))
        i->dir = parts.id;
    if ((i->flags & CI_RECORD) == 0 && (i->mode & S_IFMT) != d.type) {
        i->mode = d.type; /* a name is a better witness than a damaged record */
        i->flags &= ~(uint32_t)CI_GUESS;
    }
    return 0;
}

int
kvfs_check_names_count(struct check *c, struct kvfs_error *err)
{
    struct check_inode *root = kvfs_check_table_add(&c->inodes, KVFS_ROOT_INO);

    if (root == NULL)
        return kvfs_error_set(err, -ENOMEM, "check: no memory for the tables of inodes and forks");
    if ((root->flags & CI_RECORD) == 0)
        root->mode = S_IFDIR | (root->mode & 07777);
    return names_scan(c, names_count_record, err);
}

/* --- judging --- */

struct names_entry { /* one sound or guessed entry */
    const struct kvfs_key *key;
    const struct kvfs_key_parts *parts;
    struct kvfs_dentry_record d;
};

/* 1: cookie COOKIE of DIR says NAME; 0: it says another; negative: none, or damaged. */
static int
names_cookie_says(struct check *c, uint64_t dir, uint64_t cookie, const char *name, size_t name_len)
{
    struct kvfs_key key;
    const void *bytes;
    size_t len;
    int rc;

    kvfs_key_cookie(&key, dir, cookie);
    rc = kvfs_check_get(c, &key, c->spare, &len, NULL);
    if (rc == 0)
        rc = kvfs_bytes_decode(&bytes, &len, &key, c->spare, len);
    if (rc != 0)
        return rc;
    return len == name_len && memcmp(bytes, name, len) == 0;
}

static int
names_cookie_put(struct check *c, uint64_t dir, uint64_t cookie, const char *name, size_t len,
                 struct kvfs_error *err)
{
    uint8_t value[KVFS_NAME_MAX + 16];
    struct kvfs_key key;

    kvfs_key_cookie(&key, dir, cookie);
    return kvfs_check_put(c, &key, value, kvfs_bytes_encode(name, len, &key, value), err);
}

static int
names_entry_put(struct check *c, const struct names_entry *e, struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];

    return kvfs_check_put(c, e->key, value, kvfs_dentry_encode(&e->d, e->key, value), err);
}

static int
names_entry_del(struct check *c, const struct names_entry *e, struct kvfs_error *err)
{
    struct kvfs_key cookie;
    int rc = kvfs_check_del(c, e->key, err);

    if (rc < 0 ||
        names_cookie_says(c, e->parts->id, e->d.cookie, e->parts->name, e->parts->name_len) != 1)
        return rc;
    kvfs_key_cookie(&cookie, e->parts->id, e->d.cookie);
    return kvfs_check_del(c, &cookie, err);
}

/* The entry goes: it no longer counts as a name. */
static int
names_entry_drop(struct check *c, const struct names_entry *e, struct check_inode *target,
                 struct kvfs_error *err)
{
    if (target != NULL && target->names > 0)
        target->names--;
    return names_entry_del(c, e, err);
}

static int
names_entry_cookie(struct check *c, struct names_entry *e, struct kvfs_error *err)
{
    const struct kvfs_key_parts *p = e->parts;
    int says = names_cookie_says(c, p->id, e->d.cookie, p->name, p->name_len);
    int rc;

    if (says == 1 || (says < 0 && says != -ENOENT))
        return 0; /* a damaged cookie is judged by itself */
    if (says == -ENOENT) {
        kvfs_check_found(c, kvfs_check_where_name(c, p->id, p->name, p->name_len), "written anew",
                         "its cookie %" PRIu64 " has no record", e->d.cookie);
    } else {
        kvfs_check_found(c, kvfs_check_where_name(c, p->id, p->name, p->name_len), "given another",
                         "its cookie %" PRIu64 " belongs to another name", e->d.cookie);
        e->d.cookie = kvfs_check_id_new(c);
        rc = names_entry_put(c, e, err);
        if (rc < 0)
            return rc;
    }
    return names_cookie_put(c, p->id, e->d.cookie, p->name, p->name_len, err);
}

/* Count the entry among what its folder holds. */
static void
names_entry_keep(struct check *c, const struct names_entry *e, struct check_inode *target)
{
    struct check_inode *dir = kvfs_check_inode(c, e->parts->id);

    if (S_ISDIR(target->mode)) {
        target->flags |= CI_NAMED;
        if (dir != NULL)
            dir->subdirs++;
    }
}

/* A folder's second name, or a name of the root. */
static bool
names_entry_surplus(const struct names_entry *e, const struct check_inode *target)
{
    if (target->ino == KVFS_ROOT_INO)
        return true;
    return S_ISDIR(target->mode) &&
           ((target->flags & CI_NAMED) != 0 || target->dir != e->parts->id);
}

static int
names_judge_entry(struct check *c, struct names_entry *e, struct kvfs_error *err)
{
    const struct kvfs_key_parts *p = e->parts;
    struct check_inode *target = kvfs_check_inode(c, e->d.ino);
    int rc;

    if (!kvfs_check_exists(target)) {
        /* Of one that is damaged rebuild has spoken already. */
        if (target == NULL || (target->flags & CI_LOST) == 0)
            kvfs_check_found(c, kvfs_check_where_name(c, p->id, p->name, p->name_len), "removed",
                             "points to inode %" PRIu64 ", which does not exist", e->d.ino);
        return names_entry_drop(c, e, target, err);
    }
    if (names_entry_surplus(e, target)) {
        kvfs_check_found(c, kvfs_check_where_name(c, p->id, p->name, p->name_len), "removed",
                         target->ino == KVFS_ROOT_INO
                             ? "names the root folder"
                             : "is a second name of the folder with inode %" PRIu64,
                         e->d.ino);
        return names_entry_drop(c, e, target, err);
    }
    names_entry_keep(c, e, target);
    if (e->d.type != (target->mode & S_IFMT)) {
        kvfs_check_found(c, kvfs_check_where_name(c, p->id, p->name, p->name_len), "corrected",
                         "says type %06o, its inode %" PRIu64 " says %06o", e->d.type, e->d.ino,
                         target->mode & S_IFMT);
        e->d.type = target->mode & S_IFMT;
        rc = names_entry_put(c, e, err);
        if (rc < 0)
            return rc;
    }
    return names_entry_cookie(c, e, err);
}

struct names_search { /* a cookie record looked for by its name, or an entry by its cookie */
    const char *name;
    size_t name_len;
    uint64_t cookie;
    struct kvfs_key found; /* len 0: nothing */
};

static int
names_search_record(struct check *c, struct names_search *s, const struct kvfs_key *key,
                    size_t value_len)
{
    struct kvfs_key_parts parts;
    struct kvfs_dentry_record d;
    const void *bytes;
    size_t len;

    if (kvfs_check_key(key, &parts) != 0)
        return 0;
    if (parts.kind == KVFS_KEY_DENTRY)
        return kvfs_dentry_decode(&d, key, c->spare, value_len) == 0 && d.cookie == s->cookie;
    return kvfs_bytes_decode(&bytes, &len, key, c->spare, value_len) == 0 && len > 0 &&
           len == s->name_len && memcmp(bytes, s->name, len) == 0;
}

/* Search the PART (entries or cookies) of folder DIR. */
static void
names_search(struct check *c, uint64_t dir, uint8_t part, struct names_search *s)
{
    struct kvfs_db_cursor *cursor;
    struct kvfs_key lo, hi;
    const void *key;
    size_t key_len, value_len;

    s->found.len = 0;
    kvfs_key_inode_part(&lo, dir, part);
    kvfs_key_inode_part(&hi, dir, (uint8_t)(part + 1));
    if (c->engine->cursor_open(c->snap, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len, 0, &cursor,
                               NULL) != 0)
        return;
    while (s->found.len == 0 &&
           c->engine->cursor_next(cursor, &key, &key_len, &value_len, NULL) == 1) {
        struct iovec iov = {.iov_base = c->spare, .iov_len = value_len};

        if (key_len > sizeof(lo.bytes) || value_len > KVFS_RECORD_MAX ||
            c->engine->cursor_value(cursor, 0, &iov, 1, NULL) != 0)
            continue;
        memcpy(lo.bytes, key, key_len);
        lo.len = key_len;
        if (names_search_record(c, s, &lo, value_len) != 0)
            s->found = lo;
    }
    c->engine->cursor_close(cursor);
}

/* What is left of a damaged entry agrees with everything around it. */
static bool
names_guess_fits(struct check *c, const struct names_entry *e)
{
    const struct check_inode *i = kvfs_check_inode(c, e->d.ino);

    if (!kvfs_check_exists(i) || i->ino == KVFS_ROOT_INO || e->d.type != (i->mode & S_IFMT))
        return false;
    if (S_ISDIR(i->mode) ? i->names > 0 || i->parent != e->parts->id : i->names >= i->nlink)
        return false;
    return names_cookie_says(c, e->parts->id, e->d.cookie, e->parts->name, e->parts->name_len) == 1;
}

static int
names_judge_damaged(struct check *c, struct check_record *r, const struct kvfs_key_parts *p,
                    struct kvfs_error *err)
{
    struct names_entry e = {.key = &r->key, .parts = p};
    struct names_search s = {.name = p->name, .name_len = p->name_len};
    int rc;

    kvfs_record_reseal(&r->key, c->value, r->value_len);
    if (kvfs_dentry_decode(&e.d, &r->key, c->value, r->value_len) == 0 && names_guess_fits(c, &e)) {
        struct check_inode *i = kvfs_check_inode(c, e.d.ino);

        kvfs_check_found(c, kvfs_check_where_name(c, p->id, p->name, p->name_len), "written anew",
                         NAMES_DAMAGED);
        i->names++;
        i->dir = p->id;
        names_entry_keep(c, &e, i);
        return names_entry_put(c, &e, err);
    }
    kvfs_check_found(c, kvfs_check_where_name(c, p->id, p->name, p->name_len), "removed",
                     NAMES_DAMAGED);
    rc = kvfs_check_del(c, &r->key, err);
    if (rc < 0 || !kvfs_check_repairing(c))
        return rc;
    names_search(c, p->id, KVFS_PART_COOKIE, &s);
    return s.found.len > 0 ? kvfs_check_del(c, &s.found, err) : 0;
}

static int
names_judge_cookie(struct check *c, struct check_record *r, const struct kvfs_key_parts *p,
                   struct kvfs_error *err)
{
    struct names_search s = {.cookie = p->second};
    struct kvfs_key_parts entry;
    struct kvfs_dentry_record d;
    struct kvfs_key key;
    const void *name;
    size_t name_len, len;
    int rc;

    if (kvfs_bytes_decode(&name, &name_len, &r->key, c->value, r->value_len) != 0) {
        names_search(c, p->id, KVFS_PART_DENTRY, &s);
        kvfs_check_found(c, kvfs_check_where_inode(c, p->id),
                         s.found.len > 0 ? "written anew" : "removed",
                         "the record of its cookie %" PRIu64 " is " NAMES_DAMAGED, p->second);
        if (s.found.len == 0 || kvfs_check_key(&s.found, &entry) != 0)
            return kvfs_check_del(c, &r->key, err);
        return names_cookie_put(c, p->id, p->second, entry.name, entry.name_len, err);
    }
    kvfs_key_dentry(&key, p->id, name, name_len);
    rc = kvfs_check_get(c, &key, c->spare, &len, NULL);
    if (rc == 0 && kvfs_dentry_decode(&d, &key, c->spare, len) != 0)
        return 0; /* judged with the entry */
    if (rc == 0 && d.cookie == p->second)
        return 0;
    if (rc != 0 && rc != -ENOENT)
        return 0;
    kvfs_check_found(c, kvfs_check_where_name(c, p->id, name, name_len), "removed",
                     rc == 0 ? "has cookie %" PRIu64 " beside the one it uses"
                             : "has cookie %" PRIu64 ", but there is no such entry",
                     p->second);
    return kvfs_check_del(c, &r->key, err);
}

static int
names_judge_xattr(struct check *c, struct check_record *r, const struct kvfs_key_parts *p)
{
    const void *bytes;
    size_t len;
    int rc = kvfs_bytes_decode(&bytes, &len, &r->key, c->value, r->value_len);

    if (rc != 0)
        kvfs_check_found(c, kvfs_check_where_xattr(c, p->id, p->name, p->name_len), NULL,
                         rc == -ENOTSUP ? "is of a newer version" : NAMES_DAMAGED);
    return 0;
}

static int
names_judge_symlink(struct check *c, struct check_record *r, const struct check_inode *owner,
                    struct kvfs_error *err)
{
    if (!S_ISLNK(owner->mode)) {
        kvfs_check_found(c, kvfs_check_where_inode(c, owner->ino), "removed",
                         "has a link's target, but is no link");
        return kvfs_check_del(c, &r->key, err);
    }
    if ((owner->flags & CI_TARGET_BAD) != 0)
        kvfs_check_found(c, kvfs_check_where_inode(c, owner->ino), NULL,
                         "its target is " NAMES_DAMAGED);
    return 0;
}

static int
names_judge_child(struct check *c, struct check_record *r, const struct kvfs_key_parts *p,
                  const struct check_inode *owner, struct kvfs_error *err)
{
    struct names_entry e = {.key = &r->key, .parts = p};
    int rc;

    if (!S_ISDIR(owner->mode)) {
        kvfs_check_found(c, kvfs_check_where_inode(c, p->id), "removed",
                         "has entries, but is no folder");
        if (p->kind == KVFS_KEY_DENTRY &&
            kvfs_dentry_decode(&e.d, &r->key, c->value, r->value_len) == 0) {
            struct check_inode *target = kvfs_check_inode(c, e.d.ino);

            if (target != NULL && target->names > 0)
                target->names--;
        }
        return kvfs_check_del(c, &r->key, err);
    }
    if (p->kind == KVFS_KEY_COOKIE)
        return names_judge_cookie(c, r, p, err);
    rc = kvfs_dentry_decode(&e.d, &r->key, c->value, r->value_len);
    if (rc == -ENOTSUP) {
        kvfs_check_found(c, kvfs_check_where_name(c, p->id, p->name, p->name_len), NULL,
                         "is of a newer version");
        return 0;
    }
    return rc == 0 ? names_judge_entry(c, &e, err) : names_judge_damaged(c, r, p, err);
}

static int
names_judge_record(struct check *c, struct check_record *r, struct kvfs_error *err)
{
    struct kvfs_key_parts parts;
    const struct check_inode *owner;
    int rc = kvfs_check_step(c, 0);

    if (rc < 0)
        return rc;
    if (kvfs_check_key(&r->key, &parts) != 0)
        return 0;
    owner = kvfs_check_inode(c, parts.id);
    if (!kvfs_check_exists(owner) || kvfs_check_value(c, r, NULL) != 0)
        return 0; /* all records of an inode that is given up go with it */
    switch (parts.kind) {
    case KVFS_KEY_DENTRY:
    case KVFS_KEY_COOKIE:
        return names_judge_child(c, r, &parts, owner, err);
    case KVFS_KEY_XATTR:
        return names_judge_xattr(c, r, &parts);
    case KVFS_KEY_SYMLINK:
        return names_judge_symlink(c, r, owner, err);
    default:
        return 0;
    }
}

int
kvfs_check_names_judge(struct check *c, struct kvfs_error *err)
{
    return names_scan(c, names_judge_record, err);
}
