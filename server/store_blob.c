/* See store.h: the files beside the database. */
#include "server/store_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum meed_status file_failed(const char *verb, const char *path)
{
    int code = errno;
    return MEED_FAIL(MEED_IO, "cannot %s %s: %s%s", verb, path, strerror(code),
                     code == ENOSPC ? "; free some space, uploads resume where they stopped" : "");
}

/* ---- a copy for who only reads --------------------------------------------------------------- */

/* SQLite's locks are locks of bytes from 1 GiB on, in a file that never has data there. */
enum { LOCK_START = 0x40000000, LOCK_BYTES = 512 };

enum meed_status meed_store_check_free(const struct meed_store *store)
{
    char path[MEED_PATH_BYTES];
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_START, .l_len = LOCK_BYTES};
    snprintf(path, sizeof path, "%s/state.db", store->folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool held = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0) {
        close(fd);
    }
    return held ? MEED_FAIL(MEED_STATE,
                            "an aggregator (process %d) is at work in %s; stop it first, the same "
                            "command goes on with it afterwards",
                            (int)lock.l_pid, store->folder)
                : MEED_OK;
}

void meed_store_drop_copy(const struct meed_store *store)
{
    static const char *const names[] = {"state.db", "state.db-wal", "state.db-shm"};
    char path[MEED_PATH_BYTES];
    for (size_t i = 0; store->copy[0] && i < MEED_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", store->copy, names[i]);
        unlink(path);
    }
    if (store->copy[0]) {
        rmdir(store->copy);
    }
}

/* ---- blobs ----------------------------------------------------------------------------------- */

