/* See privacy.h. A digest gives four words of 64 bits: two pairs of uniforms, four deviates. */
#include "client/privacy.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/random.h>
#include "base/file.h"
#include "base/hash.h"

enum { PER_BLOCK = 4, DRAWN = 256 };

enum meed_status meed_privacy_secret(const char *path, uint8_t secret[MEED_PRIVACY_SECRET_BYTES])
{
    struct meed_buf bytes;
    if (!meed_file_exists(path)) {
        if (getrandom(secret, MEED_PRIVACY_SECRET_BYTES, 0) != MEED_PRIVACY_SECRET_BYTES) {
            return MEED_FAIL(MEED_IO, "the system gives no random bytes: %s", strerror(errno));
        }
        return meed_file_write_private(path, secret, MEED_PRIVACY_SECRET_BYTES);
    }
    meed_buf_init(&bytes, MEED_PRIVACY_SECRET_BYTES + 1);
    enum meed_status st = meed_file_read(path, &bytes);
    if (st == MEED_LIMIT || (st == MEED_OK && bytes.size != MEED_PRIVACY_SECRET_BYTES)) {
        st = MEED_FAIL(MEED_FORMAT, "%.512s is no secret of %d bytes; use another state folder",
                       path, MEED_PRIVACY_SECRET_BYTES);
    } else if (st == MEED_OK) {
        memcpy(secret, bytes.data, MEED_PRIVACY_SECRET_BYTES);
    }
    meed_buf_clear(&bytes);
    return st;
}

/* Deviates 4·block to 4·block + 3. */
static void draw_block(const struct meed_privacy_noise *noise, int64_t block,
                       double values[PER_BLOCK])
{
    struct {
        uint8_t secret[MEED_PRIVACY_SECRET_BYTES];
        char run_id[MEED_LIMIT_ID_BYTES];
        int64_t round, block;
    } input;
    uint8_t digest[MEED_SHA256_BYTES];
    uint64_t words[PER_BLOCK];
    memset(&input, 0, sizeof input);
    memcpy(input.secret, noise->secret, sizeof input.secret);
    memcpy(input.run_id, noise->run_id, sizeof input.run_id);
    input.round = noise->round;
    input.block = block;
    meed_sha256(&input, sizeof input, digest);
    memcpy(words, digest, sizeof words);
    for (int i = 0; i < PER_BLOCK; i += 2) {
        double radius = sqrt(-2.0 * log(((double)(words[i] >> 11) + 1.0) * 0x1p-53));
        double angle = 2.0 * M_PI * ((double)(words[i + 1] >> 11) * 0x1p-53);
        values[i] = radius * cos(angle);
        values[i + 1] = radius * sin(angle);
    }
}

void meed_privacy_normals(const struct meed_privacy_noise *noise, int64_t first, int64_t count,
                          double *values)
{
    double block[PER_BLOCK];
    for (int64_t i = 0; i < count; i++) {
        int64_t at = first + i;
        if (i == 0 || at % PER_BLOCK == 0) {
            draw_block(noise, at / PER_BLOCK, block);
        }
        values[i] = block[at % PER_BLOCK];
    }
}

/* The walk over all values in flat order: one factor at a time. */
struct factor {
    const float *global;
    float *trained;
    int64_t count;
    bool moves;
};

static struct factor factor_of(const struct meed_msg_plan *plan, const struct meed_adapter *global,
                               struct meed_adapter *trained, int32_t idx)
{
    const struct meed_adapter_module *module = &global->modules[idx / 2];
    bool is_a = idx % 2 == 0;
    struct meed_adapter_module *to = &trained->modules[idx / 2];
    return (struct factor){
        .global = is_a ? module->a : module->b,
        .trained = is_a ? to->a : to->b,
        .count = module->r * (is_a ? module->k : module->n),
        .moves = (plan->trained_factors & (uint32_t)(is_a ? MEED_FACTOR_A : MEED_FACTOR_B)) != 0};
}

static double norm_of(const struct meed_msg_plan *plan, const struct meed_adapter *global,
                      struct meed_adapter *trained)
{
    double sum = 0.0;
    for (int32_t idx = 0; idx < 2 * global->module_count; idx++) {
        struct factor factor = factor_of(plan, global, trained, idx);
        for (int64_t i = 0; factor.moves && i < factor.count; i++) {
            double change = (double)factor.trained[i] - (double)factor.global[i];
            sum += change * change;
        }
    }
    return sqrt(sum);
}

enum meed_status meed_privacy_apply(const struct meed_privacy_noise *noise,
                                    const struct meed_msg_plan *plan,
                                    const struct meed_adapter *global, struct meed_adapter *trained,
                                    double *norm)
{
    double scale = 0.0, deviates[DRAWN];
    int64_t at = 0;
    *norm = norm_of(plan, global, trained);
    if (!isfinite(*norm)) {
        return MEED_FAIL(MEED_NUMERIC, "the training of round %d diverged", noise->round);
    }
    scale = *norm > plan->dp_clip ? plan->dp_clip / *norm : 1.0;
    for (int32_t idx = 0; idx < 2 * global->module_count; idx++) {
        struct factor factor = factor_of(plan, global, trained, idx);
        for (int64_t i = 0; i < factor.count; i++, at++) {
            double start = (double)factor.global[i];
            if (at % DRAWN == 0) {
                meed_privacy_normals(noise, at, DRAWN, deviates);
            }
            double change = scale * ((double)factor.trained[i] - start) +
                            plan->dp_noise * plan->dp_clip * deviates[at % DRAWN];
            factor.trained[i] = factor.moves ? (float)(start + change) : factor.global[i];
        }
    }
    return MEED_OK;
}

void meed_privacy_spend(struct meed_privacy_accountant *accountant, double dp_noise)
{
    meed_privacy_accountant_add(accountant, dp_noise / 2.0, 1.0, 1);
}
