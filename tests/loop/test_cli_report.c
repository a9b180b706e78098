/* meed report: the page of stored runs, from the binary to the last byte.
 *
 * Goal: the page is one well-formed file that needs nothing else, says what the run's files say,
 * and is the same bytes every time; wrong input ends in one sentence and no page. Method: the
 * binary on a federation, a valuation and a simulation kept beside this test, their numbers looked
 * up in the page; then the same files broken in one place each.
 *
 * value.json is `meed value --budget 10000` of adapters trained on the embedded clients' data
 * (`meed train --steps 24 --lr 3e-3 --rank 4`; idle: one step at 1e-12).
 */
#include "tests/loop/cli_fixture.h"

#include "tests/support/tags.h"

#define RUNS MEED_SOURCE_DIR "/tests/loop/report"

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

/* The page of `runs`; free it. */
static char *page_of(const char *runs, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    command_good(NULL, "report %s --out %s", runs, path);
    return scratch_read(path, NULL);
}

static void check_page(const char *page, const char *const *says)
{
    const char *fault = tags_fault(page);
    if (fault) {
        fail_msg("%s", fault);
    }
    static const char *const outside[] = {"http",    "<script", "src=", "url(",
                                          "@import", "nan",     "inf"};
    for (size_t i = 0; i < MEED_COUNT(outside); i++) {
        if (strstr(page, outside[i])) {
            fail_msg("the page holds \"%s\"", outside[i]);
        }
    }
    for (; *says; says++) {
        if (!strstr(page, *says)) {
            fail_msg("the page lacks \"%s\"", *says);
        }
    }
}

static void report_draws_a_federation(void **state)
{
    (void)state;
    static const char *const says[] = {"<!DOCTYPE html>",
                                       "<meta charset=\"utf-8\">",
                                       "prefers-color-scheme:dark",
                                       "Who earned what",
                                       "30,000 of 30,000 credits",
                                       "answers do not fit their questions",
                                       "<td class=\"excluded\">excluded</td>",
                                       "3 of 18 updates were excluded; paid with a remark: 0",
                                       "title=\"round 3: excluded, grounding ",
                                       "<td class=\"v paid\" title=\"round 1: paid\">●</td>",
                                       "Utility over rounds",
                                       "Pay against value",
                                       "Value of each client over rounds",
                                       "Training loss",
                                       "Bytes sent by each client",
                                       "ledger head",
                                       "role=\"img\" aria-label=\"",
                                       NULL};
    char *page = page_of(RUNS "/federation/", "federation.html");
    char *again = page_of(RUNS "/federation/", "again.html");
    check_page(page, says);
    assert_string_equal(page, again);
    free(page);
    free(again);
}

static void report_draws_a_valuation(void **state)
{
    (void)state;
    static const char *const says[] = {"On the axis grounding",
                                       "Value by size of coalition",
                                       "64 coalitions, best first",
                                       "Interaction",
                                       "Overlap",
                                       "Cosine of updates",
                                       "class=\"minus\"",
                                       NULL};
    char *page = page_of(RUNS "/value.json", "value.html");
    check_page(page, says);
    free(page);
}

static void report_holds_a_simulation_against_the_truth(void **state)
{
    (void)state;
    static const char *const says[] = {
        "Detector ROC",         "screening&#39;s score of each update <b>1.000</b>",
        "Axis safety, a guard", "class=\"band\"",
        "<td>zero</td>",        "AUROC of the screening, mean over rounds",
        "anomaly score",        NULL};
    char *page = page_of(RUNS "/cell.json", "cell.html");
    check_page(page, says);
    free(page);
}

/* Two policies against one attack over three seeds; the second knows its gain from one seed alone.
 */
static const char experiment[] =
    "{\"schema\": \"meed.simulation/1\", \"name\": \"p\", \"source\": \"x\", \"cells\": [],"
    " \"rows\": [{\"settings\": {\"attack\": \"swap\", \"share\": \"0.3\", \"rule\": \"equal\"},"
    " \"summary\": {\"own\": {\"mean\": 0.9, \"half\": 0.05, \"count\": 3},"
    " \"budget\": {\"mean\": 7, \"half\": 0, \"count\": 3},"
    " \"auroc_score\": {\"mean\": 0.75, \"half\": 0.125, \"count\": 3},"
    " \"gain_kept\": {\"mean\": 0.5, \"half\": 0.013, \"count\": 3}},"
    " \"attacks\": [{\"attack\": \"swap\", \"updates\": 6, \"excluded\": 0.5, \"pay\": 0.25,"
    " \"auroc_score\": 0.625, \"auroc_combined\": null,"
    " \"roc\": {\"score\": [[0, 0], [0.5, 0.5], [1, 1]], \"combined\": []}}]},"
    " {\"settings\": {\"attack\": \"swap\", \"share\": \"0.3\", \"rule\": \"shrunk\"},"
    " \"summary\": {\"own\": {\"mean\": null, \"half\": null, \"count\": 0},"
    " \"budget\": {\"mean\": 7, \"half\": null, \"count\": 1},"
    " \"gain_kept\": {\"mean\": 0.75, \"half\": null, \"count\": 1}}, \"attacks\": []}]}";

