/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume_file.c - the text file that says what a folder is.
 *
 *     kvfs-volume 1
 *     uuid 0b8d5f0e-....
 *     engine lmdb
 *     log off
 *
 * Any opener finds the engine from it.  It is replaced by rename, so it is
 * always whole.  Unknown lines are refused: a newer kvfs that adds one raises
 * the number in the first line.
 */
#include "volume_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lease.h"
#include "record.h"

#define VOLUME_FILE_MAX 4096

const char *
kvfs_errno_text(int errnum)
{
    return strerrordesc_np(errnum < 0 ? -errnum : errnum);
}

void
kvfs_uuid_text(const uint8_t uuid[16], char text[37])
{
    size_t n = 0;

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            text[n++] = '-';
        (void)snprintf(text + n, 37 - n, "%02x", uuid[i]);
        n += 2;
    }
}

static int
uuid_parse(const char *text, uint8_t uuid[16])
{
    int i = 0;

    for (const char *p = text; *p != '\0'; p += *p == '-' ? 1 : 2) {
        char two[3] = {p[0], (char)(p[0] != '\0' ? p[1] : '\0'), '\0'};

        if (*p == '-')
            continue;
        if (i == 16 || !isxdigit((unsigned char)two[0]) || !isxdigit((unsigned char)two[1]))
            return -EINVAL;
        uuid[i++] = (uint8_t)strtoul(two, NULL, 16);
    }
    return i == 16 ? 0 : -EINVAL;
}

static int
volume_file_line(struct kvfs_volume_file *f, char *line, unsigned *seen)
{
    char *value = strchr(line, ' ');

    if (value == NULL)
        return -EINVAL;
    *value++ = '\0';
    if (strcmp(line, "uuid") == 0) {
        *seen |= 1;
        return uuid_parse(value, f->uuid);
    }
    if (strcmp(line, "engine") == 0) {
        *seen |= 2;
        /* a path would be loaded: who gives away a volume gives no code with it */
        if (value[0] == '\0' || strlen(value) >= sizeof(f->engine) || strchr(value, '/') != NULL ||
            strncmp(value, KVFS_LOG_PREFIX, sizeof(KVFS_LOG_PREFIX) - 1) == 0)
            return -EINVAL;
        memcpy(f->engine, value, strlen(value) + 1);
        return 0;
    }
    if (strcmp(line, "log") == 0) {
        *seen |= 4;
        f->log = strcmp(value, "on") == 0;
        return f->log || strcmp(value, "off") == 0 ? 0 : -EINVAL;
    }
    return -EINVAL;
}

static int
volume_file_parse(struct kvfs_volume_file *f, char *text, const char *path, struct kvfs_error *err)
{
    unsigned seen = 0;
    unsigned long version;
    char *save = NULL;
    char *line = strtok_r(text, "\n", &save);
    char *end;

    if (line == NULL || strncmp(line, "kvfs-volume ", 12) != 0)
        return kvfs_error_set(err, -EINVAL, "%s: not a kvfs volume (file 'volume' is something else)",
                              path);
    version = strtoul(line + 12, &end, 10);
    if (end == line + 12 || *end != '\0')
        return kvfs_error_set(err, -EINVAL, "%s: not a kvfs volume (file 'volume', line 1)", path);
    if (version == 0 || version > KVFS_FORMAT_VERSION)
        return kvfs_error_set(err, -ENOTSUP,
                              "%s: the volume has format %lu, this kvfs knows up to %u", path,
                              version, KVFS_FORMAT_VERSION);
    f->format_version = (uint32_t)version;
    for (int n = 2; (line = strtok_r(NULL, "\n", &save)) != NULL; n++) {
        if (volume_file_line(f, line, &seen) < 0)
            return kvfs_error_set(err, -EINVAL, "%s: file 'volume' is damaged in line %d", path, n);
    }
    if (seen != 7)
        return kvfs_error_set(err, -EINVAL, "%s: file 'volume' is cut off", path);
    return 0;
}

int
kvfs_volume_file_read(const char *path, struct kvfs_volume_file *f, struct kvfs_error *err)
{
    char text[VOLUME_FILE_MAX + 1];
    char name[4096];
    ssize_t n;
    int fd;

    memset(f, 0, sizeof(*f));
    if (snprintf(name, sizeof(name), "%s/volume", path) >= (int)sizeof(name))
        return kvfs_error_set(err, -ENAMETOOLONG, "%.128s...: the path is too long", path);
    fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        if (access(path, F_OK) < 0)
            return kvfs_error_set(err, -errno, "%s: %s", path, kvfs_errno_text(errno));
        return kvfs_error_set(err, -ENOENT, "%s: not a kvfs volume (there is no file 'volume')",
                              path);
    }
    if (fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", name, kvfs_errno_text(errno));
    n = read(fd, text, sizeof(text));
    if (n < 0)
        n = -errno;
    (void)close(fd);
    if (n < 0)
        return kvfs_error_set(err, (int)n, "%s: %s", name, kvfs_errno_text((int)n));
    if (n > VOLUME_FILE_MAX)
        return kvfs_error_set(err, -EINVAL, "%s: not a kvfs volume (file 'volume' is too long)",
                              path);
    text[n] = '\0';
    return volume_file_parse(f, text, path, err);
}

