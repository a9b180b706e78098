/* See simulation_cast.h. */
#include "cli/simulation_cast.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "base/rng.h"
#include "client/dataset_form.h"
#include "evaluation/canary.h"

#define POOL_MAX_BYTES ((size_t)1 << 36)
#define CAST_MAX_BYTES ((size_t)1 << 36)

/* ---- pool ------------------------------------------------------------------------------------ */

static void label_name(const char *path, char name[MEED_SIMULATION_WORD_BYTES])
{
    const char *slash = strrchr(path, '/');
    const char *stem = slash ? slash + 1 : path;
    snprintf(name, MEED_SIMULATION_WORD_BYTES, "%.*s", (int)strcspn(stem, "."), stem);
}

/* What is read of the pool, until it is whole. */
struct gathered {
    struct meed_buf dialogues, labels, secrets;
};

static enum meed_status read_line(const char *line, size_t size, int32_t label,
                                  struct meed_simulation_pool *pool, struct gathered *gathered)
{
    struct meed_dataset_record record;
    struct meed_secret_labels secrets = {.count = 0};
    MEED_TRY(meed_dataset_form_parse(line, size, &pool->arena, &record));
    if (record.text) {
        return MEED_FAIL(MEED_FORMAT, "plain text cannot be dealt; a simulation takes dialogues");
    }
    json_t *object = json_loadb(line, size, 0, NULL);
    enum meed_status st =
        meed_secret_labels_read(object, &record.dialogue, NULL, &pool->arena, &secrets);
    json_decref(object);
    MEED_TRY(st);
    MEED_TRY(meed_buf_append(&gathered->dialogues, &record.dialogue, sizeof record.dialogue));
    MEED_TRY(meed_buf_append(&gathered->labels, &label, sizeof label));
    MEED_TRY(meed_buf_append(&gathered->secrets, &secrets, sizeof secrets));
    pool->count++;
    return MEED_OK;
}

static enum meed_status load_file(const char *path, int32_t label,
                                  struct meed_simulation_pool *pool, struct gathered *gathered)
{
    enum meed_status st = MEED_OK;
    struct meed_file_map map = {NULL, 0};
    MEED_TRY(meed_file_map_open(path, &map));
    const char *at = map.bytes, *end = at + map.size;
    at += meed_parse_order_mark(at, map.size);
    for (int line = 1; at < end && st == MEED_OK; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at);
        if (size > 0) {
            st = read_line(at, size, label, pool, gathered);
            if (st != MEED_OK) {
                st = MEED_FAIL(st, "%.512s:%d: %s", path, line, meed_last_error());
            }
        }
        at = stop ? stop + 1 : end;
    }
    meed_file_map_close(&map);
    return st;
}

static enum meed_status keep(struct meed_arena *arena, const struct meed_buf *from, void **to)
{
    MEED_TRY(meed_arena_alloc(arena, from->size, to));
    if (from->size > 0) {
        memcpy(*to, from->data, from->size);
    }
    return MEED_OK;
}

enum meed_status meed_simulation_pool_load(const struct meed_simulation_plan *plan,
                                           struct meed_simulation_pool *pool)
{
    enum meed_status st = MEED_OK;
    void *dialogues = NULL, *labels = NULL, *secrets = NULL;
    struct gathered gathered;
    memset(pool, 0, sizeof *pool);
    meed_buf_init(&gathered.dialogues, POOL_MAX_BYTES);
    meed_buf_init(&gathered.labels, POOL_MAX_BYTES);
    meed_buf_init(&gathered.secrets, POOL_MAX_BYTES);
    meed_arena_init_growing(&pool->arena, "simulation pool", POOL_MAX_BYTES);
    pool->label_count = plan->data_count;
    for (int32_t i = 0; i < plan->data_count; i++) {
        label_name(plan->data[i], pool->label_names[i]);
        MEED_TRY_OUT(load_file(plan->data[i], i, pool, &gathered));
    }
    MEED_TRY_OUT(keep(&pool->arena, &gathered.dialogues, &dialogues));
    MEED_TRY_OUT(keep(&pool->arena, &gathered.labels, &labels));
    MEED_TRY_OUT(keep(&pool->arena, &gathered.secrets, &secrets));
    pool->dialogues = dialogues;
    pool->labels = labels;
    pool->secrets = secrets;
out:
    meed_buf_clear(&gathered.dialogues);
    meed_buf_clear(&gathered.labels);
    meed_buf_clear(&gathered.secrets);
    return st;
}

