/* SPDX-License-Identifier: BSD-3-Clause
 *
 * main.c - the `kvfs` command: finds the subcommand, runs it, tells the end.
 *
 * Exit status: 0 done, 1 failed, 2 wrong use; `check` has its own (cli.h).
 * A standard descriptor that the caller closed is taken up first, by something
 * that can only fail: else the volume's own files would get its number, and
 * what is meant for standard output would be written into them.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static const struct cli_command *const main_commands[] = {
    &cli_format, &cli_create, &cli_ls,     &cli_stat,   &cli_mkdir, &cli_rm,
    &cli_mv,     &cli_ln,     &cli_resize, &cli_import, &cli_export, &cli_copy,
    &cli_check,  &cli_compact, &cli_log,   &cli_bench,  &cli_df,     &cli_engines,
};
#define MAIN_COMMANDS (sizeof(main_commands) / sizeof(main_commands[0]))

static const struct cli_command *
main_find(const char *name)
{
    for (size_t i = 0; i < MAIN_COMMANDS; i++) {
        if (strcmp(main_commands[i]->name, name) == 0)
            return main_commands[i];
    }
    return NULL;
}

static int
main_help(void)
{
    (void)printf("Usage: kvfs COMMAND [OPTION]... VOLUME ...\n"
                 "Make, look at, check and copy volumes: files kept in a key-value engine.\n\n"
                 "Commands:\n");
    for (size_t i = 0; i < MAIN_COMMANDS; i++)
        (void)printf("  %-9s %s\n", main_commands[i]->name, main_commands[i]->summary);
    (void)printf("  %-9s %s\n\n", "help", "explain a command");
    (void)printf("A VOLUME is a folder.  Sizes take the units K M G T P E (powers of 1024).\n"
                 "`kvfs help COMMAND` or `kvfs COMMAND --help` tells a command's options;\n"
                 "`kvfs --version` tells the version.  The manual is kvfs(1).\n");
    return CLI_OK;
}

static int
main_usage(const char *what, const char *name)
{
    const struct cli c = {.command = NULL};

    (void)cli_error(&c, "%s%s%s; try 'kvfs --help'", what, name != NULL ? ": " : "",
                    name != NULL ? name : "");
    return CLI_USAGE;
}

static int
main_run(int argc, char **argv)
{
    struct cli c = {.command = NULL};
    const char *name = argc > 1 ? argv[1] : NULL;
    bool help = false;
    int status;

    if (name == NULL)
        return main_usage("no command given", NULL);
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        (void)printf("kvfs %s\n", KVFS_VERSION);
        return CLI_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) {
        help = true;
        name = argc > 2 ? argv[2] : NULL;
        if (name == NULL)
            return main_help();
    } else if (name[0] == '-') {
        return main_usage("unknown option", name);
    }
    c.command = main_find(name);
    if (c.command == NULL)
        return main_usage("unknown command", name);
    if (help) {
        cli_options_help(c.command);
        return CLI_OK;
    }
    status = cli_options_parse(&c, argc - 1, argv + 1);
    if (status == CLI_OK && c.o.help)
        cli_options_help(c.command);
    else if (status == CLI_OK)
        status = c.command->run(&c);
    free(c.args);
    return status;
}

/* Reading of 0 and writing to 1 and 2 fail behind this with EBADF, if they were closed. */
static void
main_prepare(void)
{
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit (ulimit -f) is an error, to be cleaned up after */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(CLI_FAILED); /* nowhere to say so */
    }
}

int
main(int argc, char **argv)
{
    int status, lost;

    main_prepare();
    status = main_run(argc, argv);
    lost = fflush(stdout) != 0 ? errno : 0;
    if ((lost != 0 || ferror(stdout)) && status == CLI_OK) { /* the latter: why is long gone */
        const struct cli c = {.command = NULL};

        status = cli_error(&c, "standard output: %s",
                           lost != 0 ? strerrordesc_np(lost) : "cannot be written");
    }
    if (status != CLI_OK)
        cli_signals_follow();
    return status;
}