void meed_store_blob_path(const struct meed_store *store, const uint8_t sha256[MEED_SHA256_BYTES],
                          char path[MEED_PATH_BYTES])
{
    char hex[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(sha256, hex);
    snprintf(path, MEED_PATH_BYTES, "%s/blobs/%.2s/%s", store->folder, hex, hex);
}

/* The two-digit folder of a blob, made and synced. */
static enum meed_status make_blob_folder(const char *path)
{
    char folder[MEED_PATH_BYTES];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    if (meed_file_exists(folder)) {
        return MEED_OK;
    }
    MEED_TRY(meed_file_make_folder(folder));
    return meed_file_sync_folder_of(folder);
}

enum meed_status meed_store_put_blob(struct meed_store *store, const void *bytes, size_t size,
                                     uint8_t sha256[MEED_SHA256_BYTES])
{
    char path[MEED_PATH_BYTES];
    uint8_t digest[MEED_SHA256_BYTES];
    MEED_ASSERT(!store->copy[0]);
    meed_sha256(bytes, size, digest);
    meed_store_blob_path(store, digest, path);
    if (!meed_file_exists(path)) {
        MEED_TRY(meed_store_note(store, make_blob_folder(path)));
        MEED_TRY(meed_store_note(store, meed_file_write_atomic(path, bytes, size)));
    }
    memcpy(sha256, digest, sizeof digest);
    return MEED_OK;
}

enum meed_status meed_store_map_blob(const struct meed_store *store,
                                     const uint8_t sha256[MEED_SHA256_BYTES],
                                     struct meed_file_map *map)
{
    char path[MEED_PATH_BYTES];
    uint8_t digest[MEED_SHA256_BYTES];
    struct meed_file_map made = {NULL, 0};
    meed_store_blob_path(store, sha256, path);
    MEED_TRY(meed_file_map_open(path, &made));
    meed_sha256(made.bytes, made.size, digest);
    if (memcmp(digest, sha256, sizeof digest) != 0) {
        meed_file_map_close(&made);
        return MEED_FAIL(MEED_INTEGRITY, "%s does not hold the bytes that its name says", path);
    }
    *map = made;
    return MEED_OK;
}

/* ---- partial uploads ------------------------------------------------------------------------- */

struct meed_store_partial {
    struct meed_store *store; /* borrowed */
    int fd;
    int64_t size;
    uint8_t sha256[MEED_SHA256_BYTES];
    char path[MEED_PATH_BYTES];
};

static void partial_path(const struct meed_store *store, const char *client,
                         const uint8_t sha256[MEED_SHA256_BYTES], char path[MEED_PATH_BYTES])
{
    char hex[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(sha256, hex);
    snprintf(path, MEED_PATH_BYTES, "%s/partial/%s-%s", store->folder, client, hex);
}

/* A client has one upload: the disk a stranger can fill is one update a client, not more. */
static void drop_others(const struct meed_store *store, const char *client, const char *keep)
{
    char path[MEED_PATH_BYTES];
    snprintf(path, sizeof path, "%s/partial", store->folder);
    DIR *folder = opendir(path);
    if (!folder) {
        return;
    }
    size_t length = strlen(client);
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        const char *name = entry->d_name;
        bool own = strlen(name) == length + 1 + 2 * MEED_SHA256_BYTES &&
                   strncmp(name, client, length) == 0 && name[length] == '-';
        if (own && strcmp(name, strrchr(keep, '/') + 1) != 0) {
            unlinkat(dirfd(folder), name, 0);
        }
    }
    closedir(folder);
}

enum meed_status meed_store_partial_open(struct meed_store *store, const char *client,
                                         const uint8_t sha256[MEED_SHA256_BYTES],
                                         struct meed_store_partial **partial, int64_t *size)
{
    struct meed_store_partial *opened = meed_heap_alloc(1, sizeof *opened);
    if (!opened) {
        return MEED_NOMEM;
    }
    opened->store = store;
    memcpy(opened->sha256, sha256, MEED_SHA256_BYTES);
    partial_path(store, client, sha256, opened->path);
    drop_others(store, client, opened->path);
    opened->fd = open(opened->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    struct stat info;
    if (opened->fd < 0 || fstat(opened->fd, &info) != 0) {
        enum meed_status st = meed_store_note(store, file_failed("open", opened->path));
        meed_store_partial_close(opened);
        return st;
    }
    opened->size = (int64_t)info.st_size;
    *size = opened->size;
    *partial = opened;
    return MEED_OK;
}

void meed_store_partial_close(struct meed_store_partial *partial)
{
    if (!partial) {
        return;
    }
    if (partial->fd >= 0) {
        close(partial->fd);
    }
    meed_heap_free(partial);
}

enum meed_status meed_store_partial_read(struct meed_store_partial *partial, int64_t offset,
                                         void *bytes, size_t size)
{
    char *at = bytes;
    while (size > 0) {
        ssize_t got = pread(partial->fd, at, size, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return file_failed("read", partial->path);
        }
        at += got;
        offset += got;
        size -= (size_t)got;
    }
    return MEED_OK;
}

/* A failing write leaves `size` at the last whole piece: the caller may try the same bytes again.
 */
enum meed_status meed_store_partial_append(struct meed_store_partial *partial, const void *bytes,
                                           size_t size)
{
    const char *at = bytes;
    size_t done = 0;
    while (done < size) {
        ssize_t wrote =
            pwrite(partial->fd, at + done, size - done, (off_t)(partial->size + (int64_t)done));
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) {
            enum meed_status st =
                meed_store_note(partial->store, file_failed("write", partial->path));
            return ftruncate(partial->fd, (off_t)partial->size) == 0 ? st : MEED_IO;
        }
        done += (size_t)wrote;
    }
    partial->size += (int64_t)size;
    return meed_store_note(partial->store, MEED_OK);
}

enum meed_status meed_store_partial_truncate(struct meed_store_partial *partial, int64_t size)
{
    if (ftruncate(partial->fd, (off_t)size) != 0) {
        return meed_store_note(partial->store, file_failed("cut", partial->path));
    }
    partial->size = size;
    return MEED_OK;
}

enum meed_status meed_store_partial_adopt(struct meed_store_partial *partial)
{
    struct meed_store *store = partial->store;
    char path[MEED_PATH_BYTES];
    meed_store_fault(store, "partial.whole");
    if (fsync(partial->fd) != 0) {
        return meed_store_note(store, file_failed("sync", partial->path));
    }
    meed_store_blob_path(store, partial->sha256, path);
    MEED_TRY(meed_store_note(store, make_blob_folder(path)));
    if (rename(partial->path, path) != 0) {
        return meed_store_note(store, file_failed("rename", partial->path));
    }
    enum meed_status st = meed_store_note(store, meed_file_sync_folder_of(path));
    meed_store_fault(store, "partial.adopted");
    return st;
}

enum meed_status meed_store_partial_durable(struct meed_store *store, const char *client,
                                            const uint8_t sha256[MEED_SHA256_BYTES], int64_t *size)
{
    char path[MEED_PATH_BYTES];
    partial_path(store, client, sha256, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        *size = 0;
        return errno == ENOENT ? MEED_OK : file_failed("open", path);
    }
    struct stat info;
    enum meed_status st = MEED_OK;
    if (fstat(fd, &info) != 0 || fsync(fd) != 0) {
        st = meed_store_note(store, file_failed("sync", path));
    } else {
        *size = (int64_t)info.st_size;
    }
    close(fd);
    return st;
}
