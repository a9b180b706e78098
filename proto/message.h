/* The wire's messages as plain C: what the server and the client see.
 *
 * One struct a message of meed.proto. Codec.c turns received bytes into these after checking every
 * count, range, name and enum, so whoever holds one holds checked values and never meets protobuf.
 * Ids and texts are fixed arrays, always terminated; lists point into the arena that unpack was
 * given (or, before packing, into the caller's memory). A hash of 32 zero bytes means "absent".
 *
 * Times: `remaining_ms` is what a client should obey (clocks of two machines differ);
 * `deadline_wall_ms` is for people and receipts. Credits are integers, 1,000,000 a credit.
 */
#ifndef MEED_PROTO_MESSAGE_H
#define MEED_PROTO_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/hash.h"
#include "proto/limits.h"

MEED_BEGIN_C

/* Service paths, the same on every transport. */
#define MEED_RPC_JOIN "/meed.v1.Federation/Join"
#define MEED_RPC_WATCH "/meed.v1.Federation/Watch"
#define MEED_RPC_PULL "/meed.v1.Federation/PullAdapter"
#define MEED_RPC_QUERY_PUSH "/meed.v1.Federation/QueryPush"
#define MEED_RPC_PUSH "/meed.v1.Federation/PushUpdate"
#define MEED_RPC_RECEIPT "/meed.v1.Federation/GetReceipt"
#define MEED_RPC_LEDGER "/meed.v1.Federation/ReadLedger"

struct meed_msg_join_request {
    uint32_t protocol_version; /* MEED_PROTOCOL_VERSION */
    char software[MEED_LIMIT_SOFTWARE_BYTES];
    char run_id[MEED_LIMIT_ID_BYTES]; /* "" on a first join */
    uint8_t model_hash[MEED_SHA256_BYTES];
    int64_t sample_count; /* self-reported */
    char device[MEED_LIMIT_WORD_BYTES];
};

struct meed_msg_join_reply {
    uint32_t protocol_version;
    char software[MEED_LIMIT_SOFTWARE_BYTES];
    char run_id[MEED_LIMIT_ID_BYTES];
    char client_id[MEED_LIMIT_ID_BYTES]; /* who the server takes the caller for */
    uint8_t model_hash[MEED_SHA256_BYTES];
    uint8_t benchmark_hash[MEED_SHA256_BYTES];
    char (*roster)[MEED_LIMIT_ID_BYTES]; /* [roster_count] */
    size_t roster_count;
    int32_t round_count;
    int32_t next_round;
    uint8_t ledger_key[MEED_SHA256_BYTES]; /* Ed25519 public key */
    char aggregation[MEED_LIMIT_WORD_BYTES];
    char estimator[MEED_LIMIT_WORD_BYTES];
    char payment[MEED_LIMIT_WORD_BYTES];
    int64_t round_budget; /* micro-credits */
};

struct meed_msg_watch_request {
    char run_id[MEED_LIMIT_ID_BYTES];
};

enum meed_event_kind {
    MEED_EVENT_STATUS = 1,      /* a sentence for the live table, nothing to do */
    MEED_EVENT_ROUND_OPENED,    /* pull, train, push before the deadline */
    MEED_EVENT_ROUND_CLOSED,    /* no more updates; valuation runs */
    MEED_EVENT_ROUND_SETTLED,   /* the receipt can be fetched */
    MEED_EVENT_ROUND_ABANDONED, /* text says why; the next one opens */
    MEED_EVENT_FINISHED,        /* the run is over: adapter_hash is its result */
    MEED_EVENT_KIND_COUNT
};

struct meed_msg_watch_event {
    enum meed_event_kind kind;
    int32_t round;
    int64_t deadline_wall_ms;
    int64_t remaining_ms;
    int32_t updates_in;
    int32_t updates_expected;
    uint8_t adapter_hash[MEED_SHA256_BYTES]; /* opened: base; settled, finished: result */
    uint8_t ledger_hash[MEED_SHA256_BYTES];  /* settled */
    char text[MEED_LIMIT_REASON_BYTES];
};

enum meed_method {
    MEED_METHOD_FEDIT = 1,
    MEED_METHOD_FEDPROX,
    MEED_METHOD_SCAFFOLD,
    MEED_METHOD_FFA,
    MEED_METHOD_ROLORA,
    MEED_METHOD_FEDPIT,
    MEED_METHOD_COUNT
};

/* What of a client's training leaves it (client/isolation.h). */
enum meed_share_rule {
    MEED_SHARE_ALL = 0,   /* what was trained on its data: methods other than fedpit */
    MEED_SHARE_SYNTHETIC, /* what was trained on examples that the global model wrote */
    MEED_SHARE_MIX,       /* β of the one and 1 − β of the other */
    MEED_SHARE_NOTHING,   /* the global adapter, unchanged */
    MEED_SHARE_COUNT
};

