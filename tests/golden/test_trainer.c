/* Training against PyTorch's ten steps, and what must hold bit for bit: resume, frozen factors, an
 * unmoved proximal term. The golden folders and their numbers are written by
 * tests/golden/generate/make_goldens.py; the adapters in them were written by PEFT. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/threads.h"
#include "engine/safetensors.h"
#include "engine/trainer.h"

enum { SEQUENCES = 3, MAX_TOKENS = 128, STEPS = 10 };

struct golden {
    char folder[512];
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *start;
    struct meed_safetensors *expected;
    int32_t ids[MAX_TOKENS];
    uint8_t scored[MAX_TOKENS];
    struct meed_sequence sequences[SEQUENCES];
};

static struct meed_pool *pool;
static struct meed_backend *be;
static char scratch[] = "/tmp/meed-trainer-XXXXXX";

static int open_backend(void **state)
{
    (void)state;
    return !mkdtemp(scratch) || meed_pool_create(2, &pool) != MEED_OK ||
           meed_backend_open_cpu(pool, NULL, &be) != MEED_OK;
}

static int close_backend(void **state)
{
    (void)state;
    meed_backend_close(be);
    meed_pool_destroy(pool);
    return rmdir(scratch);
}

static void scratch_path(const char *name, char path[MEED_PATH_BYTES])
{
    assert_int_equal(meed_file_join(scratch, name, path, MEED_PATH_BYTES), MEED_OK);
}

static void read_floats(const struct golden *golden, const char *name, int64_t count, float *out)
{
    const struct meed_tensor *tensor = meed_safetensors_find(golden->expected, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->count, count);
    assert_int_equal(meed_tensor_to_f32(tensor, out), MEED_OK);
}

static void golden_open(const char *family, struct golden *golden)
{
    char path[MEED_PATH_BYTES];
    float lengths[SEQUENCES], values[MAX_TOKENS];
    snprintf(golden->folder, sizeof golden->folder, "%s/tests/golden/%s", MEED_SOURCE_DIR, family);
    assert_int_equal(meed_checkpoint_open(golden->folder, &golden->checkpoint), MEED_OK);
    assert_int_equal(meed_file_join(golden->folder, "adapter", path, sizeof path), MEED_OK);
    assert_int_equal(meed_adapter_load(path, &golden->checkpoint->config, &golden->start), MEED_OK);
    assert_int_equal(meed_file_join(golden->folder, "expected.safetensors", path, sizeof path),
                     MEED_OK);
    assert_int_equal(meed_safetensors_open(path, &golden->expected), MEED_OK);
    read_floats(golden, "lengths", SEQUENCES, lengths);
    int32_t begin = 0;
    for (int i = 0; i < SEQUENCES; i++) {
        golden->sequences[i] = (struct meed_sequence){.ids = golden->ids + begin,
                                                      .scored = golden->scored + begin,
                                                      .length = (int32_t)lengths[i]};
        begin += (int32_t)lengths[i];
    }
    assert_true(begin <= MAX_TOKENS);
    read_floats(golden, "ids", begin, values);
    for (int t = 0; t < begin; t++) {
        golden->ids[t] = (int32_t)values[t];
    }
    read_floats(golden, "scored", begin, values);
    for (int t = 0; t < begin; t++) {
        golden->scored[t] = values[t] > 0.0f;
    }
}

static void golden_close(struct golden *golden)
{
    meed_safetensors_close(golden->expected);
    meed_adapter_destroy(golden->start);
    meed_checkpoint_close(golden->checkpoint);
}

/* PyTorch's setting: everything in one batch, a constant rate. */
static struct meed_train_options curve_options(void)
{
    struct meed_train_options options = meed_train_defaults();
    options.steps = STEPS;
    options.batch_tokens = MAX_TOKENS;
    options.lr = 5e-3f;
    options.lr_min_ratio = 1.0f;
    options.warmup_steps = 0;
    options.weight_decay = 0.01f;
    options.dtype = MEED_DTYPE_F32;
    return options;
}

static struct meed_trainer *trainer_of(const struct golden *golden,
                                       const struct meed_train_options *options)
{
    struct meed_trainer *trainer = NULL;
    enum meed_status st = meed_trainer_create(be, golden->checkpoint, golden->start,
                                              golden->sequences, SEQUENCES, options, &trainer);
    if (st != MEED_OK) {
        print_error("%s\n", meed_last_error());
    }
    assert_int_equal(st, MEED_OK);
    return trainer;
}

