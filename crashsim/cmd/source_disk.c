/* SPDX-License-Identifier: BSD-3-Clause
 *
 * source_disk.c - states of a recorded disk.
 *
 * The recording is played to a simulated disk (disk.h) whose base is an image of ours, so that what
 * is open at a cut, and what of it may lie over what, is said by the same code as in the filter.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "history.h"
#include "image.h"
#include "source.h"

struct source_disk {
    struct source s;
    struct crashsim_history *history;
    struct image *image;
    struct crashsim_disk *disk;
    size_t event; /* the next */
    uint64_t size;
};

static int
disk_fresh(struct source_disk *d)
{
    struct crashsim_base base = image_base(d->image);

    crashsim_disk_free(d->disk);
    d->disk = NULL;
    d->event = 0;
    d->s.at = 0;
    return crashsim_disk_new(&base, d->size, UINT64_MAX, 0, &d->disk);
}

static int
disk_seek(struct source *s, uint32_t at)
{
    struct source_disk *d = (struct source_disk *)s;
    const struct crashsim_history *h = d->history;
    int r = 0;

    image_overlay_clear(d->image);
    if (at < s->at) {
        r = image_reset(d->image);
        if (r == 0)
            r = disk_fresh(d);
    }
    while (r == 0 && d->event < h->events_count && h->events[d->event].line <= at)
        r = crashsim_history_apply(h, d->event++, d->disk);
    s->at = at;
    return r;
}

static size_t
disk_open_count(const struct source *s)
{
    return crashsim_disk_open_count(((const struct source_disk *)s)->disk);
}

static void
disk_shape(const void *source, size_t i, uint64_t *offset, uint64_t *count)
{
    const struct source_disk *d = source;
    const struct crashsim_write *w = crashsim_disk_open(d->disk, i);

    *offset = w->offset;
    *count = w->count;
}

void
source_describe_write(const struct crashsim_write *w, char *text, size_t size)
{
    static const char *const kinds[] = {"write", "zeros", "trim"};

    (void)snprintf(text, size, "%s of %" PRIu32 " bytes at %" PRIu64 "%s", kinds[w->kind],
                   w->count, w->offset, w->seq == 0 ? ", never answered" : "");
}

static void
disk_describe(const struct source *s, size_t i, char *text, size_t size)
{
    const struct source_disk *d = (const struct source_disk *)s;

    source_describe_write(crashsim_disk_open(d->disk, i), text, size);
}

static int
disk_prepare(struct source *s, const struct crashsim_pick *pick, uint64_t *hash)
{
    struct source_disk *d = (struct source_disk *)s;
    struct crashsim_base sink = image_overlay(d->image);
    int r;

    image_overlay_clear(d->image);
    r = crashsim_disk_peek(d->disk, pick, &sink);
    *hash = image_hash(d->image);
    return r;
}

static int
disk_build(struct source *s, const char *path)
{
    return image_build(((struct source_disk *)s)->image, path);
}

static void
disk_close(struct source *s)
{
    struct source_disk *d = (struct source_disk *)s;

    crashsim_disk_free(d->disk);
    free(d->s.marks);
    image_close(d->image);
    crashsim_history_close(d->history);
    free(d);
}

static const struct source_ops disk_ops = {
    .seek = disk_seek,
    .open_count = disk_open_count,
    .shape = disk_shape,
    .describe = disk_describe,
    .prepare = disk_prepare,
    .build = disk_build,
    .close = disk_close,
};

