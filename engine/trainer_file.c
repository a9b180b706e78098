/* Checkpoints of a training run, and the identity that binds them to it.
 *
 * A checkpoint continues a run bit for bit only if everything that decides the bits is the same:
 * model, start, data, options. Their hash is written first and compared on resume, because a run
 * silently continued with other data would still look like a success. Layout, little-endian:
 *
 *     0    8  magic "MTRAIN\0\1", the last byte being the version
 *     8    8  steps taken
 *    16    8  position in the data stream
 *    24    8  values n
 *    32   32  identity
 *    64  4·n  masters, fp32
 *         4·n  first moments
 *         4·n  second moments
 *         4·n  sum of gradients, in a training with a correction only
 *          32  SHA-256 of everything before
 */
#include <string.h>
#include "base/file.h"
#include "engine/trainer_internal.h"

enum { HEADER_BYTES = 64 };
static const uint8_t magic[8] = {'M', 'T', 'R', 'A', 'I', 'N', 0, 1};

static void put_u64(uint8_t bytes[8], uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get_u64(const uint8_t bytes[8])
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        value |= (uint64_t)bytes[i] << (8 * i);
    }
    return value;
}

static void hash_u64(struct meed_sha256 *hash, uint64_t value)
{
    uint8_t bytes[8];
    put_u64(bytes, value);
    meed_sha256_update(hash, bytes, sizeof bytes);
}

static void hash_f32(struct meed_sha256 *hash, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    hash_u64(hash, bits);
}

static void hash_options(struct meed_sha256 *hash, const struct meed_train_options *options)
{
    const float numbers[] = {options->lr,        options->lr_min_ratio, options->beta1,
                             options->beta2,     options->epsilon,      options->weight_decay,
                             options->clip_norm, options->prox_mu,      options->dropout};
    const uint64_t counts[] = {
        (uint64_t)options->steps,
        (uint64_t)options->batch_tokens,
        (uint64_t)options->accumulation,
        (uint64_t)options->warmup_steps,
        options->freeze_a,
        options->freeze_b,
        options->seed,
        (uint64_t)options->dtype,
        (uint64_t)options->base,
    };
    for (size_t i = 0; i < MEED_COUNT(numbers); i++) {
        hash_f32(hash, numbers[i]);
    }
    for (size_t i = 0; i < MEED_COUNT(counts); i++) {
        hash_u64(hash, counts[i]);
    }
}

/* Nothing where there is neither a frozen part nor a correction. */
static enum meed_status hash_company(struct meed_sha256 *hash,
                                     const struct meed_train_options *options, int64_t count)
{
    uint8_t frozen[MEED_SHA256_BYTES];
    if (options->frozen) {
        MEED_TRY(meed_adapter_hash(options->frozen, frozen));
        meed_sha256_update(hash, frozen, sizeof frozen);
    }
    if (options->correction) {
        meed_sha256_update(hash, options->correction, (size_t)count * sizeof(float));
    }
    return MEED_OK;
}

enum meed_status meed_trainer_identity(const struct meed_checkpoint *checkpoint,
                                       const struct meed_adapter *start,
                                       const struct meed_sequence *data, int64_t data_count,
                                       const struct meed_train_options *options,
                                       uint8_t identity[MEED_SHA256_BYTES])
{
    uint8_t adapter[MEED_SHA256_BYTES];
    struct meed_sha256 *hash = NULL;
    MEED_TRY(meed_adapter_hash(start, adapter));
    MEED_TRY(meed_sha256_create(&hash));
    meed_sha256_update(hash, checkpoint->hash, sizeof checkpoint->hash);
    meed_sha256_update(hash, adapter, sizeof adapter);
    hash_options(hash, options);
    enum meed_status st = hash_company(hash, options, meed_adapter_value_count(start));
    hash_u64(hash, (uint64_t)data_count);
    for (int64_t i = 0; i < data_count; i++) {
        size_t length = (size_t)data[i].length;
        hash_u64(hash, length);
        meed_sha256_update(hash, data[i].ids, length * sizeof *data[i].ids);
        meed_sha256_update(hash, data[i].scored, length);
    }
    meed_sha256_final(hash, identity);
    return st;
}

static size_t vector_bytes(const struct meed_trainer *trainer)
{
    return (size_t)trainer->count * sizeof(float);
}

static int vector_count(const struct meed_trainer *trainer)
{
    return trainer->gradient_sum_dev ? 4 : 3;
}

static size_t file_bytes(const struct meed_trainer *trainer)
{
    return HEADER_BYTES + (size_t)vector_count(trainer) * vector_bytes(trainer) + MEED_SHA256_BYTES;
}

