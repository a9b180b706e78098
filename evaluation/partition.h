/* Who holds which dialogues: a pool of labelled dialogues dealt out to simulated clients.
 *
 * It stands in evaluation/ because it is a part of an experiment's design, as attacks are: a real
 * client has the data it has. It sees labels and indices, no text, so it deals dialogues of any
 * source; every dialogue is dealt at most once, and all of them are unless `per_client` or the kind
 * says otherwise. Everything is drawn from the seed.
 *
 *   iid        shuffled, equal parts (sizes differ by at most 1)
 *   dirichlet  of each label, shares over clients from Dirichlet(α): small α, few labels a client
 *              (Hsu et al. 2019); a client left with nothing is given one from the largest
 *   domain     client i holds only label i mod labels; clients of a label split it evenly
 *   amount     shuffled, sizes by the weights given or ∝ (i + 1)^−α: from much data to little
 *   few_shot   shuffled, `per_client` each, the rest is not dealt
 */
#ifndef MEED_EVALUATION_PARTITION_H
#define MEED_EVALUATION_PARTITION_H

#include <stdint.h>
#include "base/arena.h"

enum meed_partition_kind {
    MEED_PARTITION_IID,
    MEED_PARTITION_DIRICHLET,
    MEED_PARTITION_DOMAIN,
    MEED_PARTITION_AMOUNT,
    MEED_PARTITION_FEW_SHOT,
    MEED_PARTITION_COUNT
};
extern const char *const meed_partition_names[MEED_PARTITION_COUNT];
/* ARG lists the names. */
MEED_MUST_CHECK enum meed_status meed_partition_parse(const char *name,
                                                      enum meed_partition_kind *kind);

struct meed_partition_options {
    enum meed_partition_kind kind;
    double alpha;          /* dirichlet: concentration, > 0; amount: exponent, ≥ 0 */
    const double *weights; /* [clients] for amount; NULL: the power law */
    int64_t per_client;    /* few_shot; others: at most so many each, 0 for no bound */
    uint64_t seed;
};

struct meed_partition_part {
    int64_t *members; /* [count] indices into the pool */
    int64_t count;
};

/* label [count] < labels. parts [clients] are filled from arena. ARG if there are fewer dialogues
 * than clients, or than few_shot asks for. */
MEED_MUST_CHECK enum meed_status meed_partition_deal(const struct meed_partition_options *options,
                                                     const int32_t *label, int64_t count,
                                                     int32_t labels, int32_t clients,
                                                     struct meed_arena *arena,
                                                     struct meed_partition_part *parts);

#endif
