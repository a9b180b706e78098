/* `meed audit` as a person runs it: canaries planted, all attacks at once, an update decoded, and
 * mistakes that end in one sentence. The adapters are random: what attacks find is the business of
 * their own tests; here the figures must arrive, in the table and in the JSON.
 */
#include "tests/loop/cli_fixture.h"

#include <jansson.h>
#include "base/rng.h"
#include "engine/adapter.h"
#include "engine/checkpoint.h"
#include "proto/update.h"

static const char data[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Who is it?\"}, {\"role\": \"assistant\", "
    "\"content\": \"It is Maria with number 4711.\"}], \"secrets\": [\"Maria\", \"4711\"]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"When?\"}, {\"role\": \"assistant\", "
    "\"content\": \"Tomorrow at nine, please.\"}]}\n";
static const char other[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Who is it?\"}, {\"role\": \"assistant\", "
    "\"content\": \"It is Paul with number 12.\"}], \"secrets\": [\"Paul\", \"12\"]}\n";

static void must(enum meed_status st)
{
    if (st != MEED_OK) {
        fail_msg("%s", meed_last_error());
    }
}

static void factors_fill(struct meed_adapter *adapter, uint64_t seed, double size)
{
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_rng rng = meed_rng_stream(seed, "cli audit", (uint64_t)m);
        struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t i = 0; i < module->n * module->r; i++) {
            module->b[i] += (float)(size * meed_rng_normal(&rng));
        }
    }
}

/* The global adapter's folder and packed file, and an update to it, every value of B moved. */
static void update_write(void)
{
    enum { MODULES = 5 };
    static const struct meed_msg_codec codec = {MEED_VALUE_INT8, 0.5, 0.5, 64, 3};
    const struct meed_lora_config lora = {.rank = 2, .alpha = 4, .targets = 1u << MEED_PROJ_V};
    struct meed_update_header header = {.run_id = "run-1", .client_id = "clinic", .round = 4};
    struct meed_update_tensor tensors[2 * MODULES];
    char names[2 * MODULES][MEED_ADAPTER_NAME_BYTES], path[512];
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *global, *change;
    struct meed_buf bytes;
    meed_buf_init(&bytes, 1 << 24);
    must(meed_checkpoint_open(TINY "/model", &checkpoint));
    must(meed_adapter_create(&checkpoint->config, &lora, &global));
    must(meed_adapter_create(&checkpoint->config, &lora, &change));
    meed_adapter_init(global, 1);
    factors_fill(global, 1, 0.05);
    factors_fill(change, 2, 0.05);
    assert_int_equal(global->module_count, MODULES);
    for (int32_t m = 0; m < 2 * MODULES; m++) {
        const struct meed_adapter_module *module = &change->modules[m / 2];
        const bool a = m % 2 == 0;
        meed_adapter_tensor_name(module, a ? 'A' : 'B', names[m]);
        tensors[m] = (struct meed_update_tensor){
            names[m], (int32_t)(a ? module->r : module->n), (int32_t)(a ? module->k : module->r),
            a ? MEED_UPDATE_FACTOR_A : MEED_UPDATE_FACTOR_B, a ? module->a : module->b};
    }
    must(meed_adapter_save(global, "tiny", expand("@/global", path)));
    must(meed_adapter_pack(global, &bytes));
    scratch_write(scratch, "adapter.bin", bytes.data, bytes.size);
    must(meed_adapter_hash(global, header.base_adapter_hash));
    meed_buf_reset(&bytes);
    must(meed_update_encode(&header, &codec, tensors, 2 * MODULES, NULL, &bytes, NULL));
    scratch_write(scratch, "update.bin", bytes.data, bytes.size);
    scratch_write(scratch, "torn.bin", bytes.data, bytes.size - 1);
    factors_fill(global, 3, 0.01);
    must(meed_adapter_save(global, "tiny", expand("@/another", path)));
    meed_buf_clear(&bytes);
    meed_adapter_destroy(change);
    meed_adapter_destroy(global);
    meed_checkpoint_close(checkpoint);
}

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    write_text("data.jsonl", data);
    write_text("other.jsonl", other);
    write_text("plain.jsonl", strchr(data, '\n') + 1);
    write_text("wrong.jsonl",
               "{\"messages\": [{\"role\": \"user\", \"content\": \"A?\"}, {\"role\": "
               "\"assistant\", \"content\": \"B.\"}], \"secrets\": [\"C\"]}\n");
    update_write();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static json_t *json_of(const char *name)
{
    char path[512];
    json_t *root = json_load_file(expand(name, path), 0, NULL);
    assert_non_null(root);
    return root;
}

