/* A base model on disk: configuration, mapped weights, and the hash that names it.
 *
 * A checkpoint is opened once a process and shared by every network built from it; it is read-only
 * and holds no device memory. Its hash (SHA-256 over config.json and the weight files in name
 * order) is what server and client compare before they work together.
 */
#ifndef MEED_ENGINE_CHECKPOINT_H
#define MEED_ENGINE_CHECKPOINT_H

#include "base/hash.h"
#include "engine/model_config.h"
#include "engine/safetensors.h"

MEED_BEGIN_C

struct meed_checkpoint {
    struct meed_model_config config;
    struct meed_safetensors *weights;
    char folder[1024];
    uint8_t hash[MEED_SHA256_BYTES];
};

/* Opens and checks that every tensor of the parameter table is there with its shape. */
MEED_MUST_CHECK enum meed_status meed_checkpoint_open(const char *folder,
                                                      struct meed_checkpoint **checkpoint);
void meed_checkpoint_close(struct meed_checkpoint *checkpoint); /* accepts NULL */

MEED_END_C
#endif
