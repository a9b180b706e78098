/* The JSON of `meed audit --json`; see read_kinds.h.
 *
 * Every attack becomes one figure a model: the gain in ROUGE-L over the floor for the prompt alone
 * (or the shortest beginning that was given), bits of exposure, the best of the membership scores,
 * the share of other clients' secrets recovered. All files of a page use the same four, so that
 * audits can be compared.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "report/read_kinds.h"

enum { MODELS_MOST = 256, GIVEN_MOST = 64, LEAKS = 4 };

/* Of one model's object; NaN where the attack did not run. */
typedef enum meed_status (*figure_fn)(const struct meed_read_place *place, const json_t *model,
                                      double *value, double *error);

static enum meed_status mean_read(const struct meed_read_place *place, const json_t *object,
                                  const char *key, double factor, double *value, double *error)
{
    struct meed_read_place here = meed_read_place_in(place, key, -1);
    const json_t *mean = json_object_get(object, key);
    double se = NAN;
    MEED_TRY(meed_read_number(&here, mean, "mean", value));
    MEED_TRY(meed_read_number_maybe(&here, mean, "se", &se));
    *value *= factor;
    *error = factor * se;
    return MEED_OK;
}

static enum meed_status extraction_read(const struct meed_read_place *place, const json_t *model,
                                        double *value, double *error)
{
    const json_t *rows = json_object_get(model, "extraction");
    struct meed_read_place here = meed_read_place_in(place, "extraction", 0);
    return rows ? mean_read(&here, json_array_get(rows, 0), "rouge_gain", 100, value, error)
                : MEED_OK;
}

static enum meed_status exposure_read(const struct meed_read_place *place, const json_t *model,
                                      double *value, double *error)
{
    const json_t *exposure = json_object_get(model, "exposure");
    struct meed_read_place here = meed_read_place_in(place, "exposure", -1);
    if (exposure) {
        MEED_TRY(meed_read_number(&here, exposure, "bits", value));
        MEED_TRY(meed_read_number_maybe(&here, exposure, "se", error));
    }
    return MEED_OK;
}

/* An attacker takes the score that works; its 95 % interval is 2 · 1.96 standard errors. */
static enum meed_status membership_read(const struct meed_read_place *place, const json_t *model,
                                        double *value, double *error)
{
    const json_t *score = NULL, *scores = json_object_get(model, "membership");
    struct meed_read_place here = meed_read_place_in(place, "membership", -1);
    const char *name = NULL;
    json_object_foreach((json_t *)scores, name, score)
    {
        struct meed_read_place inner = meed_read_place_in(&here, name, -1);
        double area, low, high;
        MEED_TRY(meed_read_number(&inner, score, "area", &area));
        MEED_TRY(meed_read_number(&inner, score, "low", &low));
        MEED_TRY(meed_read_number(&inner, score, "high", &high));
        if (!(area <= *value)) {
            *value = area;
            *error = (high - low) / (2 * 1.96);
        }
    }
    return MEED_OK;
}

static enum meed_status frequency_read(const struct meed_read_place *place, const json_t *model,
                                       double *value, double *error)
{
    const json_t *frequency = json_object_get(model, "frequency");
    struct meed_read_place here = meed_read_place_in(place, "frequency", -1);
    int64_t exclusive = 0, recovered = 0;
    if (!frequency) {
        return MEED_OK;
    }
    MEED_TRY(meed_read_integer(&here, frequency, "exclusive", &exclusive));
    MEED_TRY(meed_read_integer(&here, frequency, "recovered", &recovered));
    if (exclusive < 1 || recovered < 0 || recovered > exclusive) {
        return meed_read_fail(&here, "recovered", "a count of at most \"exclusive\"");
    }
    const double share = (double)recovered / (double)exclusive;
    *value = 100 * share;
    *error = 100 * sqrt(share * (1 - share) / (double)exclusive);
    return MEED_OK;
}

static const struct {
    const char *name, *unit;
    int decimals;
    figure_fn read;
} figures[LEAKS] = {
    {"Replies pulled out", "gain in ROUGE-L over the floor, %", 1, extraction_read},
    {"Exposure of planted secrets", "bits", 2, exposure_read},
    {"Membership told apart", "area under the ROC, best score", 3, membership_read},
    {"Secrets of other clients", "recovered, %", 1, frequency_read},
};

static enum meed_status row_take(struct meed_run_record *record, size_t count, double **row)
{
    void *block = NULL;
    MEED_TRY(meed_run_record_array(record, count, sizeof(double), &block));
    *row = block;
    for (size_t i = 0; i < count; i++) {
        (*row)[i] = NAN;
    }
    return MEED_OK;
}

