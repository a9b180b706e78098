/* What a simulated federation leaves behind: one JSON a cell, one JSON for the grid.
 *
 * A cell is one federation: one combination of the swept settings and one seed. OUT/cells/KEY.json
 * is written when the cell is finished, and its presence is what a resumed run goes by.
 *
 *   {"schema": "meed.simulation.cell/1",
 *    "name": text, "key": "attack=swap,share=0.3,seed=1", "source": sha256 of the YAML file,
 *    "settings": {"attack": "swap", "share": "0.3"},      # swept keys, as written in the file
 *    "seed": 1, "seconds": 12.5,
 *    "scheme": "federated", "method": "gradient", "aggregation": "svd", "rule": "shrunk",
 * "partition": "iid", "axes": [{"name", "kind": "likelihood|contrast|preference", "weight",
 * "guard": bool}], "clients": [                                          # the truth, in id order
 *       {"id", "group", "attack": "none|swap|…", "strength", "quality": 0…1,
 *        "dialogues", "tokens", "labels": {"clinic": 12, …},
 *        "share": credits of all rounds, "excluded": rounds in which it was left out}],
 *    "rounds": [
 *       {"round": 1, "seconds": training to publication, "training_seconds",
 *        "utility_before", "utility_after",                # paid utility, nats a token
 *        "axes": [{"value", "se"}],                        # of the published adapter, axis order
 *        "clients": [                                      # in id order
 *           {"id", "state": "paid|unpaid|excluded|absent", "reason": text, "remark": text,
 *            "phi", "se", "share",
 *            "score": the detectors' anomaly score, null where nothing was sent,
 *            "verdict": score of the verdict on its value (evaluation/verdict.h), null likewise,
 *            "combined": the larger of both; null where nothing was measured,
 *            "loss", "bytes_up", "bytes_down",
 *            "axes": [{"phi", "se"}]}]}],                  # [] where it was not valued
 *    "leakage": null, or where it was measured (simulation_leakage.h)
 *       {"prefix", "new_tokens", "canaries", "repeat",
 *        "models": [{"kind": "global|update|own", "round",
 *           "examples", "secrets", "secrets_found",
 *           "rouge", "rouge_se", "gain", "gain_se",        # of ROUGE-L over the base, paired
 *           "exact", "exact_gain",
 *           "unseen_examples", "unseen", "unseen_se": gain on dialogues that nobody trained on}]},
 *    "summary": {                                          # null where there is no answer
 *       "utility_before", "utility_after", "gain": of the first base, of the last adapter, between,
 *       "budget", "paid",                                  # credits
 *       "honest_share", "attacker_share": of what was paid, 0…1,
 *       "auroc_score", "auroc_combined": of attackers' updates against honest ones by the two
 *                scores above, a mean over rounds,
 *       "caught": share of attackers' updates that were excluded,
 *       "false_exclusion": the same of honest clients,
 *       "spread": largest |pay/mean − 1| of honest clients,
 *       "spearman_quality", "spearman_amount": of pay with the known order, honest clients,
 *       "utility_own": paid utility, mean over the models that stay at home,
 *       "leak_global", "leak_update", "leak_own": gains of ROUGE-L over the base, last round,
 *       "memory_global", "memory_update", "memory_own": the same less the gain on unseen dialogues,
 *       "secrets_global", "secrets_update": share of the secrets asked for that came out,
 *       "axis_NAME": a guard axis' value of the last adapter}}
 *
 * A cell with attackers has a clean twin: the same settings and seed, and nobody who attacks. That
 * is the row of the grid without attack where there is one, else one more cell, kept as
 * OUT/cells/clean,….json and run once whatever the number of attacks that are held against it.
 *
 * OUT/simulation.json, replaced after every cell:
 *
 *   {"schema": "meed.simulation/1", "name", "source", "seeds": [1, 2, 3],
 *    "sweep": [{"key": "attack", "values": ["swap", "flip"]}],
 *    "cells": [{"key", "file": "cells/….json", "settings", "seed",      # finished ones
 *               "clean": file of the twin or null,
 *               "summary": the cell's and, where there is a twin,
 *                  "gain_kept": gain / gain of the twin, null if the twin gains nothing,
 *                  "axis_NAME_change": axis_NAME − that of the twin}],
 *    "rows": [{"settings",
 *              "summary": {"utility_after": {"mean", "half", "count"}, …},
 *              "course": see simulation_course.h, "attacks": see simulation_detection.h}]}
 *
 * `half` is that of Student's 95 % interval over seeds, null for a single one. Numbers are those
 * that a run had: nothing is rounded.
 */
#ifndef MEED_CLI_SIMULATION_RESULT_H
#define MEED_CLI_SIMULATION_RESULT_H
#include <jansson.h>
#include "cli/simulation_cast.h"
#include "cli/simulation_grid.h"
#include "cli/simulation_leakage.h"

enum { MEED_SIMULATION_MEASURE_BYTES = 64 }; /* a name in a summary */

/* A client in a round. */
struct meed_simulation_seat {
    enum meed_aggregator_seat state;
    char reason[MEED_LIMIT_REASON_BYTES], remark[MEED_LIMIT_REASON_BYTES];
    double phi, se, loss, score, verdict;
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
    int32_t checkpoint_count; /* rounds whose published models are attacked, the last among them */
    int32_t checkpoints[MEED_SIMULATION_LEAK_ROUNDS];
    int32_t leak_count; /* 0: not measured */
    struct meed_simulation_leak leaks[MEED_SIMULATION_LEAK_ROUNDS + 2];
    double utility_own; /* mean over the models that stay at home; NaN: there are none */
    double seconds;
};
MEED_MUST_CHECK enum meed_status
meed_simulation_result_create(int32_t rounds, int32_t clients,
                              struct meed_simulation_result *result);
void meed_simulation_result_clear(struct meed_simulation_result *result); /* accepts zeroed */

/* What names a cell's place. */
struct meed_simulation_place {
    const struct meed_federation_file *grid; /* as read, before any setting */
    struct meed_simulation_point point;
    const char *source; /* hex */
};
/* The cell's document; NULL when out of memory. */
json_t *meed_simulation_result_json(const struct meed_simulation_place *place,
                                    const struct meed_federation_file *file,
                                    const struct meed_benchmark *benchmark,
                                    const struct meed_simulation_pool *pool,
                                    const struct meed_simulation_cast *cast,
                                    const struct meed_simulation_result *result);
/* {"attack": "swap"}: the swept settings of a point. */
json_t *meed_simulation_settings_json(const struct meed_simulation_plan *plan,
                                      const struct meed_simulation_point *point);
/* A number, null for NaN. */
json_t *meed_simulation_number(double value);

#endif
