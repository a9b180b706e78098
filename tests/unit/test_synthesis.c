/* Synthetic data: what is refused, what a run leaves behind, and that nothing but the job decides.
 *
 * Goal: filters, openings and both templates do what synthesis.h says; a run writes the same bytes
 * for any batch, thread count and interruption; nothing written is a copy; a model that never
 * answers ends in counts, not in an error; the choice follows its score. Method: the embedded model
 * over a dozen of the clinic's dialogues, texts made up for the filters, and files cut, forged and
 * read back. Losses against transformers are in golden.synthesis_losses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/threads.h"
#include "client/dataset.h"
#include "client/synthesis_internal.h"

#define MODEL MEED_SOURCE_DIR "/examples/tiny/model"
#define CLINIC MEED_SOURCE_DIR "/examples/tiny/clients/clinic.jsonl"
enum { LOCAL = 12 };

static struct meed_tokenizer *tokenizer;
static struct meed_chat *chat;
static struct meed_checkpoint *checkpoint;
static struct meed_backend *backend;
static struct meed_pool *pool;
static char folder[] = "/tmp/meed-synthesis-XXXXXX";
static char data[256];

static void must(enum meed_status status)
{
    if (status != MEED_OK) {
        fail_msg("%s: %s", meed_status_name(status), meed_last_error());
    }
}

static void in_folder(const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", folder, name);
}

/* The first dialogues of the clinic become the local data. */
static int open_all(void **state)
{
    (void)state;
    struct meed_buf text;
    meed_buf_init(&text, 1 << 24);
    assert_non_null(mkdtemp(folder));
    in_folder("data.jsonl", data);
    must(meed_file_read(CLINIC, &text));
    char *end = text.data;
    for (int i = 0; i < LOCAL; i++) {
        end = strchr(end, '\n') + 1;
    }
    must(meed_file_write_atomic(data, text.data, (size_t)(end - text.data)));
    meed_buf_clear(&text);
    must(meed_tokenizer_open(MODEL, &tokenizer));
    must(meed_chat_open(MODEL, tokenizer, &chat));
    must(meed_checkpoint_open(MODEL, &checkpoint));
    must(meed_pool_create(1, &pool)); /* a machine may be busy */
    must(meed_backend_open(NULL, pool, &backend));
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    char command[300];
    meed_backend_close(backend);
    meed_pool_destroy(pool);
    meed_checkpoint_close(checkpoint);
    meed_chat_close(chat);
    meed_tokenizer_close(tokenizer);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* Twenty candidates are a whole group and a part of one. */
static struct meed_synthesis_job job_in(const char *name, char path[256])
{
    struct meed_synthesis_job job = {.be = backend,
                                     .checkpoint = checkpoint,
                                     .model_folder = MODEL,
                                     .data_path = data,
                                     .folder = path,
                                     .dtype = MEED_DTYPE_F32,
                                     .options = meed_synthesis_defaults()};
    in_folder(name, path);
    job.options.candidates = 20;
    job.options.keep = 6;
    job.options.instruction_demos = 3;
    job.options.response_demos = 2;
    return job;
}

static struct meed_buf read_file(const char *path, const char *name)
{
    char whole[512];
    struct meed_buf text;
    meed_buf_init(&text, 1 << 24);
    snprintf(whole, sizeof whole, "%s/%s", path, name);
    must(meed_file_read(whole, &text));
    return text;
}

static void write_file(const char *path, const char *name, const char *text, size_t size)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s/%s", path, name);
    must(meed_file_make_folder(path));
    must(meed_file_write_atomic(whole, text, size));
}

/* The candidates of an undisturbed run. */
static struct meed_buf reference;
static struct meed_synthesis_report reference_report;

static const struct meed_buf *undisturbed(void)
{
    if (reference.size == 0) {
        char path[256];
        struct meed_synthesis_job job = job_in("reference", path);
        must(meed_synthesis_write(&job, &reference_report));
        reference = read_file(path, "candidates.jsonl");
    }
    return &reference;
}

