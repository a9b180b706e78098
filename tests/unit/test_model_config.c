/* config.json: both spellings, and refusal by name of what Meed does not compute.
 *
 * Goal: equal models spelt by transformers 4 and 5 give equal structs; every key that changes the
 * mathematics is refused with a sentence that names it. Method: a base document with single keys
 * replaced or added.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "engine/model_config.h"

static const char base[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":96,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"
    "\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5";

/* base, then extra members. Later keys cannot replace earlier ones: duplicates are refused. */
static enum meed_status parse(const char *extra, struct meed_model_config *config)
{
    char text[2048];
    int size = snprintf(text, sizeof text, "%s%s%s}", base, extra[0] ? "," : "", extra);
    assert_true(size > 0 && (size_t)size < sizeof text);
    return meed_model_config_parse("config.json", text, (size_t)size, config);
}

static void model_config_fills_defaults(void **state)
{
    (void)state;
    struct meed_model_config config;
    assert_int_equal(parse("", &config), MEED_OK);
    assert_int_equal(config.kv_heads, 4);
    assert_int_equal(config.head_dim, 16);
    assert_int_equal(config.rope, MEED_ROPE_DEFAULT);
    assert_true(fabs(config.rope_theta - 10000.0) < 1e-9);
    assert_false(config.tied || config.qkv_bias || config.qk_norm);
    assert_int_equal(config.bos, -1);
    assert_int_equal(config.eos_count, 0);
    assert_int_equal(parse("\"eos_token_id\":[1,2,3],\"bos_token_id\":null", &config), MEED_OK);
    assert_int_equal(config.eos_count, 3);
    assert_int_equal(config.eos[2], 3);
}

static void model_config_reads_both_spellings(void **state)
{
    (void)state;
    struct meed_model_config old, fresh;
    assert_int_equal(parse("\"rope_theta\":5e5,\"torch_dtype\":\"bfloat16\",\"rope_scaling\":{"
                           "\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                           "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":128}",
                           &old),
                     MEED_OK);
    assert_int_equal(parse("\"dtype\":\"bfloat16\",\"rope_parameters\":{\"rope_theta\":5e5,"
                           "\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                           "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":128}",
                           &fresh),
                     MEED_OK);
    assert_memory_equal(&old, &fresh, sizeof old);
    assert_int_equal(fresh.rope_original_positions, 128);
    assert_int_equal(parse("\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", &old), MEED_OK);
    assert_int_equal(old.rope, MEED_ROPE_LINEAR);
    assert_int_equal(parse("\"rope_scaling\":null", &old), MEED_OK);
}

static void model_config_refuses_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *extra;
        enum meed_status status;
        const char *word;
    } cases[] = {
        {"\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}", MEED_UNSUPPORTED, "yarn"},
        {"\"rope_parameters\":{\"rope_type\":\"longrope\"}", MEED_UNSUPPORTED, "longrope"},
        {"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":4}", MEED_FORMAT, "low_freq"},
        {"\"rope_scaling\":{\"rope_type\":\"linear\"}", MEED_FORMAT, "factor"},
        {"\"rope_scaling\":7", MEED_FORMAT, "object"},
        {"\"rope_theta\":-1", MEED_FORMAT, "rope_theta"},
        {"\"partial_rotary_factor\":0.5", MEED_UNSUPPORTED, "partial_rotary"},
        {"\"hidden_act\":\"gelu\"", MEED_UNSUPPORTED, "gelu"},
        {"\"mlp_bias\":true", MEED_UNSUPPORTED, "mlp_bias"},
        {"\"attention_bias\":true", MEED_UNSUPPORTED, "attention_bias"},
        {"\"use_sliding_window\":true,\"sliding_window\":32", MEED_UNSUPPORTED, "sliding_window"},
        {"\"layer_types\":[\"full_attention\",\"sliding_attention\"]", MEED_UNSUPPORTED,
         "sliding_attention"},
        {"\"quantization_config\":{}", MEED_UNSUPPORTED, "quantization_config"},
        {"\"final_logit_softcapping\":30.0", MEED_UNSUPPORTED, "final_logit"},
        {"\"num_key_value_heads\":3", MEED_FORMAT, "share"},
        {"\"head_dim\":7", MEED_UNSUPPORTED, "odd"},
        {"\"tie_word_embeddings\":\"yes\"", MEED_FORMAT, "tie_word"},
        {"\"eos_token_id\":100", MEED_FORMAT, "eos_token_id"},
        {"\"eos_token_id\":[0,1,2,3,4,5,6,7,8]", MEED_LIMIT, "end tokens"},
        {"\"vocab_size\":5", MEED_FORMAT, "duplicate"},
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        struct meed_model_config config = {.hidden = -7};
        enum meed_status st = parse(cases[i].extra, &config);
        if (st != cases[i].status || !strstr(meed_last_error(), cases[i].word) ||
            !strstr(meed_last_error(), "config.json") || config.hidden != -7) {
            fail_msg("%s gave %s: %s", cases[i].extra, meed_status_name(st), meed_last_error());
        }
    }
}

