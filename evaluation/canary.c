/* See canary.h. */
#include "evaluation/canary.h"

#include <string.h>
#include "base/buf.h"
#include "base/rng.h"

enum { MAX_TEXT_BYTES = 1 << 20 };

static const struct {
    const char *name, *alphabet;
} kinds[] = {
    {"digits", "0123456789"},
    {"letters", "abcdefghijklmnopqrstuvwxyz"},
    {"hex", "0123456789abcdef"},
};

/* --- patterns --------------------------------------------------------------------------------- */
/* "{digits:6}" at `text`: its end, or NULL. A length of more than two digits is none. */
static const char *hole_read(const char *text, struct meed_canary_format *format)
{
    for (size_t k = 0; k < MEED_COUNT(kinds); k++) {
        const size_t name = strlen(kinds[k].name);
        const char *at = text + 1 + name;
        int32_t length = 0;
        if (strncmp(text + 1, kinds[k].name, name) != 0 || *at != ':') {
            continue;
        }
        for (at++; *at >= '0' && *at <= '9' && length < 100; at++) {
            length = 10 * length + (*at - '0');
        }
        if (*at == '}') {
            format->alphabet = kinds[k].alphabet;
            format->length = length;
            return at + 1;
        }
    }
    return NULL;
}

static enum meed_status space_count(struct meed_canary_format *format)
{
    const uint64_t letters = strlen(format->alphabet);
    format->space = 1;
    for (int32_t i = 0; i < format->length; i++) {
        if (i == MEED_CANARY_MAX_SECRET || format->space > MEED_CANARY_MAX_SPACE / letters) {
            return MEED_FAIL(MEED_ARG,
                             "a secret of %d letters out of %d: more than 2^63 candidates",
                             (int)format->length, (int)letters);
        }
        format->space *= letters;
    }
    return format->length > 0 ? MEED_OK
                              : MEED_FAIL(MEED_ARG, "a secret of no letters; write {digits:6}");
}

enum meed_status meed_canary_format_parse(const char *question, const char *reply,
                                          struct meed_canary_format *format)
{
    struct meed_canary_format made = {.question = question, .reply = reply};
    if (!*question || strstr(question, "{digits:") || strstr(question, "{letters:") ||
        strstr(question, "{hex:")) {
        return MEED_FAIL(MEED_ARG, "a canary's question may not be empty, nor hold the secret");
    }
    for (const char *at = strchr(reply, '{'); at; at = strchr(at, '{')) {
        const char *end = strncmp(at, "{n}", 3) == 0 ? at + 3 : hole_read(at, &made);
        if (!end) {
            return MEED_FAIL(MEED_ARG,
                             "\"%.24s\" is no part of a canary; write {n} for its number and "
                             "{digits:6}, {letters:6} or {hex:8} for the secret",
                             at);
        }
        if (end > at + 3) {
            if (made.hole_end > 0) {
                return MEED_FAIL(MEED_ARG, "a canary's reply has one secret, not two");
            }
            made.hole_begin = (size_t)(at - reply);
            made.hole_end = (size_t)(end - reply);
        }
        at = end;
    }
    if (made.hole_end == 0) {
        return MEED_FAIL(MEED_ARG, "a canary's reply needs a place for the secret: {digits:6}, "
                                   "{letters:6} or {hex:8}");
    }
    MEED_TRY(space_count(&made));
    *format = made;
    return MEED_OK;
}

void meed_canary_candidate(const struct meed_canary_format *format, uint64_t idx,
                           char text[MEED_CANARY_MAX_SECRET + 1])
{
    const uint64_t letters = strlen(format->alphabet);
    MEED_ASSERT(idx < format->space);
    text[format->length] = '\0';
    for (int32_t i = format->length - 1; i >= 0; i--) {
        text[i] = format->alphabet[idx % letters];
        idx /= letters;
    }
}

bool meed_canary_number(const struct meed_canary_format *format, const char *text, uint64_t *idx)
{
    const uint64_t letters = strlen(format->alphabet);
    uint64_t number = 0;
    if (strlen(text) != (size_t)format->length) {
        return false;
    }
    for (; *text; text++) {
        const char *at = strchr(format->alphabet, *text);
        if (!at) {
            return false;
        }
        number = letters * number + (uint64_t)(at - format->alphabet);
    }
    *idx = number;
    return true;
}

/* --- texts ------------------------------------------------------------------------------------ */
/* [begin, end) of a pattern with its numbers written. */
static enum meed_status number_write(const char *begin, const char *end, int32_t number,
                                     struct meed_buf *text)
{
    while (begin < end) {
        const char *hole = strstr(begin, "{n}");
        const char *stop = hole && hole < end ? hole : end;
        MEED_TRY(meed_buf_append(text, begin, (size_t)(stop - begin)));
        if (stop < end) {
            MEED_TRY(meed_buf_printf(text, "%d", (int)number));
            stop += 3;
        }
        begin = stop;
    }
    return MEED_OK;
}

static enum meed_status text_keep(const struct meed_buf *buf, struct meed_arena *arena,
                                  const char **text)
{
    char *copy;
    MEED_TRY(meed_arena_strdup(arena, buf->data, buf->size, &copy));
    *text = copy;
    return MEED_OK;
}

enum meed_status meed_canary_question(const struct meed_canary_format *format, int32_t number,
                                      struct meed_arena *arena, const char **text)
{
    enum meed_status st = MEED_OK;
    struct meed_buf buf;
    meed_buf_init(&buf, MAX_TEXT_BYTES);
    MEED_TRY_OUT(
        number_write(format->question, format->question + strlen(format->question), number, &buf));
    MEED_TRY_OUT(text_keep(&buf, arena, text));
out:
    meed_buf_clear(&buf);
    return st;
}

enum meed_status meed_canary_reply(const struct meed_canary_format *format, int32_t number,
                                   const char *secret, struct meed_arena *arena, const char **text)
{
    enum meed_status st = MEED_OK;
    const char *reply = format->reply;
    struct meed_buf buf;
    meed_buf_init(&buf, MAX_TEXT_BYTES);
    MEED_TRY_OUT(number_write(reply, reply + format->hole_begin, number, &buf));
    MEED_TRY_OUT(meed_buf_append(&buf, secret, strlen(secret)));
    MEED_TRY_OUT(number_write(reply + format->hole_end, reply + strlen(reply), number, &buf));
    MEED_TRY_OUT(text_keep(&buf, arena, text));
out:
    meed_buf_clear(&buf);
    return st;
}

/* --- secrets ---------------------------------------------------------------------------------- */
static bool is_taken(const uint64_t *secrets, int32_t count, uint64_t secret)
{
    for (int32_t i = 0; i < count; i++) {
        if (secrets[i] == secret) {
            return true;
        }
    }
    return false;
}

enum meed_status meed_canaries_draw(struct meed_canaries *canaries, struct meed_arena *arena)
{
    struct meed_rng rng = meed_rng_stream(canaries->seed, "canaries", 0);
    const uint64_t space = canaries->format.space;
    void *block;
    MEED_ASSERT(canaries->count >= 1 && canaries->count <= MEED_CANARY_MAX_COUNT);
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)canaries->count, sizeof(uint64_t), &block));
    canaries->secrets = block;
    for (int32_t i = 0; i < canaries->count; i++) {
        uint64_t secret = meed_rng_below(&rng, space);
        while (space > (uint64_t)i && is_taken(canaries->secrets, i, secret)) {
            secret = meed_rng_below(&rng, space);
        }
        canaries->secrets[i] = secret;
    }
    return MEED_OK;
}
