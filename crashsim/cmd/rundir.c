/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rundir.c - see rundir.h.
 *
 * A folder is ours by four signs: its name, its mode, whose it is, and the first line of `owner`, which
 * says the number in the name once more.  One without that line may be a folder that is being made:
 * it is left alone while the process that its name tells lives, and loses nothing but an empty `owner`
 * after that.
 */
#include "rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/loop.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUNDIR_PREFIX  "crashsim-"
#define RUNDIR_SIGN    "run of crashsim %d" /* so begins the first line of `owner` */
#define RUNDIR_KILL_MS 5000
#define RUNDIR_END_S   10 /* for the children of a run that was killed */
#define RUNDIR_MOUNTS  256 /* of one run */
#define RUNDIR_ROUNDS  16  /* of looking for processes: one may not die */
#define RUNDIR_EXITING 4   /* the kernel's PF_EXITING */

struct rundir {
    char path[PATH_MAX];
    int owner; /* `owner`, locked */
};

/* The file WHAT of process PID; false: no such process. */
static bool
rundir_proc(pid_t pid, const char *what, char *text, size_t cap)
{
    char name[64];
    ssize_t n;
    int fd;

    (void)snprintf(name, sizeof(name), "/proc/%d/%s", (int)pid, what);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, cap - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* A numeric field of /proc/PID/stat, from 4 on; 0: no such process. */
static uint64_t
rundir_stat(pid_t pid, int number)
{
    char text[1024], *p = NULL;

    if (rundir_proc(pid, "stat", text, sizeof(text)))
        p = strrchr(text, ')'); /* a name may hold anything */
    for (int field = 2; p != NULL && field < number; field++)
        p = strchr(p + 1, ' ');
    return p != NULL ? strtoull(p + 1, NULL, 10) : 0;
}

static uint64_t
rundir_start_time(pid_t pid)
{
    return rundir_stat(pid, 22);
}

int
rundir_open(const char *parent, struct rundir **dir)
{
    const char *tmp = parent != NULL ? parent : getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe) */
    struct rundir *d = calloc(1, sizeof(*d));
    char real[PATH_MAX], owner[PATH_MAX];
    int r;

    if (d == NULL)
        return -ENOMEM;
    if (realpath(tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp", real) == NULL ||
        snprintf(d->path, sizeof(d->path), "%s/" RUNDIR_PREFIX "%d.XXXXXX", real, (int)getpid()) >=
            (int)sizeof(d->path) - 64 ||
        mkdtemp(d->path) == NULL) {
        r = errno != 0 ? -errno : -ENAMETOOLONG;
        free(d);
        return r;
    }
    d->owner = open(rundir_file(d, "owner", owner, sizeof(owner)),
                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_APPEND, 0600);
    /* Whoever sweeps may hold it for an instant, to see whether we live. */
    if (d->owner < 0 || flock(d->owner, LOCK_EX) < 0 ||
        dprintf(d->owner, RUNDIR_SIGN " %" PRIu64 "\n", (int)getpid(), rundir_start_time(getpid())) < 0) {
        r = -errno;
        if (d->owner >= 0)
            (void)close(d->owner);
        (void)unlink(owner);
        (void)rmdir(d->path);
        free(d);
        return r;
    }
    *dir = d;
    return 0;
}

const char *
rundir_path(const struct rundir *d)
{
    return d->path;
}

const char *
rundir_file(const struct rundir *d, const char *name, char *buf, size_t size)
{
    (void)snprintf(buf, size, "%s/%s", d->path, name);
    return buf;
}

int
rundir_note(struct rundir *d, pid_t pid)
{
    return dprintf(d->owner, "pid %d %" PRIu64 "\n", (int)pid, rundir_start_time(pid)) < 0 ? -EIO
                                                                                           : 0;
}

/* --- taking down --- */

static bool
rundir_is_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    return strncmp(path, folder, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* Kill PID if it is the one that began at START, and wait for its end. */
static bool
rundir_kill(pid_t pid, uint64_t start)
{
    int fd = pid > 1 ? pidfd_open(pid, 0) : -1;
    struct pollfd end = {.fd = fd, .events = POLLIN};
    bool killed = false;

    if (fd < 0)
        return false;
    if (start != 0 && rundir_start_time(pid) == start && pidfd_send_signal(fd, SIGKILL, NULL, 0) == 0) {
        (void)poll(&end, 1, RUNDIR_KILL_MS);
        killed = true;
    }
    (void)close(fd);
    return killed;
}

static void
rundir_kill_all(const char *path, struct rundir_swept *swept)
{
    char name[PATH_MAX], line[128];
    FILE *f;

    (void)snprintf(name, sizeof(name), "%s/owner", path);
    f = fopen(name, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        int pid;
        uint64_t start;

        /* NOLINTNEXTLINE(cert-err34-c): we wrote it; nonsense names no process that began then */
        if (sscanf(line, "pid %d %" SCNu64, &pid, &start) == 2 && rundir_kill(pid, start))
            swept->processes++;
    }
    if (f != NULL)
        (void)fclose(f);
}

/* Does the environment of PID say that it checks a state below PATH? */
static bool
rundir_checks(pid_t pid, const char *path)
{
    static const char key[] = "CRASHSIM_STATE=";
    char name[64], *entry = NULL;
    bool found = false;
    size_t cap = 0;
    FILE *f;

    (void)snprintf(name, sizeof(name), "/proc/%d/environ", (int)pid);
    f = fopen(name, "re");
    while (f != NULL && !found && getdelim(&entry, &cap, '\0', f) > 0)
        found = strncmp(entry, key, sizeof(key) - 1) == 0 &&
                rundir_is_below(entry + sizeof(key) - 1, path);
    free(entry);
    if (f != NULL)
        (void)fclose(f);
    return found;
}

/* What a check started, in whatever group or session it is; again, as long as one is found, which may
 * have started others meanwhile. */
static void
rundir_kill_checks(const char *path, struct rundir_swept *swept)
{
    unsigned before, rounds = RUNDIR_ROUNDS;

    do {
        DIR *proc = opendir("/proc");
        struct dirent *e;

        before = swept->processes;
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
        while (proc != NULL && (e = readdir(proc)) != NULL) {
            pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
            uint64_t start = pid > 1 && pid != getpid() ? rundir_start_time(pid) : 0;

            if (start != 0 && rundir_checks(pid, path) && rundir_kill(pid, start))
                swept->processes++;
        }
        if (proc != NULL)
            (void)closedir(proc);
    } while (swept->processes > before && --rounds > 0);
}

/* The octal escapes of mountinfo. */
static void
rundir_unescape(char *s)
{
    char *to = s;

    for (; *s != '\0'; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] != '\0' && s[3] != '\0') {
            *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *to++ = *s;
        }
    }
    *to = '\0';
}

