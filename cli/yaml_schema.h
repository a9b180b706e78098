/* What the YAML readers share: libcyaml behind short names for optional fields.
 *
 * A field that is left out is a NULL pointer in the raw struct; the reader resolves it against its
 * default. `simulate:` is described by simulation_plan.c and hung into the federation's schema by
 * federation_file.c, so one file is read once and an unknown key is an error wherever it stands.
 */
#ifndef MEED_CLI_YAML_SCHEMA_H
#define MEED_CLI_YAML_SCHEMA_H

#include <cyaml/cyaml.h>
#include <stdint.h>

#define OPTIONAL_INT(key, type, member)                                                            \
    CYAML_FIELD_INT_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, member)
#define OPTIONAL_FLOAT(key, type, member)                                                          \
    CYAML_FIELD_FLOAT_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, member)
#define OPTIONAL_ENUM(key, type, member, names)                                                    \
    CYAML_FIELD_ENUM_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT, type,  \
                         member, names, CYAML_ARRAY_LEN(names))
#define OPTIONAL_TEXT(key, type, member)                                                           \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, member, 1,         \
                           CYAML_UNLIMITED)
#define TEXT(key, type, member)                                                                    \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER, type, member, 1, CYAML_UNLIMITED)

/* `simulate:` as it is read. */
struct meed_simulation_raw_partition {
    char *kind;
    double *alpha;
    int64_t *dialogues;
};
struct meed_simulation_raw_attack {
    char *kind;
    double *share, *strength;
};
struct meed_simulation_raw_group {
    char *name, *attack;
    int64_t *count;
    double *strength, *quality, *amount;
};
struct meed_simulation_raw_sweep {
    char *key;
    char **values;
    unsigned values_count;
};
struct meed_simulation_raw_leakage {
    int64_t *examples, *prefix, *new_tokens, *canaries, *repeat, *unseen;
};
struct meed_simulation_raw {
    char **data;
    unsigned data_count;
    int64_t *seeds;
    unsigned seeds_count;
    struct meed_simulation_raw_partition *partition;
    struct meed_simulation_raw_attack *attack;
    struct meed_simulation_raw_leakage *leakage;
    char *scheme;
    struct meed_simulation_raw_group *clients;
    unsigned clients_count;
    struct meed_simulation_raw_sweep *sweep;
    unsigned sweep_count;
};
extern const cyaml_schema_field_t meed_simulation_fields[];

#endif
