/* The terms: budgets that add up, hashes that see every change, plans that say what was agreed.
 *
 * Goal: the rounds' budgets differ by at most one and sum to the run's, also near the largest
 * budget; whatever decides about money or model changes the hash and what does not, does not; the
 * text that is hashed is read back to the same terms. Method: one config, changed member by member;
 * its text, changed byte by byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "proto/codec.h"
#include "server/terms_text.h"

static const char *const ids[] = {"anna", "ben"};
static const struct meed_axis axis = {.name = "dialogue", .weight = 1.0};
static const struct meed_model_config model = {.hidden = 8, .layers = 1};
static const uint8_t hash[MEED_SHA256_BYTES] = {7};

static struct meed_aggregator_config base(void)
{
    struct meed_aggregator_config config = meed_aggregator_defaults();
    config.model = "model";
    return config;
}

static struct meed_terms terms_of(const struct meed_aggregator_config *config)
{
    struct meed_terms terms;
    struct meed_terms_source source = {&model, hash, hash, &axis, 1, ids, 2, NULL};
    assert_int_equal(meed_terms_init(config, &source, &terms), MEED_OK);
    return terms;
}

static void terms_spread_the_budget(void **state)
{
    (void)state;
    static const int64_t budgets[] = {0, 1, 7, 1000, MEED_LIMIT_CREDITS};
    for (size_t b = 0; b < MEED_COUNT(budgets); b++) {
        for (int32_t rounds = 1; rounds < 40; rounds += 6) {
            struct meed_aggregator_config config = base();
            config.budget = budgets[b];
            config.rounds = rounds;
            struct meed_terms terms = terms_of(&config);
            int64_t sum = 0, least = INT64_MAX, most = 0;
            for (int32_t round = 1; round <= rounds; round++) {
                int64_t one = meed_terms_budget(&terms, round);
                sum += one;
                least = MEED_MIN(least, one);
                most = MEED_MAX(most, one);
            }
            assert_true(sum == budgets[b]);
            assert_true(most - least <= 1);
        }
    }
}

static bool changes(const struct meed_aggregator_config *config)
{
    struct meed_aggregator_config before = base();
    struct meed_terms old = terms_of(&before), now = terms_of(config);
    bool other = memcmp(old.hash, now.hash, sizeof old.hash) != 0;
    assert_int_equal(other, strcmp(old.run_id, now.run_id) != 0);
    return other;
}

static void terms_hash_what_matters(void **state)
{
    (void)state;
    struct meed_aggregator_config config = base();
    assert_false(changes(&config));
    config.deadline_ms++;
    config.threads = 7;
    config.listen = "0.0.0.0:1";
    config.metrics_port = 9;
    config.quorum = 1;
    assert_false(changes(&config));
#define CHANGE(member, value)                                                                      \
    do {                                                                                           \
        config = base();                                                                           \
        config.member = value;                                                                     \
        assert_true(changes(&config));                                                             \
    } while (0)
    CHANGE(rounds, 4);
    CHANGE(budget, 5);
    CHANGE(seed, 99);
    CHANGE(plan.lr, 1e-3);
    CHANGE(plan.steps, 7);
    CHANGE(plan.rank, 4);
    CHANGE(plan.alpha, 4);
    CHANGE(plan.target_modules, 1);
    CHANGE(plan.codec.values, MEED_VALUE_INT4);
    CHANGE(aggregation, MEED_AGGREGATION_FEDAVG);
    CHANGE(clip_multiple, 1.5);
    CHANGE(defence[MEED_DETECTOR_GAP], MEED_DEFENCE_REFUSE);
    CHANGE(quarantine.strikes, 2);
    CHANGE(rule, MEED_PAY_PROPORTIONAL);
    CHANGE(rule, MEED_PAY_EQUAL);
    CHANGE(rule, MEED_PAY_SAMPLES);
    CHANGE(reputation, 0.3);
    CHANGE(pay_floor, 0.1);
    CHANGE(method, MEED_VALUE_LEAVE_ONE_OUT);
    CHANGE(guard_z, 1);
    CHANGE(bootstrap, 10);
    CHANGE(plan.dp_clip, (config.plan.dp_noise = 1.0, config.plan.dp_delta = 1e-5, 2.0));
#undef CHANGE
    config = base();
    config.plan.method = MEED_METHOD_FEDPIT;
    config.plan.share = MEED_SHARE_NOTHING;
    struct meed_terms one = terms_of(&config);
    config.plan.synthetic_turns = 3;
    struct meed_terms other = terms_of(&config);
    assert_string_not_equal(one.run_id, other.run_id);
}

static void write_terms(const struct meed_terms *terms, struct meed_buf *text)
{
    meed_buf_init(text, MEED_TERMS_TEXT_MAX_BYTES);
    assert_int_equal(meed_terms_text_write(terms, ids, 2, text), MEED_OK);
}

/* Goal: fedpit and privacy leave plans without them as they were: no line in the terms' text, so
 * the run keeps its name, and the plan's bytes on the wire, whose hash was taken before they were
 * there. */
