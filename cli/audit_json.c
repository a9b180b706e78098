/* The JSON of an audit; see audit_result.h. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "cli/audit_result.h"

static const char *const kinds[] = {"base", "reference", "adapter", "update"};

static void text_set(json_t *object, const char *key, const char *text)
{
    if (text && *text) {
        json_object_set_new(object, key, json_string(text));
    }
}

static json_t *mean_json(struct meed_extraction_mean mean)
{
    return json_pack("{s:f, s:f}", "mean", mean.mean, "se", mean.se);
}

static json_t *extraction_json(const struct meed_audit_result *r, int32_t model)
{
    json_t *rows = json_array();
    const int32_t prefixes = r->extraction_options.prefix_count;
    for (int32_t p = 0; p < prefixes; p++) {
        const struct meed_extraction_row *row = &r->extraction[model * prefixes + p];
        json_array_append_new(
            rows, json_pack("{s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:o, s:o}", "prefix",
                            (int)r->extraction_options.prefixes[p], "examples", (int)row->examples,
                            "whole", (int)row->whole, "secrets", (int)row->secrets, "secrets_found",
                            (int)row->secrets_found, "rouge", mean_json(row->rouge), "rouge_gain",
                            mean_json(row->rouge_gain), "exact", mean_json(row->exact),
                            "exact_gain", mean_json(row->exact_gain)));
    }
    return rows;
}

static json_t *exposure_json(const struct meed_audit_result *r, int32_t model)
{
    const struct meed_exposure *e = &r->exposure[model];
    json_t *each = json_array();
    for (int32_t i = 0; i < r->canaries->count; i++) {
        json_array_append_new(each, json_real(e->each[i]));
    }
    return json_pack("{s:f, s:f, s:i, s:o}", "bits", e->bits, "se", e->se, "first", (int)e->capped,
                     "each", each);
}

static json_t *membership_json(const struct meed_audit_result *r, int32_t model)
{
    json_t *object = json_object();
    for (int32_t s = 0; s < MEED_MEMBERSHIP_COUNT; s++) {
        const struct meed_separation *m = &r->membership[model * MEED_MEMBERSHIP_COUNT + s];
        json_object_set_new(object, meed_membership_score_name((enum meed_membership_score)s),
                            json_pack("{s:f, s:f, s:f, s:f, s:f}", "area", m->area, "low", m->low,
                                      "high", m->high, "found_1", m->found_1, "found_5",
                                      m->found_5));
    }
    return object;
}

static json_t *frequency_json(const struct meed_audit_result *r, int32_t model)
{
    const struct meed_frequency_result *f = &r->frequency[model];
    return json_pack("{s:i, s:i, s:i, s:i, s:i}", "prefixes", (int)f->prefixes, "exclusive",
                     (int)f->exclusive, "recovered", (int)f->recovered, "completions",
                     (int)f->completions, "hits", (int)f->hits);
}

static json_t *model_json(const struct meed_audit_result *r, int32_t model)
{
    const struct meed_audit_model *m = &r->models[model];
    json_t *object = json_pack("{s:s, s:s}", "name", m->name, "kind", kinds[m->kind]);
    if (!object) {
        return NULL;
    }
    text_set(object, "adapter", m->hash);
    if (isfinite(m->quality)) {
        json_object_set_new(object, "quality",
                            json_pack("{s:f, s:f}", "value", m->quality, "se", m->quality_se));
    }
    if (r->extraction) {
        json_object_set_new(object, "extraction", extraction_json(r, model));
    }
    if (r->exposure) {
        json_object_set_new(object, "exposure", exposure_json(r, model));
    }
    if (r->membership) {
        json_object_set_new(object, "membership", membership_json(r, model));
    }
    if (r->frequency) {
        json_object_set_new(object, "frequency", frequency_json(r, model));
    }
    return object;
}

static json_t *settings_json(const struct meed_audit_result *r)
{
    json_t *object = json_pack("{s:I}", "seed", (json_int_t)r->seed);
    if (r->extraction) {
        json_object_set_new(object, "max_new_tokens",
                            json_integer(r->extraction_options.max_new_tokens));
    }
    if (r->exposure) {
        json_object_set_new(object, "canaries", json_integer(r->canaries->count));
        json_object_set_new(object, "repeat", json_integer(r->canaries->repeat));
        json_object_set_new(object, "candidates", json_integer(r->candidates));
        json_object_set_new(object, "space_bits",
                            json_real(log2((double)r->canaries->format.space)));
    }
    if (r->membership) {
        json_object_set_new(object, "members", json_integer(r->members));
        json_object_set_new(object, "non_members", json_integer(r->others));
        json_object_set_new(object, "min_k", json_real(r->min_k));
    }
    return object;
}

enum meed_status meed_audit_result_write(const struct meed_audit_result *result, const char *path)
{
    json_t *models = json_array();
    for (int32_t m = 0; m < result->model_count; m++) {
        json_array_append_new(models, model_json(result, m));
    }
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:o}", "schema", "meed.audit/1", "model", result->base_hash,
                  "floor", result->models[result->floor].name, "settings", settings_json(result));
    if (root) {
        text_set(root, "data", result->data);
        text_set(root, "non_members", result->non_members);
        text_set(root, "attacker", result->attacker);
        text_set(root, "benchmark", result->benchmark);
        json_object_set(root, "models", models);
    }
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(models);
    json_decref(root);
    if (!text) {
        return MEED_FAIL(MEED_FORMAT, "the audit cannot be written as JSON: a name is no UTF-8");
    }
    enum meed_status st = meed_file_write_atomic(path, text, strlen(text));
    free(text);
    return st;
}
