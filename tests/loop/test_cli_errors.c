/* Bad input at the command line: one sentence, the documented code, nothing lost.
 *
 * Goal: whatever is wrong, the last line of stderr says what, where and what to do, the exit code
 * is that of `meed help exit-codes`, and no output appears or changes. Method: the binary itself is
 * run on a table of broken inputs, each a small change of something that works; in a row `@` is the
 * scratch folder and `~` is examples/tiny. Updates that are bad on the wire (oversize, NaN,
 * mis-shaped, stale, duplicate, out of order) never come from our own client, so they are tested
 * where they arrive: test_cli_wire.c. Peers, ports and disks: test_cli_peers.c.
 */
#include "tests/loop/cli_fixture.h"

/* ---- broken things ------------------------------------------------------------------------------
 */

/* examples/tiny/<file> with one change, as scratch/<name>. */
static void change(const char *file, const char *name, const char *from, const char *to)
{
    char *text = tiny_read(file, NULL);
    char *made = replaced(text, from, to);
    write_text(name, made);
    free(made);
    free(text);
}

static void model_with(const char *name, const char *file, const char *from, const char *to)
{
    char from_path[128], path[128];
    model_without(name, file);
    snprintf(from_path, sizeof from_path, "model/%s", file);
    snprintf(path, sizeof path, "%s/%s", name, file);
    change(from_path, path, from, to);
}

static void make_weights(void)
{
    size_t size = 0;
    char *bytes = tiny_read("model/model.safetensors", &size);
    model_without("truncated", "model.safetensors");
    scratch_write(scratch, "truncated/model.safetensors", bytes, 100000);
    model_without("longheader", "model.safetensors");
    memset(bytes, 0xFF, 7);
    bytes[7] = 0x7F;
    scratch_write(scratch, "longheader/model.safetensors", bytes, size);
    free(bytes);
    bytes = tiny_read("model/model.safetensors", &size);
    uint64_t header = 0;
    memcpy(&header, bytes, sizeof header);
    char *offsets = strstr(bytes + 8, "\"data_offsets\":[");
    assert_true(offsets && offsets < bytes + 8 + header);
    char *end = strchr(offsets, ',') + 1;
    end += *end == ' ';
    *end = *end == '9' ? '8' : '9'; /* more or fewer bytes than the shape says */
    model_without("lying", "model.safetensors");
    scratch_write(scratch, "lying/model.safetensors", bytes, size);
    free(bytes);
}

static void make_models(void)
{
    make_weights();
    model_with("architecture", "config.json", "LlamaForCausalLM", "MambaForCausalLM");
    model_with("rope", "config.json", "\"rope_scaling\": null",
               "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}");
    model_with("layers", "config.json", "\"num_hidden_layers\": 5", "\"num_hidden_layers\": 6");
    model_with("brokenconfig", "config.json", "\"model_type\": \"llama\",", "\"model_type\" ");
    model_with("unigram", "tokenizer.json", "\"BPE\"", "\"Unigram\"");
    model_with("template", "tokenizer_config.json", "\"chat_template\": \"",
               "\"chat_template\": \"[INST]\", \"unused\": \"");
    model_without("notokenizer", "tokenizer.json");
}

/* The first lines of a file, then `line`. */
static void make_lines(const char *file, const char *name, int lines, const char *line)
{
    char *text = tiny_read(file, NULL);
    char *end = text;
    while (lines-- > 0) {
        end = strchr(end, '\n') + 1;
    }
    *end = '\0';
    size_t bytes = strlen(text) + strlen(line) + 2;
    char *made = malloc(bytes);
    snprintf(made, bytes, "%s%s\n", text, line);
    write_text(name, made);
    free(made);
    free(text);
}

static void make_long_lines(void)
{
    char words[8192] = "";
    char line[9000];
    for (int i = 0; i < 1300; i++) {
        memcpy(words + 5 * i, "word ", 6);
    }
    snprintf(line, sizeof line,
             "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}, "
             "{\"role\": \"assistant\", \"content\": \"%s\"}]}",
             words);
    make_lines("clients/bank.jsonl", "long.jsonl", 2, line);
    snprintf(line, sizeof line,
             "{\"id\": \"x\", \"category\": \"bank\", \"axes\": [\"dialogue\"], \"messages\": "
             "[{\"role\": \"user\", \"content\": \"Hello\"}, "
             "{\"role\": \"assistant\", \"content\": \"%s\"}]}",
             words);
    make_lines("benchmark.jsonl", "longbenchmark.jsonl", 4, line);
    snprintf(line, sizeof line, "{\"prompt\": \"a\"}\n{\"prompt\": \"%s\"}\n", words);
    write_text("longprompt.jsonl", line);
}

