/* How the ranks of one training find each other: a file on a folder that they share.
 *
 * Rank 0 listens on a port of the system's choice and publishes where, atomically, in
 * FOLDER/rendezvous-KEY (mode 0600); the others read the file until it is there and dial. KEY names
 * one start of one job (Slurm: job, step, restart), so the file of an earlier start is never taken
 * for this one's; should it bear the same name, dialling fails and the file is read again until
 * rank 0 has replaced it. Text, one field a line:
 *
 *   meed-rendezvous 1
 *   key KEY
 *   address HOST PORT
 *   token 64 hex digits, random
 *
 * Who may read the file may take part: caller and listener prove to each other that they know the
 * token by a SHA-256 over it and the other's nonce, so neither a stranger on the port nor a
 * stranger behind a stale address gets in. Rank 0 removes the file when all are there.
 *
 * Limit: the traffic is neither encrypted nor signed; it is meant for a cluster's own network, as
 * NCCL's is. Ranks are of one byte order.
 */
#ifndef MEED_KERNELS_RENDEZVOUS_H
#define MEED_KERNELS_RENDEZVOUS_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

enum { MEED_RENDEZVOUS_MAX_RANKS = 256, MEED_RENDEZVOUS_KEY_BYTES = 128 };

struct meed_rendezvous {
    int32_t rank, world; /* rank in [0, world), world in [1, MEED_RENDEZVOUS_MAX_RANKS] */
    const char *folder;  /* that all ranks see; made if it is not there */
    const char *key;     /* of this start of the job: letters, digits, '.', '_', '-' */
    bool one_machine;    /* listen on loopback alone */
    int64_t patience_ms; /* how long the others may take to come */
};

/* ARG for a rank, world or key outside the bounds above. */
MEED_MUST_CHECK enum meed_status meed_rendezvous_check(const struct meed_rendezvous *place);
/* Rank 0: sockets[r] for r in [1, world) becomes the connection of rank r; the others are −1.
 * TIMEOUT names who did not come; then (and on any failure) those that came still stand in sockets,
 * for the caller to tell them and to close. */
MEED_MUST_CHECK enum meed_status meed_rendezvous_host(const struct meed_rendezvous *place,
                                                      int sockets[MEED_RENDEZVOUS_MAX_RANKS]);
/* Any other rank: the connection to rank 0. TIMEOUT says what was missing last. */
MEED_MUST_CHECK enum meed_status meed_rendezvous_join(const struct meed_rendezvous *place,
                                                      int *connection);

/* All bytes or RPC, whose message is for the caller to write: interrupted calls go on, a closed
 * connection raises no signal. */
MEED_MUST_CHECK enum meed_status meed_rendezvous_send(int connection, const void *bytes,
                                                      size_t size);
MEED_MUST_CHECK enum meed_status meed_rendezvous_receive(int connection, void *bytes, size_t size);

MEED_END_C
#endif
