/* Differential privacy in the worker: noise on what is about to leave, and the account of the run.
 *
 * The account is read from the push headers in the state folder, one for each update that was ever
 * made ready to send: what may have been delivered has been spent. */
#include <string.h>
#include "base/log.h"
#include "client/privacy.h"
#include "client/worker_internal.h"
#include "client/worker_state.h"

#define SECRET_FILE "noise.key"

/* Earlier rounds' updates; FORMAT if one of them went without noise. */
static enum meed_status add_earlier(const char *state_folder, int32_t before,
                                    struct meed_privacy_accountant *accountant)
{
    int32_t round = before;
    while ((round = meed_worker_state_newest(state_folder, round, MEED_WORKER_PUSH)) >= 0) {
        struct meed_msg_push_header header;
        MEED_TRY(meed_worker_read_push(state_folder, round, &header));
        if (header.share == MEED_SHARE_NOTHING) {
            continue;
        }
        if (header.dp_noise <= 0.0) {
            return MEED_FAIL(MEED_FORMAT,
                             "round %d asks for differential privacy, but the update of round %d "
                             "went without noise; what is promised now would not hold",
                             before, round);
        }
        meed_privacy_spend(accountant, header.dp_noise);
    }
    return MEED_OK;
}

enum meed_status meed_worker_privatise(const struct meed_worker *worker,
                                       const struct meed_msg_plan *plan,
                                       const struct meed_adapter *global,
                                       struct meed_adapter *trained, double *epsilon)
{
    const char *state_folder = worker->config->state_folder;
    struct meed_privacy_noise noise = {.round = plan->round};
    struct meed_privacy_accountant accountant = {{0.0}};
    char path[MEED_PATH_BYTES];
    double norm = 0.0;
    memcpy(noise.run_id, worker->run_id, sizeof noise.run_id);
    MEED_TRY(meed_file_join(state_folder, SECRET_FILE, path, sizeof path));
    MEED_TRY(meed_privacy_secret(path, noise.secret));
    MEED_TRY(add_earlier(state_folder, plan->round, &accountant));
    meed_privacy_spend(&accountant, plan->dp_noise);
    MEED_TRY(meed_privacy_apply(&noise, plan, global, trained, &norm));
    *epsilon = meed_privacy_accountant_epsilon(&accountant, plan->dp_delta);
    MEED_LOG_INFO("client", "round %d: clipped and noised (clip=%g noise=%g epsilon=%.4g delta=%g)",
                  plan->round, plan->dp_clip, plan->dp_noise, *epsilon, plan->dp_delta);
    return MEED_OK;
}
