/* What of a client's training leaves it: the rule in words, whether a plan's rule makes sense, and
 * the line that receipts and ledgers carry.
 *
 *   all        the change of an adapter that was trained on the client's data
 *   synthetic  the change of one that was trained on examples which the global model wrote
 *   mix        β of the first and 1 − β of the second
 *   none       nothing: the update is the global adapter's own bytes
 *
 * The rule is the plan's, but that it was kept is the client's word: a server sees the update's
 * size, shape and coding and cannot see what it was trained on. So the line is made of two parts,
 * what the client declares in its push header and what the server has measured, and says which is
 * which. Both sides stand on proto/, so both print the same line.
 */
#ifndef MEED_PROTO_SHARING_H
#define MEED_PROTO_SHARING_H

#include "proto/message.h"

MEED_BEGIN_C

/* "all", "synthetic", "mix", "none"; "?" outside the list. */
const char *meed_sharing_rule_name(enum meed_share_rule rule);
const char *meed_sharing_space_name(enum meed_mix_space space); /* "product", "factors" */
const char *meed_sharing_method_name(enum meed_method method);  /* "fedit", "fedprox", … */
/* Which branches a rule trains on: local data, synthetic data. A mix with β = 1 is the first alone,
 * one with β = 0 the second. */
bool meed_sharing_takes_local(enum meed_share_rule rule, double share_mix);
bool meed_sharing_takes_synthetic(enum meed_share_rule rule, double share_mix);
/* What a client may be asked to share at most, as the weight of the private branch in it: 1 all of
 * it, less a mix of that β, 0 what was trained on synthetic examples alone, −1 nothing. */
#define MEED_SHARING_NOTHING (-1.0)
/* "all", "synthetic", "none" or a β. ARG says so. */
MEED_MUST_CHECK enum meed_status meed_sharing_limit_parse(const char *text, double *limit);
/* DENIED if the plan asks for more. */
MEED_MUST_CHECK enum meed_status meed_sharing_within(const struct meed_msg_plan *plan,
                                                     double limit);
/* FORMAT says which fields of the plan contradict each other. */
MEED_MUST_CHECK enum meed_status meed_sharing_check(const struct meed_msg_plan *plan);
/* The line for an update of `header` under `plan`. */
void meed_sharing_line(const struct meed_msg_push_header *header, const struct meed_msg_plan *plan,
                       char line[MEED_LIMIT_PRIVACY_BYTES]);

MEED_END_C
#endif
