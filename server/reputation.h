/* Reputation in pay: what a client was paid when it last took part, replayed from the ledger.
 *
 *   standing_k = share_k·m/Σ shares    of the last settled round before this one that k took part
 *                                      in and that paid anybody; m clients were paid in it
 *
 * so 1 is the mean of those who were paid, 0 is who was excluded, idle or worth nothing, and a
 * client that has never taken part has none (−1): it is a newcomer, not a bad one. A round that
 * paid nobody says nothing about anybody, and absence leaves a standing as it was, since the ledger
 * cannot tell a client that left from one whose line was cut.
 *
 * What the past counts for is evaluation/payment.h's; because pay already holds the past before it,
 * the last round is all there is to read, and pay becomes an exponential moving average. There is
 * no state beside the ledger, as in quarantine.h and for its reasons: integers of credits come back
 * as the same doubles, so a round settled again, or by an auditor, is settled alike.
 *
 * Left out: decay by time. A client that comes back after a hundred rounds is paid by what it was;
 * its first round moves that by 1 − λ like any other.
 */
#ifndef MEED_SERVER_REPUTATION_H
#define MEED_SERVER_REPUTATION_H

#include "server/ledger.h"

MEED_BEGIN_C

/* standing [count], of names in id order, as they stand when `round` begins. */
MEED_MUST_CHECK enum meed_status meed_reputation_replay(struct meed_ledger *ledger, int32_t round,
                                                        const char *const *names, int32_t count,
                                                        double *standing);
/* What one settled round says, where nothing later has: standings that are not yet known (< 0) are
 * filled in. Rounds in falling order. Returns how many are still unknown. */
int32_t meed_reputation_note(const struct meed_ledger_round *entry, const char *const *names,
                             int32_t count, double *standing);

MEED_END_C
#endif
