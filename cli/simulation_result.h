/* What a simulated federation leaves behind: one JSON a cell, one JSON for the grid.
 *
 * A cell is one federation: one combination of the swept settings and one seed. OUT/cells/KEY.json
 * is written when the cell is finished, and its presence is what a resumed run goes by.
 *
 *   {"schema": "meed.simulation.cell/1",
 *    "name": text, "key": "attack=swap,share=0.3,seed=1", "source": sha256 of the YAML file,
 *    "settings": {"attack": "swap", "share": "0.3"},      # swept keys, as written in the file
 *    "seed": 1, "seconds": 12.5,
 *    "method": "gradient", "aggregation": "svd", "rule": "shrunk", "partition": "iid",
 *    "axes": [{"name", "kind": "likelihood|contrast|preference", "weight", "guard": bool}],
 *    "clients": [                                          # the truth, in id order
 *       {"id", "group", "attack": "none|swap|…", "strength", "quality": 0…1,
 *        "dialogues", "tokens", "labels": {"clinic": 12, …},
 *        "share": credits of all rounds, "excluded": rounds in which it was left out}],
 *    "rounds": [
 *       {"round": 1, "seconds": training to publication, "training_seconds",
 *        "utility_before", "utility_after",                # paid utility, nats a token
 *        "axes": [{"value", "se"}],                        # of the published adapter, axis order
 *        "clients": [                                      # in id order
 *           {"id", "state": "paid|unpaid|excluded|absent", "reason": text,
 *            "phi", "se", "share", "score": the detectors' anomaly score,
 *            "loss", "bytes_up", "bytes_down",
 *            "axes": [{"phi", "se"}]}]}],                  # [] where it was not valued
 *    "summary": {                                          # null where there is no answer
 *       "utility_before", "utility_after": of the first base, of the last adapter,
 *       "budget", "paid",                                  # credits
 *       "honest_share", "attacker_share": of what was paid, 0…1,
 *       "auroc": of attackers against honest clients by rounds excluded, then by
 *                the detectors' mean score, then by least pay,
 *       "caught": mean share of rounds in which an attacker was excluded,
 *       "false_exclusion": the same of honest clients,
 *       "spread": largest |pay/mean − 1| of honest clients,
 *       "spearman_quality", "spearman_amount": of pay with the known order, honest clients}}
 *
 * OUT/simulation.json, replaced after every cell:
 *
 *   {"schema": "meed.simulation/1", "name", "source", "seeds": [1, 2, 3],
 *    "sweep": [{"key": "attack", "values": ["swap", "flip"]}],
 *    "cells": [{"key", "file": "cells/….json", "settings", "seed", "summary"}],   # finished ones
 *    "rows": [{"settings", "summary": {"utility_after": {"mean", "half", "count"}, …}}]}
 *
 * `half` is that of Student's 95 % interval over seeds, null for a single one. Numbers are those
 * that a run had: nothing is rounded.
 */
#ifndef MEED_CLI_SIMULATION_RESULT_H
#define MEED_CLI_SIMULATION_RESULT_H
#include <jansson.h>
#include "cli/simulation_cast.h"

/* A client in a round. */
struct meed_simulation_seat {
    enum meed_aggregator_seat state;
    char reason[MEED_LIMIT_REASON_BYTES];
    double phi, se, loss, score;
    int64_t share, bytes_up, bytes_down;
    bool valued; /* axis values are known */
    double axis_phi[MEED_BENCHMARK_MAX_AXES];
    double axis_se[MEED_BENCHMARK_MAX_AXES];
};

struct meed_simulation_round {
    double seconds, training_seconds;
    double utility_before, utility_after;
    double axis_value[MEED_BENCHMARK_MAX_AXES]; /* of the published adapter */
    double axis_se[MEED_BENCHMARK_MAX_AXES];
    struct meed_simulation_seat *seats; /* [clients] */
};

struct meed_simulation_result {
    struct meed_arena arena;
    int32_t round_count, client_count;
    struct meed_simulation_round *rounds; /* [round_count] */
    double seconds;
};
MEED_MUST_CHECK enum meed_status
meed_simulation_result_create(int32_t rounds, int32_t clients,
                              struct meed_simulation_result *result);
void meed_simulation_result_clear(struct meed_simulation_result *result); /* accepts zeroed */

enum { MEED_SIMULATION_MEASURES = 12 };
/* Names of the summary's members, in the order of `measures`. */
extern const char *const meed_simulation_measures[MEED_SIMULATION_MEASURES];
/* NaN where there is no answer. */
void meed_simulation_summarise(const struct meed_federation_file *file,
                               const struct meed_simulation_cast *cast,
                               const struct meed_simulation_result *result,
                               double measures[MEED_SIMULATION_MEASURES]);

/* What names a cell's place. */
struct meed_simulation_place {
    const struct meed_federation_file *grid; /* as read, before any setting */
    int32_t row, seed_idx;
    const char *source; /* hex */
};
/* The cell's document; NULL when out of memory. */
json_t *meed_simulation_result_json(const struct meed_simulation_place *place,
                                    const struct meed_federation_file *file,
                                    const struct meed_benchmark *benchmark,
                                    const struct meed_simulation_pool *pool,
                                    const struct meed_simulation_cast *cast,
                                    const struct meed_simulation_result *result);
/* {"attack": "swap"} of one combination. */
json_t *meed_simulation_settings_json(const struct meed_simulation_plan *plan, int32_t row);
/* A number, null for NaN. */
json_t *meed_simulation_number(double value);

#endif