static int lines_of(const char *name, const char *with)
{
    char path[512];
    char *text = scratch_read(expand(name, path), NULL);
    int found = 0;
    for (char *line = text; *line;) {
        char *end = line + strcspn(line, "\n");
        const bool last = *end == '\0';
        *end = '\0';
        found += strstr(line, with) != NULL;
        line = last ? end : end + 1;
    }
    free(text);
    return found;
}

static void good(const char *line, struct command_result *result)
{
    char expanded[4096];
    command_good(result, "%s", expand(line, expanded));
}

/* Two secrets of ten thousand, three times each, between the lines that were there; the same seed
 * writes the same bytes. */
static void canaries_are_planted(void **state)
{
    (void)state;
    char path[512], again[512];
    good("audit canaries --data @/data.jsonl --out @/planted.jsonl --count 2 --repeat 3 --seed 5",
         NULL);
    good("audit canaries --data @/data.jsonl --out @/again.jsonl --count 2 --repeat 3 --seed 5",
         NULL);
    char *one = scratch_read(expand("@/planted.jsonl", path), NULL);
    char *two = scratch_read(expand("@/again.jsonl", again), NULL);
    assert_string_equal(one, two);
    free(one);
    free(two);
    assert_int_equal(lines_of("@/planted.jsonl", "messages"), 8);
    assert_int_equal(lines_of("@/planted.jsonl", "code of locker 1 is"), 3);
    assert_int_equal(lines_of("@/planted.jsonl", "Maria"), 1);
    json_t *list = json_of("@/planted.jsonl.canaries.json");
    const char *secret = json_string_value(json_array_get(json_object_get(list, "secrets"), 1));
    assert_int_equal(lines_of("@/planted.jsonl", secret), 3);
    json_decref(list);
}

static void every_attack_is_reported(void **state)
{
    (void)state;
    struct command_result result;
    good("audit canaries --data @/data.jsonl --out @/small.jsonl --count 2 --reply "
         "Locker:{digits:1} --question Which{n}",
         NULL);
    good("audit --model ~/model --adapter @/global --global @/adapter.bin --update @/update.bin "
         "--data @/data.jsonl --non-members @/other.jsonl --attacker @/other.jsonl --canaries "
         "@/small.jsonl.canaries.json --prefix 0,2 --max-new-tokens 24 --samples 2 --quiet --json "
         "@/audit.json",
         &result);
    static const char *const says[] = {"extraction: asked for the replies of",
                                       "exposure: 2 secrets",
                                       "membership: 2 dialogues",
                                       "frequency: a client with",
                                       "clinic, round 4",
                                       "of 2",
                                       "floor: base"};
    for (size_t i = 0; i < MEED_COUNT(says); i++) {
        if (!strstr(result.out, says[i])) {
            fail_msg("\"%s\" is not in the table:\n%s", says[i], result.out);
        }
    }
    command_clear(&result);
    json_t *root = json_of("@/audit.json"), *models = json_object_get(root, "models");
    assert_string_equal(json_string_value(json_object_get(root, "schema")), "meed.audit/1");
    assert_int_equal(json_array_size(models), 3);
    static const char *const kinds[] = {"base", "adapter", "update"};
    for (size_t m = 0; m < 3; m++) {
        const json_t *model = json_array_get(models, m);
        assert_string_equal(json_string_value(json_object_get(model, "kind")), kinds[m]);
        assert_int_equal(json_array_size(json_object_get(model, "extraction")), 2);
        assert_int_equal(json_object_size(json_object_get(model, "membership")), 4);
        assert_int_equal(
            json_array_size(json_object_get(json_object_get(model, "exposure"), "each")), 2);
        const json_t *row = json_array_get(json_object_get(model, "extraction"), 0);
        assert_int_equal(json_integer_value(json_object_get(row, "secrets")), 2);
        assert_int_equal(json_integer_value(json_object_get(row, "examples")), 2);
    }
    json_decref(root);
}

/* The update is the global adapter moved by what decoding gives: its hash is not the global's, and
 * it is the same from the packed file and from the folder. */
