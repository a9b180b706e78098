/* Tokenizer against the reference's ids, published vectors, and files it must refuse.
 *
 * Goal: token for token what the reference gives, for the shapes of tokenizer.json that Meed reads;
 * a clear sentence for the others. Method: goldens written by the `tokenizers` package over small
 * tokenizers (tests/golden/generate/make_tokenizer_goldens.py); llama.cpp's 47 texts for three
 * published vocabularies where that data is at hand; random bytes there and back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "engine/tokenizer.h"

#define GOLDEN MEED_SOURCE_DIR "/tests/golden/tokenizer/"
#define VECTORS MEED_SHARED_DATA "/tokenizers/llama.cpp_vectors/ggml-vocab-"

static void must(enum meed_status status)
{
    if (status != MEED_OK) {
        fail_msg("%s: %s", meed_status_name(status), meed_last_error());
    }
}

static struct meed_tokenizer *open_golden(const char *name)
{
    char path[512];
    struct meed_tokenizer *tokenizer = NULL;
    snprintf(path, sizeof path, "%s%s.json", GOLDEN, name);
    must(meed_tokenizer_open(path, &tokenizer));
    return tokenizer;
}

/* --- goldens of the reference ---------------------------------------------------------------- */
static int compare_ids(const char *what, size_t idx, const struct meed_buf *ids, const json_t *want)
{
    size_t count = ids->size / sizeof(int32_t);
    const int32_t *got = (const int32_t *)(const void *)ids->data;
    bool same = count == json_array_size(want);
    for (size_t i = 0; same && i < count; i++) {
        same = got[i] == json_integer_value(json_array_get(want, i));
    }
    if (!same) {
        printf("%s text %zu: got", what, idx);
        for (size_t i = 0; i < count; i++) {
            printf(" %d", (int)got[i]);
        }
        char *text = json_dumps(want, JSON_COMPACT);
        printf("; want %s\n", text);
        free(text);
    }
    return !same;
}

static void check_golden(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s.ids.json", GOLDEN, name);
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    json_t *texts = json_object_get(root, "texts");
    struct meed_tokenizer *tokenizer = open_golden(name);
    struct meed_buf ids;
    meed_buf_init(&ids, 1 << 20);
    int wrong = 0;
    static const char *const keys[] = {"plain", "special"};
    for (size_t i = 0; i < json_array_size(texts); i++) {
        json_t *text = json_array_get(texts, i);
        for (int special = 0; special < 2; special++) {
            meed_buf_reset(&ids);
            must(meed_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                                       special, &ids));
            json_t *want = json_array_get(json_object_get(root, keys[special]), i);
            wrong += compare_ids(name, i, &ids, want);
        }
    }
    assert_true(json_array_size(texts) > 100);
    assert_int_equal(wrong, 0);
    meed_buf_clear(&ids);
    meed_tokenizer_close(tokenizer);
    json_decref(root);
}

static void tokenizer_equals_the_reference(void **state)
{
    (void)state;
    check_golden("gpt2_style");
    check_golden("llama3_style");
    check_golden("qwen_style");
    check_golden("smollm2_style");
    check_golden("variants");
}

/* --- published vocabularies ------------------------------------------------------------------ */
static bool unpack(const char *folder, struct meed_buf *bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tokenizers/%s/tokenizer.json.zst", MEED_SHARED_DATA, folder);
    if (!meed_file_exists(path)) {
        return false;
    }
    char command[600];
    snprintf(command, sizeof command, "zstd -dcq '%s' 2>/dev/null", path);
    FILE *pipe = popen(command, "r");
    char block[65536];
    size_t got;
    while (pipe && (got = fread(block, 1, sizeof block, pipe)) > 0) {
        must(meed_buf_append(bytes, block, got));
    }
    return pipe && pclose(pipe) == 0 && bytes->size > 0;
}

