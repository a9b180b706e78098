/* See synthesis.h. A group of candidates goes through its messages together: first all user
 * messages, then all replies, then the next turn of those dialogues that have one. A message that
 * is refused is asked for again, up to `retries` times in the first exchange and once, that is
 * never again, in later ones, where the dialogue can simply end.
 *
 * Draws are named by what they are for, never by when they happen: demonstrations by (group,
 * message, attempt), the shape of a dialogue by (candidate, attempt), tokens by (group, message,
 * attempt) and the candidate's place among those that are asked. What other candidates have asked
 * already is, to a group, what the groups before it wrote. So a group can be written anew, and the
 * lines come out as they were.
 */
#include "client/synthesis_internal.h"

#include <string.h>
#include "base/clock.h"

enum { MAX_ATTEMPTS = 64, MAX_ROWS = 256, MESSAGES = 2 * MEED_SYNTHESIS_MAX_TURNS };

struct writer {
    const struct meed_synthesis_job *job;
    const struct meed_synthesis_options *options;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_net *net;
    struct meed_generator *generator;
    struct meed_synthesis_source source;
    struct meed_synthesis_prompter prompter;
    struct meed_synthesis_candidate *candidates;
    struct meed_arena texts;       /* messages of all candidates */
    struct meed_arena scratch;     /* of one run: prompts and replies */
    struct meed_rouge_corpus *own; /* user messages, first of their dialogue */
    int32_t done;                  /* candidates in the file */
    int64_t tokens;
    bool stopped;
};

/* One run of the generator: the same message of several candidates. */
struct question {
    int32_t group;
    int32_t message; /* index in the dialogue */
    int32_t attempt;
    int32_t count;
    int32_t who[MEED_SYNTHESIS_GROUP]; /* candidates */
    const char *openings[MEED_SYNTHESIS_GROUP];
    struct meed_prompt prompts[MEED_SYNTHESIS_GROUP];
    struct meed_reply replies[MEED_SYNTHESIS_GROUP];
};

/* --- names and options -------------------------------------------------------------------------
 */
const char *meed_synthesis_score_name(enum meed_synthesis_score score)
{
    static const char *const names[MEED_SYNTHESIS_SCORES] = {"ifs", "ppl", "ifd", "random"};
    return names[score];
}

const char *meed_synthesis_template_name(enum meed_synthesis_template form)
{
    static const char *const names[MEED_SYNTHESIS_TEMPLATES] = {"dialogue", "tasks"};
    return names[form];
}

const char *meed_synthesis_fate_name(enum meed_synthesis_fate fate)
{
    static const char *const names[MEED_SYNTHESIS_FATES] = {"written", "unfinished", "malformed",
                                                            "repeated", "copied"};
    return names[fate];
}

struct meed_synthesis_options meed_synthesis_defaults(void)
{
    return (struct meed_synthesis_options){
        .candidates = 32,
        .keep = 16,
        .instruction_demos = 8,
        .response_demos = 4,
        .rouge_max = 0.7,
        .retries = 3,
        .opening_words = 3,
        .seed = 1,
        .batch = MEED_SYNTHESIS_GROUP,
    };
}

enum meed_status meed_synthesis_check(const struct meed_synthesis_options *options)
{
    const struct {
        const char *name;
        double value, min, max;
    } rows[] = {
        {"candidates", options->candidates, 1, MEED_SYNTHESIS_MAX_CANDIDATES},
        {"keep", options->keep, 1, MEED_SYNTHESIS_MAX_CANDIDATES},
        {"instruction_demos", options->instruction_demos, 0, MEED_SYNTHESIS_MAX_DEMOS},
        {"response_demos", options->response_demos, 0, MEED_SYNTHESIS_MAX_DEMOS},
        {"rouge_max", options->rouge_max, 0, 1},
        {"retries", options->retries, 0, MAX_ATTEMPTS - 1},
        {"turns", options->turns, 0, MEED_SYNTHESIS_MAX_TURNS},
        {"opening_words", options->opening_words, 0, 64},
        {"temperature", options->temperature, 0, 100},
        {"batch", options->batch, 1, 4096},
    };
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        if (!(rows[i].value >= rows[i].min && rows[i].value <= rows[i].max)) {
            return MEED_FAIL(MEED_ARG, "%s of a synthesis is %g; it can be %g to %g", rows[i].name,
                             rows[i].value, rows[i].min, rows[i].max);
        }
    }
    return MEED_OK;
}

