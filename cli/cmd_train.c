/* meed train: a LoRA adapter from one file of dialogues, without a federation.
 *
 * The trainer is the one that clients of a federation run, so a loss printed here is comparable
 * with theirs. SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) end the run at the next step with a
 * checkpoint in the output folder; the same command with --resume goes on with the same bits.
 * With --ranks the process is one of several (rank_group.h), and every rank runs this file; the
 * first alone writes and speaks.
 */
#include <argp.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/rank_group.h"
#include "cli/stop_signal.h"
#include "client/workbench.h"
#include "engine/trainer.h"

#define CHECKPOINT_NAME "training.ckpt"

struct options {
    const char *model, *data, *out, *start, *json, *device;
    struct meed_lora_config lora;
    struct meed_train_options train;
    bool shape_given; /* --rank, --alpha, --targets or --rslora */
    bool resume, truncate, quiet;
    int64_t threads, checkpoint_every;
    struct meed_rank_options ranks;
    enum meed_status status;
};

enum {
    KEY_ALPHA = 256,
    KEY_RSLORA,
    KEY_TARGETS,
    KEY_ACCUMULATION,
    KEY_DROPOUT,
    KEY_DTYPE,
    KEY_BASE,
    KEY_WARMUP,
    KEY_LR_MIN,
    KEY_WEIGHT_DECAY,
    KEY_CLIP,
    KEY_CHECKPOINT_EVERY,
    KEY_RESUME,
    KEY_TRUNCATE,
    KEY_DEVICE,
    KEY_RANKS,
    KEY_GPUS,
    KEY_RENDEZVOUS,
};

static const struct argp_option option_rows[] = {
    {"model", 'm', "DIR", 0, "base model folder (Hugging Face layout)", 1},
    {"data", 'd', "FILE", 0, "JSON lines: messages, conversations, instruction, prompt, text", 1},
    {"out", 'o', "DIR", 0, "where the adapter goes (PEFT layout)", 1},
    {"adapter", 'a', "DIR", 0, "start from this adapter instead of a fresh one", 1},
    {"truncate", KEY_TRUNCATE, NULL, 0, "cut over-long dialogues instead of refusing them", 1},
    {"rank", 'r', "N", 0, "of a fresh adapter (default: 8)", 2},
    {"alpha", KEY_ALPHA, "X", 0, "scale is alpha/rank (default: 16)", 2},
    {"rslora", KEY_RSLORA, NULL, 0, "scale is alpha/sqrt(rank)", 2},
    {"targets", KEY_TARGETS, "LIST", 0, "all, attention, mlp or q_proj,v_proj … (default: all)", 2},
    {"dropout", KEY_DROPOUT, "X", 0, "of the low-rank branch (default: 0)", 2},
    {"steps", 'n', "N", 0, "optimiser steps (default: 100)", 3},
    {"batch-tokens", 'b', "N", 0, "tokens of a micro-batch at most (default: 1024)", 3},
    {"accumulation", KEY_ACCUMULATION, "N", 0, "micro-batches a step (default: 1)", 3},
    {"lr", 'l', "X", 0, "peak learning rate (default: 2e-4)", 3},
    {"lr-min-ratio", KEY_LR_MIN, "X", 0, "floor of the cosine (default: 0.1)", 3},
    {"warmup", KEY_WARMUP, "N", 0, "warm-up steps (default: 5)", 3},
    {"weight-decay", KEY_WEIGHT_DECAY, "X", 0, "decoupled (default: 0)", 3},
    {"clip", KEY_CLIP, "X", 0, "gradient norm at most, 0 for never (default: 1)", 3},
    {"seed", 's', "N", 0, "of adapter, data order and dropout (default: 1)", 3},
    {"dtype", KEY_DTYPE, "WORD", 0, "f32 or bf16, of weights and activations (default: bf16)", 4},
    {"base", KEY_BASE, "WORD", 0, "frozen weights: dense, int8, int4, nf4 (default: dense)", 4},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 4},
    {"threads", 't', "N", 0, "worker threads (default: all cores, shared by the ranks)", 4},
    {"ranks", KEY_RANKS, "N", 0, "processes that share each step, or the word slurm: its tasks", 4},
    {"gpus", KEY_GPUS, "N", 0, "N ranks, one on each of cuda:0 to cuda:N-1", 4},
    {"rendezvous", KEY_RENDEZVOUS, "DIR", 0,
     "where Slurm's tasks meet, on all nodes (default: the output folder)", 4},
    {"checkpoint-every", KEY_CHECKPOINT_EVERY, "N", 0, "steps between checkpoints (default: 0)", 4},
    {"resume", KEY_RESUME, NULL, 0, "go on from the checkpoint in the output folder", 4},
    {"json", 'j', "FILE", 0, "write a line a step: step, loss, lr, tokens_per_second …", 4},
    {"quiet", 'q', NULL, 0, "no progress", 4},
    {0},
};

