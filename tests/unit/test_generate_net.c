/* Generation over the real network: the same reply alone and among others, and a known story.
 *
 * Goal: what the scheduler's test shows over a stub holds with attention, caches and GEMM under it.
 * Method: the example model answers a dozen prompts with sampling, in several slot, batch and
 * thread shapes; the 257 greedy tokens of stories260K (llama2.c) where that model is at hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/threads.h"
#include "engine/chat.h"
#include "engine/generate.h"

enum { PROMPTS = 12, ROWS = 64, STORY = 257 };

static void must(enum meed_status status)
{
    if (status != MEED_OK) {
        fail_msg("%s: %s", meed_status_name(status), meed_last_error());
    }
}

struct machine {
    struct meed_pool *pool;
    struct meed_backend *backend;
    struct meed_checkpoint *checkpoint;
    struct meed_net *net;
};

static struct machine machine_open(const char *folder, int threads)
{
    struct machine machine = {NULL, NULL, NULL, NULL};
    const struct meed_net_options options = {
        .dtype = MEED_DTYPE_F32, .max_rows = ROWS, .max_sequences = 1};
    must(meed_pool_create(threads, &machine.pool));
    must(meed_backend_open_cpu(machine.pool, NULL, &machine.backend));
    must(meed_checkpoint_open(folder, &machine.checkpoint));
    must(meed_net_create(machine.backend, machine.checkpoint, &options, &machine.net));
    return machine;
}

/* An emulated device takes a thousand times as long. */
static int32_t fewer(const struct machine *machine, int32_t full, int32_t emulated)
{
    return machine->backend->host_memory ? full : emulated;
}

static void machine_close(struct machine *machine)
{
    meed_net_destroy(machine->net);
    meed_checkpoint_close(machine->checkpoint);
    meed_backend_close(machine->backend);
    meed_pool_destroy(machine->pool);
}

static void make_prompts(const char *folder, struct meed_arena *arena, struct meed_prompt *prompts)
{
    struct meed_tokenizer *tokenizer = NULL;
    struct meed_chat *chat = NULL;
    must(meed_tokenizer_open(folder, &tokenizer));
    must(meed_chat_open(folder, tokenizer, &chat));
    for (int i = 0; i < PROMPTS; i++) {
        char text[400] = "";
        for (int word = 0; word < 3 + i * 5; word++) {
            size_t used = strlen(text);
            snprintf(text + used, sizeof text - used, "word%d ", i * word);
        }
        const struct meed_message message = {MEED_ROLE_USER, text};
        const struct meed_dialogue dialogue = {&message, 1};
        struct meed_sequence sequence = {NULL, NULL, 0};
        must(meed_chat_encode(chat, &dialogue, true, 0, arena, &sequence));
        prompts[i] = (struct meed_prompt){sequence.ids, sequence.length, 0};
    }
    meed_chat_close(chat);
    meed_tokenizer_close(tokenizer);
}

static void generate_net_does_not_depend_on_the_batch(void **state)
{
    (void)state;
    static const char folder[] = MEED_SOURCE_DIR "/examples/tiny/model";
    static const struct {
        int32_t slots;
        int32_t max_rows;
        int threads;
    } shapes[] = {{12, 64, 2}, {1, 64, 1}, {5, 7, 2}, {12, 12, 1}};
    struct meed_arena arena;
    struct meed_prompt prompts[PROMPTS];
    struct meed_reply want[PROMPTS];
    struct meed_generate_options options = meed_generate_defaults();
    options.temperature = 1.0f;
    options.top_p = 0.95f;
    meed_arena_init_growing(&arena, "test", 1 << 26);
    make_prompts(folder, &arena, prompts);
    for (size_t s = 0; s < MEED_COUNT(shapes); s++) {
        struct machine machine = machine_open(folder, shapes[s].threads);
        struct meed_reply got[PROMPTS];
        int32_t count = fewer(&machine, PROMPTS, 3);
        options.max_new_tokens = fewer(&machine, 24, 5);
        options.slots = shapes[s].slots;
        options.max_rows = shapes[s].max_rows;
        must(meed_generate(machine.net, prompts, count, &options, &arena, got, NULL, NULL));
        for (int p = 0; p < count; p++) {
            want[p] = s == 0 ? got[p] : want[p];
            assert_int_equal(got[p].length, want[p].length);
            assert_memory_equal(got[p].ids, want[p].ids, (size_t)got[p].length * sizeof(int32_t));
        }
        machine_close(&machine);
    }
    meed_arena_clear(&arena);
}

/* The second turn of a dialogue: prompt, reply, and the prompt's own tokens again. */
struct turns {
    const struct meed_prompt *prompts;
    struct meed_arena *arena;
    struct meed_prompt second[PROMPTS];
};

static enum meed_status ask_again(void *user, int32_t idx, const struct meed_reply *reply,
                                  struct meed_prompt *next)
{
    struct turns *turns = user;
    const struct meed_prompt *first = &turns->prompts[idx];
    void *block = NULL;
    if (turns->second[idx].length > 0) {
        return MEED_OK;
    }
    int32_t length = 2 * first->length + reply->length;
    must(meed_arena_alloc_array(turns->arena, (size_t)length, sizeof(int32_t), &block));
    int32_t *ids = block;
    memcpy(ids, first->ids, (size_t)first->length * sizeof *ids);
    memcpy(ids + first->length, reply->ids, (size_t)reply->length * sizeof *ids);
    memcpy(ids + first->length + reply->length, first->ids, (size_t)first->length * sizeof *ids);
    *next = turns->second[idx] = (struct meed_prompt){ids, length, 0};
    return MEED_OK;
}