/* The vectors of a checkpoint, in file order. */
static float *vector_at(struct meed_trainer *trainer, int idx)
{
    return idx == 0   ? trainer->masters_dev
           : idx == 1 ? meed_optimiser_first_moment(trainer->optimiser)
           : idx == 2 ? meed_optimiser_second_moment(trainer->optimiser)
                      : trainer->gradient_sum_dev;
}

enum meed_status meed_trainer_save(struct meed_trainer *trainer, const char *path)
{
    enum meed_status st = MEED_OK;
    const struct meed_backend *be = trainer->be;
    uint8_t header[HEADER_BYTES], digest[MEED_SHA256_BYTES];
    bool written = false; /* said by all, once rank 0 has written */
    struct meed_buf bytes;
    meed_buf_init(&bytes, file_bytes(trainer));
    memcpy(header, magic, sizeof magic);
    put_u64(header + 8, (uint64_t)meed_trainer_steps_done(trainer));
    put_u64(header + 16, (uint64_t)trainer->position);
    put_u64(header + 24, (uint64_t)trainer->count);
    memcpy(header + 32, trainer->identity, sizeof trainer->identity);
    MEED_TRY_OUT(meed_buf_append(&bytes, header, sizeof header));
    for (int i = 0; i < vector_count(trainer); i++) {
        void *vector = NULL;
        MEED_TRY_OUT(meed_buf_extend(&bytes, vector_bytes(trainer), &vector));
        MEED_TRY_OUT(be->copy_from(be, vector, vector_at(trainer, i), vector_bytes(trainer)));
    }
    meed_sha256(bytes.data, bytes.size, digest);
    MEED_TRY_OUT(meed_buf_append(&bytes, digest, sizeof digest));
    MEED_TRY_OUT(meed_trainer_agree(trainer, bytes.data, bytes.size));
    if (meed_collective_rank(trainer->collective) == 0) {
        MEED_TRY_OUT(meed_file_write_atomic(path, bytes.data, bytes.size));
    }
    MEED_TRY_OUT(meed_collective_any(trainer->collective, true, &written));
out:
    meed_buf_clear(&bytes);
    return st;
}

static enum meed_status check_file(const struct meed_trainer *trainer, const char *path,
                                   const uint8_t *bytes, size_t size)
{
    uint8_t digest[MEED_SHA256_BYTES];
    if (size < HEADER_BYTES || memcmp(bytes, magic, sizeof magic) != 0) {
        return MEED_FAIL(MEED_FORMAT, "%.512s: not a training checkpoint of this version", path);
    }
    if (memcmp(bytes + 32, trainer->identity, sizeof trainer->identity) != 0 ||
        get_u64(bytes + 24) != (uint64_t)trainer->count || size != file_bytes(trainer)) {
        return MEED_FAIL(MEED_VERSION,
                         "%.512s was written by a run with another model, start, data or options; "
                         "repeat those, or remove the file to start over",
                         path);
    }
    meed_sha256(bytes, size - sizeof digest, digest);
    if (memcmp(bytes + size - sizeof digest, digest, sizeof digest) != 0) {
        return MEED_FAIL(MEED_INTEGRITY, "%.512s is damaged; remove it to start over", path);
    }
    if (get_u64(bytes + 8) > (uint64_t)trainer->options.steps || get_u64(bytes + 16) >> 62 != 0) {
        return MEED_FAIL(MEED_FORMAT, "%.512s: step %llu of %lld", path,
                         (unsigned long long)get_u64(bytes + 8), (long long)trainer->options.steps);
    }
    return MEED_OK;
}

enum meed_status meed_trainer_resume(struct meed_trainer *trainer, const char *path)
{
    enum meed_status st = MEED_OK;
    const struct meed_backend *be = trainer->be;
    struct meed_buf file;
    meed_buf_init(&file, file_bytes(trainer) + 1);
    MEED_TRY_OUT(meed_file_read(path, &file));
    const uint8_t *bytes = (const uint8_t *)file.data;
    MEED_TRY_OUT(check_file(trainer, path, bytes, file.size));
    for (int i = 0; i < vector_count(trainer); i++) {
        const uint8_t *vector = bytes + HEADER_BYTES + (size_t)i * vector_bytes(trainer);
        memcpy(trainer->flat_host, vector, vector_bytes(trainer));
        MEED_TRY_OUT(
            be->copy_to(be, vector_at(trainer, i), trainer->flat_host, vector_bytes(trainer)));
    }
    meed_optimiser_set_steps(trainer->optimiser, (int64_t)get_u64(bytes + 8));
    trainer->position = (int64_t)get_u64(bytes + 16);
    meed_net_load_masters(trainer->net, trainer->masters_dev);
    MEED_TRY_OUT(be->sync(be));
out:
    meed_buf_clear(&file);
    return st;
}
