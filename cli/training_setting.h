/* Settings of the training that hang together: a method, and what belongs to it alone.
 *
 * A federation file gives them together, a simulation's sweep one by one, and either must end with
 * a plan in which nothing of another method is left: fedpit's keys at their defaults when it is
 * chosen, all of them zero when it is not (proto/sharing.h refuses the rest).
 *
 *   training.method   fedit, fedprox, scaffold, fedpit
 *   training.share    all (which is fedit), synthetic, mix, none (which are fedpit)
 *   training.beta     of a mix; chooses it
 *   training.mix      product, factors; chooses it
 */
#ifndef MEED_CLI_TRAINING_SETTING_H
#define MEED_CLI_TRAINING_SETTING_H

#include "proto/message.h"

/* The plan with this method; a plan that has it already stays as it is. */
void meed_training_setting_method(struct meed_msg_plan *plan, enum meed_method method);
/* The plan with this rule and the method that goes with it. */
void meed_training_setting_share(struct meed_msg_plan *plan, enum meed_share_rule share);
/* One of the keys above, without the prefix. ARG lists what there is; the plan stays. */
MEED_MUST_CHECK enum meed_status meed_training_setting_set(struct meed_msg_plan *plan,
                                                           const char *key, const char *value);

#endif