static void terms_of_earlier_releases_stand(void **state)
{
    (void)state;
    static const char *const later[] = {"\nmix ", "\ncandidates ", "\nopening-words ",
                                        "\ndp-clip "};
    struct meed_aggregator_config config = base();
    struct meed_terms terms = terms_of(&config);
    struct meed_buf text;
    write_terms(&terms, &text);
    for (size_t i = 0; i < MEED_COUNT(later); i++) {
        assert_null(strstr(text.data, later[i]));
    }
    meed_buf_clear(&text);
    struct meed_msg_pull_reply reply = {.part = MEED_PULL_PLAN};
    struct meed_buf bytes;
    meed_codec_buf_init(&bytes);
    meed_terms_plan(&terms, 2, hash, 77, 1234, &reply.plan);
    reply.plan.deadline_wall_ms = 0;
    assert_int_equal(meed_codec_pack_pull_reply(&reply, &bytes), MEED_OK);
    uint8_t digest[MEED_SHA256_BYTES];
    char hex[MEED_SHA256_HEX_BYTES];
    meed_sha256(bytes.data, bytes.size, digest);
    meed_sha256_hex(digest, hex);
    assert_string_equal(hex, "b6d716ec478156295809aa3d8ee07c8d3e56aa4850084d8e111050a1166e43ae");
    meed_buf_clear(&bytes);
}

static void terms_refuse_what_cannot_be(void **state)
{
    (void)state;
    struct meed_terms terms;
    struct meed_terms_source source = {&model, hash, hash, &axis, 1, ids, 2, NULL};
    struct meed_aggregator_config config = base();
    config.budget = -1;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.plan.rank = 0;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.plan.target_modules = 0;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.defence[MEED_DETECTOR_SPAN] = MEED_DEFENCE_REFUSE;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.clip_multiple = -1;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.quarantine = (struct meed_quarantine_options){1, 0, 0};
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.reputation = 1;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.pay_floor = 1.5;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config = base();
    config.plan.method = MEED_METHOD_FEDPIT;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config.plan.share = MEED_SHARE_MIX;
    config.plan.share_mix = 1.0;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_OK);
    config.aggregation = MEED_AGGREGATION_FEDAVG; /* averages coordinates that a product changes */
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    assert_non_null(strstr(meed_last_error(), "mix: factors"));
    config.aggregation = MEED_AGGREGATION_FFA;
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_OK);
    config = base();
    config.run_id = "no/path";
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_CONFIG);
    config.run_id = "named";
    assert_int_equal(meed_terms_init(&config, &source, &terms), MEED_OK);
    assert_string_equal(terms.run_id, "named");
    assert_int_equal(terms.quorum, 2);
}

static void terms_make_plans_and_headers(void **state)
{
    (void)state;
    struct meed_aggregator_config config = base();
    struct meed_terms terms = terms_of(&config);
    struct meed_msg_plan plan;
    struct meed_update_header header;
    meed_terms_plan(&terms, 2, hash, 77, 1234, &plan);
    assert_int_equal(plan.round, 2);
    assert_int_equal(plan.adapter_bytes, 77);
    assert_int_equal(plan.remaining_ms, 1234);
    assert_true(plan.seed == meed_terms_seed(&terms, 2));
    assert_true(plan.seed != meed_terms_seed(&terms, 1));
    meed_terms_update_header(&terms, "ben", 2, hash, &header);
    assert_string_equal(header.client_id, "ben");
    assert_true(header.seed == plan.seed && header.round == 2);
    assert_memory_equal(header.base_adapter_hash, hash, sizeof hash);
}

/* ---- the text -------------------------------------------------------------------------------- */

static struct meed_terms unusual(void)
{
    struct meed_aggregator_config config = base();
    config.seed = UINT64_MAX;
    config.plan.lr = 0.1;
    config.plan.rslora = true;
    config.plan.codec.density_b = 1.0 / 3.0;
    config.aggregation = MEED_AGGREGATION_FEDAVG;
    config.server.rule = MEED_SERVER_ADAM;
    config.server.lr = 0.01;
    config.server.beta1 = 0.9;
    config.server.beta2 = 0.99;
    config.server.tau = 1e-3;
    config.weighting = MEED_WEIGHTING_CONTRIBUTION;
    config.defence[MEED_DETECTOR_GAP] = MEED_DEFENCE_REFUSE;
    config.quarantine = (struct meed_quarantine_options){2, 3, 4};
    config.method = MEED_VALUE_GRADIENT;
    config.rule = MEED_PAY_EQUAL;
    config.path = MEED_PATH_MERGE;
    return terms_of(&config);
}

