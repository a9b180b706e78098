/* See golden.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/golden.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/file.h"

const char *const golden_families[] = {"llama_tied",    "llama_gqa", "llama_rope3",
                                       "llama_linear",  "qwen2",     "qwen3",
                                       "llama_sharded", "mistral",   "gemma3"};
const int golden_family_count = (int)MEED_COUNT(golden_families);

void golden_ok(enum meed_status status)
{
    if (status != MEED_OK) {
        fail_msg("%s: %s (%s)", meed_status_name(status), meed_last_error(),
                 meed_last_error_place());
    }
}

float *golden_tensor(const struct golden *golden, const char *name, int64_t *count)
{
    const struct meed_tensor *tensor = meed_safetensors_find(golden->expected, name);
    if (!tensor) {
        fail_msg("%s: expected.safetensors lacks '%s'", golden->family, name);
        return NULL;
    }
    float *values = meed_heap_alloc((size_t)tensor->count, sizeof *values);
    assert_non_null(values);
    golden_ok(meed_tensor_to_f32(tensor, values));
    if (count) {
        *count = tensor->count;
    }
    return values;
}

void golden_free(float *values)
{
    meed_heap_free(values);
}

double golden_worst(const float *got, const float *want, int64_t count)
{
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)want[i]));
        double off = fabs((double)got[i] - (double)want[i]);
        worst = off > worst || isnan(off) ? off : worst;
    }
    return largest > 0 ? worst / largest : worst;
}

static void read_batch(struct golden *golden)
{
    int64_t count = 0;
    float *ids = golden_tensor(golden, "ids", &count);
    float *scored = golden_tensor(golden, "scored", NULL);
    float *lengths = golden_tensor(golden, "lengths", NULL);
    int64_t at = 0;
    for (int s = 0; s < GOLDEN_SEQUENCES; s++) {
        int32_t length = (int32_t)lengths[s];
        assert_true(length <= GOLDEN_MAX_LENGTH && at + length <= count);
        for (int32_t t = 0; t < length; t++, at++) {
            golden->ids[s][t] = (int32_t)ids[at];
            golden->scored[s][t] = (uint8_t)scored[at];
        }
        golden->sequences[s] = (struct meed_sequence){golden->ids[s], golden->scored[s], length};
        assert_true(meed_batch_add(golden->batch, &golden->sequences[s], s));
    }
    golden_free(ids);
    golden_free(scored);
    golden_free(lengths);
}

void golden_open(const char *source_dir, const char *family, struct golden *golden)
{
    char path[MEED_PATH_BYTES];
    *golden = (struct golden){.family = family};
    snprintf(golden->folder, sizeof golden->folder, "%s/tests/golden/%s", source_dir, family);
    golden_ok(meed_checkpoint_open(golden->folder, &golden->checkpoint));
    golden_ok(meed_file_join(golden->folder, "adapter", path, sizeof path));
    golden_ok(meed_adapter_load(path, &golden->checkpoint->config, &golden->adapter));
    golden_ok(meed_file_join(golden->folder, "expected.safetensors", path, sizeof path));
    golden_ok(meed_safetensors_open(path, &golden->expected));
    golden_ok(
        meed_batch_create(GOLDEN_SEQUENCES * GOLDEN_MAX_LENGTH, GOLDEN_SEQUENCES, &golden->batch));
    read_batch(golden);
}

void golden_close(struct golden *golden)
{
    meed_batch_destroy(golden->batch);
    meed_safetensors_close(golden->expected);
    meed_adapter_destroy(golden->adapter);
    meed_checkpoint_close(golden->checkpoint);
}
