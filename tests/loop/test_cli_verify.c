/* `meed verify` against a dishonest operator.
 *
 * Goal: a run that nobody touched is recomputed and agrees, and nothing in its folder changes;
 * whatever is tampered with is found, in the right round and part, by the right word. Method: a
 * real run of four clients and two rounds on the embedded model, two of them copies, so that there
 * are payments, an exclusion and a quarantine; copies of its folder are changed in one way each.
 * Every change of the ledger is made twice: by somebody with a text editor, which the chain alone
 * must catch, and by the operator, who hashes and signs the whole chain anew with the right key, so
 * that the recomputation alone can. */
#include "tests/loop/cli_fixture.h"
#include "tests/loop/forger.h"

#include <ftw.h>
#include <jansson.h>
#include "base/file.h"
#include "engine/checkpoint.h"
#include "server/verification.h"

static const char experiment[] =
    "name: probe\n"
    "model: " TINY "/model\n"
    "benchmark: %s/small.jsonl\n"
    "rounds: 2\n"
    "budget: 1000\n"
    "training: {steps: 2, batch_tokens: 256, lr: 0.01, rank: 2, targets: attention}\n"
    "pay: {method: exact, bootstrap: 50}\n"
    "defence: {quarantine: {strikes: 1, rounds: 1, probation: 0}}\n"
    "simulate:\n"
    "  data: [" TINY "/clients/bank.jsonl, " TINY "/clients/clinic.jsonl]\n"
    "  seeds: [1]\n"
    "  partition: {kind: iid, dialogues: 12}\n"
    "  clients:\n"
    "    - {name: good, count: 4}\n"
    "  attack: {kind: duplicate, share: 0.5}\n";

enum { ROUND_1 = 1, ROUND_2 = 2, FINAL = 3 };

static char run[512], forged[512]; /* the honest folder, and the one under change */
static struct meed_pool *pool;
static struct meed_backend *be;
static struct meed_checkpoint *checkpoint;
static struct meed_tokenizer *tokenizer;
static struct meed_chat *chat;
static struct meed_benchmark *benchmark;

/* ---- the run --------------------------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    char text[4096];
    scratch_make(scratch);
    snprintf(text, sizeof text, experiment, scratch);
    write_text("probe.yaml", text);
    size_t size = 0, kept = 0;
    char *dialogues = tiny_read("benchmark.jsonl", &size);
    for (int lines = 0; lines < 9 && dialogues[kept]; lines++) {
        kept += strcspn(dialogues + kept, "\n") + 1;
    }
    scratch_write(scratch, "small.jsonl", dialogues, kept);
    free(dialogues);
    command_good(NULL, "simulate %s/probe.yaml --out %s/o --keep-evidence -q -t 1", scratch,
                 scratch);
    snprintf(run, sizeof run, "%s/o/state/seed=1/aggregator", scratch);
    snprintf(forged, sizeof forged, "%s/forged", scratch);
    snprintf(text, sizeof text, "%s/small.jsonl", scratch);
    assert_int_equal(meed_pool_create(1, &pool), MEED_OK);
    assert_int_equal(meed_backend_open(NULL, pool, &be), MEED_OK);
    assert_int_equal(meed_checkpoint_open(TINY "/model", &checkpoint), MEED_OK);
    assert_int_equal(meed_tokenizer_open(TINY "/model", &tokenizer), MEED_OK);
    assert_int_equal(meed_chat_open(TINY "/model", tokenizer, &chat), MEED_OK);
    assert_int_equal(meed_benchmark_load(text, chat, checkpoint->config.max_positions, &benchmark),
                     MEED_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    meed_backend_close(be);
    meed_pool_destroy(pool);
    meed_benchmark_destroy(benchmark);
    meed_chat_close(chat);
    meed_tokenizer_close(tokenizer);
    meed_checkpoint_close(checkpoint);
    scratch_remove(scratch);
    return 0;
}

static const char *copy_to;

static int copy_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)place;
    char target[1024];
    struct meed_file_map map;
    snprintf(target, sizeof target, "%s%s", copy_to, path + strlen(run));
    if (kind == FTW_D) {
        return meed_file_make_folder(target) != MEED_OK;
    }
    assert_int_equal(meed_file_map_open(path, &map), MEED_OK);
    assert_int_equal(meed_file_write_atomic(target, map.bytes, map.size), MEED_OK);
    assert_int_equal(chmod(target, info->st_mode & 0777), 0); /* keys are private */
    meed_file_map_close(&map);
    return 0;
}

