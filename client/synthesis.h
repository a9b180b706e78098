/* Synthetic task data: what a model writes after having seen a few of a client's examples.
 *
 * FedPIT (Zhang et al., arXiv 2403.06131) lets a client share parameters trained on such data
 * instead of its own. Candidates are written by the global model alone, in two phases: a user's
 * message after demonstrations of user messages, then a reply after demonstrations of exchanges,
 * and so on by turns where the data are dialogues. What cannot be used is tried again with other
 * demonstrations, a few times, then given up. The survivors are scored by the private adapter, and
 * the best are kept:
 *
 *   synthesis_write   FOLDER/candidates.jsonl   one line a candidate, with its fate
 *   synthesis_select  FOLDER/scores.jsonl       losses and score of every survivor
 *                     FOLDER/synthetic.jsonl    those kept: a data file (dataset.h)
 *
 * Filters. A text is refused if it did not end by itself, if it is too short, opens as a role
 * statement or an apology (user messages), runs in circles, or holds control tokens or broken
 * characters; if a user's message is one that another candidate has; and, the rule against copying
 * and leaking alike, if its ROUGE-L F1 with any local message of the same role is above rouge_max.
 * Every message is held against every local message, which is stricter than whole examples against
 * whole examples. Later turns that are refused end a dialogue early; it stays if an exchange does.
 *
 * Scores are means over the tokens of all replies, L(y|x) behind the dialogue so far and L(y)
 * behind nothing but the mark that opens a reply:
 *
 *   ifs      L(y|x) / L(y)   lowest first: the question explains the reply (the paper's)
 *   ppl      exp L(y|x)      lowest first
 *   ifd      the same ratio as ifs, highest first among those below 1 (Li et al. 2024, Cherry)
 *   random   a draw          lowest first
 *
 * Work is done in groups of MEED_SYNTHESIS_GROUP candidates that share their demonstrations, so
 * that these are fed once (generate.h), and all that is drawn is keyed by seed, group and attempt:
 * the files are the same bytes for every batch size and thread count, and after any interruption.
 * The demonstrations are the client's own text: the candidates file and the kept set are as private
 * as the data until something is trained on them.
 */
#ifndef MEED_CLIENT_SYNTHESIS_H
#define MEED_CLIENT_SYNTHESIS_H

#include "engine/adapter.h"
#include "engine/chat.h"
#include "engine/checkpoint.h"
#include "kernels/backend.h"

MEED_BEGIN_C

enum meed_synthesis_score {
    MEED_SYNTHESIS_IFS,
    MEED_SYNTHESIS_PPL,
    MEED_SYNTHESIS_IFD,
    MEED_SYNTHESIS_RANDOM,
    MEED_SYNTHESIS_SCORES
};

/* How a model is asked. */
enum meed_synthesis_template {
    /* Demonstrations are earlier turns of one conversation in the model's own chat template, and
     * the model goes on: with a user's message, then with the reply. */
    MEED_SYNTHESIS_DIALOGUE,
    /* Numbered tasks, then "Task:" and "Response:", in plain text without a chat template: the
     * paper's form. Single exchanges only. */
    MEED_SYNTHESIS_TASKS,
    MEED_SYNTHESIS_TEMPLATES
};

/* What became of a candidate; the refusals also count texts. */
enum meed_synthesis_fate {
    MEED_SYNTHESIS_WRITTEN,
    MEED_SYNTHESIS_UNFINISHED, /* did not end within the tokens allowed */
    MEED_SYNTHESIS_MALFORMED,
    MEED_SYNTHESIS_REPEATED, /* another candidate asks the same */
    MEED_SYNTHESIS_COPIED,   /* above rouge_max */
    MEED_SYNTHESIS_FATES
};

enum { MEED_SYNTHESIS_GROUP = 16, MEED_SYNTHESIS_MAX_CANDIDATES = 1 << 20 };

