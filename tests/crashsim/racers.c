/* SPDX-License-Identifier: BSD-3-Clause
 *
 * racers.c - a program for `crashsim trace`: processes and threads that change the same files at once.
 * What a trace of it says is what it left, or the trace is wrong.
 *
 *     racers FOLDER SEED
 *     racers FOLDER long      a write of more bytes than a trace takes
 *     racers FOLDER many      a log that is never synced
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"

#define ROUNDS  150
#define RACERS  3 /* processes; each of two threads */
#define ENDED   60 /* processes, of so many threads */
#define ENDING  4
#define ENDING_WRITES 50
#define PLACES  8
#define LENGTH  900
#define MAPPED  8192

static int shared, appended, places;
static uint64_t seed;

static void
check(int good, const char *what)
{
    if (!good) {
        perror(what);
        _exit(1);
    }
}

/* One file has one position for all, one grows from all sides, one is written at the same places, and
 * names come and go. */
static void
race(unsigned number)
{
    uint64_t random = crashsim_hash2(seed, number);
    char bytes[LENGTH], name[32], name2[32];

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t r = crashsim_random(&random);
        size_t n = 1 + r % (LENGTH - 1);
        struct iovec iov[2] = {{bytes, n / 2}, {bytes + n / 2, n - n / 2}};
        int fd;

        memset(bytes, 'a' + (int)(r >> 20) % 26, sizeof(bytes));
        check(write(shared, bytes, n) == (ssize_t)n, "shared");
        check(writev(appended, iov, 2) == (ssize_t)n, "appended");
        check(pwrite(places, bytes, n, (off_t)(r >> 32) % PLACES * 100) == (ssize_t)n, "places");
        if (r >> 60 == 0)
            check(ftruncate(appended, (off_t)(r % 5000)) == 0, "truncate");
        (void)snprintf(name, sizeof(name), "n%d", (int)(r >> 40) % 4);
        (void)snprintf(name2, sizeof(name2), "n%d", (int)(r >> 44) % 4);
        fd = open(name, O_WRONLY | O_CREAT, 0600);
        if (fd >= 0) {
            check(pwrite(fd, bytes, 10, 10 * (off_t)number) == 10, "named");
            (void)close(fd);
        }
        (void)((r >> 50 & 1) != 0 ? rename(name, name2) : (r >> 51 & 1) != 0 ? unlink(name) : 0);
    }
}

static void *
race_thread(void *number)
{
    race((unsigned)(uintptr_t)number);
    return NULL;
}

static void
race_process(unsigned number)
{
    pthread_t thread;

    check(pthread_create(&thread, NULL, race_thread, (void *)(uintptr_t)(2 * number)) == 0, "thread");
    race(2 * number + 1);
    (void)pthread_join(thread, NULL);
    _exit(0);
}

/* Who is done first ends the process, and the others in the middle of their calls. */
static void *
write_on(void *number)
{
    char name[32], bytes[100];
    int fd;

    (void)snprintf(name, sizeof(name), "ended%d", (int)(uintptr_t)number);
    fd = open(name, O_WRONLY | O_CREAT, 0600);
    check(fd >= 0, name);
    for (int i = 0; i < ENDING_WRITES; i++) {
        memset(bytes, 'a' + i % 26, sizeof(bytes));
        check(pwrite(fd, bytes, sizeof(bytes), (off_t)i % PLACES * 100) == sizeof(bytes), name);
    }
    _exit(0);
}

static void
end_early(void)
{
    pthread_t thread;

    for (unsigned i = 0; i < ENDING; i++)
        check(pthread_create(&thread, NULL, write_on, (void *)(uintptr_t)i) == 0, "thread");
    (void)write_on((void *)(uintptr_t)ENDING);
}

/* A mapping that was made for reading, and became one for writing. */
static void
store(void)
{
    int fd = open("mapped", O_RDWR | O_CREAT, 0600);
    char *bytes;

    check(fd >= 0 && ftruncate(fd, MAPPED) == 0, "mapped");
    bytes = mmap(NULL, MAPPED, PROT_READ, MAP_SHARED, fd, 0);
    check(bytes != MAP_FAILED && mprotect(bytes, MAPPED, PROT_READ | PROT_WRITE) == 0, "mprotect");
    memset(bytes + 100, 'm', 5000);
    check(msync(bytes, MAPPED, MS_SYNC) == 0, "msync");
    (void)close(fd);
}

