/* Adapters: memory, PEFT folders in and out, packed bytes, and everything that must be refused. A
 * toy configuration stands in for a model, since an adapter only asks it for shapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "engine/adapter.h"
#include "engine/safetensors.h"

static struct meed_model_config toy_model(void)
{
    struct meed_model_config model = {.hidden = 24,
                                      .ffn = 40,
                                      .layers = 3,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .head_dim = 6,
                                      .vocab = 50};
    return model;
}

static struct meed_adapter *toy_adapter(meed_proj_set targets, bool rslora)
{
    struct meed_model_config model = toy_model();
    struct meed_lora_config lora = {
        .rank = 4, .alpha = 10.0f, .rslora = rslora, .dropout = 0.05f, .targets = targets};
    struct meed_adapter *adapter = NULL;
    assert_int_equal(meed_adapter_create(&model, &lora, &adapter), MEED_OK);
    meed_adapter_init(adapter, 7);
    for (int32_t i = 0; i < adapter->module_count; i++) {
        struct meed_adapter_module *module = &adapter->modules[i];
        for (int64_t j = 0; j < module->n * module->r; j++) {
            module->b[j] = (float)(i + 1) * 0.01f - (float)j * 0.003f;
        }
    }
    return adapter;
}

static void temporary_folder(char folder[128])
{
    snprintf(folder, 128, "/tmp/meed-adapter-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[256];
    assert_int_equal(meed_file_join(folder, name, path, sizeof path), MEED_OK);
    assert_int_equal(meed_file_write_atomic(path, text, strlen(text)), MEED_OK);
}

/* Goal: initial values follow PEFT's bound and do not depend on which other modules are adapted. */
static void adapter_init_is_per_module(void **state)
{
    (void)state;
    struct meed_model_config model = toy_model();
    struct meed_lora_config lora = {.rank = 4, .alpha = 8.0f, .targets = MEED_PROJ_ALL};
    struct meed_adapter *all = NULL, *some = NULL;
    assert_int_equal(meed_adapter_create(&model, &lora, &all), MEED_OK);
    lora.targets = 1u << MEED_PROJ_V | 1u << MEED_PROJ_DOWN;
    assert_int_equal(meed_adapter_create(&model, &lora, &some), MEED_OK);
    meed_adapter_init(all, 3);
    meed_adapter_init(some, 3);
    for (int32_t i = 0; i < some->module_count; i++) {
        const struct meed_adapter_module *p = &some->modules[i];
        const struct meed_adapter_module *q = meed_adapter_find(all, p->layer, p->proj);
        assert_non_null(q);
        assert_memory_equal(p->a, q->a, (size_t)(p->r * p->k) * sizeof(float));
        for (int64_t j = 0; j < p->r * p->k; j++) {
            assert_true((double)(p->a[j] * p->a[j]) * (double)p->k <= 1.0000001);
        }
        for (int64_t j = 0; j < p->n * p->r; j++) {
            assert_true(p->b[j] == 0.0f);
        }
    }
    assert_null(meed_adapter_find(some, 0, MEED_PROJ_Q));
    meed_adapter_destroy(all);
    meed_adapter_destroy(some);
}

static void check_round_trip(struct meed_adapter *adapter)
{
    struct meed_model_config model = toy_model();
    struct meed_adapter *loaded = NULL, *unpacked = NULL;
    struct meed_buf packed, again;
    char folder[128];
    temporary_folder(folder);
    assert_int_equal(meed_adapter_save(adapter, "base/model", folder), MEED_OK);
    assert_int_equal(meed_adapter_load(folder, &model, &loaded), MEED_OK);
    assert_true(meed_adapter_equal(adapter, loaded));
    assert_int_equal(adapter->lora.rslora, loaded->lora.rslora);
    assert_true(adapter->lora.dropout == loaded->lora.dropout);
    meed_buf_init(&packed, 1 << 24);
    meed_buf_init(&again, 1 << 24);
    assert_int_equal(meed_adapter_pack(adapter, &packed), MEED_OK);
    assert_int_equal(meed_adapter_pack(loaded, &again), MEED_OK);
    assert_int_equal(packed.size, again.size);
    assert_memory_equal(packed.data, again.data, packed.size);
    assert_int_equal(meed_adapter_unpack("test", packed.data, packed.size, &model, &unpacked),
                     MEED_OK);
    assert_true(meed_adapter_equal(adapter, unpacked));
    meed_adapter_destroy(loaded);
    meed_adapter_destroy(unpacked);
    meed_buf_clear(&packed);
    meed_buf_clear(&again);
}