static void copy_run(void)
{
    if (meed_file_exists(forged)) {
        scratch_remove(forged);
    }
    copy_to = forged;
    assert_int_equal(nftw(run, copy_one, 16, FTW_PHYS), 0);
}

static const char *inside(const char *name)
{
    static char path[2][1024];
    static int turn;
    turn = 1 - turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", forged, name);
    return path[turn];
}

/* ---- what verification says ------------------------------------------------------------------ */

struct verdict {
    enum meed_status opened;
    enum meed_verification_state state; /* of the first row that is not good */
    int32_t round;
    enum meed_verification_part part;
    char text[MEED_VERIFICATION_TEXT_BYTES];
};

static void judge_row(struct verdict *verdict, const struct meed_verification_round *row)
{
    if (verdict->state != MEED_VERIFICATION_GOOD) {
        return;
    }
    verdict->state = meed_verification_state_of(row);
    verdict->round = row->round;
    for (int p = 0; p < MEED_VERIFICATION_PART_COUNT; p++) {
        if (row->parts[p] == verdict->state) {
            verdict->part = (enum meed_verification_part)p;
        }
    }
    snprintf(verdict->text, sizeof verdict->text, "%s", row->text);
}

static void examine(struct verdict *verdict)
{
    struct meed_verification *verification = NULL;
    struct meed_verification_facts facts;
    struct meed_verification_round row;
    uint8_t key[MEED_SIGNATURE_KEY_BYTES];
    *verdict = (struct verdict){.state = MEED_VERIFICATION_GOOD};
    char *hex = scratch_read(inside("ledger.pub"), NULL);
    hex[strcspn(hex, "\n")] = '\0';
    assert_int_equal(meed_sha256_from_hex(hex, key), MEED_OK);
    free(hex);
    verdict->opened = meed_verification_open(forged, key, &verification);
    if (verdict->opened != MEED_OK) {
        verdict->state = MEED_VERIFICATION_WRONG;
        snprintf(verdict->text, sizeof verdict->text, "%.1000s", meed_last_error());
        return;
    }
    meed_verification_facts(verification, &facts);
    if (facts.known) {
        struct meed_verification_tools tools = {
            .pool = pool, .be = be, .checkpoint = checkpoint, .benchmark = benchmark};
        assert_int_equal(meed_verification_equip(verification, &tools), MEED_OK);
    }
    for (int32_t round = 1; round <= facts.rounds; round++) {
        assert_int_equal(meed_verification_run(verification, round, &row), MEED_OK);
        judge_row(verdict, &row);
    }
    assert_int_equal(meed_verification_end(verification, &row), MEED_OK);
    judge_row(verdict, &row);
    meed_verification_close(verification);
}

static void expect_word(const struct verdict *verdict, const char *word)
{
    if (word && !strstr(verdict->text, word)) {
        fail_msg("\"%s\" does not say \"%s\"", verdict->text, word);
    }
}

/* Found in this round (0: the end; −1: on opening) and part, in a sentence with both words. */
static void expect_wrong(int32_t round, enum meed_verification_part part, const char *word,
                         const char *other)
{
    struct verdict verdict;
    examine(&verdict);
    print_message("  → %s\n", verdict.text);
    assert_int_equal(verdict.state, MEED_VERIFICATION_WRONG);
    assert_int_equal(verdict.opened, round < 0 ? MEED_INTEGRITY : MEED_OK);
    if (round >= 0) {
        assert_int_equal(verdict.round, round);
        assert_string_equal(meed_verification_part_name(verdict.part),
                            meed_verification_part_name(part));
    }
    expect_word(&verdict, word);
    expect_word(&verdict, other);
}

