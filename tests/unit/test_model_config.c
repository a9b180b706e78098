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
        {"\"layer_types\":[\"full_attention\",\"sliding_attention\"]", MEED_FORMAT,
         "sliding_attention"},
        {"\"layer_types\":[\"full_attention\",\"linear_attention\"]", MEED_UNSUPPORTED,
         "linear_attention"},
        {"\"layer_types\":[\"full_attention\"]", MEED_FORMAT, "layer_types"},
        {"\"query_pre_attn_scalar\":64", MEED_UNSUPPORTED, "query_pre_attn_scalar"},
        {"\"use_bidirectional_attention\":true", MEED_UNSUPPORTED, "bidirectional"},
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
}

static void parse_text(const char *text, struct meed_model_config *config)
{
    if (meed_model_config_parse("c", text, strlen(text), config) != MEED_OK) {
        fail_msg("%s", meed_last_error());
    }
}

/* A Mistral uses its window whenever it has one; a Qwen2 only if asked to, in its upper layers. */
static void model_config_finds_windows(void **state)
{
    (void)state;
    static const char rest[] =
        "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"vocab_size\":100,\"max_position_embeddings\":256,"
        "\"sliding_window\":128}";
    char text[1024];
    struct meed_model_config config;
    snprintf(text, sizeof text, "{\"model_type\":\"mistral\",%s", rest);
    parse_text(text, &config);
    assert_int_equal(config.window, 128);
    assert_true(meed_model_config_windowed(&config, 0) && meed_model_config_windowed(&config, 1));
    snprintf(text, sizeof text, "{\"model_type\":\"mistral\",\"use_sliding_window\":false,%s",
             rest);
    parse_text(text, &config);
    assert_false(meed_model_config_windowed(&config, 0));
    snprintf(text, sizeof text, "{\"model_type\":\"qwen2\",%s", rest);
    parse_text(text, &config);
    assert_true(config.qkv_bias);
    assert_false(meed_model_config_windowed(&config, 1));
    snprintf(text, sizeof text,
             "{\"model_type\":\"qwen3\",\"use_sliding_window\":true,\"max_window_layers\":1,%s",
             rest);
    parse_text(text, &config);
    assert_false(meed_model_config_windowed(&config, 0));
    assert_true(meed_model_config_windowed(&config, 1));
}

/* Gemma 3 as transformers 4 and 5 write it, and with what the files leave out. */
static void model_config_reads_gemma(void **state)
{
    (void)state;
    static const char rest[] =
        "\"architectures\":[\"Gemma3ForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":96,"
        "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":1,"
        "\"vocab_size\":100,\"max_position_embeddings\":256,\"attn_logit_softcapping\":null";
    char text[1024];
    struct meed_model_config old, fresh, bare;
    snprintf(text, sizeof text,
             "{%s,\"sliding_window\":9,\"sliding_window_pattern\":3,\"rope_theta\":5e5,"
             "\"rope_local_base_freq\":2e4,\"query_pre_attn_scalar\":64,"
             "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8.0}}",
             rest);
    parse_text(text, &old);
    snprintf(text, sizeof text,
             "{%s,\"sliding_window\":9,\"layer_types\":[\"sliding_attention\","
             "\"sliding_attention\",\"full_attention\"],\"query_pre_attn_scalar\":64,"
             "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8.0,"
             "\"rope_theta\":5e5},\"sliding_attention\":{\"rope_type\":\"default\","
             "\"rope_theta\":2e4}}}",
             rest);
    parse_text(text, &fresh);
    assert_memory_equal(&old, &fresh, sizeof old);
    assert_int_equal(old.window_layers[0], 3);
    assert_int_equal(old.window, 9);
    assert_true(fabs((double)old.attention_scale - 0.125) < 1e-9);
    snprintf(text, sizeof text, "{%s}", rest);
    parse_text(text, &bare);
    assert_true(bare.tied && bare.qk_norm && bare.out_norms && bare.norm_plus_one);
    assert_int_equal(bare.glu, MEED_GLU_GELU_TANH);
    assert_int_equal(bare.head_dim, 256);
    assert_int_equal(bare.window_layers[0], 7);
    assert_true(fabs(bare.rope_theta - 1e6) < 1 && fabs(bare.rope_local_theta - 1e4) < 1);
    float local[12 * 256], others[12 * 256], sines[12 * 256];
    meed_model_config_rope(&fresh, true, 3, local, sines);
    meed_model_config_rope(&fresh, false, 3, others, sines);
    double angle = pow(2e4, -2.0 / 256);
    assert_true(fabs((double)local[128 + 1] - cos(angle)) < 1e-6);
    assert_true(fabs((double)others[128 + 1] - cos(pow(5e5, -2.0 / 256) / 8)) < 1e-6);
    snprintf(text, sizeof text, "{%s,\"final_logit_softcapping\":30.0}", rest);
    expect_text(text, MEED_UNSUPPORTED, "final_logit_softcapping");
    snprintf(text, sizeof text, "{%s,\"hidden_activation\":\"relu\"}", rest);
    expect_text(text, MEED_UNSUPPORTED, "hidden_activation");
    snprintf(text, sizeof text,
             "{%s,\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"yarn\"}}}", rest);
    expect_text(text, MEED_UNSUPPORTED, "sliding_attention");
}

/* Positions turn at theta^(-2i/D); linear scaling divides the angle; llama3 leaves fast pairs. */
static void model_config_rope_angles(void **state)
{
    (void)state;
    struct meed_model_config config = {.head_dim = 8, .rope_theta = 100.0, .rope_factor = 4.0};
    float cosines[12], sines[12];
    meed_model_config_rope(&config, false, 3, cosines, sines);
    for (int pair = 0; pair < 4; pair++) {
        double angle = 2.0 * pow(100.0, -2.0 * pair / 8.0);
        assert_true(fabs((double)cosines[8 + pair] - cos(angle)) < 1e-6);
        assert_true(fabs((double)sines[8 + pair] - sin(angle)) < 1e-6);
        assert_true(fabs((double)cosines[pair] - 1.0) < 1e-9);
    }
    config.rope = MEED_ROPE_LINEAR;
    meed_model_config_rope(&config, false, 3, cosines, sines);
    assert_true(fabs((double)sines[8] - sin(0.5)) < 1e-6);
    config.rope = MEED_ROPE_LLAMA3;
    config.rope_low_freq = 1.0;
    config.rope_high_freq = 4.0;
    config.rope_original_positions = 64;
    meed_model_config_rope(&config, false, 3, cosines, sines);
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
        cmocka_unit_test(model_config_finds_windows),
        cmocka_unit_test(model_config_reads_gemma),
        cmocka_unit_test(model_config_rope_angles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
