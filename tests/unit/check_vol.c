/* SPDX-License-Identifier: BSD-3-Clause */
#include "check_vol.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t
vol_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t
vol_seed(void)
{
    const char *env = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): one thread
    uint64_t seed = env != NULL ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);

    print_message("KVFS_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

unsigned
vol_scale(void)
{
    const char *env = getenv("KVFS_SCALE"); // NOLINT(concurrency-mt-unsafe): one thread
    unsigned long scale = env != NULL ? strtoul(env, NULL, 10) : 1;

    return scale >= 1 && scale <= 1000 ? (unsigned)scale : 1;
}

static void
vol_must(int rc, const struct kvfs_error *err)
{
    if (rc < 0)
        fail_msg("%d: %s", rc, err->msg);
}

static void
vol_fill(struct kvfs_volume *v, struct vol_file *f, uint64_t seed)
{
    struct kvfs_error err = {0};
    struct kvfs_file *file;
    uint8_t *block = malloc(VOL_BLOCK);

    assert_non_null(block);
    vol_must(kvfs_file_open(v, f->ino, KVFS_OPEN_WRITE, &file, &err), &err);
    f->bytes = calloc(1, (size_t)f->size);
    assert_non_null(f->bytes);
    /* Two cuts, with holes between the blocks. */
    for (uint64_t at = 0; at < f->size; at += VOL_BLOCK) {
        uint64_t left = f->size - at;
        size_t n = left < VOL_BLOCK ? (size_t)left : VOL_BLOCK;

        if (vol_random(&seed) % 4 == 0)
            continue;
        for (size_t i = 0; i < n; i++)
            f->bytes[at + i] = (uint8_t)vol_random(&seed);
        vol_must(kvfs_file_pwrite(file, f->bytes + at, n, at, 0, &err), &err);
        if (at == f->size / 2 / VOL_BLOCK * VOL_BLOCK)
            vol_must(kvfs_file_flush(file, &err), &err);
    }
    vol_must(kvfs_file_flush(file, &err), &err);
    kvfs_file_close(file);
    free(block);
}

static uint64_t
vol_create(struct kvfs_volume *v, uint64_t dir, const char *name, uint32_t mode, uint64_t size)
{
    struct kvfs_create create = {.mode = mode, .size_bytes = size};
    struct kvfs_error err = {0};
    struct kvfs_attr attr;

    create.block_size_bytes = S_ISREG(mode) ? VOL_BLOCK : 0;
    create.target = S_ISLNK(mode) ? "a/disk0" : NULL;
    vol_must(kvfs_create(v, dir, name, &create, &attr, &err), &err);
    return attr.ino;
}

static void
vol_populate(struct vol *t, struct kvfs_volume *v, uint64_t seed)
{
    struct kvfs_error err = {0};

    t->dir_a = vol_create(v, KVFS_ROOT_INO, "a", S_IFDIR | 0755, 0);
    t->dir_b = vol_create(v, KVFS_ROOT_INO, "b", S_IFDIR | 0755, 0);
    t->dir_c = vol_create(v, t->dir_b, "c", S_IFDIR | 0755, 0);
    t->link = vol_create(v, KVFS_ROOT_INO, "s", S_IFLNK | 0777, 0);
    t->pipe = vol_create(v, KVFS_ROOT_INO, "p", S_IFIFO | 0600, 0);
    t->files[VOL_DISK0] = (struct vol_file){.path = "/a/disk0", .size = 40 * VOL_BLOCK};
    t->files[VOL_DISK0].ino = vol_create(v, t->dir_a, "disk0", S_IFREG | 0644, 40 * VOL_BLOCK);
    t->files[VOL_DISK1] = (struct vol_file){.path = "/a/disk1", .size = 9 * VOL_BLOCK + 100};
    t->files[VOL_DISK1].ino = vol_create(v, t->dir_a, "disk1", S_IFREG | 0644, 9 * VOL_BLOCK + 100);
    t->files[VOL_DEEP] = (struct vol_file){.path = "/b/c/deep", .size = 77};
    t->files[VOL_DEEP].ino = vol_create(v, t->dir_c, "deep", S_IFREG | 0644, 77);
    t->files[VOL_THIN] = (struct vol_file){.path = "/thin", .size = UINT64_C(1) << 40};
    t->files[VOL_THIN].ino =
        vol_create(v, KVFS_ROOT_INO, "thin", S_IFREG | 0644, UINT64_C(1) << 40);
    t->files[VOL_EMPTY] = (struct vol_file){.path = "/empty"};
    t->files[VOL_EMPTY].ino = vol_create(v, KVFS_ROOT_INO, "empty", S_IFREG | 0644, 0);
    vol_must(kvfs_link(v, t->files[VOL_DISK1].ino, t->dir_a, "twin", &err), &err);
    vol_must(kvfs_xattr_set(v, t->files[VOL_DISK0].ino, "user.x", "value", 5, 0, &err), &err);
    vol_fill(v, &t->files[VOL_DISK0], seed + 1);
    vol_fill(v, &t->files[VOL_DISK1], seed + 2);
    vol_fill(v, &t->files[VOL_DEEP], seed + 3);
}

void
vol_make(struct vol *t, const char *engine, uint64_t seed)
{
    struct kvfs_format_options options = {.engine = engine, .block_size_bytes = VOL_BLOCK};
    struct kvfs_error err = {0};
    struct kvfs_volume *v;

    memset(t, 0, sizeof(*t));
    (void)snprintf(t->path, sizeof(t->path), "/tmp/kvfs-check-XXXXXX");
    assert_non_null(mkdtemp(t->path));
    t->engine = engine;
    vol_must(kvfs_format(t->path, &options, &err), &err);
    vol_must(kvfs_volume_open(t->path, NULL, &v, &err), &err);
    vol_populate(t, v, seed);
    vol_must(kvfs_volume_close(v, &err), &err);
    vol_raw_open(t);
    for (int i = 0; i < VOL_FILES; i++) {
        struct kvfs_inode_record r;
        uint8_t value[KVFS_RECORD_MAX];
        struct kvfs_key key;

        kvfs_key_inode(&key, t->files[i].ino);
        assert_int_equal(kvfs_inode_decode(&r, &key, value, vol_get(t, KVFS_META, &key, value)), 0);
        t->files[i].fork = r.fork;
    }
    vol_raw_close(t);
}

static int
vol_remove_one(const char *name, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(name);
}

void
vol_remove(struct vol *t)
{
    for (int i = 0; i < VOL_FILES; i++)
        free(t->files[i].bytes);
    (void)nftw(t->path, vol_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* --- raw access --- */

void
vol_raw_open(struct vol *t)
{
    struct kvfs_engine_options options = {0};
    struct kvfs_error err = {0};

    vol_must(kvfs_engine_find(t->engine, &t->raw_engine, &err), &err);
    vol_must(t->raw_engine->open(t->raw_engine, t->path, &options, &t->raw, &err), &err);
}

void
vol_raw_close(struct vol *t)
{
    t->raw_engine->close(t->raw);
    t->raw = NULL;
}

size_t
vol_get(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k, uint8_t *value)
{
    struct iovec iov = {.iov_base = value, .iov_len = KVFS_RECORD_MAX};
    struct kvfs_error err = {0};
    struct kvfs_db_snap *snap;
    size_t len = 0;
    int rc;

    vol_must(t->raw_engine->begin(t->raw, &snap, &err), &err);
    rc = t->raw_engine->get(snap, ks, k->bytes, k->len, 0, &iov, 1, &len, &err);
    t->raw_engine->end(snap);
    vol_must(rc, &err);
    return len;
}

static void
vol_apply(struct vol *t, struct kvfs_batch_builder *b)
{
    struct kvfs_error err = {0};
    struct kvfs_batch batch;

    assert_int_equal(kvfs_batch_end(b, &batch), 0);
    vol_must(t->raw_engine->apply(t->raw, &batch, KVFS_DURABLE, &err), &err);
    kvfs_batch_free(b);
}

void
vol_put(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k, const void *value,
        size_t len)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();

    kvfs_batch_put(b, ks, k->bytes, k->len, value, len);
    vol_apply(t, b);
}

void
vol_del(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();

    kvfs_batch_del(b, ks, k->bytes, k->len);
    vol_apply(t, b);
}

void
vol_flip(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k, size_t at, unsigned bit)
{
    uint8_t value[KVFS_RECORD_MAX];
    size_t len = vol_get(t, ks, k, value);

    assert_true(len > 0);
    value[at % len] ^= (uint8_t)(1u << bit % 8);
    vol_put(t, ks, k, value, len);
}

void
vol_block_key(struct kvfs_key *k, uint64_t fork, uint64_t index)
{
    kvfs_key_block(k->bytes, fork, index);
    k->len = KVFS_DATA_KEY_LEN;
}

struct kvfs_key *
vol_keys(struct vol *t, enum kvfs_keyspace ks, size_t *count)
{
    struct kvfs_error err = {0};
    struct kvfs_db_snap *snap;
    struct kvfs_db_cursor *cursor;
    struct kvfs_key *keys = NULL;
    const void *key;
    size_t key_len, value_len;

    *count = 0;
    vol_must(t->raw_engine->begin(t->raw, &snap, &err), &err);
    vol_must(
        t->raw_engine->cursor_open(snap, ks, NULL, 0, NULL, 0, KVFS_SCAN_KEYS_ONLY, &cursor, &err),
        &err);
    while (t->raw_engine->cursor_next(cursor, &key, &key_len, &value_len, &err) == 1) {
        keys = realloc(keys, (*count + 1) * sizeof(*keys));
        assert_non_null(keys);
        memcpy(keys[*count].bytes, key, key_len);
        keys[(*count)++].len = key_len;
    }
    t->raw_engine->cursor_close(cursor);
    t->raw_engine->end(snap);
    return keys;
}

/* --- checking --- */

static void
vol_finding(void *arg, const char *where, const char *what)
{
    struct vol_findings *f = arg;
    size_t n = strlen(where) + strlen(what) + 4;
    char *text = realloc(f->text, f->len + n);

    assert_non_null(text);
    assert_null(strchr(where, '\n'));
    assert_null(strchr(what, '\n'));
    f->text = text;
    f->len += (size_t)snprintf(text + f->len, n, "%s: %s\n", where, what);
}

void
vol_check(struct vol *t, bool repair, struct vol_findings *f)
{
    struct kvfs_check_options options = {
        .repair = repair, .finding = vol_finding, .finding_arg = f};

    memset(f, 0, sizeof(*f));
    f->text = strdup("");
    f->rc = kvfs_check(t->path, &options, &f->result, &f->err);
}

void
vol_findings_free(struct vol_findings *f)
{
    free(f->text);
    f->text = NULL;
}

bool
vol_found(const struct vol_findings *f, const char *where, const char *what)
{
    const char *line = f->text;

    while (*line != '\0') {
        const char *end = strchr(line, '\n');
        char one[8192];

        (void)snprintf(one, sizeof(one), "%.*s", (int)(end - line), line);
        if (strstr(one, where) != NULL && strstr(one, what) != NULL)
            return true;
        line = end + 1;
    }
    return false;
}

/* --- comparing --- */

static void
vol_compare_zeros(struct kvfs_file *file, const struct vol_file *f)
{
    static uint8_t got[VOL_BLOCK], zeros[VOL_BLOCK];
    struct kvfs_error err = {0};

    for (uint64_t at = 0; at < f->size; at += f->size / 4) {
        vol_must(kvfs_file_pread(file, got, sizeof(got), at, &err), &err);
        assert_memory_equal(got, zeros, sizeof(got));
    }
}

void
vol_compare(struct vol *t)
{
    struct kvfs_error err = {0};
    struct kvfs_volume *v;

    vol_must(kvfs_volume_open(t->path, NULL, &v, &err), &err);
    for (int i = 0; i < VOL_FILES; i++) {
        const struct vol_file *f = &t->files[i];
        struct kvfs_file_info info;
        struct kvfs_file *file;
        uint8_t *got;

        if (f->damaged)
            continue;
        vol_must(kvfs_file_open(v, f->ino, KVFS_OPEN_READ, &file, &err), &err);
        kvfs_file_info(file, &info);
        if (info.size_bytes != f->size)
            fail_msg("%s: %llu bytes, not %llu", f->path, (unsigned long long)info.size_bytes,
                     (unsigned long long)f->size);
        if (f->bytes == NULL) {
            vol_compare_zeros(file, f);
        } else {
            got = malloc((size_t)f->size);
            assert_non_null(got);
            vol_must(kvfs_file_pread(file, got, (size_t)f->size, 0, &err), &err);
            if (memcmp(got, f->bytes, (size_t)f->size) != 0)
                fail_msg("%s: other bytes than were written", f->path);
            free(got);
        }
        kvfs_file_close(file);
    }
    vol_must(kvfs_volume_close(v, &err), &err);
}