/* ---- honest ---------------------------------------------------------------------------------- */

static void verify_agrees_with_an_honest_run(void **state)
{
    (void)state;
    struct verdict verdict;
    struct book book;
    copy_run();
    examine(&verdict);
    expect_word(&verdict, "");
    assert_string_equal(verdict.text, "");
    assert_int_equal(verdict.state, MEED_VERIFICATION_GOOD);
    book_read(inside("ledger.jsonl"), &book); /* the run is what the changes below take it for */
    assert_int_equal(book.count, 4);
    assert_string_equal(json_string_value(json_object_get(client_of(&book, ROUND_1, 3), "status")),
                        "excluded");
    assert_non_null(strstr(
        json_string_value(json_object_get(client_of(&book, ROUND_2, 3), "reason")), "quarantine"));
    assert_true(share_of(&book, ROUND_1, 0) > 1 && share_of(&book, ROUND_1, 1) > 1);
    book_sign(&book, inside("ledger.key"),
              inside("ledger.jsonl")); /* the forger's tools, with nothing forged */
    char *again = scratch_read(inside("ledger.jsonl"), NULL);
    char path[1024];
    snprintf(path, sizeof path, "%s/ledger.jsonl", run);
    char *before = scratch_read(path, NULL);
    assert_string_equal(again, before);
    free(again);
    free(before);
    book_clear(&book);
}

/* ---- the ledger ------------------------------------------------------------------------------ */

static void raise_share(struct book *book)
{
    set_share(book, ROUND_1, 0, share_of(book, ROUND_1, 0) + 1);
}

static void move_payment(struct book *book)
{
    set_share(book, ROUND_1, 0, share_of(book, ROUND_1, 0) + 1);
    set_share(book, ROUND_1, 1, share_of(book, ROUND_1, 1) - 1);
}

static void change_phi(struct book *book)
{
    nudge(client_of(book, ROUND_2, 1), "phi");
}

static void change_se(struct book *book)
{
    nudge(client_of(book, ROUND_2, 0), "se");
}

static void change_utilities(struct book *book)
{
    bend(book->bodies[ROUND_1], "utilities");
}

static void change_value(struct book *book)
{
    nudge(book->bodies[ROUND_2], "value_full");
}

static void change_weight(struct book *book)
{
    nudge(client_of(book, ROUND_1, 2), "weight");
}

static void pay_the_excluded(struct book *book)
{
    set_text(client_of(book, ROUND_1, 3), "status", "paid");
    set_text(client_of(book, ROUND_1, 3), "reason", "");
    set_share(book, ROUND_1, 3, 5);
    set_share(book, ROUND_1, 0, share_of(book, ROUND_1, 0) - 5);
}

static void free_the_quarantined(struct book *book)
{
    set_text(client_of(book, ROUND_2, 3), "status", "unpaid");
}

static void exclude_the_paid(struct book *book)
{
    set_share(book, ROUND_2, 1, share_of(book, ROUND_2, 0) + share_of(book, ROUND_2, 1));
    set_share(book, ROUND_2, 0, 0);
    set_text(client_of(book, ROUND_2, 0), "status", "excluded");
    set_text(client_of(book, ROUND_2, 0), "reason", "unwanted");
}

static void change_reason(struct book *book)
{
    set_text(client_of(book, ROUND_1, 0), "reason", "slander");
}

/* Conserved, and twice what the terms say. */
static void double_the_budget(struct book *book)
{
    json_t *clients = json_object_get(book->bodies[ROUND_1], "clients");
    for (size_t i = 0; i < json_array_size(clients); i++) {
        set_share(book, ROUND_1, i, 2 * share_of(book, ROUND_1, i));
    }
    json_object_set_new(book->bodies[ROUND_1], "budget", json_integer(1000));
}

static void change_start(struct book *book)
{
    bend(book->bodies[ROUND_2], "before");
}

/* With the chain of adapters mended behind it. */
static void change_aggregate(struct book *book)
{
    bend(book->bodies[ROUND_1], "after");
    set_text(book->bodies[ROUND_2], "before", text_of(book, ROUND_1, "after"));
}