static void assert_same_candidates(const char *path)
{
    struct meed_buf got = read_file(path, "candidates.jsonl");
    assert_int_equal(got.size, undisturbed()->size);
    assert_memory_equal(got.data, undisturbed()->data, got.size);
    meed_buf_clear(&got);
}

/* Local data made of pairs: user, assistant, user, … */
static void load_pairs(const char *const *texts, int32_t count,
                       struct meed_synthesis_source *source)
{
    struct meed_message messages[32];
    struct meed_dialogue dialogues[16];
    for (int32_t i = 0; i < count; i++) {
        messages[i] = (struct meed_message){i % 2 ? MEED_ROLE_ASSISTANT : MEED_ROLE_USER, texts[i]};
        dialogues[i / 2] = (struct meed_dialogue){&messages[i - i % 2], 2};
    }
    const struct meed_synthesis_job job = {.dialogues = dialogues, .dialogue_count = count / 2};
    must(meed_synthesis_source_load(&job, tokenizer, chat, source));
    /* Contents are literals; the messages were copied. */
    assert_int_equal(source->count, count / 2);
}

/* --- filters -----------------------------------------------------------------------------------
 */
static void synthesis_refuses_what_it_says(void **state)
{
    (void)state;
    static const char *const local[] = {"where is the old town hall", "a b c d e f g x y z"};
    static const struct {
        enum meed_role role;
        const char *text;
        enum meed_synthesis_fate fate;
    } cases[] = {
        {MEED_ROLE_USER, "When does it open?", MEED_SYNTHESIS_WRITTEN},
        {MEED_ROLE_USER, "Why not?", MEED_SYNTHESIS_MALFORMED},
        {MEED_ROLE_USER, "", MEED_SYNTHESIS_MALFORMED},
        {MEED_ROLE_USER, "As a doctor, what would you do?", MEED_SYNTHESIS_MALFORMED},
        {MEED_ROLE_USER, "As an engineer, tell me more.", MEED_SYNTHESIS_MALFORMED},
        {MEED_ROLE_USER, "As always, where is it?", MEED_SYNTHESIS_WRITTEN},
        {MEED_ROLE_USER, "I'm sorry, I cannot do that.", MEED_SYNTHESIS_MALFORMED},
        {MEED_ROLE_USER, "Sorry, where is it?", MEED_SYNTHESIS_MALFORMED},
        {MEED_ROLE_USER, "Where can I say that I am sorry?", MEED_SYNTHESIS_WRITTEN},
        {MEED_ROLE_USER, "Where is the old town hall?", MEED_SYNTHESIS_COPIED},
        {MEED_ROLE_USER, "what was asked before", MEED_SYNTHESIS_REPEATED},
        {MEED_ROLE_USER, "What was asked before, and why?", MEED_SYNTHESIS_WRITTEN},
        {MEED_ROLE_USER, "図書館", MEED_SYNTHESIS_WRITTEN}, /* three words */
        {MEED_ROLE_ASSISTANT, "Yes.", MEED_SYNTHESIS_WRITTEN},
        {MEED_ROLE_ASSISTANT, "…", MEED_SYNTHESIS_MALFORMED},
        {MEED_ROLE_ASSISTANT, "I'm sorry, I cannot do that.", MEED_SYNTHESIS_WRITTEN},
        {MEED_ROLE_ASSISTANT, "The hill of the hill of the hill of the hill of the hill.",
         MEED_SYNTHESIS_MALFORMED},
        {MEED_ROLE_ASSISTANT, "It is red, it is blue, and then it is green at last.",
         MEED_SYNTHESIS_WRITTEN},
        {MEED_ROLE_ASSISTANT, "where is the old town hall",
         MEED_SYNTHESIS_WRITTEN},                                             /* a question */
        {MEED_ROLE_ASSISTANT, "a b c d e f g 1 2 3", MEED_SYNTHESIS_WRITTEN}, /* 0.7, not above */
        {MEED_ROLE_ASSISTANT, "a b c d e f g 1 2", MEED_SYNTHESIS_COPIED},
    };
    static const char before[] = "What was asked before?";
    struct meed_synthesis_source source;
    struct meed_rouge_corpus *own = NULL;
    load_pairs(local, 2, &source);
    must(meed_rouge_corpus_create(&own));
    must(meed_rouge_corpus_add(own, before, strlen(before)));
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        enum meed_synthesis_fate fate = MEED_SYNTHESIS_FATES;
        double rouge;
        must(meed_synthesis_judge(&source, cases[i].role == MEED_ROLE_USER ? own : NULL,
                                  cases[i].role, 0.7, cases[i].text, &fate, &rouge));
        if (fate != cases[i].fate) {
            fail_msg("\"%s\" is %s, want %s", cases[i].text, meed_synthesis_fate_name(fate),
                     meed_synthesis_fate_name(cases[i].fate));
        }
    }
    meed_rouge_corpus_destroy(own);
    meed_synthesis_source_clear(&source);
}

