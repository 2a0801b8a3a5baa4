/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guard.c - SIGBUS, SIGSEGV and LMDB's assertions become a return value.
 *
 * LMDB reads its file through a memory map and trusts every byte of it.  A file
 * that was truncated or a medium that cannot be read shows as SIGBUS, a flipped
 * bit as SIGSEGV or a failed assertion.  A guard is a jump buffer in a chain per
 * thread; the handler jumps to the innermost one.
 *
 *  1. A fault outside every guard goes to the handler that was there before us,
 *     or, if there was none, to the system's default action.  Should that handler
 *     lead back to us (two libraries on top of each other), the default action
 *     ends the circle.
 *  2. Entering a guard saves no signal mask, which would be a system call: it costs
 *     some ten nanoseconds.  The handler restores the mask of the moment of the
 *     fault, which the kernel hands to it, before it jumps.
 *  3. The chain's head has the initial-exec TLS model: reading it in a signal
 *     handler never allocates, also in a thread that never entered a guard and
 *     in a library that was loaded late.
 *  4. What LMDB owned when it was left this way: a read transaction owns nothing
 *     but its slot; for write transactions see apply.c.
 *
 * Walks cannot be endless inside one call of LMDB: a descent is bounded by its
 * cursor's 32 levels, a page holds a bounded number of keys.  A scan's steps are
 * bounded by the rule that keys must increase strictly (read.c).
 */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <ucontext.h>
#include <unistd.h>

struct guard {
    sigjmp_buf env;
    struct guard *outer;
    void (*on_fault)(void *arg); /* park instead of jumping */
    void *arg;
};

static __thread struct guard *guard_top __attribute__((tls_model("initial-exec")));
static __thread int guard_signal_number __attribute__((tls_model("initial-exec")));
static __thread const char *guard_assertion __attribute__((tls_model("initial-exec")));
static __thread char guard_line[200];

static __thread int guard_chaining __attribute__((tls_model("initial-exec")));

static struct sigaction guard_old_bus, guard_old_segv;
static pthread_mutex_t guard_lock = PTHREAD_MUTEX_INITIALIZER;

static void
guard_chain(int sig, siginfo_t *info, void *context)
{
    const struct sigaction *old = sig == SIGBUS ? &guard_old_bus : &guard_old_segv;

    if (old->sa_handler == SIG_IGN && info->si_code <= 0)
        return;
    if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN && guard_chaining == 0) {
        guard_chaining = 1;
        if ((old->sa_flags & SA_SIGINFO) != 0)
            old->sa_sigaction(sig, info, context);
        else
            old->sa_handler(sig);
        guard_chaining = 0;
        return;
    }
    /* The instruction that faulted runs again and meets the default action; a
     * signal that was sent must be sent again. */
    (void)signal(sig, SIG_DFL);
    if (info->si_code <= 0)
        (void)raise(sig);
}

static void __attribute__((noreturn))
guard_leave(struct guard *g)
{
    if (g->on_fault == NULL)
        siglongjmp(g->env, 1);
    g->on_fault(g->arg);
    for (;;)
        (void)pause();
}

static void
guard_handler(int sig, siginfo_t *info, void *context)
{
    struct guard *g = guard_top;

    if (g == NULL || info->si_code <= 0) {
        guard_chain(sig, info, context);
        return;
    }
    guard_signal_number = sig;
    (void)pthread_sigmask(SIG_SETMASK, &((const ucontext_t *)context)->uc_sigmask, NULL);
    guard_leave(g);
}

static int
guard_install(int sig, struct sigaction *old)
{
    struct sigaction now;
    struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};

    if (sigaction(sig, NULL, &now) != 0)
        return -errno;
    if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == guard_handler)
        return 0;
    *old = now;
    ours.sa_sigaction = guard_handler;
    (void)sigemptyset(&ours.sa_mask);
    return sigaction(sig, &ours, NULL) != 0 ? -errno : 0;
}

int
kvfs_lmdb_guard_init(void)
{
    int rc;

    (void)pthread_mutex_lock(&guard_lock);
    rc = guard_install(SIGBUS, &guard_old_bus);
    if (rc == 0)
        rc = guard_install(SIGSEGV, &guard_old_segv);
    (void)pthread_mutex_unlock(&guard_lock);
    return rc;
}

void
kvfs_lmdb_guard_assert(const char *text)
{
    struct guard *g = guard_top;

    if (g == NULL)
        return;
    guard_signal_number = 0;
    guard_assertion = text;
    guard_leave(g);
}

int
kvfs_lmdb_guard(int (*fn)(void *arg), void *arg)
{
    struct guard g;
    int rc;

    g.on_fault = NULL;
    g.outer = guard_top;
    if (sigsetjmp(g.env, 0) != 0) {
        guard_top = g.outer;
        return KVFS_LMDB_FAULT;
    }
    guard_top = &g;
    rc = fn(arg);
    guard_top = g.outer;
    return rc;
}

int
kvfs_lmdb_guard_parked(int (*fn)(void *arg), void *arg, void (*on_fault)(void *arg))
{
    struct guard g;
    int rc;

    g.on_fault = on_fault;
    g.arg = arg;
    g.outer = guard_top;
    guard_top = &g;
    rc = fn(arg);
    guard_top = g.outer;
    return rc;
}

const char *
kvfs_lmdb_guard_text(void)
{
    if (guard_signal_number == SIGBUS)
        return "the file is shorter than it says or cannot be read (SIGBUS)";
    if (guard_signal_number == SIGSEGV)
        return "a damaged page points nowhere (SIGSEGV)";
    (void)snprintf(guard_line, sizeof(guard_line), "a damaged page broke LMDB's rule '%.120s'",
                   guard_assertion != NULL ? guard_assertion : "?");
    return guard_line;
}