/* Read back: every fact as it was, doubles to the bit, run id and LoRA shape as init makes them. */
static void check_text(struct meed_terms terms)
{
    struct meed_terms back;
    struct meed_arena arena;
    struct meed_buf text, again;
    const char *const *clients = NULL;
    int32_t count = 0;
    meed_arena_init_growing(&arena, "message", 1 << 20);
    write_terms(&terms, &text);
    assert_int_equal(meed_terms_text_read(text.data, text.size, &arena, &back, &clients, &count),
                     MEED_OK);
    assert_int_equal(count, 2);
    assert_string_equal(clients[1], "ben");
    write_terms(&back, &again);
    assert_string_equal(text.data, again.data);
    assert_memory_equal(terms.hash, back.hash, sizeof terms.hash);
    assert_string_equal(terms.run_id, back.run_id);
    assert_string_equal(terms.payment, back.payment);
    assert_memory_equal(&terms.plan, &back.plan, sizeof terms.plan);
    assert_memory_equal(&terms.value, &back.value, sizeof terms.value);
    assert_memory_equal(&terms.server, &back.server, sizeof terms.server);
    assert_true(terms.seed == back.seed && terms.lora.rank == back.lora.rank);
    meed_buf_clear(&text);
    meed_buf_clear(&again);
    meed_arena_clear(&arena);
}

static void terms_come_back_from_their_text(void **state)
{
    (void)state;
    struct meed_terms terms = unusual();
    check_text(terms);
    struct meed_aggregator_config config = base();
    config.plan.method = MEED_METHOD_FEDPIT;
    config.plan.share = MEED_SHARE_MIX;
    config.plan.share_mix = 0.3;
    config.plan.mix_space = MEED_MIX_FACTORS;
    config.plan.synthetic_candidates = 40;
    config.plan.synthetic_count = 20;
    config.plan.instruction_demos = 7;
    config.plan.response_demos = 3;
    config.plan.rouge_max = 0.6;
    config.plan.synthetic_retries = 2;
    config.plan.synthetic_turns = 5;
    config.plan.synthetic_temperature = 0.9;
    config.plan.synthetic_score = MEED_SYNTHETIC_PPL;
    config.plan.synthetic_form = MEED_SYNTHETIC_TASKS;
    config.plan.opening_words = 4;
    config.plan.dp_clip = 0.5;
    config.plan.dp_noise = 1.5;
    config.plan.dp_delta = 1e-6;
    check_text(terms_of(&config));
}

/* Cut anywhere or with any byte changed: refused with a line, or other terms under another hash. */
static void terms_text_bends_to_nobody(void **state)
{
    (void)state;
    struct meed_terms terms = unusual(), back;
    struct meed_arena arena;
    struct meed_buf text;
    const char *const *clients = NULL;
    int32_t count = 0, refused = 0;
    meed_arena_init_growing(&arena, "message", 1 << 24);
    write_terms(&terms, &text);
    for (size_t size = 0; size < text.size - strlen("client ben\n"); size++) {
        meed_arena_reset(&arena);
        assert_int_equal(meed_terms_text_read(text.data, size, &arena, &back, &clients, &count),
                         strcmp(text.data + size, "client ben\n") == 0 ? MEED_OK : MEED_FORMAT);
    }
    for (size_t at = 0; at < text.size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            meed_arena_reset(&arena);
            text.data[at] = (char)(text.data[at] ^ (1 << bit));
            if (meed_terms_text_read(text.data, text.size, &arena, &back, &clients, &count) ==
                MEED_OK) {
                assert_memory_not_equal(terms.hash, back.hash, sizeof terms.hash);
            } else {
                refused++;
            }
            text.data[at] = (char)(text.data[at] ^ (1 << bit));
        }
    }
    assert_true(refused > (int32_t)text.size * 4);
    meed_buf_clear(&text);
    meed_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terms_spread_the_budget),
        cmocka_unit_test(terms_hash_what_matters),
        cmocka_unit_test(terms_of_earlier_releases_stand),
        cmocka_unit_test(terms_refuse_what_cannot_be),
        cmocka_unit_test(terms_make_plans_and_headers),
        cmocka_unit_test(terms_come_back_from_their_text),
        cmocka_unit_test(terms_text_bends_to_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
