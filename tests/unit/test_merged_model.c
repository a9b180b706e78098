/* Merged models: base and adapters as one folder.
 *
 * Goal: the folder loads, answers as base and adapter do, holds in every weight the number nearest
 * to W + Σ s·B·A, and leaves alone what no adapter touches. Method: the golden models (every
 * family, shards too) against PEFT's logits, and weight by weight against sums taken here in
 * float64; two adapters on examples/tiny; rounding against every half-precision number and the ties
 * between them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "engine/merged_model.h"
#include "tests/support/command.h"
#include "tests/support/small_net.h"

static char scratch[SCRATCH_BYTES];
static char out[SCRATCH_BYTES + 16];
static struct small_machine machine;

static int set_up(void **state)
{
    (void)state;
    scratch_make(scratch);
    snprintf(out, sizeof out, "%s/merged", scratch);
    small_machine_open(2, &machine);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    small_machine_close(&machine);
    scratch_remove(scratch);
    return 0;
}

/* The same model with every tensor as F32, of which BF16 is a part: the golden logits stay true. */
static void widen(const struct golden *golden, const char *folder)
{
    const struct meed_safetensors *weights = golden->checkpoint->weights;
    int64_t count = meed_safetensors_count(weights);
    struct meed_tensor *tensors = meed_heap_alloc((size_t)count, sizeof *tensors);
    struct meed_buf file;
    char from[MEED_PATH_BYTES], to[MEED_PATH_BYTES];
    meed_buf_init(&file, 1 << 24);
    golden_ok(meed_file_make_folder(folder));
    golden_ok(meed_file_join(golden->folder, "config.json", from, sizeof from));
    golden_ok(meed_file_join(folder, "config.json", to, sizeof to));
    golden_ok(meed_file_read(from, &file));
    golden_ok(meed_file_write_atomic(to, file.data, file.size));
    meed_buf_reset(&file);
    for (int64_t i = 0; i < count; i++) {
        tensors[i] = *meed_safetensors_at(weights, i);
        float *values = meed_heap_alloc((size_t)tensors[i].count, sizeof *values);
        golden_ok(meed_tensor_to_f32(&tensors[i], values));
        tensors[i].bytes = values;
        tensors[i].dtype = MEED_TENSOR_F32;
        tensors[i].size = (size_t)tensors[i].count * sizeof *values;
    }
    golden_ok(meed_safetensors_write(tensors, count, &file));
    golden_ok(meed_file_join(folder, "model.safetensors", to, sizeof to));
    golden_ok(meed_file_write_atomic(to, file.data, file.size));
    for (int64_t i = 0; i < count; i++) {
        meed_heap_free((void *)(uintptr_t)tensors[i].bytes);
    }
    meed_buf_clear(&file);
    meed_heap_free(tensors);
}

/* Logits of the merged folder on the golden batch, fp32, against a golden tensor. */
static double distance(const struct golden *golden, const char *tensor)
{
    struct golden merged = *golden;
    int64_t count = 0;
    float *want = golden_tensor(golden, tensor, &count);
    float *got = meed_heap_alloc((size_t)count, sizeof *got);
    golden_ok(meed_checkpoint_open(out, &merged.checkpoint));
    struct meed_net *net = small_net(&machine, &merged, MEED_DTYPE_F32, false, NULL, 0);
    golden_ok(meed_net_logits(net, golden->batch, got));
    double worst = golden_worst(got, want, count);
    meed_net_destroy(net);
    meed_checkpoint_close(merged.checkpoint);
    meed_heap_free(got);
    golden_free(want);
    return worst;
}

/* W + Σ s·B·A at one place, by its definition. */
static double weight_at(const struct meed_tensor *w, const struct meed_adapter_module *const *parts,
                        int count, int64_t n, int64_t k)
{
    uint16_t bits;
    memcpy(&bits, (const char *)w->bytes + 2 * (n * w->shape[1] + k), sizeof bits);
    double sum = (double)meed_bf16_to_f32(bits);
    for (int i = 0; i < count; i++) {
        for (int64_t j = 0; j < parts[i]->r; j++) {
            sum += (double)parts[i]->scale * (double)parts[i]->b[n * parts[i]->r + j] *
                   (double)parts[i]->a[j * parts[i]->k + k];
        }
    }
    return sum;
}

/* Nearest: no farther from the exact sum than half the gap to either neighbour, with a gap of 2^-7
 * in [1, 2). 1e-9 of it is room for the order of the float64 sums. */
