/* See file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"

static enum meed_status system_failed(const char *verb, const char *path)
{
    int code = errno;
    return MEED_FAIL(code == ENOENT ? MEED_NOT_FOUND : MEED_IO, "cannot %s %s: %s", verb, path,
                     strerror(code));
}

enum meed_status meed_file_read(const char *path, struct meed_buf *buf)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return system_failed("open", path);
    }
    enum meed_status st = MEED_OK;
    size_t size_before = buf->size;
    char block[65536];
    for (;;) {
        ssize_t got = read(fd, block, sizeof block);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            st = system_failed("read", path);
        }
        if (got <= 0) {
            break;
        }
        st = meed_buf_append(buf, block, (size_t)got);
        if (st == MEED_LIMIT) {
            st = MEED_FAIL(MEED_LIMIT, "%s is larger than %zu bytes", path,
                           buf->max_size - size_before);
        }
        if (st != MEED_OK) {
            break;
        }
    }
    close(fd);
    if (st == MEED_OK && buf->size == size_before) {
        st = meed_buf_append(buf, "", 0);
    }
    return st;
}

static enum meed_status write_all(int fd, const char *bytes, size_t size, const char *path)
{
    while (size > 0) {
        ssize_t wrote = write(fd, bytes, size);
        if (wrote < 0 && errno != EINTR) {
            return system_failed("write", path);
        }
        if (wrote > 0) {
            bytes += wrote;
            size -= (size_t)wrote;
        }
    }
    return MEED_OK;
}

enum meed_status meed_file_sync_folder_of(const char *path)
{
    char folder[MEED_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof folder) {
        return MEED_FAIL(MEED_LIMIT, "path too long: %.80s…", path);
    }
    memcpy(folder, path, length);
    folder[length] = '\0';
    int fd = open(slash ? (length ? folder : "/") : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return system_failed("open the folder of", path);
    }
    enum meed_status st = fsync(fd) == 0 ? MEED_OK : system_failed("sync the folder of", path);
    close(fd);
    return st;
}

static enum meed_status write_atomic(const char *path, const void *bytes, size_t size, mode_t mode)
{
    char temporary[MEED_PATH_BYTES];
    /* The clock as well: process ids repeat between the nodes that share a folder. */
    if (snprintf(temporary, sizeof temporary, "%s.tmp.%ld.%lld", path, (long)getpid(),
                 (long long)meed_clock_monotonic_ns()) >= (int)sizeof temporary) {
        return MEED_FAIL(MEED_LIMIT, "path too long: %.80s…", path);
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) {
        return system_failed("create", path);
    }
    enum meed_status st = write_all(fd, bytes, size, path);
    if (st == MEED_OK && fsync(fd) != 0) {
        st = system_failed("sync", path);
    }
    close(fd);
    if (st == MEED_OK && rename(temporary, path) != 0) {
        st = system_failed("rename into place", path);
    }
    if (st != MEED_OK) {
        unlink(temporary);
        return st;
    }
    return meed_file_sync_folder_of(path);
}

enum meed_status meed_file_write_atomic(const char *path, const void *bytes, size_t size)
{
    return write_atomic(path, bytes, size, 0644);
}

enum meed_status meed_file_write_private(const char *path, const void *bytes, size_t size)
{
    return write_atomic(path, bytes, size, 0600);
}

bool meed_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

enum meed_status meed_file_make_folder(const char *path)
{
    char part[MEED_PATH_BYTES];
    size_t length = strlen(path);
    if (length >= sizeof part) {
        return MEED_FAIL(MEED_LIMIT, "path too long: %.80s…", path);
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0755) != 0 && errno != EEXIST) {
                return system_failed("create the folder", part);
            }
        }
    }
    return MEED_OK;
}

enum meed_status meed_file_join(const char *folder, const char *name, char *text, size_t text_bytes)
{
    int length = snprintf(text, text_bytes, "%s%s%s", folder,
                          *folder && folder[strlen(folder) - 1] != '/' ? "/" : "", name);
    if (length < 0 || (size_t)length >= text_bytes) {
        return MEED_FAIL(MEED_LIMIT, "path too long: %.80s…/%.80s", folder, name);
    }
    return MEED_OK;
}

enum meed_status meed_file_map_open(const char *path, struct meed_file_map *map)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return system_failed("open", path);
    }
    struct stat info;
    enum meed_status st = MEED_OK;
    struct meed_file_map made = {NULL, 0};
    if (fstat(fd, &info) != 0) {
        st = system_failed("read", path);
    } else if (!S_ISREG(info.st_mode)) {
        st = MEED_FAIL(MEED_IO, "%s is not a regular file", path);
    } else if (info.st_size > 0) {
        void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED) {
            st = system_failed("map", path);
        } else {
            made = (struct meed_file_map){bytes, (size_t)info.st_size};
        }
    }
    close(fd);
    if (st == MEED_OK) {
        *map = made;
    }
    return st;
}

void meed_file_map_close(struct meed_file_map *map)
{
    if (map->bytes) {
        munmap((void *)(uintptr_t)map->bytes, map->size);
    }
    *map = (struct meed_file_map){NULL, 0};
}
