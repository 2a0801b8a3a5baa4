/* SPDX-License-Identifier: BSD-3-Clause
 *
 * source.c - what all sources have in common.
 */
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "trace_file.h"

void
source_close(struct source *s)
{
    if (s == NULL)
        return;
    free(s->cuts);
    s->ops->close(s);
}

int
source_open(const char *file, const char *base, uint64_t size, const char *folder,
            struct source **source)
{
    char magic[sizeof(TRACE_MAGIC)] = "";
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    bool trace = fd >= 0 && read(fd, magic, strlen(TRACE_MAGIC)) > 0 &&
                 strcmp(magic, TRACE_MAGIC) == 0;

    if (fd >= 0)
        (void)close(fd);
    if (!trace)
        return source_open_disk(file, base, size, folder, source);
    if (base != NULL || size != 0)
        return cmd_error("%s: a trace has its own base; --base and --size are for disks", file);
    return source_open_trace(file, source);
}

int
source_choose(const struct source *s, const struct crashsim_choice *choice,
              struct crashsim_pick *pick)
{
    int r = crashsim_pick_choose(pick, choice, s->ops->open_count(s));

    if (r == 0 && s->ops->adapt != NULL)
        s->ops->adapt(s, pick);
    return r;
}

int
source_add_cut(struct source *s, size_t *cap, uint32_t at)
{
    if (s->cuts_count > 0 && s->cuts[s->cuts_count - 1] >= at)
        return 0;
    if (s->cuts_count == *cap) {
        size_t want = *cap < 64 ? 64 : *cap * 2;
        void *more = reallocarray(s->cuts, want, sizeof(*s->cuts));

        if (more == NULL)
            return -ENOMEM;
        s->cuts = more;
        *cap = want;
    }
    s->cuts[s->cuts_count++] = at;
    return 0;
}

int
source_parse_at(const struct source *s, const char *text, uint32_t *at)
{
    uint64_t line;

    if (strcmp(text, "end") == 0) {
        *at = s->lines;
        return CMD_OK;
    }
    if (strcmp(text, "cut") == 0) {
        *at = s->own_cut_line;
        return s->own_cut != NULL ? CMD_OK : cmd_error("%s: no cut was recorded", s->file);
    }
    if (strncmp(text, "mark:", 5) == 0) {
        for (size_t i = 0; i < s->marks_count; i++) {
            if (strcmp(s->marks[i].name, text + 5) == 0) {
                *at = s->marks[i].line;
                return CMD_OK;
            }
        }
        return cmd_error("%s: no mark '%s' in it", s->file, text + 5);
    }
    if (!crashsim_parse_number(text, &line))
        return cmd_error("--at takes a line's number, mark:NAME, cut or end, not '%s'", text);
    if (line > s->lines)
        return cmd_error("%s: it has %u lines, there is no cut behind line %s", s->file, s->lines,
                         text);
    *at = (uint32_t)line;
    return CMD_OK;
}

int
source_parse_choice(const struct source *s, const char *text, struct crashsim_pick *pick)
{
    size_t n = s->ops->open_count(s);
    int r;

    if (text == NULL && s->own_cut == NULL)
        return cmd_error("%s: no cut was recorded; --choice=CHOICE is needed", s->file);
    r = text != NULL ? crashsim_pick_parse(pick, text, n, s->ops->shape, s)
                     : crashsim_pick_of_cut(pick, s->own_cut, n);
    if (r == 0 && !s->spoils && pick->choice.tear >= CRASHSIM_TEAR_BYTE) {
        crashsim_pick_free(pick);
        return cmd_error("%s: the tears byte and garbage are for disks", s->file);
    }
    if (r == 0 && pick->rule && s->ops->adapt != NULL)
        s->ops->adapt(s, pick);
    if (r == -EINVAL)
        return cmd_error("'%s' is no choice; see crashsim(1)", text);
    if (r == -ERANGE)
        return cmd_error("'%s': no such change or piece; %zu are open behind line %u",
                         text, n, s->at);
    return r < 0 ? cmd_error("%s", strerrordesc_np(-r)) : CMD_OK;
}

size_t
source_marks(const struct source *s)
{
    size_t n = 0;

    while (n < s->marks_count && s->marks[n].line <= s->at)
        n++;
    return n;
}

int
source_write_marks(const struct source *s, const char *file)
{
    FILE *f = fopen(file, "we");
    size_t n = source_marks(s);
    bool bad;

    if (f == NULL)
        return -errno;
    for (size_t i = 0; i < n; i++)
        (void)fprintf(f, "%s\n", s->marks[i].name);
    bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad)
        return -EIO;
    return 0;
}