/* Does a file below PATH lie behind the loop device NAME? */
static bool
rundir_is_behind(const char *name, const char *path)
{
    char text[PATH_MAX] = "";
    bool below = false;
    FILE *f;

    (void)snprintf(text, sizeof(text), "/sys/block/%s/loop/backing_file", name);
    f = fopen(text, "re");
    if (f == NULL)
        return false;
    if (fgets(text, sizeof(text), f) != NULL) {
        text[strcspn(text, "\n")] = '\0';
        below = rundir_is_below(text, path);
    }
    (void)fclose(f);
    return below;
}

/* Is the mount of this line of mountinfo one of such a device? */
static bool
rundir_is_loop_mount(const char *line, const char *path)
{
    int minor;
    char name[32];

    if (sscanf(line, "%*d %*d 7:%d ", &minor) != 1) /* NOLINT(cert-err34-c): the kernel wrote it */
        return false;
    (void)snprintf(name, sizeof(name), "loop%d", minor);
    return rundir_is_behind(name, path);
}

/* The last mount point that is below PATH, or of a loop device over a file there; *POINT is malloced. */
static bool
rundir_last_mount(const char *path, char **point)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t cap = 0;

    *point = NULL;
    while (f != NULL && getline(&line, &cap, f) > 0) {
        bool ours = rundir_is_loop_mount(line, path);
        char *p = line, *end;

        for (int field = 0; field < 4 && p != NULL; field++) {
            p = strchr(p, ' ');
            p = p != NULL ? p + 1 : NULL;
        }
        end = p != NULL ? strchr(p, ' ') : NULL;
        if (end == NULL)
            continue;
        *end = '\0';
        rundir_unescape(p);
        if (ours || rundir_is_below(p, path)) {
            free(*point);
            *point = strdup(p);
        }
    }
    free(line);
    if (f != NULL)
        (void)fclose(f);
    return *point != NULL;
}

/* Without root, fusermount3 takes a FUSE mount down. */
static int
rundir_unmount(const char *point)
{
    pid_t pid;
    int status, error;

    if (umount2(point, 0) == 0 || umount2(point, MNT_DETACH) == 0)
        return 0;
    error = errno;
    pid = fork();
    if (pid == 0) {
        (void)execlp("fusermount3", "fusermount3", "-u", "-z", "-q", point, (char *)NULL);
        _exit(127);
    }
    if (pid > 0 && waitpid(pid, &status, 0) == pid && status == 0)
        return 0;
    return -error;
}