/* Only what begins two different messages is lent out. */
static void synthesis_openings_are_shared_ones(void **state)
{
    (void)state;
    static const char *const local[] = {
        "Hi, where is room two?",  "a", "Hi, where is the lift?", "b", "Hi, when do you open?", "c",
        "Ann Lee speaking, help.", "d", "Thanks a lot.",          "e", "Thanks a lot.",         "f",
    };
    static const struct {
        int32_t text, words;
        const char *want;
    } cases[] = {
        {0, 3, "Hi, where is"},
        {0, 2, "Hi, where"},
        {0, 4, "Hi, where is"},
        {2, 3, "Hi,"},
        {3, 3, ""},
        {0, 0, ""},
        {4, 3, ""}, /* the same message twice */
    };
    struct meed_synthesis_source source;
    load_pairs(local, 12, &source);
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        size_t size =
            meed_synthesis_source_opening(&source, &source.texts[cases[i].text], 0, cases[i].words);
        assert_int_equal(size, strlen(cases[i].want));
        assert_memory_equal(local[2 * cases[i].text], cases[i].want, size);
    }
    meed_synthesis_source_clear(&source);
}

static void synthesis_reads_every_form_but_text(void **state)
{
    (void)state;
    static const char forms[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
        "\"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\\nb\"}]}\n\n"
        "{\"instruction\": \"q\", \"output\": \"a\"}\n"
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", "
        "\"value\": \"a\"}, {\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", "
        "\"value\": \"a\"}]}\n"
        "{\"text\": \"only text\"}";
    char path[256];
    struct meed_synthesis_source source;
    struct meed_synthesis_job job = job_in("forms", path);
    job.data_path = path;
    must(meed_file_write_atomic(path, forms, strlen(forms)));
    must(meed_synthesis_source_load(&job, tokenizer, chat, &source));
    assert_int_equal(source.count, 3);
    assert_int_equal(source.texts[0].exchanges, 1);
    assert_int_equal(source.texts[2].exchanges, 2);
    assert_true(source.multiline);
    assert_int_equal(meed_rouge_corpus_count(source.users), 4);
    meed_synthesis_source_clear(&source);

    static const char text[] = "{\"text\": \"only text\"}\n";
    must(meed_file_write_atomic(path, text, strlen(text)));
    assert_int_equal(meed_synthesis_source_load(&job, tokenizer, chat, &source), MEED_FORMAT);
    meed_synthesis_source_clear(&source);
    static const char bad[] = "{\"instruction\": \"q\", \"output\": \"a\"}\n{\"instruction\": 3}\n";
    must(meed_file_write_atomic(path, bad, strlen(bad)));
    assert_int_equal(meed_synthesis_source_load(&job, tokenizer, chat, &source), MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "forms:2: "));
    meed_synthesis_source_clear(&source);
}

/* --- prompts -----------------------------------------------------------------------------------
 */
