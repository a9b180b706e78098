/* From an update's bytes to the client's adapter.
 *
 * A client sends the difference of its factors to the round's global adapter (proto/update.h). Here
 * stands the server's half of the negotiated layout, derived from the global adapter's shape, and
 * the sum A_k = A_g + dA_k, B_k = B_g + dB_k. A difference of exactly 0 keeps the global factor's
 * bits, so that an unchanged adapter is recognised as such (−0 + 0 would not be).
 *
 * Bytes are checked twice by the same function: when they are pushed, so that a client hears at
 * once what is wrong, and when the round is settled, from the blob.
 */
#ifndef MEED_SERVER_INCOMING_H
#define MEED_SERVER_INCOMING_H

#include "engine/adapter.h"
#include "proto/update.h"
#include "server/terms.h"

MEED_BEGIN_C

struct meed_incoming; /* a layout and room for one update's values; one thread at a time */

/* control: SCAFFOLD, the layout goes on with a change of the control variate, factor by factor. */
MEED_MUST_CHECK enum meed_status meed_incoming_create(const struct meed_adapter *shape,
                                                      bool control,
                                                      struct meed_incoming **incoming);
void meed_incoming_destroy(struct meed_incoming *incoming); /* accepts NULL */
/* The most that an update of this layout may take on the wire. */
int64_t meed_incoming_max_bytes(const struct meed_incoming *incoming);

/* Reads the bytes of `client`'s update; the statuses are those of meed_update_decode, and FORMAT
 * for a change of factors that the plan does not train. */
MEED_MUST_CHECK enum meed_status meed_incoming_decode(struct meed_incoming *incoming,
                                                      const struct meed_terms *terms,
                                                      const char *client, int32_t round,
                                                      const uint8_t base_hash[MEED_SHA256_BYTES],
                                                      const void *bytes, size_t size);
/* The adapter that the last decoded update makes of the global one, whose first ranks it covers:
 * ranks behind them stay (engine/adapter_split.h). */
MEED_MUST_CHECK enum meed_status meed_incoming_apply(const struct meed_incoming *incoming,
                                                     const struct meed_adapter *global,
                                                     struct meed_adapter **adapter);

/* The last decoded update's change of the control variate [values of shape], flat; NULL without. */
const float *meed_incoming_control(const struct meed_incoming *incoming);

MEED_END_C
#endif