static const char documentation[] =
    "Fine-tune a LoRA adapter without a federation. Ranks share the micro-batches of a step "
    "(--accumulation) and change no byte of the result. Stop it with Ctrl-C or SIGTERM: it "
    "writes a checkpoint, and the same command with --resume goes on with the same bits.\v"
    "Examples:\n"
    "  meed train --model examples/tiny/model \\\n"
    "      --data examples/tiny/clients/bank.jsonl --out out/bank \\\n"
    "      --steps 60 --lr 3e-3\n"
    "  meed train --model M --data D.jsonl --out A2 --adapter A1\n"
    "  meed train --model M --data D.jsonl --out A --targets q_proj,v_proj \\\n"
    "      --checkpoint-every 50 --resume --json log.jsonl\n"
    "  meed train --model M --data D.jsonl --out A --base nf4   # QLoRA's base\n"
    "  meed train --model M --data D.jsonl --out A --gpus 8 --accumulation 16\n"
    "  srun -N 4 --ntasks-per-node 8 --kill-on-bad-exit=1 meed train --ranks slurm \\\n"
    "      --device cuda --accumulation 32 --model M --data D.jsonl --out A";

/* Numeric options: where they go, what is allowed. */
enum number_kind { NUMBER_I32, NUMBER_I64, NUMBER_F32 };
static const struct {
    int key;
    enum number_kind kind;
    double min, max;
    size_t offset;
    const char *name;
} numbers[] = {
    {'r', NUMBER_I32, 1, MEED_ADAPTER_MAX_RANK, offsetof(struct options, lora.rank), "--rank"},
    {KEY_ALPHA, NUMBER_F32, 1e-6, 1e6, offsetof(struct options, lora.alpha), "--alpha"},
    {KEY_DROPOUT, NUMBER_F32, 0, 0.99, offsetof(struct options, train.dropout), "--dropout"},
    {'n', NUMBER_I64, 1, 1e9, offsetof(struct options, train.steps), "--steps"},
    {'b', NUMBER_I32, 1, 1 << 24, offsetof(struct options, train.batch_tokens), "--batch-tokens"},
    {KEY_ACCUMULATION, NUMBER_I32, 1, 65536, offsetof(struct options, train.accumulation),
     "--accumulation"},
    {'l', NUMBER_F32, 0, 100, offsetof(struct options, train.lr), "--lr"},
    {KEY_LR_MIN, NUMBER_F32, 0, 1, offsetof(struct options, train.lr_min_ratio), "--lr-min-ratio"},
    {KEY_WARMUP, NUMBER_I64, 0, 1e9, offsetof(struct options, train.warmup_steps), "--warmup"},
    {KEY_WEIGHT_DECAY, NUMBER_F32, 0, 1000, offsetof(struct options, train.weight_decay),
     "--weight-decay"},
    {KEY_CLIP, NUMBER_F32, 0, 1e9, offsetof(struct options, train.clip_norm), "--clip"},
    {'s', NUMBER_I64, 0, 9e18, offsetof(struct options, train.seed), "--seed"},
    {'t', NUMBER_I64, 1, 256, offsetof(struct options, threads), "--threads"},
    {KEY_CHECKPOINT_EVERY, NUMBER_I64, 0, 1e9, offsetof(struct options, checkpoint_every),
     "--checkpoint-every"},
    {KEY_GPUS, NUMBER_I64, 1, MEED_RENDEZVOUS_MAX_RANKS, offsetof(struct options, ranks.gpus),
     "--gpus"},
};

