/* The adapters of one round, read from their blobs: what every stage of settlement begins with.
 *
 * Decoded once a round and kept until the next, because three stages in a row want them; after a
 * restart the first stage that needs them reads them again. Clients are in id order, whatever
 * order they came in.
 */
#ifndef MEED_SERVER_COHORT_H
#define MEED_SERVER_COHORT_H

#include "server/store.h"
#include "server/terms.h"

MEED_BEGIN_C

struct meed_cohort {
    struct meed_arena arena;
    int32_t round;
    uint8_t base_hash[MEED_SHA256_BYTES];
    struct meed_adapter *global;
    int32_t count;
    struct meed_store_update *updates; /* [count] */
    const char **names;                /* [count] */
    struct meed_adapter **adapters;    /* [count] */
    int64_t control_count;             /* SCAFFOLD: values of a control variate; else 0 */
    float **controls;                  /* [count] its changes, [control_count] each */
};

/* The updates of a round on its base; INTEGRITY or what decoding said if a blob is damaged. */
MEED_MUST_CHECK enum meed_status meed_cohort_load(const struct meed_terms *terms,
                                                  struct meed_store *store, int32_t round,
                                                  const uint8_t base_hash[MEED_SHA256_BYTES],
                                                  struct meed_cohort **cohort);
void meed_cohort_destroy(struct meed_cohort *cohort); /* accepts NULL */
/* One adapter by its hash. */
MEED_MUST_CHECK enum meed_status meed_cohort_adapter(const struct meed_terms *terms,
                                                     struct meed_store *store,
                                                     const uint8_t hash[MEED_SHA256_BYTES],
                                                     struct meed_adapter **adapter);

MEED_END_C
#endif