/* Twelve dialogues of two turns in five slots, on kept pages; each second prompt alone and fresh.
 */
static void generate_net_goes_on_where_it_was(void **state)
{
    (void)state;
    static const char folder[] = MEED_SOURCE_DIR "/examples/tiny/model";
    struct machine machine = machine_open(folder, 2);
    struct meed_arena arena;
    struct meed_prompt prompts[PROMPTS];
    struct meed_reply got[PROMPTS], want;
    struct meed_generator *generator = NULL;
    meed_arena_init_growing(&arena, "test", 1 << 26);
    make_prompts(folder, &arena, prompts);
    struct turns turns = {.prompts = prompts, .arena = &arena};
    const struct meed_generate_hooks hooks = {NULL, ask_again, &turns};
    struct meed_generate_options options = meed_generate_defaults();
    int32_t count = fewer(&machine, PROMPTS, 3);
    options.max_new_tokens = fewer(&machine, 12, 3);
    options.slots = fewer(&machine, 5, 2);
    options.max_rows = ROWS;
    options.capacity = meed_net_config(machine.net)->max_positions;
    must(meed_generator_create(machine.net, &options, &generator));
    must(meed_generator_run(generator, prompts, count, &options, &hooks, &arena, got));
    int64_t tokens = 0;
    for (int p = 0; p < count; p++) {
        must(meed_generate(machine.net, &turns.second[p], 1, &options, &arena, &want, NULL, NULL));
        assert_int_equal(got[p].length, want.length);
        assert_memory_equal(got[p].ids, want.ids, (size_t)want.length * sizeof(int32_t));
        tokens += turns.second[p].length + want.length;
    }
    struct meed_generator_counts counts = meed_generator_counts(generator);
    assert_true(counts.fed <= tokens && counts.shared > 0);
    meed_generator_destroy(generator);
    meed_arena_clear(&arena);
    machine_close(&machine);
}

/* Replies of a run whose decoding steps are graphs, where the device has them, and of one whose
 * steps are launched op by op. */
static void generate_net_is_the_same_by_graph(void **state)
{
    (void)state;
    static const char folder[] = MEED_SOURCE_DIR "/examples/tiny/model";
    struct machine machine = machine_open(folder, 2);
    struct meed_arena arena;
    struct meed_prompt prompts[PROMPTS];
    struct meed_reply replies[2][3];
    struct meed_generate_options options = meed_generate_defaults();
    meed_arena_init_growing(&arena, "test", 1 << 26);
    make_prompts(folder, &arena, prompts);
    options.max_new_tokens = 8;
    options.temperature = 0.9f;
    options.top_k = 20;
    options.max_rows = ROWS;
    bool graphs = machine.backend->graph_begin != NULL;
    for (int turn = 0; turn < 2; turn++) {
        struct meed_generator *generator = NULL;
        must(meed_generator_create(machine.net, &options, &generator));
        must(meed_generator_run(generator, prompts, 3, &options, NULL, &arena, replies[turn]));
        struct meed_generator_counts counts = meed_generator_counts(generator);
        assert_true(graphs && turn == 0 ? counts.graphs >= 3 : counts.graphs == 0);
        meed_generator_destroy(generator);
        machine.backend->graph_begin = NULL;
    }
    for (int p = 0; p < 3; p++) {
        assert_int_equal(replies[0][p].length, replies[1][p].length);
        assert_memory_equal(replies[0][p].ids, replies[1][p].ids,
                            (size_t)replies[0][p].length * sizeof(int32_t));
    }
    meed_arena_clear(&arena);
    machine_close(&machine);
}

static void generate_net_tells_the_known_story(void **state)
{
    (void)state;
    static const char folder[] = MEED_SHARED_DATA "/models/stories260K_hf";
    json_t *root =
        json_load_file(MEED_SHARED_DATA "/models/stories260K/greedy_expected.json", 0, NULL);
    if (!root || !meed_file_exists(folder)) {
        printf("SKIPPED: stories260K is not at hand\n");
        json_decref(root);
        skip();
    }
    const json_t *ids = json_object_get(root, "greedy_ids");
    assert_int_equal(json_array_size(ids), STORY);
    struct machine machine = machine_open(folder, 2);
    struct meed_arena arena;
    struct meed_reply reply = {NULL, 0, false};
    meed_arena_init_growing(&arena, "test", 1 << 24);
    struct meed_generate_options options = meed_generate_defaults();
    options.max_new_tokens = fewer(&machine, STORY - 1, 20);
    int32_t first = (int32_t)json_integer_value(json_array_get(ids, 0));
    const struct meed_prompt prompt = {&first, 1, 0};
    must(meed_generate(machine.net, &prompt, 1, &options, &arena, &reply, NULL, NULL));
    assert_int_equal(reply.length, options.max_new_tokens);
    for (int32_t i = 0; i < reply.length; i++) {
        assert_int_equal(reply.ids[i], json_integer_value(json_array_get(ids, (size_t)i + 1)));
    }
    meed_arena_clear(&arena);
    machine_close(&machine);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_net_does_not_depend_on_the_batch),
        cmocka_unit_test(generate_net_goes_on_where_it_was),
        cmocka_unit_test(generate_net_is_the_same_by_graph),
        cmocka_unit_test(generate_net_tells_the_known_story),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
