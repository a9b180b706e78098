/* Networks against PyTorch: the models of tests/golden.
 *
 * Goal: what transformers and PEFT compute for every family, Meed computes: logits, log-likelihood,
 * loss and each LoRA gradient by name. Method: open each folder as a user would, run the packed
 * batch in fp32 (and bf16 for sanity), compare; print the worst deviation. Merging is a third way
 * to the same logits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/file.h"
#include "base/threads.h"
#include "tests/support/small_net.h"

/* fp32 against fp32: what differs is the order of sums. Observed worst 2e-6 (gradients). */
static const double BOUND = 1e-5;

static const char *const isas[] = {"avx512", "avx2", "generic"};
static const char *isa;
static struct meed_pool *pool;
static struct meed_backend *be;

static int set_up(void **state)
{
    (void)state;
    golden_ok(meed_pool_create(2, &pool));
    golden_ok(meed_backend_open_cpu(pool, isa, &be));
    return 0;
}

static bool is_supported(void)
{
    struct meed_backend *probe = NULL;
    enum meed_status st = meed_backend_open_cpu(NULL, isa, &probe);
    meed_backend_close(probe);
    return st == MEED_OK;
}

static int tear_down(void **state)
{
    (void)state;
    meed_backend_close(be);
    meed_pool_destroy(pool);
    return 0;
}

static struct meed_net *make_net(const struct golden *golden, enum meed_dtype dtype, bool adapted,
                                 bool backward)
{
    const struct meed_adapter *adapters[] = {golden->adapter};
    struct meed_net_options options = {
        .dtype = dtype,
        .max_rows = golden->batch->rows,
        .max_sequences = golden->batch->sequences,
        .backward = backward,
        .adapters = adapters,
        .adapter_count = adapted,
    };
    struct meed_net *net = NULL;
    golden_ok(meed_net_create(be, golden->checkpoint, &options, &net));
    return net;
}

static void check_logits(const struct golden *golden, struct meed_net *net, const char *name,
                         double bound)
{
    int64_t count = 0;
    float *want = golden_tensor(golden, name, &count);
    assert_int_equal(count, (int64_t)golden->batch->rows * golden->checkpoint->config.vocab);
    float *got = meed_heap_alloc((size_t)count, sizeof *got);
    golden_ok(meed_net_logits(net, golden->batch, got));
    double worst = golden_worst(got, want, count);
    printf("  %-13s %-12s worst %.2e\n", golden->family, name, worst);
    assert_true(worst <= bound);
    meed_heap_free(got);
    golden_free(want);
}

static void check_score(const struct golden *golden, struct meed_net *net, const char *name,
                        double bound)
{
    int64_t count = 0;
    float *want = golden_tensor(golden, name, &count);
    float got[GOLDEN_SEQUENCES * GOLDEN_MAX_LENGTH];
    assert_int_equal(count, golden->batch->loss_rows);
    golden_ok(meed_net_score(net, golden->batch, got));
    assert_true(golden_worst(got, want, count) <= bound);
    golden_free(want);
}

static void models_base_and_adapter_logits_match(void **state)
{
    (void)state;
    for (int i = 0; i < golden_family_count; i++) {
        struct golden golden;
        golden_open(MEED_SOURCE_DIR, golden_families[i], &golden);
        for (int adapted = 0; adapted < 2; adapted++) {
            struct meed_net *net = make_net(&golden, MEED_DTYPE_F32, adapted, false);
            check_logits(&golden, net, adapted ? "peft.logits" : "base.logits", BOUND);
            check_score(&golden, net, adapted ? "peft.logprob" : "base.logprob", BOUND);
            meed_net_destroy(net);
        }
        golden_close(&golden);
    }
}

static void models_merged_logits_match(void **state)
{
    (void)state;
    const float full = 1.0f;
    for (int i = 0; i < golden_family_count; i++) {
        struct golden golden;
        golden_open(MEED_SOURCE_DIR, golden_families[i], &golden);
        struct meed_net *stack = make_net(&golden, MEED_DTYPE_F32, true, false);
        struct meed_net *merged = make_net(&golden, MEED_DTYPE_F32, false, false);
        golden_ok(meed_net_merge(merged, stack, &full));
        check_logits(&golden, merged, "peft.logits", BOUND);
        meed_net_destroy(merged);
        meed_net_destroy(stack);
        golden_close(&golden);
    }
}

/* bf16 networks round every activation: the mean log-likelihood must still agree to a percent. */
static void models_bf16_agrees_roughly(void **state)
{
    (void)state;
    for (int i = 0; i < golden_family_count; i++) {
        struct golden golden;
        golden_open(MEED_SOURCE_DIR, golden_families[i], &golden);
        struct meed_net *net = make_net(&golden, MEED_DTYPE_BF16, true, false);
        float got[GOLDEN_SEQUENCES * GOLDEN_MAX_LENGTH];
        golden_ok(meed_net_score(net, golden.batch, got));
        float *want = golden_tensor(&golden, "peft.loss", NULL);
        double loss = 0;
        for (int32_t m = 0; m < golden.batch->loss_rows; m++) {
            loss -= (double)got[m] / golden.batch->loss_rows;
        }
        printf("  %-13s bf16 loss %.4f, fp32 %.4f\n", golden.family, loss, (double)want[0]);
        assert_true(fabs(loss - (double)want[0]) <= 0.01 * (double)want[0]);
        golden_free(want);
        meed_net_destroy(net);
        golden_close(&golden);
    }
}

