/* The envelope of an update: zstd, when the plan asks for it and it pays.
 *
 * Rice-coded streams do not shrink, bitmaps and int8 do; so the packer keeps whichever is shorter
 * and the magic number tells them apart ("MUPD" or zstd's). Inflating a stranger's bytes is bounded
 * before it starts: the frame must declare its size, one frame only, no dictionary, and the
 * declared size is compared with what the negotiated layout can need.
 */
#include "proto/update.h"

#include <string.h>
#include <zstd.h>

enum meed_status meed_update_zstd_pack(const void *bytes, size_t size, int level,
                                       struct meed_buf *packed)
{
    if (level < 0 || level > MEED_LIMIT_ZSTD_LEVEL) {
        return MEED_FAIL(MEED_ARG, "zstd level %d: give 0 to %d", level, MEED_LIMIT_ZSTD_LEVEL);
    }
    if (level == 0) {
        return meed_buf_append(packed, bytes, size);
    }
    size_t before = packed->size, bound = ZSTD_compressBound(size);
    void *room = NULL;
    MEED_TRY(meed_buf_extend(packed, bound, &room));
    size_t shrunk = ZSTD_compress(room, bound, bytes, size, level);
    if (ZSTD_isError(shrunk)) {
        packed->size = before;
        return MEED_FAIL(MEED_NOMEM, "zstd: %s", ZSTD_getErrorName(shrunk));
    }
    packed->size = before + shrunk;
    if (shrunk >= size) {
        packed->size = before;
        return meed_buf_append(packed, bytes, size);
    }
    return MEED_OK;
}

enum meed_status meed_update_zstd_unpack(const void *packed, size_t size, int64_t max_bytes,
                                         struct meed_buf *bytes)
{
    static const uint8_t magic[4] = {0x28, 0xB5, 0x2F, 0xFD};
    if (size < sizeof magic || memcmp(packed, magic, sizeof magic) != 0) {
        if ((int64_t)size > max_bytes) {
            return MEED_FAIL(MEED_LIMIT, "an update of %zu bytes: at most %lld are possible here",
                             size, (long long)max_bytes);
        }
        return meed_buf_append(bytes, packed, size);
    }
    unsigned long long declared = ZSTD_getFrameContentSize(packed, size);
    if (declared == ZSTD_CONTENTSIZE_UNKNOWN || declared == ZSTD_CONTENTSIZE_ERROR ||
        ZSTD_findFrameCompressedSize(packed, size) != size) {
        return MEED_FAIL(MEED_FORMAT,
                         "a compressed update must be one zstd frame that declares its "
                         "size");
    }
    if (declared > (unsigned long long)max_bytes) {
        return MEED_FAIL(MEED_LIMIT,
                         "a compressed update declares %llu bytes: at most %lld are "
                         "possible here",
                         declared, (long long)max_bytes);
    }
    size_t before = bytes->size;
    void *room = NULL;
    MEED_TRY(meed_buf_extend(bytes, (size_t)declared, &room));
    size_t inflated = ZSTD_decompress(room, (size_t)declared, packed, size);
    if (ZSTD_isError(inflated) || inflated != declared) {
        bytes->size = before;
        return MEED_FAIL(MEED_FORMAT, "a compressed update does not inflate: %s",
                         ZSTD_isError(inflated) ? ZSTD_getErrorName(inflated) : "wrong size");
    }
    return MEED_OK;
}
