/* SPDX-License-Identifier: BSD-3-Clause
 *
 * main.c - the `crashsim` command: finds the subcommand, runs it, tells the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"

static const struct cmd *const main_commands[] = {
    &cmd_trace, &cmd_replay, &cmd_explore, &cmd_run, &cmd_recovery, &cmd_selftest, &cmd_clean,
};
#define MAIN_COMMANDS (sizeof(main_commands) / sizeof(main_commands[0]))

static const struct cmd *main_command; /* that runs */
static volatile sig_atomic_t main_signal;

#define MAIN_LINE_MAX 1024

static void
main_say(char *line)
{
    for (char *p = line; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    }
    (void)fprintf(stderr, "crashsim: %s%s%s\n", main_command != NULL ? main_command->name : "",
                  main_command != NULL ? ": " : "", line);
}

int
cmd_error(const char *fmt, ...)
{
    char line[MAIN_LINE_MAX];
    va_list ap;

    va_start(ap, fmt);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): version 14 does not know va_start here
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    main_say(line);
    return CMD_USAGE;
}

void
cmd_say(const char *fmt, ...)
{
    char line[MAIN_LINE_MAX];
    va_list ap;

    va_start(ap, fmt);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): version 14 does not know va_start here
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    main_say(line);
}

static void
main_on_signal(int sig)
{
    main_signal = sig;
}

void
cmd_signals_catch(void)
{
    struct sigaction action = {.sa_handler = main_on_signal};
    const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct sigaction old;

        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(signals[i], &action, NULL); /* no SA_RESTART: waits must end */
    }
}

bool
cmd_interrupted(void)
{
    return main_signal != 0;
}

static int
main_help(void)
{
    (void)printf("Usage: crashsim COMMAND [OPTION]... [ARGUMENT]...\n"
                 "Cut the power of a simulated disk, and see what becomes of what lies on it.\n\n"
                 "Commands:\n");
    for (size_t i = 0; i < MAIN_COMMANDS; i++)
        (void)printf("  %-9s %s\n", main_commands[i]->name, main_commands[i]->summary);
    (void)printf("  %-9s %s\n\n", "help", "explain a command");
    (void)printf("`crashsim COMMAND --help` tells a command's options; the manual is crashsim(1).\n"
                 "Exit status: 0 no violation, 1 violations, 2 wrong use or bad input, 77 needs "
                 "root.\n");
    return CMD_OK;
}

static int
main_run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    const struct cmd *found = NULL;
    int status, args = 0;
    bool help = false;

    if (name == NULL)
        return cmd_error("no command given; try 'crashsim --help'");
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        (void)printf("crashsim %s\n", KVFS_VERSION);
        return CMD_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) {
        help = true;
        name = argc > 2 ? argv[2] : NULL;
        if (name == NULL)
            return main_help();
    } else if (name[0] == '-') {
        return cmd_error("unknown option: %s; try 'crashsim --help'", name);
    }
    for (size_t i = 0; i < MAIN_COMMANDS; i++) {
        if (strcmp(main_commands[i]->name, name) == 0)
            found = main_commands[i];
    }
    if (found == NULL)
        return cmd_error("unknown command: %s; try 'crashsim --help'", name);
    main_command = found;
    if (!help) {
        status = cmd_options_parse(found, argc - 1, argv + 1, &args, &help);
        if (status != CMD_OK)
            return status;
    }
    if (help) {
        cmd_options_help(found);
        return CMD_OK;
    }
    return found->run(argc - 1 - args, argv + 1 + args);
}

/* A standard descriptor that the caller closed must not become one of ours. */
static void
main_prepare(void)
{
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit (ulimit -f) is an error, to be cleaned up after */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(CMD_USAGE); /* nowhere to say so */
    }
}

int
main(int argc, char **argv)
{
    int status, lost;

    main_prepare();
    status = main_run(argc, argv);
    lost = fflush(stdout) != 0 ? errno : 0;
    if ((lost != 0 || ferror(stdout)) && status == CMD_OK && main_signal != SIGPIPE)
        status = cmd_error("standard output: %s",
                           lost != 0 ? strerrordesc_np(lost) : "cannot be written");
    if (main_signal != 0) {
        (void)signal(main_signal, SIG_DFL);
        (void)raise(main_signal);
    }
    return status;
}