static void change_update(struct book *book)
{
    set_text(client_of(book, ROUND_2, 0), "update",
             json_string_value(json_object_get(client_of(book, ROUND_1, 0), "update")));
}

static void absent_himself(struct book *book)
{
    json_t *client = client_of(book, ROUND_1, 3);
    set_text(client, "status", "absent");
    set_text(client, "update", "0000000000000000000000000000000000000000000000000000000000000000");
}

static void lower_the_promise(struct book *book)
{
    json_object_set_new(book->bodies[0], "budget", json_integer(999));
}

static void move_total(struct book *book)
{
    json_t *totals = json_object_get(book->bodies[FINAL], "totals"),
           *first = json_array_get(totals, 0);
    json_object_set_new(first, "share",
                        json_integer(json_integer_value(json_object_get(first, "share")) + 1));
}

static void add_a_member(struct book *book)
{
    set_text(book->bodies[ROUND_2], "note", "paid in cash as well");
}

static void change_method(struct book *book)
{
    set_text(book->bodies[ROUND_1], "method", "fedavg");
}

static const struct tampering {
    const char *name;
    void (*change)(struct book *book);
    int entry;     /* that a scribbler breaks */
    int32_t round; /* where an operator is found: −1 on opening */
    enum meed_verification_part part;
    const char *says[2];
} tamperings[] = {
    {"a share raised, the sum not conserved", raise_share, 1, -1, 0, {"entry 1", "add up"}},
    {"a payment moved", move_payment, 1, 1, MEED_VERIFICATION_PAY, {"client-0000", "share"}},
    {"phi", change_phi, 2, 2, MEED_VERIFICATION_VALUES, {"client-0001", "phi"}},
    {"a standard error", change_se, 2, 2, MEED_VERIFICATION_VALUES, {"client-0000", "error"}},
    {"utilities", change_utilities, 1, 1, MEED_VERIFICATION_VALUES, {"round 1", "utilities"}},
    {"a value of the game", change_value, 2, 2, MEED_VERIFICATION_VALUES, {"value of all", NULL}},
    {"a weight", change_weight, 1, 1, MEED_VERIFICATION_VALUES, {"client-0002", "weight"}},
    {"an excluded client paid",
     pay_the_excluded,
     1,
     1,
     MEED_VERIFICATION_SCREENING,
     {"client-0003", "verdict"}},
    {"a quarantined client let in",
     free_the_quarantined,
     2,
     2,
     MEED_VERIFICATION_SCREENING,
     {"client-0003", "unpaid"}},
    {"a paid client excluded",
     exclude_the_paid,
     2,
     2,
     MEED_VERIFICATION_PAY,
     {"client-0000", "excluded"}},
    {"a reason", change_reason, 1, 1, MEED_VERIFICATION_PAY, {"client-0000", "slander"}},
    {"the budget", double_the_budget, 1, 1, MEED_VERIFICATION_PAY, {"budget", "500"}},
    {"the adapter before", change_start, 2, 2, MEED_VERIFICATION_CHAIN, {"began with", NULL}},
    {"the aggregate", change_aggregate, 1, 1, MEED_VERIFICATION_AGGREGATE, {"aggregate", NULL}},
    {"the method", change_method, 1, 1, MEED_VERIFICATION_AGGREGATE, {"method", "fedavg"}},
    {"an update's hash",
     change_update,
     2,
     2,
     MEED_VERIFICATION_EVIDENCE,
     {"client-0000", "update"}},
    {"a client declared absent",
     absent_himself,
     1,
     1,
     MEED_VERIFICATION_EVIDENCE,
     {"client-0003", "update"}},
    {"the promised budget", lower_the_promise, 0, -1, 0, {"entry 0", "budget"}},
    {"a total", move_total, 3, 0, MEED_VERIFICATION_PAY, {"client-0000", "total"}},
    {"one fact more", add_a_member, 2, 2, MEED_VERIFICATION_AGGREGATE, {"more or less", NULL}},
};

