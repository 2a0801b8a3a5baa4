/* SPDX-License-Identifier: BSD-3-Clause */
#include "names_world.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../kvfs/names/names.h"
#include "../chosen.h"

/* --- volumes --- */

static void
world_must(int rc, const char *what, const struct kvfs_error *err)
{
    if (rc == 0)
        return;
    (void)fprintf(stderr, "%s: %d %s\n", what, rc, err->msg);
    exit(1); /* NOLINT(concurrency-mt-unsafe) */
}

const char *
world_engine_at(unsigned n)
{
    const char *const names[] = {chosen_by_name() ? NULL : "mem", chosen_engine()};
    const struct kvfs_engine *e;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i] != NULL && kvfs_engine_find(names[i], &e, NULL) == 0 && n-- == 0)
            return names[i];
    }
    return NULL;
}

void
world_begin(struct world *w, const char *engine)
{
    struct kvfs_format_options options = {
        .engine = engine, .force = true, .store_max_bytes = w->store_max_bytes};
    struct kvfs_error err = {0};

    w->engine = engine;
    (void)strcpy(w->path, "/tmp/kvfs-names-XXXXXX"); /* NOLINT(clang-analyzer-security*) */
    if (mkdtemp(w->path) == NULL) {
        perror(w->path);
        exit(1); /* NOLINT(concurrency-mt-unsafe) */
    }
    world_must(kvfs_format(w->path, &options, &err), "format", &err);
    w->v = NULL;
    world_reopen(w);
}

void
world_reopen(struct world *w)
{
    struct kvfs_volume_options options = {.store_max_bytes = w->store_max_bytes};
    struct kvfs_error err = {0};

    if (w->v != NULL)
        world_must(kvfs_volume_close(w->v, &err), "close", &err);
    world_must(kvfs_volume_open(w->path, &options, &w->v, &err), "open", &err);
}

