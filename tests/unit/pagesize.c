/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pagesize.c - preloaded, makes the system say that its pages are 16 KiB, as those
 * of a Raspberry Pi 5 are: LMDB then makes its stores of such pages.
 *
 * Maps of a file from its start with any length are as valid on 4 KiB pages.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGESIZE_BYTES 16384

long
sysconf(int name)
{
    static long (*next)(int);

    if (name == _SC_PAGESIZE)
        return PAGESIZE_BYTES;
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "sysconf");
    if (next == NULL)
        abort();
    return next(name);
}

int
getpagesize(void)
{
    return PAGESIZE_BYTES;
}
