/* The parameter table: shapes and names of every tensor, without gaps, and words for projections.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "engine/param.h"

static void param_table_covers_the_model(void **state)
{
    (void)state;
    struct meed_model_config config = {
        .hidden = 8, .ffn = 12, .layers = 3, .heads = 4, .kv_heads = 2, .head_dim = 6, .vocab = 10};
    int64_t present_count = 0, idx = 0;
    struct meed_param param;
    bool present = false;
    for (; meed_param_walk(&config, idx, &present, &param); idx++) {
        present_count += present;
    }
    assert_int_equal(present_count, 3 + 3 * (2 + 7)); /* embed, head, norm; two norms, 7 weights */
    assert_true(meed_param_describe(&config, MEED_PARAM_WEIGHT, 2, MEED_PROJ_O, &param));
    assert_string_equal(param.name, "model.layers.2.self_attn.o_proj.weight");
    assert_int_equal(param.shape[0], 8);
    assert_int_equal(param.shape[1], 24);
    assert_false(meed_param_describe(&config, MEED_PARAM_BIAS, 0, MEED_PROJ_Q, &param));
    config.qkv_bias = true;
    assert_true(meed_param_describe(&config, MEED_PARAM_BIAS, 0, MEED_PROJ_K, &param));
    assert_int_equal(param.shape[0], 12);
    assert_false(meed_param_describe(&config, MEED_PARAM_BIAS, 0, MEED_PROJ_O, &param));
    assert_int_equal(meed_group_outputs(&config, MEED_GROUP_QKV), 48);
    assert_int_equal(meed_proj_row_begin(&config, MEED_PROJ_V), 36);
    assert_int_equal(meed_proj_row_begin(&config, MEED_PROJ_UP), 12);
}

static void param_sets_parse(void **state)
{
    (void)state;
    meed_proj_set set = 0;
    assert_int_equal(meed_proj_set_parse("q_proj,v_proj", &set), MEED_OK);
    assert_int_equal(set, 1u << MEED_PROJ_Q | 1u << MEED_PROJ_V);
    assert_int_equal(meed_proj_set_parse("attention,mlp", &set), MEED_OK);
    assert_int_equal(set, MEED_PROJ_ALL);
    static const char *const wrong[] = {"", "q_proj,", ",q_proj", "q", "q_proj v_proj", "lm_head"};
    for (size_t i = 0; i < MEED_COUNT(wrong); i++) {
        assert_int_equal(meed_proj_set_parse(wrong[i], &set), MEED_ARG);
    }
    assert_non_null(strstr(meed_last_error(), "lm_head"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(param_table_covers_the_model),
        cmocka_unit_test(param_sets_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
