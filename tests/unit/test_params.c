/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The parameters of the nbdkit plugin (plugin/params.c), and those of nbdkit that
 * it looks at (plugin/cmdline.c).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../plugin/cmdline.h"
#include "../../plugin/params.h"

static void
size__text__number(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"512", 512},
        {"512b", 512},
        {"3s", 1536},
        {"4k", 4096},
        {"4K", 4096},
        {"1M", 1u << 20},
        {"1g", 1u << 30},
        {"2T", (uint64_t)2 << 40},
        {"1P", (uint64_t)1 << 50},
        {"7E", (uint64_t)7 << 60},
        {"9223372036854775807", INT64_MAX},
    };
    static const char *const bad[] = {"",    " 1",  "1 ",   "-1",   "+1",   "k",
                                      "1kB", "1kk", "0x10", "1.5M", "1\xff"};
    static const char *const big[] = {"8E", "99999999T", "9223372036854775808",
                                      "18446744073709551616", "99999999999999999999999E"};
    uint64_t bytes;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        bytes = 1;
        assert_int_equal(kparams_size(good[i].text, &bytes), 0);
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(kparams_size(bad[i], &bytes), -EINVAL);
    for (size_t i = 0; i < sizeof(big) / sizeof(big[0]); i++)
        assert_int_equal(kparams_size(big[i], &bytes), -ERANGE);
}

static void
set__good_values__taken(void **state)
{
    struct kparams p = {0};
    struct kvfs_error err = {0};

    (void)state;
    assert_int_equal(kparams_set(&p, "volume", "v", &err), 0);
    assert_int_equal(kparams_set(&p, "file", "/a/b", &err), 0);
    assert_int_equal(kparams_set(&p, "engine", "lmdb", &err), 0);
    assert_int_equal(kparams_set(&p, "create", "10G", &err), 0);
    assert_int_equal(kparams_set(&p, "block-size", "64k", &err), 0);
    assert_int_equal(kparams_set(&p, "cache", "4M", &err), 0);
    assert_int_equal(kparams_set(&p, "commit-interval", "0.25", &err), 0);
    assert_int_equal(kparams_set(&p, "readonly", "OFF", &err), 0);
    assert_int_equal(kparams_set(&p, "strict", "yes", &err), 0);
    assert_int_equal(kparams_set(&p, "log", "off", &err), 0);
    assert_int_equal(kparams_complete(&p, &err), 0);
    assert_string_equal(p.volume, "v");
    assert_true(p.strict);
    assert_true(p.log_given);
    assert_false(p.log);
    assert_string_equal(p.file, "/a/b");
    assert_string_equal(p.engine, "lmdb");
    assert_int_equal(p.create_bytes, (uint64_t)10 << 30);
    assert_int_equal(p.block_size_bytes, 65536);
    assert_int_equal(p.cache_bytes, 4 << 20);
    assert_int_equal(p.commit_interval_ms, 250);
    assert_false(p.readonly);
}

