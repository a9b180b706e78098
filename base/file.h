/* Files: whole reads with a limit, read-only maps, and writes that are either old or new.
 *
 * Everything Meed keeps is written by meed_file_write_atomic: temporary file in the same folder,
 * fsync, rename, fsync of the folder. After it returned, the bytes survive a power cut; before, the
 * old content stands. Errors name the path and the system's reason.
 */
#ifndef MEED_BASE_FILE_H
#define MEED_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

MEED_BEGIN_C

/* Appends the whole file; MEED_NOT_FOUND if it is not there, MEED_LIMIT beyond buf's maximum. */
MEED_MUST_CHECK enum meed_status meed_file_read(const char *path, struct meed_buf *buf);
MEED_MUST_CHECK enum meed_status meed_file_write_atomic(const char *path, const void *bytes,
                                                        size_t size);
/* The same for what nobody else may read: mode 0600 from the first byte on. */
MEED_MUST_CHECK enum meed_status meed_file_write_private(const char *path, const void *bytes,
                                                         size_t size);
bool meed_file_exists(const char *path);
/* Creates the folder and its parents. */
MEED_MUST_CHECK enum meed_status meed_file_make_folder(const char *path);
/* Joins folder and name into text of text_bytes; LIMIT if it does not fit. */
MEED_MUST_CHECK enum meed_status meed_file_join(const char *folder, const char *name, char *text,
                                                size_t text_bytes);

struct meed_file_map {
    const void *bytes; /* read-only; NULL for an empty file */
    size_t size;
};
MEED_MUST_CHECK enum meed_status meed_file_map_open(const char *path, struct meed_file_map *map);
void meed_file_map_close(struct meed_file_map *map);

/* fsync of an open descriptor, of the folder that holds path. */
MEED_MUST_CHECK enum meed_status meed_file_sync_folder_of(const char *path);

enum { MEED_PATH_BYTES = 4096 };

MEED_END_C
#endif
