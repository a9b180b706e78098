/* See simulation_cast.h. */
#include "cli/simulation_cast.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/rng.h"
#include "client/dataset_form.h"

#define POOL_MAX_BYTES ((size_t)1 << 36)
#define CAST_MAX_BYTES ((size_t)1 << 36)

/* ---- pool ------------------------------------------------------------------------------------ */

static void label_name(const char *path, char name[MEED_SIMULATION_WORD_BYTES])
{
    const char *slash = strrchr(path, '/');
    const char *stem = slash ? slash + 1 : path;
    snprintf(name, MEED_SIMULATION_WORD_BYTES, "%.*s", (int)strcspn(stem, "."), stem);
}

static enum meed_status load_file(const char *path, int32_t label,
                                  struct meed_simulation_pool *pool, struct meed_buf *dialogues,
                                  struct meed_buf *labels)
{
    enum meed_status st = MEED_OK;
    struct meed_file_map map = {NULL, 0};
    MEED_TRY(meed_file_map_open(path, &map));
    const char *at = map.bytes, *end = at + map.size;
    for (int line = 1; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at);
        struct meed_dataset_record record;
        if (size > 0) {
            st = meed_dataset_form_parse(at, size, &pool->arena, &record);
            if (st == MEED_OK && record.text) {
                st = MEED_FAIL(MEED_FORMAT, "plain text cannot be dealt; a simulation takes "
                                            "dialogues");
            }
            if (st != MEED_OK) {
                st = MEED_FAIL(st, "%.512s:%d: %s", path, line, meed_last_error());
                goto out;
            }
            MEED_TRY_OUT(meed_buf_append(dialogues, &record.dialogue, sizeof record.dialogue));
            MEED_TRY_OUT(meed_buf_append(labels, &label, sizeof label));
            pool->count++;
        }
        at = stop ? stop + 1 : end;
    }
out:
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
    void *kept_dialogues = NULL, *kept_labels = NULL;
    struct meed_buf dialogues, labels;
    memset(pool, 0, sizeof *pool);
    meed_buf_init(&dialogues, POOL_MAX_BYTES);
    meed_buf_init(&labels, POOL_MAX_BYTES);
    meed_arena_init_growing(&pool->arena, "simulation pool", POOL_MAX_BYTES);
    pool->label_count = plan->data_count;
    for (int32_t i = 0; i < plan->data_count; i++) {
        label_name(plan->data[i], pool->label_names[i]);
        MEED_TRY_OUT(load_file(plan->data[i], i, pool, &dialogues, &labels));
    }
    MEED_TRY_OUT(keep(&pool->arena, &dialogues, &kept_dialogues));
    MEED_TRY_OUT(keep(&pool->arena, &labels, &kept_labels));
    pool->dialogues = kept_dialogues;
    pool->labels = kept_labels;
out:
    meed_buf_clear(&dialogues);
    meed_buf_clear(&labels);
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

/* A member's part of the pool, spoilt, attacked and tokenised. */
static enum meed_status make_dataset(const struct meed_simulation_pool *pool,
                                     const struct meed_chat *chat,
                                     const struct meed_partition_part *part,
                                     struct meed_arena *arena,
                                     struct meed_simulation_member *member)
{
    void *block = NULL;
    struct meed_dialogue *spoilt = NULL, *dialogues = NULL;
    int64_t count = 0;
    struct meed_attack_member noise = {.attack = MEED_ATTACK_GARBAGE,
                                       .strength = 1.0 - member->quality,
                                       .seed = member->role.seed,
                                       .member_count = 1};
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)part->count, sizeof *dialogues, &block));
    dialogues = block;
    for (int64_t i = 0; i < part->count; i++) {
        dialogues[i] = pool->dialogues[part->members[i]];
        member->label_counts[pool->labels[part->members[i]]]++;
    }
    MEED_TRY(meed_attack_data(&noise, dialogues, part->count, arena, &spoilt, &count));
    MEED_TRY(meed_attack_data(&member->role, spoilt, count, arena, &dialogues, &count));
    member->dialogues = dialogues;
    member->dialogue_count = count;
    return meed_dataset_build(member->id, dialogues, count, chat, &member->dataset);
}

enum meed_status meed_simulation_cast_deal(const struct meed_federation_file *file,
                                           const struct meed_simulation_pool *pool,
                                           const struct meed_chat *chat,
                                           struct meed_simulation_cast *cast)
{
    enum meed_status st = MEED_OK;
    void *block = NULL;
    struct meed_arena texts; /* of one member */
    memset(cast, 0, sizeof *cast);
    meed_arena_init_growing(&texts, "simulated texts", CAST_MAX_BYTES);
    meed_arena_init_growing(&cast->arena, "simulated cast", CAST_MAX_BYTES);
    int32_t count = meed_simulation_plan_clients(&file->simulation);
    MEED_TRY_OUT(
        meed_arena_alloc_array(&cast->arena, (size_t)count, sizeof *cast->members, &block));
    cast->members = block;
    cast->count = count;
    assign_roles(file, cast);
    find_leaders(cast);
    MEED_TRY_OUT(meed_arena_alloc_array(&cast->arena, (size_t)count,
                                        sizeof(struct meed_partition_part), &block));
    struct meed_partition_part *parts = block;
    MEED_TRY_OUT(deal_parts(file, pool, cast, parts));
    /* FedPIT's clients write after their own texts, so these stay as long as the cast. */
    bool keeps = file->plan.method == MEED_METHOD_FEDPIT;
    for (int32_t i = 0; i < count; i++) {
        struct meed_simulation_member *member = &cast->members[i];
        meed_arena_reset(&texts);
        MEED_TRY_OUT(make_dataset(pool, chat, &parts[i], keeps ? &cast->arena : &texts, member));
        member->dialogues = keeps ? member->dialogues : NULL;
    }
out:
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