/* ARGP_ERR_UNKNOWN for keys outside the table. */
static error_t number_parse(int key, const char *text, struct options *options)
{
    for (size_t i = 0; i < MEED_COUNT(numbers); i++) {
        if (numbers[i].key != key) {
            continue;
        }
        void *field = (char *)options + numbers[i].offset;
        int64_t whole = 0;
        double real = 0.0;
        if (numbers[i].kind == NUMBER_F32) {
            options->status =
                meed_parse_f64(numbers[i].name, text, numbers[i].min, numbers[i].max, &real);
            *(float *)field = (float)real;
        } else {
            options->status = meed_parse_i64(numbers[i].name, text, (int64_t)numbers[i].min,
                                             (int64_t)numbers[i].max, &whole);
            if (numbers[i].kind == NUMBER_I32) {
                *(int32_t *)field = (int32_t)whole;
            } else {
                *(int64_t *)field = whole;
            }
        }
        return options->status == MEED_OK ? 0 : EINVAL;
    }
    return ARGP_ERR_UNKNOWN;
}

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    options->shape_given |=
        key == 'r' || key == KEY_ALPHA || key == KEY_RSLORA || key == KEY_TARGETS;
    switch (key) {
    case 'm':
        options->model = text;
        return 0;
    case 'd':
        options->data = text;
        return 0;
    case 'o':
        options->out = text;
        return 0;
    case 'a':
        options->start = text;
        return 0;
    case 'j':
        options->json = text;
        return 0;
    case 'q':
        options->quiet = true;
        return 0;
    case KEY_RSLORA:
        options->lora.rslora = true;
        return 0;
    case KEY_RESUME:
        options->resume = true;
        return 0;
    case KEY_TRUNCATE:
        options->truncate = true;
        return 0;
    case KEY_TARGETS:
        options->status = meed_proj_set_parse(text, &options->lora.targets);
        return options->status == MEED_OK ? 0 : EINVAL;
    case KEY_DTYPE:
        options->status = meed_workbench_parse_dtype(text, &options->train.dtype);
        return options->status == MEED_OK ? 0 : EINVAL;
    case KEY_BASE:
        options->status = meed_command_line_base(text, &options->train.base);
        return options->status == MEED_OK ? 0 : EINVAL;
    case KEY_DEVICE:
        options->device = text;
        options->status = meed_backend_check_device(text);
        return options->status == MEED_OK ? 0 : EINVAL;
    case KEY_RANKS:
        options->ranks.ranks = text;
        return 0;
    case KEY_RENDEZVOUS:
        options->ranks.rendezvous = text;
        return 0;
    case ARGP_KEY_ARG:
        options->status =
            MEED_FAIL(MEED_ARG, "\"%.64s\" is no option; see `meed help train`", text);
        return EINVAL;
    default:
        return number_parse(key, text, options);
    }
}

struct job {
    struct options options;
    struct meed_rank_group ranks;
    struct meed_workbench bench;
    struct meed_sequence *sequences;
    int64_t sequence_count;
    struct meed_adapter *adapter; /* start, then result */
    struct meed_trainer *trainer;
    struct meed_progress progress;
    char checkpoint[MEED_PATH_BYTES];
    FILE *json;
    const volatile sig_atomic_t *stop;
    int64_t steps, tokens; /* of this process */
    double seconds, first_loss, last_loss;
};

static enum meed_status open_adapter(struct job *job)
{
    const struct options *options = &job->options;
    const struct meed_model_config *model = &job->bench.checkpoint->config;
    if (options->start) {
        if (options->shape_given) {
            return MEED_FAIL(MEED_ARG, "--adapter brings its own rank, alpha and targets; leave "
                                       "those options out");
        }
        return meed_adapter_load(options->start, model, &job->adapter);
    }
    MEED_TRY(meed_adapter_create(model, &options->lora, &job->adapter));
    meed_adapter_init(job->adapter, options->train.seed);
    return MEED_OK;
}

static enum meed_status open_json(struct job *job, bool append)
{
    if (!job->options.json || job->ranks.rank > 0) {
        return MEED_OK;
    }
    job->json = fopen(job->options.json, append ? "a" : "w");
    if (!job->json) {
        return MEED_FAIL(MEED_IO, "cannot write %.512s: %s", job->options.json, strerror(errno));
    }
    return MEED_OK;
}

static enum meed_status open_job(struct job *job)
{
    const struct options *options = &job->options;
    MEED_TRY(
        meed_file_join(options->out, CHECKPOINT_NAME, job->checkpoint, sizeof job->checkpoint));
    bool there = meed_file_exists(job->checkpoint);
    if (there && !options->resume) {
        return MEED_FAIL(MEED_STATE,
                         "%.512s is left of a stopped run; add --resume to go on with "
                         "it, or remove it",
                         job->checkpoint);
    }
    MEED_TRY(meed_workbench_open(options->model, options->data, job->ranks.device,
                                 job->ranks.threads, &job->bench));
    MEED_TRY(open_adapter(job));
    int32_t most =
        MEED_MIN(options->train.batch_tokens + 1, job->bench.checkpoint->config.max_positions);
    MEED_TRY(meed_dataset_limit(job->bench.dataset, most, options->truncate, &job->sequences,
                                &job->sequence_count));
    MEED_TRY(meed_trainer_create(job->bench.be, job->bench.checkpoint, job->adapter, job->sequences,
                                 job->sequence_count, &options->train, &job->trainer));
    if (there) {
        MEED_TRY(meed_trainer_resume(job->trainer, job->checkpoint));
    }
    MEED_TRY(meed_trainer_share(job->trainer, job->ranks.collective));
    MEED_TRY(meed_file_make_folder(options->out)); /* last: bad input leaves nothing behind */
    return open_json(job, there);
}