static void verify_finds_a_changed_ledger(void **state)
{
    (void)state;
    for (size_t i = 0; i < MEED_COUNT(tamperings); i++) {
        const struct tampering *t = &tamperings[i];
        struct book book;
        char entry[32];
        print_message("%s\n", t->name);
        copy_run();
        book_read(inside("ledger.jsonl"), &book);
        t->change(&book);
        book_scribble(&book, inside("ledger.jsonl"));
        snprintf(entry, sizeof entry, "entry %d", t->entry);
        expect_wrong(-1, 0, entry, "does not match its hash");
        book_sign(&book, inside("ledger.key"), inside("ledger.jsonl"));
        expect_wrong(t->round, t->part, t->says[0], t->says[1]);
        book_clear(&book);
    }
}

static void swap_entries(struct book *book, int x, int y)
{
    json_t *body = book->bodies[x];
    char *line = book->lines[x];
    book->bodies[x] = book->bodies[y];
    book->lines[x] = book->lines[y];
    book->bodies[y] = body;
    book->lines[y] = line;
}

/* Entries taken out or put elsewhere, by both hands. */
static void verify_finds_entries_that_were_moved(void **state)
{
    (void)state;
    struct book book;
    copy_run();
    book_read(inside("ledger.jsonl"), &book);
    swap_entries(&book, ROUND_1, ROUND_2);
    book_scribble(&book, inside("ledger.jsonl"));
    expect_wrong(-1, 0, "entry 1", "moved");
    book_sign(&book, inside("ledger.key"), inside("ledger.jsonl"));
    expect_wrong(-1, 0, "order of a run", "round 2");
    book_clear(&book);
    copy_run();
    book_read(inside("ledger.jsonl"), &book);
    swap_entries(&book, ROUND_2, FINAL); /* round 2 leaves by the end */
    book.count = 3;
    book_scribble(&book, inside("ledger.jsonl"));
    expect_wrong(-1, 0, "entry 2", "missing");
    book_sign(&book, inside("ledger.key"), inside("ledger.jsonl"));
    expect_wrong(-1, 0, "round 1", "removed");
    book.count = 2; /* and so does the end */
    book_sign(&book, inside("ledger.key"), inside("ledger.jsonl"));
    expect_wrong(-1, 0, "ends after round 1", "removed");
    book.count = 4;
    book_clear(&book);
}

static void verify_finds_another_key(void **state)
{
    (void)state;
    struct book book;
    copy_run();
    book_read(inside("ledger.jsonl"), &book);
    assert_int_equal(meed_signature_key_make(inside("other.key")), MEED_OK);
    book_sign(&book, inside("other.key"), inside("ledger.jsonl"));
    expect_wrong(-1, 0, "entry 0", "not signed by the ledger's key");
    book_clear(&book);
}

/* ---- the evidence ---------------------------------------------------------------------------- */

static void blob_of(const struct book *book, int entry, int client, char path[1024])
{
    const char *hex =
        client < 0
            ? text_of(book, entry, "after")
            : json_string_value(json_object_get(client_of(book, entry, (size_t)client), "update"));
    snprintf(path, 1024, "%s/blobs/%.2s/%s", forged, hex, hex);
}

static void flip(const char *path)
{
    size_t size = 0;
    char *bytes = scratch_read(path, &size);
    bytes[size / 2] ^= 1;
    assert_int_equal(meed_file_write_atomic(path, bytes, size), MEED_OK);
    free(bytes);
}

static void verify_finds_changed_blobs(void **state)
{
    (void)state;
    struct book book;
    char path[1024], other[1024], aside[1024];
    copy_run();
    book_read(inside("ledger.jsonl"), &book);
    blob_of(&book, ROUND_2, 1, path);
    flip(path);
    expect_wrong(2, MEED_VERIFICATION_EVIDENCE, "client-0001", "stored update");
    copy_run();
    blob_of(&book, ROUND_1, 0, path);
    blob_of(&book, ROUND_1, 1, other);
    snprintf(aside, sizeof aside, "%.1000s.aside", path);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(rename(other, path), 0);
    assert_int_equal(rename(aside, other), 0);
    expect_wrong(1, MEED_VERIFICATION_EVIDENCE, "client-0000", "stored update");
    copy_run();
    blob_of(&book, ROUND_1, -1, path);
    flip(path);
    expect_wrong(1, MEED_VERIFICATION_AGGREGATE, "stored aggregate", NULL);
    copy_run();
    flip(inside("adapter/adapter_model.safetensors"));
    expect_wrong(0, MEED_VERIFICATION_AGGREGATE, "folder adapter/", NULL);
    copy_run();
    flip(inside("terms.txt"));
    expect_wrong(-1, 0, "terms.txt", "hash");
    book_clear(&book);
}