/* Goal: save → load and pack → unpack give the same bits, for every kind of shape. */
static void adapter_round_trips(void **state)
{
    (void)state;
    struct meed_adapter *adapter = toy_adapter(MEED_PROJ_ALL, false);
    check_round_trip(adapter);
    meed_adapter_destroy(adapter);
    adapter = toy_adapter(1u << MEED_PROJ_Q | 1u << MEED_PROJ_UP, true);
    check_round_trip(adapter);
    meed_adapter_destroy(adapter);
}

/* Goal: different ranks and scales a module survive in rank_pattern and alpha_pattern. */
static void adapter_round_trips_mixed_ranks(void **state)
{
    (void)state;
    struct meed_adapter *like = toy_adapter(1u << MEED_PROJ_Q | 1u << MEED_PROJ_DOWN, false);
    struct meed_adapter *mixed = NULL;
    const int64_t ranks[] = {4, 1, 7, 3, 4, 9};
    assert_int_equal(meed_adapter_create_like(like, ranks, &mixed), MEED_OK);
    for (int32_t i = 0; i < mixed->module_count; i++) {
        struct meed_adapter_module *module = &mixed->modules[i];
        module->scale = i == 2 ? 1.0f : 0.3f + (float)i / 7.0f;
        for (int64_t j = 0; j < module->r * (module->k + module->n); j++) {
            module->a[j] = (float)(j % 13) - 6.0f;
        }
    }
    assert_int_equal(mixed->lora.rank, 9);
    check_round_trip(mixed);
    meed_adapter_destroy(like);
    meed_adapter_destroy(mixed);
}

/* Goal: the configuration is what PEFT writes: sorted keys, indent 2, plain numbers. */
static void adapter_config_is_pefts(void **state)
{
    (void)state;
    struct meed_adapter *adapter = toy_adapter(1u << MEED_PROJ_V | 1u << MEED_PROJ_Q, false);
    struct meed_buf text;
    meed_buf_init(&text, 1 << 20);
    assert_int_equal(meed_adapter_config_json(adapter, "base/model", &text), MEED_OK);
    static const char *const lines[] = {
        "{\n  \"alpha_pattern\": {},\n",
        "\"base_model_name_or_path\": \"base/model\",\n  \"bias\": \"none\",\n",
        "\"lora_alpha\": 10,\n  \"lora_dropout\": 0.05,\n",
        "\"r\": 4,\n  \"rank_pattern\": {},\n",
        "\"target_modules\": [\n    \"q_proj\",\n    \"v_proj\"\n  ],\n",
        "\"use_dora\": false,\n  \"use_rslora\": false\n}",
    };
    for (size_t i = 0; i < MEED_COUNT(lines); i++) {
        assert_non_null(strstr(text.data, lines[i]));
    }
    meed_buf_clear(&text);
    meed_adapter_destroy(adapter);
}

