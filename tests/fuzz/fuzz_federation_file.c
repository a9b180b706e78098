/* libFuzzer target: federation.yaml.
 *
 * Whatever is accepted must be a plan that nothing below has to doubt: counts in their bounds, a
 * quorum that can be reached, finite rates, distinct ids. A refusal must say where.
 */
#include <math.h>
#include <string.h>

#include "cli/federation_file.h"
#include "tests/fuzz/memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory_file file;

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s (last error: %s)\n", what, meed_last_error());
        abort();
    }
}

static void check_federation(const struct meed_federation_file *federation)
{
    const struct meed_msg_plan *plan = &federation->plan;
    const struct meed_simulation_plan *simulation = &federation->simulation;
    bool simulated = simulation->group_count > 0 && simulation->data_count > 0 &&
                     simulation->seed_count > 0 && meed_simulation_plan_clients(simulation) > 0;
    demand(federation->client_count <= MEED_FEDERATION_MAX_CLIENTS &&
               (federation->client_count >= 1 || simulated),
           "accepted, but nobody takes part");
    demand(federation->client_count == 0 ||
               (federation->quorum >= 1 && federation->quorum <= federation->client_count),
           "accepted, but the quorum cannot be reached");
    demand(federation->rounds >= 1 && federation->budget >= 0 && federation->deadline_ms >= 0 &&
               federation->bootstrap > 0,
           "accepted, but there is nothing to run");
    demand(isfinite(plan->lr) && plan->lr >= 0 && isfinite(plan->alpha) && plan->alpha > 0 &&
               isfinite(plan->dropout) && isfinite(plan->clip_norm) &&
               isfinite(federation->guard_z) && isfinite(federation->clip_multiple),
           "accepted, but a number is not finite");
    demand(plan->steps > 0 && plan->batch_tokens > 0 && plan->accumulation > 0 && plan->rank > 0 &&
               plan->target_modules != 0 && plan->codec.density_a > 0 && plan->codec.density_b > 0,
           "accepted, but nothing would be trained");
    for (int32_t i = 0; i < federation->client_count; i++) {
        demand(federation->clients[i].id[0] != '\0', "accepted, but a client has no name");
        for (int32_t j = 0; j < i; j++) {
            demand(strcmp(federation->clients[i].id, federation->clients[j].id) != 0,
                   "accepted, but two clients have one name");
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct meed_federation_file federation;
    struct meed_aggregator_config config;
    const char *path = memory_file_put(&file, data, size);
    if (meed_federation_file_load(path, &federation) != MEED_OK) {
        demand(strncmp(meed_last_error(), path, strlen(path)) == 0 ||
                   !strstr(meed_last_error(), ":?:"),
               "refused without a place");
        return 0;
    }
    check_federation(&federation);
    meed_federation_file_config(&federation, &config);
    demand(config.rounds == federation.rounds && config.budget == federation.budget,
           "the config is another federation's");
    return 0;
}