static void expect_text(const char *text, enum meed_status status, const char *word)
{
    struct meed_model_config config;
    assert_int_equal(meed_model_config_parse("c", text, strlen(text), &config), status);
    assert_non_null(strstr(meed_last_error(), word));
}

static void model_config_knows_its_families(void **state)
{
    (void)state;
    expect_text("{\"architectures\":[\"GPT2LMHeadModel\"]}", MEED_UNSUPPORTED, "GPT2LMHeadModel");
    expect_text("{\"model_type\":\"mamba\"}", MEED_UNSUPPORTED, "mamba");
    expect_text("{}", MEED_UNSUPPORTED, "(none)");
    expect_text("[]", MEED_FORMAT, "object");
    expect_text("", MEED_FORMAT, "line");
    expect_text("{\"model_type\":\"llama\"}", MEED_FORMAT, "hidden_size");
    expect_text("{\"model_type\":\"llama\",\"hidden_size\":0}", MEED_FORMAT, "hidden_size");
    /* A Mistral uses its window whenever it has one; a Qwen2 only if asked to. */
    static const char rest[] =
        "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"vocab_size\":100,\"max_position_embeddings\":256,"
        "\"sliding_window\":128}";
    char text[1024];
    struct meed_model_config config;
    snprintf(text, sizeof text, "{\"model_type\":\"mistral\",%s", rest);
    expect_text(text, MEED_UNSUPPORTED, "sliding_window");
    snprintf(text, sizeof text, "{\"model_type\":\"qwen2\",%s", rest);
    assert_int_equal(meed_model_config_parse("c", text, strlen(text), &config), MEED_OK);
    assert_true(config.qkv_bias);
}

/* Positions turn at theta^(-2i/D); linear scaling divides the angle; llama3 leaves fast pairs. */
static void model_config_rope_angles(void **state)
{
    (void)state;
    struct meed_model_config config = {.head_dim = 8, .rope_theta = 100.0, .rope_factor = 4.0};
    float cosines[12], sines[12];
    meed_model_config_rope(&config, 3, cosines, sines);
    for (int pair = 0; pair < 4; pair++) {
        double angle = 2.0 * pow(100.0, -2.0 * pair / 8.0);
        assert_true(fabs((double)cosines[8 + pair] - cos(angle)) < 1e-6);
        assert_true(fabs((double)sines[8 + pair] - sin(angle)) < 1e-6);
        assert_true(fabs((double)cosines[pair] - 1.0) < 1e-9);
    }
    config.rope = MEED_ROPE_LINEAR;
    meed_model_config_rope(&config, 3, cosines, sines);
    assert_true(fabs((double)sines[8] - sin(0.5)) < 1e-6);
    config.rope = MEED_ROPE_LLAMA3;
    config.rope_low_freq = 1.0;
    config.rope_high_freq = 4.0;
    config.rope_original_positions = 64;
    meed_model_config_rope(&config, 3, cosines, sines);
    assert_true(fabs((double)sines[8] - sin(2.0)) < 1e-6); /* fast: unchanged */
    assert_true(fabs((double)sines[11] - sin(2 * pow(100, -0.75) / 4)) < 1e-6); /* slow: divided */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_config_fills_defaults),
        cmocka_unit_test(model_config_reads_both_spellings),
        cmocka_unit_test(model_config_refuses_by_name),
        cmocka_unit_test(model_config_knows_its_families),
        cmocka_unit_test(model_config_rope_angles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
