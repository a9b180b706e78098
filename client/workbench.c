/* See workbench.h. */
#include "client/workbench.h"

#include <string.h>
#include "base/threads.h"

enum meed_status meed_workbench_read_data(const char *model_folder, const char *data_path,
                                          struct meed_dataset **dataset)
{
    enum meed_status st = MEED_OK;
    struct meed_tokenizer *tokenizer = NULL;
    struct meed_chat *chat = NULL;
    MEED_TRY_OUT(meed_tokenizer_open(model_folder, &tokenizer));
    MEED_TRY_OUT(meed_chat_open(model_folder, tokenizer, &chat));
    MEED_TRY_OUT(meed_dataset_load(data_path, chat, tokenizer, dataset));
out:
    meed_chat_close(chat);
    meed_tokenizer_close(tokenizer);
    return st;
}

enum meed_status meed_workbench_open(const char *model_folder, const char *data_path,
                                     const char *device, int thread_count,
                                     struct meed_workbench *bench)
{
    enum meed_status st = MEED_OK;
    struct meed_workbench made = {NULL, NULL, NULL, NULL};
    /* The likeliest to fail and the quickest to say so come first. */
    MEED_TRY_OUT(meed_pool_create(thread_count, &made.pool));
    MEED_TRY_OUT(meed_backend_open(device, made.pool, &made.be));
    MEED_TRY_OUT(meed_workbench_read_data(model_folder, data_path, &made.dataset));
    MEED_TRY_OUT(meed_checkpoint_open(model_folder, &made.checkpoint));
    *bench = made;
out:
    if (st != MEED_OK) {
        meed_workbench_close(&made);
    }
    return st;
}

void meed_workbench_close(struct meed_workbench *bench)
{
    meed_backend_close(bench->be);
    meed_pool_destroy(bench->pool);
    meed_checkpoint_close(bench->checkpoint);
    meed_dataset_destroy(bench->dataset);
    *bench = (struct meed_workbench){NULL, NULL, NULL, NULL};
}

enum meed_status meed_workbench_parse_dtype(const char *text, enum meed_dtype *dtype)
{
    for (int i = MEED_DTYPE_F32; i <= MEED_DTYPE_BF16; i++) {
        if (strcmp(text, meed_dtype_name((enum meed_dtype)i)) == 0) {
            *dtype = (enum meed_dtype)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG, "--dtype %.32s; use f32 or bf16", text);
}