void meed_simulation_pool_clear(struct meed_simulation_pool *pool)
{
    meed_arena_clear(&pool->arena);
}

/* ---- roles ----------------------------------------------------------------------------------- */

/* Members in group order, then attackers drawn among those that have no attack yet. */
static void assign_roles(const struct meed_federation_file *file, struct meed_simulation_cast *cast)
{
    const struct meed_simulation_plan *plan = &file->simulation;
    int32_t at = 0;
    for (int32_t g = 0; g < plan->group_count; g++) {
        for (int32_t i = 0; i < plan->groups[g].count; i++, at++) {
            struct meed_simulation_member *member = &cast->members[at];
            snprintf(member->id, sizeof member->id, "client-%04d", at);
            member->group = g;
            member->quality = plan->groups[g].quality;
            member->role.attack = plan->groups[g].attack;
            member->role.strength = plan->groups[g].strength;
            member->role.seed = meed_rng_stream(file->seed, "simulated client", (uint64_t)at).key;
        }
    }
    int32_t wanted = (int32_t)lround(plan->share * cast->count);
    struct meed_rng rng = meed_rng_stream(file->seed, "attackers", 0);
    for (int32_t tries = 0; plan->attack != MEED_ATTACK_NONE && wanted > 0 && tries < 1 << 20;
         tries++) {
        struct meed_simulation_member *member =
            &cast->members[meed_rng_below(&rng, (uint64_t)cast->count)];
        if (member->role.attack == MEED_ATTACK_NONE) {
            member->role.attack = plan->attack;
            member->role.strength = plan->strength;
            wanted--;
        }
    }
}

/* Attackers of one kind are one group. */
static void find_leaders(struct meed_simulation_cast *cast)
{
    int32_t counts[MEED_ATTACK_COUNT] = {0}, first[MEED_ATTACK_COUNT] = {0};
    for (int32_t i = 0; i < cast->count; i++) {
        struct meed_attack_member *role = &cast->members[i].role;
        first[role->attack] = counts[role->attack] == 0 ? i : first[role->attack];
        role->member_idx = counts[role->attack]++;
        cast->members[i].leader = role->attack == MEED_ATTACK_NONE ? i : first[role->attack];
    }
    for (int32_t i = 0; i < cast->count; i++) {
        cast->members[i].role.member_count = counts[cast->members[i].role.attack];
    }
}

/* ---- data ------------------------------------------------------------------------------------ */

static bool shares_data(const struct meed_simulation_member *member)
{
    return (meed_attack_infos[member->role.attack].stages & MEED_ATTACK_ON_IDENTITY) != 0 &&
           member->role.member_idx > 0;
}

/* parts [cast->count]: those who share their leader's data get its part. */
static enum meed_status deal_parts(const struct meed_federation_file *file,
                                   const struct meed_simulation_pool *pool,
                                   struct meed_simulation_cast *cast,
                                   struct meed_partition_part *parts)
{
    const struct meed_simulation_plan *plan = &file->simulation;
    void *block = NULL;
    int32_t hands = 0;
    bool weighted = false;
    MEED_TRY(meed_arena_alloc_array(&cast->arena, (size_t)cast->count, sizeof(double), &block));
    double *weights = block;
    MEED_TRY(meed_arena_alloc_array(&cast->arena, (size_t)cast->count,
                                    sizeof(struct meed_partition_part), &block));
    struct meed_partition_part *dealt = block;
    for (int32_t i = 0; i < cast->count; i++) {
        double amount = plan->groups[cast->members[i].group].amount;
        if (!shares_data(&cast->members[i])) {
            weights[hands++] = amount > 0.0 ? amount : 1.0;
            weighted = weighted || amount > 0.0;
        }
    }
    struct meed_partition_options options = {.kind = plan->partition,
                                             .alpha = plan->alpha,
                                             .weights = weighted ? weights : NULL,
                                             .per_client = plan->dialogues,
                                             .seed = file->seed};
    if (weighted && options.kind == MEED_PARTITION_IID) {
        options.kind = MEED_PARTITION_AMOUNT;
    }
    MEED_TRY(meed_partition_deal(&options, pool->labels, pool->count, pool->label_count, hands,
                                 &cast->arena, dealt));
    hands = 0;
    for (int32_t i = 0; i < cast->count; i++) {
        bool shares = shares_data(&cast->members[i]);
        parts[i] = shares ? parts[cast->members[i].leader] : dealt[hands++];
    }
    return MEED_OK;
}

