/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tracer.c - see tracer.h.
 *
 * 1. A seccomp filter stops the command at the calls of trace_calls.h only; all others run at full
 *    speed.  It is inherited by children, and needs no privilege.
 * 2. A thread that is stopped is in the table; what it is about to do was read when it came in
 *    (PTRACE_EVENT_SECCOMP), what it did is noted when it goes out, before it runs on.  So the events
 *    are in an order in which they may have happened, whatever the number of threads.
 * 3. Of two calls that change the same (calls_meet()) the second is held where it came in until the first
 *    is out: in which order they happened, and where descriptors with one position wrote, would
 *    be a guess otherwise.  None of these calls waits for another thread of the command, so that
 *    nobody waits for good; syncs are not held.
 * 4. What writes unseen is refused: io_uring, linux-aio and x32 with ENOSYS, clones of ranges with
 *    EOPNOTSUPP; a program of another architecture is killed.
 * 5. If we die, so do they (PTRACE_O_EXITKILL).
 */
#include "tracer.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"

#if defined(__x86_64__)
#define TRACER_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define TRACER_ARCH AUDIT_ARCH_AARCH64
#else
#error "tell the architecture's number to the filter"
#endif

#define TRACER_FILTER_MAX 160
#define TRACER_FILTER_REST 24 /* what is not of trace_calls.h */
#define TRACER_NO_EXEC    127
#define TRACER_X32        0x40000000u /* calls of x32 have it set */
#define TRACER_OPTIONS                                                                             \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |    \
     PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

struct tracer {
    struct calls *calls;
    struct call *threads;
    size_t count, cap;
    uint64_t held; /* so many were, ever */
};

/* ptrace() takes numbers as pointers. */
static void *
tracer_number(uintptr_t n)
{
    return (void *)n; /* NOLINT(performance-no-int-to-ptr) */
}

#define TRACER_LOAD(field)                                                                         \
    (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define TRACER_RETURN(what) (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what)
/* Skip one instruction if it is not VALUE. */
#define TRACER_IF(value) (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1)

static int
tracer_filter(void)
{
    struct sock_filter code[TRACER_FILTER_MAX];
    struct sock_fprog program = {.filter = code};
    size_t count, n = 0;
    const struct call_kind *kinds = calls_kinds(&count);

    if (2 * count + TRACER_FILTER_REST > TRACER_FILTER_MAX)
        return -1;
    code[n++] = TRACER_LOAD(arch);
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TRACER_ARCH, 1, 0);
    code[n++] = TRACER_RETURN(SECCOMP_RET_KILL_PROCESS);
    code[n++] = TRACER_LOAD(nr);
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, TRACER_X32, 0, 1);
    code[n++] = TRACER_RETURN(SECCOMP_RET_ERRNO | ENOSYS);
    for (size_t i = 0; i < count; i++) {
        code[n++] = TRACER_IF((uint32_t)kinds[i].number);
        code[n++] = TRACER_RETURN(SECCOMP_RET_TRACE);
    }
    code[n++] = TRACER_IF(__NR_io_uring_setup);
    code[n++] = TRACER_RETURN(SECCOMP_RET_ERRNO | ENOSYS);
    code[n++] = TRACER_IF(__NR_io_setup);
    code[n++] = TRACER_RETURN(SECCOMP_RET_ERRNO | ENOSYS);
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_ioctl, 0, 5);
    code[n++] = TRACER_LOAD(args[1]); /* the low half, on these machines */
    code[n++] = TRACER_IF(FICLONE);
    code[n++] = TRACER_RETURN(SECCOMP_RET_ERRNO | EOPNOTSUPP);
    code[n++] = TRACER_IF(FICLONERANGE);
    code[n++] = TRACER_RETURN(SECCOMP_RET_ERRNO | EOPNOTSUPP);
    code[n++] = TRACER_RETURN(SECCOMP_RET_ALLOW);
    program.len = (unsigned short)n;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* In the child, and never back. */
static void
tracer_child(int (*call)(void *arg), void *arg)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 || raise(SIGSTOP) != 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || tracer_filter() < 0)
        _exit(TRACER_NO_EXEC);
    _exit(call(arg));
}

struct tracer_command {
    char **argv;
    int why_fd; /* of a pipe that exec closes: errno of one that failed */
};

static int
tracer_become(void *arg)
{
    const struct tracer_command *command = arg;
    int why;

    (void)execvp(command->argv[0], command->argv);
    why = errno;
    return write(command->why_fd, &why, sizeof(why)) < 0 ? TRACER_NO_EXEC + 1 : TRACER_NO_EXEC;
}

static struct call *
tracer_find(struct tracer *t, pid_t tid)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->threads[i].tid == tid)
            return &t->threads[i];
    }
    return NULL;
}

static struct call *
tracer_add(struct tracer *t, pid_t tid)
{
    if (t->count == t->cap) {
        size_t want = t->cap < 8 ? 8 : t->cap * 2;
        void *more = reallocarray(t->threads, want, sizeof(*t->threads));

        if (more == NULL)
            return NULL;
        t->threads = more;
        t->cap = want;
    }
    memset(&t->threads[t->count], 0, sizeof(*t->threads));
    t->threads[t->count].tid = tid;
    return &t->threads[t->count++];
}

static bool
tracer_must_wait(const struct tracer *t, const struct call *c)
{
    for (size_t i = 0; i < t->count; i++) {
        if (&t->threads[i] != c && calls_meet(&t->threads[i], c))
            return true;
    }
    return false;
}

static void
tracer_go(const struct call *c, int request, int deliver)
{
    (void)ptrace((enum __ptrace_request)request, c->tid, NULL, tracer_number((uintptr_t)deliver));
}