struct meed_synthesis_options {
    int32_t candidates; /* written */
    int32_t keep;       /* of them, at most */
    /* Local examples shown; fewer where the data has fewer or they would take more than a quarter
     * of the model's positions. */
    int32_t instruction_demos;
    int32_t response_demos;
    double rouge_max; /* 0 to 1: a text above it is a copy, one at it is none */
    int32_t retries;  /* of a message, with other demonstrations */
    int32_t turns;    /* exchanges of a dialogue; 0: as many as a local one, drawn by chance */
    /* Words of a local message that a user's message begins with, at most: only as many as begin
     * another local message too, so what is one person's own stays out. Small models need the hint,
     * and it makes greedy candidates differ. DIALOGUE only; 0: none. */
    int32_t opening_words;
    double temperature; /* 0: greedy, the paper's */
    enum meed_synthesis_template form;
    enum meed_synthesis_score score;
    uint64_t seed;
    int32_t batch; /* candidates in flight */
};
struct meed_synthesis_options meed_synthesis_defaults(void);

struct meed_synthesis_progress {
    const char *phase; /* "writing", "scoring" */
    int64_t done;      /* of total: candidates written or scored */
    int64_t total;
    int64_t tokens; /* generated so far */
};
/* False stops: CANCELLED, and the same call goes on later. */
typedef bool (*meed_synthesis_progress_fn)(void *user,
                                           const struct meed_synthesis_progress *progress);

struct meed_synthesis_job {
    const struct meed_backend *be;
    const struct meed_checkpoint *checkpoint;
    const char *model_folder;              /* of tokenizer and chat template */
    const struct meed_adapter *global;     /* NULL: the base model */
    const char *data_path;                 /* any form of dataset.h but plain text; or NULL and */
    const struct meed_dialogue *dialogues; /* the same in memory */
    int64_t dialogue_count;
    const char *folder; /* made if missing */
    enum meed_dtype dtype;
    enum meed_block_format base; /* of the frozen weights (net.h) */
    struct meed_synthesis_options options;
    meed_synthesis_progress_fn on_progress; /* may be NULL */
    void *user;
};

struct meed_synthesis_report {
    /* of meed_synthesis_write */
    int32_t candidates;
    int32_t found; /* of them in the file already */
    int32_t fates[MEED_SYNTHESIS_FATES];
    int32_t texts[MEED_SYNTHESIS_FATES]; /* asked for, retries and those found included */
    int32_t exchanges;                   /* of all written */
    double rouge_mean; /* of each message's nearest local one, over those written */
    int64_t tokens;    /* generated here, not found; as are seconds */
    double seconds;
    /* of meed_synthesis_select */
    int32_t scored;
    int32_t not_finite; /* dropped */
    int32_t kept;       /* fewer than asked for where fewer survived; 0 is no error */
};

/* "ifs", …; "dialogue", "tasks"; "written", … */
const char *meed_synthesis_score_name(enum meed_synthesis_score score);
const char *meed_synthesis_template_name(enum meed_synthesis_template form);
const char *meed_synthesis_fate_name(enum meed_synthesis_fate fate);
/* ARG for a value out of range, named. */
MEED_MUST_CHECK enum meed_status meed_synthesis_check(const struct meed_synthesis_options *options);

/* Fills the report's first part; what it found there of another job (model, adapter, data or
 * options differ) is written anew. FORMAT: the data hold no dialogues. */
MEED_MUST_CHECK enum meed_status meed_synthesis_write(const struct meed_synthesis_job *job,
                                                      struct meed_synthesis_report *report);
/* Fills the second part. private_branch NULL: scored by the base model. STATE: the candidates of
 * this job are not all written. */
MEED_MUST_CHECK enum meed_status meed_synthesis_select(const struct meed_synthesis_job *job,
                                                       const struct meed_adapter *private_branch,
                                                       struct meed_synthesis_report *report);

MEED_END_C
#endif