static void check_factor(const struct golden *golden, const char *factor, const float *values,
                         int64_t count)
{
    char name[128];
    float *want = calloc((size_t)count, sizeof *want);
    assert_non_null(want);
    snprintf(name, sizeof name, "curve.after.model.layers.0.self_attn.q_proj.%s.weight", factor);
    read_floats(golden, name, count, want);
    for (int64_t i = 0; i < count; i++) {
        assert_true(fabs((double)(values[i] - want[i])) < 2e-4);
    }
    free(want);
}

/* Goal: the loss of every step within 1e-4 of PyTorch's, norms within 1e-3 of theirs, and the
 * factors where PyTorch's ended; for every family. Adam divides by the gradient's size, so a factor
 * entry whose gradient is near zero may differ by a fraction of the ten steps of 5e-3. */
static void trainer_follows_pytorch(void **state)
{
    (void)state;
    static const char *const families[] = {"llama_tied",   "llama_gqa",     "llama_rope3",
                                           "llama_linear", "llama_sharded", "qwen2",
                                           "qwen3"};
    for (size_t f = 0; f < MEED_COUNT(families); f++) {
        struct golden golden;
        float loss[STEPS], norm[STEPS];
        double worst = 0.0;
        golden_open(families[f], &golden);
        read_floats(&golden, "curve.loss", STEPS, loss);
        read_floats(&golden, "curve.norm", STEPS, norm);
        struct meed_train_options options = curve_options();
        struct meed_trainer *trainer = trainer_of(&golden, &options);
        for (int step = 0; step < STEPS; step++) {
            struct meed_train_report report;
            assert_int_equal(meed_trainer_step(trainer, &report), MEED_OK);
            worst = fmax(worst, fabs(report.loss - (double)loss[step]));
            assert_true(fabs(report.gradient_norm - (double)norm[step]) <
                        1e-3 * (double)norm[step]);
        }
        print_message("%s: largest loss difference %.2e\n", families[f], worst);
        assert_true(worst <= 1e-4);
        struct meed_adapter *after = NULL;
        assert_int_equal(meed_adapter_clone(golden.start, &after), MEED_OK);
        assert_int_equal(meed_trainer_export(trainer, after), MEED_OK);
        const struct meed_adapter_module *q = meed_adapter_find(after, 0, MEED_PROJ_Q);
        check_factor(&golden, "lora_A", q->a, q->r * q->k);
        check_factor(&golden, "lora_B", q->b, q->n * q->r);
        meed_adapter_destroy(after);
        meed_trainer_destroy(trainer);
        golden_close(&golden);
    }
}

/* Everything that could carry state at once: two micro-batches a step, epochs that do not divide,
 * dropout, decay, the proximal term, a moving rate. */
static struct meed_train_options rich_options(enum meed_dtype dtype)
{
    struct meed_train_options options = meed_train_defaults();
    options.steps = 9;
    options.batch_tokens = 20;
    options.accumulation = 2;
    options.lr = 1e-2f;
    options.warmup_steps = 3;
    options.weight_decay = 0.05f;
    options.prox_mu = 0.1f;
    options.dropout = 0.1f;
    options.seed = 77;
    options.dtype = dtype;
    return options;
}

static void run(struct meed_trainer *trainer, int steps)
{
    struct meed_train_report report;
    for (int i = 0; i < steps; i++) {
        assert_int_equal(meed_trainer_step(trainer, &report), MEED_OK);
    }
}

static void check_resume(const struct golden *golden, enum meed_dtype dtype)
{
    struct meed_train_options options = rich_options(dtype);
    char half[MEED_PATH_BYTES], whole[MEED_PATH_BYTES], resumed[MEED_PATH_BYTES];
    struct meed_buf x, y;
    struct meed_train_report report;
    scratch_path("half", half);
    scratch_path("whole", whole);
    scratch_path("resumed", resumed);
    struct meed_trainer *trainer = trainer_of(golden, &options);
    run(trainer, 4);
    assert_int_equal(meed_trainer_save(trainer, half), MEED_OK);
    run(trainer, 5);
    assert_int_equal(meed_trainer_save(trainer, whole), MEED_OK);
    assert_int_equal(meed_trainer_step(trainer, &report), MEED_STATE);
    meed_trainer_destroy(trainer);
    trainer = trainer_of(golden, &options);
    assert_int_equal(meed_trainer_resume(trainer, half), MEED_OK);
    assert_int_equal(meed_trainer_steps_done(trainer), 4);
    run(trainer, 5);
    assert_int_equal(meed_trainer_save(trainer, resumed), MEED_OK);
    meed_trainer_destroy(trainer);
    meed_buf_init(&x, 1 << 24);
    meed_buf_init(&y, 1 << 24);
    assert_int_equal(meed_file_read(whole, &x), MEED_OK);
    assert_int_equal(meed_file_read(resumed, &y), MEED_OK);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    meed_buf_clear(&x);
    meed_buf_clear(&y);
    unlink(half);
    unlink(whole);
    unlink(resumed);
}

