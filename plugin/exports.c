/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exports.c - export names.
 *
 * An export name is the path of a regular file in the volume.  Clients are not
 * trusted with more than that: "..", empty parts, folders, links as the last
 * part and special files are refused, each in one line.  Links on the way are
 * the volume's own business and cannot leave it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "exports.h"

#define SHOWN_MAX 64

int
kexports_find(struct kvfs_volume *v, const char *name, struct kvfs_attr *attr,
              struct kvfs_error *err)
{
    struct kvfs_error why = {0};
    struct kvfs_attr found;
    int r = kparams_check_name(name, &why);

    if (r == 0)
        r = kvfs_path_lookup(v, name, false, &found, &why);
    if (r != 0)
        return kvfs_error_set(err, r, "export: %s", why.msg);
    if (S_ISDIR(found.mode))
        return kvfs_error_set(err, -EISDIR, "export '%.*s' is a folder", SHOWN_MAX, name);
    if (S_ISLNK(found.mode))
        return kvfs_error_set(err, -ELOOP, "export '%.*s' is a symbolic link", SHOWN_MAX, name);
    if (!S_ISREG(found.mode))
        return kvfs_error_set(err, -EINVAL, "export '%.*s' is no regular file", SHOWN_MAX, name);
    *attr = found;
    return 0;
}

struct only_file {
    char *name;
    unsigned files, entries;
};

static int
exports_only_file(void *arg, const struct kvfs_dirent *entry)
{
    struct only_file *only = arg;

    if (S_ISREG(entry->type) && only->files++ == 0)
        memcpy(only->name, entry->name, entry->name_len + 1);
    return only->files > 1 || ++only->entries > KEXPORTS_LIST_MAX;
}

int
kexports_default(struct kvfs_volume *v, const char *file, char *name, struct kvfs_error *err)
{
    struct only_file only = {.name = name};
    int r;

    if (file != NULL) {
        memcpy(name, file, strlen(file) + 1); /* at most KPARAMS_NAME_MAX: kparams_set() checked */
        return 0;
    }
    r = kvfs_readdir(v, KVFS_ROOT_INO, 0, exports_only_file, &only, err);
    if (r < 0)
        return r;
    if (only.files == 0)
        return kvfs_error_set(err, -ENOENT,
                              "no default export: there is no file in the volume's root; "
                              "name one (file=NAME)");
    if (only.files > 1 || r > 0)
        return kvfs_error_set(err, -ENOENT,
                              "no default export: there is more than one file in the volume's "
                              "root; name one (file=NAME)");
    return 0;
}

void
kexports_describe(uint64_t size_bytes, uint32_t block_size_bytes, char *text)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    uint64_t n = size_bytes;
    size_t unit = 0;

    while (n >= 1024 && n % 1024 == 0 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        n /= 1024;
        unit++;
    }
    (void)snprintf(text, KEXPORTS_DESCRIPTION_MAX, "%llu %s, blocks of %u bytes",
                   (unsigned long long)n, units[unit], block_size_bytes);
}

/* --- listing --------------------------------------------------------------- */

struct folder { /* still to be listed */
    struct folder *next;
    uint64_t ino;
    char path[]; /* "" or "a/b/" */
};

struct listing {
    struct kvfs_volume *v;
    struct folder *first, **last;
    const struct folder *present;
    unsigned entries;
    int (*fn)(void *arg, const char *name, const char *description);
    void *arg;
};

/* NBD names are UTF-8; those of files are any bytes. */
static bool
exports_is_utf8(const char *name)
{
    const unsigned char *s = (const unsigned char *)name;

    while (*s != '\0') {
        int more = *s < 0x80                 ? 0
                   : *s >= 0xc2 && *s < 0xe0 ? 1
                   : *s >= 0xe0 && *s < 0xf0 ? 2
                   : *s >= 0xf0 && *s < 0xf5 ? 3
                                             : -1;

        if (more < 0 || (*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f) ||
            (*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] > 0x8f))
            return false;
        for (s++; more > 0; more--, s++) {
            if ((*s & 0xc0) != 0x80)
                return false;
        }
    }
    return true;
}