enum meed_mix_space {
    MEED_MIX_PRODUCT = 0, /* ΔW = B·A, cut back to the rank */
    MEED_MIX_FACTORS,     /* A and B one by one, as the paper mixes them */
    MEED_MIX_SPACE_COUNT
};

/* By what synthetic examples are chosen. */
enum meed_synthetic_score {
    MEED_SYNTHETIC_IFS = 0,
    MEED_SYNTHETIC_PPL,
    MEED_SYNTHETIC_IFD,
    MEED_SYNTHETIC_RANDOM,
    MEED_SYNTHETIC_SCORE_COUNT
};

/* How the model is asked for them. */
enum meed_synthetic_form {
    MEED_SYNTHETIC_DIALOGUE = 0,
    MEED_SYNTHETIC_TASKS,
    MEED_SYNTHETIC_FORM_COUNT
};

enum meed_value_codec {
    MEED_VALUE_F32 = 1,
    MEED_VALUE_BF16,
    MEED_VALUE_INT8, /* blocks with a bf16 scale, codes in ±127 */
    MEED_VALUE_INT4, /* the same, codes in ±7 */
    MEED_VALUE_COUNT
};

/* How an update is encoded: dense where the density is 1, else top-k of each tensor. */
struct meed_msg_codec {
    enum meed_value_codec values;
    double density_a;   /* (0, 1], for factors A */
    double density_b;   /* for factors B: they start at zero and behave differently */
    int32_t group_size; /* entries a scale, a power of two */
    int32_t zstd_level; /* 0: none */
};

/* Bits of trained_factors. */
enum { MEED_FACTOR_A = 1, MEED_FACTOR_B = 2 };

struct meed_msg_plan {
    int32_t round;
    uint64_t seed;
    int64_t deadline_wall_ms;
    int64_t remaining_ms;
    enum meed_method method;
    double prox_mu;
    int32_t steps;
    int32_t batch_tokens;
    int32_t accumulation;
    int32_t sequence_tokens;
    double lr;
    double lr_min; /* of the cosine's end */
    int32_t warmup_steps;
    double weight_decay;
    double beta1;
    double beta2;
    double epsilon;
    double clip_norm; /* 0: none */
    int32_t rank;
    double alpha;
    bool rslora;
    double dropout;
    uint32_t target_modules;  /* bit p = the engine's projection p (q k v o gate up down) */
    uint32_t trained_factors; /* A and B; FFA and RoLoRA train one a round */
    struct meed_msg_codec codec;
    uint8_t adapter_hash[MEED_SHA256_BYTES];
    int64_t adapter_bytes; /* of the packed adapter that the chunks carry */
    uint8_t control_hash[MEED_SHA256_BYTES];
    int64_t control_bytes; /* SCAFFOLD: follows the adapter in the same chunk stream; else 0 */
    enum meed_share_rule share;
    double share_mix;        /* β of the mix */
    int32_t synthetic_count; /* examples kept; those that follow are fedpit's too */
    bool keeps_gauge;        /* the merge keeps the coordinates of A and B from round to round */
    enum meed_mix_space mix_space;
    int32_t synthetic_candidates; /* written, of which the best are kept */
    int32_t instruction_demos;
    int32_t response_demos;
    double rouge_max; /* above it a candidate is a copy of local data */
    int32_t synthetic_retries;
    int32_t synthetic_turns; /* 0: as many as the demonstration has */
    double synthetic_temperature;
    enum meed_synthetic_score synthetic_score;
    double dp_clip;  /* C: the update's norm is cut to it; 0: no differential privacy */
    double dp_noise; /* standard deviation of the noise in multiples of C */
    double dp_delta; /* δ for which ε is told */
    enum meed_synthetic_form synthetic_form;
    int32_t opening_words; /* of a local message that a candidate may begin with; 0: none */
};

/* A piece of a transfer. Bytes are borrowed: from the received message or the caller. */
struct meed_msg_chunk {
    int64_t offset;
    const uint8_t *bytes;
    size_t size;
    uint32_t crc32c; /* of bytes */
};

struct meed_msg_pull_request {
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
    int64_t offset; /* chunks before it are not sent again */
};

enum meed_pull_part { MEED_PULL_PLAN = 1, MEED_PULL_CHUNK };

struct meed_msg_pull_reply {
    enum meed_pull_part part;
    struct meed_msg_plan plan;
    struct meed_msg_chunk chunk;
};

