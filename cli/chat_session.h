/* Everything a command needs to let a model speak: opened together, closed together.
 *
 * `generate` and `chat` share it. Weights are held in fp32, frozen ones in blocks if asked; one
 * adapter at most. Interrupts (Ctrl-C) are caught while a session is open: the first one asks the
 * running generation to stop, so that what is there can still be printed.
 */
#ifndef MEED_CLI_CHAT_SESSION_H
#define MEED_CLI_CHAT_SESSION_H

#include "engine/chat.h"
#include "engine/checkpoint.h"
#include "engine/generate.h"

struct meed_pool;

enum { MEED_CHAT_SESSION_ROWS = 256, MEED_CHAT_SESSION_STOPS = MEED_MODEL_MAX_EOS + 1 };

struct meed_chat_session_options {
    const char *model;
    const char *adapter;         /* NULL: none */
    const char *device;          /* as meed_backend_open knows it; NULL: the CPU */
    int64_t threads;             /* 0: all cores */
    enum meed_block_format base; /* of the frozen weights */
    bool template_wanted;        /* fail where the model has no chat template */
};
struct meed_chat_session {
    struct meed_pool *pool;
    struct meed_backend *backend;
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *adapter;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat; /* NULL where the model has no template */
    struct meed_net *net;
    int32_t stop_ids[MEED_CHAT_SESSION_STOPS]; /* end of turn and the model's eos */
    int32_t stop_count;
};

MEED_MUST_CHECK enum meed_status
meed_chat_session_open(const struct meed_chat_session_options *options,
                       struct meed_chat_session *session);
void meed_chat_session_close(struct meed_chat_session *session); /* accepts zeroed */
/* True once after an interrupt came; asking clears it. */
bool meed_chat_session_interrupted(void);

/* Prints a stream of tokens as whole characters. */
struct meed_chat_session_stream {
    const struct meed_tokenizer *tokenizer;
    struct meed_buf reply; /* all bytes so far */
    size_t written;        /* of them to stdout */
};
void meed_chat_session_stream_start(struct meed_chat_session_stream *stream,
                                    const struct meed_tokenizer *tokenizer);
/* Adds a token and writes what is complete. */
MEED_MUST_CHECK enum meed_status
meed_chat_session_stream_add(struct meed_chat_session_stream *stream, int32_t token);
/* Writes the rest, replacing an unfinished character. */
MEED_MUST_CHECK enum meed_status
meed_chat_session_stream_end(struct meed_chat_session_stream *stream);
void meed_chat_session_stream_clear(struct meed_chat_session_stream *stream);

#endif
