/* What an audit found, for people and for programs: a table that says what its figures mean, and
 * "schema": "meed.audit/1", which `meed report` draws.
 *
 * Attacks that did not run have NULL results. Model 0 is the base; results are by model.
 */
#ifndef MEED_CLI_AUDIT_RESULT_H
#define MEED_CLI_AUDIT_RESULT_H

#include "base/hash.h"
#include "evaluation/exposure.h"
#include "evaluation/extraction.h"
#include "evaluation/membership.h"
#include "evaluation/prefix_frequency.h"

enum meed_audit_kind {
    MEED_AUDIT_BASE,
    MEED_AUDIT_REFERENCE,
    MEED_AUDIT_ADAPTER,
    MEED_AUDIT_UPDATE
};

struct meed_audit_model {
    char name[256];
    enum meed_audit_kind kind;
    char hash[MEED_SHA256_HEX_BYTES]; /* of the adapter; "" for the base */
    double quality, quality_se;       /* benchmark value; NaN where none was asked for */
};

struct meed_audit_result {
    const char *base_hash, *data, *non_members, *attacker, *benchmark; /* NULL: not given */
    uint64_t seed;
    int32_t floor; /* the model that gains are over */
    int32_t model_count;
    struct meed_audit_model *models; /* [model_count] */
    struct meed_extraction_options extraction_options;
    struct meed_extraction_row *extraction; /* [model_count, prefix_count] */
    const struct meed_canaries *canaries;
    int32_t candidates;
    struct meed_exposure *exposure; /* [model_count] */
    int32_t members, others;        /* dialogues compared */
    double min_k;
    struct meed_separation *membership;      /* [model_count, MEED_MEMBERSHIP_COUNT] */
    struct meed_frequency_result *frequency; /* [model_count] */
};

void meed_audit_result_print(const struct meed_audit_result *result);
MEED_MUST_CHECK enum meed_status meed_audit_result_write(const struct meed_audit_result *result,
                                                         const char *path);

#endif