static void check_nearest(const struct meed_tensor *before, const struct meed_tensor *after,
                          const struct meed_adapter_module *const *parts, int count)
{
    int64_t moved = 0;
    for (int64_t n = 0; n < after->shape[0]; n++) {
        for (int64_t k = 0; k < after->shape[1]; k++) {
            uint16_t bits, old;
            int64_t at = n * after->shape[1] + k;
            memcpy(&bits, (const char *)after->bytes + 2 * at, sizeof bits);
            memcpy(&old, (const char *)before->bytes + 2 * at, sizeof old);
            moved += bits != old;
            double exact = weight_at(before, parts, count, n, k);
            double off = fabs((double)meed_bf16_to_f32(bits) - exact);
            int exponent = 0;
            frexp(exact, &exponent);
            if (off > ldexp(1.0 + 1e-9, exponent - 9)) {
                fail_msg("%s [%lld, %lld] is %g off", after->name, (long long)n, (long long)k, off);
            }
        }
    }
    assert_true(moved > after->count / 2);
}

static struct meed_adapter *random_adapter(const struct meed_checkpoint *checkpoint,
                                           const char *targets, int32_t rank, uint64_t seed)
{
    struct meed_lora_config lora = {.rank = rank, .alpha = 2.0f * (float)rank};
    struct meed_adapter *adapter = NULL;
    golden_ok(meed_proj_set_parse(targets, &lora.targets));
    golden_ok(meed_adapter_create(&checkpoint->config, &lora, &adapter));
    meed_adapter_init(adapter, seed);
    for (int32_t i = 0; i < adapter->module_count; i++) {
        struct meed_adapter_module *m = &adapter->modules[i];
        for (int64_t j = 0; j < m->n * m->r; j++) {
            m->b[j] = 0.5f * m->a[(j * 7 + i) % (m->r * m->k)];
        }
    }
    return adapter;
}

static void check_tensor(const struct meed_checkpoint *base, const struct meed_checkpoint *merged,
                         const struct meed_adapter *const *adapters, int adapter_count, int64_t idx)
{
    struct meed_param param;
    const struct meed_tensor *before = meed_safetensors_at(base->weights, idx);
    const struct meed_tensor *after = meed_safetensors_find(merged->weights, before->name);
    assert_non_null(after);
    assert_int_equal(after->dtype, before->dtype);
    assert_int_equal(after->size, before->size);
    for (int32_t layer = 0; layer < base->config.layers; layer++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            const struct meed_adapter_module *parts[2];
            int count = 0;
            for (int i = 0; i < adapter_count; i++) {
                parts[count] = meed_adapter_find(adapters[i], layer, (enum meed_proj)proj);
                count += parts[count] != NULL;
            }
            assert_true(meed_param_describe(&base->config, MEED_PARAM_WEIGHT, layer,
                                            (enum meed_proj)proj, &param));
            if (count > 0 && strcmp(param.name, before->name) == 0) {
                check_nearest(before, after, parts, count);
                return;
            }
        }
    }
    assert_memory_equal(after->bytes, before->bytes, before->size);
}

/* The merged folder against its base, tensor by tensor. */
static void check_weights(const struct meed_checkpoint *base,
                          const struct meed_adapter *const *adapters, int adapter_count)
{
    struct meed_checkpoint *merged = NULL;
    int64_t count = meed_safetensors_count(base->weights);
    golden_ok(meed_checkpoint_open(out, &merged));
    assert_int_equal(meed_safetensors_count(merged->weights), count);
    for (int64_t i = 0; i < count; i++) {
        check_tensor(base, merged, adapters, adapter_count, i);
    }
    meed_checkpoint_close(merged);
}

/* F32: the bound that base + adapter have in golden.models. BF16 has none to give for logits, so
 * there each weight is held to the nearest number, which no rounding can better, and the logits to
 * being nearer to PEFT's than to the base's by far. */
static void merged_model_has_the_logits_of_base_and_adapter(void **state)
{
    (void)state;
    char wide[SCRATCH_BYTES + 16];
    snprintf(wide, sizeof wide, "%s/wide", scratch);
    for (int i = 0; i < golden_family_count; i++) {
        struct golden golden;
        struct meed_checkpoint *single = NULL;
        golden_open(MEED_SOURCE_DIR, golden_families[i], &golden);
        const struct meed_adapter *adapters[] = {golden.adapter};
        widen(&golden, wide);
        golden_ok(meed_checkpoint_open(wide, &single));
        golden_ok(meed_merged_model_write(single, adapters, 1, out));
        double exact = distance(&golden, "peft.logits");
        scratch_remove(out);
        golden_ok(meed_merged_model_write(golden.checkpoint, adapters, 1, out));
        double rounded = distance(&golden, "peft.logits");
        double base = distance(&golden, "base.logits");
        check_weights(golden.checkpoint, adapters, 1);
        scratch_remove(out);
        print_message("  %-13s F32 %.2e, BF16 %.2e off PEFT; off the base %.2e\n", golden.family,
                      exact, rounded, base);
        assert_true(exact <= 1e-5);
        assert_true(rounded < 0.1 * base);
        scratch_remove(wide);
        meed_checkpoint_close(single);
        golden_close(&golden);
    }
}

