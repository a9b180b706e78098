/* meed provision: the keys and certificates of a federation, in one folder.
 *
 * Makes them and prints who needs which file; see certificates.h for what they are. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "cli/certificates.h"
#include "cli/client_list.h"
#include "cli/command_line.h"
#include "cli/commands.h"

struct options {
    const char *folder, *server, *clients;
    enum meed_status status;
};

static const struct argp_option option_rows[] = {
    {"server", 's', "NAME[,NAME]", 0, "host names and addresses that clients dial", 0},
    {"clients", 'c', "ID[,ID]", 0, "client ids: A-Z a-z 0-9 . _ -", 0},
    {0},
};

static const char documentation[] =
    "Make a certificate authority, the aggregator's and the clients' certificates, the ledger's "
    "signing key and the roster in DIR. Nothing is overwritten.\v"
    "Example:\n"
    "  meed provision keys --server agg.example.org,10.0.0.5 \\\n"
    "      --clients north,south,west";

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 's':
        options->server = text;
        return 0;
    case 'c':
        options->clients = text;
        return 0;
    case ARGP_KEY_ARG:
        if (options->folder) {
            options->status = MEED_FAIL(MEED_ARG, "one folder, not also \"%.64s\"", text);
            return EINVAL;
        }
        options->folder = text;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

enum meed_status meed_cmd_provision(int argc, char **argv)
{
    enum meed_status st = MEED_OK;
    struct options options = {NULL, NULL, NULL, MEED_OK};
    struct meed_client_list list = {NULL, NULL, 0};
    struct argp argp = {option_rows, option_parse, "DIR", documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    if (!options.folder || !options.server || !options.clients) {
        return MEED_FAIL(MEED_ARG, "DIR, --server and --clients are needed; see `meed help "
                                   "provision`");
    }
    MEED_TRY(meed_client_list_parse(options.clients, &list));
    MEED_TRY_OUT(meed_certificates_provision(options.folder, options.server, list.ids, list.count));
    printf("Keys of the federation are in %s (mode 0700).\n\n", options.folder);
    printf("  aggregator  ca.pem server.pem server.key ledger.key roster.json\n");
    for (int32_t i = 0; i < list.count; i++) {
        printf("  %-10s  ca.pem client-%s.pem client-%s.key\n", list.ids[i], list.ids[i],
               list.ids[i]);
    }
    printf("  auditors    ledger.pub\n\nKeep ca.key offline: it is needed for new clients only.\n");
out:
    meed_client_list_clear(&list);
    return st;
}
