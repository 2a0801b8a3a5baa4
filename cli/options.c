/* SPDX-License-Identifier: BSD-3-Clause
 *
 * options.c - a command's table of options, parsed and explained.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define OPTIONS_MAX 16 /* of one command, --help included */
#define OPTIONS_COLUMN 24

static const struct cli_option options_help =
    CLI_SWITCH(0, "help", help, "print this and do nothing");

/* The options of COMMAND with --help as the last; the count. */
static int
options_list(const struct cli_command *command, const struct cli_option *list[OPTIONS_MAX])
{
    int n = 0;

    for (const struct cli_option *o = command->options; o->name != NULL; o++)
        list[n++] = o;
    list[n++] = &options_help;
    return n;
}

static void
options_set(struct cli_options *options, const struct cli_option *o, const char *value)
{
    char *field = (char *)options + o->offset;
    bool yes = true;

    if (o->arg != NULL)
        memcpy(field, &value, sizeof(value));
    else
        memcpy(field, &yes, sizeof(yes));
}

static int
options_usage(const struct cli *c, const char *what, const char *name)
{
    (void)cli_error(c, "%s%s%s; try 'kvfs %s --help'", what, name != NULL ? " " : "",
                    name != NULL ? name : "", c->command->name);
    return CLI_USAGE;
}

/* What getopt found wrong, in our words. */
static int
options_wrong(const struct cli *c, int found, char **argv)
{
    char letter[3] = {'-', (char)optopt, '\0'};
    const char *name = argv[optind - 1];

    if (optopt > 0 && optopt < 256)
        name = letter;
    if (found == ':')
        return options_usage(c, "a value is missing behind", name);
    if (optopt >= 256 && strncmp(name, "--", 2) == 0 && strchr(name, '=') != NULL)
        return options_usage(c, "takes no value:", name);
    return options_usage(c, "unknown or ambiguous option", name);
}

static int
options_count(const struct cli *c)
{
    if (c->args_count < c->command->args_min)
        return options_usage(c, "too few arguments: needs", c->command->synopsis);
    if (c->command->args_max >= 0 && c->args_count > c->command->args_max)
        return options_usage(c, "too many arguments: takes",
                             c->command->args_max > 0 ? c->command->synopsis : "none");
    for (int i = 0; i < c->args_count; i++) { /* an unset variable of a script, as a rule */
        if (c->args[i][0] == '\0')
            return options_usage(c, "an argument is empty: takes", c->command->synopsis);
    }
    return CLI_OK;
}

int
cli_options_parse(struct cli *c, int argc, char **argv)
{
    const struct cli_option *list[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 1];
    char shorts[2 + 2 * OPTIONS_MAX] = ":";
    int n = options_list(c->command, list), found;
    size_t s = 1;

    memset(longs, 0, sizeof(longs));
    for (int i = 0; i < n; i++) {
        longs[i] = (struct option){list[i]->name, list[i]->arg != NULL, NULL, 256 + i};
        if (list[i]->letter != 0) {
            shorts[s++] = list[i]->letter;
            if (list[i]->arg != NULL)
                shorts[s++] = ':';
        }
    }
    shorts[s] = '\0';
    opterr = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread runs yet */
    while ((found = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        const struct cli_option *o = NULL;

        if (found == '?' || found == ':')
            return options_wrong(c, found, argv);
        for (int i = 0; i < n; i++) {
            if (found == 256 + i || found == list[i]->letter)
                o = list[i];
        }
        if (o != NULL)
            options_set(&c->o, o, optarg);
    }
    c->args_count = argc - optind;
    c->args = calloc((size_t)c->args_count + 1, sizeof(*c->args));
    if (c->args == NULL)
        return cli_error(c, "no memory");
    memcpy(c->args, argv + optind, (size_t)c->args_count * sizeof(*c->args));
    return c->o.help ? CLI_OK : options_count(c);
}

void
cli_options_help(const struct cli_command *command)
{
    const struct cli_option *list[OPTIONS_MAX];
    int n = options_list(command, list);

    (void)printf("Usage: kvfs %s [OPTION]...%s%s\n%s.\n", command->name,
                 command->synopsis[0] != '\0' ? " " : "", command->synopsis, command->summary);
    if (command->details != NULL)
        (void)printf("\n%s", command->details);
    (void)printf("\nOptions:\n");
    for (int i = 0; i < n; i++) {
        char left[64], letter[5] = "    ";

        if (list[i]->letter != 0)
            (void)snprintf(letter, sizeof(letter), "-%c, ", list[i]->letter);
        (void)snprintf(left, sizeof(left), "%s--%s%s%s", letter, list[i]->name,
                       list[i]->arg != NULL ? "=" : "", list[i]->arg != NULL ? list[i]->arg : "");
        (void)printf("  %-*s  %s\n", OPTIONS_COLUMN, left, list[i]->help);
    }
}
