/* The report of a run as JSON: what `--json` writes, made from the ledger and the counters.
 *
 *   {"budget", "seconds", "adapter", "run",
 *    "rounds": [{"round", "utility_before", "utility_after", "retained",
 *                "merge": {"method", "update_norm", "fedit_error", "retained_energy",
 *                          "frozen_ranks", "updates", "bytes_up", "bytes_down"},
 *                "clients": [{"id", "phi", "se", "share", "status", "reason", "remark",
 *                             "score", "weight", "standing", "strikes",
 *                             "loss", "bytes_up", "bytes_down", "privacy"}]}],
 *    "total": [{"id", "share"}]}
 *
 * `budget` is that of the rounds listed plus those to come; abandoned rounds have "abandoned": true
 * and no clients. `merge` is aggregate.h's report of ΔW* = Σ p_k ΔW_k: its norm, what a mean of
 * factors would miss of it, what the cut to the rank kept, and the bytes of all clients. `status`
 * is paid, unpaid, excluded or absent, `reason` says why, `remark` what the screens saw of an
 * update that they let pass; `loss` is the client's own figure and missing where it sent
 * no update, like `privacy`, the line of its receipt (proto/sharing.h), `score`, the detectors'
 * anomaly score, and `weight`, its p_k in the merge. `standing` is quarantine or probation where
 * the client took part in the round under one, and `strikes` what stands against it after the
 * round; both are missing where nobody is ever quarantined. Numbers of money are integers in the
 * unit of the configuration. The file is replaced as a whole after every round.
 */
#ifndef MEED_SERVER_REPORT_JSON_H
#define MEED_SERVER_REPORT_JSON_H

#include "server/ledger.h"
#include "server/store.h"
#include "server/terms.h"

MEED_BEGIN_C

/* The store's stages that hold a round's struct meed_aggregate_report, and a struct
 * meed_defence_client for each update in id order. */
#define MEED_REPORT_STAGE_MERGED "merged"
#define MEED_REPORT_STAGE_SCREENED "screened"

struct meed_report_json_source {
    const struct meed_terms *terms;
    struct meed_ledger *ledger;
    struct meed_store *store;
    double seconds;
    const char *adapter; /* folder */
};

/* Appends the document. */
MEED_MUST_CHECK enum meed_status
meed_report_json_format(const struct meed_report_json_source *source, struct meed_buf *text);
MEED_MUST_CHECK enum meed_status
meed_report_json_write(const struct meed_report_json_source *source, const char *path);

MEED_END_C
#endif