static int
rundir_unmount_all(const char *path, struct rundir_swept *swept)
{
    char *point;
    int r = 0;

    for (int i = 0; r == 0 && i < RUNDIR_MOUNTS && rundir_last_mount(path, &point); i++) {
        r = rundir_unmount(point);
        if (r == 0)
            swept->mounts++;
        free(point);
    }
    return r;
}

static int
rundir_detach(const char *name)
{
    char device[300];
    int fd, r;

    (void)snprintf(device, sizeof(device), "/dev/%s", name);
    fd = open(device, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = ioctl(fd, LOOP_CLR_FD) < 0 && errno != ENXIO ? -errno : 0;
    (void)close(fd);
    return r;
}

static int
rundir_detach_all(const char *path, struct rundir_swept *swept)
{
    DIR *sys = opendir("/sys/block");
    struct dirent *e;
    int r = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
    while (sys != NULL && (e = readdir(sys)) != NULL) {
        if (strncmp(e->d_name, "loop", 4) == 0 && rundir_is_behind(e->d_name, path)) {
            int failed = rundir_detach(e->d_name);

            r = r == 0 ? failed : r;
            swept->loops += failed == 0;
        }
    }
    if (sys != NULL)
        (void)closedir(sys);
    return r;
}

static int
rundir_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    return (type == FTW_DP ? rmdir(path) : unlink(path)) < 0 ? errno : 0;
}

static int
rundir_free(const char *path, struct rundir_swept *swept)
{
    int r, detached;

    rundir_kill_checks(path, swept);
    r = rundir_unmount_all(path, swept);
    detached = rundir_detach_all(path, swept);
    return r == 0 ? detached : r;
}

int
rundir_release(const char *path)
{
    struct rundir_swept swept = {0};

    return rundir_free(path, &swept);
}

static int
rundir_take_down(const char *path, struct rundir_swept *swept)
{
    int r;

    rundir_kill_all(path, swept);
    r = rundir_free(path, swept);
    if (r < 0)
        return r;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this command has one thread */
    r = nftw(path, rundir_remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return r < 0 ? -errno : -r;
}

int
rundir_close(struct rundir *d)
{
    struct rundir_swept swept = {0};
    int r;

    if (d == NULL)
        return 0;
    r = rundir_take_down(d->path, &swept);
    (void)close(d->owner);
    free(d);
    return r;
}

/* --- sweeping --- */

/* Is NAME one that rundir_open() gives?  *PID: whose. */
static bool
rundir_is_name(const char *name, pid_t *pid)
{
    const char *p = name + strlen(RUNDIR_PREFIX);
    size_t digits;

    if (strncmp(name, RUNDIR_PREFIX, strlen(RUNDIR_PREFIX)) != 0)
        return false;
    digits = strspn(p, "0123456789");
    if (digits == 0 || digits > 9 || p[0] == '0' || p[digits] != '.')
        return false;
    *pid = (pid_t)strtol(p, NULL, 10);
    for (p += digits + 1; *p != '\0'; p++) {
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9')))
            return false;
    }
    return p - name - (ptrdiff_t)(strlen(RUNDIR_PREFIX) + digits + 1) == 6;
}

enum rundir_state {
    RUNDIR_FOREIGN, /* or alive: left alone */
    RUNDIR_UNBORN,  /* its run died before it wrote anything */
    RUNDIR_DEAD,
    RUNDIR_ENDING, /* dead, and something of it holds the lock still */
};

/* Is LINE the first of an `owner` of PID?  *START: when that began, 0: not known. */
static bool
rundir_is_sign(const char *line, pid_t pid, uint64_t *start)
{
    char sign[64], *end;
    size_t n = (size_t)snprintf(sign, sizeof(sign), RUNDIR_SIGN, (int)pid);

    *start = 0;
    if (strncmp(line, sign, n) != 0)
        return false;
    if (line[n] != ' ')
        return line[n] == '\n';
    *start = strtoull(line + n + 1, &end, 10);
    return *end == '\n';
}

/* Has PID, which began at START, ended?  A large one that was killed does so for a while: it exits, or
 * has not yet seen its SIGKILL. */
static bool
rundir_is_dead(pid_t pid, uint64_t start)
{
    uint64_t now = rundir_start_time(pid);
    char status[4096];

    if (now == 0 || (start != 0 && now != start) || (rundir_stat(pid, 9) & RUNDIR_EXITING) != 0 ||
        !rundir_proc(pid, "status", status, sizeof(status)))
        return true;
    for (char *p = status; (p = strstr(p, "Pnd:\t")) != NULL; p++) { /* SigPnd and ShdPnd */
        if ((strtoull(p + 5, NULL, 16) & UINT64_C(1) << (SIGKILL - 1)) != 0)
            return true;
    }
    return false;
}

static void
rundir_woken(int signal)
{
    (void)signal;
}

/* Take the lock of a run that is dead, as soon as its children let go of it. */
static int
rundir_wait(int lock)
{
    struct sigaction wake = {.sa_handler = rundir_woken}, before; /* without SA_RESTART */
    struct itimerval tick = {{1, 0}, {1, 0}}, none = {{0, 0}, {0, 0}};
    int r = -1;

    (void)sigaction(SIGALRM, &wake, &before);
    (void)setitimer(ITIMER_REAL, &tick, NULL);
    for (int i = 0; i < RUNDIR_END_S && r < 0; i++)
        r = flock(lock, LOCK_EX);
    (void)setitimer(ITIMER_REAL, &none, NULL);
    (void)sigaction(SIGALRM, &before, NULL);
    return r;
}

/* What is the folder PATH of PID?  Unless it is foreign or ending *LOCK holds its lock, or is -1. */
static enum rundir_state
rundir_look(const char *path, pid_t pid, bool only_look, int *lock)
{
    char owner[PATH_MAX], line[64] = "";
    uint64_t start;
    enum rundir_state state = RUNDIR_FOREIGN;
    bool gone = kill(pid, 0) < 0 && errno == ESRCH;
    struct stat st;
    ssize_t n;

    if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 07777) != 0700)
        return RUNDIR_FOREIGN;
    (void)snprintf(owner, sizeof(owner), "%s/owner", path);
    *lock = open(owner, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*lock < 0)
        return errno == ENOENT && gone ? RUNDIR_UNBORN : RUNDIR_FOREIGN;
    n = pread(*lock, line, sizeof(line) - 1, 0);
    if (fstat(*lock, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid()) {
        bool free = flock(*lock, LOCK_EX | LOCK_NB) == 0, ours = rundir_is_sign(line, pid, &start);

        if (ours && !free && rundir_is_dead(pid, start))
            state = only_look || rundir_wait(*lock) == 0 ? RUNDIR_DEAD : RUNDIR_ENDING;
        else if (ours && free)
            state = RUNDIR_DEAD;
        else if (free && n == 0 && gone)
            state = RUNDIR_UNBORN;
        if (fstat(*lock, &st) < 0 || st.st_nlink == 0) /* another one took it down meanwhile */
            state = RUNDIR_FOREIGN;
    }
    if (state == RUNDIR_FOREIGN || state == RUNDIR_ENDING) {
        (void)close(*lock);
        *lock = -1;
    }
    return state;
}