static void make_files(void)
{
    static const char broken[] = "{\"messages\": [{\"role\": \"user\",";
    make_lines("clients/bank.jsonl", "data.jsonl", 3, broken);
    make_lines("benchmark.jsonl", "benchmark.jsonl", 3, broken);
    make_lines("clients/bank.jsonl", "role.jsonl", 1,
               "{\"messages\": [{\"role\": \"robot\", \"content\": \"Hello\"}]}");
    make_lines("benchmark.jsonl", "axis.jsonl", 1,
               "{\"id\": \"x\", \"category\": \"bank\", \"axes\": [\"taste\"], \"messages\": "
               "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
               "\"content\": \"b\"}]}");
    make_long_lines();
    write_text("empty.jsonl", "\n\n");
    write_text("text.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \n");
    write_text("notext.jsonl", "{\"text\": \"a\"}\n{\"words\": \"b\"}\n");
    write_text("ids.jsonl", "[1, 2]\n[3, \"four\"]\n");
    write_text("noids.jsonl", "[1, 2]\n{\"text\": \"b\"}\n");
    write_text("prompt.jsonl", "{\"prompt\": \"a\"}\n{\"question\": \"b\"}\n");
    write_text("promptrole.jsonl",
               "{\"messages\": [{\"role\": \"robot\", \"content\": \"Hello\"}]}\n");
    write_text("halfids.json", "[1, 2");
    write_text("largeid.json", "[1, 99999]");
    write_text("good.json", "[1, 2, 3]");
}

static void make_federations(void)
{
    change_federation("key.yaml", "rounds: 3", "roundz: 3");
    change_federation("innerkey.yaml", "  steps: 24", "  stepz: 24");
    change_federation("word.yaml", "rule: shrunk", "rule: lottery");
    change_federation("number.yaml", "rounds: 3", "rounds: many");
    change_federation("range.yaml", "  steps: 24", "  steps: 0");
    change_federation("targets.yaml", "targets: all", "targets: some");
    change_federation("time.yaml", "deadline: 10m", "deadline: 10 moons");
    change_federation("syntax.yaml", "training:", "training: [");
    change_federation("missing.yaml", "clients:", "names:");
    change_federation("nodata.yaml", "rounds: 3", "rounds: 2");
    change_federation("device.yaml", "seed: 7", "device: tpu");
    change_federation("clientdevice.yaml", "behaviour: idle", "device: 'cuda:x'");
    change_federation("twice.yaml", "id: bank", "id: clinic");
    change_federation("share.yaml", "  method: fedit", "  method: fedit\n  share: mix");
    change_federation("beta.yaml", "  method: fedit", "  method: fedpit\n  beta: 0.5");
    change_federation("keep.yaml", "  method: fedit",
                      "  method: fedpit\n  synthesis: {candidates: 8, keep: 9}");
    change_federation("noise.yaml", "  method: fedit", "  method: fedit\n  privacy: {clip: 1}");
}

/* An adapter that works, and its broken copies. */
static void make_adapters(void)
{
    char path[512];
    size_t size = 0;
    command_good(NULL,
                 "train --model " TINY "/model --data " TINY "/clients/bank.jsonl "
                 "--out %s/adapter --steps 1 --rank 2 --batch-tokens 256 --threads 1 -q",
                 scratch);
    snprintf(path, sizeof path, "%s/adapter/adapter_model.safetensors", scratch);
    char *weights = scratch_read(path, &size);
    snprintf(path, sizeof path, "%s/adapter/adapter_config.json", scratch);
    char *config = scratch_read(path, NULL);
    char *rank = replaced(config, "\"r\": 2", "\"r\": 4");
    static const char *const names[] = {"adaptercut", "adapterrank", "adapterjson"};
    for (size_t i = 0; i < MEED_COUNT(names); i++) {
        char name[64];
        snprintf(path, sizeof path, "%s/%s", scratch, names[i]);
        assert_int_equal(mkdir(path, 0755), 0);
        snprintf(name, sizeof name, "%s/adapter_model.safetensors", names[i]);
        scratch_write(scratch, name, weights, i == 0 ? size / 2 : size);
        snprintf(name, sizeof name, "%s/adapter_config.json", names[i]);
        write_text(name, i == 1 ? rank : i == 2 ? "{\"r\": " : config);
    }
    free(rank);
    free(config);
    free(weights);
}

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    make_models();
    make_files();
    make_federations();
    make_adapters();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

