/* See chunk.h. The CRC is Castagnoli's (RFC 3720): eight bytes a step by tables, or the processor's
 * own instruction where there is one. */
#include "proto/chunk.h"

#include <pthread.h>
#include <string.h>

static uint32_t crc_tables[8][256];
static bool crc_hardware;

static void crc_setup(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
        }
        crc_tables[0][i] = crc;
    }
    for (int t = 1; t < 8; t++) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t previous = crc_tables[t - 1][i];
            crc_tables[t][i] = previous >> 8 ^ crc_tables[0][previous & 255];
        }
    }
#if defined(__x86_64__)
    crc_hardware = __builtin_cpu_supports("sse4.2");
#endif
}

static uint64_t load_le64(const uint8_t *bytes)
{
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) {
        word |= (uint64_t)bytes[i] << (8 * i);
    }
    return word;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_instruction(uint32_t crc,
                                                                  const uint8_t *bytes, size_t size)
{
    uint64_t wide = crc;
    for (; size >= 8; size -= 8, bytes += 8) {
        wide = __builtin_ia32_crc32di(wide, load_le64(bytes));
    }
    crc = (uint32_t)wide;
    for (; size > 0; size--, bytes++) {
        crc = __builtin_ia32_crc32qi(crc, *bytes);
    }
    return crc;
}
#endif

static uint32_t crc_table(uint32_t crc, const uint8_t *bytes, size_t size)
{
    for (; size >= 8; size -= 8, bytes += 8) {
        uint64_t word = load_le64(bytes) ^ crc;
        crc = 0;
        for (int i = 0; i < 8; i++) {
            crc ^= crc_tables[7 - i][word >> (8 * i) & 255];
        }
    }
    for (; size > 0; size--, bytes++) {
        crc = crc >> 8 ^ crc_tables[0][(crc ^ *bytes) & 255];
    }
    return crc;
}

uint32_t meed_chunk_crc32c(uint32_t crc, const void *bytes, size_t size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, crc_setup);
#if defined(__x86_64__)
    if (crc_hardware) {
        return ~crc_instruction(~crc, bytes, size);
    }
#endif
    return ~crc_table(~crc, bytes, size);
}

enum meed_status meed_chunk_sender_init(struct meed_chunk_sender *sender, const void *bytes,
                                        int64_t total_bytes, int64_t offset)
{
    if (offset < 0 || offset > total_bytes) {
        return MEED_FAIL(MEED_LIMIT, "a transfer of %lld bytes cannot go on at byte %lld",
                         (long long)total_bytes, (long long)offset);
    }
    *sender = (struct meed_chunk_sender){bytes, total_bytes, offset};
    return MEED_OK;
}

bool meed_chunk_sender_next(struct meed_chunk_sender *sender, struct meed_msg_chunk *chunk)
{
    int64_t left = sender->total_bytes - sender->offset;
    if (left <= 0) {
        return false;
    }
    chunk->offset = sender->offset;
    chunk->bytes = sender->bytes + sender->offset;
    chunk->size = (size_t)MEED_MIN(left, MEED_LIMIT_CHUNK_BYTES);
    chunk->crc32c = meed_chunk_crc32c(0, chunk->bytes, chunk->size);
    sender->offset += (int64_t)chunk->size;
    return true;
}

enum meed_status meed_chunk_receiver_init(struct meed_chunk_receiver *receiver, int64_t total_bytes,
                                          int64_t max_bytes,
                                          const uint8_t sha256[MEED_SHA256_BYTES])
{
    if (total_bytes < 1 || total_bytes > max_bytes) {
        return MEED_FAIL(MEED_LIMIT, "a transfer of %lld bytes: 1 to %lld are allowed here",
                         (long long)total_bytes, (long long)max_bytes);
    }
    struct meed_chunk_receiver fresh = {.total_bytes = total_bytes};
    memcpy(fresh.expected, sha256, MEED_SHA256_BYTES);
    MEED_TRY(meed_sha256_create(&fresh.hash));
    *receiver = fresh;
    return MEED_OK;
}

void meed_chunk_receiver_clear(struct meed_chunk_receiver *receiver)
{
    meed_sha256_destroy(receiver->hash);
    receiver->hash = NULL;
}

enum meed_status meed_chunk_receiver_resume(struct meed_chunk_receiver *receiver, const void *bytes,
                                            size_t size)
{
    if ((int64_t)size > receiver->total_bytes - receiver->offset) {
        return MEED_FAIL(MEED_LIMIT, "more than the %lld bytes of the transfer are stored already",
                         (long long)receiver->total_bytes);
    }
    meed_sha256_update(receiver->hash, bytes, size);
    receiver->offset += (int64_t)size;
    return MEED_OK;
}

enum meed_status meed_chunk_receiver_accept(struct meed_chunk_receiver *receiver,
                                            const struct meed_msg_chunk *chunk)
{
    if (chunk->size == 0 || chunk->size > MEED_LIMIT_CHUNK_BYTES) {
        return MEED_FAIL(MEED_FORMAT, "a chunk of %zu bytes: 1 to %d are allowed", chunk->size,
                         MEED_LIMIT_CHUNK_BYTES);
    }
    if (chunk->offset != receiver->offset) {
        return MEED_FAIL(MEED_FORMAT,
                         "a chunk starts at byte %lld, expected %lld: ask for the "
                         "stored size and go on there",
                         (long long)chunk->offset, (long long)receiver->offset);
    }
    if ((int64_t)chunk->size > receiver->total_bytes - receiver->offset) {
        return MEED_FAIL(MEED_FORMAT, "chunks pass the announced %lld bytes",
                         (long long)receiver->total_bytes);
    }
    if (meed_chunk_crc32c(0, chunk->bytes, chunk->size) != chunk->crc32c) {
        return MEED_FAIL(MEED_INTEGRITY, "the chunk at byte %lld does not match its CRC",
                         (long long)chunk->offset);
    }
    meed_sha256_update(receiver->hash, chunk->bytes, chunk->size);
    receiver->offset += (int64_t)chunk->size;
    return MEED_OK;
}

bool meed_chunk_receiver_complete(const struct meed_chunk_receiver *receiver)
{
    return receiver->offset == receiver->total_bytes;
}

enum meed_status meed_chunk_receiver_finish(struct meed_chunk_receiver *receiver)
{
    uint8_t digest[MEED_SHA256_BYTES];
    if (!meed_chunk_receiver_complete(receiver)) {
        return MEED_FAIL(MEED_INTEGRITY, "the transfer ended after %lld of %lld bytes",
                         (long long)receiver->offset, (long long)receiver->total_bytes);
    }
    meed_sha256_final(receiver->hash, digest);
    receiver->hash = NULL;
    if (memcmp(digest, receiver->expected, sizeof digest) != 0) {
        return MEED_FAIL(MEED_INTEGRITY, "the transferred bytes do not have the announced SHA-256");
    }
    return MEED_OK;
}