static void report_tables_an_experiment(void **state)
{
    (void)state;
    write_text("simulation.json", experiment);
    static const char *const says[] = {">attack, share, rule</th>",
                                       "<td>swap, 0.3, equal</td>",
                                       "<td class=\"n\">+0.900 ± 0.050</td>",
                                       "<td class=\"n\">0.750 ± 0.125</td>", /* no sign: an area */
                                       "<td class=\"n\">50.0 ± 1.3\u202F%</td>",
                                       "<td class=\"n\">75.0\u202F%</td>",
                                       "<td class=\"n\">–</td>",
                                       "<strong>own</strong>",
                                       "The same in every row: budget 7.",
                                       NULL};
    char *page = page_of(scratch, "experiment.html");
    check_page(page, says);
    assert_null(strstr(page, "<strong>budget</strong>")); /* the same everywhere: no chart */
    free(page);
}

static void report_holds_attacks_against_defences(void **state)
{
    (void)state;
    static const char *const says[] = {
        "Attacks and defences",
        "<tr><td>swap, 0.3</td><td>equal</td><td class=\"n\">6</td>"
        "<td class=\"n\">0.625</td><td class=\"n\">–</td>"
        "<td class=\"n\">50.0\u202F%</td><td class=\"n\">25.0\u202F%</td>"
        "<td class=\"n\">50.0 ± 1.3\u202F%</td></tr>",
        "Detector ROC: screening alone, equal", "swap, 0.3 <b>0.625</b>", NULL};
    char *page = page_of(scratch, "attacks.html");
    check_page(page, says);
    assert_null(strstr(page, "Detector ROC: screening, value and guards")); /* has no curve */
    free(page);
    char path[512];
    snprintf(path, sizeof path, "%s/simulation.json", scratch);
    assert_int_equal(unlink(path), 0);
}

/* ---- leakage ----------------------------------------------------------------------------------
 */

/* leakage.json: FedIT and FedPIT under two skews. Its first row has a course, over three seeds
 * whose cells are written here; the text is the file's with one change. */
static void write_leaky(const char *name, const char *from, const char *to)
{
    char *text = scratch_read(RUNS "/leakage.json", NULL);
    char *made = replaced(text, from, to);
    write_text(name, made);
    free(made);
    free(text);
}

static void write_seeds(const char *third)
{
    static const char *const names[] = {"cells/1.json", "cells/2.json", "cells/3.json"};
    const char *const gains[] = {"0.1", "0.2", third};
    char path[512], text[512];
    snprintf(path, sizeof path, "%s/cells", scratch);
    mkdir(path, 0700);
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text,
                 "{\"leakage\": {\"models\": [{\"kind\": \"own\", \"round\": 1, \"gain\": 9},"
                 " {\"kind\": \"global\", \"round\": 1, \"gain\": %s},"
                 " {\"kind\": \"global\", \"round\": 2, \"gain\": 0.5}]}}",
                 gains[i]);
        write_text(names[i], text);
    }
}

static void report_draws_leakage_against_quality(void **state)
{
    /* Leaks of 0.1, 0.2 and 0.3 about 0.2: a standard error of 10 % / √3 = 5.77 points. */
    (void)state;
    static const char *const says[] = {
        "Leakage and quality",
        "<td>alpha 0.1, fedpit, beta 0.5</td><td class=\"n\">−2.00 ± 0.12</td>"
        "<td class=\"n\">9.0 ± 5.0\u202F%</td><td class=\"n\">−82.0\u202F%</td>"
        "<td class=\"n\">20.0 ± 5.0\u202F%</td><td class=\"n\">−75.0\u202F%</td>",
        "better: right and low",
        "<title>base: −4.25000, 0</title>",
        "Leakage over rounds",
        "<title>alpha 0.1, fedit, 1: +20.0 ± 5.8</title>",
        "<title>alpha 0.1, fedit, 2: +50.000000 ± 0.000000</title>",
        "Over alpha",
        "<title>fedpit, beta 0.5, 10: −1.75 ± 0.12</title>",
        "<title>fedpit, beta 0.5, 0.1: +9.0 ± 5.0</title>",
        NULL};
    write_leaky("simulation.json", "skew", "skew");
    write_seeds("0.3");
    char *page = page_of(scratch, "leaky.html");
    check_page(page, says);
    assert_null(strstr(page, "Over training.beta")); /* it only comes along with the method */
    const char *over = strstr(page, "Over alpha"); /* in decades, and by size as the file is not */
    assert_non_null(strstr(over, ">1</text>"));
    assert_true(strstr(over, "fedit, 0.1: ") < strstr(over, "fedit, 1: "));
    assert_true(strstr(over, "fedit, 1: ") < strstr(over, "fedit, 10: "));
    free(page);
}

