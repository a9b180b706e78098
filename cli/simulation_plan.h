/* The `simulate:` section of a federation file: who takes part in an experiment, and what varies.
 *
 *   simulate:
 *     data: [clients/clinic.jsonl, clients/bank.jsonl]   # a pool; a file's name is its label
 *     seeds: [1, 2, 3]
 *     partition: {kind: dirichlet, alpha: 0.5, dialogues: 40}
 *     clients:
 *       - {name: good, count: 8}
 *       - {name: noisy, count: 2, quality: 0.5}          # half of the replies are random words
 *       - {name: thief, count: 1, attack: replay}
 *     attack: {kind: swap, share: 0.3}                   # of all clients, drawn by the seed
 *     scheme: federated                                  # or centralised, local
 * (simulation_alone.h) leakage: {examples: 100, canaries: 2}              # what comes out again
 * (simulation_leakage.h) sweep:
 *       - {key: attack, values: [swap, flip, gap]}
 *       - {key: share, values: [0.1, 0.3]}
 *       - {key: aggregation+guard_z, values: [svd+2.576, fedavg+100]}   # two at once
 *
 * The grid is the product of the swept values and the seeds; a cell is one federation. Everything
 * above `simulate:` is read as `meed up` reads it. Kinds are those of evaluation/partition.h and
 * evaluation/attack.h; sweepable keys are listed by `meed help simulate`.
 */
#ifndef MEED_CLI_SIMULATION_PLAN_H
#define MEED_CLI_SIMULATION_PLAN_H

#include "evaluation/attack.h"
#include "evaluation/partition.h"

enum {
    MEED_SIMULATION_MAX_DATA = 16,
    MEED_SIMULATION_MAX_SEEDS = 64,
    MEED_SIMULATION_MAX_GROUPS = 32,
    MEED_SIMULATION_MAX_SWEEPS = 4,
    MEED_SIMULATION_MAX_VALUES = 32,
    MEED_SIMULATION_MAX_CLIENTS = 4096,
    MEED_SIMULATION_WORD_BYTES = 32,
    MEED_SIMULATION_SETTING_BYTES = 64
};

/* What is trained with what: together in rounds, or to hold that against, without a federation. */
enum meed_simulation_scheme {
    MEED_SIMULATION_FEDERATED,
    MEED_SIMULATION_CENTRALISED,
    MEED_SIMULATION_LOCAL,
    MEED_SIMULATION_SCHEME_COUNT
};
extern const char *const meed_simulation_scheme_names[MEED_SIMULATION_SCHEME_COUNT];

/* Extraction from the models of a cell. examples 0: not measured. */
struct meed_simulation_leak_plan {
    int64_t examples;   /* dialogues asked for, of all clients together */
    int64_t prefix;     /* tokens of the reply that are given */
    int64_t new_tokens; /* of a continuation at most */
    int64_t canaries;   /* planted into every client's data, beside what the partition deals */
    int64_t repeat;     /* copies of each */
    int64_t unseen;     /* dialogues of the benchmark asked for beside them; 0: none */
};

struct meed_simulation_group {
    char name[MEED_SIMULATION_WORD_BYTES];
    int32_t count;
    enum meed_attack attack;
    double strength;
    double quality; /* share of dialogues whose replies are left as they are */
    double amount;  /* weight of a member's data; 0: the partition's own */
};

struct meed_simulation_sweep {
    char key[MEED_SIMULATION_SETTING_BYTES]; /* one, or several with + between */
    int32_t value_count;
    char values[MEED_SIMULATION_MAX_VALUES][MEED_SIMULATION_SETTING_BYTES];
};

struct meed_simulation_plan {
    int32_t data_count;
    char data[MEED_SIMULATION_MAX_DATA][1024]; /* resolved */
    int32_t seed_count;
    uint64_t seeds[MEED_SIMULATION_MAX_SEEDS];
    enum meed_partition_kind partition;
    double alpha;
    int64_t dialogues; /* a client at most; few_shot: exactly. 0: no bound */
    int32_t group_count;
    struct meed_simulation_group groups[MEED_SIMULATION_MAX_GROUPS];
    enum meed_attack attack; /* of `share` of all clients, beside what groups say */
    double share, strength;
    bool own_strength; /* given, not the attack's default */
    enum meed_simulation_scheme scheme;
    struct meed_simulation_leak_plan leakage;
    int32_t sweep_count;
    struct meed_simulation_sweep sweeps[MEED_SIMULATION_MAX_SWEEPS];
};

struct meed_simulation_raw; /* libcyaml's, of simulation_plan.c */
/* CONFIG names file and key. */
MEED_MUST_CHECK enum meed_status meed_simulation_plan_resolve(const char *path, const char *folder,
                                                              const struct meed_simulation_raw *raw,
                                                              struct meed_simulation_plan *plan);
/* ARG lists the names. */
MEED_MUST_CHECK enum meed_status meed_simulation_scheme_parse(const char *name,
                                                              enum meed_simulation_scheme *scheme);
int32_t meed_simulation_plan_clients(const struct meed_simulation_plan *plan);
/* Stands for that many in the largest group, others as they are. */
MEED_MUST_CHECK enum meed_status meed_simulation_plan_resize(struct meed_simulation_plan *plan,
                                                             int32_t clients);

#endif
