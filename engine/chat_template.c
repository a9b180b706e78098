/* See chat_template.h. What each format writes (roles system, user, assistant; no tools):
 *
 *   ChatML    <|im_start|>ROLE\nCONTENT<|im_end|>\n, reply opened by <|im_start|>assistant\n.
 *             SmolLM2, Qwen2.5 and others put a system line of their own where the dialogue has
 *             none; it is read out of the template text, so their fine-tunes keep their line.
 *   Qwen3     ChatML; thoughts (<think>…</think>) of replies before the last question are dropped,
 *             a reply behind it carries its thoughts or, as the last message, an empty block.
 *   Llama 3   BOS, then <|start_header_id|>ROLE<|end_header_id|>\n\nCONTENT<|eot_id|> with the
 *             content trimmed as Python trims.
 *   Llama 3.1 the same behind a system header that is always there and carries two dates. 3.2 asks
 *             the clock; the date is pinned to the one that 3.1 falls back to.
 *
 * The first Llama 3 template opens a reply whether asked to or not; here generation_prompt decides.
 * A ChatML text with marks of something else (trimming, separators, reasoning modes) is refused: a
 * near miss would train and score on a format that the model never saw.
 */
#include "engine/chat_template.h"

#include <string.h>
#include "base/hash.h"
#include "base/log.h"

#define IM_START "<|im_start|>"
#define IM_END "<|im_end|>"
#define HEADER "<|start_header_id|>"
#define HEADER_END "<|end_header_id|>"
#define EOT "<|eot_id|>"
#define LLAMA31_DATES "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
#define EMPTY_THOUGHT "<think>\n\n</think>\n\n"

static const char *const role_names[] = {"system", "user", "assistant"};

/* Published texts that were compared with Jinja's output (tests/golden/generate). */
static const struct {
    const char *hash;
    enum meed_chat_format format;
    const char *name;
} known[] = {
    {"87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5", MEED_CHAT_QWEN3, "qwen3"},
    {"b48c47f6443892716176eb200bf4ef108f64e06ca26ed0fa8ebc0a4b3992fcb2", MEED_CHAT_LLAMA3,
     "llama3"},
};

/* Texts that look like ChatML and are something else, with the reason. */
static const struct {
    const char *mark;
    const char *what;
} chatml_strangers[] = {
    {"<|im_sep|>", "separator tokens"},
    {"reasoning_mode", "reasoning modes"},
    {"strftime", "a date"},
    {"|trim", "trimmed contents"},
    {"| trim", "trimmed contents"},
};

/* --- recognising ----------------------------------------------------------------------------- */
/* Copies a Jinja string literal up to the end mark; false if it ends before, is no plain text or is
 * too long. `quote` opened the literal. */
static bool literal_until(const char *text, char quote, const char *end_mark, char *literal,
                          size_t literal_bytes)
{
    size_t used = 0;
    while (*text && strncmp(text, end_mark, strlen(end_mark)) != 0) {
        char c = *text++;
        if (c == quote || strncmp(text - 1, "{{", 2) == 0 || used + 1 == literal_bytes) {
            return false;
        }
        if (c == '\\' && *text) {
            c = *text == 'n' ? '\n' : *text == 't' ? '\t' : *text;
            text++;
        }
        literal[used++] = c;
    }
    literal[used] = '\0';
    return *text != '\0';
}

/* The system line that the template writes by itself, if any. */
static void find_default_system(const char *text, struct meed_chat_template *made)
{
    static const char opening[] = IM_START "system";
    for (const char *at = strstr(text, opening); at && !made->default_system;
         at = strstr(at + 1, opening)) {
        const char *line = at + strlen(opening);
        if (*line == '\n') {
            line++;
        } else if (strncmp(line, "\\n", 2) == 0) {
            line += 2;
        } else {
            continue;
        }
        char quote = at > text ? at[-1] : '\0';
        made->default_system =
            literal_until(line, quote, IM_END, made->system, sizeof made->system);
    }
}

