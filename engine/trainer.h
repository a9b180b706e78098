/* LoRA training of one client: AdamW on fp32 masters, exact resume.
 *
 * A step takes `accumulation` micro-batches from a fixed order of the data (epoch shuffles by the
 * counter-based generator), so step t depends only on (seed, t): a resumed run continues with the
 * bits it would have had. The loss is the mean over scored tokens of the whole step. FedProx (Li et
 * al. 2020) adds mu·(w − w_start) to the gradient of the factors. SCAFFOLD (Karimireddy et al.
 * 2020) adds a constant vector c − c_k and wants the mean of the gradients as they were before it.
 *
 * Ranks (kernels/collective.h) share the micro-batches of a step: of each `world` in line, rank r
 * takes the r-th, and their gradients are added in line onto the sum so far, which is what one
 * process does with them. So masters, checkpoint and adapter have the same bytes for any number of
 * ranks of one kind of machine, and a run may be resumed by another number. Every rank steps its
 * own replica; what they hold is compared by hash whenever it is saved or exported.
 */
#ifndef MEED_ENGINE_TRAINER_H
#define MEED_ENGINE_TRAINER_H

#include "engine/net.h"
#include "kernels/collective.h"

MEED_BEGIN_C

struct meed_train_options {
    int64_t steps;
    int32_t batch_tokens; /* rows of one micro-batch at most */
    int32_t accumulation; /* micro-batches a step */
    float lr;
    float lr_min_ratio; /* cosine floor, lr·ratio */
    int64_t warmup_steps;
    float beta1, beta2, epsilon, weight_decay;
    float clip_norm; /* 0: off */
    float prox_mu;   /* 0: FedIT */
    float dropout;
    bool freeze_a; /* keep every A as it is (FFA-LoRA, RoLoRA) */
    bool freeze_b;
    uint64_t seed;
    enum meed_dtype dtype;
    enum meed_block_format base;       /* of the frozen weights (net.h); default dense */
    const struct meed_adapter *frozen; /* takes part and stands still; NULL: none */
    const float *correction; /* [values of start], added to every gradient; NULL: none. Given, the
                              * uncorrected gradients are summed (meed_trainer_mean_gradient) */
};
/* 100 steps of 1,024 tokens, lr 2e-4, floor 0.1, warm-up 5, betas 0.9 0.999, eps 1e-8, decay 0,
 * clip 1, seed 1, bf16. */
struct meed_train_options meed_train_defaults(void);

struct meed_train_report {
    int64_t step;
    double loss; /* mean over scored tokens */
    double lr;
    double gradient_norm; /* before clipping */
    int64_t tokens;       /* rows fed in this step */
    int64_t launches;     /* that graphs spared the host (graph_cache.h); 0 without them */
    double seconds;
};

struct meed_trainer;

/* Borrows backend, checkpoint, data (sequences valid until destroy); starts from `start`. */
MEED_MUST_CHECK enum meed_status
meed_trainer_create(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                    const struct meed_adapter *start, const struct meed_sequence *data,
                    int64_t data_count, const struct meed_train_options *options,
                    struct meed_trainer **trainer);
void meed_trainer_destroy(struct meed_trainer *trainer); /* accepts NULL */
/* Shares every further step with the other ranks; before the first step, after a resume. All ranks
 * then call step, save and export alike. Borrowed; NULL is nothing. ARG where a step has fewer
 * micro-batches than there are ranks; VERSION where a rank has another model, start, data, options,
 * progress or kind of backend. */
MEED_MUST_CHECK enum meed_status meed_trainer_share(struct meed_trainer *trainer,
                                                    struct meed_collective *collective);
/* Steps taken so far, those before a resume included. */
int64_t meed_trainer_steps_done(const struct meed_trainer *trainer);
/* One optimiser step. STATE after the last. */
MEED_MUST_CHECK enum meed_status meed_trainer_step(struct meed_trainer *trainer,
                                                   struct meed_train_report *report);
/* Copies the masters into an adapter of the start's shape. INTEGRITY where ranks hold different
 * masters, as of save. */
MEED_MUST_CHECK enum meed_status meed_trainer_export(struct meed_trainer *trainer,
                                                     struct meed_adapter *adapter);
/* Mean over the steps so far of the gradient before correction and clipping, in flat order [values
 * of start]; zeros before the first step. STATE without a correction. */
MEED_MUST_CHECK enum meed_status meed_trainer_mean_gradient(struct meed_trainer *trainer,
                                                            float *mean);
/* Everything needed to continue: masters, moments, gradient sum, step, hash of options and data. Of
 * several ranks the first writes, and none goes on before the file is there. */
MEED_MUST_CHECK enum meed_status meed_trainer_save(struct meed_trainer *trainer, const char *path);
/* VERSION if the file belongs to other options or data. */
MEED_MUST_CHECK enum meed_status meed_trainer_resume(struct meed_trainer *trainer,
                                                     const char *path);

MEED_END_C
#endif