static void assert_prompt(const struct meed_synthesis_prompter *prompter, int32_t said,
                          const char *opening, const char *want)
{
    struct meed_arena arena;
    struct meed_buf text;
    struct meed_prompt prompt;
    const struct meed_synthesis_demos demos = {.idx = {1, 0}, .count = 2};
    const struct meed_synthesis_candidate candidate = {
        .count = said, .messages = {{MEED_ROLE_USER, "Q?"}, {MEED_ROLE_ASSISTANT, "A."}}};
    meed_arena_init_growing(&arena, "test", 1 << 24);
    meed_buf_init(&text, 1 << 20);
    must(meed_synthesis_prompt_next(prompter, &demos, &candidate, opening, &arena, &prompt));
    must(meed_tokenizer_decode(tokenizer, prompt.ids, (size_t)prompt.length, true, &text));
    assert_string_equal(text.data, want);
    meed_buf_clear(&text);
    meed_arena_clear(&arena);
}

#define SHOWN                                                                                      \
    "<|im_start|>user\nq1\nx<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n"                     \
    "<|im_start|>user\nq0<|im_end|>\n<|im_start|>assistant\na0<|im_end|>\n"

static void synthesis_prompts_are_what_they_seem(void **state)
{
    (void)state;
    static const char *const local[] = {"q0", "a0", "q1\nx", "a1"};
    struct meed_synthesis_source source;
    struct meed_synthesis_prompter prompter;
    load_pairs(local, 4, &source);
    meed_synthesis_prompter_init(tokenizer, chat, &checkpoint->config, &source,
                                 MEED_SYNTHESIS_DIALOGUE, &prompter);
    assert_prompt(&prompter, 0, "", SHOWN "<|im_start|>user\n");
    assert_prompt(&prompter, 0, "Hi, where", SHOWN "<|im_start|>user\nHi, where");
    assert_prompt(&prompter, 1, "",
                  SHOWN "<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\n");
    assert_prompt(&prompter, 2, "And",
                  SHOWN "<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\nA.<|im_end|>\n"
                        "<|im_start|>user\nAnd");
    meed_synthesis_prompter_init(tokenizer, chat, &checkpoint->config, &source,
                                 MEED_SYNTHESIS_TASKS, &prompter);
    assert_prompt(&prompter, 0, "",
                  "The following is a series of different tasks, one a line, of the same kind.\n\n"
                  "Task 1: q1 x\nTask 2: q0\nTask 3:");
    assert_prompt(&prompter, 1, "",
                  "Each of the following tasks is followed by a response that carries it out.\n\n"
                  "Task: q1 x\nResponse: a1\n\nTask: q0\nResponse: a0\n\nTask: Q?\n");
    meed_synthesis_source_clear(&source);
}

static void assert_reading(const struct meed_synthesis_prompter *prompter, enum meed_role role,
                           const char *opening, const char *said, bool stopped, const char *want,
                           enum meed_synthesis_fate want_fate)
{
    struct meed_arena arena;
    struct meed_buf ids;
    const char *text = NULL;
    enum meed_synthesis_fate fate;
    meed_arena_init_growing(&arena, "test", 1 << 24);
    meed_buf_init(&ids, 1 << 20);
    must(meed_tokenizer_encode(tokenizer, said, strlen(said), true, &ids));
    const struct meed_reply reply = {(int32_t *)(void *)ids.data,
                                     (int32_t)(ids.size / sizeof(int32_t)), stopped};
    must(meed_synthesis_prompt_read(prompter, &reply, role, opening, &arena, &text, &fate));
    if (fate != want_fate || (fate == MEED_SYNTHESIS_WRITTEN && strcmp(text, want) != 0)) {
        fail_msg("\"%s\" reads \"%s\", %s", said, text, meed_synthesis_fate_name(fate));
    }
    meed_buf_clear(&ids);
    meed_arena_clear(&arena);
}