static enum meed_status detect_chatml(const char *name, const char *text,
                                      struct meed_chat_template *made)
{
    for (size_t i = 0; i < MEED_COUNT(chatml_strangers); i++) {
        if (strstr(text, chatml_strangers[i].mark)) {
            return MEED_FAIL(
                MEED_UNSUPPORTED,
                "%s: the chat template is ChatML with %s (\"%s\"), which Meed does not "
                "render",
                name, chatml_strangers[i].what, chatml_strangers[i].mark);
        }
    }
    if (strstr(text, "<think>")) {
        if (!strstr(text, "enable_thinking")) {
            return MEED_FAIL(MEED_UNSUPPORTED,
                             "%s: the chat template always opens a thought (\"<think>\"), which "
                             "Meed does not render; use a model that can reply without",
                             name);
        }
        made->format = MEED_CHAT_QWEN3;
        made->name = "qwen3";
        return MEED_OK;
    }
    made->format = MEED_CHAT_CHATML;
    find_default_system(text, made);
    made->name = strstr(made->system, "SmolLM") ? "smollm2"
                 : strstr(made->system, "Qwen") ? "qwen2.5"
                                                : "chatml";
    return MEED_OK;
}

static enum meed_status detect_by_marks(const char *name, const char *text,
                                        struct meed_chat_template *made)
{
    if (strstr(text, IM_START) && strstr(text, IM_END)) {
        return detect_chatml(name, text, made);
    }
    if (strstr(text, HEADER) && strstr(text, EOT)) {
        bool dated = strstr(text, "Cutting Knowledge Date") != NULL;
        made->format = dated ? MEED_CHAT_LLAMA31 : MEED_CHAT_LLAMA3;
        made->name = dated ? "llama3.1" : "llama3";
        return MEED_OK;
    }
    return MEED_FAIL(MEED_UNSUPPORTED,
                     "%s: the chat template is none that Meed knows (ChatML, SmolLM2, Qwen2.5, "
                     "Qwen3, Llama 3.x)",
                     name);
}

enum meed_status meed_chat_template_detect(const char *name, const char *text, size_t size,
                                           const char *bos, struct meed_chat_template *made)
{
    uint8_t digest[MEED_SHA256_BYTES];
    char hash[MEED_SHA256_HEX_BYTES];
    struct meed_chat_template found = {.name = NULL};
    meed_sha256(text, size, digest);
    meed_sha256_hex(digest, hash);
    for (size_t i = 0; i < MEED_COUNT(known); i++) {
        if (strcmp(known[i].hash, hash) == 0) {
            found.format = known[i].format;
            found.name = known[i].name;
        }
    }
    bool by_hash = found.name != NULL;
    if (!by_hash) {
        MEED_TRY(detect_by_marks(name, text, &found));
    }
    if (strlen(bos) >= sizeof found.bos) {
        return MEED_FAIL(MEED_LIMIT, "%s: bos_token is longer than %zu bytes", name,
                         sizeof found.bos - 1);
    }
    if (strstr(text, "bos_token")) {
        memcpy(found.bos, bos, strlen(bos) + 1);
    }
    MEED_LOG_INFO("engine", "chat template %s, recognised by %s", found.name,
                  by_hash ? "its hash" : "its marks");
    *made = found;
    return MEED_OK;
}

const char *const *meed_chat_template_controls(const struct meed_chat_template *template_)
{
    static const char *const chatml[] = {IM_START, IM_END, NULL};
    static const char *const llama3[] = {HEADER, HEADER_END, EOT, NULL};
    bool is_llama = template_->format == MEED_CHAT_LLAMA3 || template_->format == MEED_CHAT_LLAMA31;
    return is_llama ? llama3 : chatml;
}

/* --- text as Python sees it ------------------------------------------------------------------ */
struct span {
    const char *bytes;
    size_t size;
};

static struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

/* Bytes of the blank (str.isspace) at text, 0 if there is none. */
static size_t blank_at(const char *text, size_t size)
{
    static const char *const wide[] = {
        "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\xA8",
        "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80",
    };
    uint8_t c = size > 0 ? (uint8_t)text[0] : 0xFF;
    if ((c >= 0x9 && c <= 0xD) || (c >= 0x1C && c <= 0x20)) {
        return 1;
    }
    for (size_t i = 0; i < MEED_COUNT(wide); i++) {
        size_t length = strlen(wide[i]);
        if (size >= length && memcmp(text, wide[i], length) == 0) {
            return length;
        }
    }
    bool quad = size >= 3 && c == 0xE2 && (uint8_t)text[1] == 0x80 && (uint8_t)text[2] >= 0x80 &&
                (uint8_t)text[2] <= 0x8A; /* U+2000 to U+200A */
    return quad ? 3 : 0;
}