static void close_job(struct job *job)
{
    meed_collective_close(job->ranks.collective);
    meed_trainer_destroy(job->trainer);
    meed_heap_free(job->sequences);
    meed_adapter_destroy(job->adapter);
    meed_workbench_close(&job->bench);
    if (job->json) {
        fclose(job->json);
    }
}

static enum meed_status report_step(struct job *job, const struct meed_train_report *report)
{
    job->first_loss = job->steps++ == 0 ? report->loss : job->first_loss;
    job->last_loss = report->loss;
    job->tokens += report->tokens;
    job->seconds += report->seconds;
    int64_t done = report->step + 1, total = job->options.train.steps;
    meed_progress_update(&job->progress, done, total);
    if (!job->json) {
        return MEED_OK;
    }
    fprintf(job->json,
            "{\"step\": %lld, \"loss\": %.9g, \"lr\": %.9g, \"gradient_norm\": %.9g, "
            "\"tokens\": %lld, \"tokens_per_second\": %.6g}\n",
            (long long)done, report->loss, report->lr, report->gradient_norm,
            (long long)report->tokens,
            report->seconds > 0.0 ? (double)report->tokens / report->seconds : 0.0);
    if (fflush(job->json) != 0) {
        return MEED_FAIL(MEED_IO, "cannot write %.512s: %s", job->options.json, strerror(errno));
    }
    return MEED_OK;
}

static enum meed_status run_steps(struct job *job)
{
    int64_t total = job->options.train.steps, every = job->options.checkpoint_every;
    int64_t done = meed_trainer_steps_done(job->trainer);
    while (done < total) {
        struct meed_train_report report;
        MEED_TRY(meed_trainer_step(job->trainer, &report));
        MEED_TRY(report_step(job, &report));
        done++;
        bool stop = false; /* whoever was asked, all stop after the same step */
        MEED_TRY(meed_collective_any(job->ranks.collective, *job->stop != 0, &stop));
        if (done < total && (stop || (every > 0 && done % every == 0))) {
            MEED_TRY(meed_trainer_save(job->trainer, job->checkpoint));
        }
        if (done < total && stop) {
            return MEED_FAIL(MEED_CANCELLED,
                             "stopped after step %lld of %lld; add --resume to go "
                             "on",
                             (long long)done, (long long)total);
        }
    }
    return MEED_OK;
}

static enum meed_status finish(struct job *job)
{
    MEED_TRY(meed_trainer_export(job->trainer, job->adapter));
    if (job->ranks.rank > 0) {
        return MEED_OK;
    }
    MEED_TRY(meed_adapter_save(job->adapter, job->options.model, job->options.out));
    if (unlink(job->checkpoint) != 0 && errno != ENOENT) {
        return MEED_FAIL(MEED_IO, "cannot remove %.512s: %s", job->checkpoint, strerror(errno));
    }
    char rate[16], tokens[16];
    meed_progress_quantity(job->seconds > 0.0 ? (double)job->tokens / job->seconds : 0.0, rate);
    meed_progress_quantity((double)job->tokens, tokens);
    if (!job->options.quiet) {
        fprintf(stderr,
                "%lld steps on %lld dialogues, %s tokens in %.1f s, %s tokens/s, loss %.4f to "
                "%.4f; adapter in %s\n",
                (long long)job->steps, (long long)job->sequence_count, tokens, job->seconds, rate,
                job->first_loss, job->last_loss, job->options.out);
    }
    return MEED_OK;
}

enum meed_status meed_cmd_train(int argc, char **argv)
{
    struct job job = {.options = {.lora = {.rank = 8, .alpha = 16.0f, .targets = MEED_PROJ_ALL},
                                  .train = meed_train_defaults()}};
    const struct argp argp = {option_rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &job.options, &job.options.status));
    if (!job.options.model || !job.options.data || !job.options.out) {
        return MEED_FAIL(MEED_ARG, "--model, --data and --out are needed; see `meed help train`");
    }
    job.options.lora.dropout = job.options.train.dropout;
    job.options.ranks.device = job.options.device;
    job.options.ranks.threads = (int)job.options.threads;
    job.options.ranks.out = job.options.out;
    enum meed_status st = MEED_OK;
    job.stop = meed_stop_signal_catch();
    MEED_TRY_OUT(meed_rank_group_open(&job.options.ranks, &job.ranks));
    MEED_TRY_OUT(open_job(&job));
    bool quiet = job.options.quiet || job.ranks.rank > 0;
    meed_progress_start(&job.progress, "training", "steps", quiet);
    st = run_steps(&job);
    meed_progress_finish(&job.progress);
    MEED_TRY_OUT(st);
    MEED_TRY_OUT(finish(&job));
out:
    st = meed_collective_fail(job.ranks.collective, st);
    close_job(&job);
    return meed_rank_group_close(&job.ranks, st);
}
