/* Golden models of tests/golden, opened: checkpoint, adapter, the packed batch, expected tensors.
 *
 * The folders are written by tests/golden/generate/make_goldens.py; tests/golden/README.md says
 * what they hold. Functions fail the running cmocka test rather than return statuses.
 */
#ifndef MEED_SUPPORT_GOLDEN_H
#define MEED_SUPPORT_GOLDEN_H

#include "engine/adapter.h"
#include "engine/batch.h"
#include "engine/checkpoint.h"
#include "engine/net.h"

enum { GOLDEN_SEQUENCES = 3, GOLDEN_MAX_LENGTH = 64 };

extern const char *const golden_families[];
extern const int golden_family_count;

struct golden {
    const char *family;
    char folder[512];
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *adapter;
    struct meed_safetensors *expected;
    struct meed_sequence sequences[GOLDEN_SEQUENCES];
    struct meed_batch *batch; /* the three sequences, gate sets 0, 1, 2 */
    int32_t ids[GOLDEN_SEQUENCES][GOLDEN_MAX_LENGTH];
    uint8_t scored[GOLDEN_SEQUENCES][GOLDEN_MAX_LENGTH];
};

/* source_dir is MEED_SOURCE_DIR, which only the test programs know. */
void golden_open(const char *source_dir, const char *family, struct golden *golden);
void golden_close(struct golden *golden);
/* A tensor of expected.safetensors as fp32; *count may be NULL. Free with golden_free. */
float *golden_tensor(const struct golden *golden, const char *name, int64_t *count);
void golden_free(float *values);
/* Largest |got − want| over the largest |want|. */
double golden_worst(const float *got, const float *want, int64_t count);
/* Prints the thread's failure message and fails unless OK. */
void golden_ok(enum meed_status status);

#endif
