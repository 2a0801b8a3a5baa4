/* SPDX-License-Identifier: BSD-3-Clause
 *
 * params.c - parsing of the plugin's parameters (nbdkit-kvfs-plugin(1)).
 *
 * Any text may come in.  1. Every value is checked here, before the volume is
 * touched.  2. A refusal is one line that names the parameter and its value.
 * 3. No parameter may be given twice: of two volumes one would be dropped
 * silently.  4. Nothing is allocated; strings are borrowed.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "params.h"

#define CACHE_BYTES_MAX        ((uint64_t)1 << 40)
#define COMMIT_INTERVAL_MS_MAX 3600000u /* an hour of unwritten work is plenty */

/* Values come from anywhere: show no more than this of them in a message. */
#define SHOWN_MAX 64

static int
params_digits(const char **text, uint64_t *value)
{
    const char *s = *text;
    uint64_t n = 0;

    if (*s < '0' || *s > '9')
        return -EINVAL;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (__builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*s - '0'), &n))
            return -ERANGE;
    }
    *text = s;
    *value = n;
    return 0;
}

int
kparams_size(const char *text, uint64_t *bytes)
{
    static const char suffixes[] = "bskmgtpe";
    static const unsigned shifts[] = {0, 9, 10, 20, 30, 40, 50, 60};
    uint64_t n = 0;
    unsigned shift = 0;
    int r = params_digits(&text, &n);

    if (r < 0)
        return r;
    if (*text != '\0') {
        int c = *text >= 'A' && *text <= 'Z' ? *text - 'A' + 'a' : *text;
        const char *at = strchr(suffixes, c);

        if (at == NULL || text[1] != '\0')
            return -EINVAL;
        shift = shifts[at - suffixes];
    }
    if (n > (KVFS_FILE_SIZE_MAX >> shift))
        return -ERANGE;
    *bytes = n << shift;
    return 0;
}

int
kparams_check_name(const char *name, struct kvfs_error *err)
{
    const char *part = name, *slash;
    size_t len = strlen(name);

    if (len > KPARAMS_NAME_MAX)
        return kvfs_error_set(err, -EINVAL, "a name of %zu bytes: at most %d are allowed", len,
                              KPARAMS_NAME_MAX);
    if (*part == '/')
        part++;
    for (;; part = slash + 1) {
        slash = strchrnul(part, '/');
        len = (size_t)(slash - part);
        if (len == 0 || (len == 1 && part[0] == '.') ||
            (len == 2 && part[0] == '.' && part[1] == '.'))
            return kvfs_error_set(err, -EINVAL,
                                  "'%.*s': not the path of a file in a volume (empty part, "
                                  "'.' or '..')",
                                  SHOWN_MAX, name);
        if (len > KVFS_NAME_MAX)
            return kvfs_error_set(err, -EINVAL,
                                  "'%.*s...': a name of %zu bytes: at most %d are "
                                  "allowed between slashes",
                                  SHOWN_MAX, part, len, KVFS_NAME_MAX);
        if (*slash == '\0')
            return 0;
    }
}

/* A size between MIN and MAX. */
static int
params_size_between(const char *key, const char *value, uint64_t min, uint64_t max, uint64_t *bytes,
                    struct kvfs_error *err)
{
    int r = kparams_size(value, bytes);

    if (r == -EINVAL)
        return kvfs_error_set(err, -EINVAL,
                              "%s=%.*s: not a size (digits, then at most one of k M G T P E)", key,
                              SHOWN_MAX, value);
    if (r < 0 || *bytes < min || *bytes > max)
        return kvfs_error_set(err, -EINVAL, "%s=%.*s: must be %llu to %llu bytes", key, SHOWN_MAX,
                              value, (unsigned long long)min, (unsigned long long)max);
    return 0;
}

static int
params_set_volume(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    if (*value == '\0')
        return kvfs_error_set(err, -EINVAL, "%s=: the folder of a volume is missing", key);
    p->volume = value;
    return 0;
}

static int
params_set_file(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    struct kvfs_error why = {0};

    if (kparams_check_name(value, &why) < 0)
        return kvfs_error_set(err, -EINVAL, "%s=%.*s: %s", key, SHOWN_MAX, value, why.msg);
    p->file = value;
    return 0;
}

static int
params_set_engine(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    if (*value == '\0')
        return kvfs_error_set(err, -EINVAL, "%s=: the name of an engine is missing", key);
    p->engine = value;
    return 0;
}

/* The engine judges them when it opens. */
static int
params_set_engine_params(struct kparams *p, const char *key, const char *value,
                         struct kvfs_error *err)
{
    (void)key;
    (void)err;
    p->engine_params = *value != '\0' ? value : NULL;
    return 0;
}

static int
params_set_create(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    uint64_t bytes;
    int r = params_size_between(key, value, 512, KVFS_FILE_SIZE_MAX, &bytes, err);

    if (r < 0)
        return r;
    if (bytes % 512 != 0)
        return kvfs_error_set(err, -EINVAL, "%s=%.*s: not a multiple of 512 bytes", key, SHOWN_MAX,
                              value);
    p->create_bytes = bytes;
    return 0;
}