static void merged_model_rounds_the_sum_of_all_adapters_once(void **state)
{
    (void)state;
    struct meed_checkpoint *base = NULL;
    golden_ok(meed_checkpoint_open(MEED_SOURCE_DIR "/examples/tiny/model", &base));
    struct meed_adapter *first = random_adapter(base, "attention", 4, 1);
    struct meed_adapter *second = random_adapter(base, "q_proj,down_proj", 8, 2);
    const struct meed_adapter *adapters[] = {first, second};
    golden_ok(meed_merged_model_write(base, adapters, 2, out));
    check_weights(base, adapters, 2);
    assert_int_equal(meed_merged_model_write(base, adapters, 2, out), MEED_STATE);
    scratch_remove(out);
    meed_adapter_destroy(first);
    meed_adapter_destroy(second);
    meed_checkpoint_close(base);
}

/* An adapter of zeros gives the checkpoint's bytes back, tensor by tensor: rounding is exact where
 * nothing is added. */
static void merged_model_of_a_zero_adapter_is_the_base(void **state)
{
    (void)state;
    struct meed_checkpoint *base = NULL, *merged = NULL;
    golden_ok(meed_checkpoint_open(MEED_SOURCE_DIR "/examples/tiny/model", &base));
    struct meed_lora_config lora = {.rank = 2, .alpha = 4, .targets = MEED_PROJ_ALL};
    struct meed_adapter *zero = NULL;
    golden_ok(meed_adapter_create(&base->config, &lora, &zero));
    const struct meed_adapter *adapters[] = {zero};
    golden_ok(meed_merged_model_write(base, adapters, 1, out));
    golden_ok(meed_checkpoint_open(out, &merged));
    for (int64_t i = 0; i < meed_safetensors_count(base->weights); i++) {
        const struct meed_tensor *before = meed_safetensors_at(base->weights, i);
        const struct meed_tensor *after = meed_safetensors_find(merged->weights, before->name);
        assert_non_null(after);
        assert_memory_equal(after->bytes, before->bytes, before->size);
    }
    zero->modules[3].b[0] = 3e38f; /* times s = 2 and A: beyond bf16 */
    zero->modules[3].a[0] = 3e38f;
    scratch_remove(out);
    assert_int_equal(meed_merged_model_write(base, adapters, 1, out), MEED_NUMERIC);
    assert_non_null(strstr(meed_last_error(), ".weight"));
    assert_false(meed_file_exists(out));
    meed_adapter_destroy(zero);
    meed_checkpoint_close(merged);
    meed_checkpoint_close(base);
}

static void merged_model_rounds_to_halves(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x7C00; bits++) {
        uint16_t pair[2] = {(uint16_t)bits, (uint16_t)(bits + 1)}, got[4];
        struct meed_tensor halves = {
            .name = "h", .dtype = MEED_TENSOR_F16, .count = 2, .bytes = pair, .size = 4};
        float wide[2];
        golden_ok(meed_tensor_to_f32(&halves, wide));
        double x = (double)wide[0], y = bits == 0x7BFF ? 65536.0 : (double)wide[1];
        double between[4] = {x, -x, (x + y) / 2, (x + y) / 2 - (y - x) * 1e-6};
        bool ends = bits == 0x7BFF;
        if (ends) {
            assert_false(meed_tensor_round(&between[2], 1, MEED_TENSOR_F16, got));
            between[2] = x;
        }
        assert_true(meed_tensor_round(between, 4, MEED_TENSOR_F16, got));
        assert_int_equal(got[0], bits);
        assert_int_equal(got[1], bits | 0x8000u);
        assert_int_equal(got[2], ends || bits % 2 == 0 ? bits : bits + 1); /* ties to even */
        assert_int_equal(got[3], bits);
    }
    const double never[] = {(double)NAN, (double)INFINITY, 1e39, 3.4e38};
    uint16_t got[1];
    float single[1];
    for (size_t i = 0; i < MEED_COUNT(never); i++) {
        assert_false(meed_tensor_round(&never[i], 1, MEED_TENSOR_BF16, got));
        assert_int_equal(meed_tensor_round(&never[i], 1, MEED_TENSOR_F32, single), i == 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_model_has_the_logits_of_base_and_adapter),
        cmocka_unit_test(merged_model_rounds_the_sum_of_all_adapters_once),
        cmocka_unit_test(merged_model_of_a_zero_adapter_is_the_base),
        cmocka_unit_test(merged_model_rounds_to_halves),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