/* Goal: save after four steps, continue elsewhere for five: the checkpoint after nine has the bytes
 * of the undisturbed run's. */
static void trainer_resumes_bit_for_bit(void **state)
{
    (void)state;
    struct golden golden;
    golden_open("qwen2", &golden);
    check_resume(&golden, MEED_DTYPE_F32);
    check_resume(&golden, MEED_DTYPE_BF16);
    golden_close(&golden);
}

/* Goal: a checkpoint of another run, another data order or a damaged one is refused and changes
 * nothing. */
static void trainer_resume_refuses(void **state)
{
    (void)state;
    struct golden golden;
    struct meed_buf bytes;
    char path[MEED_PATH_BYTES];
    golden_open("llama_tied", &golden);
    scratch_path("checkpoint", path);
    struct meed_train_options options = rich_options(MEED_DTYPE_F32);
    struct meed_trainer *trainer = trainer_of(&golden, &options);
    run(trainer, 2);
    assert_int_equal(meed_trainer_save(trainer, path), MEED_OK);
    struct meed_train_options other = options;
    other.lr = 2e-2f;
    struct meed_trainer *stranger = trainer_of(&golden, &other);
    assert_int_equal(meed_trainer_resume(stranger, path), MEED_VERSION);
    meed_trainer_destroy(stranger);
    golden.scored[4] ^= 1;
    stranger = trainer_of(&golden, &options);
    assert_int_equal(meed_trainer_resume(stranger, path), MEED_VERSION);
    assert_int_equal(meed_trainer_steps_done(stranger), 0);
    meed_trainer_destroy(stranger);
    golden.scored[4] ^= 1;
    meed_buf_init(&bytes, 1 << 24);
    assert_int_equal(meed_file_read(path, &bytes), MEED_OK);
    bytes.data[bytes.size / 2] ^= 4;
    assert_int_equal(meed_file_write_atomic(path, bytes.data, bytes.size), MEED_OK);
    assert_int_equal(meed_trainer_resume(trainer, path), MEED_INTEGRITY);
    assert_int_equal(meed_file_write_atomic(path, "rubbish", 7), MEED_OK);
    assert_int_equal(meed_trainer_resume(trainer, path), MEED_FORMAT);
    unlink(path);
    assert_int_equal(meed_trainer_resume(trainer, path), MEED_NOT_FOUND);
    meed_buf_clear(&bytes);
    meed_trainer_destroy(trainer);
    golden_close(&golden);
}

/* Goal: two micro-batches a step are one batch: same loss and norm to rounding. The seed is the
 * first whose order puts the three sequences once each into two batches of 20 rows. */
static void trainer_accumulates_to_the_same_step(void **state)
{
    (void)state;
    struct golden golden;
    struct meed_train_report one, two = {.tokens = 0};
    golden_open("llama_gqa", &golden);
    struct meed_train_options options = curve_options();
    struct meed_trainer *trainer = trainer_of(&golden, &options);
    assert_int_equal(meed_trainer_step(trainer, &one), MEED_OK);
    meed_trainer_destroy(trainer);
    options.batch_tokens = 20;
    options.accumulation = 2;
    for (options.seed = 1; options.seed < 50 && two.tokens != one.tokens; options.seed++) {
        trainer = trainer_of(&golden, &options);
        assert_int_equal(meed_trainer_step(trainer, &two), MEED_OK);
        meed_trainer_destroy(trainer);
    }
    assert_int_equal(two.tokens, one.tokens);
    assert_true(fabs(one.loss - two.loss) < 1e-6);
    assert_true(fabs(one.gradient_norm - two.gradient_norm) < 1e-5);
    golden_close(&golden);
}

static void export_after(const struct golden *golden, const struct meed_train_options *options,
                         int steps, struct meed_adapter **after)
{
    struct meed_trainer *trainer = trainer_of(golden, options);
    run(trainer, steps);
    assert_int_equal(meed_adapter_clone(golden->start, after), MEED_OK);
    assert_int_equal(meed_trainer_export(trainer, *after), MEED_OK);
    meed_trainer_destroy(trainer);
}