int
kvfs_volume_file_lock(const char *path, const struct kvfs_volume_file *f, bool shared,
                      struct kvfs_lease_table **leasesp, struct kvfs_error *err)
{
    struct kvfs_lease_table *leases;
    struct kvfs_volume_file now;
    int rc = kvfs_lease_table_open(path, shared, !shared, &leases, err);

    if (rc < 0)
        return rc;
    rc = kvfs_volume_file_read(path, &now, err);
    if (rc == 0 && (memcmp(now.uuid, f->uuid, sizeof(now.uuid)) != 0 || now.log != f->log ||
                    now.format_version != f->format_version || strcmp(now.engine, f->engine) != 0))
        rc = kvfs_error_set(err, -EBUSY, "%s: another process changed the volume just now", path);
    if (rc == 0)
        *leasesp = leases;
    else
        kvfs_lease_table_close(leases);
    return rc;
}

void
kvfs_volume_file_engine(const struct kvfs_volume_file *f, char name[KVFS_ENGINE_NAME_CAP])
{
    (void)snprintf(name, KVFS_ENGINE_NAME_CAP, "%s%s", f->log ? KVFS_LOG_PREFIX : "", f->engine);
}

int
kvfs_volume_file_engine_set(struct kvfs_volume_file *f, const char *name)
{
    f->log = strncmp(name, KVFS_LOG_PREFIX, sizeof(KVFS_LOG_PREFIX) - 1) == 0;
    if (f->log)
        name += sizeof(KVFS_LOG_PREFIX) - 1;
    if (strlen(name) >= sizeof(f->engine))
        return -EINVAL;
    memcpy(f->engine, name, strlen(name) + 1);
    return 0;
}

bool
kvfs_volume_file_begins(const char *path)
{
    static const char first[] = "kvfs-volume ";
    char text[sizeof(first) - 1];
    char name[4096];
    bool yes;
    int fd;

    if (snprintf(name, sizeof(name), "%s/volume", path) >= (int)sizeof(name))
        return false;
    fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    yes = read(fd, text, sizeof(text)) == (ssize_t)sizeof(text) &&
          memcmp(text, first, sizeof(text)) == 0;
    (void)close(fd);
    return yes;
}

int
kvfs_fsync_path(const char *path, struct kvfs_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", path, kvfs_errno_text(errno));
    if (fsync(fd) < 0)
        rc = kvfs_error_set(err, -errno, "%s: cannot be synced: %s", path, kvfs_errno_text(errno));
    (void)close(fd);
    return rc;
}

int
kvfs_volume_file_write(const char *path, const struct kvfs_volume_file *f, struct kvfs_error *err)
{
    char text[512];
    char name[4096];
    char temp[4096];
    char uuid[37];
    int fd;
    int len;
    int rc = 0;

    kvfs_uuid_text(f->uuid, uuid);
    len = snprintf(text, sizeof(text), "kvfs-volume %u\nuuid %s\nengine %s\nlog %s\n",
                   f->format_version, uuid, f->engine, f->log ? "on" : "off");
    if (snprintf(name, sizeof(name), "%s/volume", path) >= (int)sizeof(name) ||
        snprintf(temp, sizeof(temp), "%s/volume.new", path) >= (int)sizeof(temp))
        return kvfs_error_set(err, -ENAMETOOLONG, "%.128s...: the path is too long", path);
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", temp, kvfs_errno_text(errno));
    if (write(fd, text, (size_t)len) != len || fsync(fd) < 0)
        rc = kvfs_error_set(err, errno > 0 ? -errno : -EIO, "%s: %s", temp, kvfs_errno_text(errno));
    (void)close(fd);
    if (rc == 0 && rename(temp, name) < 0)
        rc = kvfs_error_set(err, -errno, "%s: %s", name, kvfs_errno_text(errno));
    return rc < 0 ? rc : kvfs_fsync_path(path, err);
}

int
kvfs_local_check(const char *path, struct kvfs_error *err)
{
    static const struct {
        uint32_t magic;
        const char *name;
    } network[] = {
        {0x6969, "NFS"},      {0x517B, "SMB"},      {0xFF534D42, "CIFS"}, {0xFE534D42, "SMB2"},
        {0x01021997, "9p"},   {0x00C36400, "Ceph"}, {0x5346414F, "AFS"},  {0x73757245, "Coda"},
        {0x0BD00BD0, "Lustre"}, {0x47504653, "GPFS"},
    };
    struct statfs fs;

    if (statfs(path, &fs) < 0)
        return kvfs_error_set(err, -errno, "%s: %s", path, kvfs_errno_text(errno));
    for (size_t i = 0; i < sizeof(network) / sizeof(network[0]); i++) {
        if ((uint32_t)fs.f_type == network[i].magic)
            return kvfs_error_set(err, -ENOTSUP,
                                  "%s: lies on a network file system (%s); use force if only this "
                                  "machine ever uses it",
                                  path, network[i].name);
    }
    return 0;
}
