/* See shapes.h. */
#include "bench/shapes.h"

#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/rng.h"
#include "kernels/types.h"

struct meed_model_config meed_bench_tiny(void)
{
    return (struct meed_model_config){.architecture = "LlamaForCausalLM",
                                      .hidden = 192,
                                      .ffn = 512,
                                      .layers = 5,
                                      .heads = 6,
                                      .kv_heads = 2,
                                      .head_dim = 32,
                                      .vocab = 2048};
}

struct meed_model_config meed_bench_smollm(void)
{
    return (struct meed_model_config){.architecture = "LlamaForCausalLM",
                                      .hidden = 576,
                                      .ffn = 1536,
                                      .layers = 30,
                                      .heads = 9,
                                      .kv_heads = 3,
                                      .head_dim = 64,
                                      .vocab = 49152};
}

struct meed_model_config meed_bench_qwen(void)
{
    return (struct meed_model_config){.architecture = "LlamaForCausalLM",
                                      .hidden = 896,
                                      .ffn = 4864,
                                      .layers = 24,
                                      .heads = 14,
                                      .kv_heads = 2,
                                      .head_dim = 64,
                                      .vocab = 151936};
}

struct meed_model_config meed_bench_llama_1b(void)
{
    return (struct meed_model_config){.architecture = "LlamaForCausalLM",
                                      .hidden = 2048,
                                      .ffn = 8192,
                                      .layers = 16,
                                      .heads = 32,
                                      .kv_heads = 8,
                                      .head_dim = 64,
                                      .vocab = 128256};
}

struct meed_model_config meed_bench_llama_8b(void)
{
    return (struct meed_model_config){.architecture = "LlamaForCausalLM",
                                      .hidden = 4096,
                                      .ffn = 14336,
                                      .layers = 32,
                                      .heads = 32,
                                      .kv_heads = 8,
                                      .head_dim = 128,
                                      .vocab = 128256};
}

double meed_bench_weights(const struct meed_model_config *config)
{
    double weights = (double)config->vocab * config->hidden;
    for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
        weights += (double)config->layers *
                   (double)meed_proj_outputs(config, (enum meed_proj)proj) *
                   (double)meed_proj_inputs(config, (enum meed_proj)proj);
    }
    return weights;
}

/* Random values before they repeat: a prime, so that rows differ; generating gigabytes would
 * outlast the measurement. */
enum { PERIOD = 65537 };

struct writer {
    struct meed_arena arena;
    struct meed_tensor tensors[4096];
    int64_t count;
    struct meed_rng rng;
};

static enum meed_status add_tensor(struct writer *writer, const char *name, int64_t rows,
                                   int64_t cols, double scale)
{
    struct meed_tensor *tensor = &writer->tensors[writer->count++];
    int64_t count = rows * (cols ? cols : 1);
    void *block = NULL;
    char *copy = NULL;
    MEED_TRY(meed_arena_strdup(&writer->arena, name, strlen(name), &copy));
    MEED_TRY(meed_arena_alloc_array(&writer->arena, (size_t)count, 2, &block));
    meed_bf16 *values = block;
    for (int64_t i = 0; i < MEED_MIN(count, PERIOD); i++) {
        values[i] = meed_bf16_from_f32(cols ? (float)(scale * (2 * meed_rng_unit(&writer->rng) - 1))
                                            : 1.0f);
    }
    for (int64_t i = PERIOD; i < count; i++) {
        values[i] = values[i - PERIOD];
    }
    *tensor = (struct meed_tensor){.name = copy,
                                   .dtype = MEED_TENSOR_BF16,
                                   .dims = cols ? 2 : 1,
                                   .shape = {rows, cols},
                                   .count = count,
                                   .bytes = values,
                                   .size = (size_t)count * 2};
    return MEED_OK;
}

static enum meed_status add_layer(struct writer *writer, const struct meed_model_config *config,
                                  int32_t layer)
{
    char name[128];
    for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, meed_proj_infos[proj].path);
        MEED_TRY(add_tensor(writer, name, meed_proj_outputs(config, (enum meed_proj)proj),
                            meed_proj_inputs(config, (enum meed_proj)proj), 0.05));
    }
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", layer);
    MEED_TRY(add_tensor(writer, name, config->hidden, 0, 0));
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", layer);
    return add_tensor(writer, name, config->hidden, 0, 0);
}

