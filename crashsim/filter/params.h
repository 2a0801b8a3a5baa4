/* SPDX-License-Identifier: BSD-3-Clause
 *
 * params.h - what is said on nbdkit's command line.
 */
#ifndef CRASHSIM_PARAMS_H
#define CRASHSIM_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "../choice.h"
#include "../recording.h"
#include "fault.h"

/* When the power is to be cut by itself; zero or empty: not so. */
struct trigger {
    uint64_t after_writes, after_flushes; /* so many answered from now on */
    uint64_t within;                      /* at a seeded moment of so many requests */
    char mark[CRASHSIM_MARK_MAX + 1];
};

struct params {
    char *control, *record; /* paths; NULL: none */
    uint64_t cache_bytes, seed;
    bool fua_none;
    struct crashsim_choice choice;
    struct trigger trigger;
    struct faults faults;
};

extern struct params params;

#define PARAMS_HELP \
    "crashsim-control=SOCKET         Where crashsimctl is listened to.\n" \
    "crashsim-seed=N                 Of every choice (1).\n" \
    "crashsim-cache=SIZE             Of the volatile write cache (256M).\n" \
    "crashsim-fua=native|none        Whether the disk has FUA (native).\n" \
    "crashsim-survive=MODE           What a cut keeps: drop-all, prefix, leave-one-out,\n" \
    "                                only-one, random or subset (random).\n" \
    "crashsim-tear=SECTOR            Of torn writes: none, 512, 4096, byte, garbage (512).\n" \
    "crashsim-cut-after-writes=N     Cut when N writes were answered.\n" \
    "crashsim-cut-after-flushes=N    Cut when N flushes were answered.\n" \
    "crashsim-cut-within=N           Cut at a seeded moment of N writes and flushes.\n" \
    "crashsim-cut-mark=NAME          Cut at this mark.\n" \
    "crashsim-record=FILE            Record in FILE and FILE.side.\n" \
    "crashsim-eio-read=RATE          The part of reads that fail, as 0.01 or 1% (0).\n" \
    "crashsim-eio-write=RATE         The same of writes, zeros and trims.\n" \
    "crashsim-eio-flush=RATE         The same of flushes.\n" \
    "crashsim-lying-flush=RATE       The part of flushes and FUA that do nothing (0).\n" \
    "crashsim-rot=OFFSET,LENGTH[,BITS]  Turn bits there at a cut; may be repeated.\n" \
    "crashsim-latency=PRESET         sd, usb-ssd, nvme, none or READ,WRITE,FLUSH in us (none).\n" \
    "crashsim-jitter=PERCENT         Of the latency (the preset's)."

/* 0: taken; 1: not ours; -1: refused, and said why. */
int params_set(const char *key, const char *value);
int params_check(void);
void params_free(void);

#endif /* CRASHSIM_PARAMS_H */
