/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quit.c - hearing at once that nbdkit is told to end.
 *
 * nbdkit tells a plugin so only when its last client has gone; its one call that
 * returns earlier, nbdkit_nanosleep(), then logs an error ("aborting sleep"), and
 * the pipe behind it is not for plugins.  So a handler is put in front of nbdkit's
 * own, which exist before .after_fork: it posts a semaphore and goes on to nbdkit's.
 *
 * 1. nbdkit does with each signal exactly what it does without this.
 * 2. A signal that nbdkit does not catch is left alone.
 * 3. Handlers only call what signal-safety(7) allows.
 * 4. A server that a filter ends (nbdkit_shutdown()) gets no signal, so its data
 *    are committed at the usual interval, and when the last client has gone.
 */
#include "quit.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

static struct {
    int signal;
    bool watched;
    struct sigaction nbdkit;
} quit_signals[] = {
    {.signal = SIGTERM}, {.signal = SIGINT}, {.signal = SIGQUIT}, {.signal = SIGHUP}};

#define QUIT_SIGNALS (sizeof(quit_signals) / sizeof(quit_signals[0]))

static sem_t quit_sem;

static void
quit_handler(int signal, siginfo_t *info, void *context)
{
    int saved = errno;

    (void)sem_post(&quit_sem);
    for (size_t i = 0; i < QUIT_SIGNALS; i++) {
        const struct sigaction *next = &quit_signals[i].nbdkit;

        if (quit_signals[i].signal != signal)
            continue;
        if ((next->sa_flags & SA_SIGINFO) != 0)
            next->sa_sigaction(signal, info, context);
        else
            next->sa_handler(signal);
    }
    errno = saved;
}

static bool
quit_is_caught(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) != 0 ||
           (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
}

void
kquit_watch(void)
{
    (void)sem_init(&quit_sem, 0, 0);
    for (size_t i = 0; i < QUIT_SIGNALS; i++) {
        struct sigaction *nbdkit = &quit_signals[i].nbdkit, ours;

        if (sigaction(quit_signals[i].signal, NULL, nbdkit) < 0 || !quit_is_caught(nbdkit))
            continue;
        ours = *nbdkit; /* its mask and flags */
        ours.sa_flags |= SA_SIGINFO;
        ours.sa_sigaction = quit_handler;
        quit_signals[i].watched = sigaction(quit_signals[i].signal, &ours, NULL) == 0;
    }
}

void
kquit_wait(void)
{
    while (sem_wait(&quit_sem) < 0 && errno == EINTR)
        ;
}

void
kquit_wake(void)
{
    (void)sem_post(&quit_sem);
}

void
kquit_unwatch(void)
{
    for (size_t i = 0; i < QUIT_SIGNALS; i++) {
        if (quit_signals[i].watched)
            (void)sigaction(quit_signals[i].signal, &quit_signals[i].nbdkit, NULL);
        quit_signals[i].watched = false;
    }
}
