/* Checkpoints: configuration and weights must agree before a network may be built.
 *
 * Goal: a folder whose weights disagree with its config.json is refused with the tensor's name, and
 * the hash names the content. Method: golden folders copied to a temporary one with a changed
 * configuration.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "engine/checkpoint.h"

static const char golden[] = MEED_SOURCE_DIR "/tests/golden/";

static void make_place(char *folder, size_t bytes)
{
    snprintf(folder, bytes, "/tmp/meed-checkpoint-%ld", (long)getpid());
    assert_int_equal(meed_file_make_folder(folder), MEED_OK);
}

/* Copies FAMILY's weights; the configuration is FAMILY's with `from` replaced by `to`. */
static void make_folder(const char *folder, const char *family, const char *from, const char *to)
{
    char source[512], target[128];
    struct meed_buf text, changed;
    meed_buf_init(&text, 1 << 20);
    meed_buf_init(&changed, 1 << 20);
    snprintf(source, sizeof source, "%s%s/model.safetensors", golden, family);
    snprintf(target, sizeof target, "%s/model.safetensors", folder);
    assert_int_equal(meed_file_read(source, &text), MEED_OK);
    assert_int_equal(meed_file_write_atomic(target, text.data, text.size), MEED_OK);
    meed_buf_reset(&text);
    snprintf(source, sizeof source, "%s%s/config.json", golden, family);
    snprintf(target, sizeof target, "%s/config.json", folder);
    assert_int_equal(meed_file_read(source, &text), MEED_OK);
    char *at = strstr(text.data, from);
    assert_non_null(at);
    assert_int_equal(meed_buf_printf(&changed, "%.*s%s%s", (int)(at - text.data), text.data, to,
                                     at + strlen(from)),
                     MEED_OK);
    assert_int_equal(meed_file_write_atomic(target, changed.data, changed.size), MEED_OK);
    meed_buf_clear(&text);
    meed_buf_clear(&changed);
}

static void checkpoint_refuses_weights_of_another_shape(void **state)
{
    (void)state;
    static const struct {
        const char *family, *from, *to;
        enum meed_status status;
        const char *word;
    } cases[] = {
        {"llama_tied", "\"vocab_size\": 96", "\"vocab_size\": 97", MEED_FORMAT, "embed_tokens"},
        {"llama_tied", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", MEED_FORMAT,
         "layers.2"},
        {"llama_tied", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", MEED_UNSUPPORTED,
         "layers.1"},
        {"llama_tied", "\"intermediate_size\": 56", "\"intermediate_size\": 64", MEED_FORMAT,
         "gate_proj"},
        {"llama_tied", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
         MEED_FORMAT, "lm_head"},
        {"llama_gqa", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", MEED_OK,
         ""},
        {"qwen2", "Qwen2ForCausalLM", "LlamaForCausalLM", MEED_UNSUPPORTED, "bias"},
        {"qwen3", "Qwen3ForCausalLM", "LlamaForCausalLM", MEED_UNSUPPORTED, "_norm"},
        {"llama_gqa", "LlamaForCausalLM", "Qwen3ForCausalLM", MEED_FORMAT, "q_norm"},
    };
    char folder[64], path[128];
    make_place(folder, sizeof folder);
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        struct meed_checkpoint *checkpoint = NULL;
        make_folder(folder, cases[i].family, cases[i].from, cases[i].to);
        enum meed_status st = meed_checkpoint_open(folder, &checkpoint);
        if (st != cases[i].status || (st != MEED_OK && !strstr(meed_last_error(), cases[i].word))) {
            fail_msg("%s with %s gave %s: %s", cases[i].family, cases[i].to, meed_status_name(st),
                     meed_last_error());
        }
        meed_checkpoint_close(checkpoint);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    struct meed_checkpoint *none = NULL;
    assert_int_equal(meed_checkpoint_open(folder, &none), MEED_NOT_FOUND);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    assert_int_equal(meed_checkpoint_open(folder, &none), MEED_NOT_FOUND);
    rmdir(folder);
}

/* The hash names the content: equal for a copy elsewhere, different for one changed byte. */
static void checkpoint_hash_names_the_content(void **state)
{
    (void)state;
    char folder[64], path[128];
    struct meed_checkpoint *first = NULL, *copy = NULL, *other = NULL;
    make_place(folder, sizeof folder);
    snprintf(path, sizeof path, "%sllama_tied", golden);
    assert_int_equal(meed_checkpoint_open(path, &first), MEED_OK);
    make_folder(folder, "llama_tied", "\"use_cache\"", "\"use_cache\"");
    assert_int_equal(meed_checkpoint_open(folder, &copy), MEED_OK);
    assert_memory_equal(first->hash, copy->hash, sizeof first->hash);
    make_folder(folder, "llama_tied", "\"use_cache\"", "\"use_cashe\"");
    assert_int_equal(meed_checkpoint_open(folder, &other), MEED_OK);
    assert_memory_not_equal(first->hash, other->hash, sizeof first->hash);
    meed_checkpoint_close(first);
    meed_checkpoint_close(copy);
    meed_checkpoint_close(other);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checkpoint_refuses_weights_of_another_shape),
        cmocka_unit_test(checkpoint_hash_names_the_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
