/* A cell of `meed simulate`; see read_kinds.h. */
#include <math.h>
#include <string.h>
#include "report/read_kinds.h"

enum { AXES_MOST = 64 };

static enum meed_status doubles(struct meed_run_record *record, size_t count, double **numbers)
{
    void *block = NULL;
    MEED_TRY(meed_run_record_array(record, count, sizeof(double), &block));
    *numbers = block;
    for (size_t i = 0; i < count; i++) {
        (*numbers)[i] = NAN;
    }
    return MEED_OK;
}

static enum meed_status read_truth(const struct meed_read_place *place, const json_t *client,
                                   struct meed_run_record *record, struct meed_run_truth *truth)
{
    MEED_TRY(meed_read_text(place, client, "group", record, &truth->group));
    MEED_TRY(meed_read_text(place, client, "attack", record, &truth->attack));
    MEED_TRY(meed_read_number(place, client, "quality", &truth->quality));
    truth->attacks = strcmp(truth->attack, "none") != 0;
    return meed_read_integer(place, client, "dialogues", &truth->dialogues);
}

static enum meed_status read_clients(const struct meed_read_place *place, const json_t *root,
                                     struct meed_run_record *record)
{
    const json_t *clients = NULL;
    void *block = NULL;
    MEED_TRY(meed_read_clients(place, root, "clients", record, &clients));
    MEED_TRY(
        meed_run_record_array(record, (size_t)record->client_count, sizeof *record->truth, &block));
    record->truth = block;
    for (int32_t k = 0; k < record->client_count; k++) {
        struct meed_read_place here = meed_read_place_in(place, "clients", k);
        const json_t *client = json_array_get(clients, (size_t)k);
        MEED_TRY(meed_read_integer(&here, client, "share", &record->totals[k]));
        MEED_TRY(read_truth(&here, client, record, &record->truth[k]));
    }
    return MEED_OK;
}

static enum meed_status read_axes(const struct meed_read_place *place, const json_t *root,
                                  size_t rounds, struct meed_run_record *record)
{
    const json_t *axes = NULL;
    void *block = NULL;
    MEED_TRY(meed_read_list(place, root, "axes", AXES_MOST, &axes));
    MEED_TRY(meed_run_record_array(record, json_array_size(axes), sizeof *record->tracks, &block));
    record->tracks = block;
    for (size_t a = 0; a < json_array_size(axes); a++) {
        struct meed_read_place here = meed_read_place_in(place, "axes", (int32_t)a);
        struct meed_run_track *track = &record->tracks[a];
        const json_t *axis = json_array_get(axes, a);
        MEED_TRY(meed_read_text(&here, axis, "name", record, &track->name));
        track->guard = json_is_true(json_object_get(axis, "guard"));
        MEED_TRY(doubles(record, rounds, &track->value));
        MEED_TRY(doubles(record, rounds, &track->se));
        record->track_count++;
    }
    return MEED_OK;
}

static enum meed_status read_seats(const struct meed_read_place *place, const json_t *object,
                                   struct meed_run_record *record, struct meed_run_round *round)
{
    const json_t *clients = NULL;
    MEED_TRY(meed_read_list(place, object, "clients", MEED_READ_CLIENTS_MOST, &clients));
    for (size_t i = 0; i < json_array_size(clients); i++) {
        struct meed_read_place here = meed_read_place_in(place, "clients", (int32_t)i);
        const json_t *client = json_array_get(clients, i);
        const char *id = json_string_value(json_object_get(client, "id"));
        int32_t k = id ? meed_run_record_find(record, id) : -1;
        if (k < 0) {
            return meed_read_fail(&here, "id", "one of the run's clients");
        }
        MEED_TRY(meed_read_cell(&here, client, record, &round->cells[k]));
    }
    return MEED_OK;
}