static int
world_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void
world_end(struct world *w)
{
    struct kvfs_error err = {0};

    world_must(kvfs_volume_close(w->v, &err), "close", &err);
    (void)nftw(w->path, world_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

unsigned
world_seed(void)
{
    const char *text = getenv("KVFS_SEED"); /* NOLINT(concurrency-mt-unsafe) */
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 0) : (unsigned)time(NULL);

    (void)printf("KVFS_SEED=%u\n", seed);
    (void)fflush(stdout);
    return seed;
}

unsigned
world_scale(void)
{
    const char *text = getenv("KVFS_SCALE"); /* NOLINT(concurrency-mt-unsafe) */
    unsigned scale = text != NULL ? (unsigned)strtoul(text, NULL, 0) : 1;

    return scale > 0 ? scale : 1;
}

/* --- the judge --- */

struct judged_inode {
    uint64_t ino;
    struct kvfs_inode_record rec;
    unsigned names, subfolders;
    bool contents, symlink, orphan;
    uint64_t named_in; /* the folder of its last name */
};

struct judged_name { /* an entry, or a cookie */
    uint64_t dir, cookie;
    struct kvfs_dentry_record rec;
    char name[KVFS_NAME_MAX + 1];
};

struct judge {
    char *why;
    size_t why_cap;
    struct judged_inode *inodes; /* by ino: the order of the keys */
    struct judged_name *entries, *cookies;
    size_t inodes_count, entries_count, cookies_count;
    uint64_t counter;
};

/* Say why and be -1. */
#define judge_says(j, ...) ((void)snprintf((j)->why, (j)->why_cap, __VA_ARGS__), -1)

static void *
grow(void *v, size_t count, size_t size)
{
    if ((count & (count - 1)) == 0) { /* a power of two, or 0: full */
        v = realloc(v, (count > 0 ? 2 * count : 1) * size);
        if (v == NULL)
            abort();
    }
    return v;
}

static struct judged_inode *
judge_inode(const struct judge *j, uint64_t ino)
{
    size_t lo = 0, hi = j->inodes_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (j->inodes[mid].ino < ino)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < j->inodes_count && j->inodes[lo].ino == ino ? &j->inodes[lo] : NULL;
}

static struct judged_name *
judge_name_new(struct judged_name **v, size_t *count)
{
    *v = grow(*v, *count, sizeof(**v));
    memset(&(*v)[*count], 0, sizeof(**v));
    return &(*v)[(*count)++];
}

/* One record of inode P->id; its inode record, if any, came first. */
static int
judge_inode_part(struct judge *j, const struct kvfs_key_parts *p, const struct kvfs_key *k,
                 const uint8_t *value, size_t len)
{
    struct judged_inode *inode = judge_inode(j, p->id);
    struct kvfs_contents_record contents;
    struct judged_name *n;
    const void *bytes;
    size_t bytes_len;

    if (inode == NULL)
        return judge_says(j, "a record of inode %lu, which is missing", p->id);
    switch (p->kind) {
    case KVFS_KEY_CONTENTS:
        inode->contents = true;
        return kvfs_contents_decode(&contents, k, value, len) == 0
                   ? 0
                   : judge_says(j, "contents of %lu", p->id);
    case KVFS_KEY_SYMLINK:
        inode->symlink = true;
        return kvfs_bytes_decode(&bytes, &bytes_len, k, value, len) == 0
                   ? 0
                   : judge_says(j, "target of %lu", p->id);
    case KVFS_KEY_XATTR:
        return kvfs_bytes_decode(&bytes, &bytes_len, k, value, len) == 0
                   ? 0
                   : judge_says(j, "attribute of %lu", p->id);
    case KVFS_KEY_DENTRY:
        n = judge_name_new(&j->entries, &j->entries_count);
        n->dir = p->id;
        memcpy(n->name, p->name, p->name_len);
        return kvfs_dentry_decode(&n->rec, k, value, len) == 0
                   ? 0
                   : judge_says(j, "entry %s of %lu", n->name, p->id);
    default:
        n = judge_name_new(&j->cookies, &j->cookies_count);
        n->dir = p->id;
        n->cookie = p->second;
        if (kvfs_bytes_decode(&bytes, &bytes_len, k, value, len) != 0)
            return judge_says(j, "cookie %lu of %lu", p->second, p->id);
        memcpy(n->name, bytes, bytes_len);
        return 0;
    }
}

static int
judge_record(struct judge *j, const struct kvfs_key *k, const uint8_t *value, size_t len)
{
    struct kvfs_key_parts p;
    struct judged_inode *inode;

    if (kvfs_key_parse(k->bytes, k->len, &p) != 0)
        return judge_says(j, "a key of %zu bytes that is none", k->len);
    switch (p.kind) {
    case KVFS_KEY_INODE:
        j->inodes = grow(j->inodes, j->inodes_count, sizeof(*j->inodes));
        inode = &j->inodes[j->inodes_count++];
        *inode = (struct judged_inode){.ino = p.id};
        return kvfs_inode_decode(&inode->rec, k, value, len) == 0
                   ? 0
                   : judge_says(j, "the record of inode %lu", p.id);
    case KVFS_KEY_ORPHAN:
        inode = judge_inode(j, p.id);
        if (inode == NULL)
            return judge_says(j, "orphan %lu is missing", p.id);
        inode->orphan = true;
        return 0;
    case KVFS_KEY_COUNTER:
        if (p.second == KVFS_COUNTER_INODES && kvfs_number_decode(&j->counter, k, value, len) != 0)
            return judge_says(j, "the counter of inodes");
        return 0;
    case KVFS_KEY_CONTENTS:
    case KVFS_KEY_SYMLINK:
    case KVFS_KEY_XATTR:
    case KVFS_KEY_DENTRY:
    case KVFS_KEY_COOKIE:
        return judge_inode_part(j, &p, k, value, len);
    default:
        return 0;
    }
}

static int
judge_scan(struct judge *j, struct kvfs_volume *v)
{
    struct kvfs_error err = {0};
    struct kvfs_db_cursor *cursor;
    struct kvfs_db_snap *snap;
    uint8_t *value = malloc(KVFS_RECORD_MAX);
    struct iovec iov = {.iov_base = value, .iov_len = KVFS_RECORD_MAX};
    struct kvfs_key k;
    const void *key;
    size_t len;
    int rc;

    if (value == NULL)
        abort();
    if (v->engine->begin(v->db, &snap, &err) != 0 ||
        v->engine->cursor_open(snap, KVFS_META, "\1", 1, NULL, 0, 0, &cursor, &err) != 0) {
        free(value);
        return judge_says(j, "no scan: %s", err.msg);
    }
    while ((rc = v->engine->cursor_next(cursor, &key, &k.len, &len, &err)) == 1) {
        memcpy(k.bytes, key, k.len);
        rc = v->engine->cursor_value(cursor, 0, &iov, 1, &err);
        if (rc == 0)
            rc = judge_record(j, &k, value, len);
        if (rc != 0)
            break;
    }
    v->engine->cursor_close(cursor);
    v->engine->end(snap);
    free(value);
    return rc;
}

static int
judged_name_compare(const void *a, const void *b)
{
    const struct judged_name *x = a, *y = b;

    if (x->dir != y->dir)
        return x->dir < y->dir ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Entries, cookies and the inodes that they name. */
static int
judge_entries(struct judge *j)
{
    if (j->entries_count != j->cookies_count)
        return judge_says(j, "%zu entries, %zu cookies", j->entries_count, j->cookies_count);
    if (j->cookies_count > 0)
        qsort(j->cookies, j->cookies_count, sizeof(*j->cookies), judged_name_compare);
    for (size_t i = 0; i < j->entries_count; i++) {
        const struct judged_name *e = &j->entries[i], *c = &j->cookies[i];
        struct judged_inode *inode = judge_inode(j, e->rec.ino);
        struct judged_inode *dir = judge_inode(j, e->dir);

        if (judged_name_compare(e, c) != 0 || e->rec.cookie != c->cookie)
            return judge_says(j, "entry %lu/%s and cookie %lu/%s differ", e->dir, e->name, c->dir,
                              c->name);
        if (inode == NULL)
            return judge_says(j, "%lu/%s: inode %lu is missing", e->dir, e->name, e->rec.ino);
        if ((inode->rec.mode & S_IFMT) != e->rec.type)
            return judge_says(j, "%lu/%s: type %o, mode %o", e->dir, e->name, e->rec.type,
                              inode->rec.mode);
        if (!S_ISDIR(dir->rec.mode))
            return judge_says(j, "%lu/%s: no folder", e->dir, e->name);
        inode->names++;
        inode->named_in = e->dir;
        if (S_ISDIR(inode->rec.mode))
            dir->subfolders++;
    }
    return 0;
}

static int
judge_folder(struct judge *j, const struct judged_inode *i)
{
    uint64_t up = i->ino;

    if (i->rec.nlink != 2 + i->subfolders)
        return judge_says(j, "folder %lu: nlink %u, %u folders in it", i->ino, i->rec.nlink,
                          i->subfolders);
    if (i->ino == KVFS_ROOT_INO)
        return i->names == 0 ? 0 : judge_says(j, "the root has a name");
    if (i->names != 1 || i->named_in != i->rec.parent)
        return judge_says(j, "folder %lu: %u names, in %lu, parent %lu", i->ino, i->names,
                          i->named_in, i->rec.parent);
    for (size_t steps = 0; up != KVFS_ROOT_INO; steps++) {
        const struct judged_inode *at = judge_inode(j, up);

        if (at == NULL || steps > j->inodes_count)
            return judge_says(j, "folder %lu hangs on nothing or on itself", i->ino);
        up = at->rec.parent;
    }
    return 0;
}

static int
judge_inodes(struct judge *j)
{
    uint64_t named = 0;
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < j->inodes_count; n++) {
        const struct judged_inode *i = &j->inodes[n];

        if (S_ISDIR(i->rec.mode))
            rc = judge_folder(j, i);
        else if (i->rec.nlink != i->names)
            rc = judge_says(j, "inode %lu: nlink %u, %u names", i->ino, i->rec.nlink, i->names);
        if (rc == 0 && (i->rec.nlink == 0) != i->orphan)
            rc = judge_says(j, "inode %lu: nlink %u, orphan %d", i->ino, i->rec.nlink, i->orphan);
        if (rc == 0 && S_ISREG(i->rec.mode) != i->contents)
            rc = judge_says(j, "inode %lu: mode %o, contents %d", i->ino, i->rec.mode, i->contents);
        if (rc == 0 && S_ISLNK(i->rec.mode) != i->symlink)
            rc = judge_says(j, "inode %lu: mode %o, target %d", i->ino, i->rec.mode, i->symlink);
        named += i->rec.nlink > 0;
    }
    if (rc == 0 && j->counter != named)
        rc = judge_says(j, "counter %lu, inodes with a name %lu", j->counter, named);
    return rc;
}

int
world_judge(struct kvfs_volume *v, char *why, size_t why_cap)
{
    struct judge j = {.why = why, .why_cap = why_cap};
    int rc = judge_scan(&j, v);

    if (rc == 0)
        rc = judge_entries(&j);
    if (rc == 0)
        rc = judge_inodes(&j);
    free(j.inodes);
    free(j.entries);
    free(j.cookies);
    return rc;
}
