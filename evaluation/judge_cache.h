/* Judgments kept on disk: what was asked once is not paid for twice.
 *
 * Wraps a judge. A reply is stored under SHA-256(identity, system, user, kind of mark), so another
 * judge, prompt or answer finds nothing; rows carry a checksum, and one that fails it is asked
 * again. Requests go to the judge in small groups that are stored before the next: killed or cut
 * off, a run continues where it stopped.
 */
#ifndef MEED_EVALUATION_JUDGE_CACHE_H
#define MEED_EVALUATION_JUDGE_CACHE_H

#include "evaluation/judge.h"

MEED_BEGIN_C

/* identity: everything that the replies depend on beside the prompts (model hash, limits). Takes
 * `inner` over, on success only. FORMAT if the file is not a judgment cache. */
MEED_MUST_CHECK enum meed_status meed_judge_cache_open(const char *path, const char *identity,
                                                       struct meed_judge *inner,
                                                       struct meed_judge *judge);

MEED_END_C
#endif