/* Thread C is about to make a call: let it, or hold it. */
static void
tracer_enter(struct tracer *t, struct call *c)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, c->tid, tracer_number(sizeof(info)), &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_SECCOMP) {
        calls_forget(c); /* of a call that it never came out of */
        c->held = 0;
        tracer_go(c, PTRACE_CONT, 0);
        return;
    }
    calls_begin(t->calls, c, (int)info.seccomp.nr, (const uint64_t *)info.seccomp.args);
    if (tracer_must_wait(t, c)) {
        calls_forget(c); /* it is looked at again: the other call changes what it finds */
        c->held = c->held != 0 ? c->held : ++t->held;
        return;
    }
    c->held = 0;
    tracer_go(c, c->kind != NULL ? PTRACE_SYSCALL : PTRACE_CONT, 0);
}

/* A call is over: whoever waited for it goes on, in the order of coming. */
static void
tracer_release(struct tracer *t)
{
    uint64_t done = 0;

    for (;;) {
        struct call *next = NULL;

        for (size_t i = 0; i < t->count; i++) {
            struct call *c = &t->threads[i];

            if (c->held > done && (next == NULL || c->held < next->held))
                next = c;
        }
        if (next == NULL)
            return;
        done = next->held;
        tracer_enter(t, next);
    }
}

static void
tracer_remove(struct tracer *t, struct call *c)
{
    calls_forget(c);
    *c = t->threads[--t->count];
    tracer_release(t);
}

static void
tracer_leave(struct tracer *t, struct call *c)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, c->tid, tracer_number(sizeof(info)), &info) > 0 &&
        info.op == PTRACE_SYSCALL_INFO_EXIT)
        calls_end(t->calls, c, info.exit.is_error ? -1 : info.exit.rval);
    calls_forget(c);
}

/* C has become another program.  The thread that did it had another number, and the process has no
 * other threads any more; they end without a word. */
static void
tracer_exec(struct tracer *t, pid_t tid)
{
    unsigned long former = 0;
    struct call *old;

    calls_forget(tracer_find(t, tid));
    if (ptrace(PTRACE_GETEVENTMSG, tid, NULL, &former) == 0 && (pid_t)former != tid) {
        old = tracer_find(t, (pid_t)former);
        if (old != NULL)
            tracer_remove(t, old);
    }
    tracer_release(t);
}

/* Thread C stopped with STATUS: see to it, and let it run on. */
static void
tracer_stopped(struct tracer *t, struct call *c, bool fresh, int status)
{
    int sig = WSTOPSIG(status), event = status >> 16;
    pid_t tid = c->tid;

    if (sig == (SIGTRAP | 0x80)) {
        tracer_leave(t, c);
        tracer_go(c, PTRACE_CONT, 0);
        tracer_release(t);
    } else if (event == PTRACE_EVENT_SECCOMP) {
        tracer_enter(t, c);
    } else if (event == PTRACE_EVENT_EXEC) {
        tracer_exec(t, tid);
        tracer_go(tracer_find(t, tid), PTRACE_CONT, 0);
    } else if (event != 0 || (fresh && sig == SIGSTOP)) { /* a new thread begins with one */
        tracer_go(c, PTRACE_CONT, 0);
    } else {
        tracer_go(c, c->kind != NULL ? PTRACE_SYSCALL : PTRACE_CONT, sig);
    }
}

static int
tracer_loop(struct tracer *t, pid_t child, int *result)
{
    for (;;) {
        int status;
        pid_t tid = waitpid(-1, &status, __WALL);
        struct call *c;
        bool fresh = false;

        if (tid < 0 && errno == EINTR) {
            if (cmd_interrupted())
                (void)kill(child, SIGTERM);
            continue;
        }
        if (tid < 0)
            return errno == ECHILD ? 0 : -errno;
        c = tracer_find(t, tid);
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (tid == child)
                *result = status;
            if (c != NULL)
                tracer_remove(t, c);
            continue;
        }
        if (c == NULL) {
            c = tracer_add(t, tid);
            fresh = true;
        }
        if (c == NULL)
            return -ENOMEM;
        if (WIFSTOPPED(status))
            tracer_stopped(t, c, fresh, status);
    }
}

int
tracer_call(struct calls *calls, int (*call)(void *arg), void *arg, int *status)
{
    struct tracer t = {.calls = calls};
    pid_t child = fork();
    int r = 0, first;

    if (child == 0)
        tracer_child(call, arg);
    if (child < 0)
        return -errno;
    while (waitpid(child, &first, WUNTRACED) < 0 && errno == EINTR)
        ;
    if (!WIFSTOPPED(first) ||
        ptrace(PTRACE_SETOPTIONS, child, NULL, tracer_number(TRACER_OPTIONS)) < 0 ||
        tracer_add(&t, child) == NULL || ptrace(PTRACE_CONT, child, NULL, NULL) < 0)
        r = WIFSTOPPED(first) ? -errno : -EPERM;
    if (r == 0)
        r = tracer_loop(&t, child, status);
    else
        (void)kill(child, SIGKILL);
    while (t.count > 0)
        tracer_remove(&t, &t.threads[0]);
    free(t.threads);
    return r;
}

int
tracer_run(struct calls *calls, char **argv, int *status)
{
    struct tracer_command command = {.argv = argv};
    int why, fds[2], r;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    command.why_fd = fds[1];
    r = tracer_call(calls, tracer_become, &command, status);
    (void)close(fds[1]);
    if (r == 0 && read(fds[0], &why, sizeof(why)) == (ssize_t)sizeof(why))
        r = -why;
    (void)close(fds[0]);
    return r;
}
