/* Messages to bytes and back: the only file that knows protobuf.
 *
 * Unpacking trusts nothing. protobuf-c checks structure only, so the codec adds what it leaves out:
 * a capped arena (4 MiB of empty sub-messages would otherwise become 200 MB), UTF-8 and inner NULs,
 * id alphabets, enum and number ranges, finite floats, hash lengths, counts. Every failure is
 * MEED_FORMAT (or LIMIT, NUMERIC) with message, field and bound in the sentence. Unknown fields are
 * skipped for tomorrow's peers, never kept: hash and store the received bytes, not a re-packed
 * message.
 *
 * Packing applies the same checks, so a peer never receives what this side would refuse.
 */
#ifndef MEED_PROTO_CODEC_H
#define MEED_PROTO_CODEC_H

#include "base/arena.h"
#include "base/buf.h"
#include "proto/message.h"

MEED_BEGIN_C

/* One pair of functions a message. */
#define MEED_CODEC_MESSAGES(X)                                                                     \
    X(join_request)                                                                                \
    X(join_reply) X(watch_request) X(watch_event) X(pull_request) X(pull_reply) X(push_request)    \
        X(push_reply) X(query_push_request) X(query_push_reply) X(receipt_request) X(receipt)      \
            X(ledger_request) X(ledger_reply) X(health_request) X(health_reply)

/* meed_codec_pack_join_request(&message, &bytes): appends the encoding.
 * meed_codec_unpack_join_request(bytes, size, &arena, &message): lists and chunk bytes live in the
 * arena (a growing one; meed_codec_arena_init makes it) until it is reset or cleared. */
#define MEED_CODEC_DECLARE(name)                                                                   \
    MEED_MUST_CHECK enum meed_status meed_codec_pack_##name(const struct meed_msg_##name *message, \
                                                            struct meed_buf *bytes);               \
    MEED_MUST_CHECK enum meed_status meed_codec_unpack_##name(const void *bytes, size_t size,      \
                                                              struct meed_arena *arena,            \
                                                              struct meed_msg_##name *message);
MEED_CODEC_MESSAGES(MEED_CODEC_DECLARE)
#undef MEED_CODEC_DECLARE

/* A growing arena capped at MEED_LIMIT_UNPACKED_BYTES. */
void meed_codec_arena_init(struct meed_arena *arena);
/* A buffer capped at MEED_LIMIT_MESSAGE_BYTES. */
void meed_codec_buf_init(struct meed_buf *bytes);

/* True for 1 to 63 letters of A-Z a-z 0-9 . _ - : run and client ids. */
bool meed_codec_id_valid(const char *id);
/* Strict UTF-8 without NUL. */
bool meed_codec_text_valid(const char *text, size_t length);

/* Test hooks over the compiled schema: FORMAT if a message type contains itself, directly or
 * through others (trap: protobuf-c recurses without limit); the paths of the services' methods. */
MEED_MUST_CHECK enum meed_status meed_codec_check_schema(void);
bool meed_codec_schema_has_method(const char *path);

MEED_END_C
#endif
