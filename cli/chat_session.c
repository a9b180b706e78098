/* See chat_session.h. The signal handler is installed without SA_RESTART: a read from the terminal
 * ends too, and the command sees it. */
#include "cli/chat_session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "base/threads.h"
#include "engine/tokenizer_utf8.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

bool meed_chat_session_interrupted(void)
{
    bool was = interrupted != 0;
    interrupted = 0;
    return was;
}

static void catch_interrupts(bool on)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on ? on_interrupt : SIG_DFL;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

static void add_stop(struct meed_chat_session *session, int32_t id)
{
    for (int32_t i = 0; i < session->stop_count; i++) {
        if (session->stop_ids[i] == id) {
            return;
        }
    }
    session->stop_ids[session->stop_count++] = id;
}

static enum meed_status open_template(const struct meed_chat_session_options *options,
                                      struct meed_chat_session *session)
{
    enum meed_status st = meed_chat_open(options->model, session->tokenizer, &session->chat);
    if (st == MEED_NOT_FOUND && !options->template_wanted) {
        return MEED_OK;
    }
    if (st == MEED_OK) {
        add_stop(session, meed_chat_end_of_turn(session->chat));
    }
    return st;
}

static enum meed_status open_net(const struct meed_chat_session_options *options,
                                 struct meed_chat_session *session)
{
    const struct meed_adapter *adapters[1] = {NULL};
    struct meed_net_options net_options = {
        .dtype = MEED_DTYPE_F32,
        .base = options->base,
        .max_rows = MEED_CHAT_SESSION_ROWS,
        .max_sequences = 1,
    };
    if (options->adapter) {
        MEED_TRY(
            meed_adapter_load(options->adapter, &session->checkpoint->config, &session->adapter));
        adapters[0] = session->adapter;
        net_options.adapters = adapters;
        net_options.adapter_count = 1;
    }
    return meed_net_create(session->backend, session->checkpoint, &net_options, &session->net);
}

enum meed_status meed_chat_session_open(const struct meed_chat_session_options *options,
                                        struct meed_chat_session *session)
{
    memset(session, 0, sizeof *session);
    enum meed_status st;
    MEED_TRY_OUT(meed_tokenizer_open(options->model, &session->tokenizer));
    MEED_TRY_OUT(open_template(options, session));
    MEED_TRY_OUT(meed_checkpoint_open(options->model, &session->checkpoint));
    for (int32_t i = 0; i < session->checkpoint->config.eos_count; i++) {
        add_stop(session, session->checkpoint->config.eos[i]);
    }
    MEED_TRY_OUT(meed_pool_create((int)options->threads, &session->pool));
    MEED_TRY_OUT(meed_backend_open(options->device, session->pool, &session->backend));
    MEED_TRY_OUT(open_net(options, session));
    catch_interrupts(true);
out:
    if (st != MEED_OK) {
        meed_chat_session_close(session);
    }
    return st;
}

void meed_chat_session_close(struct meed_chat_session *session)
{
    catch_interrupts(false);
    meed_net_destroy(session->net);
    meed_adapter_destroy(session->adapter);
    meed_checkpoint_close(session->checkpoint);
    meed_backend_close(session->backend);
    meed_pool_destroy(session->pool);
    meed_chat_close(session->chat);
    meed_tokenizer_close(session->tokenizer);
    memset(session, 0, sizeof *session);
}

/* --- streaming ------------------------------------------------------------------------------- */
void meed_chat_session_stream_start(struct meed_chat_session_stream *stream,
                                    const struct meed_tokenizer *tokenizer)
{
    *stream = (struct meed_chat_session_stream){.tokenizer = tokenizer};
    meed_buf_init(&stream->reply, MEED_TOKENIZER_MAX_TEXT_BYTES);
}

/* Writes reply[written, end) with ill-formed bytes replaced. */
static enum meed_status write_up_to(struct meed_chat_session_stream *stream, size_t end)
{
    if (end == stream->written) {
        return MEED_OK;
    }
    struct meed_buf clean;
    meed_buf_init(&clean, SIZE_MAX / 4);
    enum meed_status st = meed_tokenizer_utf8_clean(stream->reply.data + stream->written,
                                                    end - stream->written, &clean);
    if (st == MEED_OK &&
        (fwrite(clean.data, 1, clean.size, stdout) != clean.size || fflush(stdout) != 0)) {
        st = MEED_FAIL(MEED_IO, "cannot write to standard output: %s", strerror(errno));
    }
    stream->written = end;
    meed_buf_clear(&clean);
    return st;
}

enum meed_status meed_chat_session_stream_add(struct meed_chat_session_stream *stream,
                                              int32_t token)
{
    MEED_TRY(meed_tokenizer_decode(stream->tokenizer, &token, 1, false, &stream->reply));
    const char *fresh = stream->reply.data + stream->written;
    size_t size = stream->reply.size - stream->written;
    size_t open = size > 0 ? meed_tokenizer_utf8_unfinished(fresh, size) : 0;
    return write_up_to(stream, stream->reply.size - open);
}

enum meed_status meed_chat_session_stream_end(struct meed_chat_session_stream *stream)
{
    return write_up_to(stream, stream->reply.size);
}

void meed_chat_session_stream_clear(struct meed_chat_session_stream *stream)
{
    meed_buf_clear(&stream->reply);
}