static int check_vector(const struct meed_tokenizer *tokenizer, const char *text, size_t size,
                        const char *line)
{
    struct meed_buf ids;
    struct meed_buf got;
    meed_buf_init(&ids, 1 << 20);
    meed_buf_init(&got, 1 << 20);
    must(meed_tokenizer_encode(tokenizer, text, size, true, &ids));
    must(meed_buf_append(&got, "", 0));
    for (size_t i = 0; i < ids.size / sizeof(int32_t); i++) {
        must(meed_buf_printf(&got, " %d", (int)((const int32_t *)(const void *)ids.data)[i]));
    }
    int wrong = got.size != strcspn(line, "\n") || strncmp(got.data, line, got.size) != 0;
    if (wrong) {
        printf("got %s, want %.*s\n", got.data, (int)strcspn(line, "\n"), line);
    }
    meed_buf_clear(&ids);
    meed_buf_clear(&got);
    return wrong;
}

static void check_vectors(const char *folder, const char *vectors)
{
    struct meed_buf bytes;
    struct meed_buf texts;
    struct meed_buf lines;
    char path[512];
    meed_buf_init(&bytes, 64 << 20);
    meed_buf_init(&texts, 1 << 20);
    meed_buf_init(&lines, 1 << 20);
    snprintf(path, sizeof path, "%s%s.gguf.inp", VECTORS, vectors);
    if (!meed_file_exists(path) || !unpack(folder, &bytes)) {
        printf("SKIPPED: no data or no zstd program for the %s vectors\n", vectors);
        meed_buf_clear(&bytes);
        skip();
    }
    must(meed_file_read(path, &texts));
    snprintf(path, sizeof path, "%s%s.gguf.out", VECTORS, vectors);
    must(meed_file_read(path, &lines));
    struct meed_tokenizer *tokenizer = NULL;
    int64_t start = meed_clock_monotonic_ns();
    must(meed_tokenizer_open_bytes(folder, bytes.data, bytes.size, &tokenizer));
    printf("%s: %d tokens, opened in %.3f s\n", folder, (int)meed_tokenizer_vocab_size(tokenizer),
           meed_clock_seconds_since(start));
    static const char mark[] = "\n__ggml_vocab_test__\n";
    const char *text = texts.data;
    const char *line = lines.data;
    int count = 0;
    int wrong = 0;
    while (text) {
        const char *end = strstr(text, mark);
        wrong += check_vector(tokenizer, text, end ? (size_t)(end - text) : strlen(text), line);
        count++;
        text = end ? end + strlen(mark) : NULL;
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    printf("%s: %d vectors, %d wrong\n", vectors, count, wrong);
    assert_int_equal(count, 47);
    assert_int_equal(wrong, 0);
    meed_tokenizer_close(tokenizer);
    meed_buf_clear(&bytes);
    meed_buf_clear(&texts);
    meed_buf_clear(&lines);
}

static void tokenizer_passes_gpt2_vectors(void **state)
{
    (void)state;
    check_vectors("gpt2", "gpt-2");
}

static void tokenizer_passes_llama3_vectors(void **state)
{
    (void)state;
    check_vectors("llama3", "llama-bpe");
}

static void tokenizer_passes_qwen_vectors(void **state)
{
    (void)state;
    check_vectors("qwen3", "qwen2");
}

/* --- there and back -------------------------------------------------------------------------- */
static size_t put_character(uint32_t point, char *at)
{
    if (point < 0x80) {
        at[0] = (char)point;
        return 1;
    }
    size_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        at[i] = (char)(0x80 | (point & 0x3F));
        point >>= 6;
    }
    at[0] = (char)((length == 2 ? 0xC0 : length == 3 ? 0xE0 : 0xF0) | point);
    return length;
}

static size_t random_text(struct meed_rng *rng, char *text, size_t max_size)
{
    size_t used = 0;
    size_t wanted = meed_rng_below(rng, max_size - 4);
    while (used < wanted) {
        static const uint32_t ranges[] = {0x80, 0x80, 0x800, 0x3000, 0x10000, 0x110000};
        uint32_t point = (uint32_t)meed_rng_below(rng, ranges[meed_rng_below(rng, 6)]);
        if (point < 0xD800 || point > 0xDFFF) {
            used += put_character(point, text + used);
        }
    }
    return used;
}