static struct span trimmed(struct span span)
{
    size_t length;
    while ((length = blank_at(span.bytes, span.size)) > 0) {
        span.bytes += length;
        span.size -= length;
    }
    for (size_t back = 1; back <= 3 && back <= span.size; back++) {
        if (blank_at(span.bytes + span.size - back, back) == back) {
            span.size -= back;
            back = 0;
        }
    }
    return span;
}

static struct span strip_newlines(struct span span, bool left, bool right)
{
    while (left && span.size > 0 && span.bytes[0] == '\n') {
        span.bytes++;
        span.size--;
    }
    while (right && span.size > 0 && span.bytes[span.size - 1] == '\n') {
        span.size--;
    }
    return span;
}

/* --- walking --------------------------------------------------------------------------------- */
struct walk {
    const struct meed_chat_template *template_;
    const struct meed_dialogue *dialogue;
    meed_chat_piece_fn on_piece;
    void *user;
};

static enum meed_status control(const struct walk *walk, const char *token, int32_t reply_idx)
{
    struct meed_chat_piece piece = {true, token, strlen(token), reply_idx};
    return walk->on_piece(walk->user, &piece);
}

static enum meed_status text_span(const struct walk *walk, struct span span, int32_t reply_idx)
{
    struct meed_chat_piece piece = {false, span.bytes, span.size, reply_idx};
    return span.size > 0 ? walk->on_piece(walk->user, &piece) : MEED_OK;
}

static enum meed_status text(const struct walk *walk, const char *bytes, int32_t reply_idx)
{
    return text_span(walk, span_of(bytes), reply_idx);
}

static bool opens_with_system(const struct meed_dialogue *dialogue)
{
    return dialogue->messages[0].role == MEED_ROLE_SYSTEM;
}

static enum meed_status chatml_open(const struct walk *walk, const char *role)
{
    MEED_TRY(control(walk, IM_START, -1));
    MEED_TRY(text(walk, role, -1));
    return text(walk, "\n", -1);
}

static enum meed_status chatml_close(const struct walk *walk, int32_t reply_idx)
{
    MEED_TRY(control(walk, IM_END, reply_idx));
    return text(walk, "\n", -1);
}

static enum meed_status chatml_message(const struct walk *walk, const char *role,
                                       const char *content, int32_t reply_idx)
{
    MEED_TRY(chatml_open(walk, role));
    MEED_TRY(text(walk, content, reply_idx));
    return chatml_close(walk, reply_idx);
}

static enum meed_status walk_chatml(const struct walk *walk, bool generation_prompt)
{
    MEED_TRY(*walk->template_->bos ? control(walk, walk->template_->bos, -1) : MEED_OK);
    if (walk->template_->default_system && !opens_with_system(walk->dialogue)) {
        MEED_TRY(chatml_message(walk, "system", walk->template_->system, -1));
    }
    for (int32_t i = 0; i < walk->dialogue->count; i++) {
        const struct meed_message *message = &walk->dialogue->messages[i];
        int32_t reply_idx = message->role == MEED_ROLE_ASSISTANT ? i : -1;
        MEED_TRY(chatml_message(walk, role_names[message->role], message->content, reply_idx));
    }
    return generation_prompt ? chatml_open(walk, "assistant") : MEED_OK;
}

/* The last message that asks: a user's that is no tool response; count - 1 if there is none. */
static int32_t last_question(const struct meed_dialogue *dialogue)
{
    static const char head[] = "<tool_response>";
    static const char tail[] = "</tool_response>";
    for (int32_t i = dialogue->count - 1; i >= 0; i--) {
        struct span content = span_of(dialogue->messages[i].content);
        bool opens = strncmp(content.bytes, head, strlen(head)) == 0;
        bool closes = content.size >= strlen(tail) &&
                      strcmp(content.bytes + content.size - strlen(tail), tail) == 0;
        if (dialogue->messages[i].role == MEED_ROLE_USER && !(opens && closes)) {
            return i;
        }
    }
    return dialogue->count - 1;
}

/* Splits "<think>thought</think>content" as the template's Python does. */
static void split_thought(const char *content, struct span *thought, struct span *rest)
{
    static const char open[] = "<think>";
    static const char close[] = "</think>";
    *thought = span_of("");
    *rest = span_of(content);
    const char *first = strstr(content, close);
    if (!first) {
        return;
    }
    const char *last = first;
    for (const char *next = first; (next = strstr(next + strlen(close), close)); last = next) {
    }
    *rest = strip_newlines(span_of(last + strlen(close)), true, false);
    *thought = strip_newlines((struct span){content, (size_t)(first - content)}, false, true);
    const char *begin = strstr(content, open);
    while (begin && begin + strlen(open) <= thought->bytes + thought->size) {
        thought->size -= (size_t)(begin + strlen(open) - thought->bytes);
        thought->bytes = begin + strlen(open);
        begin = strstr(thought->bytes, open);
    }
    *thought = strip_newlines(*thought, true, true);
}