static void synthesis_reads_what_was_said(void **state)
{
    (void)state;
    static const char *const local[] = {"q0", "a0"};
    const enum meed_synthesis_fate W = MEED_SYNTHESIS_WRITTEN, M = MEED_SYNTHESIS_MALFORMED,
                                   U = MEED_SYNTHESIS_UNFINISHED;
    const enum meed_role user = MEED_ROLE_USER, assistant = MEED_ROLE_ASSISTANT;
    struct meed_synthesis_source source;
    struct meed_synthesis_prompter p;
    load_pairs(local, 2, &source);
    meed_synthesis_prompter_init(tokenizer, chat, &checkpoint->config, &source,
                                 MEED_SYNTHESIS_DIALOGUE, &p);
    assert_reading(&p, user, "Hi, where", " is it? \n", true, "Hi, where is it?", W);
    assert_reading(&p, user, "", "Where is it", false, "", U);
    assert_reading(&p, assistant, "", "Here.\nAnd there.", true, "Here.\nAnd there.", W);
    assert_reading(&p, assistant, "", "<|im_start|>Here.", true, "", M);
    assert_reading(&p, assistant, "", "Here\xEF\xBF\xBD.", true, "", M);
    meed_synthesis_prompter_init(tokenizer, chat, &checkpoint->config, &source,
                                 MEED_SYNTHESIS_TASKS, &p);
    assert_reading(&p, user, "", " Where is it?\nTask 4: more", false, "Where is it?", W);
    assert_reading(&p, user, "", " Where is it?", true, "Where is it?", W);
    assert_reading(&p, user, "", " Where is it", false, "", U);
    assert_reading(&p, assistant, "", "Response: Here.", true, "Here.", W);
    assert_reading(&p, assistant, "", "Response: Here.\n\nTask: Next", false, "Here.", W);
    assert_reading(&p, assistant, "", "Response: The Task: one", false, "", U);
    assert_reading(&p, assistant, "", "Here.", true, "", M);
    meed_synthesis_source_clear(&source);
}

/* --- runs --------------------------------------------------------------------------------------
 */
static void synthesis_bytes_depend_on_the_job_alone(void **state)
{
    (void)state;
    static const struct {
        int32_t batch;
        int threads;
    } cases[] = {{1, 1}, {32, 2}};
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        char path[256];
        char name[16];
        struct meed_synthesis_report report;
        struct meed_pool *other = NULL;
        struct meed_backend *be = NULL;
        snprintf(name, sizeof name, "batch%zu", i);
        struct meed_synthesis_job job = job_in(name, path);
        must(meed_pool_create(cases[i].threads, &other));
        must(meed_backend_open(NULL, other, &be));
        job.be = be;
        job.options.batch = cases[i].batch;
        must(meed_synthesis_write(&job, &report));
        assert_same_candidates(path);
        meed_backend_close(be);
        meed_pool_destroy(other);
    }
}

static void assert_same_counts(const struct meed_synthesis_report *report)
{
    assert_memory_equal(report->fates, reference_report.fates, sizeof report->fates);
    assert_memory_equal(report->texts, reference_report.texts, sizeof report->texts);
    assert_int_equal(report->exchanges, reference_report.exchanges);
    assert_true(report->rouge_mean == reference_report.rouge_mean);
}

/* The text behind so many lines. */
static size_t lines_end(const char *text, int lines)
{
    const char *at = text;
    for (; lines > 0; lines--) {
        at = strchr(at, '\n') + 1;
    }
    return (size_t)(at - text);
}

/* Cut anywhere, between lines or within, in the first group or the second, the file grows back. */
static void synthesis_goes_on_after_a_cut(void **state)
{
    (void)state;
    char path[256];
    const struct meed_buf *whole = undisturbed();
    struct meed_synthesis_job job = job_in("cut", path);
    const struct {
        size_t size;
        int32_t found;
    } cuts[] = {
        {10, 0}, {lines_end(whole->data, 6) + 30, 5}, {whole->size - 40, 19}, {whole->size, 20}};
    for (size_t i = 0; i < MEED_COUNT(cuts); i++) {
        struct meed_synthesis_report report;
        write_file(path, "candidates.jsonl", whole->data, cuts[i].size);
        must(meed_synthesis_write(&job, &report));
        assert_same_candidates(path);
        assert_same_counts(&report);
        assert_int_equal(report.found, cuts[i].found);
        assert_true((report.tokens == 0) == (cuts[i].found == 20));
    }
}

