/* libFuzzer target: config.json.
 *
 * The forward pass divides by these numbers and sizes memory with them, so whatever is accepted
 * must be a model: positive sizes, heads that share evenly, finite positions.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "accepted, but %s\n", what);
        abort();
    }
}

static void check_rope(const struct meed_model_config *config)
{
    enum { POSITIONS = 3, MOST = 1024 };
    static float cosines[POSITIONS * MOST], sines[POSITIONS * MOST];
    if (config->head_dim > 2 * MOST) {
        return;
    }
    for (int local = 0; local < 2; local++) {
        meed_model_config_rope(config, local != 0, POSITIONS, cosines, sines);
        for (int32_t i = 0; i < POSITIONS * config->head_dim / 2; i++) {
            demand(isfinite(cosines[i]) && isfinite(sines[i]), "a position is not finite");
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct meed_model_config config;
    if (meed_model_config_parse("fuzz", (const char *)data, size, &config) != MEED_OK) {
        return 0;
    }
    demand(config.hidden > 0 && config.ffn > 0 && config.layers > 0 && config.vocab > 0,
           "a size is not positive");
    demand(config.heads > 0 && config.kv_heads > 0 && config.heads % config.kv_heads == 0,
           "heads do not share evenly");
    demand(config.head_dim > 0 && config.head_dim % 2 == 0, "a head has no halves");
    demand(config.max_positions > 0, "there is no position");
    demand(config.rms_eps > 0 && isfinite(config.rms_eps), "epsilon is no small number");
    demand(config.rope_theta > 0 && isfinite(config.rope_theta), "theta is no base");
    demand(config.eos_count >= 0 && config.eos_count <= MEED_MODEL_MAX_EOS, "too many ends");
    check_rope(&config);
    return 0;
}