static void round_trip(const struct meed_tokenizer *tokenizer, const char *text, size_t size,
                       const char *want, size_t want_size)
{
    struct meed_buf ids;
    struct meed_buf back;
    meed_buf_init(&ids, 1 << 20);
    meed_buf_init(&back, 1 << 20);
    must(meed_tokenizer_encode(tokenizer, text, size, false, &ids));
    must(meed_tokenizer_decode(tokenizer, (const int32_t *)(const void *)ids.data,
                               ids.size / sizeof(int32_t), true, &back));
    assert_int_equal(back.size, want_size);
    if (want_size > 0) {
        assert_memory_equal(back.data, want, want_size);
    }
    meed_buf_clear(&ids);
    meed_buf_clear(&back);
}

static void tokenizer_returns_random_text(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt2_style", "llama3_style", "smollm2_style"};
    char text[512];
    for (size_t n = 0; n < MEED_COUNT(names); n++) {
        struct meed_tokenizer *tokenizer = open_golden(names[n]);
        struct meed_rng rng = meed_rng_stream(3, "text", n);
        for (int i = 0; i < 1000; i++) {
            size_t size = random_text(&rng, text, sizeof text);
            round_trip(tokenizer, text, size, text, size);
        }
        meed_tokenizer_close(tokenizer);
    }
}

static void tokenizer_replaces_what_is_not_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *want;
    } cases[] = {
        {"a\xFF"
         "b",
         "a\uFFFD"
         "b"},
        {"\xC0\x80", "\uFFFD\uFFFD"},
        {"\xE0\x80\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xF0\x9F\x99", "\uFFFD"},
        {"\xF0\x9F\x99!", "\uFFFD!"},
        {"\xE4\xB8\xE4\xB8\xAD", "\uFFFD\u4E2D"},
        {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
        {"\x80\x80 ok", "\uFFFD\uFFFD ok"},
    };
    struct meed_tokenizer *tokenizer = open_golden("gpt2_style");
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        round_trip(tokenizer, cases[i].text, strlen(cases[i].text), cases[i].want,
                   strlen(cases[i].want));
    }
    char bytes[300];
    struct meed_rng rng = meed_rng_stream(4, "bytes", 0);
    for (int i = 0; i < 2000; i++) { /* random bytes: no crash, and a second pass changes nothing */
        size_t size = meed_rng_below(&rng, sizeof bytes);
        for (size_t j = 0; j < size; j++) {
            bytes[j] = (char)meed_rng_below(&rng, 256);
        }
        struct meed_buf ids;
        struct meed_buf once;
        meed_buf_init(&ids, 1 << 16);
        meed_buf_init(&once, 1 << 16);
        must(meed_tokenizer_encode(tokenizer, bytes, size, true, &ids));
        must(meed_tokenizer_decode(tokenizer, (const int32_t *)(const void *)ids.data, ids.size / 4,
                                   true, &once));
        round_trip(tokenizer, once.data, once.size, once.data, once.size);
        meed_buf_clear(&ids);
        meed_buf_clear(&once);
    }
    meed_tokenizer_close(tokenizer);
}

/* --- special tokens and questions ------------------------------------------------------------ */
static void tokenizer_keeps_users_from_control_tokens(void **state)
{
    (void)state;
    struct meed_tokenizer *tokenizer = open_golden("qwen_style");
    int32_t end = meed_tokenizer_find(tokenizer, "<|im_end|>");
    int32_t think = meed_tokenizer_find(tokenizer, "<think>");
    assert_true(end >= 0 && think >= 0);
    assert_true(meed_tokenizer_is_special(tokenizer, end));
    assert_false(meed_tokenizer_is_special(tokenizer, think));
    assert_false(meed_tokenizer_is_special(tokenizer, -1));
    assert_int_equal(meed_tokenizer_find(tokenizer, "no such token"), -1);
    assert_int_equal(meed_tokenizer_find(tokenizer, ""), -1);
    assert_true(meed_tokenizer_find(tokenizer, " the") >= 0);
    struct meed_buf ids;
    meed_buf_init(&ids, 1 << 16);
    static const char text[] = "a<|im_end|>b<|im_start|><|endoftext|>";
    must(meed_tokenizer_encode(tokenizer, text, strlen(text), false, &ids));
    for (size_t i = 0; i < ids.size / 4; i++) {
        assert_false(
            meed_tokenizer_is_special(tokenizer, ((const int32_t *)(const void *)ids.data)[i]));
    }
    meed_buf_clear(&ids);
    meed_tokenizer_close(tokenizer);
}

