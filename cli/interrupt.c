/* SPDX-License-Identifier: BSD-3-Clause
 *
 * interrupt.c - signals that ask to stop.
 *
 * Such a signal only sets a flag.  The command undoes what it had half made, and
 * then dies of that signal, so that a script sees why.
 */
#include <signal.h>

#include "cli.h"

static volatile sig_atomic_t interrupt_signal;

static void
interrupt_on_signal(int signo)
{
    interrupt_signal = signo;
}

void
cli_signals_catch(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction sa = {.sa_handler = interrupt_on_signal}; /* no SA_RESTART: reads end too */

    (void)sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct sigaction old;

        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(signals[i], &sa, NULL); /* nohup's choice stays */
    }
}

bool
cli_interrupted(void)
{
    return interrupt_signal != 0;
}

void
cli_signals_follow(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    int signo = interrupt_signal;

    if (signo == 0)
        return;
    (void)sigaction(signo, &dfl, NULL);
    (void)raise(signo);
}