/* ---- the line itself ---------------------------------------------------------------------------
 */

static void errors_usage(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {MEED_ARG, "", {"no command", "meed help"}, NULL},
        {MEED_ARG, "fly", {"\"fly\"", "meed help"}, NULL},
        {MEED_ARG, "--wings", {"\"--wings\"", "meed help"}, NULL},
        {MEED_ARG, "--log", {"--log", "level"}, NULL},
        {MEED_ARG, "--log loud help", {"--log", "\"loud\"", "error, warn"}, NULL},
        {MEED_ARG, "help fly", {"\"fly\"", "meed help"}, NULL},
        {MEED_ARG, "up", {"federation file", "examples/tiny/federation.yaml"}, NULL},
        {MEED_ARG, "up one.yaml two.yaml", {"two.yaml"}, NULL},
        {MEED_ARG, "up --seed soon x.yaml", {"--seed", "\"soon\"", "whole number"}, NULL},
        {MEED_ARG, "serve", {"--state", "--model", "meed help serve"}, NULL},
        {MEED_ARG, "serve --rounds 0", {"--rounds", "\"0\"", "1 to"}, NULL},
        {MEED_ARG, "serve --method guess", {"--method", "guess", "meed help serve"}, NULL},
        {MEED_ARG, "serve --deadline 3x", {"--deadline", "3x", "90s"}, NULL},
        {MEED_ARG, "join", {"--server", "meed help join"}, NULL},
        {MEED_ARG, "join --behaviour sly", {"--behaviour", "sly", "honest or idle"}, NULL},
        {MEED_ARG, "provision", {"--server", "meed help provision"}, NULL},
        {MEED_ARG, "train", {"--model", "meed help train"}, NULL},
        {MEED_ARG, "train --steps -1", {"--steps", "\"-1\"", "1 to"}, NULL},
        {MEED_ARG, "train --lr fast", {"--lr", "\"fast\"", "number"}, NULL},
        {MEED_ARG, "train --targets some", {"some", "q_proj"}, NULL},
        {MEED_ARG, "train --dtype f8", {"--dtype", "f8", "bf16"}, NULL},
        {MEED_ARG, "train --base int3", {"--base", "int3", "nf4"}, NULL},
        {MEED_ARG, "synthesise --base int3", {"--base", "int3", "nf4"}, NULL},
        {MEED_ARG, "eval --base int3", {"--base", "int3", "nf4"}, NULL},
        {MEED_ARG, "value --base int3", {"--base", "int3", "nf4"}, NULL},
        {MEED_ARG, "chat --base int3", {"--base", "int3", "nf4"}, NULL},
        {MEED_ARG, "generate --base int3", {"--base", "int3", "nf4"}, NULL},
        {MEED_ARG, "join --base int3", {"--base", "int3", "nf4"}, NULL},
        {MEED_ARG, "train data.jsonl", {"data.jsonl", "meed help train"}, NULL},
        {MEED_ARG, "value", {"--model", "meed help value"}, NULL},
        {MEED_ARG, "value --model ~/model --benchmark b --adapters A", {"--budget"}, NULL},
        {MEED_ARG, "value --method guess", {"--method", "guess", "exact"}, NULL},
        {MEED_ARG, "eval --model ~/model", {"--benchmark", "meed help eval"}, NULL},
        {MEED_ARG, "generate --model ~/model", {"--prompts", "meed help generate"}, NULL},
        {MEED_ARG, "generate --top-p 2", {"--top-p", "\"2\""}, NULL},
        {MEED_ARG, "synthesise --model ~/model", {"--data", "meed help synthesise"}, NULL},
        {MEED_ARG, "synthesise --score best", {"--score", "best", "ppl"}, NULL},
        {MEED_ARG, "synthesise --template free", {"--template", "free", "tasks"}, NULL},
        {MEED_ARG, "synthesise --rouge-max 2", {"--rouge-max", "\"2\""}, NULL},
        {MEED_ARG, "synthesise --model m --data d --out o --retries 99", {"retries", "63"}, NULL},
        {MEED_ARG, "chat", {"--model", "meed help chat"}, NULL},
        {MEED_ARG, "ledger", {"show", "verify"}, NULL},
        {MEED_ARG, "ledger burn @", {"show", "verify"}, NULL},
        {MEED_ARG, "tokenize --model ~/model", {"input file", "standard input"}, NULL},
        {MEED_ARG, "logits --model ~/model", {"--ids", "meed help logits"}, NULL},
        {MEED_ARG, "merge --model ~/model --out @/out", {"--adapter", "meed help merge"}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
}

/* What argp would have refused in its own words, in every command. */
static void errors_options(void **state)
{
    (void)state;
    static const char *const commands[] = {"up",     "serve",    "join",     "provision",  "train",
                                           "value",  "eval",     "generate", "report",     "chat",
                                           "ledger", "tokenize", "logits",   "synthesise", "merge"};
    static const struct {
        const char *option, *says;
    } cases[] = {{"--nonsense", "\"--nonsense\""},
                 {"-Z", "\"-Z\""},
                 {"--help=me", "\"--help=me\""},
                 {"x -?Z", "\"-?Z\""}};
    static const struct row rows[] = {
        {MEED_ARG, "train --model", {"missing", "\"--model\"", "meed help train"}, NULL},
        {MEED_ARG, "ledger verify @ -k", {"missing", "\"-k\""}, NULL},
        {MEED_ARG, "train --quiet=yes", {"no value", "\"--quiet=yes\""}, NULL},
        {MEED_ARG, "up --s", {"more than one", "\"--s\""}, NULL},
    };
    for (size_t i = 0; i < MEED_COUNT(commands); i++) {
        for (size_t j = 0; j < MEED_COUNT(cases); j++) {
            char line[64], help[64];
            snprintf(line, sizeof line, "%s %s", commands[i], cases[j].option);
            snprintf(help, sizeof help, "`meed help %s`", commands[i]);
            check_row(&(struct row){MEED_ARG, line, {cases[j].says, help}, NULL});
        }
    }
    check_rows(rows, MEED_COUNT(rows));
}

/* ---- files -------------------------------------------------------------------------------------
 */

/* Each broken model by each way in. */
static void errors_models(void **state)
{
    (void)state;
    static const struct {
        enum meed_status status;
        const char *model, *file, *says[2];
    } cases[] = {
        {MEED_FORMAT, "truncated", "model.safetensors", {"truncated"}},
        {MEED_FORMAT, "lying", "model.safetensors", {"embed_tokens"}},
        {MEED_FORMAT, "longheader", "model.safetensors", {"header", "truncated"}},
        {MEED_UNSUPPORTED, "architecture", "config.json", {"MambaForCausalLM", "Qwen3ForCausalLM"}},
        {MEED_UNSUPPORTED, "rope", "config.json", {"yarn", "llama3"}},
        {MEED_FORMAT, "brokenconfig", "config.json", {"line 6"}},
        {MEED_UNSUPPORTED, "unigram", "tokenizer.json", {"Unigram", "byte-level BPE"}},
        {MEED_NOT_FOUND, "notokenizer", "tokenizer.json", {"cannot open"}},
        {MEED_UNSUPPORTED, "template", NULL, {"chat template", "ChatML"}},
        {MEED_NOT_FOUND, "nothing", NULL, {"cannot open"}},
    };
    static const char *const lines[] = {
        "eval --model @/%s --benchmark ~/benchmark.jsonl --json @/out",
        "value --model @/%s --benchmark ~/benchmark.jsonl --adapters @/adapter --budget 9 "
        "--json @/out",
        "train --model @/%s --data ~/clients/bank.jsonl --out @/out --steps 1 --json @/out.log",
        "chat --model @/%s",
        "join --server 127.0.0.1:1 --id a --model @/%s --data ~/clients/bank.jsonl --state @/out "
        "--insecure",
        "serve --state @/out --model @/%s --benchmark ~/benchmark.jsonl --clients a --insecure",
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        for (size_t j = 0; j < MEED_COUNT(lines); j++) {
            char line[512], file[128];
            snprintf(line, sizeof line, lines[j], cases[i].model);
            snprintf(file, sizeof file, "@/%s%s%s", cases[i].model, cases[i].file ? "/" : "",
                     cases[i].file ? cases[i].file : "");
            check_row(&(struct row){
                cases[i].status, line, {file, cases[i].says[0], cases[i].says[1]}, NULL});
            check_absent("@/out");
            check_absent("@/out.log");
        }
    }
    check_row(&(struct row){MEED_FORMAT,
                            "logits --model @/layers --ids @/good.json --out @/out",
                            {"@/layers", "model.layers.5"},
                            NULL});
    check_absent("@/out");
}

static void errors_data(void **state)
{
    (void)state;
    static const char train[] = "train --model ~/model --out @/out --steps 1 --data ";
    static const struct {
        enum meed_status status;
        const char *file, *says[3];
    } cases[] = {
        {MEED_FORMAT, "data.jsonl", {"@/data.jsonl:4: ", "JSON"}},
        {MEED_FORMAT, "role.jsonl", {"@/role.jsonl:2: ", "system, user or assistant"}},
        {MEED_FORMAT, "empty.jsonl", {"@/empty.jsonl", "no dialogue"}},
        {MEED_LIMIT, "long.jsonl", {"@/long.jsonl:3: ", "512", "--truncate"}},
        {MEED_NOT_FOUND, "nothing.jsonl", {"cannot open @/nothing.jsonl"}},
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        char line[512];
        snprintf(line, sizeof line, "%s@/%s", train, cases[i].file);
        check_row(&(struct row){
            cases[i].status, line, {cases[i].says[0], cases[i].says[1], cases[i].says[2]}, NULL});
        check_absent("@/out");
    }
}

static void errors_lines(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {MEED_FORMAT,
         "eval --model ~/model --benchmark @/benchmark.jsonl --json @/out",
         {"@/benchmark.jsonl:4: ", "JSON"},
         NULL},
        {MEED_FORMAT,
         "value --model ~/model --benchmark @/benchmark.jsonl --adapters @/adapter --budget 9",
         {"@/benchmark.jsonl:4: ", "JSON"},
         NULL},
        {MEED_FORMAT,
         "serve --state @/out --model ~/model --benchmark @/benchmark.jsonl --clients a --insecure",
         {"@/benchmark.jsonl:4: ", "JSON"},
         NULL},
        {MEED_FORMAT,
         "eval --model ~/model --benchmark @/axis.jsonl --json @/out",
         {"@/axis.jsonl:2: ", "taste"},
         NULL},
        {MEED_LIMIT,
         "eval --model ~/model --benchmark @/longbenchmark.jsonl --json @/out",
         {"@/longbenchmark.jsonl:5: ", "512", "shorten"},
         NULL},
        {MEED_FORMAT, "tokenize --model ~/model @/text.jsonl", {"@/text.jsonl:3: "}, NULL},
        {MEED_FORMAT, "tokenize --model ~/model @/notext.jsonl", {":2: ", "\"text\""}, NULL},
        {MEED_FORMAT, "tokenize --model ~/model -", {"standard input", ":1: "}, "[1"},
        {MEED_FORMAT, "tokenize --model ~/model -d @/ids.jsonl", {"@/ids.jsonl:2: "}, NULL},
        {MEED_FORMAT, "tokenize --model ~/model -d @/noids.jsonl", {":2: ", "array"}, NULL},
        {MEED_NOT_FOUND, "tokenize --model ~/model @/nothing", {"@/nothing"}, NULL},
        {MEED_UNSUPPORTED, "tokenize --model @/unigram @/text.jsonl", {"Unigram"}, NULL},
        {MEED_FORMAT,
         "generate --model ~/model --prompts @/prompt.jsonl --json @/out",
         {"@/prompt.jsonl:2: ", "\"prompt\""},
         NULL},
        {MEED_FORMAT,
         "generate --model ~/model --prompts @/promptrole.jsonl",
         {"@/promptrole.jsonl:1: ", "robot"},
         NULL},
        {MEED_LIMIT,
         "generate --model ~/model --prompts @/longprompt.jsonl",
         {"@/longprompt.jsonl:2: ", "511"},
         NULL},
        {MEED_FORMAT,
         "logits --model ~/model --ids @/halfids.json --out @/out",
         {"@/halfids.json", "JSON array"},
         NULL},
        {MEED_FORMAT,
         "logits --model ~/model --ids @/largeid.json --out @/out",
         {"@/largeid.json", "entry 1", "2047"},
         NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    check_absent("@/out");
}

static void errors_adapters(void **state)
{
    (void)state;
    static const struct {
        enum meed_status status;
        const char *adapter, *says[2];
    } cases[] = {
        {MEED_FORMAT, "adaptercut", {"@/adaptercut/adapter_model.safetensors", "truncated"}},
        {MEED_FORMAT, "adapterrank", {"@/adapterrank", "4"}},
        {MEED_FORMAT, "adapterjson", {"@/adapterjson/adapter_config.json", "line 1"}},
        {MEED_NOT_FOUND, "nothing", {"cannot open @/nothing/adapter_config.json"}},
    };
    static const char *const lines[] = {
        "logits --model ~/model --ids @/good.json --out @/out --adapter @/%s",
        "merge --model ~/model --adapter @/adapter --out @/out --adapter @/%s",
        "eval --model ~/model --benchmark ~/benchmark.jsonl --json @/out --adapter @/%s",
        "value --model ~/model --benchmark ~/benchmark.jsonl --budget 9 --json @/out "
        "--adapters @/adapter @/%s",
        "train --model ~/model --data ~/clients/bank.jsonl --out @/out --steps 1 --adapter @/%s",
        "chat --model ~/model --adapter @/%s",
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        for (size_t j = 0; j < MEED_COUNT(lines); j++) {
            char line[512];
            snprintf(line, sizeof line, lines[j], cases[i].adapter);
            check_row(
                &(struct row){cases[i].status, line, {cases[i].says[0], cases[i].says[1]}, NULL});
            check_absent("@/out");
        }
    }
}

static void errors_federation_file(void **state)
{
    (void)state;
    static const struct {
        enum meed_status status;
        const char *file, *says[3];
    } cases[] = {
        {MEED_CONFIG, "key.yaml", {"@/key.yaml:6: ", "\"roundz\"", "meed help up"}},
        {MEED_CONFIG, "innerkey.yaml", {"@/innerkey.yaml:13: ", "\"stepz\"", "meed help up"}},
        {MEED_CONFIG, "word.yaml", {"@/word.yaml:26: ", "rule", "\"lottery\""}},
        {MEED_CONFIG, "number.yaml", {"@/number.yaml:6: ", "rounds", "many"}},
        {MEED_CONFIG, "range.yaml", {"@/range.yaml", "training.steps is 0", "from 1"}},
        {MEED_CONFIG, "targets.yaml", {"@/targets.yaml", "training.targets", "q_proj"}},
        {MEED_CONFIG, "share.yaml", {"@/share.yaml", "training.share", "method: fedpit"}},
        {MEED_CONFIG, "beta.yaml", {"@/beta.yaml", "training.beta", "share: mix"}},
        {MEED_CONFIG, "keep.yaml", {"@/keep.yaml", "training.synthesis.keep is 9", "to 8"}},
        {MEED_CONFIG, "noise.yaml", {"@/noise.yaml", "training.privacy", "noise"}},
        {MEED_CONFIG, "time.yaml", {"@/time.yaml", "deadline", "10m"}},
        {MEED_CONFIG, "syntax.yaml", {"@/syntax.yaml:"}},
        {MEED_CONFIG, "missing.yaml", {"@/missing.yaml:", "\"names\""}},
        {MEED_CONFIG, "device.yaml", {"@/device.yaml:9: ", "\"tpu\"", "cpu, cuda or cuda:N"}},
        {MEED_CONFIG,
         "clientdevice.yaml",
         {"@/clientdevice.yaml:34: ", "\"cuda:x\"", "cpu, cuda or cuda:N"}},
        {MEED_CONFIG, "twice.yaml", {"@/twice.yaml", "clinic", "rename"}},
        {MEED_NOT_FOUND, "nothing.yaml", {"@/nothing.yaml"}},
    };
    static const char *const lines[] = {"up @/%s --state @/out --json @/out.json",
                                        "serve --config @/%s --state @/out --insecure"};
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        for (size_t j = 0; j < MEED_COUNT(lines); j++) {
            char line[512];
            snprintf(line, sizeof line, lines[j], cases[i].file);
            check_row(&(struct row){cases[i].status,
                                    line,
                                    {cases[i].says[0], cases[i].says[1], cases[i].says[2]},
                                    NULL});
        }
    }
    check_row(&(struct row){MEED_NOT_FOUND,
                            "up @/nodata.yaml --state @/out",
                            {"@/nodata.yaml", "clinic", "@/clients/clinic.jsonl"},
                            NULL});
    check_absent("@/out");
    check_absent("@/out.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_usage),           cmocka_unit_test(errors_options),
        cmocka_unit_test(errors_models),          cmocka_unit_test(errors_data),
        cmocka_unit_test(errors_lines),           cmocka_unit_test(errors_adapters),
        cmocka_unit_test(errors_federation_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
