/* Client-level differential privacy of what a client sends, by clipping and Gaussian noise.
 *
 *     Δ  = trained − global, all trained factors as one vector
 *     Δ′ = Δ · min(1, C/‖Δ‖) + N(0, (zC)²) in every coordinate
 *
 * Space. The noise goes into the difference of the factors, not into ΔW = B·A: a bound on ‖Δ‖ is
 * one that this client enforces by itself on exactly what it sends, whatever the training, the rule
 * of sharing (isolation.h) or the data did. ΔW's norm depends on the global factors as well, and
 * noise in N × K coordinates would have to be cut to the rank again.
 *
 * Promise. Neighbours are all of this client's data against any other data: Δ, clipped, moves by
 * at most 2C, so a round is a Gaussian mechanism with σ = z/2 (privacy_accountant.h). It holds
 * against the aggregator and everybody after it, for codec, error feedback and every use of the
 * update: these see Δ′ and earlier Δ′ alone. All rounds of the run are added up, each update
 * counted once it exists, delivered or not. A figure for with or without this client at all would
 * be that of σ = z; it is not told, because a server knows who takes part.
 *
 * For the same reason the numbers beside the update that describe the data (loss, tokens, seconds,
 * examples) are sent as 0. What is not covered: the number of examples told when joining, and how
 * long a client takes.
 *
 * Noise. Deviates come from SHA-256 of a secret of the state folder, the run, the round and a
 * counter: nobody else can draw them, and a restart draws the same ones. fp64 Box–Muller is rounded
 * to fp32 and then to the codec's steps; the attack on the low bits of such samples (Mironov 2012)
 * is not defended against beyond that.
 *
 * Whether an update survives is a matter of sizes: d coordinates give the noise a norm of zC√d.
 */
#ifndef MEED_CLIENT_PRIVACY_H
#define MEED_CLIENT_PRIVACY_H

#include "client/privacy_accountant.h"
#include "engine/adapter.h"
#include "proto/message.h"

MEED_BEGIN_C

enum { MEED_PRIVACY_SECRET_BYTES = 32 };

struct meed_privacy_noise {
    uint8_t secret[MEED_PRIVACY_SECRET_BYTES];
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
};

/* The secret in its file; made, for its owner alone to read, if there is none. */
MEED_MUST_CHECK enum meed_status meed_privacy_secret(const char *path,
                                                     uint8_t secret[MEED_PRIVACY_SECRET_BYTES]);
/* `count` standard normal deviates of a round, from the `first` on. */
void meed_privacy_normals(const struct meed_privacy_noise *noise, int64_t first, int64_t count,
                          double *values);
/* trained becomes global + Δ′ by the plan's C and z; a factor that is not trained keeps the
 * global's. *norm is ‖Δ‖ before. NUMERIC if Δ is not finite. */
MEED_MUST_CHECK enum meed_status meed_privacy_apply(const struct meed_privacy_noise *noise,
                                                    const struct meed_msg_plan *plan,
                                                    const struct meed_adapter *global,
                                                    struct meed_adapter *trained, double *norm);
/* One update's share of the account. */
void meed_privacy_spend(struct meed_privacy_accountant *accountant, double dp_noise);

MEED_END_C
#endif