static enum meed_status write_weights(const struct meed_model_config *config, const char *path)
{
    static struct writer writer;
    struct meed_buf bytes;
    enum meed_status st = MEED_OK;
    writer.count = 0;
    writer.rng = meed_rng_stream(1, "bench weights", 0);
    meed_arena_init_growing(&writer.arena, "bench weights", (size_t)4 << 30);
    meed_buf_init(&bytes, (size_t)4 << 30);
    MEED_TRY_OUT(
        add_tensor(&writer, "model.embed_tokens.weight", config->vocab, config->hidden, 0.05));
    MEED_TRY_OUT(add_tensor(&writer, "model.norm.weight", config->hidden, 0, 0));
    for (int32_t layer = 0; layer < config->layers; layer++) {
        MEED_TRY_OUT(add_layer(&writer, config, layer));
    }
    MEED_TRY_OUT(meed_safetensors_write(writer.tensors, writer.count, &bytes));
    MEED_TRY_OUT(meed_file_write_atomic(path, bytes.data, bytes.size));
out:
    meed_buf_clear(&bytes);
    meed_arena_clear(&writer.arena);
    return st;
}

static enum meed_status write_config(const struct meed_model_config *config, const char *path)
{
    char text[1024];
    int length = snprintf(
        text, sizeof text,
        "{\"architectures\": [\"%s\"], \"model_type\": \"llama\", \"hidden_size\": %d,\n"
        " \"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d,\n"
        " \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d,\n"
        " \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0,\n"
        " \"hidden_act\": \"silu\", \"tie_word_embeddings\": true}\n",
        config->architecture, config->hidden, config->ffn, config->layers, config->heads,
        config->kv_heads, config->head_dim, config->vocab);
    return meed_file_write_atomic(path, text, (size_t)length);
}

enum meed_status meed_bench_checkpoint(const char *name, const struct meed_model_config *config,
                                       struct meed_checkpoint **checkpoint)
{
    char folder[256];
    char path[300];
    snprintf(folder, sizeof folder, "build/bench/%s", name);
    MEED_TRY(meed_file_make_folder(folder));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (!meed_file_exists(path)) {
        MEED_TRY(write_weights(config, path));
        snprintf(path, sizeof path, "%s/config.json", folder);
        MEED_TRY(write_config(config, path));
    }
    return meed_checkpoint_open(folder, checkpoint);
}

enum meed_status meed_bench_sequences(int32_t vocab, int32_t length, int32_t count,
                                      struct meed_arena *arena, struct meed_sequence **sequences)
{
    void *block = NULL;
    struct meed_rng rng = meed_rng_stream(1, "bench tokens", 0);
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)count, sizeof **sequences, &block));
    struct meed_sequence *made = block;
    for (int32_t i = 0; i < count; i++) {
        MEED_TRY(meed_arena_alloc_array(arena, (size_t)length, 4, &block));
        made[i].ids = block;
        MEED_TRY(meed_arena_alloc(arena, (size_t)length, &block));
        made[i].scored = block;
        made[i].length = length;
        for (int32_t t = 0; t < length; t++) {
            made[i].ids[t] = (int32_t)meed_rng_below(&rng, (uint64_t)vocab);
            made[i].scored[t] = t > 0;
        }
    }
    *sequences = made;
    return MEED_OK;
}

enum meed_status meed_bench_adapter(const struct meed_model_config *config, int32_t rank,
                                    uint64_t seed, struct meed_adapter **adapter)
{
    struct meed_lora_config lora = {
        .rank = rank, .alpha = 2.0f * (float)rank, .targets = MEED_PROJ_ALL};
    struct meed_adapter *made = NULL;
    MEED_TRY(meed_adapter_create(config, &lora, &made));
    meed_adapter_init(made, seed);
    struct meed_rng rng = meed_rng_stream(seed, "bench adapter", 0);
    for (int32_t i = 0; i < made->module_count; i++) {
        struct meed_adapter_module *module = &made->modules[i];
        for (int64_t j = 0; j < module->n * module->r; j++) {
            module->b[j] = (float)(0.02 * (2 * meed_rng_unit(&rng) - 1));
        }
    }
    *adapter = made;
    return MEED_OK;
}