static void synthesis_begins_anew_for_another_job(void **state)
{
    (void)state;
    char path[256];
    struct meed_synthesis_report report;
    struct meed_synthesis_job job = job_in("anew", path);
    write_file(path, "candidates.jsonl", undisturbed()->data, undisturbed()->size);
    job.options.seed = 2;
    must(meed_synthesis_write(&job, &report));
    assert_int_equal(report.found, 0);
    struct meed_buf got = read_file(path, "candidates.jsonl");
    assert_string_not_equal(got.data, undisturbed()->data);
    meed_buf_clear(&got);
    job.options.seed = 1;
    must(meed_synthesis_write(&job, &report));
    assert_same_candidates(path);
    job.options.keep = 3; /* says nothing of candidates */
    job.options.batch = 7;
    must(meed_synthesis_write(&job, &report));
    assert_int_equal(report.found, 20);
}

struct patience {
    int64_t tokens;
};

static bool stop_after(void *user, const struct meed_synthesis_progress *progress)
{
    const struct patience *patience = user;
    return progress->tokens < patience->tokens;
}

static void synthesis_stops_when_told(void **state)
{
    (void)state;
    char path[256];
    struct meed_synthesis_report report;
    struct patience patience = {.tokens = 3};
    struct meed_synthesis_job job = job_in("told", path);
    undisturbed();
    job.on_progress = stop_after;
    job.user = &patience;
    assert_int_equal(meed_synthesis_write(&job, &report), MEED_CANCELLED);
    assert_non_null(strstr(meed_last_error(), "0 of 20 candidates"));
    patience.tokens = reference_report.tokens - 2; /* in the second group */
    assert_int_equal(meed_synthesis_write(&job, &report), MEED_CANCELLED);
    assert_non_null(strstr(meed_last_error(), "16 of 20 candidates"));
    patience.tokens = INT64_MAX;
    must(meed_synthesis_write(&job, &report));
    assert_int_equal(report.found, 16);
    assert_same_candidates(path);
}

/* Every written message is held against every local one of its role, one by one. */
static double nearest_one_by_one(const struct meed_synthesis_source *source,
                                 const struct meed_message *message)
{
    double best = 0;
    for (int64_t t = 0; t < source->count; t++) {
        for (int32_t m = 0; m < 2 * source->texts[t].exchanges; m++) {
            const struct meed_message *local = &source->texts[t].messages[m];
            struct meed_rouge_score score;
            must(meed_rouge_l(message->content, strlen(message->content), local->content,
                              strlen(local->content), &score));
            best = local->role == message->role && score.f1 > best ? score.f1 : best;
        }
    }
    return best;
}

static void synthesis_writes_no_copy(void **state)
{
    (void)state;
    char path[256], key[MEED_SHA256_HEX_BYTES];
    struct meed_synthesis_candidate candidates[20];
    struct meed_synthesis_source source;
    struct meed_arena arena;
    int32_t count = 0, written = 0, messages = 0;
    struct meed_synthesis_job job = job_in("reference", path);
    undisturbed();
    meed_arena_init_growing(&arena, "test", 1 << 24);
    must(meed_synthesis_key(&job, key));
    must(meed_synthesis_file_read(&job, key, &arena, candidates, &count));
    assert_int_equal(count, 20);
    must(meed_synthesis_source_load(&job, tokenizer, chat, &source));
    for (int32_t c = 0; c < count; c++) {
        written += candidates[c].fate == MEED_SYNTHESIS_WRITTEN;
        assert_int_equal(candidates[c].fate == MEED_SYNTHESIS_WRITTEN, candidates[c].count > 0);
        assert_int_equal(candidates[c].count % 2, 0);
        for (int32_t m = 0; m < candidates[c].count; m++, messages++) {
            double nearest = nearest_one_by_one(&source, &candidates[c].messages[m]);
            assert_true(nearest <= 0.7);
            assert_true(nearest == candidates[c].rouge[m]);
        }
    }
    assert_int_equal(written, reference_report.fates[MEED_SYNTHESIS_WRITTEN]);
    assert_int_equal(messages, 2 * reference_report.exchanges);
    assert_true(written >= 10); /* else the test shows nothing */
    assert_true(messages > 2 * written);
    meed_synthesis_source_clear(&source);
    meed_arena_clear(&arena);
}