enum meed_status meed_synthesis_tell(const struct meed_synthesis_job *job, const char *phase,
                                     int64_t done, int64_t total, int64_t tokens)
{
    const struct meed_synthesis_progress progress = {phase, done, total, tokens};
    return !job->on_progress || job->on_progress(job->user, &progress)
               ? MEED_OK
               : MEED_FAIL(MEED_CANCELLED,
                           "the synthesis was stopped after %lld of %lld candidates; the same "
                           "command goes on",
                           (long long)done, (long long)total);
}

/* --- asking ------------------------------------------------------------------------------------
 */
static enum meed_role role_of(int32_t message)
{
    return message % 2 == 0 ? MEED_ROLE_USER : MEED_ROLE_ASSISTANT;
}

/* Only texts that differ by chance or by their opening may share demonstrations. */
static bool shares_demos(const struct writer *w, const struct question *question)
{
    const struct meed_synthesis_options *o = w->options;
    return question->message > 0 || o->temperature > 0 ||
           (o->form == MEED_SYNTHESIS_DIALOGUE && o->opening_words > 0);
}

/* A user's message is asked for after first exchanges; replies and later turns after dialogues,
 * where dialogues are wanted. The demonstrations of later turns are those of the first reply's
 * first attempt, so that they are held already. */
static enum meed_status draw_demos(const struct writer *w, const struct question *question,
                                   int32_t asked, struct meed_synthesis_demos *demos)
{
    const struct meed_synthesis_options *o = w->options;
    bool first = question->message == 0;
    uint64_t place = (uint64_t)(shares_demos(w, question) ? question->group : question->who[asked]);
    uint64_t sub = (place * 2 + !first) * MAX_ATTEMPTS + (uint64_t)question->attempt;
    demos->whole = !first && o->turns != 1 && o->form == MEED_SYNTHESIS_DIALOGUE;
    return meed_synthesis_source_draw(&w->source, meed_rng_stream(o->seed, "synthesis demos", sub),
                                      first ? o->instruction_demos : o->response_demos,
                                      demos->whole, meed_net_config(w->net)->max_positions / 4,
                                      demos->idx, &demos->count);
}

static bool is_shown(const struct meed_synthesis_demos *demos, int64_t text_idx)
{
    for (int32_t d = 0; d < demos->count; d++) {
        if (demos->idx[d] == text_idx) {
            return true;
        }
    }
    return false;
}

/* The local dialogue that lends length and openings: none of those shown, if there are others. */
static void draw_shape(const struct writer *w, const struct meed_synthesis_demos *demos,
                       int32_t who, int32_t attempt)
{
    uint64_t sub = (uint64_t)who * MAX_ATTEMPTS + (uint64_t)attempt;
    struct meed_rng rng = meed_rng_stream(w->options->seed, "synthesis shape", sub);
    int64_t drawn;
    do {
        drawn = (int64_t)meed_rng_below(&rng, (uint64_t)w->source.count);
    } while (is_shown(demos, drawn) && w->source.count > demos->count);
    w->candidates[who].shape_idx = drawn;
}

static enum meed_status find_opening(struct writer *w, const struct question *question, int32_t who,
                                     const char **opening)
{
    const struct meed_synthesis_text *shape = &w->source.texts[w->candidates[who].shape_idx];
    int32_t exchange = question->message / 2;
    char *copy = NULL;
    size_t size = 0;
    if (w->options->form == MEED_SYNTHESIS_DIALOGUE && question->message % 2 == 0 &&
        exchange < shape->exchanges) {
        size =
            meed_synthesis_source_opening(&w->source, shape, exchange, w->options->opening_words);
    }
    MEED_TRY(meed_arena_strdup(&w->scratch, size > 0 ? shape->messages[2 * exchange].content : "",
                               size, &copy));
    *opening = copy;
    return MEED_OK;
}

