/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvfs_engine_find, kvfs_engine_at: by name, by file, and what bad ones get.
 * KVFS_MODULES is the folder of the modules that tests/contract builds.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <kvfs/volume.h>

static int
find_file(const char *name, const struct kvfs_engine **engine, struct kvfs_error *err)
{
    char path[1024];

    assert_true(snprintf(path, sizeof(path), "%s/%s", KVFS_MODULES, name) < (int)sizeof(path));
    return kvfs_engine_find(path, engine, err);
}

static void
assert_says(const struct kvfs_error *err, const char *text)
{
    if (strstr(err->msg, text) == NULL)
        fail_msg("'%s' does not say '%s'", err->msg, text);
}

static void
engine_at__all_indices__different_names_then_null(void **state)
{
    size_t count = 0;

    (void)state;
    for (const struct kvfs_engine *e; (e = kvfs_engine_at(count)) != NULL; count++) {
        assert_int_equal(e->abi, KVFS_ENGINE_ABI);
        for (size_t i = 0; i < count; i++)
            assert_string_not_equal(e->name, kvfs_engine_at(i)->name);
    }
    assert_true(count > 0);
    assert_null(kvfs_engine_at(count + 1000));
    assert_null(kvfs_engine_at(SIZE_MAX));
}

static void
engine_find__each_built_in__found_by_its_name(void **state)
{
    const struct kvfs_engine *e, *found;

    (void)state;
    for (size_t i = 0; (e = kvfs_engine_at(i)) != NULL; i++) {
        found = NULL;
        assert_int_equal(kvfs_engine_find(e->name, &found, NULL), 0);
        assert_ptr_equal(found, e);
    }
}

static void
engine_find__unknown_name__enoent_lists_what_there_is(void **state)
{
    static const char *const names[] = {"nosuch", "", "mem ", "me", "MEM", "a\nb"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct kvfs_engine *e = NULL;
        struct kvfs_error err = {.code = 0};

        assert_int_equal(kvfs_engine_find(names[i], &e, &err), -ENOENT);
        assert_null(e);
        assert_int_equal(err.code, -ENOENT);
        assert_null(strchr(err.msg, '\n'));
        for (size_t j = 0; kvfs_engine_at(j) != NULL; j++)
            assert_says(&err, kvfs_engine_at(j)->name);
    }
}

static void
engine_find__file__loaded_once(void **state)
{
    const struct kvfs_engine *first = NULL, *second = NULL, *built_in = NULL;
    struct kvfs_error err = {.code = 0};

    (void)state;
    if (find_file("libkvfs-engine_module.so", &first, &err) != 0)
        fail_msg("%s", err.msg);
    assert_string_equal(first->name, "mem");
    assert_int_equal(find_file("libkvfs-engine_module.so", &second, &err), 0);
    assert_ptr_equal(first, second);
    assert_int_equal(kvfs_engine_find("mem", &built_in, &err), 0);
    assert_ptr_not_equal(first, built_in);
}

static void
engine_find__file_of_another_version__einval_names_both(void **state)
{
    const struct kvfs_engine *e = NULL;
    struct kvfs_error err = {.code = 0};
    char text[32];

    (void)state;
    assert_int_equal(find_file("libkvfs-engine_other_abi.so", &e, &err), -EINVAL);
    assert_null(e);
    assert_int_equal(err.code, -EINVAL);
    assert_says(&err, "libkvfs-engine_other_abi.so");
    (void)snprintf(text, sizeof(text), "version %d", KVFS_ENGINE_ABI);
    assert_says(&err, text);
    (void)snprintf(text, sizeof(text), "version %d", KVFS_ENGINE_ABI + 41);
    assert_says(&err, text);
}

static void
engine_find__library_that_is_no_engine__einval(void **state)
{
    const struct kvfs_engine *e = NULL;
    struct kvfs_error err = {.code = 0};

    (void)state;
    assert_int_equal(find_file("libkvfs-engine_none.so", &e, &err), -EINVAL);
    assert_null(e);
    assert_says(&err, "libkvfs-engine_none.so");
    assert_says(&err, "not a kvfs engine");
}