/* Goal: flat order is module by module, A then B; adding zeros changes no bit, not even of −0. */
static void adapter_flat_order(void **state)
{
    (void)state;
    struct meed_adapter *adapter = toy_adapter(MEED_PROJ_ALL, false), *copy = NULL;
    int64_t count = meed_adapter_value_count(adapter);
    float *flat = calloc((size_t)count, sizeof *flat);
    assert_non_null(flat);
    adapter->modules[0].a[1] = -0.0f;
    assert_int_equal(meed_adapter_clone(adapter, &copy), MEED_OK);
    meed_adapter_add_flat(copy, flat);
    assert_true(meed_adapter_equal(adapter, copy));
    meed_adapter_to_flat(adapter, flat);
    int64_t first = adapter->modules[0].r * adapter->modules[0].k;
    assert_true(flat[first] == adapter->modules[0].b[0]);
    flat[first] += 1.0f;
    meed_adapter_from_flat(copy, flat);
    assert_true(copy->modules[0].b[0] == adapter->modules[0].b[0] + 1.0f);
    assert_false(meed_adapter_equal(adapter, copy));
    char name[MEED_ADAPTER_NAME_BYTES];
    meed_adapter_tensor_name(&adapter->modules[11], 'B', name);
    assert_string_equal(name, "layers.1.gate.B");
    free(flat);
    meed_adapter_destroy(adapter);
    meed_adapter_destroy(copy);
}

static enum meed_status load_with_config(const char *folder, const char *config)
{
    struct meed_model_config model = toy_model();
    struct meed_adapter *loaded = NULL;
    write_text(folder, "adapter_config.json", config);
    enum meed_status st = meed_adapter_load(folder, &model, &loaded);
    meed_adapter_destroy(loaded);
    return st;
}

/* Goal: what would change the mathematics is refused by name; what does not is ignored. */
static void adapter_load_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *extra;
        enum meed_status status;
        const char *says;
    } rows[] = {
        {"\"use_dora\": true", MEED_UNSUPPORTED, "use_dora"},
        {"\"modules_to_save\": [\"lm_head\"]", MEED_UNSUPPORTED, "modules_to_save"},
        {"\"bias\": \"all\"", MEED_UNSUPPORTED, "bias"},
        {"\"trainable_token_indices\": [1]", MEED_UNSUPPORTED, "trainable_token_indices"},
        {"\"init_lora_weights\": \"pissa_niter_4\"", MEED_UNSUPPORTED, "pissa"},
        {"\"rank_pattern\": {\"q_proj|v_proj\": 8}", MEED_UNSUPPORTED, "regular"},
        {"\"rank_pattern\": {\"layers.1.self_attn.q_proj\": 8}", MEED_FORMAT, "layers.1"},
        {"\"alpha_pattern\": {\"q_proj\": -1}", MEED_FORMAT, "positive"},
        {"\"r\": 5", MEED_FORMAT, "duplicate"},
        {"\"use_dora\": false, \"modules_to_save\": null, \"loftq_config\": {}, \"revision\": "
         "\"main\", \"init_lora_weights\": \"gaussian\"",
         MEED_OK, ""},
    };
    char folder[128], config[512];
    temporary_folder(folder);
    struct meed_adapter *adapter = toy_adapter(1u << MEED_PROJ_Q, false);
    assert_int_equal(meed_adapter_save(adapter, NULL, folder), MEED_OK);
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        snprintf(config, sizeof config,
                 "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 10, %s}", rows[i].extra);
        assert_int_equal(load_with_config(folder, config), rows[i].status);
        if (rows[i].status != MEED_OK) {
            assert_non_null(strstr(meed_last_error(), rows[i].says));
        }
    }
    assert_int_equal(load_with_config(folder, "{\"peft_type\": \"LORA\""), MEED_FORMAT);
    assert_int_equal(load_with_config(folder, "{\"peft_type\": \"IA3\"}"), MEED_UNSUPPORTED);
    assert_int_equal(load_with_config(folder, "[]"), MEED_FORMAT);
    meed_adapter_destroy(adapter);
}

/* Goal: alpha_pattern's short keys act as in PEFT: on every module whose name ends in them. */
static void adapter_load_reads_alpha_pattern(void **state)
{
    (void)state;
    char folder[128];
    struct meed_model_config model = toy_model();
    struct meed_adapter *loaded = NULL;
    temporary_folder(folder);
    struct meed_adapter *adapter = toy_adapter(1u << MEED_PROJ_Q | 1u << MEED_PROJ_K, false);
    assert_int_equal(meed_adapter_save(adapter, NULL, folder), MEED_OK);
    write_text(folder, "adapter_config.json",
               "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 10, \"alpha_pattern\": "
               "{\"^model.layers.2.self_attn.q_proj\": 6, \"q_proj\": 2}}");
    assert_int_equal(meed_adapter_load(folder, &model, &loaded), MEED_OK);
    assert_true(meed_adapter_find(loaded, 0, MEED_PROJ_Q)->scale == 0.5f);
    assert_true(meed_adapter_find(loaded, 2, MEED_PROJ_Q)->scale == 1.5f);
    assert_true(meed_adapter_find(loaded, 2, MEED_PROJ_K)->scale == 2.5f);
    meed_adapter_destroy(adapter);
    meed_adapter_destroy(loaded);
}

