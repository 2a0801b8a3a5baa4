/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tracer.c - see tracer.h.
 *
 * 1. A seccomp filter stops the command at the calls of trace_calls.h only; all others run at full
 *    speed.  It is inherited by children, and needs no privilege.
 * 2. A thread that is stopped is in the table; what it is about to do was read when it came in
 *    (PTRACE_EVENT_SECCOMP), what it did is noted when it goes out, before it runs on.  So the events
 *    are in an order in which they may have happened, whatever the number of threads.
 * 3. io_uring is refused with ENOSYS: it writes unseen.
 * 4. If we die, so do they (PTRACE_O_EXITKILL).
 */
#include "tracer.h"

#include <elf.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
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

#define TRACER_FILTER_MAX 128
#define TRACER_NO_EXEC    127
#define TRACER_OPTIONS                                                                             \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |    \
     PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

struct tracer {
    struct calls *calls;
    struct call *threads;
    size_t count, cap;
};

/* ptrace() takes numbers as pointers. */
static void *
tracer_number(uintptr_t n)
{
    return (void *)n; /* NOLINT(performance-no-int-to-ptr) */
}

static int
tracer_filter(void)
{
    struct sock_filter code[TRACER_FILTER_MAX];
    struct sock_fprog program = {.filter = code};
    size_t count, n = 0;
    const struct call_kind *kinds = calls_kinds(&count);

    if (2 * count + 8 > TRACER_FILTER_MAX)
        return -1;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TRACER_ARCH, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < count; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                 (uint32_t)kinds[i].number, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program.len = (unsigned short)n;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* In the child, and never back. */
static void
tracer_child(char **argv)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 || raise(SIGSTOP) != 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || tracer_filter() < 0)
        _exit(TRACER_NO_EXEC);
    (void)execvp(argv[0], argv);
    (void)cmd_error("%s: %s", argv[0], strerrordesc_np(errno));
    _exit(TRACER_NO_EXEC);
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

static void
tracer_remove(struct tracer *t, struct call *c)
{
    calls_end(t->calls, c, -1);
    *c = t->threads[--t->count];
}

/* Thread C is about to make a call.  The request to go on with. */
static int
tracer_enter(struct tracer *t, struct call *c)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, c->tid, tracer_number(sizeof(info)), &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_SECCOMP)
        return PTRACE_CONT;
    calls_begin(t->calls, c, (int)info.seccomp.nr, (const uint64_t *)info.seccomp.args);
    return c->kind != NULL ? PTRACE_SYSCALL : PTRACE_CONT;
}

static void
tracer_leave(struct tracer *t, struct call *c)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, c->tid, tracer_number(sizeof(info)), &info) > 0 &&
        info.op == PTRACE_SYSCALL_INFO_EXIT)
        calls_end(t->calls, c, info.exit.is_error ? -1 : info.exit.rval);
}

/* Thread C stopped with STATUS: see to it, and let it run on. */
static void
tracer_stopped(struct tracer *t, struct call *c, bool fresh, int status)
{
    int sig = WSTOPSIG(status), event = status >> 16, request = PTRACE_CONT, deliver = 0;

    if (sig == (SIGTRAP | 0x80)) {
        tracer_leave(t, c);
    } else if (event == PTRACE_EVENT_SECCOMP) {
        request = tracer_enter(t, c);
    } else if (event == 0 && !(fresh && sig == SIGSTOP)) { /* a new thread begins with one */
        deliver = sig;
        request = c->kind != NULL ? PTRACE_SYSCALL : PTRACE_CONT;
    }
    (void)ptrace((enum __ptrace_request)request, c->tid, NULL, tracer_number((uintptr_t)deliver));
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
tracer_run(struct calls *calls, char **argv, int *status)
{
    struct tracer t = {.calls = calls};
    pid_t child = fork();
    int r = 0, first;

    if (child == 0)
        tracer_child(argv);
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
