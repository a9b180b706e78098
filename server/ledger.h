/* The ledger: who was paid what for which update, in a form that cannot be changed afterwards.
 *
 * One text file, one line an entry, appended and never rewritten:
 *
 *   <hash: 64 hex> ' ' <signature: 128 hex> ' ' <body: one JSON object> '\n'
 *
 *   hash       SHA-256 of the body's bytes
 *   signature  Ed25519 over "meed ledger 1\n" and the 32 bytes of the hash
 *   body       compact JSON, keys sorted, numbers with 17 digits; always "index" (0, 1, …), "kind"
 *              and "prev" (the hash of the entry before, 64 zeros at index 0), and
 *     genesis    run, model, benchmark, start (hashes), config (hash of everything that defines the
 *                run), clients (ids), rounds, budget, aggregation, estimator, payment
 *     round      run, round, budget, retained, floor (the part of the budget that is split by
 *                heads), before, after (adapter hashes), model, benchmark, utilities (hash of all
 *                coalition utilities), value_empty, value_full, value_kept (v of nobody, of
 *                everybody, of those not excluded), method (aggregation and server optimiser),
 *                state (hash of the optimiser's moments), merged (hash of the adapter before
 *                repair), reference (of the operator's own update), each zeros where there is none,
 *                and clients, in id order: id, status, reason (why it is that), remark (what the
 *                screens saw beside, left out where they saw nothing), update (hash), weight, phi,
 *                se, share, privacy (what left the client, where an update came; proto/sharing.h
 *                says which half of it is the client's word)
 *     abandoned  run, round, before, reason
 *     final      run, adapter, totals: id, share
 *
 * Entries of earlier releases have no floor (none was paid), no privacy and no remark (a remark
 * stood as the reason unless the valuation had one), the oldest no method, state, merged,
 * reference, weight.
 *
 * An entry is valid if its hash, its signature, its index and its prev are right and its amounts
 * add up; a ledger is valid if all entries are. Σ shares + retained = budget holds for every round,
 * where `retained` is 0, or the whole budget if nobody could be paid, or all but the floor if
 * nobody was worth more than that. It is checked before an entry is written and again whenever one
 * is read.
 *
 * What is left out, and why: no time and no traffic, which a restart changes; no public key,
 * because the key is the reader's own knowledge (the Join reply, ledger.pub) and not the ledger's
 * claim. So the same run gives the same hashes however often it was killed. A torn last line
 * (a crash while appending, never acknowledged) is cut off when the ledger is opened for writing.
 */
#ifndef MEED_SERVER_LEDGER_H
#define MEED_SERVER_LEDGER_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/hash.h"
#include "proto/message.h"
#include "server/signature.h"

MEED_BEGIN_C

struct meed_ledger;

enum meed_ledger_kind {
    MEED_LEDGER_GENESIS,
    MEED_LEDGER_ROUND,
    MEED_LEDGER_ABANDONED,
    MEED_LEDGER_FINAL,
    MEED_LEDGER_KIND_COUNT
};

struct meed_ledger_genesis {
    const char *run_id;
    uint8_t model_hash[MEED_SHA256_BYTES];
    uint8_t benchmark_hash[MEED_SHA256_BYTES];
    uint8_t start_hash[MEED_SHA256_BYTES]; /* adapter of round 1 */
    uint8_t config_hash[MEED_SHA256_BYTES];
    const char *const *clients;
    int32_t client_count;
    int32_t rounds;
    int64_t budget;
    const char *aggregation, *estimator, *payment;
};

struct meed_ledger_client {
    char id[MEED_LIMIT_ID_BYTES];
    enum meed_receipt_state state;
    char reason[MEED_LIMIT_REASON_BYTES]; /* why the state is what it is; "" when paid in full */
    char remark[MEED_LIMIT_REASON_BYTES]; /* of the screens on an update they let pass; "": none */
    uint8_t update_hash[MEED_SHA256_BYTES]; /* zero: absent */
    double weight;                          /* p_k; 0 in entries that do not say */
    double phi;
    double se;
    int64_t share;
    char
        privacy[MEED_LIMIT_PRIVACY_BYTES]; /* what left the client; "" in entries that do not say */
};

struct meed_ledger_round {
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
    int64_t budget;
    int64_t retained;
    int64_t floor; /* credits of the budget that were to be split by heads */
    uint8_t model_hash[MEED_SHA256_BYTES];
    uint8_t benchmark_hash[MEED_SHA256_BYTES];
    uint8_t before_hash[MEED_SHA256_BYTES];
    uint8_t after_hash[MEED_SHA256_BYTES];
    uint8_t utilities_hash[MEED_SHA256_BYTES];
    char method[MEED_LIMIT_WORD_BYTES]; /* "svd", "fedavg+adam"; "" in entries that do not say */
    uint8_t merged_hash[MEED_SHA256_BYTES];    /* before repair; zero: not repaired */
    uint8_t reference_hash[MEED_SHA256_BYTES]; /* the operator's own update; zero: none */
    uint8_t state_hash[MEED_SHA256_BYTES];     /* the server optimiser's moments; zero: none */
    double value_empty, value_full;            /* v of nobody, of everybody valued */
    double value_kept; /* v of those who were not excluded: what is published */
    int32_t client_count;
    struct meed_ledger_client *clients; /* sorted by id */
};

