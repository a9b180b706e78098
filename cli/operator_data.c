/* See operator_data.h. */
#include "cli/operator_data.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "client/local_train.h"
#include "engine/adapter_split.h"

enum { FILE_MAX_BYTES = 1 << 30 };

struct meed_operator_data {
    struct meed_dataset *dataset;
    struct meed_msg_plan plan;
    uint8_t hash[MEED_SHA256_BYTES];
};

static enum meed_status read_data(const char *path, const char *model_folder,
                                  struct meed_operator_data *data)
{
    enum meed_status st = MEED_OK;
    struct meed_tokenizer *tokenizer = NULL;
    struct meed_chat *chat = NULL;
    struct meed_buf text;
    meed_buf_init(&text, FILE_MAX_BYTES);
    MEED_TRY_OUT(meed_file_read(path, &text));
    meed_sha256(text.data, text.size, data->hash);
    MEED_TRY_OUT(meed_tokenizer_open(model_folder, &tokenizer));
    MEED_TRY_OUT(meed_chat_open(model_folder, tokenizer, &chat));
    MEED_TRY_OUT(meed_dataset_load(path, chat, tokenizer, &data->dataset));
out:
    meed_buf_clear(&text);
    meed_chat_close(chat);
    meed_tokenizer_close(tokenizer);
    return st;
}

enum meed_status meed_operator_data_open(const char *path, const char *model_folder,
                                         const struct meed_msg_plan *plan,
                                         struct meed_operator_data **data)
{
    struct meed_operator_data *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->plan = *plan;
    enum meed_status st = read_data(path, model_folder, made);
    if (st != MEED_OK) {
        meed_operator_data_close(made);
        return st;
    }
    *data = made;
    return MEED_OK;
}

enum meed_status meed_operator_data_attach(const struct meed_federation_file *file,
                                           struct meed_aggregator_config *config,
                                           struct meed_operator_data **data)
{
    if (!file->repair_data[0]) {
        return MEED_OK;
    }
    MEED_TRY(meed_operator_data_open(file->repair_data, config->model, &config->plan, data));
    config->align = (struct meed_align_options){.run = meed_operator_data_train,
                                                .user = *data,
                                                .data_hash = (*data)->hash,
                                                .data_path = file->repair_data,
                                                .repair_steps = file->repair_steps,
                                                .repair_lr = file->repair_lr};
    return MEED_OK;
}

void meed_operator_data_close(struct meed_operator_data *data)
{
    if (data) {
        meed_dataset_destroy(data->dataset);
        meed_heap_free(data);
    }
}

const uint8_t *meed_operator_data_hash(const struct meed_operator_data *data)
{
    return data->hash;
}

/* The clients' plan, by the plain method, with what the request says otherwise. */
static struct meed_msg_plan plan_of(const struct meed_operator_data *data,
                                    const struct meed_align_request *request)
{
    struct meed_msg_plan plan = data->plan;
    plan.method = MEED_METHOD_FEDIT;
    plan.prox_mu = 0.0;
    plan.share = MEED_SHARE_ALL;
    plan.control_bytes = 0;
    plan.round = request->round;
    plan.seed = request->seed;
    plan.trained_factors = request->trained_factors;
    if (request->steps > 0) {
        plan.steps = request->steps;
        plan.warmup_steps = MEED_MIN(plan.warmup_steps, request->steps / 4);
        plan.lr_min = request->lr * (plan.lr > 0.0 ? plan.lr_min / plan.lr : 1.0);
        plan.lr = request->lr;
    }
    return plan;
}

enum meed_status meed_operator_data_train(void *user, const struct meed_align_request *request,
                                          struct meed_adapter **trained)
{
    struct meed_operator_data *data = user;
    enum meed_status st = MEED_OK;
    struct meed_msg_plan plan = plan_of(data, request);
    struct meed_adapter *front = NULL, *rest = NULL, *after = NULL, *whole = NULL;
    struct meed_local_train_result result;
    MEED_TRY_OUT(meed_adapter_split(request->start, request->rank, &front, &rest));
    MEED_TRY_OUT(meed_adapter_clone(front, &after));
    MEED_TRY_OUT(meed_adapter_clone(request->start, &whole));
    struct meed_local_train_job job = {.be = request->be,
                                       .checkpoint = request->checkpoint,
                                       .dataset = data->dataset,
                                       .truncate = true,
                                       .plan = &plan,
                                       .client_id = "operator",
                                       .start = front,
                                       .frozen = rest,
                                       .dtype = MEED_DTYPE_F32,
                                       .checkpoint_path = ""};
    MEED_TRY_OUT(meed_local_train_run(&job, after, &result));
    for (int32_t m = 0; m < whole->module_count; m++) {
        meed_adapter_module_put(&whole->modules[m], 0, &after->modules[m]);
    }
    MEED_LOG_INFO("cli", "round %d: trained on the operator's data (steps=%d loss=%.4f)",
                  request->round, plan.steps, result.loss);
    *trained = whole;
    whole = NULL;
out:
    meed_adapter_destroy(front);
    meed_adapter_destroy(rest);
    meed_adapter_destroy(after);
    meed_adapter_destroy(whole);
    return st;
}
