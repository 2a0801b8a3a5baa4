/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fault.c - see fault.h.
 *
 * The presets are of the size that such devices show with small random requests at depth 1; no
 * single device was copied.  What matters is their proportion: a flush of an SD card costs some
 * ten of its writes, one of an NVMe disk without power-loss protection some twenty.
 */
#include "fault.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../choice.h"
#include "../random.h"

static const struct {
    const char *name;
    uint32_t delay_us[3], mb_per_s[2], jitter_percent;
} fault_presets[] = {
    {"none", {0, 0, 0}, {0, 0}, 0},
    {"sd", {500, 900, 9000}, {40, 20}, 50},
    {"usb-ssd", {180, 120, 1800}, {350, 300}, 30},
    {"nvme", {80, 20, 450}, {2000, 1500}, 20},
};

bool
fault_parse_rate(const char *text, double *rate)
{
    char *end;

    if (text[0] != '.' && (text[0] < '0' || text[0] > '9'))
        return false;
    errno = 0;
    *rate = strtod(text, &end);
    if (strcmp(end, "%") == 0) {
        *rate /= 100;
        end++;
    }
    return errno == 0 && *end == '\0' && *rate >= 0 && *rate <= 1;
}

/* Up to MAX numbers with commas between; answers how many, or -1. */
static int
fault_numbers(const char *text, uint64_t *numbers, int max)
{
    char copy[96], *rest = copy, *part;
    int count = 0;

    if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
        return -1;
    while ((part = strsep(&rest, ",")) != NULL) {
        if (count == max || !crashsim_parse_number(part, &numbers[count]))
            return -1;
        count++;
    }
    return count;
}

bool
fault_parse_latency(const char *text, struct faults *f)
{
    uint64_t us[3];

    for (size_t i = 0; i < sizeof(fault_presets) / sizeof(fault_presets[0]); i++) {
        if (strcmp(text, fault_presets[i].name) == 0) {
            memcpy(f->delay_us, fault_presets[i].delay_us, sizeof(f->delay_us));
            memcpy(f->mb_per_s, fault_presets[i].mb_per_s, sizeof(f->mb_per_s));
            f->jitter_percent = fault_presets[i].jitter_percent;
            return true;
        }
    }
    if (fault_numbers(text, us, 3) != 3)
        return false;
    for (int i = 0; i < 3; i++) {
        if (us[i] > 60000000)
            return false;
        f->delay_us[i] = (uint32_t)us[i];
    }
    return true;
}

bool
fault_parse_rot(const char *text, struct faults *f)
{
    uint64_t n[3] = {0, 0, 1};

    if (f->rot_count == FAULT_ROTS_MAX || fault_numbers(text, n, 3) < 2 || n[1] == 0 ||
        n[0] > INT64_MAX || n[1] > INT64_MAX - n[0] || n[2] == 0 || n[2] > 1000000)
        return false;
    f->rot[f->rot_count++] = (struct fault_rot){.offset = n[0], .length = n[1], .bits = n[2]};
    return true;
}

bool
fault_happens(double rate, uint64_t *random)
{
    if (rate <= 0)
        return false;
    return (double)(crashsim_random(random) >> 11) / 9007199254740992.0 < rate;
}

uint64_t
fault_delay_ns(const struct faults *f, enum fault_op op, uint32_t count, uint64_t *random)
{
    uint64_t ns = (uint64_t)f->delay_us[op] * 1000;

    if (op != FAULT_FLUSH && f->mb_per_s[op] != 0)
        ns += (uint64_t)count * 1000 / f->mb_per_s[op];
    if (ns == 0 || f->jitter_percent == 0)
        return ns;
    /* Between 100-j and 100+j per cent. */
    return ns / 100 * (100 - f->jitter_percent) +
           crashsim_random(random) % (ns / 100 * 2 * f->jitter_percent + 1);
}
