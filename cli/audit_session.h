/* An audit from its options to its result: opens the files, builds the models, runs the attacks.
 *
 * Apart from cmd_audit.c, which knows how options are written, and from audit_table.c and
 * audit_json.c, which know how a result is shown.
 */
#ifndef MEED_CLI_AUDIT_SESSION_H
#define MEED_CLI_AUDIT_SESSION_H

#include "cli/audit_result.h"

enum { MEED_AUDIT_MAX_ADAPTERS = 64 };

/* Bits of `attacks`, in the order of meed_audit_attack_names. */
enum {
    MEED_AUDIT_EXTRACTION = 1,
    MEED_AUDIT_EXPOSURE = 2,
    MEED_AUDIT_MEMBERSHIP = 4,
    MEED_AUDIT_FREQUENCY = 8
};
extern const char *const meed_audit_attack_names[4];

struct meed_audit_options {
    const char *model, *data;                   /* paths; all borrowed */
    const char *paths[MEED_AUDIT_MAX_ADAPTERS]; /* adapters and updates, as given */
    bool is_update[MEED_AUDIT_MAX_ADAPTERS];
    int32_t path_count;
    const char *global, *reference, *benchmark;    /* NULL: none */
    const char *non_members, *attacker, *canaries; /* NULL: none */
    uint32_t attacks;                              /* 0: all that the files allow */
    int64_t examples, candidates, prefixes, samples, context, seed, threads;
    double min_k; /* percent */
    double temperature;
    struct meed_extraction_options extraction;
    const char *device;
    enum meed_block_format base;
    bool quiet;
};

struct meed_audit_session;

/* ARG for attacks whose files are not given, and what the files' readers say. */
MEED_MUST_CHECK enum meed_status meed_audit_session_open(const struct meed_audit_options *options,
                                                         struct meed_audit_session **session);
MEED_MUST_CHECK enum meed_status meed_audit_session_run(struct meed_audit_session *session);
/* Borrowed until close. */
const struct meed_audit_result *meed_audit_session_result(const struct meed_audit_session *session);
void meed_audit_session_close(struct meed_audit_session *session); /* accepts NULL */

#endif
