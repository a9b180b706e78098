/* Quarantine: what repeated exclusion costs, and how a client comes back.
 *
 *   k strikes     rounds in which the client was excluded, by a screen, a guard or a negative value
 *   m rounds out  it may send, and what it sends is screened, but not valued, paid or aggregated
 *   p rounds on probation  it is valued, aggregated and paid like all others, and one more strike
 *                 sends it back at once
 *
 * After a clean probation it starts over with no strikes. Pay on probation is not withheld: a
 * budget belongs to its round and is split among those who earned it then, so withheld credits
 * would have to be taken from a later cohort or printed.
 *
 * There is no state beside the ledger. Where a client stands is replayed from the rounds' entries,
 * whose `excluded` is all it needs: rounds out are known from the replay itself, so they never
 * count as strikes. So it survives whatever the ledger survives, an auditor finds the same, and a
 * round settled again is settled alike. Abandoned rounds pass without a trace but do pass.
 */
#ifndef MEED_SERVER_QUARANTINE_H
#define MEED_SERVER_QUARANTINE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

struct meed_ledger;

struct meed_quarantine_options {
    int32_t strikes;   /* k; 0: nobody is ever quarantined */
    int32_t rounds;    /* m ≥ 1 */
    int32_t probation; /* p ≥ 0 */
};

struct meed_quarantine_client {
    int32_t strikes;   /* since the last release */
    int32_t out_until; /* last round out; 0: never was */
    int32_t on_until;  /* last round on probation */
};

/* CONFIG names what is out of range. */
MEED_MUST_CHECK enum meed_status
meed_quarantine_check(const struct meed_quarantine_options *options);
bool meed_quarantine_holds(const struct meed_quarantine_client *client, int32_t round);
/* After a round: what its exclusion, or none, does to the client. Rounds in rising order. */
void meed_quarantine_note(const struct meed_quarantine_options *options, int32_t round,
                          bool excluded, struct meed_quarantine_client *client);
/* clients [count], of names in id order, as they stand when `round` begins. */
MEED_MUST_CHECK enum meed_status
meed_quarantine_replay(const struct meed_quarantine_options *options, struct meed_ledger *ledger,
                       int32_t round, const char *const *names, int32_t count,
                       struct meed_quarantine_client *clients);

MEED_END_C
#endif
