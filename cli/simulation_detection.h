/* How well attackers' updates can be told from honest ones, over the seeds of one combination.
 *
 * A single federation has few attackers, and its AUROC moves in large steps; the cells of a row
 * differ in nothing but the seed, and both scores are ratios to thresholds that do not depend on
 * it, so their updates may be ranked together. Rounds are not: steps shrink as training goes on,
 * and a free-rider of the first round has nothing to replay. So the area is taken round by round
 * and its mean over rounds is what a row is judged by; the curve alone pools the rounds as well.
 *
 * Made from the cells' documents (simulation_result.h), which are all that a resumed run has:
 *
 *   "attacks": [                                  # kinds in order of appearance; [] if there is
 * none
 *      {"attack": "swap",
 *       "updates", "honest": how many of either,
 *       "excluded": share of the kind's updates, "pay": its share of all that was paid,
 *       "auroc_score", "auroc_combined": means over rounds,
 *       "rounds": [{"round": 1, "auroc_score", "auroc_combined"}],
 *       "roc": {"score": [[x, y], …], "combined": …}}]   # corners: honest flagged, attackers
 * flagged
 *
 * null where a side has no update that was scored; a curve is then [].
 */
#ifndef MEED_CLI_SIMULATION_DETECTION_H
#define MEED_CLI_SIMULATION_DETECTION_H

#include <jansson.h>
#include "base/status.h"

/* cells: array of documents; *attacks is the caller's. */
MEED_MUST_CHECK enum meed_status meed_simulation_detection(const json_t *cells, json_t **attacks);

#endif