/* Greedy and without openings the model says the same again and again, in both groups. */
static void synthesis_asks_nothing_twice(void **state)
{
    (void)state;
    char path[256], key[MEED_SHA256_HEX_BYTES];
    struct meed_synthesis_candidate candidates[32];
    struct meed_synthesis_report report;
    struct meed_arena arena;
    int32_t count = 0;
    struct meed_synthesis_job job = job_in("twice", path);
    job.options.candidates = 32;
    job.options.opening_words = 0;
    job.options.turns = 1;
    must(meed_synthesis_write(&job, &report));
    assert_true(report.texts[MEED_SYNTHESIS_REPEATED] > 0);
    assert_true(report.exchanges == report.fates[MEED_SYNTHESIS_WRITTEN]);
    meed_arena_init_growing(&arena, "test", 1 << 24);
    must(meed_synthesis_key(&job, key));
    must(meed_synthesis_file_read(&job, key, &arena, candidates, &count));
    for (int32_t c = 0; c < count; c++) {
        for (int32_t d = 0; d < c && candidates[c].count > 0; d++) {
            assert_true(candidates[d].count == 0 || strcmp(candidates[c].messages[0].content,
                                                           candidates[d].messages[0].content) != 0);
        }
    }
    meed_arena_clear(&arena);
}

/* The embedded model knows no "Response:": every reply is refused, retried and given up. */
static void synthesis_gives_up_with_counts(void **state)
{
    (void)state;
    char path[256];
    struct meed_synthesis_report report;
    struct meed_synthesis_job job = job_in("tasks", path);
    job.options.candidates = 5;
    job.options.form = MEED_SYNTHESIS_TASKS;
    job.options.temperature = 1;
    job.options.retries = 2;
    must(meed_synthesis_write(&job, &report));
    int32_t texts = 0;
    for (int f = 0; f < MEED_SYNTHESIS_FATES; f++) {
        texts += report.texts[f];
    }
    assert_int_equal(report.fates[MEED_SYNTHESIS_WRITTEN], 0);
    assert_true(report.texts[MEED_SYNTHESIS_WRITTEN] > 0); /* questions */
    /* three attempts at a question or, behind a question of one to three, three at a reply */
    assert_true(texts >= 3 * 5 && texts <= 6 * 5);
    must(meed_synthesis_select(&job, NULL, &report));
    assert_int_equal(report.kept, 0);
    struct meed_buf kept = read_file(path, "synthetic.jsonl");
    assert_int_equal(kept.size, 0);
    meed_buf_clear(&kept);
}

/* --- the choice --------------------------------------------------------------------------------
 */
struct scored {
    int count;
    double score[20], loss[20], ratio[20];
    bool kept[20];
};

static struct scored choose_by(enum meed_synthesis_score by, uint64_t seed, const char *path)
{
    char own[256];
    struct meed_synthesis_report report;
    struct scored scored = {.count = 0};
    struct meed_synthesis_job job = job_in("choice", own);
    job.options.score = by;
    job.options.seed = seed;
    must(meed_synthesis_write(&job, &report));
    must(meed_synthesis_select(&job, NULL, &report));
    assert_int_equal(report.kept, 6);
    assert_int_equal(report.not_finite, 0);
    struct meed_buf text = read_file(path, "scores.jsonl");
    for (char *at = text.data; *at; at = strchr(at, '\n') + 1) {
        json_t *line = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL);
        double loss = json_number_value(json_object_get(line, "loss"));
        scored.loss[scored.count] = loss;
        scored.ratio[scored.count] = loss / json_number_value(json_object_get(line, "loss_alone"));
        scored.score[scored.count] =
            json_number_value(json_object_get(line, meed_synthesis_score_name(by)));
        scored.kept[scored.count++] = json_is_true(json_object_get(line, "kept"));
        json_decref(line);
    }
    meed_buf_clear(&text);
    assert_int_equal(scored.count, report.scored);
    return scored;
}