static void
engine_find__no_library__einval_or_enoent(void **state)
{
    const struct kvfs_engine *e = NULL;
    struct kvfs_error err = {.code = 0};

    (void)state;
    assert_int_equal(find_file("missing.so", &e, &err), -ENOENT);
    assert_null(e);
    assert_says(&err, "missing.so");
    /* There, but text: not an engine. */
    assert_int_equal(find_file("CTestTestfile.cmake", &e, &err), -EINVAL);
    assert_null(e);
    assert_int_equal(err.code, -EINVAL);
    assert_says(&err, "CTestTestfile.cmake");
    /* A folder. */
    assert_int_equal(find_file(".", &e, &err), -EINVAL);
    assert_null(e);
}

static void
engine_find__name_of_a_file__found_in_one_folder(void **state)
{
    const struct kvfs_engine *e = NULL, *again = NULL, *file = NULL;
    struct kvfs_error err = {.code = 0};

    (void)state;
    assert_int_equal(unsetenv("KVFS_ENGINE_DIR"), 0);
    assert_int_equal(kvfs_engine_find("x", &e, &err), -ENOENT);
    assert_null(e);
    assert_says(&err, "/kvfs/libkvfs-engine-x.so");
    assert_int_equal(setenv("KVFS_ENGINE_DIR", KVFS_MODULES, 1), 0);
    if (kvfs_engine_find("x", &e, &err) != 0)
        fail_msg("%s", err.msg);
    assert_string_equal(e->name, "x");
    assert_int_equal(kvfs_engine_find("x", &again, &err), 0);
    assert_ptr_equal(again, e);
    assert_int_equal(find_file("libkvfs-engine-x.so", &file, &err), 0);
    assert_ptr_equal(file, e);
    assert_int_equal(kvfs_engine_find("mem", &again, &err), 0);
    assert_ptr_not_equal(again, e);

    assert_int_equal(setenv("KVFS_ENGINE_DIR", ".", 1), 0);
    assert_int_equal(kvfs_engine_find("x", &again, &err), -EINVAL);
    assert_says(&err, "absolute");
    assert_int_equal(kvfs_engine_find("mem", &again, &err), 0);
    assert_int_equal(unsetenv("KVFS_ENGINE_DIR"), 0);
}

static void
engine_find__file_of_another_name__einval(void **state)
{
    const struct kvfs_engine *e = NULL;
    struct kvfs_error err = {.code = 0};
    char dir[] = "/tmp/kvfs-registry-XXXXXX", name[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(name, sizeof(name), "%s/libkvfs-engine-y.so", dir);
    assert_int_equal(symlink(KVFS_MODULES "/libkvfs-engine-x.so", name), 0);
    assert_int_equal(setenv("KVFS_ENGINE_DIR", dir, 1), 0);
    assert_int_equal(kvfs_engine_find("y", &e, &err), -EINVAL);
    assert_null(e);
    assert_says(&err, "'x', not 'y'");
    assert_int_equal(unsetenv("KVFS_ENGINE_DIR"), 0);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void
format__engine_that_its_name_does_not_find__enoent_and_nothing_made(void **state)
{
    const struct kvfs_format_options options = {.engine = KVFS_MODULES "/libkvfs-engine-x.so"};
    struct kvfs_error err = {.code = 0};
    char dir[] = "/tmp/kvfs-registry-XXXXXX", path[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/v", dir);
    assert_int_equal(setenv("KVFS_ENGINE_DIR", dir, 1), 0);
    assert_int_equal(kvfs_format(path, &options, &err), -ENOENT);
    assert_says(&err, dir);
    assert_says(&err, "libkvfs-engine-x.so");
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(unsetenv("KVFS_ENGINE_DIR"), 0);
    assert_int_equal(rmdir(dir), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_at__all_indices__different_names_then_null),
        cmocka_unit_test(engine_find__each_built_in__found_by_its_name),
        cmocka_unit_test(engine_find__unknown_name__enoent_lists_what_there_is),
        cmocka_unit_test(engine_find__file__loaded_once),
        cmocka_unit_test(engine_find__file_of_another_version__einval_names_both),
        cmocka_unit_test(engine_find__library_that_is_no_engine__einval),
        cmocka_unit_test(engine_find__no_library__einval_or_enoent),
        cmocka_unit_test(engine_find__name_of_a_file__found_in_one_folder),
        cmocka_unit_test(engine_find__file_of_another_name__einval),
        cmocka_unit_test(format__engine_that_its_name_does_not_find__enoent_and_nothing_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
