/* See simulation_course.h. */
#include "cli/simulation_course.h"

#include <stdbool.h>
#include <string.h>
#include "base/status.h"

/* Model `idx` of a cell if it is one that a round published; NULL else. */
static const json_t *published(const json_t *document, size_t idx)
{
    const json_t *models = json_object_get(json_object_get(document, "leakage"), "models");
    const json_t *model = json_array_get(models, idx);
    const char *kind = json_string_value(json_object_get(model, "kind"));
    return kind && strcmp(kind, "global") == 0 ? model : NULL;
}

json_t *meed_simulation_course(const json_t *documents)
{
    json_t *course = json_array();
    size_t seeds = json_array_size(documents);
    for (size_t i = 0; published(json_array_get(documents, 0), i); i++) {
        json_int_t number = json_integer_value(
            json_object_get(published(json_array_get(documents, 0), i), "round"));
        double utility = 0.0, leak = 0.0;
        for (size_t s = 0; s < seeds; s++) {
            const json_t *document = json_array_get(documents, s);
            const json_t *round =
                json_array_get(json_object_get(document, "rounds"), (size_t)number - 1);
            utility += json_number_value(json_object_get(round, "utility_after"));
            leak += json_number_value(json_object_get(published(document, i), "gain"));
        }
        json_array_append_new(course,
                              json_pack("{s:I, s:f, s:f}", "round", number, "utility",
                                        utility / (double)seeds, "leak", leak / (double)seeds));
    }
    return course;
}
