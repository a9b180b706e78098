/* Ledger entries to JSON bodies and back; the file format is told in ledger.h.
 *
 * Encoding is canonical because there is one encoder: keys sorted, no blanks, 17 significant
 * digits, hashes in lower-case hex. Verification hashes the bytes as they stand and never
 * re-encodes, so an auditor's tool needs SHA-256 and a JSON reader, not this code. The file names
 * of JSON stay here.
 */
#ifndef MEED_SERVER_LEDGER_BODY_H
#define MEED_SERVER_LEDGER_BODY_H

#include "server/ledger.h"

MEED_BEGIN_C

/* Index and previous hash of the entry to be written, in front of every body. */
struct meed_ledger_link {
    int64_t index;
    const uint8_t *prev_hash;
};

MEED_MUST_CHECK enum meed_status meed_ledger_body_genesis(const struct meed_ledger_link *link,
                                                          const struct meed_ledger_genesis *entry,
                                                          struct meed_buf *body);
/* BUG if the amounts do not add up. */
MEED_MUST_CHECK enum meed_status meed_ledger_body_round(const struct meed_ledger_link *link,
                                                        const struct meed_ledger_round *entry,
                                                        struct meed_buf *body);
MEED_MUST_CHECK enum meed_status
meed_ledger_body_abandoned(const struct meed_ledger_link *link, const char *run_id, int32_t round,
                           const uint8_t *before_hash, const char *reason, struct meed_buf *body);
MEED_MUST_CHECK enum meed_status meed_ledger_body_final(const struct meed_ledger_link *link,
                                                        const char *run_id,
                                                        const uint8_t *adapter_hash,
                                                        const struct meed_ledger_total *totals,
                                                        int32_t total_count, struct meed_buf *body);

/* What the chain needs of any body, and for rounds the conservation check. */
struct meed_ledger_head {
    int64_t index;
    enum meed_ledger_kind kind;
    int32_t round;
    uint8_t prev_hash[MEED_SHA256_BYTES];
};
MEED_MUST_CHECK enum meed_status meed_ledger_body_head(const char *body, size_t size,
                                                       struct meed_ledger_head *head);

MEED_END_C
#endif