/* No candidate left out comes before one that was kept. */
static void assert_order(const struct scored *scored, double (*key)(const struct scored *, int))
{
    int kept = 0;
    for (int i = 0; i < scored->count; i++) {
        kept += scored->kept[i];
        for (int j = 0; j < scored->count; j++) {
            if (scored->kept[i] && !scored->kept[j]) {
                assert_true(key(scored, i) <= key(scored, j));
            }
        }
    }
    assert_int_equal(kept, 6);
}

static double by_score(const struct scored *scored, int i)
{
    return scored->score[i];
}

static double by_ifd(const struct scored *scored, int i)
{
    return scored->ratio[i] < 1 ? -scored->ratio[i] : scored->ratio[i];
}

static void synthesis_keeps_the_best(void **state)
{
    (void)state;
    char path[256];
    job_in("choice", path);
    struct scored ifs = choose_by(MEED_SYNTHESIS_IFS, 1, path);
    struct scored ppl = choose_by(MEED_SYNTHESIS_PPL, 1, path);
    struct scored ifd = choose_by(MEED_SYNTHESIS_IFD, 1, path);
    struct scored random = choose_by(MEED_SYNTHESIS_RANDOM, 1, path);
    assert_order(&ifs, by_score);
    assert_order(&ppl, by_score);
    assert_order(&ifd, by_ifd);
    assert_order(&random, by_score);
    for (int i = 0; i < ifs.count; i++) {
        assert_true(fabs(ifs.score[i] / ifs.ratio[i] - 1) < 1e-6);
        assert_true(fabs(ppl.score[i] / exp(ppl.loss[i]) - 1) < 1e-6);
        assert_true(fabs(ifd.score[i] / ifd.ratio[i] - 1) < 1e-6);
    }
    assert_memory_not_equal(ifs.kept, ifd.kept, sizeof ifs.kept);
    assert_memory_not_equal(ifs.kept, random.kept, sizeof ifs.kept);
    struct meed_dataset *dataset = NULL;
    char synthetic[300];
    snprintf(synthetic, sizeof synthetic, "%s/synthetic.jsonl", path);
    must(meed_dataset_load(synthetic, chat, tokenizer, &dataset));
    assert_int_equal(dataset->count, 6);
    meed_dataset_destroy(dataset);
}

static void synthesis_refuses_early_and_senseless_calls(void **state)
{
    (void)state;
    char path[256];
    struct meed_synthesis_report report;
    struct meed_synthesis_job job = job_in("early", path);
    assert_int_equal(meed_synthesis_select(&job, NULL, &report), MEED_STATE);
    job.options.rouge_max = 1.5;
    assert_int_equal(meed_synthesis_write(&job, &report), MEED_ARG);
    assert_non_null(strstr(meed_last_error(), "rouge_max"));
    job = job_in("early", path);
    job.options.temperature = NAN;
    assert_int_equal(meed_synthesis_write(&job, &report), MEED_ARG);
    job = job_in("early", path);
    job.options.retries = 64;
    assert_int_equal(meed_synthesis_write(&job, &report), MEED_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synthesis_refuses_what_it_says),
        cmocka_unit_test(synthesis_openings_are_shared_ones),
        cmocka_unit_test(synthesis_reads_every_form_but_text),
        cmocka_unit_test(synthesis_prompts_are_what_they_seem),
        cmocka_unit_test(synthesis_reads_what_was_said),
        cmocka_unit_test(synthesis_bytes_depend_on_the_job_alone),
        cmocka_unit_test(synthesis_goes_on_after_a_cut),
        cmocka_unit_test(synthesis_begins_anew_for_another_job),
        cmocka_unit_test(synthesis_stops_when_told),
        cmocka_unit_test(synthesis_writes_no_copy),
        cmocka_unit_test(synthesis_asks_nothing_twice),
        cmocka_unit_test(synthesis_gives_up_with_counts),
        cmocka_unit_test(synthesis_keeps_the_best),
        cmocka_unit_test(synthesis_refuses_early_and_senseless_calls),
    };
    int failed = cmocka_run_group_tests_name("synthesis", tests, open_all, close_all);
    meed_buf_clear(&reference);
    return failed;
}
