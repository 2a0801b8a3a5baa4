/* SPDX-License-Identifier: BSD-3-Clause
 *
 * writeback.c - see writeback.h.
 */
#include "writeback.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "random.h"

static uint64_t writeback_seed;

static int
writeback_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    int fd;

    (void)st;
    (void)ftw;
    if (type != FTW_F || crashsim_random(&writeback_seed) % 3 != 0)
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        (void)close(fd);
    }
    return 0;
}

pid_t
writeback_start(const char *folder, uint64_t seed)
{
    pid_t self = getpid(), pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid != 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    writeback_seed = seed;
    while (getppid() == self) {
        struct timespec pause = {.tv_nsec = (long)(crashsim_random(&writeback_seed) % 4000000)};

        /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
        (void)nftw(folder, writeback_one, 8, FTW_PHYS);
        (void)nanosleep(&pause, NULL);
    }
    _exit(0);
}