static void tokenizer_decodes_odd_ids(void **state)
{
    (void)state;
    struct meed_tokenizer *tokenizer = open_golden("qwen_style");
    struct meed_buf text;
    meed_buf_init(&text, 1 << 16);
    int32_t ids[] = {meed_tokenizer_find(tokenizer, "a"),
                     meed_tokenizer_find(tokenizer, "<|im_end|>"),
                     meed_tokenizer_vocab_size(tokenizer)};
    must(meed_tokenizer_decode(tokenizer, ids, 3, true, &text));
    assert_string_equal(text.data, "a<|im_end|>\uFFFD");
    meed_buf_reset(&text);
    must(meed_tokenizer_decode(tokenizer, ids, 3, false, &text));
    assert_string_equal(text.data, "a\uFFFD");
    ids[0] = -1;
    assert_int_equal(meed_tokenizer_decode(tokenizer, ids, 1, true, &text), MEED_ARG);
    meed_buf_clear(&text);
    meed_tokenizer_close(tokenizer);
}

/* --- refusals -------------------------------------------------------------------------------- */
struct refusal {
    const char *json; /* single quotes stand for double ones */
    enum meed_status status;
    const char *names;
};

#define VOCAB "'vocab':{'a':0,'b':1,'ab':2},'merges':[['a','b']]"
#define BYTES "'pre_tokenizer':{'type':'ByteLevel'}"
#define STAGE(stage)                                                                               \
    "{'model':{'type':'BPE'," VOCAB "},'pre_tokenizer':{'type':'Sequence','pretokenizers':[" stage \
    ",{'type':'ByteLevel'}]}}"

static const struct refusal refusals[] = {
    {"{", MEED_FORMAT, ""},
    {"[]", MEED_UNSUPPORTED, "model"},
    {"{'model':{'type':'Unigram'}}", MEED_UNSUPPORTED, "Unigram"},
    {"{'model':{'type':'BPE','vocab':{}},'merges':[]}", MEED_FORMAT, "merges"},
    {"{'model':{'vocab':{},'merges':[]}," BYTES "}", MEED_FORMAT, "tokens"},
    {"{'model':{'byte_fallback':true," VOCAB "}," BYTES "}", MEED_UNSUPPORTED, "byte_fallback"},
    {"{'model':{'dropout':0.1," VOCAB "}," BYTES "}", MEED_UNSUPPORTED, "dropout"},
    {"{'model':{'end_of_word_suffix':'</w>'," VOCAB "}," BYTES "}", MEED_UNSUPPORTED, "</w>"},
    {"{'model':{" VOCAB "},'normalizer':{'type':'Lowercase'}," BYTES "}", MEED_UNSUPPORTED,
     "Lowercase"},
    {"{'model':{" VOCAB "},'pre_tokenizer':null}", MEED_UNSUPPORTED, "pre-tokenizer"},
    {"{'model':{" VOCAB "},'pre_tokenizer':{'type':'Metaspace'}}", MEED_UNSUPPORTED, "Metaspace"},
    {STAGE("{'type':'Whitespace'}"), MEED_UNSUPPORTED, "Whitespace"},
    {STAGE("{'type':'Split','pattern':{'Regex':'a'},'behavior':'Removed'}"), MEED_UNSUPPORTED,
     "Removed"},
    {STAGE("{'type':'Split','pattern':{'Regex':'\\\\h'},'behavior':'Isolated'}"), MEED_UNSUPPORTED,
     "\\h"},
    {STAGE("{'type':'Split','pattern':{'Regex':'(a'},'behavior':'Isolated'}"), MEED_FORMAT,
     "compile"},
    {STAGE("{'type':'Split','pattern':{},'behavior':'Isolated'}"), MEED_FORMAT, "pattern"},
    {"{'model':{'vocab':{'a':0,'b':1},'merges':[['a','b']]}," BYTES "}", MEED_FORMAT, "merge 0"},
    {"{'model':{'vocab':{'a':0},'merges':['a']}," BYTES "}", MEED_FORMAT, "merge 0"},
    {"{'model':{'vocab':{'a':0,'b':0},'merges':[]}," BYTES "}", MEED_FORMAT, "id 0"},
    {"{'model':{'vocab':{'a':-1},'merges':[]}," BYTES "}", MEED_FORMAT, "\"a\""},
    {"{'model':{'vocab':{'a':9999999},'merges':[]}," BYTES "}", MEED_FORMAT, "span"},
    {"{'model':{" VOCAB "},'added_tokens':[{'id':7,'content':'ab'}]," BYTES "}", MEED_FORMAT,
     "vocabulary says 2"},
    {"{'model':{" VOCAB "},'added_tokens':[{'id':1,'content':'<|x|>'}]," BYTES "}", MEED_FORMAT,
     "\"b\" in the vocabulary"},
    {"{'model':{" VOCAB "},'added_tokens':[{'id':7,'content':''}]," BYTES "}", MEED_FORMAT,
     "no content"},
};