static void report_needs_no_cells(void **state)
{
    /* Elsewhere, with one missing or with one that is in no place of ours: means without a band. */
    (void)state;
    static const char *const bare[] = {"<title>alpha 0.1, fedit, 1: 20</title>", NULL};
    char path[4096];
    write_seeds("0.3");
    assert_int_equal(unlink(expand("@/cells/2.json", path)), 0);
    char *page = page_of(scratch, "missing.html");
    check_page(page, bare);
    free(page);
    write_seeds("0.3");
    write_text("2.json", "{\"leakage\": null, ");
    write_leaky("simulation.json", "cells/2.json", "cells/../2.json");
    page = page_of(scratch, "outside.html");
    check_page(page, bare);
    free(page);
    write_leaky("simulation.json", "\"course\"", "\"another\"");
    page = page_of(scratch, "older.html");
    assert_null(strstr(page, "Leakage over rounds"));
    assert_non_null(strstr(page, "Out of the global model"));
    free(page);
}

static void report_refuses_broken_courses(void **state)
{
    (void)state;
    write_leaky("order.json", "\"round\": 2", "\"round\": 1");
    write_leaky("simulation.json", "skew", "skew");
    write_seeds("\"much\"");
    static const struct row rows[] = {
        {MEED_FORMAT,
         "report @/order.json --out @/no.html",
         {"rows[0].course[1]", "\"round\" must be above"},
         NULL},
        {MEED_FORMAT,
         "report @ --out @/no.html",
         {"cells/3.json: leakage.models[1]", "\"gain\" must be a finite number"},
         NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    check_absent("@/no.html");
    char path[4096];
    assert_int_equal(unlink(expand("@/simulation.json", path)), 0);
}

static void report_compares_runs(void **state)
{
    (void)state;
    static const char *const says[] = {"<h1>2 runs</h1>", "Side by side", "Part of the pay",
                                       "href=\"#run-2\"", "id=\"run-2\"", NULL};
    char *page = page_of(RUNS "/federation " RUNS "/value.json", "both.html");
    check_page(page, says);
    free(page);
}

/* A copy of the federation's report with one change. */
static void change(const char *name, const char *from, const char *to)
{
    char *text = scratch_read(RUNS "/federation/report.json", NULL);
    char *made = replaced(text, from, to);
    write_text(name, made);
    free(made);
    free(text);
}

static void report_makes_ids_harmless(void **state)
{
    /* Ids of our own server cannot look like this; the file may come from anywhere. */
    (void)state;
    char *text = scratch_read(RUNS "/federation/report.json", NULL);
    for (int i = 0; i < 4; i++) { /* three rounds and the total */
        char *made = replaced(text, "\"bank\"", "\"<script>alert(1)</script>\"");
        free(text);
        text = made;
    }
    write_text("hostile.json", text);
    free(text);
    char line[512];
    snprintf(line, sizeof line, "%s/hostile.json", scratch);
    static const char *const says[] = {"&lt;script&gt;alert(1)&lt;/script&gt;", NULL};
    char *page = page_of(line, "hostile.html");
    check_page(page, says);
    free(page);
}

/* An audit of two adapters of the example clinic, 60 and 300 steps (`meed audit --benchmark`),
 * beside a federation; then the same without a benchmark: bars instead of points. */
static void report_draws_an_audit(void **state)
{
    (void)state;
    static const char *const says[] = {"What leaks",
                                       "<td class=\"n\">58.2 ± 3.7</td>",
                                       "<td class=\"n\">7.62 ± 0.26</td>",
                                       "<td class=\"n\">0.733 ± 0.045</td>",
                                       "<td class=\"n\">57.1 ± 18.7</td>",
                                       "quality on the benchmark, nats per token",
                                       "tokens of the reply given",
                                       "the curious client&#39;s data",
                                       NULL};
    static const char *const bare[] = {"What leaks", "gain in ROUGE-L", NULL};
    char *page = page_of(RUNS "/audit.json " RUNS "/federation", "audit.html");
    check_page(page, says);
    free(page);
    char *text = scratch_read(RUNS "/audit.json", NULL);
    for (char *at = strstr(text, "\"quality\""); at; at = strstr(at, "\"quality\"")) {
        memcpy(at, "\"another\"", 9);
    }
    write_text("bare.json", text);
    free(text);
    char path[4096];
    page = page_of(expand("@/bare.json", path), "bare.html");
    check_page(page, bare);
    if (strstr(page, "quality on the benchmark")) {
        fail_msg("points without a place");
    }
    free(page);
}

static void change_audit(const char *name, const char *from, const char *to)
{
    char *text = scratch_read(RUNS "/audit.json", NULL);
    char *made = replaced(text, from, to);
    write_text(name, made);
    free(made);
    free(text);
}

static void report_refuses_broken_audits(void **state)
{
    (void)state;
    change_audit("bits.json", "\"bits\": ", "\"bits\": \"x\", \"y\": ");
    change_audit("count.json", "\"recovered\": ", "\"recovered\": 99, \"y\": ");
    change_audit("given.json", "\"prefix\": 4", "\"prefix\": 0");
    change_audit("floor.json", "\"floor\": \"base\"", "\"floor\": 1");
    static const struct row rows[] = {
        {MEED_FORMAT,
         "report @/bits.json --out @/no.html",
         {"@/bits.json: models[0].exposure", "\"bits\""},
         NULL},
        {MEED_FORMAT,
         "report @/count.json --out @/no.html",
         {"models[0].frequency", "exclusive"},
         NULL},
        {MEED_FORMAT,
         "report @/given.json --out @/no.html",
         {"models[0].extraction[1]", "rising"},
         NULL},
        {MEED_FORMAT, "report @/floor.json --out @/no.html", {"\"floor\""}, NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    check_absent("@/no.html");
}

static void report_refuses_what_is_no_run(void **state)
{
    (void)state;
    write_text("empty.json", "");
    write_text("list.json", "[]");
    write_text("other.json", "{\"loss\": 1}");
    change("status.json", "\"paid\"", "\"rich\"");
    change("number.json", "\"phi\": ", "\"phi\": \"x\", \"y\": ");
    change("client.json", "\"id\": \"bank\"", "\"id\": \"elsewhere\"");
    change("share.json", "\"share\": ", "\"share\": -1, \"y\": ");
    change("standing.json", "\"share\": ", "\"standing\": \"free\", \"share\": ");
    char *corner = replaced(experiment, "[0.5, 0.5]", "[0.5, 1.5]");
    write_text("corner.json", corner);
    free(corner);
    static const struct row rows[] = {
        {MEED_ARG, "report", {"no RUN given", "meed help report"}, NULL},
        {MEED_NOT_FOUND, "report @/nowhere --out @/no.html", {"@/nowhere: no such"}, NULL},
        {MEED_NOT_FOUND, "report @ --out @/no.html", {"no report.json", "--state"}, NULL},
        {MEED_FORMAT, "report @/empty.json --out @/no.html", {"@/empty.json:1"}, NULL},
        {MEED_FORMAT, "report @/list.json --out @/no.html", {"no JSON object"}, NULL},
        {MEED_FORMAT, "report @/other.json --out @/no.html", {"\"rounds\"", "meed value"}, NULL},
        {MEED_FORMAT,
         "report @/status.json --out @/no.html",
         {"rounds[0].clients[0]", "\"status\" must be paid"},
         NULL},
        {MEED_FORMAT,
         "report @/number.json --out @/no.html",
         {"rounds[0].clients[0]", "\"phi\" must be a finite number"},
         NULL},
        {MEED_FORMAT, "report @/client.json --out @/no.html", {"\"id\" must be a client"}, NULL},
        {MEED_FORMAT, "report @/share.json --out @/no.html", {"\"share\" must be a whole"}, NULL},
        {MEED_FORMAT, "report @/standing.json --out @/no.html", {"quarantine or prob"}, NULL},
        {MEED_FORMAT,
         "report @/corner.json --out @/no.html",
         {"rows[0].attacks[0]", "\"roc\" must be pairs"},
         NULL},
        {MEED_NOT_FOUND,
         "report ~/../../tests/loop/report/value.json --out @/none/no.html",
         {"@/none"},
         NULL},
    };
    check_rows(rows, MEED_COUNT(rows));
    check_absent("@/no.html");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_draws_a_federation),
        cmocka_unit_test(report_draws_a_valuation),
        cmocka_unit_test(report_holds_a_simulation_against_the_truth),
        cmocka_unit_test(report_tables_an_experiment),
        cmocka_unit_test(report_holds_attacks_against_defences),
        cmocka_unit_test(report_draws_leakage_against_quality),
        cmocka_unit_test(report_needs_no_cells),
        cmocka_unit_test(report_refuses_broken_courses),
        cmocka_unit_test(report_compares_runs),
        cmocka_unit_test(report_draws_an_audit),
        cmocka_unit_test(report_refuses_broken_audits),
        cmocka_unit_test(report_makes_ids_harmless),
        cmocka_unit_test(report_refuses_what_is_no_run),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
