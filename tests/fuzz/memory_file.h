/* A file that is only memory, for decoders that read paths.
 *
 * Fuzzing a million inputs must not touch a disk, and the decoders open and map their files
 * themselves: that is part of what is tested. So the input goes into a memfd, and its name under
 * /proc/self/fd is the path. One file serves a whole process.
 */
#ifndef MEED_FUZZ_MEMORY_FILE_H
#define MEED_FUZZ_MEMORY_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct memory_file {
    int fd; /* 0: not made yet */
    char path[32];
};

/* Replaces the content; aborts where the system refuses, which is no finding of the decoder. */
static inline const char *memory_file_put(struct memory_file *file, const void *bytes, size_t size)
{
    if (file->fd == 0) {
        file->fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(file->path, sizeof file->path, "/proc/self/fd/%d", file->fd);
    }
    if (file->fd < 0 || ftruncate(file->fd, 0) != 0 ||
        pwrite(file->fd, bytes, size, 0) != (ssize_t)size) {
        perror("memory file");
        abort();
    }
    return file->path;
}

#endif