static void tokenizer_refuses_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < MEED_COUNT(refusals); i++) {
        char text[1024];
        snprintf(text, sizeof text, "%s", refusals[i].json);
        for (char *c = text; *c; c++) {
            *c = *c == '\'' ? '"' : *c;
        }
        struct meed_tokenizer *tokenizer = NULL;
        enum meed_status status =
            meed_tokenizer_open_bytes("t.json", text, strlen(text), &tokenizer);
        if (status != refusals[i].status || !strstr(meed_last_error(), refusals[i].names) ||
            !strstr(meed_last_error(), "t.json")) {
            fail_msg("refusal %zu: %s, %s", i, meed_status_name(status), meed_last_error());
        }
        assert_null(tokenizer);
    }
    struct meed_tokenizer *tokenizer = NULL;
    assert_int_equal(meed_tokenizer_open(GOLDEN "absent.json", &tokenizer), MEED_NOT_FOUND);
    assert_int_equal(meed_tokenizer_open(MEED_SOURCE_DIR "/base", &tokenizer), MEED_NOT_FOUND);
}

/* --- threads --------------------------------------------------------------------------------- */
struct worker {
    const struct meed_tokenizer *tokenizer;
    struct meed_buf ids;
};

static void *encode_often(void *user)
{
    struct worker *worker = user;
    static const char text[] = "The aggregator weighs every update before it pays for it: 1234.";
    for (int i = 0; i < 200; i++) {
        must(meed_tokenizer_encode(worker->tokenizer, text, strlen(text), false, &worker->ids));
    }
    return NULL;
}

/* One tokenizer, four threads, cold word cache: all get the same ids (run under TSan too). */
static void tokenizer_serves_threads(void **state)
{
    (void)state;
    struct meed_tokenizer *tokenizer = open_golden("smollm2_style");
    struct worker workers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        workers[i].tokenizer = tokenizer;
        meed_buf_init(&workers[i].ids, 1 << 20);
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].ids.size, workers[0].ids.size);
        assert_memory_equal(workers[i].ids.data, workers[0].ids.data, workers[0].ids.size);
    }
    for (int i = 0; i < 4; i++) {
        meed_buf_clear(&workers[i].ids);
    }
    meed_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_equals_the_reference),
        cmocka_unit_test(tokenizer_passes_gpt2_vectors),
        cmocka_unit_test(tokenizer_passes_llama3_vectors),
        cmocka_unit_test(tokenizer_passes_qwen_vectors),
        cmocka_unit_test(tokenizer_returns_random_text),
        cmocka_unit_test(tokenizer_replaces_what_is_not_utf8),
        cmocka_unit_test(tokenizer_keeps_users_from_control_tokens),
        cmocka_unit_test(tokenizer_decodes_odd_ids),
        cmocka_unit_test(tokenizer_refuses_by_name),
        cmocka_unit_test(tokenizer_serves_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