static enum meed_status leaks_read(const struct meed_read_place *place, const json_t *models,
                                   struct meed_run_record *record)
{
    struct meed_run_audit *audit = &record->audit;
    const size_t count = (size_t)audit->model_count;
    void *block = NULL;
    MEED_TRY(meed_run_record_array(record, LEAKS, sizeof *audit->leaks, &block));
    audit->leaks = block;
    for (size_t f = 0; f < LEAKS; f++) {
        struct meed_run_leak leak = {
            .name = figures[f].name, .unit = figures[f].unit, .decimals = figures[f].decimals};
        bool known = false;
        MEED_TRY(row_take(record, count, &leak.value));
        MEED_TRY(row_take(record, count, &leak.error));
        for (size_t m = 0; m < count; m++) {
            struct meed_read_place here = meed_read_place_in(place, "models", (int32_t)m);
            MEED_TRY(
                figures[f].read(&here, json_array_get(models, m), &leak.value[m], &leak.error[m]));
            known = known || isfinite(leak.value[m]);
        }
        if (known) {
            audit->leaks[audit->leak_count++] = leak;
        }
    }
    return MEED_OK;
}

/* Gain in ROUGE-L over the tokens given; the first model says how many lengths there are. */
static enum meed_status curve_read(const struct meed_read_place *place, const json_t *models,
                                   struct meed_run_record *record)
{
    struct meed_run_audit *audit = &record->audit;
    const size_t models_count = (size_t)audit->model_count;
    const size_t count = json_array_size(json_object_get(json_array_get(models, 0), "extraction"));
    if (count > GIVEN_MOST) {
        return meed_read_fail(place, "extraction", "a list of at most 64 rows");
    }
    audit->given_count = (int32_t)count;
    MEED_TRY(row_take(record, count, &audit->given));
    MEED_TRY(row_take(record, models_count * count, &audit->curve));
    MEED_TRY(row_take(record, models_count * count, &audit->curve_se));
    for (size_t i = 0; i < models_count * count; i++) {
        const json_t *rows = json_object_get(json_array_get(models, i / count), "extraction");
        struct meed_read_place model = meed_read_place_in(place, "models", (int32_t)(i / count));
        struct meed_read_place here =
            meed_read_place_in(&model, "extraction", (int32_t)(i % count));
        double given;
        MEED_TRY(meed_read_number(&here, json_array_get(rows, i % count), "prefix", &given));
        if (i < count) {
            audit->given[i] = given;
        }
        if (given != audit->given[i % count] ||
            (i % count > 0 && given <= audit->given[i % count - 1])) {
            return meed_read_fail(&here, "prefix", "a rising number, the same for every model");
        }
        MEED_TRY(mean_read(&here, json_array_get(rows, i % count), "rouge_gain", 100,
                           &audit->curve[i], &audit->curve_se[i]));
    }
    return MEED_OK;
}

static enum meed_status models_read(const struct meed_read_place *place, const json_t *models,
                                    struct meed_run_record *record)
{
    struct meed_run_audit *audit = &record->audit;
    const size_t count = json_array_size(models);
    void *block = NULL;
    if (count < 1) {
        return meed_read_fail(place, "models", "a list of models");
    }
    MEED_TRY(meed_run_record_array(record, count, sizeof *audit->models, &block));
    audit->models = block;
    MEED_TRY(row_take(record, count, &audit->quality));
    MEED_TRY(row_take(record, count, &audit->quality_se));
    for (size_t m = 0; m < count; m++) {
        struct meed_read_place here = meed_read_place_in(place, "models", (int32_t)m);
        const json_t *model = json_array_get(models, m);
        const json_t *quality = json_object_get(model, "quality");
        MEED_TRY(meed_read_text(&here, model, "name", record, &audit->models[m]));
        audit->model_count++;
        if (quality) {
            struct meed_read_place inner = meed_read_place_in(&here, "quality", -1);
            MEED_TRY(meed_read_number(&inner, quality, "value", &audit->quality[m]));
            MEED_TRY(meed_read_number_maybe(&inner, quality, "se", &audit->quality_se[m]));
        }
    }
    return MEED_OK;
}

enum meed_status meed_read_audit(const char *path, const json_t *root,
                                 struct meed_run_record *record)
{
    static const struct meed_read_fact facts[] = {
        {"data", "trained on"},
        {"non_members", "not trained on"},
        {"attacker", "the curious client's data"},
        {"benchmark", "quality on"},
        {"floor", "floor"},
        {"model", "model"},
    };
    struct meed_read_place place = {.file = path};
    const json_t *models = NULL;
    record->kind = "audit";
    record->unit = "nats per token";
    MEED_TRY(meed_read_text(&place, root, "floor", record, &record->audit.floor));
    MEED_TRY(meed_read_list(&place, root, "models", MODELS_MOST, &models));
    MEED_TRY(models_read(&place, models, record));
    MEED_TRY(leaks_read(&place, models, record));
    MEED_TRY(curve_read(&place, models, record));
    return meed_read_facts(root, facts, MEED_COUNT(facts), record);
}