static void
set__bad_values__one_line_that_names_them(void **state)
{
    static const struct {
        const char *key, *value;
    } bad[] = {
        {"create", "99999999T"},
        {"create", "0"},
        {"create", "1000"},
        {"create", ""},
        {"create", "8E"},
        {"block-size", "3000"},
        {"block-size", "256"},
        {"block-size", "128k"},
        {"block-size", "0"},
        {"cache", ""},
        {"cache", "1"},
        {"cache", "2T"},
        {"commit-interval", ""},
        {"commit-interval", "0"},
        {"commit-interval", "0.0"},
        {"commit-interval", "1."},
        {"commit-interval", ".5"},
        {"commit-interval", "1.2345"},
        {"commit-interval", "3601"},
        {"commit-interval", "3600.001"},
        {"commit-interval", "-1"},
        {"commit-interval", "99999999999999999999"},
        {"commit-interval", "1e3"},
        {"readonly", "maybe"},
        {"readonly", ""},
        {"strict", "maybe"},
        {"log", "maybe"},
        {"volume", ""},
        {"engine", ""},
        {"file", ""},
        {"file", "a/../b"},
        {"file", "a//b"},
        {"file", "a/"},
        {"file", "."},
        {"nonsense", "1"},
        {"", "1"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct kparams p = {0};
        struct kvfs_error err = {0};
        char start[80];

        (void)snprintf(start, sizeof(start), "%s=%s", bad[i].key, bad[i].value);
        assert_int_equal(kparams_set(&p, bad[i].key, bad[i].value, &err), -EINVAL);
        assert_int_equal(strncmp(err.msg, start, strlen(start)), 0);
        assert_null(strchr(err.msg, '\n'));
    }
}

static void
set__newline_in_a_value__still_one_line(void **state)
{
    struct kparams p = {0};
    struct kvfs_error err = {0};

    (void)state;
    assert_int_equal(kparams_set(&p, "create", "1\n2", &err), -EINVAL);
    assert_null(strchr(err.msg, '\n'));
}

static void
set__twice__refused(void **state)
{
    struct kparams p = {0};
    struct kvfs_error err = {0};

    (void)state;
    assert_int_equal(kparams_set(&p, "volume", "a", &err), 0);
    assert_int_equal(kparams_set(&p, "volume", "b", &err), -EINVAL);
    assert_string_equal(p.volume, "a");
}

static void
complete__missing_or_contradicting__refused(void **state)
{
    struct kparams none = {0};
    struct kparams nofile = {.volume = "v", .create_bytes = 512};
    struct kparams readonly = {.volume = "v", .file = "f", .create_bytes = 512, .readonly = true};
    struct kvfs_error err = {0};

    (void)state;
    assert_int_equal(kparams_complete(&none, &err), -EINVAL);
    assert_int_equal(kparams_complete(&nofile, &err), -EINVAL);
    assert_int_equal(kparams_complete(&readonly, &err), -EINVAL);
}

static void
check_name__lengths__limits(void **state)
{
    char name[KPARAMS_NAME_MAX + 2];
    struct kvfs_error err = {0};

    (void)state;
    memset(name, 'a', sizeof(name));
    name[KVFS_NAME_MAX] = '\0';
    assert_int_equal(kparams_check_name(name, &err), 0);
    name[KVFS_NAME_MAX] = 'a';
    name[KVFS_NAME_MAX + 1] = '\0';
    assert_int_equal(kparams_check_name(name, &err), -EINVAL);
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = i % 2 == 0 ? 'a' : '/';
    name[KPARAMS_NAME_MAX - 1] = '\0';
    assert_int_equal(kparams_check_name(name, &err), 0);
    name[KPARAMS_NAME_MAX - 1] = '/';
    name[KPARAMS_NAME_MAX + 1] = '\0';
    assert_int_equal(kparams_check_name(name, &err), -EINVAL);
}

static bool
same(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void
cmdline__of_nbdkit__options_found(void **state)
{
    static const struct {
        const char *args; /* without the last NUL */
        size_t len;
        bool readonly;
        const char *user, *group;
    } lines[] = {
#define LINE(text, ...) {text, sizeof(text), __VA_ARGS__}
        LINE("nbdkit\0-r\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0-fr\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0kvfs\0v\0-r", true, NULL, NULL),
        LINE("nbdkit\0-U\0-\0--readonly\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0--read-only\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0--re\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0--read-\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0-p\00012345\0-r\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0-p12345\0-r\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0-unobody\0-r\0-g\0-r\0kvfs\0v", true, "nobody", "-r"),
        LINE("nbdkit\0-fu\0nobody\0--group=5\0kvfs\0v", false, "nobody", "5"),
        LINE("nbdkit\0--user\0a\0--us=b\0--g\0-f\0kvfs\0v", false, "b", "-f"),
        LINE("nbdkit\0--user=\0kvfs\0v", false, "", NULL),
        LINE("nbdkit\0kvfs\0v\0-u", false, NULL, NULL),
        LINE("nbdkit\0kvfs\0v", false, NULL, NULL),
        LINE("-r\0kvfs\0v", false, NULL, NULL),
        LINE("--\0-r\0kvfs\0v", true, NULL, NULL),
        LINE("nbdkit\0-U\0-r\0kvfs\0v", false, NULL, NULL),
        LINE("nbdkit\0-fU\0-r\0kvfs\0v", false, NULL, NULL),
        LINE("nbdkit\0-Ur\0kvfs\0v", false, NULL, NULL),
        LINE("nbdkit\0-D\0nbdkit.r=1\0kvfs\0v", false, NULL, NULL),
        LINE("nbdkit\0kvfs\0v\0file=-r", false, NULL, NULL),
        LINE("nbdkit\0kvfs\0v\0--\0-r", false, NULL, NULL),
        LINE("nbdkit\0--r\0--u\0x\0kvfs\0v", false, NULL, NULL),
        LINE("nbdkit\0--run\0true -r\0kvfs\0v", false, NULL, NULL),
        LINE("nbdkit\0--readonlyx\0kvfs\0v", false, NULL, NULL),
        LINE("", false, NULL, NULL),
#undef LINE
    };
    struct kcmdline c;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        kcmdline_parse(lines[i].args, lines[i].len, &c);
        if (c.readonly != lines[i].readonly || !same(c.user, lines[i].user) ||
            !same(c.group, lines[i].group))
            fail_msg("line %zu: %d %s %s", i, c.readonly, c.user, c.group);
    }
    /* Cut off: no NUL behind the last. */
    kcmdline_parse("nbdkit\0-r", 9, &c);
    assert_false(c.readonly);
    kcmdline_parse(NULL, 0, &c);
    assert_false(c.readonly);
    kcmdline_read(&c); /* of this test */
    assert_false(c.readonly);
    kcmdline_free(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size__text__number),
        cmocka_unit_test(set__good_values__taken),
        cmocka_unit_test(set__bad_values__one_line_that_names_them),
        cmocka_unit_test(set__newline_in_a_value__still_one_line),
        cmocka_unit_test(set__twice__refused),
        cmocka_unit_test(complete__missing_or_contradicting__refused),
        cmocka_unit_test(check_name__lengths__limits),
        cmocka_unit_test(cmdline__of_nbdkit__options_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