/* Marks, and cuts in front of what makes something durable. */
static int
disk_survey(struct source_disk *d)
{
    const struct crashsim_history *h = d->history;
    size_t cuts_cap = 0;
    int r = 0;

    d->s.marks = calloc(h->events_count + 1, sizeof(*d->s.marks));
    if (d->s.marks == NULL)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < h->events_count; i++) {
        const struct crashsim_event *e = &h->events[i];
        const struct crashsim_change *c = &h->changes[0];

        if (e->kind == CRASHSIM_EVENT_SUBMIT || e->kind == CRASHSIM_EVENT_COMPLETE)
            c = &h->changes[e->u.change];
        if (e->kind == CRASHSIM_EVENT_FLUSH || e->kind == CRASHSIM_EVENT_DESTAGE ||
            (e->kind == CRASHSIM_EVENT_COMPLETE && (c->fua || c->destaged)))
            r = source_add_cut(&d->s, &cuts_cap, e->line - 1);
        if (e->kind == CRASHSIM_EVENT_MARK && strcmp(h->names + e->u.name, "crashsim-cut") != 0) {
            d->s.marks[d->s.marks_count++] =
                (struct source_mark){e->line, h->names + e->u.name};
            if (r == 0)
                r = source_add_cut(&d->s, &cuts_cap, e->line);
        }
    }
    if (r == 0)
        r = source_add_cut(&d->s, &cuts_cap, h->has_cut ? h->cut_line : h->lines);
    return r;
}

/* --size, else what the recording says, else what the base has. */
static int
disk_size(struct source_disk *d, const char *base, uint64_t size)
{
    struct stat st = {0};

    if (base != NULL && stat(base, &st) < 0)
        return cmd_error("%s: %s", base, strerrordesc_np(errno));
    if (base != NULL && !S_ISREG(st.st_mode))
        return cmd_error("%s: the base is to be a file", base);
    d->size = d->history->size_bytes;
    if (size != 0 && (d->history->sidecar ? size != d->size : size < d->size))
        return cmd_error("%s: it is of a disk of %s%" PRIu64 " bytes", d->s.file,
                         d->history->sidecar ? "" : "at least ", d->size);
    if (size != 0)
        d->size = size;
    else if (!d->history->sidecar && (uint64_t)st.st_size > d->size)
        d->size = (uint64_t)st.st_size;
    if ((uint64_t)st.st_size > d->size)
        return cmd_error("%s: larger than the disk of %" PRIu64 " bytes in %s", base, d->size,
                         d->s.file);
    d->s.bytes = (uint64_t)st.st_blocks * 512;
    for (size_t i = 0; i < d->history->changes_count; i++) {
        if (d->history->changes[i].kind == CRASHSIM_WRITE)
            d->s.bytes += d->history->changes[i].count;
    }
    if (d->s.bytes > d->size)
        d->s.bytes = d->size;
    return CMD_OK;
}

int
source_open_disk(const char *file, const char *base, uint64_t size, const char *folder,
                 struct source **source)
{
    struct source_disk *d = calloc(1, sizeof(*d));
    char error[CRASHSIM_HISTORY_ERROR], image[4096];
    int r;

    if (d == NULL)
        return cmd_error("no memory");
    d->s = (struct source){.ops = &disk_ops, .file = file, .what = "disk", .spoils = true};
    if (crashsim_history_open(file, &d->history, error) < 0) {
        free(d);
        return cmd_error("%s: %s", file, error);
    }
    d->s.lines = d->history->lines;
    if (d->history->has_cut) {
        d->s.own_cut = &d->history->cut;
        d->s.own_cut_line = d->history->cut_line;
    }
    if (d->history->unfinished)
        cmd_say("%s: the last line of its sidecar is cut short and left out", file);
    r = disk_size(d, base, size);
    if (r == CMD_OK) {
        (void)snprintf(image, sizeof(image), "%s/image", folder);
        r = image_open(image, base, d->size, &d->image);
        if (r == 0)
            r = disk_fresh(d);
        if (r == 0)
            r = disk_survey(d);
        if (r < 0)
            r = cmd_error("%s: %s", r == -ENOMEM ? file : image, strerrordesc_np(-r));
    }
    if (r != CMD_OK)
        source_close(&d->s);
    else
        *source = &d->s;
    return r;
}