/* Prompts of all who are asked; one that leaves no room for a reply is UNFINISHED at once. */
static enum meed_status compose(struct writer *w, struct question *question)
{
    struct meed_synthesis_demos demos = {.count = 0};
    int32_t kept = 0;
    for (int32_t i = 0; i < question->count; i++) {
        int32_t who = question->who[i];
        struct meed_synthesis_candidate *candidate = &w->candidates[who];
        if (i == 0 || !shares_demos(w, question)) {
            MEED_TRY(draw_demos(w, question, i, &demos));
        }
        if (question->message == 0) {
            draw_shape(w, &demos, who, question->attempt);
        }
        MEED_TRY(find_opening(w, question, who, &question->openings[kept]));
        MEED_TRY(meed_synthesis_prompt_next(&w->prompter, &demos, candidate,
                                            question->openings[kept], &w->scratch,
                                            &question->prompts[kept]));
        if (question->prompts[kept].length + w->prompter.max_new_tokens >
            meed_net_config(w->net)->max_positions) {
            candidate->fate = MEED_SYNTHESIS_UNFINISHED;
            candidate->texts[MEED_SYNTHESIS_UNFINISHED]++;
            continue;
        }
        question->who[kept++] = who;
    }
    question->count = kept;
    return MEED_OK;
}

static bool on_token(void *user, int32_t prompt_idx, int32_t token)
{
    struct writer *w = user;
    (void)prompt_idx;
    (void)token;
    w->tokens++;
    w->stopped = meed_synthesis_tell(w->job, "writing", w->done, w->options->candidates,
                                     w->tokens) != MEED_OK;
    return !w->stopped;
}

static enum meed_status generate(struct writer *w, struct question *question)
{
    const struct meed_synthesis_options *o = w->options;
    struct meed_generate_options options = meed_generate_defaults();
    uint64_t sub =
        ((uint64_t)question->group * MESSAGES + (uint64_t)question->message) * MAX_ATTEMPTS +
        (uint64_t)question->attempt;
    bool by_line =
        o->form == MEED_SYNTHESIS_TASKS && (question->message == 0 || !w->source.multiline);
    options.max_new_tokens = w->prompter.max_new_tokens;
    options.temperature = (float)o->temperature;
    options.seed = meed_rng_stream(o->seed, "synthesis tokens", sub).key;
    options.stop_ids = w->prompter.stop_ids;
    options.stop_count = by_line ? w->prompter.line_stop_count : w->prompter.stop_count;
    const struct meed_generate_hooks hooks = {.on_token = on_token, .user = w};
    enum meed_status st = meed_generator_run(w->generator, question->prompts, question->count,
                                             &options, &hooks, &w->scratch, question->replies);
    /* The generator's own sentence knows nothing of candidates. */
    return w->stopped ? meed_synthesis_tell(w->job, "writing", w->done, o->candidates, w->tokens)
                      : st;
}

/* --- judging -----------------------------------------------------------------------------------
 */
static enum meed_status judge(struct writer *w, const struct question *question, int32_t asked)
{
    struct meed_synthesis_candidate *candidate = &w->candidates[question->who[asked]];
    enum meed_role role = role_of(question->message);
    bool first = question->message == 0;
    const char *text = NULL;
    double rouge = 0;
    MEED_TRY(meed_synthesis_prompt_read(&w->prompter, &question->replies[asked], role,
                                        question->openings[asked], &w->texts, &text,
                                        &candidate->fate));
    if (candidate->fate == MEED_SYNTHESIS_WRITTEN) {
        MEED_TRY(meed_synthesis_judge(&w->source, first ? w->own : NULL, role,
                                      w->options->rouge_max, text, &candidate->fate, &rouge));
    }
    candidate->texts[candidate->fate]++;
    if (candidate->fate != MEED_SYNTHESIS_WRITTEN) {
        return MEED_OK;
    }
    candidate->rouge[candidate->count] = rouge;
    candidate->messages[candidate->count++] = (struct meed_message){role, text};
    return first ? meed_rouge_corpus_add(w->own, text, strlen(text)) : MEED_OK;
}