struct meed_ledger_total {
    char id[MEED_LIMIT_ID_BYTES];
    int64_t share;
};

struct meed_ledger_abandoned {
    char run_id[MEED_LIMIT_ID_BYTES];
    int32_t round;
    uint8_t before_hash[MEED_SHA256_BYTES];
    char reason[MEED_LIMIT_REASON_BYTES];
};

struct meed_ledger_final {
    char run_id[MEED_LIMIT_ID_BYTES];
    uint8_t adapter_hash[MEED_SHA256_BYTES];
    int32_t total_count;
    struct meed_ledger_total *totals;
};

/* Where an entry stands and what it hashes to. */
struct meed_ledger_place {
    int64_t index;
    enum meed_ledger_kind kind;
    int32_t round; /* 0 for genesis and final */
    uint8_t hash[MEED_SHA256_BYTES];
    uint8_t signature[MEED_SIGNATURE_SIZE];
};

/* Opens or makes the file; every entry in it is verified against the key. INTEGRITY names the first
 * broken one. The key is borrowed. All calls below are safe from several threads. */
MEED_MUST_CHECK enum meed_status meed_ledger_open(const char *path,
                                                  const struct meed_signature_key *key,
                                                  struct meed_ledger **ledger);
/* The same for who only reads: the file is not touched, a torn last line is INTEGRITY like any
 * other damage, and appending is a bug. */
MEED_MUST_CHECK enum meed_status
meed_ledger_open_read(const char *path, const uint8_t public_key[MEED_SIGNATURE_KEY_BYTES],
                      struct meed_ledger **ledger);
void meed_ledger_close(struct meed_ledger *ledger); /* accepts NULL */

/* Each returns after the entry is on disk. BUG if the amounts do not add up. */
MEED_MUST_CHECK enum meed_status
meed_ledger_append_genesis(struct meed_ledger *ledger, const struct meed_ledger_genesis *entry);
MEED_MUST_CHECK enum meed_status meed_ledger_append_round(struct meed_ledger *ledger,
                                                          const struct meed_ledger_round *entry);
MEED_MUST_CHECK enum meed_status meed_ledger_append_abandoned(struct meed_ledger *ledger,
                                                              const char *run_id, int32_t round,
                                                              const uint8_t *before_hash,
                                                              const char *reason);
MEED_MUST_CHECK enum meed_status meed_ledger_append_final(struct meed_ledger *ledger,
                                                          const char *run_id,
                                                          const uint8_t *adapter_hash,
                                                          const struct meed_ledger_total *totals,
                                                          int32_t total_count);

int64_t meed_ledger_count(struct meed_ledger *ledger);
/* Hash of the last entry; zeros when empty. */
void meed_ledger_head(struct meed_ledger *ledger, uint8_t hash[MEED_SHA256_BYTES]);
/* The entry of a round (settled or abandoned) or, with round 0, the final one; false if none. */
bool meed_ledger_find(struct meed_ledger *ledger, int32_t round, struct meed_ledger_place *place);
/* Appends the body's bytes. NOT_FOUND beyond the end. */
MEED_MUST_CHECK enum meed_status meed_ledger_read(struct meed_ledger *ledger, int64_t index,
                                                  struct meed_ledger_place *place,
                                                  struct meed_buf *body);

/* A round entry's body as a struct; clients live in the arena. INTEGRITY if the amounts do not add
 * up, FORMAT if it is not a round. */
MEED_MUST_CHECK enum meed_status meed_ledger_parse_round(const char *body, size_t size,
                                                         struct meed_arena *arena,
                                                         struct meed_ledger_round *entry);

/* Both for the entry at `index`. */
MEED_MUST_CHECK enum meed_status meed_ledger_read_round(struct meed_ledger *ledger, int64_t index,
                                                        struct meed_arena *arena,
                                                        struct meed_ledger_round *entry);

/* The other kinds; texts and lists live in the arena. FORMAT if it is another kind. */
MEED_MUST_CHECK enum meed_status meed_ledger_parse_genesis(const char *body, size_t size,
                                                           struct meed_arena *arena,
                                                           struct meed_ledger_genesis *entry);
MEED_MUST_CHECK enum meed_status meed_ledger_parse_abandoned(const char *body, size_t size,
                                                             struct meed_ledger_abandoned *entry);
MEED_MUST_CHECK enum meed_status meed_ledger_parse_final(const char *body, size_t size,
                                                         struct meed_arena *arena,
                                                         struct meed_ledger_final *entry);

/* For auditors: reads a ledger file and checks everything. public_key NULL: signatures are not
 * checked. visit (may be NULL) sees each good entry. INTEGRITY names the first broken entry. */
typedef void (*meed_ledger_visit_fn)(void *user, const struct meed_ledger_place *place,
                                     const char *body, size_t size);
MEED_MUST_CHECK enum meed_status meed_ledger_verify(const char *path, const uint8_t *public_key,
                                                    meed_ledger_visit_fn visit, void *user);

MEED_END_C
#endif
