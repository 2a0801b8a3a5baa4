/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_crashsim_history.c - a recording of any bytes is refused, or can be played to a disk to its
 * end and cut by any choice.  The input: a log, then the word "SIDE" and the text of a sidecar, or
 * nothing; a second word "PICK" begins the text of a choice.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "history.h"
#include "pick.h"

#define FUZZ_DISK_BYTES (1u << 20)

static uint8_t fuzz_disk[FUZZ_DISK_BYTES];

static int
fuzz_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    (void)opaque;
    if (offset > FUZZ_DISK_BYTES || count > FUZZ_DISK_BYTES - offset)
        abort();
    memcpy(fuzz_disk + offset, buf, count);
    return 0;
}

static int
fuzz_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    (void)opaque;
    (void)trim;
    if (offset > FUZZ_DISK_BYTES || count > FUZZ_DISK_BYTES - offset)
        abort();
    memset(fuzz_disk + offset, 0, count);
    return 0;
}

static void
fuzz_shape(const void *opaque, size_t i, uint64_t *offset, uint64_t *count)
{
    const struct crashsim_write *w = crashsim_disk_open(opaque, i);

    *offset = w->offset;
    *count = w->count;
}

static void
fuzz_play(const struct crashsim_history *h, const char *choice)
{
    struct crashsim_base base = {NULL, NULL, fuzz_pwrite, fuzz_zero, NULL};
    struct crashsim_disk *d;
    struct crashsim_pick pick;
    char *text;

    if (h->size_bytes > FUZZ_DISK_BYTES ||
        crashsim_disk_new(&base, h->size_bytes, UINT64_MAX, 0, &d) < 0)
        return;
    for (size_t i = 0; i < h->events_count; i++) {
        if (crashsim_history_apply(h, i, d) < 0)
            abort(); /* whatever was accepted can be done */
    }
    if (crashsim_pick_parse(&pick, choice, crashsim_disk_open_count(d), fuzz_shape, d) == 0) {
        struct crashsim_pick again;

        if (crashsim_disk_peek(d, &pick, &base) < 0)
            abort();
        text = crashsim_pick_text(&pick);
        if (text != NULL &&
            crashsim_pick_parse(&again, text, crashsim_disk_open_count(d), fuzz_shape, d) < 0)
            abort(); /* its own text is taken */
        if (text != NULL)
            crashsim_pick_free(&again);
        free(text);
        crashsim_pick_free(&pick);
    }
    crashsim_disk_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *side = memmem(data, size, "SIDE", 4), *end = data + size, *pick;
    size_t log_len = side != NULL ? (size_t)(side - data) : size;
    char error[CRASHSIM_HISTORY_ERROR], choice[256] = "drop-all";
    struct crashsim_history *h;
    int fd = memfd_create("log", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, log_len) != (ssize_t)log_len) {
        if (fd >= 0)
            (void)close(fd);
        return 0;
    }
    side = side != NULL ? side + 4 : NULL;
    pick = side != NULL ? memmem(side, (size_t)(end - side), "PICK", 4) : NULL;
    if (pick != NULL && (size_t)(end - pick) - 4 < sizeof(choice)) {
        memcpy(choice, pick + 4, (size_t)(end - pick) - 4);
        choice[(size_t)(end - pick) - 4] = '\0';
        end = pick;
    }
    if (crashsim_history_read(fd, (const char *)side, side != NULL ? (size_t)(end - side) : 0, &h,
                              error) == 0) {
        fuzz_play(h, choice);
        crashsim_history_close(h);
    }
    return 0;
}
