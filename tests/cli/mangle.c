/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mangle.c - damages single records of a volume, for the tests.
 *
 *   mangle VOLUME list                     keyspace, index, key in hex, length
 *   mangle VOLUME flip KEYSPACE INDEX BIT  flip one bit of a value (again: undo)
 *   mangle VOLUME super FIELD VALUE        format, engine, incompat or ro_compat,
 *                                          with a good checksum
 *
 * It writes through the engine, so the store stays sound and only kvfs's own
 * checks can notice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#include "record.h"

static struct kvfs_db *db;
static const struct kvfs_engine *engine;
static struct kvfs_error error;

static void
die(const char *what)
{
    (void)fprintf(stderr, "mangle: %s: %s\n", what, error.msg);
    exit(3); /* NOLINT(concurrency-mt-unsafe): one thread */
}

struct found {
    uint8_t key[KVFS_KEY_MAX];
    size_t key_len, value_len;
    uint8_t value[KVFS_RECORD_MAX];
};

/* List all records of KS, or fetch number INDEX of them into F. */
static int
walk(enum kvfs_keyspace ks, long index, struct found *f)
{
    struct kvfs_db_snap *snap;
    struct kvfs_db_cursor *cursor = NULL;
    const void *key;
    size_t key_len, value_len;
    long i = 0;
    int rc;

    if (engine->begin(db, &snap, &error) < 0 ||
        engine->cursor_open(snap, ks, NULL, 0, NULL, 0, 0, &cursor, &error) < 0)
        die("scan");
    while ((rc = engine->cursor_next(cursor, &key, &key_len, &value_len, &error)) == 1) {
        struct iovec iov = {f->value, value_len};

        if (index < 0) {
            (void)printf("%s %ld ", ks == KVFS_META ? "META" : "DATA", i);
            for (size_t k = 0; k < key_len; k++)
                (void)printf("%02x", ((const uint8_t *)key)[k]);
            (void)printf(" %zu\n", value_len);
        } else if (i == index) {
            memcpy(f->key, key, key_len);
            f->key_len = key_len;
            f->value_len = value_len;
            if (value_len > sizeof(f->value) ||
                engine->cursor_value(cursor, 0, &iov, 1, &error) < 0)
                die("value");
            break;
        }
        i++;
    }
    if (rc < 0)
        die("scan");
    engine->cursor_close(cursor);
    engine->end(snap);
    return rc;
}

static void
put(enum kvfs_keyspace ks, const void *key, size_t key_len, const void *value, size_t value_len)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_batch batch;

    kvfs_batch_put(b, ks, key, key_len, value, value_len);
    if (kvfs_batch_end(b, &batch) < 0 || engine->apply(db, &batch, KVFS_DURABLE, &error) < 0)
        die("put");
    kvfs_batch_free(b);
}

static void
flip(enum kvfs_keyspace ks, long index, unsigned long bit)
{
    static struct found f;

    if (walk(ks, index, &f) != 1)
        die("no such record");
    bit %= 8 * f.value_len;
    f.value[bit / 8] ^= (uint8_t)(1u << bit % 8);
    put(ks, f.key, f.key_len, f.value, f.value_len);
}

static void
super(const char *field, const char *value)
{
    struct kvfs_key k;
    struct kvfs_super s;
    uint8_t bytes[KVFS_SMALL_RECORD_MAX];
    struct kvfs_db_snap *snap;
    struct iovec iov = {bytes, sizeof(bytes)};
    size_t len;

    kvfs_key_super(&k);
    if (engine->begin(db, &snap, &error) < 0 ||
        engine->get(snap, KVFS_META, k.bytes, k.len, 0, &iov, 1, &len, &error) < 0 ||
        kvfs_super_decode(&s, &k, bytes, len) < 0)
        die("superblock");
    engine->end(snap);
    if (strcmp(field, "format") == 0)
        s.format_version = (uint32_t)strtoul(value, NULL, 0);
    else if (strcmp(field, "incompat") == 0)
        s.features_incompat = strtoul(value, NULL, 0);
    else if (strcmp(field, "ro_compat") == 0)
        s.features_ro_compat = strtoul(value, NULL, 0);
    else if (strcmp(field, "engine") == 0)
        (void)snprintf(s.engine, sizeof(s.engine), "%s", value);
    else
        die("field");
    put(KVFS_META, k.bytes, k.len, bytes, kvfs_super_encode(&s, &k, bytes));
}

int
main(int argc, char **argv)
{
    const struct kvfs_engine_options options = {.create = false};
    const char *what = argc > 2 ? argv[2] : "";
    static struct found f;

    if (argc < 3 || kvfs_engine_find("lmdb", &engine, &error) < 0 ||
        engine->open(engine, argv[1], &options, &db, &error) < 0)
        die("open");
    if (strcmp(what, "list") == 0) {
        (void)walk(KVFS_META, -1, &f);
        (void)walk(KVFS_DATA, -1, &f);
    } else if (strcmp(what, "flip") == 0 && argc == 6) {
        flip(strcmp(argv[3], "META") == 0 ? KVFS_META : KVFS_DATA, strtol(argv[4], NULL, 10),
             strtoul(argv[5], NULL, 10));
    } else if (strcmp(what, "super") == 0 && argc == 5) {
        super(argv[3], argv[4]);
    } else {
        die("usage");
    }
    engine->close(db);
    return 0;
}
