/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The text file `volume`: whatever it holds, reading answers 0, -EINVAL or
 * -ENOTSUP, and what was read is read again after it was written.  The input is
 * the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../kvfs/volume_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/kvfs-fuzz-XXXXXX"; /* in memory: a file system would be slow */
static char name[sizeof(folder) + 8];

static void
must(bool holds)
{
    if (!holds)
        abort();
}

static void
fuzz_end(void)
{
    (void)unlink(name);
    (void)rmdir(folder);
}

static void
fuzz_put(const uint8_t *data, size_t size)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    must(close(fd) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kvfs_volume_file f, again;
    struct kvfs_error err;
    char text[512];
    char uuid[37];
    int rc, len;

    if (name[0] == '\0') {
        must(mkdtemp(folder) != NULL && atexit(fuzz_end) == 0);
        (void)snprintf(name, sizeof(name), "%s/volume", folder);
    }
    fuzz_put(data, size);
    rc = kvfs_volume_file_read(folder, &f, &err);
    must(rc == 0 || rc == -EINVAL || rc == -ENOTSUP);
    if (rc != 0) {
        must(err.code == rc && err.msg[0] != '\0' && strchr(err.msg, '\n') == NULL);
        return 0;
    }
    /* As kvfs_volume_file_write() would, but without its syncs. */
    kvfs_uuid_text(f.uuid, uuid);
    len = snprintf(text, sizeof(text), "kvfs-volume %u\nuuid %s\nengine %s\nlog %s\n",
                   f.format_version, uuid, f.engine, f.log ? "on" : "off");
    must(len > 0 && len < (int)sizeof(text));
    fuzz_put((const uint8_t *)text, (size_t)len);
    must(kvfs_volume_file_read(folder, &again, &err) == 0);
    must(again.format_version == f.format_version && again.log == f.log &&
         memcmp(again.uuid, f.uuid, sizeof(f.uuid)) == 0 && strcmp(again.engine, f.engine) == 0);
    return 0;
}
