/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fake_nfs.c - preloaded, makes every path below $FAKE_NFS a network file system.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

int
statfs(const char *path, struct statfs *fs)
{
    int (*real)(const char *, struct statfs *);
    const char *fake = getenv("FAKE_NFS"); /* NOLINT(concurrency-mt-unsafe): never set */
    int rc;

    *(void **)&real = dlsym(RTLD_NEXT, "statfs");
    rc = real(path, fs);
    if (rc == 0 && fake != NULL && strncmp(path, fake, strlen(fake)) == 0)
        fs->f_type = 0x6969;
    return rc;
}