static enum meed_status qwen3_reply(const struct walk *walk, int32_t i, int32_t question)
{
    struct span thought;
    struct span rest;
    bool last = i == walk->dialogue->count - 1;
    split_thought(walk->dialogue->messages[i].content, &thought, &rest);
    MEED_TRY(chatml_open(walk, "assistant"));
    if (i > question && (last || thought.size > 0)) {
        rest = strip_newlines(rest, true, false);
        if (thought.size == 0) {
            MEED_TRY(text(walk, EMPTY_THOUGHT, -1));
        } else {
            MEED_TRY(text(walk, "<think>\n", i));
            MEED_TRY(text_span(walk, thought, i));
            MEED_TRY(text(walk, "\n</think>\n\n", i));
        }
    }
    MEED_TRY(text_span(walk, rest, i));
    return chatml_close(walk, i);
}

static enum meed_status walk_qwen3(const struct walk *walk, bool generation_prompt)
{
    int32_t question = last_question(walk->dialogue);
    for (int32_t i = 0; i < walk->dialogue->count; i++) {
        const struct meed_message *message = &walk->dialogue->messages[i];
        if (message->role == MEED_ROLE_ASSISTANT) {
            MEED_TRY(qwen3_reply(walk, i, question));
        } else {
            MEED_TRY(chatml_message(walk, role_names[message->role], message->content, -1));
        }
    }
    if (generation_prompt) {
        MEED_TRY(chatml_open(walk, "assistant"));
        MEED_TRY(text(walk, EMPTY_THOUGHT, -1));
    }
    return MEED_OK;
}

static enum meed_status llama3_open(const struct walk *walk, const char *role)
{
    MEED_TRY(control(walk, HEADER, -1));
    MEED_TRY(text(walk, role, -1));
    MEED_TRY(control(walk, HEADER_END, -1));
    return text(walk, "\n\n", -1);
}

static enum meed_status walk_llama3(const struct walk *walk, bool generation_prompt)
{
    const struct meed_dialogue *dialogue = walk->dialogue;
    bool dated = walk->template_->format == MEED_CHAT_LLAMA31;
    int32_t first = dated && opens_with_system(dialogue) ? 1 : 0;
    MEED_TRY(*walk->template_->bos ? control(walk, walk->template_->bos, -1) : MEED_OK);
    if (dated) {
        MEED_TRY(llama3_open(walk, "system"));
        MEED_TRY(text(walk, LLAMA31_DATES, -1));
        if (first == 1) {
            MEED_TRY(text_span(walk, trimmed(span_of(dialogue->messages[0].content)), -1));
        }
        MEED_TRY(control(walk, EOT, -1));
    }
    for (int32_t i = first; i < dialogue->count; i++) {
        const struct meed_message *message = &dialogue->messages[i];
        int32_t reply_idx = message->role == MEED_ROLE_ASSISTANT ? i : -1;
        MEED_TRY(llama3_open(walk, role_names[message->role]));
        MEED_TRY(text_span(walk, trimmed(span_of(message->content)), reply_idx));
        MEED_TRY(control(walk, EOT, reply_idx));
    }
    return generation_prompt ? llama3_open(walk, "assistant") : MEED_OK;
}

enum meed_status meed_chat_template_walk(const struct meed_chat_template *template_,
                                         const struct meed_dialogue *dialogue,
                                         bool generation_prompt, meed_chat_piece_fn on_piece,
                                         void *user)
{
    if (dialogue->count < 1) {
        return MEED_FAIL(MEED_ARG, "a dialogue needs at least one message");
    }
    struct walk walk = {template_, dialogue, on_piece, user};
    switch (template_->format) {
    case MEED_CHAT_QWEN3:
        return walk_qwen3(&walk, generation_prompt);
    case MEED_CHAT_LLAMA3:
    case MEED_CHAT_LLAMA31:
        return walk_llama3(&walk, generation_prompt);
    case MEED_CHAT_CHATML:
    default:
        return walk_chatml(&walk, generation_prompt);
    }
}