struct meed_msg_push_header {
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
    uint8_t sha256[MEED_SHA256_BYTES]; /* of all total_bytes: the idempotency key's last part */
    int64_t total_bytes;
    int64_t offset; /* of the first chunk: what QueryPush answered */
    uint8_t base_adapter_hash[MEED_SHA256_BYTES];
    int64_t sample_count; /* self-reported, like all that follows */
    double train_loss;
    int64_t token_count;
    double train_seconds;
    double retained_energy; /* ‖decoded‖² / ‖update + residual‖² */
    enum meed_share_rule share;
    double share_mix;
    enum meed_mix_space mix_space;
    int32_t synthetic_count; /* examples that were trained on */
    double dp_clip, dp_noise, dp_delta;
    double dp_epsilon; /* of all updates of the run so far, this one included */
};

enum meed_push_part { MEED_PUSH_HEADER = 1, MEED_PUSH_CHUNK };

struct meed_msg_push_request {
    enum meed_push_part part;
    struct meed_msg_push_header header;
    struct meed_msg_chunk chunk;
};

enum meed_push_outcome { MEED_PUSH_ACCEPTED = 1, MEED_PUSH_DUPLICATE, MEED_PUSH_OUTCOME_COUNT };

struct meed_msg_push_reply {
    enum meed_push_outcome outcome;
    int64_t stored_bytes;
};

struct meed_msg_query_push_request {
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
    uint8_t sha256[MEED_SHA256_BYTES];
};

struct meed_msg_query_push_reply {
    int64_t stored_bytes; /* durable on the server: resume here */
    bool complete;
};

struct meed_msg_receipt_request {
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
};

/* Named apart from evaluation's enum meed_pay_status: server/ sees both and maps one to the other.
 */
enum meed_receipt_state {
    MEED_RECEIPT_PAID = 1,
    MEED_RECEIPT_UNPAID,   /* in the aggregate, share 0 */
    MEED_RECEIPT_EXCLUDED, /* left out of the aggregate; reason says why */
    MEED_RECEIPT_ABSENT,   /* sent nothing in this round */
    MEED_RECEIPT_STATE_COUNT
};

struct meed_msg_axis_value {
    char name[MEED_LIMIT_AXIS_BYTES];
    double phi;
    double standard_error;
    double weight;
    bool guard;
};

struct meed_msg_receipt {
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
    char client_id[MEED_LIMIT_ID_BYTES];
    enum meed_receipt_state state;
    char reason[MEED_LIMIT_REASON_BYTES]; /* why the state is what it is; "" when paid in full */
    char remark[MEED_LIMIT_REASON_BYTES]; /* of the screens on an update they let pass */
    double phi;
    double standard_error;
    double shrunk;                    /* φ after shrinking by reliability: what the rule paid on */
    int64_t share;                    /* micro-credits of this round */
    int64_t total_share;              /* of all rounds so far */
    int64_t round_budget;             /* Σ of all clients' shares */
    struct meed_msg_axis_value *axes; /* [axis_count] */
    size_t axis_count;
    int64_t bytes_up;
    int64_t bytes_down;
    int64_t ledger_index;
    uint8_t ledger_hash[MEED_SHA256_BYTES];
    uint8_t update_hash[MEED_SHA256_BYTES];
    uint8_t base_adapter_hash[MEED_SHA256_BYTES];
    uint8_t next_adapter_hash[MEED_SHA256_BYTES];
    uint8_t benchmark_hash[MEED_SHA256_BYTES];
    uint8_t utilities_hash[MEED_SHA256_BYTES];
    char privacy[MEED_LIMIT_PRIVACY_BYTES]; /* what left the client (sharing.h); "": not known */
};

struct meed_msg_ledger_request {
    char run_id[MEED_LIMIT_ID_BYTES];
    int64_t first_index;
    int32_t max_entries; /* 1 to MEED_LIMIT_LEDGER_PAGE; a page may be shorter (1 MiB) */
};

enum { MEED_SIGNATURE_BYTES = 64 };

/* The body is the ledger's own canonical encoding, passed through untouched. */
struct meed_msg_ledger_entry {
    int64_t index;
    const uint8_t *body;
    size_t body_size;
    uint8_t hash[MEED_SHA256_BYTES];
    uint8_t signature[MEED_SIGNATURE_BYTES]; /* all zero: absent */
};

struct meed_msg_ledger_reply {
    struct meed_msg_ledger_entry *entries; /* [entry_page_count] */
    size_t entry_page_count;
    int64_t entry_count; /* of the whole ledger */
    uint8_t head_hash[MEED_SHA256_BYTES];
    uint8_t public_key[MEED_SHA256_BYTES];
};

enum meed_health_state {
    MEED_HEALTH_UNKNOWN = 0,
    MEED_HEALTH_SERVING,
    MEED_HEALTH_NOT_SERVING,
    MEED_HEALTH_SERVICE_UNKNOWN,
    MEED_HEALTH_STATE_COUNT
};

struct meed_msg_health_request {
    char service[MEED_LIMIT_PATH_BYTES];
};

struct meed_msg_health_reply {
    enum meed_health_state state;
};

MEED_END_C
#endif
