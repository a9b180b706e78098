/* See simulation_stage.h. */
#include "cli/simulation_stage.h"

#include "evaluation/score.h"

enum { SCORE_DRAWS = 200, SCORE_TOKENS = 2048 };

bool meed_simulation_stage_stopping(const struct meed_simulation_stage *stage)
{
    return stage->stop && *stage->stop != 0;
}

void meed_simulation_stage_report(const struct meed_simulation_stage *stage, int64_t done,
                                  int64_t total, const char *phase)
{
    if (stage->progress) {
        stage->progress(stage->progress_user, done, total, phase);
    }
}

enum meed_status meed_simulation_stage_score(const struct meed_simulation_stage *stage,
                                             const struct meed_adapter *adapter, uint64_t seed,
                                             double *utility, double *values, double *ses)
{
    struct meed_score *score = meed_heap_alloc(1, sizeof *score);
    if (!score) {
        return MEED_NOMEM;
    }
    struct meed_score_options options = {
        .batch_tokens = SCORE_TOKENS, .bootstrap = SCORE_DRAWS, .seed = seed};
    enum meed_status st =
        meed_score_run(stage->be, stage->checkpoint, stage->benchmark, adapter, &options, score);
    *utility = score->value;
    for (int32_t i = 0; values && st == MEED_OK && i < stage->benchmark->axis_count; i++) {
        values[i] = score->axes[i].all.value;
        ses[i] = score->axes[i].all.se;
    }
    meed_heap_free(score);
    return st;
}

struct meed_simulation_leakage_job
meed_simulation_stage_leakage(const struct meed_simulation_stage *stage,
                              const struct meed_federation_file *file,
                              const struct meed_simulation_cast *cast)
{
    return (struct meed_simulation_leakage_job){.be = stage->be,
                                                .checkpoint = stage->checkpoint,
                                                .tokenizer = stage->tokenizer,
                                                .chat = stage->chat,
                                                .benchmark = stage->benchmark,
                                                .plan = &file->simulation.leakage,
                                                .cast = cast,
                                                .seed = file->seed};
}