static int
params_set_block_size(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    uint64_t bytes;
    int r = params_size_between(key, value, KVFS_BLOCK_SIZE_MIN, KVFS_BLOCK_SIZE_MAX, &bytes, err);

    if (r < 0)
        return r;
    if ((bytes & (bytes - 1)) != 0)
        return kvfs_error_set(err, -EINVAL, "%s=%.*s: not a power of two", key, SHOWN_MAX, value);
    p->block_size_bytes = (uint32_t)bytes;
    return 0;
}

static int
params_set_cache(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    uint64_t max = CACHE_BYTES_MAX < SIZE_MAX / 2 ? CACHE_BYTES_MAX : SIZE_MAX / 2;
    uint64_t bytes;
    int r = params_size_between(key, value, KVFS_CACHE_BYTES_MIN, max, &bytes, err);

    if (r == 0)
        p->cache_bytes = (size_t)bytes;
    return r;
}

/* Seconds with up to three decimals. */
static int
params_set_commit_interval(struct kparams *p, const char *key, const char *value,
                           struct kvfs_error *err)
{
    const char *s = value;
    uint64_t seconds = 0;
    unsigned ms = 0, scale = 100;
    int r = params_digits(&s, &seconds);

    if (r == 0 && *s == '.') {
        for (s++; *s >= '0' && *s <= '9' && scale > 0; s++, scale /= 10)
            ms += (unsigned)(*s - '0') * scale;
        if (s[-1] == '.')
            r = -EINVAL;
    }
    if (r == -EINVAL || (r == 0 && *s != '\0'))
        return kvfs_error_set(err, -EINVAL, "%s=%.*s: not seconds (such as 5 or 0.25)", key,
                              SHOWN_MAX, value);
    if (r < 0 || seconds > COMMIT_INTERVAL_MS_MAX / 1000 || seconds * 1000 + ms == 0 ||
        seconds * 1000 + ms > COMMIT_INTERVAL_MS_MAX)
        return kvfs_error_set(err, -EINVAL, "%s=%.*s: must be 0.001 to %u seconds", key, SHOWN_MAX,
                              value, COMMIT_INTERVAL_MS_MAX / 1000);
    p->commit_interval_ms = (unsigned)(seconds * 1000) + ms;
    return 0;
}

static int
params_bool(const char *key, const char *value, bool *out, struct kvfs_error *err)
{
    static const char *const yes[] = {"1", "true", "t", "yes", "y", "on"};
    static const char *const no[] = {"0", "false", "f", "no", "n", "off"};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcasecmp(value, yes[i]) == 0 || strcasecmp(value, no[i]) == 0) {
            *out = strcasecmp(value, yes[i]) == 0;
            return 0;
        }
    }
    return kvfs_error_set(err, -EINVAL, "%s=%.*s: must be true or false", key, SHOWN_MAX, value);
}

static int
params_set_readonly(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    return params_bool(key, value, &p->readonly, err);
}

static int
params_set_log(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    p->log_given = true;
    return params_bool(key, value, &p->log, err);
}

static int
params_set_strict(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    return params_bool(key, value, &p->strict, err);
}

int
kparams_set(struct kparams *p, const char *key, const char *value, struct kvfs_error *err)
{
    static const struct {
        const char *key;
        int (*set)(struct kparams *p, const char *key, const char *value, struct kvfs_error *err);
    } table[] = {
        {"volume", params_set_volume},
        {"file", params_set_file},
        {"engine", params_set_engine},
        {"create", params_set_create},
        {"block-size", params_set_block_size},
        {"cache", params_set_cache},
        {"commit-interval", params_set_commit_interval},
        {"readonly", params_set_readonly},
        {"strict", params_set_strict},
        {"log", params_set_log},
        {"engine-params", params_set_engine_params},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(key, table[i].key) != 0)
            continue;
        if ((p->seen & (1u << i)) != 0)
            return kvfs_error_set(err, -EINVAL, "%s=%.*s: %s was given already", key, SHOWN_MAX,
                                  value, key);
        p->seen |= 1u << i;
        return table[i].set(p, key, value, err);
    }
    return kvfs_error_set(err, -EINVAL, "%.*s=%.*s: unknown parameter", SHOWN_MAX, key, SHOWN_MAX,
                          value);
}

int
kparams_complete(const struct kparams *p, struct kvfs_error *err)
{
    if (p->volume == NULL)
        return kvfs_error_set(err, -EINVAL,
                              "volume=PATH is missing: the folder of the volume to serve");
    if (p->create_bytes != 0 && p->file == NULL)
        return kvfs_error_set(err, -EINVAL, "create= needs file=NAME: the file to make");
    if (p->log_given && p->readonly)
        return kvfs_error_set(err, -EINVAL,
                              "log= and readonly=true (or nbdkit -r) exclude each other");
    if (p->log_given && p->engine != NULL && strchr(p->engine, '/') != NULL)
        return kvfs_error_set(err, -EINVAL, "log= and the file of an engine exclude each other: "
                              "a log finds the engine by its name");
    if (p->create_bytes != 0 && p->readonly)
        return kvfs_error_set(err, -EINVAL,
                              "create= and readonly=true (or nbdkit -r) exclude each other");
    if (p->create_bytes == 0 && p->block_size_bytes != 0)
        return kvfs_error_set(err, -EINVAL,
                              "block-size= needs create=SIZE: the block size of a file that is "
                              "there stays");
    return 0;
}