/* Goal: tensors of another model, foreign tensors and non-finite values are named. */
static void adapter_load_refuses_tensors(void **state)
{
    (void)state;
    char folder[128];
    struct meed_model_config model = toy_model();
    struct meed_adapter *loaded = NULL;
    temporary_folder(folder);
    struct meed_adapter *adapter = toy_adapter(MEED_PROJ_ALL, false);
    assert_int_equal(meed_adapter_save(adapter, NULL, folder), MEED_OK);
    model.hidden = 32;
    assert_int_equal(meed_adapter_load(folder, &model, &loaded), MEED_FORMAT);
    assert_non_null(strstr(meed_last_error(), "layers.0"));
    model = toy_model();
    model.layers = 2;
    assert_int_equal(meed_adapter_load(folder, &model, &loaded), MEED_UNSUPPORTED);
    assert_non_null(strstr(meed_last_error(), "layers.2"));
    model = toy_model();
    adapter->modules[4].a[2] = (float)(1e38 * 10.0);
    assert_int_equal(meed_adapter_save(adapter, NULL, folder), MEED_OK);
    assert_int_equal(meed_adapter_load(folder, &model, &loaded), MEED_NUMERIC);
    meed_adapter_destroy(adapter);
}

/* Goal: one adapter has one spelling. A changed byte of frame or header is refused, or it makes
 * another adapter (another alpha, say) whose own packing is exactly those bytes; no cut passes. */
static void adapter_unpack_accepts_one_spelling(void **state)
{
    (void)state;
    struct meed_model_config model = toy_model();
    struct meed_adapter *adapter = toy_adapter(1u << MEED_PROJ_O, false), *got = NULL;
    struct meed_buf packed, again;
    int accepted = 0;
    meed_buf_init(&packed, 1 << 24);
    meed_buf_init(&again, 1 << 24);
    assert_int_equal(meed_adapter_pack(adapter, &packed), MEED_OK);
    size_t values = (size_t)meed_adapter_value_count(adapter) * sizeof(float);
    for (size_t i = 0; i < packed.size - values; i++) {
        packed.data[i] ^= 1;
        if (meed_adapter_unpack("test", packed.data, packed.size, &model, &got) == MEED_OK) {
            meed_buf_reset(&again);
            assert_int_equal(meed_adapter_pack(got, &again), MEED_OK);
            assert_int_equal(again.size, packed.size);
            assert_memory_equal(again.data, packed.data, packed.size);
            meed_adapter_destroy(got);
            accepted++;
        }
        packed.data[i] ^= 1;
    }
    assert_true(accepted < 8); /* digits of lora_alpha and lora_dropout */
    for (size_t size = 0; size < packed.size; size += 1 + size / 8) {
        assert_int_not_equal(meed_adapter_unpack("test", packed.data, size, &model, &got), MEED_OK);
    }
    meed_buf_clear(&packed);
    meed_buf_clear(&again);
    meed_adapter_destroy(adapter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapter_init_is_per_module),
        cmocka_unit_test(adapter_round_trips),
        cmocka_unit_test(adapter_round_trips_mixed_ranks),
        cmocka_unit_test(adapter_config_is_pefts),
        cmocka_unit_test(adapter_flat_order),
        cmocka_unit_test(adapter_load_refuses),
        cmocka_unit_test(adapter_load_reads_alpha_pattern),
        cmocka_unit_test(adapter_load_refuses_tensors),
        cmocka_unit_test(adapter_unpack_accepts_one_spelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
