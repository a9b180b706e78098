/* See page.h. */
#include "report/page.h"

void meed_page_write(struct meed_markup *markup, const struct meed_run_record *const *records,
                     int32_t count)
{
    struct meed_markup *m = markup;
    MEED_ASSERT(count >= 1);
    meed_markup_raw(m, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width, "
                       "initial-scale=1\">\n<title>Meed: ");
    meed_markup_text(m, records[0]->title);
    if (count > 1) {
        meed_markup_raw(m, " and %d more", count - 1);
    }
    meed_markup_raw(m, "</title>\n<style>\n");
    /* The style is longer than a piece of markup and has no format in it. */
    if (m->status == MEED_OK) {
        m->status = meed_buf_printf(&m->text, "%s", meed_page_style);
    }
    meed_markup_raw(m, "</style>\n</head>\n<body>\n");
    if (count > 1) {
        meed_markup_raw(m, "<h1>%d runs</h1>\n", count);
        meed_page_comparison(m, records, count);
    }
    for (int32_t i = 0; i < count; i++) {
        meed_markup_raw(m, count > 1 ? "<h2 id=\"run-%d\">" : "<h1 id=\"run-%d\">", i + 1);
        meed_markup_text(m, records[i]->title);
        meed_markup_raw(m, count > 1 ? "</h2>\n" : "</h1>\n");
        meed_markup_raw(m, "<p class=\"lead\">");
        meed_markup_text(m, records[i]->kind);
        meed_markup_raw(m, "</p>\n");
        if (records[i]->note[0]) {
            meed_markup_raw(m, "<p class=\"note\">");
            meed_markup_text(m, records[i]->note);
            meed_markup_raw(m, "</p>\n");
        }
        if (records[i]->client_count > 0) {
            meed_page_pay(m, records[i]);
        }
        meed_page_defence(m, records[i]);
        meed_page_detection(m, records[i]);
        meed_page_experiment(m, records[i]);
        meed_page_leakage(m, records[i]);
        meed_page_sweep(m, records[i]);
        meed_page_truth(m, records[i]);
        meed_page_value(m, records[i]);
        meed_page_coalitions(m, records[i]);
        meed_page_course(m, records[i]);
        meed_page_audit(m, records[i]);
        meed_page_provenance(m, records[i]);
    }
    meed_markup_raw(m,
                    "<footer>Made by meed %s from the files of the run%s; `meed ledger verify` "
                    "checks a ledger's hashes and signatures.</footer>\n</body>\n</html>\n",
                    MEED_RELEASE, count > 1 ? "s" : "");
}