/* Two pages of a file are stored into, a write lies across their border, and the first of them, or both, are
 * synced. */
static int
store_pages(bool all)
{
    char across[200];
    int fd = open("pages", O_RDWR);
    char *bytes = fd < 0 ? MAP_FAILED : mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    check(bytes != MAP_FAILED, "pages");
    memset(bytes, 'a', 4096);
    memset(bytes + 4096, 'b', 4096);
    memset(across, 'w', sizeof(across));
    check(pwrite(fd, across, sizeof(across), 4000) == sizeof(across), "pages");
    check(mprotect(bytes, 4096, PROT_READ) == 0, "mprotect"); /* two mappings */
    check(msync(bytes, all ? 8192 : 1, MS_SYNC) == 0, "msync");
    (void)close(fd);
    return 0;
}

/* Calls that few programs make. */
static void
corners(void)
{
    char text[] = "appended";
    struct iovec iov = {text, 8};
    long context = 0;
    int fd;

    check(mknod("node", S_IFREG | 0600, 0) == 0, "mknod");
    fd = open("node", O_WRONLY);
    check(fd >= 0 && pwritev2(fd, &iov, 1, 0, 0) == 8, "pwritev2");
    check(pwritev2(fd, &iov, 1, 0, RWF_APPEND) == 8, "RWF_APPEND");
    check(syscall(SYS_io_setup, 1, &context) < 0 && errno == ENOSYS, "linux-aio was not refused");
    (void)close(fd);
}

/* The kernel writes what a limit leaves of it. */
static int
write_long(void)
{
    size_t n = ((size_t)1 << 30) + ((size_t)64 << 20);
    struct rlimit limit = {4096, 4096};
    struct iovec iov = {mmap(NULL, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), n};
    int fd = open("long", O_WRONLY | O_CREAT, 0600);

    (void)signal(SIGXFSZ, SIG_IGN);
    check(iov.iov_base != MAP_FAILED && fd >= 0 && setrlimit(RLIMIT_FSIZE, &limit) == 0, "long");
    check(writev(fd, &iov, 1) == 4096, "writev");
    return 0;
}

static int
write_many(void)
{
    int fd = open("many", O_WRONLY | O_CREAT | O_APPEND, 0600);
    char bytes[100];

    for (int i = 0; i < 20000; i++) {
        memset(bytes, 'a' + i % 26, sizeof(bytes));
        check(write(fd, bytes, sizeof(bytes)) == sizeof(bytes), "many");
    }
    return 0;
}

int
main(int argc, char **argv)
{
    int status, failed = 0;

    check(argc == 3 && chdir(argv[1]) == 0, "racers FOLDER SEED");
    if (strcmp(argv[2], "long") == 0)
        return write_long();
    if (strcmp(argv[2], "page") == 0 || strcmp(argv[2], "pages") == 0)
        return store_pages(strcmp(argv[2], "pages") == 0);
    if (strcmp(argv[2], "many") == 0)
        return write_many();
    seed = strtoull(argv[2], NULL, 10);
    shared = open("shared", O_WRONLY | O_CREAT, 0600);
    appended = open("appended", O_WRONLY | O_CREAT | O_APPEND, 0600);
    places = open("places", O_WRONLY | O_CREAT, 0600);
    check(shared >= 0 && appended >= 0 && places >= 0, "open");
    store();
    corners();
    for (unsigned i = 0; i < RACERS + ENDED; i++) {
        pid_t pid = fork();

        check(pid >= 0, "fork");
        if (pid == 0 && i < RACERS)
            race_process(i);
        if (pid == 0)
            end_early();
        if (i >= RACERS)
            (void)waitpid(pid, &status, 0);
    }
    while (wait(&status) > 0)
        failed |= status;
    return failed != 0;
}