/* What a cast is dealt with. */
struct deal {
    const struct meed_federation_file *file;
    const struct meed_simulation_pool *pool;
    const struct meed_chat *chat;
    struct meed_simulation_cast *cast;
    struct meed_partition_part *parts; /* [members] */
    struct meed_canaries canaries;     /* count 0: none; the members' in order */
};

static bool is_the_pools(const struct meed_simulation_member *member)
{
    return member->quality >= 1.0 && member->role.attack == MEED_ATTACK_NONE;
}

/* The labels of a member's dialogues as they stand in the pool, room for its canaries behind. */
static enum meed_status keep_labels(const struct deal *deal, const struct meed_partition_part *part,
                                    int64_t count, struct meed_secret_labels **labels)
{
    void *block = NULL;
    MEED_TRY(meed_arena_alloc_array(&deal->cast->arena, (size_t)count, sizeof **labels, &block));
    *labels = block;
    for (int64_t i = 0; i < part->count; i++) {
        (*labels)[i] = deal->pool->secrets[part->members[i]];
    }
    return MEED_OK;
}

/* Canary `number` as a dialogue whose one secret is its code. */
static enum meed_status plant(const struct meed_canaries *canaries, int32_t number,
                              struct meed_arena *arena, struct meed_dialogue *dialogue,
                              struct meed_secret_labels *labels)
{
    char code[MEED_CANARY_MAX_SECRET + 1], *copy = NULL;
    const char *question = NULL, *reply = NULL;
    void *messages = NULL, *texts = NULL;
    meed_canary_candidate(&canaries->format, canaries->secrets[number - 1], code);
    MEED_TRY(meed_canary_question(&canaries->format, number, arena, &question));
    MEED_TRY(meed_canary_reply(&canaries->format, number, code, arena, &reply));
    MEED_TRY(meed_arena_strdup(arena, code, strlen(code), &copy));
    MEED_TRY(meed_arena_alloc_array(arena, 2, sizeof(struct meed_message), &messages));
    MEED_TRY(meed_arena_alloc_array(arena, 1, sizeof(const char *), &texts));
    struct meed_message *exchange = messages;
    exchange[0] = (struct meed_message){MEED_ROLE_USER, question};
    exchange[1] = (struct meed_message){MEED_ROLE_ASSISTANT, reply};
    *dialogue = (struct meed_dialogue){exchange, 2};
    ((const char **)texts)[0] = copy;
    *labels = (struct meed_secret_labels){texts, 1};
    return MEED_OK;
}

/* `count` dialogues and the member's canaries behind them, with labels where leakage is measured.
 */
static enum meed_status plant_all(const struct deal *deal, int32_t idx, struct meed_arena *texts,
                                  struct meed_dialogue **dialogues, int64_t *count)
{
    const struct meed_simulation_leak_plan *leakage = &deal->file->simulation.leakage;
    struct meed_simulation_member *member = &deal->cast->members[idx];
    struct meed_secret_labels *labels = NULL;
    void *block = NULL;
    if (leakage->examples == 0 || !is_the_pools(member)) {
        return MEED_OK;
    }
    int64_t planted = leakage->canaries * leakage->repeat, before = *count;
    MEED_TRY(keep_labels(deal, &deal->parts[idx], before + planted, &labels));
    MEED_TRY(meed_arena_alloc_array(texts, (size_t)(before + planted), sizeof **dialogues, &block));
    struct meed_dialogue *all = block;
    memcpy(all, *dialogues, (size_t)before * sizeof *all);
    for (int64_t i = 0; i < planted; i++) {
        int32_t number = (int32_t)(idx * leakage->canaries + i % leakage->canaries) + 1;
        MEED_TRY(plant(&deal->canaries, number, &deal->cast->arena, &all[before + i],
                       &labels[before + i]));
    }
    member->secrets = labels;
    member->canary_count = planted;
    *dialogues = all;
    *count = before + planted;
    return MEED_OK;
}

