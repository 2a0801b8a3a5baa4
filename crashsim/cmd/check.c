/* SPDX-License-Identifier: BSD-3-Clause
 *
 * check.c - see check.h.
 *
 * 1. A check is the leader of a process group, which is killed when the check is over or its time
 *    is.  One that was not good may have been killed in the middle: what it mounted, or started in other
 *    groups, is taken down then.  So what it left behind does not touch the next state.
 * 2. It dies with us (PR_SET_PDEATHSIG).
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"
#include "rundir.h"

#define CHECK_JOBS_MAX 256
#define CHECK_NO_EXEC  127

/* ARGV with the state's name in it; malloced in one piece with its strings. */
static char **
check_argv(const struct check *c, const char *state)
{
    size_t n = 0, bytes = 0, len = strlen(state);
    bool placed = false;
    char **argv, *p;

    for (; c->argv[n] != NULL; n++) {
        bytes += strlen(c->argv[n]) + 1;
        for (const char *at = c->argv[n]; (at = strstr(at, "{}")) != NULL; at += 2) {
            placed = true;
            bytes += len;
        }
    }
    argv = malloc((n + 2) * sizeof(*argv) + bytes + len + 1);
    if (argv == NULL)
        return NULL;
    p = (char *)(argv + n + 2);
    for (size_t i = 0; i < n + (placed ? 0 : 1); i++) {
        const char *from = i < n ? c->argv[i] : "{}", *at;

        argv[i] = p;
        argv[i + 1] = NULL;
        for (; (at = strstr(from, "{}")) != NULL; from = at + 2)
            p += sprintf(p, "%.*s%s", (int)(at - from), from, state);
        p += sprintf(p, "%s", from) + 1;
    }
    return argv;
}

/* In the child, and never back. */
static void
check_child(const struct check *c, const struct check_job *job, uint32_t at, char **argv,
            pid_t parent)
{
    char number[16];
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC), out = STDERR_FILENO;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(CHECK_NO_EXEC);
    if (!c->loud)
        out = open(job->output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    (void)snprintf(number, sizeof(number), "%u", at);
    /* NOLINTBEGIN(concurrency-mt-unsafe): a child has one thread */
    if (in < 0 || out < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
        dup2(out, STDERR_FILENO) < 0 || setenv("CRASHSIM_MARKS", job->marks, 1) < 0 ||
        setenv("CRASHSIM_STATE", job->state, 1) < 0 || setenv("CRASHSIM_AT", number, 1) < 0)
        _exit(CHECK_NO_EXEC);
    (void)signal(SIGXFSZ, SIG_DFL);
    /* NOLINTEND(concurrency-mt-unsafe) */
    (void)execvp(argv[0], argv);
    (void)dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerrordesc_np(errno));
    _exit(CHECK_NO_EXEC);
}

int
check_start(const struct check *c, struct check_job *job, uint32_t at)
{
    char **argv = check_argv(c, job->state);
    pid_t parent = getpid(), pid;
    int r = 0;

    if (argv == NULL)
        return -ENOMEM;
    pid = fork();
    if (pid == 0)
        check_child(c, job, at, argv, parent);
    free(argv);
    if (pid < 0)
        return -errno;
    (void)setpgid(pid, pid); /* whoever comes first */
    job->pidfd = pidfd_open(pid, 0);
    if (job->pidfd < 0) {
        r = -errno;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return r;
    }
    job->pid = pid;
    job->deadline_ns = c->timeout_s != 0 && c->timeout_s < INT32_MAX
                           ? cmd_now_ns() + (int64_t)c->timeout_s * 1000000000
                           : INT64_MAX;
    return 0;
}

static void
check_tail(const char *file, char *tail)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = end >= CHECK_TAIL ? end - CHECK_TAIL + 1 : 0;
    ssize_t n = fd >= 0 ? pread(fd, tail, CHECK_TAIL - 1, from) : 0;

    tail[n > 0 ? n : 0] = '\0';
    for (char *p = tail; n > 0 && p < tail + n; p++) { /* no escapes, one line a line */
        if (((unsigned char)*p < ' ' && *p != '\n') || *p == 0x7f)
            *p = '?';
    }
    if (fd >= 0)
        (void)close(fd);
}

/* JOB's process has ended, or is to end now. */
static void
check_reap(struct check_job *job, bool timed_out, struct check_result *result)
{
    int status = 0;

    (void)kill(-job->pid, SIGKILL); /* before it is reaped: the number is still ours */
    while (waitpid(job->pid, &status, 0) < 0 && errno == EINTR)
        ;
    (void)close(job->pidfd);
    job->pid = 0;
    if (timed_out || status != 0)
        (void)rundir_release(job->state);
    if (result == NULL)
        return;
    result->status = status;
    result->timed_out = timed_out;
    result->good = !timed_out && status == 0;
    result->tail[0] = '\0';
    if (!result->good)
        check_tail(job->output, result->tail);
}

int
check_wait(struct check_job *jobs, size_t count, struct check_job **done,
           struct check_result *result)
{
    struct pollfd fds[CHECK_JOBS_MAX];

    for (;;) {
        int64_t now = cmd_now_ns(), next = INT64_MAX;
        int ms;

        for (size_t i = 0; i < count; i++) {
            fds[i] = (struct pollfd){.fd = jobs[i].pid != 0 ? jobs[i].pidfd : -1, .events = POLLIN};
            if (jobs[i].pid != 0 && jobs[i].deadline_ns < next)
                next = jobs[i].deadline_ns;
        }
        ms = next == INT64_MAX ? -1 : next <= now ? 0 : (int)((next - now) / 1000000 + 1);
        if (cmd_interrupted())
            return -EINTR;
        if (poll(fds, count, ms) < 0 && errno != EINTR)
            return -errno;
        now = cmd_now_ns();
        for (size_t i = 0; i < count; i++) {
            bool over = jobs[i].pid != 0 && fds[i].revents != 0;
            bool late = jobs[i].pid != 0 && jobs[i].deadline_ns <= now;

            if (over || late) {
                check_reap(&jobs[i], !over, result);
                *done = &jobs[i];
                return 0;
            }
        }
    }
}

void
check_kill(struct check_job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].pid != 0)
            check_reap(&jobs[i], true, NULL);
    }
}

void
check_describe(const struct check_result *r, char *text, size_t size)
{
    if (r->timed_out)
        (void)snprintf(text, size, "time limit");
    else if (WIFSIGNALED(r->status))
        (void)snprintf(text, size, "signal %d", WTERMSIG(r->status));
    else
        (void)snprintf(text, size, "exit status %d", WEXITSTATUS(r->status));
}