/* The store's list of updates, as an operator can write it: two clients' updates of round 1 trade
 * places there too, and in the ledger, all signed. Each update says whose it is. */
static void verify_finds_updates_that_were_swapped_everywhere(void **state)
{
    (void)state;
    static const char *const keys[] = {MEED_STORE_MODEL, MEED_STORE_BENCHMARK, MEED_STORE_MACHINE};
    struct book book;
    struct meed_store *from = NULL, *to = NULL;
    struct meed_store_update *updates = NULL;
    struct meed_arena arena;
    int32_t count = 0;
    meed_arena_init_growing(&arena, "message", 1 << 20);
    copy_run();
    assert_int_equal(unlink(inside("state.db")), 0);
    assert_int_equal(meed_store_open_copy(run, &from), MEED_OK);
    assert_int_equal(meed_store_open(forged, NULL, &to), MEED_OK);
    for (size_t i = 0; i < MEED_COUNT(keys); i++) {
        struct meed_buf value;
        meed_buf_init(&value, 4096);
        assert_int_equal(meed_store_get(from, keys[i], &value), MEED_OK);
        assert_int_equal(meed_store_set(to, keys[i], value.data, value.size), MEED_OK);
        meed_buf_clear(&value);
    }
    for (int32_t round = 1; round <= 2; round++) {
        assert_int_equal(meed_store_list_updates(from, round, &arena, &updates, &count), MEED_OK);
        assert_int_equal(count, 4);
        if (round == 1) {
            uint8_t aside[MEED_SHA256_BYTES];
            memcpy(aside, updates[0].sha256, sizeof aside);
            memcpy(updates[0].sha256, updates[1].sha256, sizeof aside);
            memcpy(updates[1].sha256, aside, sizeof aside);
        }
        for (int32_t i = 0; i < count; i++) {
            assert_int_equal(meed_store_add_update(to, round, &updates[i]), MEED_OK);
        }
    }
    meed_store_close(from);
    meed_store_close(to);
    book_read(inside("ledger.jsonl"), &book);
    expect_wrong(1, MEED_VERIFICATION_EVIDENCE, "client-0000", "update");
    json_t *first = json_incref(json_object_get(client_of(&book, ROUND_1, 0), "update"));
    json_object_set(client_of(&book, ROUND_1, 0), "update",
                    json_object_get(client_of(&book, ROUND_1, 1), "update"));
    json_object_set_new(client_of(&book, ROUND_1, 1), "update", first);
    book_sign(&book, inside("ledger.key"), inside("ledger.jsonl"));
    expect_wrong(1, MEED_VERIFICATION_EVIDENCE, "client-0000", "an update of client client-0001");
    book_clear(&book);
    meed_arena_clear(&arena);
}

static void expect_missing(int32_t round, enum meed_verification_part part, const char *word)
{
    struct verdict verdict;
    examine(&verdict);
    print_message("  → %s\n", verdict.text);
    assert_int_equal(verdict.opened, MEED_OK);
    assert_int_equal(verdict.state, MEED_VERIFICATION_NOT_KEPT);
    assert_int_equal(verdict.round, round);
    assert_int_equal(verdict.part, part);
    expect_word(&verdict, word);
}