/* A member's part of the pool, spoilt, attacked, planted and tokenised. */
static enum meed_status make_dataset(const struct deal *deal, int32_t idx, struct meed_arena *arena)
{
    void *block = NULL;
    struct meed_simulation_member *member = &deal->cast->members[idx];
    const struct meed_partition_part *part = &deal->parts[idx];
    struct meed_dialogue *spoilt = NULL, *dialogues = NULL;
    int64_t count = 0;
    struct meed_attack_member noise = {.attack = MEED_ATTACK_GARBAGE,
                                       .strength = 1.0 - member->quality,
                                       .seed = member->role.seed,
                                       .member_count = 1};
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)part->count, sizeof *dialogues, &block));
    dialogues = block;
    for (int64_t i = 0; i < part->count; i++) {
        dialogues[i] = deal->pool->dialogues[part->members[i]];
        member->label_counts[deal->pool->labels[part->members[i]]]++;
    }
    MEED_TRY(meed_attack_data(&noise, dialogues, part->count, arena, &spoilt, &count));
    MEED_TRY(meed_attack_data(&member->role, spoilt, count, arena, &dialogues, &count));
    MEED_TRY(plant_all(deal, idx, arena, &dialogues, &count));
    member->dialogues = dialogues;
    member->dialogue_count = count;
    return meed_dataset_build(member->id, dialogues, count, deal->chat, &member->dataset);
}

static enum meed_status draw_canaries(struct deal *deal)
{
    const struct meed_simulation_leak_plan *leakage = &deal->file->simulation.leakage;
    int64_t count = leakage->examples > 0 ? leakage->canaries * deal->cast->count : 0;
    if (count == 0) {
        return MEED_OK;
    }
    if (count > MEED_CANARY_MAX_COUNT) {
        return MEED_FAIL(MEED_CONFIG,
                         "simulate.leakage: %lld canaries for %d clients; there are %d at most",
                         (long long)leakage->canaries, deal->cast->count, MEED_CANARY_MAX_COUNT);
    }
    deal->canaries = (struct meed_canaries){.count = (int32_t)count, .seed = deal->file->seed};
    MEED_TRY(meed_canary_format_parse("What is the code of locker {n}?",
                                      "The code of locker {n} is {digits:6}.",
                                      &deal->canaries.format));
    return meed_canaries_draw(&deal->canaries, &deal->cast->arena);
}

static enum meed_status deal_out(struct deal *deal, struct meed_arena *texts)
{
    const struct meed_federation_file *file = deal->file;
    struct meed_simulation_cast *cast = deal->cast;
    void *block = NULL;
    int32_t count = meed_simulation_plan_clients(&file->simulation);
    MEED_TRY(meed_arena_alloc_array(&cast->arena, (size_t)count, sizeof *cast->members, &block));
    cast->members = block;
    cast->count = count;
    assign_roles(file, cast);
    find_leaders(cast);
    MEED_TRY(meed_arena_alloc_array(&cast->arena, (size_t)count, sizeof *deal->parts, &block));
    deal->parts = block;
    MEED_TRY(deal_parts(file, deal->pool, cast, deal->parts));
    MEED_TRY(draw_canaries(deal));
    /* FedPIT's clients write after their own texts, so these stay as long as the cast. */
    bool keeps = file->plan.method == MEED_METHOD_FEDPIT;
    for (int32_t i = 0; i < count; i++) {
        meed_arena_reset(texts);
        MEED_TRY(make_dataset(deal, i, keeps ? &cast->arena : texts));
        cast->members[i].dialogues = keeps ? cast->members[i].dialogues : NULL;
    }
    return MEED_OK;
}

enum meed_status meed_simulation_cast_deal(const struct meed_federation_file *file,
                                           const struct meed_simulation_pool *pool,
                                           const struct meed_chat *chat,
                                           struct meed_simulation_cast *cast)
{
    struct meed_arena texts; /* of one member */
    struct deal deal = {.file = file, .pool = pool, .chat = chat, .cast = cast};
    memset(cast, 0, sizeof *cast);
    meed_arena_init_growing(&texts, "simulated texts", CAST_MAX_BYTES);
    meed_arena_init_growing(&cast->arena, "simulated cast", CAST_MAX_BYTES);
    enum meed_status st = deal_out(&deal, &texts);
    meed_arena_clear(&texts);
    return st;
}

void meed_simulation_cast_clear(struct meed_simulation_cast *cast)
{
    for (int32_t i = 0; i < cast->count; i++) {
        meed_dataset_destroy(cast->members[i].dataset);
    }
    meed_arena_clear(&cast->arena);
    memset(cast, 0, sizeof *cast);
}
