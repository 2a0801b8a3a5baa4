/* A stranger's program: a volume, a file, bytes in and out, through installed
 * headers and libraries only.  argv: a folder to make, an engine. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <kvfs/kvfs.h>

static int
consumer_run(struct kvfs_volume *v, struct kvfs_error *err)
{
    const struct kvfs_create create = {.mode = S_IFREG | 0600, .size_bytes = 1 << 20};
    const char text[] = "stored in a key-value engine";
    char back[sizeof(text)];
    struct kvfs_attr attr;
    struct kvfs_file *f;
    int code;

    code = kvfs_create(v, KVFS_ROOT_INO, "disk", &create, &attr, err);
    if (code == 0)
        code = kvfs_file_open(v, attr.ino, KVFS_OPEN_WRITE, &f, err);
    if (code != 0)
        return code;
    code = kvfs_file_pwrite(f, text, sizeof(text), 4090, 0, err);
    if (code == 0)
        code = kvfs_file_flush(f, err);
    if (code == 0)
        code = kvfs_file_pread(f, back, sizeof(back), 4090, err);
    kvfs_file_close(f);
    return code != 0 ? code : memcmp(text, back, sizeof(text));
}

int
main(int argc, char **argv)
{
    struct kvfs_error err = {0, ""};
    struct kvfs_format_options format = {NULL, 0, false, 0};
    struct kvfs_volume *v;
    int code;

    if (argc != 3)
        return 2;
    format.engine = argv[2];
    code = kvfs_format(argv[1], &format, &err);
    if (code == 0)
        code = kvfs_volume_open(argv[1], NULL, &v, &err);
    if (code == 0) {
        int ran = consumer_run(v, &err);

        code = kvfs_volume_close(v, ran == 0 ? &err : NULL);
        if (ran != 0)
            code = ran;
    }
    if (code != 0)
        fprintf(stderr, "consumer: %s (%d)\n", err.msg, code);
    return code != 0;
}