/* Say, to who looks for it (nbdkit -v), that an entry is not in the list.  Its
 * name is no text: bytes other than ASCII's letters and signs are shown as \xNN. */
static void
exports_left_out(const char *path, const char *name, const char *why)
{
    char shown[4 * SHOWN_MAX + 1];
    size_t at = 0, i;

    for (i = 0; name[i] != '\0' && i < SHOWN_MAX; i++) {
        unsigned char ch = (unsigned char)name[i];

        if (ch < ' ' || ch >= 0x7f || ch == '\\')
            at += (size_t)snprintf(shown + at, 5, "\\x%02x", ch);
        else
            shown[at++] = (char)ch;
    }
    nbdkit_debug("not in the list of exports: '%.*s%s' in '/%.*s': %s", (int)at, shown,
                 name[i] != '\0' ? "..." : "", SHOWN_MAX, path, why);
}

static int
exports_push(struct listing *l, uint64_t ino, const char *above, const char *name)
{
    size_t len = strlen(above) + strlen(name) + 2;
    struct folder *f = malloc(sizeof(*f) + len);

    if (f == NULL)
        return -ENOMEM;
    f->next = NULL;
    f->ino = ino;
    (void)snprintf(f->path, len, "%s%s%s", above, name, *name != '\0' ? "/" : "");
    *l->last = f;
    l->last = &f->next;
    return 0;
}

static int
exports_entry(void *arg, const struct kvfs_dirent *entry)
{
    struct listing *l = arg;
    char name[KPARAMS_NAME_MAX + 1], text[KEXPORTS_DESCRIPTION_MAX];
    struct kvfs_error err = {0};
    struct kvfs_attr attr;
    int n;

    if (++l->entries > KEXPORTS_LIST_MAX)
        return 1;
    if (!S_ISREG(entry->type) && !S_ISDIR(entry->type))
        return 0;
    n = snprintf(name, sizeof(name), "%s%s", l->present->path, entry->name);
    if (!exports_is_utf8(entry->name)) {
        exports_left_out(l->present->path, entry->name, "the name is not UTF-8");
        return 0;
    }
    if (n >= (int)sizeof(name)) {
        exports_left_out(l->present->path, entry->name, "the path is longer than 4096 bytes");
        return 0;
    }
    if (S_ISDIR(entry->type))
        return exports_push(l, entry->ino, l->present->path, entry->name);
    /* One that is damaged or just gone is listed by nobody's mistake: skip it. */
    if (kvfs_getattr(l->v, entry->ino, &attr, &err) < 0) {
        exports_left_out(l->present->path, entry->name, err.msg);
        return 0;
    }
    kexports_describe(attr.size_bytes, attr.block_size_bytes, text);
    return l->fn(l->arg, name, text);
}

int
kexports_list(struct kvfs_volume *v,
              int (*fn)(void *arg, const char *name, const char *description), void *arg,
              struct kvfs_error *err)
{
    struct listing l = {.v = v, .fn = fn, .arg = arg};
    struct folder *f;
    int r;

    l.last = &l.first;
    r = exports_push(&l, KVFS_ROOT_INO, "", "");
    while (r == 0 && (f = l.first) != NULL) {
        l.present = f;
        r = kvfs_readdir(v, f->ino, 0, exports_entry, &l, err);
        if (r == -ENOENT) /* removed meanwhile */
            r = 0;
        l.first = f->next;
        if (l.first == NULL)
            l.last = &l.first;
        free(f);
    }
    while ((f = l.first) != NULL) {
        l.first = f->next;
        free(f);
    }
    if (r == -ENOMEM)
        return kvfs_error_set(err, r, "no memory for the list of exports");
    if (r != 1 || l.entries <= KEXPORTS_LIST_MAX)
        return r;
    nbdkit_debug("the list of exports ends here: %d entries were looked through",
                 KEXPORTS_LIST_MAX);
    return 0;
}
