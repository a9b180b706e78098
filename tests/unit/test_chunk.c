/* Chunked transfers: order, CRC, hash and resume. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/chunk.h"

enum { SIZE = (2 << 20) + 777 };

static uint8_t *make_bytes(uint8_t hash[MEED_SHA256_BYTES])
{
    uint8_t *bytes = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)(i * 2654435761u >> 11);
    }
    meed_sha256(bytes, SIZE, hash);
    return bytes;
}

/* RFC 3720's examples, and the same in pieces of every alignment. */
static void chunk_crc_is_castagnolis(void **state)
{
    (void)state;
    uint8_t zeros[32] = {0}, rising[32];
    for (uint8_t i = 0; i < 32; i++) {
        rising[i] = i;
    }
    assert_int_equal(meed_chunk_crc32c(0, zeros, 32), 0x8A9136AA);
    assert_int_equal(meed_chunk_crc32c(0, rising, 32), 0x46DD794E);
    assert_int_equal(meed_chunk_crc32c(0, "123456789", 9), 0xE3069283);
    for (size_t cut = 0; cut <= 32; cut++) {
        uint32_t crc = meed_chunk_crc32c(0, rising, cut);
        assert_int_equal(meed_chunk_crc32c(crc, rising + cut, 32 - cut), 0x46DD794E);
    }
}

static void chunk_transfer_arrives_whole(void **state)
{
    (void)state;
    uint8_t hash[MEED_SHA256_BYTES];
    uint8_t *bytes = make_bytes(hash);
    struct meed_chunk_sender sender;
    struct meed_chunk_receiver receiver = {0};
    struct meed_msg_chunk chunk;
    int count = 0;
    assert_int_equal(meed_chunk_sender_init(&sender, bytes, SIZE, 0), MEED_OK);
    assert_int_equal(meed_chunk_receiver_init(&receiver, SIZE, SIZE, hash), MEED_OK);
    while (meed_chunk_sender_next(&sender, &chunk)) {
        assert_int_equal(meed_chunk_receiver_accept(&receiver, &chunk), MEED_OK);
        count++;
    }
    assert_int_equal(count, 3);
    assert_true(meed_chunk_receiver_complete(&receiver));
    assert_int_equal(meed_chunk_receiver_finish(&receiver), MEED_OK);
    meed_chunk_receiver_clear(&receiver);
    free(bytes);
}

/* A restart: the stored part is fed again, the sender goes on at its end. */
static void chunk_transfer_resumes(void **state)
{
    (void)state;
    uint8_t hash[MEED_SHA256_BYTES];
    uint8_t *bytes = make_bytes(hash);
    for (int64_t stored = 0; stored <= SIZE; stored += SIZE / 7) {
        struct meed_chunk_sender sender;
        struct meed_chunk_receiver receiver = {0};
        struct meed_msg_chunk chunk;
        assert_int_equal(meed_chunk_receiver_init(&receiver, SIZE, SIZE, hash), MEED_OK);
        for (int64_t at = 0; at < stored; at += 1000) {
            size_t n = (size_t)MEED_MIN(1000, stored - at);
            assert_int_equal(meed_chunk_receiver_resume(&receiver, bytes + at, n), MEED_OK);
        }
        assert_int_equal(meed_chunk_sender_init(&sender, bytes, SIZE, receiver.offset), MEED_OK);
        while (meed_chunk_sender_next(&sender, &chunk)) {
            assert_int_equal(meed_chunk_receiver_accept(&receiver, &chunk), MEED_OK);
        }
        assert_int_equal(meed_chunk_receiver_finish(&receiver), MEED_OK);
        meed_chunk_receiver_clear(&receiver);
    }
    struct meed_chunk_sender sender;
    assert_int_equal(meed_chunk_sender_init(&sender, bytes, SIZE, SIZE + 1), MEED_LIMIT);
    assert_int_equal(meed_chunk_sender_init(&sender, bytes, SIZE, -1), MEED_LIMIT);
    free(bytes);
}

static void chunk_refuses_what_does_not_fit(void **state)
{
    (void)state;
    uint8_t hash[MEED_SHA256_BYTES];
    uint8_t *bytes = make_bytes(hash);
    struct meed_chunk_receiver receiver = {0};
    assert_int_equal(meed_chunk_receiver_init(&receiver, 0, SIZE, hash), MEED_LIMIT);
    assert_int_equal(meed_chunk_receiver_init(&receiver, SIZE + 1, SIZE, hash), MEED_LIMIT);
    assert_int_equal(meed_chunk_receiver_init(&receiver, 100, SIZE, hash), MEED_OK);
    struct meed_msg_chunk good = {0, bytes, 60, meed_chunk_crc32c(0, bytes, 60)};
    struct meed_msg_chunk bad = good;
    bad.size = 0;
    assert_int_equal(meed_chunk_receiver_accept(&receiver, &bad), MEED_FORMAT);
    bad = good;
    bad.size = MEED_LIMIT_CHUNK_BYTES + 1;
    assert_int_equal(meed_chunk_receiver_accept(&receiver, &bad), MEED_FORMAT);
    bad = good;
    bad.offset = 1;
    assert_int_equal(meed_chunk_receiver_accept(&receiver, &bad), MEED_FORMAT);
    bad = good;
    bad.crc32c ^= 1;
    assert_int_equal(meed_chunk_receiver_accept(&receiver, &bad), MEED_INTEGRITY);
    assert_int_equal(receiver.offset, 0);
    assert_int_equal(meed_chunk_receiver_accept(&receiver, &good), MEED_OK);
    assert_int_equal(meed_chunk_receiver_accept(&receiver, &good), MEED_FORMAT); /* again */
    good.offset = 60;
    assert_int_equal(meed_chunk_receiver_accept(&receiver, &good), MEED_FORMAT); /* too much */
    assert_int_equal(meed_chunk_receiver_finish(&receiver), MEED_INTEGRITY);     /* too early */
    good.size = 40;
    good.crc32c = meed_chunk_crc32c(0, bytes, 40);
    assert_int_equal(meed_chunk_receiver_accept(&receiver, &good), MEED_OK);
    assert_int_equal(meed_chunk_receiver_finish(&receiver),
                     MEED_INTEGRITY); /* CRCs right, hash not */
    meed_chunk_receiver_clear(&receiver);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunk_crc_is_castagnolis),
        cmocka_unit_test(chunk_transfer_arrives_whole),
        cmocka_unit_test(chunk_transfer_resumes),
        cmocka_unit_test(chunk_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests_name("chunk", tests, NULL, NULL);
}