static void verify_says_what_is_not_kept(void **state)
{
    (void)state;
    struct book book;
    char path[1024];
    copy_run();
    book_read(inside("ledger.jsonl"), &book);
    blob_of(&book, ROUND_2, 2, path);
    assert_int_equal(unlink(path), 0);
    expect_missing(2, MEED_VERIFICATION_EVIDENCE, "not kept");
    copy_run();
    assert_int_equal(unlink(inside("state.db")), 0);
    expect_missing(1, MEED_VERIFICATION_EVIDENCE, "only the chain was checked");
    copy_run();
    assert_int_equal(unlink(inside("terms.txt")), 0);
    expect_missing(1, MEED_VERIFICATION_EVIDENCE, "only the chain was checked");
    book_clear(&book);
}

/* ---- the command ----------------------------------------------------------------------------- */

static uint64_t seen;

static int note_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)place;
    uint64_t own = (uint64_t)kind * 31 + (uint64_t)info->st_size;
    own = own * 1000003 + (uint64_t)info->st_mtim.tv_sec;
    own = own * 1000003 + (uint64_t)info->st_mtim.tv_nsec;
    for (; *path; path++) {
        own = own * 1000003 + (unsigned char)*path;
    }
    seen += own;
    return 0;
}

/* Names, sizes and times of everything in the folder, in any order. */
static uint64_t footprint(const char *folder)
{
    seen = 0;
    assert_int_equal(nftw(folder, note_one, 16, FTW_PHYS), 0);
    return seen;
}

static void verify_as_a_command(void **state)
{
    (void)state;
    struct command_result result;
    uint64_t before = footprint(run);
    command_good(&result, "verify %s/o -q -t 1", scratch);
    assert_non_null(strstr(result.out, "aggregate"));
    assert_non_null(strstr(result.out, "everything was recomputed and agrees"));
    command_clear(&result);
    command_good(&result, "verify %s --round 2 --json -q -t 2", run);
    json_t *root = json_loads(result.out, 0, NULL);
    json_t *rows = json_object_get(json_array_get(json_object_get(root, "runs"), 0), "rounds");
    assert_true(json_is_true(json_object_get(root, "agrees")));
    assert_int_equal(json_array_size(rows), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 0), "values")),
                        "ok");
    json_decref(root);
    command_clear(&result);
    assert_true(footprint(run) == before);
}

static void verify_refuses_in_one_sentence(void **state)
{
    (void)state;
    struct book book;
    char path[1024];
    copy_run();
    book_read(inside("ledger.jsonl"), &book);
    move_payment(&book);
    book_sign(&book, inside("ledger.key"), inside("ledger.jsonl"));
    static const struct row wrong = {
        MEED_INTEGRITY, "verify @/forged -q -t 1", {"round 1, client-0000", "share"}, NULL};
    check_row(&wrong);
    copy_run();
    blob_of(&book, ROUND_1, 0, path);
    assert_int_equal(unlink(path), 0);
    static const struct row missing = {
        MEED_NOT_FOUND, "verify @/forged -q -t 1", {"nothing differs", "not kept"}, NULL};
    check_row(&missing);
    copy_run();
    static const struct row rows[] = {
        {MEED_ARG, "verify", {"no run given"}, NULL},
        {MEED_ARG, "verify @/forged --round 9", {"2 rounds"}, NULL},
        {MEED_ARG, "verify @/forged --round 0", {"--round"}, NULL},
        {MEED_NOT_FOUND, "verify @", {"--keep-evidence"}, NULL},
        {MEED_VERSION, "verify @/forged --benchmark ~/benchmark.jsonl", {"--benchmark"}, NULL},
        {MEED_NOT_FOUND, "verify @/forged --model @/nowhere", {"--model"}, NULL},
        {MEED_FORMAT, "verify @/forged --key @/probe.yaml", {"public key"}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    book_clear(&book);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verify_agrees_with_an_honest_run),
        cmocka_unit_test(verify_finds_a_changed_ledger),
        cmocka_unit_test(verify_finds_entries_that_were_moved),
        cmocka_unit_test(verify_finds_another_key),
        cmocka_unit_test(verify_finds_changed_blobs),
        cmocka_unit_test(verify_finds_updates_that_were_swapped_everywhere),
        cmocka_unit_test(verify_says_what_is_not_kept),
        cmocka_unit_test(verify_as_a_command),
        cmocka_unit_test(verify_refuses_in_one_sentence),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