/* Asks all candidates of a group that have come as far as this message. */
static enum meed_status ask_group(struct writer *w, int32_t group, int32_t end, int32_t message,
                                  int32_t attempt)
{
    struct question question = {.group = group, .message = message, .attempt = attempt};
    for (int32_t c = group * MEED_SYNTHESIS_GROUP; c < end; c++) {
        if (w->candidates[c].count == message && !w->candidates[c].ended) {
            question.who[question.count++] = c;
        }
    }
    meed_arena_reset(&w->scratch);
    MEED_TRY(compose(w, &question));
    if (question.count == 0) {
        return MEED_OK;
    }
    MEED_TRY(generate(w, &question));
    for (int32_t i = 0; i < question.count; i++) {
        MEED_TRY(judge(w, &question, i));
    }
    return MEED_OK;
}

static int32_t wanted_exchanges(const struct writer *w, const struct meed_synthesis_candidate *c)
{
    int32_t wanted =
        w->options->turns > 0 ? w->options->turns : w->source.texts[c->shape_idx].exchanges;
    return w->options->form == MEED_SYNTHESIS_TASKS ? 1
                                                    : MEED_MIN(wanted, MEED_SYNTHESIS_MAX_TURNS);
}

/* After a message was asked for as often as it is: who has not got it, or wants no more, ends with
 * the exchanges that are whole. */
static void end_turn(struct writer *w, int32_t group, int32_t end, int32_t message)
{
    for (int32_t c = group * MEED_SYNTHESIS_GROUP; c < end; c++) {
        struct meed_synthesis_candidate *candidate = &w->candidates[c];
        if (candidate->count <= message) {
            candidate->ended = true;
            candidate->count -= candidate->count % 2;
        }
        if (candidate->count >= 2) {
            candidate->fate = MEED_SYNTHESIS_WRITTEN;
            candidate->ended =
                candidate->ended || candidate->count >= 2 * wanted_exchanges(w, candidate);
        }
    }
}

/* What the groups before have asked. */
static enum meed_status know_earlier(struct writer *w, int32_t begin)
{
    meed_rouge_corpus_destroy(w->own);
    w->own = NULL;
    MEED_TRY(meed_rouge_corpus_create(&w->own));
    for (int32_t c = 0; c < begin; c++) {
        if (w->candidates[c].fate == MEED_SYNTHESIS_WRITTEN) {
            const char *text = w->candidates[c].messages[0].content;
            MEED_TRY(meed_rouge_corpus_add(w->own, text, strlen(text)));
        }
    }
    return MEED_OK;
}

static enum meed_status write_group(struct writer *w, int32_t group)
{
    int32_t begin = group * MEED_SYNTHESIS_GROUP;
    int32_t end = MEED_MIN(begin + MEED_SYNTHESIS_GROUP, w->options->candidates);
    memset(w->candidates + begin, 0, (size_t)(end - begin) * sizeof *w->candidates);
    MEED_TRY(know_earlier(w, begin));
    for (int32_t message = 0; message < MESSAGES; message++) {
        int32_t attempts = message < 2 ? 1 + w->options->retries : 1;
        for (int32_t attempt = 0; attempt < attempts; attempt++) {
            MEED_TRY(ask_group(w, group, end, message, attempt));
        }
        end_turn(w, group, end, message);
    }
    return MEED_OK;
}

/* --- the whole ---------------------------------------------------------------------------------
 */
static enum meed_status save(struct writer *w, const char *key, int32_t count)
{
    struct meed_buf text;
    meed_buf_init(&text, (size_t)1 << 30);
    enum meed_status st;
    MEED_TRY_OUT(meed_synthesis_file_head(key, &text));
    for (int32_t c = 0; c < count; c++) {
        MEED_TRY_OUT(meed_synthesis_file_candidate(&w->candidates[c], c, &text));
    }
    MEED_TRY_OUT(meed_synthesis_file_write(w->job, NULL, &text));
    w->done = count;
out:
    meed_buf_clear(&text);
    return st;
}

