/* What verification.c (the run) and verification_round.c (one round) share. */
#ifndef MEED_SERVER_VERIFICATION_PRIVATE_H
#define MEED_SERVER_VERIFICATION_PRIVATE_H

#include "server/appraisal.h"
#include "server/verification.h"

struct meed_verification {
    struct meed_arena arena; /* genesis, clients */
    char folder[MEED_PATH_BYTES - 256];
    struct meed_ledger *ledger;
    struct meed_store *store; /* NULL: not kept */
    struct meed_ledger_genesis genesis;
    int32_t rounds; /* in the ledger */
    bool finished;  /* it has a final entry */
    bool known;     /* terms, registry */
    struct meed_terms terms;
    struct meed_registry *registry;
    char machine[64]; /* that the run was valued on; "" if unknown */
    struct meed_verification_tools tools;
    struct meed_appraisal appraisal;
    struct meed_settlement_basis basis;
};

/* Where a difference is looked for. */
struct meed_verification_at {
    struct meed_verification_round *round;
    enum meed_verification_part part;
    const char *client; /* NULL: of the whole round */
};

/* Each returns true if both agree, and else writes the sentence. */
bool meed_verification_agree_hash(const struct meed_verification_at *at, const char *what,
                                  const uint8_t *says, const uint8_t *found);
bool meed_verification_agree_text(const struct meed_verification_at *at, const char *what,
                                  const char *says, const char *found);
bool meed_verification_agree_integer(const struct meed_verification_at *at, const char *what,
                                     int64_t says, int64_t found);
bool meed_verification_agree_real(const struct meed_verification_at *at, const char *what,
                                  double says, double found);
void meed_verification_tell(const struct meed_verification_at *at,
                            enum meed_verification_state state, const char *format, ...)
    MEED_PRINTF(3, 4);

/* The adapter that follows the entry of `round` (0: genesis), settled or abandoned. */
MEED_MUST_CHECK enum meed_status meed_verification_after(const struct meed_verification *v,
                                                         int32_t round,
                                                         uint8_t hash[MEED_SHA256_BYTES]);
/* A round's entry, settled. */
MEED_MUST_CHECK enum meed_status meed_verification_entry(const struct meed_verification *v,
                                                         int32_t round, struct meed_arena *arena,
                                                         struct meed_ledger_round *entry);

#endif