/* Goal: a frozen factor keeps its bits although decay is on, the other one moves. */
static void trainer_freezes_a_factor(void **state)
{
    (void)state;
    struct golden golden;
    golden_open("llama_tied", &golden);
    for (int frozen = 0; frozen < 2; frozen++) {
        struct meed_train_options options = curve_options();
        struct meed_adapter *after = NULL;
        options.freeze_a = frozen == 0;
        options.freeze_b = frozen == 1;
        export_after(&golden, &options, 3, &after);
        for (int32_t i = 0; i < after->module_count; i++) {
            const struct meed_adapter_module *p = &golden.start->modules[i];
            const struct meed_adapter_module *q = &after->modules[i];
            size_t a_bytes = (size_t)(p->r * p->k) * sizeof(float);
            size_t b_bytes = (size_t)(p->n * p->r) * sizeof(float);
            assert_int_equal(memcmp(p->a, q->a, a_bytes) == 0, frozen == 0);
            assert_int_equal(memcmp(p->b, q->b, b_bytes) == 0, frozen == 1);
        }
        meed_adapter_destroy(after);
    }
    golden_close(&golden);
}

static double distance(const struct meed_adapter *x, const struct meed_adapter *y)
{
    double sum = 0.0;
    for (int64_t i = 0; i < meed_adapter_value_count(x); i++) {
        double d = (double)x->modules[0].a[i] - (double)y->modules[0].a[i];
        sum += d * d;
    }
    return sqrt(sum);
}

/* Goal: the proximal term is nothing on the first step, and holds the masters near their start
 * later. */
static void trainer_proximal_term_pulls_back(void **state)
{
    (void)state;
    struct golden golden;
    golden_open("llama_tied", &golden);
    struct meed_train_options free = curve_options(), held = curve_options();
    struct meed_adapter *x = NULL, *y = NULL;
    free.weight_decay = held.weight_decay = 0.0f;
    free.clip_norm = held.clip_norm = 0.0f;
    held.prox_mu = 10.0f;
    export_after(&golden, &free, 1, &x);
    export_after(&golden, &held, 1, &y);
    assert_true(meed_adapter_equal(x, y));
    meed_adapter_destroy(x);
    meed_adapter_destroy(y);
    export_after(&golden, &free, STEPS, &x);
    export_after(&golden, &held, STEPS, &y);
    assert_true(distance(y, golden.start) < 0.7 * distance(x, golden.start));
    meed_adapter_destroy(x);
    meed_adapter_destroy(y);
    golden_close(&golden);
}

/* Goal: impossible options and data are named before anything is built. */
static void trainer_create_refuses(void **state)
{
    (void)state;
    struct golden golden;
    struct meed_trainer *trainer = NULL;
    golden_open("llama_tied", &golden);
    struct meed_train_options options = curve_options();
    options.batch_tokens = 19;
    assert_int_equal(meed_trainer_create(be, golden.checkpoint, golden.start, golden.sequences,
                                         SEQUENCES, &options, &trainer),
                     MEED_LIMIT);
    assert_non_null(strstr(meed_last_error(), "sequence 3 has 21 tokens"));
    options = curve_options();
    options.beta2 = 1.0f;
    assert_int_equal(meed_trainer_create(be, golden.checkpoint, golden.start, golden.sequences,
                                         SEQUENCES, &options, &trainer),
                     MEED_ARG);
    options = curve_options();
    options.freeze_a = options.freeze_b = true;
    assert_int_equal(meed_trainer_create(be, golden.checkpoint, golden.start, golden.sequences,
                                         SEQUENCES, &options, &trainer),
                     MEED_ARG);
    options = curve_options();
    memset(golden.scored, 0, 13);
    assert_int_equal(meed_trainer_create(be, golden.checkpoint, golden.start, golden.sequences,
                                         SEQUENCES, &options, &trainer),
                     MEED_ARG);
    assert_int_equal(meed_trainer_create(be, golden.checkpoint, golden.start, golden.sequences, 0,
                                         &options, &trainer),
                     MEED_ARG);
    golden_close(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trainer_follows_pytorch),
        cmocka_unit_test(trainer_resumes_bit_for_bit),
        cmocka_unit_test(trainer_resume_refuses),
        cmocka_unit_test(trainer_accumulates_to_the_same_step),
        cmocka_unit_test(trainer_freezes_a_factor),
        cmocka_unit_test(trainer_proximal_term_pulls_back),
        cmocka_unit_test(trainer_create_refuses),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