/* Anything else in it, and it is not ours: -ENOTEMPTY. */
static int
rundir_remove_unborn(const char *path, bool only_look)
{
    struct dirent *e;
    DIR *folder = opendir(path);
    char owner[PATH_MAX];
    int r = 0;

    if (folder == NULL)
        return -errno;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
    while (r == 0 && (e = readdir(folder)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            strcmp(e->d_name, "owner") != 0)
            r = -ENOTEMPTY;
    }
    (void)closedir(folder);
    if (r < 0 || only_look)
        return r;
    (void)snprintf(owner, sizeof(owner), "%s/owner", path);
    (void)unlink(owner);
    return rmdir(path) < 0 ? -errno : 0;
}

int
rundir_sweep(const char *parent, bool only_look, void (*tell)(const char *path, int error),
             struct rundir_swept *swept)
{
    char real[PATH_MAX], path[PATH_MAX];
    struct dirent *e;
    DIR *folder;
    int first = 0;

    if (realpath(parent, real) == NULL || (folder = opendir(real)) == NULL)
        return -errno;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
    while ((e = readdir(folder)) != NULL) {
        enum rundir_state state;
        int lock = -1, r = 0;
        pid_t pid;

        if (!rundir_is_name(e->d_name, &pid) ||
            snprintf(path, sizeof(path), "%s/%s", real, e->d_name) >= (int)sizeof(path))
            continue;
        state = rundir_look(path, pid, only_look, &lock);
        if (state == RUNDIR_UNBORN)
            r = rundir_remove_unborn(path, only_look);
        else if (state == RUNDIR_ENDING)
            r = -ETIMEDOUT;
        else if (state == RUNDIR_DEAD && !only_look)
            r = rundir_take_down(path, swept);
        if (lock >= 0)
            (void)close(lock);
        if (state == RUNDIR_FOREIGN || (state == RUNDIR_UNBORN && r == -ENOTEMPTY))
            continue;
        swept->folders += r == 0;
        first = first == 0 || (first == -ETIMEDOUT && r < 0) ? r : first;
        if (tell != NULL)
            tell(path, r);
    }
    (void)closedir(folder);
    return first;
}