static void check_gradient(const struct golden *golden, const struct meed_adapter_module *module,
                           char factor, const float *got, int64_t count, double *worst)
{
    char name[128];
    int64_t expected = 0;
    snprintf(name, sizeof name, "grad.model.layers.%d.%s.lora_%c.weight", module->layer,
             meed_proj_infos[module->proj].path, factor);
    float *want = golden_tensor(golden, name, &expected);
    assert_int_equal(count, expected);
    double off = golden_worst(got, want, count);
    if (off > BOUND) {
        fail_msg("%s: %s deviates by %.2e", golden->family, name, off);
    }
    *worst = fmax(*worst, off);
    golden_free(want);
}

static void check_gradients(const struct golden *golden)
{
    struct meed_net *net = make_net(golden, MEED_DTYPE_F32, true, true);
    size_t count = (size_t)meed_net_master_count(net);
    float weight[GOLDEN_SEQUENCES * GOLDEN_MAX_LENGTH], logprob[MEED_COUNT(weight)];
    void *gradients = NULL;
    double loss = 0, worst = 0;
    golden_ok(be->alloc(be, count * sizeof(float), &gradients));
    for (int32_t m = 0; m < golden->batch->loss_rows; m++) {
        weight[m] = 1.0f / (float)golden->batch->loss_rows;
    }
    golden_ok(meed_net_backward(net, golden->batch, weight, 1, logprob, gradients, NULL));
    for (int32_t m = 0; m < golden->batch->loss_rows; m++) {
        loss -= (double)logprob[m] / golden->batch->loss_rows;
    }
    float *want_loss = golden_tensor(golden, "peft.loss", NULL);
    assert_true(fabs(loss - (double)want_loss[0]) <= BOUND * (double)want_loss[0]);
    golden_free(want_loss);
    float *host = small_fetch(be, gradients, count);
    const float *at = host;
    for (int32_t i = 0; i < golden->adapter->module_count; i++) {
        const struct meed_adapter_module *module = &golden->adapter->modules[i];
        check_gradient(golden, module, 'A', at, module->r * module->k, &worst);
        at += module->r * module->k;
        check_gradient(golden, module, 'B', at, module->n * module->r, &worst);
        at += module->n * module->r;
    }
    printf("  %-13s %d modules, loss %.5f, worst gradient %.2e\n", golden->family,
           golden->adapter->module_count, loss, worst);
    meed_heap_free(host);
    be->free(be, gradients);
    meed_net_destroy(net);
}

static void models_gradients_match_by_name(void **state)
{
    (void)state;
    for (int i = 0; i < golden_family_count; i++) {
        struct golden golden;
        golden_open(MEED_SOURCE_DIR, golden_families[i], &golden);
        check_gradients(&golden);
        golden_close(&golden);
    }
}

/* Out again as it came in: what Meed exports is, byte for byte, the file that PEFT wrote. PEFT
 * reads its own files, so the logits of an exported adapter in PEFT are the golden ones. */
static void models_exported_adapter_is_pefts(void **state)
{
    (void)state;
    for (int i = 0; i < golden_family_count; i++) {
        struct golden golden;
        struct meed_buf ours, theirs;
        char path[MEED_PATH_BYTES];
        golden_open(MEED_SOURCE_DIR, golden_families[i], &golden);
        meed_buf_init(&ours, 1 << 20);
        meed_buf_init(&theirs, 1 << 20);
        golden_ok(
            meed_file_join(golden.folder, "adapter/adapter_model.safetensors", path, sizeof path));
        golden_ok(meed_file_read(path, &theirs));
        golden_ok(meed_adapter_to_safetensors(golden.adapter, &ours));
        assert_int_equal(ours.size, theirs.size);
        assert_memory_equal(ours.data, theirs.data, ours.size);
        meed_buf_clear(&ours);
        meed_buf_clear(&theirs);
        golden_close(&golden);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_base_and_adapter_logits_match),
        cmocka_unit_test(models_merged_logits_match),
        cmocka_unit_test(models_bf16_agrees_roughly),
        cmocka_unit_test(models_gradients_match_by_name),
        cmocka_unit_test(models_exported_adapter_is_pefts),
    };
    int failed = 0;
    for (size_t i = 0; i < MEED_COUNT(isas); i++) {
        isa = isas[i];
        printf("cpu-%s%s\n", isa, is_supported() ? "" : ": SKIPPED, this processor lacks it");
        if (is_supported()) {
            failed += cmocka_run_group_tests(tests, set_up, tear_down);
        }
    }
    return failed;
}
