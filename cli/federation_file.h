/* federation.yaml: everything `meed up` and `meed serve` need to know, in one file.
 *
 *   name: tiny
 *   model: model                 # paths are relative to the file
 *   benchmark: benchmark.jsonl
 *   rounds: 3
 *   budget: 3000                 # credits of the whole run, shared out evenly over the rounds
 *   deadline: 10m
 *   device: cuda                 # of aggregator and clients
 *   training: {steps: 24, batch_tokens: 1024, lr: 0.003, rank: 8, alpha: 16}
 *   #  or: {method: fedpit, share: mix, beta: 0.5, synthesis: {candidates: 32, keep: 16}, …}
 *   codec: {values: int8, density: 1.0, zstd: 3}
 *   pay: {rule: shrunk, guard_z: 2.6, reputation: 0.3, floor: 0.1}
 *   clients:
 *     - {id: clinic, data: clients/clinic.jsonl}
 *     - {id: idle, data: clients/idle.jsonl, behaviour: idle, device: cpu}
 *
 * The schema is libcyaml's: an unknown key is an error with its line, and so is a value of the
 * wrong kind. Numbers left out take the defaults that --help and the folder's README print; there
 * is no other source of options, no environment variable. Ranges are checked here, so that nothing
 * below ever sees an impossible plan.
 */
#ifndef MEED_CLI_FEDERATION_FILE_H
#define MEED_CLI_FEDERATION_FILE_H

#include "cli/simulation_plan.h"
#include "server/aggregator.h"

enum { MEED_FEDERATION_MAX_CLIENTS = 16, MEED_FEDERATION_DEVICE_BYTES = 16 };

struct meed_federation_client {
    char id[MEED_LIMIT_ID_BYTES];
    char data[1024];                           /* path, resolved */
    bool idle;                                 /* returns its start unchanged */
    char device[MEED_FEDERATION_DEVICE_BYTES]; /* the federation's where the file names none */
};

struct meed_federation_file {
    char name[64];
    char model[1024];     /* resolved */
    char benchmark[1024]; /* resolved */
    char listen[128];     /* host:port; port 0 picks one */
    int32_t rounds;
    int32_t quorum; /* updates that close a round at the deadline */
    int64_t deadline_ms;
    int64_t budget; /* credits of the whole run */
    uint64_t seed;
    int32_t server_threads;
    int32_t client_threads;
    char device[MEED_FEDERATION_DEVICE_BYTES]; /* of the valuation */
    struct meed_msg_plan plan; /* hyper-parameters and codec; round, hashes and times left zero */
    enum meed_aggregation aggregation;
    double clip_multiple; /* of the cohort's median norm; 0: never */
    enum meed_defence_action defence[MEED_DETECTOR_COUNT];
    struct meed_quarantine_options quarantine;
    struct meed_robust_options robust;
    int32_t frozen_rank;
    enum meed_weighting weighting;
    double sample_cap;
    struct meed_server_options server;
    char repair_data[1024]; /* resolved; "": the operator has none */
    int32_t repair_steps;   /* after each merge; 0: none */
    double repair_lr;
    enum meed_coalition_path path;
    enum meed_value_method method;
    enum meed_pay_rule rule;
    int32_t bootstrap;
    double guard_z;
    double reputation; /* weight of the past in pay */
    double pay_floor;  /* share of each round's budget that is split by heads */
    int32_t client_count;
    struct meed_federation_client clients[MEED_FEDERATION_MAX_CLIENTS];
    struct meed_simulation_plan simulation; /* group_count 0: the file has no `simulate:` */
};

/* CONFIG with file, line and what to write instead. */
MEED_MUST_CHECK enum meed_status meed_federation_file_load(const char *path,
                                                           struct meed_federation_file *file);

/* The aggregator's config for this file: model, benchmark, plan, pay. State, address, identities,
 * TLS and observer are the caller's. Borrows the file's texts. */
void meed_federation_file_config(const struct meed_federation_file *file,
                                 struct meed_aggregator_config *config);

#endif