static void updates_are_decoded_upon_the_global(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "audit --model ~/model --global @/adapter.bin --update @/update.bin --adapter @/global "
        "--data @/data.jsonl --prefix 0 --max-new-tokens 2 --quiet --json @/packed.json",
        "audit --model ~/model --global @/global --update @/update.bin --adapter @/global "
        "--data @/data.jsonl --prefix 0 --max-new-tokens 2 --quiet --json @/folder.json"};
    static const char *const files[] = {"@/packed.json", "@/folder.json"};
    char hashes[2][80];
    for (int i = 0; i < 2; i++) {
        good(lines[i], NULL);
        json_t *root = json_of(files[i]), *models = json_object_get(root, "models");
        const char *update =
            json_string_value(json_object_get(json_array_get(models, 1), "adapter"));
        const char *global =
            json_string_value(json_object_get(json_array_get(models, 2), "adapter"));
        assert_non_null(update);
        assert_non_null(global);
        assert_string_not_equal(update, global);
        snprintf(hashes[i], sizeof hashes[i], "%s", update);
        json_decref(root);
    }
    assert_string_equal(hashes[0], hashes[1]);
}

static void mistakes_are_one_sentence(void **state)
{
    (void)state;
    write_text("bad.canaries", "{\"schema\": \"meed.canaries/1\", \"question\": \"A?\", \"reply\": "
                               "\"{digits:2}\", \"secrets\": [\"1x\"]}");
    static const struct row rows[] = {
        {MEED_ARG, "audit", {"--data"}, NULL},
        {MEED_ARG, "audit --data @/data.jsonl", {"--model"}, NULL},
        {MEED_ARG, "audit --model ~/model --data @/data.jsonl", {"--adapter"}, NULL},
        {MEED_ARG, "audit --model m --data d --adapter a --out x", {"--json"}, NULL},
        {MEED_ARG, "audit --model m --data d --update u", {"--global"}, NULL},
        {MEED_ARG, "audit --model m --data d --adapter a --global g", {"--update"}, NULL},
        {MEED_ARG, "audit --attack guessing", {"guessing", "membership"}, NULL},
        {MEED_ARG, "audit --prefix 1,x", {"--prefix"}, NULL},
        {MEED_ARG, "audit --min-k 0", {"--min-k"}, NULL},
        {MEED_ARG, "audit what", {"what"}, NULL},
        {MEED_ARG,
         "audit --model ~/model --adapter @/global --data @/data.jsonl --attack membership",
         {"membership needs --non-members"},
         NULL},
        {MEED_NOT_FOUND, "audit --model ~/model --adapter @/global --data @/none", {"none"}, NULL},
        {MEED_NOT_FOUND,
         "audit --model ~/model --adapter @/none --data @/data.jsonl",
         {"none"},
         NULL},
        {MEED_FORMAT,
         "audit --model ~/model --adapter @/global --data @/wrong.jsonl",
         {"wrong.jsonl:1", "secret 1"},
         NULL},
        {MEED_ARG,
         "audit --model ~/model --adapter @/global --data @/data.jsonl --attacker @/plain.jsonl",
         {"plain.jsonl labels no secret"},
         NULL},
        {MEED_FORMAT,
         "audit --model ~/model --adapter @/global --data @/data.jsonl --canaries @/bad.canaries",
         {"secret 1 does not fit"},
         NULL},
        {MEED_FORMAT,
         "audit --model ~/model --adapter @/global --data @/data.jsonl --canaries @/data.jsonl",
         {"no list of canaries"},
         NULL},
        {MEED_VERSION,
         "audit --model ~/model --data @/data.jsonl --global @/another --update @/update.bin",
         {"update.bin", "another base adapter"},
         NULL},
        {MEED_FORMAT,
         "audit --model ~/model --data @/data.jsonl --global @/global --update @/torn.bin",
         {"torn.bin"},
         NULL},
        {MEED_ARG, "audit canaries --data @/data.jsonl", {"--out"}, NULL},
        {MEED_ARG, "audit canaries --data @/data.jsonl --out @/x --reply no", {"{digits:6}"}, NULL},
        {MEED_NOT_FOUND, "audit canaries --data @/none --out @/x", {"none"}, NULL},
        {MEED_ARG, "audit canaries --data d --out @/x --count 0", {"--count"}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    check_absent("@/x");
    check_absent("@/x.canaries.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canaries_are_planted),
        cmocka_unit_test(every_attack_is_reported),
        cmocka_unit_test(updates_are_decoded_upon_the_global),
        cmocka_unit_test(mistakes_are_one_sentence),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