static enum meed_status read_round(const struct meed_read_place *place, const json_t *object,
                                   struct meed_run_record *record, int32_t r)
{
    struct meed_run_round *round = &record->rounds[r];
    const json_t *axes = NULL;
    int64_t number = 0;
    *round = (struct meed_run_round){
        .budget = -1, .value_empty = NAN, .value_full = NAN, .value_kept = NAN};
    MEED_TRY(meed_run_record_cells(record, &round->cells));
    MEED_TRY(meed_read_integer(place, object, "round", &number));
    round->number = (int32_t)MEED_MIN(number, MEED_READ_ROUNDS_MOST);
    MEED_TRY(meed_read_number_maybe(place, object, "utility_before", &round->value_empty));
    MEED_TRY(meed_read_number_maybe(place, object, "utility_after", &round->value_kept));
    MEED_TRY(meed_read_list(place, object, "axes", AXES_MOST, &axes));
    for (int32_t a = 0; a < record->track_count && (size_t)a < json_array_size(axes); a++) {
        struct meed_read_place here = meed_read_place_in(place, "axes", a);
        const json_t *axis = json_array_get(axes, (size_t)a);
        MEED_TRY(meed_read_number_maybe(&here, axis, "value", &record->tracks[a].value[r]));
        MEED_TRY(meed_read_number_maybe(&here, axis, "se", &record->tracks[a].se[r]));
    }
    return read_seats(place, object, record, round);
}

static const struct meed_read_fact summary_facts[] = {
    {"honest_share", "part of the pay to honest clients"},
    {"attacker_share", "part of the pay to attackers"},
    {"auroc_score", "AUROC of the screening, mean over rounds"},
    {"auroc_combined", "AUROC of screening, value and guards"},
    {"caught", "part of attackers' updates that was excluded"},
    {"false_exclusion", "part of honest updates that was excluded"},
    {"spread", "largest |pay / mean − 1| of honest clients"},
    {"spearman_quality", "Spearman, pay with quality, honest clients"},
    {"spearman_amount", "Spearman, pay with dialogues, honest clients"},
    {"utility_own", "utility of the models at home, mean"},
    {"leak_global", "leak of the global model, ROUGE-L over the base"},
    {"leak_update", "leak of a client's update, ROUGE-L over the base"},
    {"leak_own", "leak of a model at home, ROUGE-L over the base"},
    {"memory_global", "the same less what unseen dialogues gain, global model"},
    {"memory_update", "the same less what unseen dialogues gain, an update"},
    {"memory_own", "the same less what unseen dialogues gain, a model at home"},
    {"secrets_global", "part of the secrets out of the global model"},
    {"secrets_update", "part of the secrets out of a client's update"},
};

static enum meed_status read_facts(const json_t *root, struct meed_run_record *record)
{
    static const struct meed_read_fact facts[] = {
        {"name", "experiment"},     {"key", "cell"},         {"seed", "seed"},
        {"partition", "partition"}, {"method", "estimator"}, {"aggregation", "aggregation"},
        {"rule", "payment rule"},   {"seconds", "seconds"},  {"source", "experiment's file"},
    };
    MEED_TRY(meed_read_facts(json_object_get(root, "summary"), summary_facts,
                             MEED_COUNT(summary_facts), record));
    return meed_read_facts(root, facts, MEED_COUNT(facts), record);
}

enum meed_status meed_read_simulation(const char *path, const json_t *root,
                                      struct meed_run_record *record)
{
    struct meed_read_place place = {.file = path};
    struct meed_read_place summary = meed_read_place_in(&place, "summary", -1);
    const json_t *rounds = NULL;
    double budget = 0;
    void *block = NULL;
    record->kind = "simulation";
    record->course = true;
    MEED_TRY(meed_read_number(&summary, json_object_get(root, "summary"), "budget", &budget));
    if (budget < 0 || budget > 9e15) {
        return meed_read_fail(&summary, "budget", "an amount of credits");
    }
    record->budget = (int64_t)budget;
    MEED_TRY(read_clients(&place, root, record));
    MEED_TRY(meed_read_list(&place, root, "rounds", MEED_READ_ROUNDS_MOST, &rounds));
    size_t count = json_array_size(rounds);
    MEED_TRY(read_axes(&place, root, count, record));
    MEED_TRY(meed_run_record_array(record, count, sizeof *record->rounds, &block));
    record->rounds = block;
    for (size_t r = 0; r < count; r++) {
        struct meed_read_place here = meed_read_place_in(&place, "rounds", (int32_t)r);
        MEED_TRY(read_round(&here, json_array_get(rounds, r), record, (int32_t)r));
        record->round_count++;
    }
    return read_facts(root, record);
}