static enum meed_status open_writer(struct writer *w)
{
    const struct meed_synthesis_job *job = w->job;
    const struct meed_adapter *adapters[] = {job->global};
    const struct meed_net_options net = {.dtype = job->dtype,
                                         .base = job->base,
                                         .max_rows = MEED_MAX(MAX_ROWS, w->options->batch),
                                         .max_sequences = 1,
                                         .adapters = adapters,
                                         .adapter_count = job->global ? 1 : 0};
    struct meed_generate_options generate = meed_generate_defaults();
    generate.slots = w->options->batch;
    generate.keep = MEED_SYNTHESIS_GROUP;
    generate.max_rows = net.max_rows;
    MEED_TRY(meed_tokenizer_open(job->model_folder, &w->tokenizer));
    MEED_TRY(meed_chat_open(job->model_folder, w->tokenizer, &w->chat));
    MEED_TRY(meed_synthesis_source_load(job, w->tokenizer, w->chat, &w->source));
    MEED_TRY(meed_net_create(job->be, job->checkpoint, &net, &w->net));
    meed_synthesis_prompter_init(w->tokenizer, w->chat, &job->checkpoint->config, &w->source,
                                 w->options->form, &w->prompter);
    return meed_generator_create(w->net, &generate, &w->generator);
}

static void close_writer(struct writer *w)
{
    meed_generator_destroy(w->generator);
    meed_net_destroy(w->net);
    meed_synthesis_source_clear(&w->source);
    meed_chat_close(w->chat);
    meed_tokenizer_close(w->tokenizer);
    meed_rouge_corpus_destroy(w->own);
    meed_arena_clear(&w->texts);
    meed_arena_clear(&w->scratch);
    meed_heap_free(w->candidates);
}

static void fill_report(const struct writer *w, struct meed_synthesis_report *report)
{
    double rouge = 0;
    int32_t messages = 0;
    report->candidates = w->options->candidates;
    report->tokens = w->tokens;
    for (int32_t c = 0; c < w->options->candidates; c++) {
        const struct meed_synthesis_candidate *candidate = &w->candidates[c];
        report->fates[candidate->fate]++;
        for (int f = 0; f < MEED_SYNTHESIS_FATES; f++) {
            report->texts[f] += candidate->texts[f];
        }
        for (int32_t m = 0; m < candidate->count; m++) {
            rouge += candidate->rouge[m];
        }
        messages += candidate->count;
    }
    report->exchanges = messages / 2;
    report->rouge_mean = messages > 0 ? rouge / messages : 0;
}

enum meed_status meed_synthesis_write(const struct meed_synthesis_job *job,
                                      struct meed_synthesis_report *report)
{
    struct writer w = {.job = job, .options = &job->options};
    struct meed_synthesis_report made = {.candidates = 0};
    char key[MEED_SHA256_HEX_BYTES];
    int64_t start_ns = meed_clock_monotonic_ns();
    enum meed_status st;
    meed_arena_init_growing(&w.texts, "synthetic texts", (size_t)1 << 32);
    meed_arena_init_growing(&w.scratch, "prompts", (size_t)1 << 32);
    MEED_TRY_OUT(meed_synthesis_check(&job->options));
    MEED_TRY_OUT(meed_synthesis_key(job, key));
    w.candidates = meed_heap_alloc((size_t)job->options.candidates, sizeof *w.candidates);
    st = w.candidates ? MEED_OK : MEED_NOMEM;
    MEED_TRY_OUT(st);
    MEED_TRY_OUT(meed_synthesis_file_read(job, key, &w.texts, w.candidates, &w.done));
    made.found = w.done;
    if (w.done < job->options.candidates) {
        w.done -= w.done % MEED_SYNTHESIS_GROUP;
        MEED_TRY_OUT(open_writer(&w));
    }
    while (w.done < job->options.candidates) {
        MEED_TRY_OUT(
            meed_synthesis_tell(job, "writing", w.done, job->options.candidates, w.tokens));
        MEED_TRY_OUT(write_group(&w, w.done / MEED_SYNTHESIS_GROUP));
        MEED_TRY_OUT(
            save(&w, key, MEED_MIN(w.done + MEED_SYNTHESIS_GROUP, job->options.candidates)));
    }
    MEED_TRY_OUT(meed_synthesis_tell(job, "writing", w.done, job->options.candidates, w.tokens));
    fill_report(&w, &made);
    made.seconds = meed_clock_seconds_since(start_ns);
    *report = made;
out:
    close_writer(&w);
    return st;
}
