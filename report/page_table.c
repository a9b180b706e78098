/* Tables and headings of the page; see page.h. */
#include "report/page.h"

void meed_page_heading(struct meed_markup *markup, const char *text)
{
    meed_markup_raw(markup, "<h3>");
    meed_markup_text(markup, text);
    meed_markup_raw(markup, "</h3>\n");
}

void meed_page_caption(struct meed_markup *markup, const char *text)
{
    meed_markup_raw(markup, "<caption><span>");
    meed_markup_text(markup, text);
    meed_markup_raw(markup, "</span></caption>\n");
}

/* A table can be wider than the page: it scrolls, the page does not. */
void meed_page_table_open(struct meed_markup *markup, const char *caption,
                          const struct meed_page_column *columns, size_t count)
{
    meed_markup_raw(markup, "<div class=\"scroll\"><table>\n");
    if (caption) {
        meed_page_caption(markup, caption);
    }
    meed_markup_raw(markup, "<thead><tr>");
    for (size_t i = 0; i < count; i++) {
        meed_markup_raw(markup, "<th scope=\"col\"%s>", columns[i].number ? " class=\"n\"" : "");
        meed_markup_text(markup, columns[i].name);
        meed_markup_raw(markup, "</th>");
    }
    meed_markup_raw(markup, "</tr></thead>\n<tbody>\n");
}

void meed_page_table_close(struct meed_markup *markup)
{
    meed_markup_raw(markup, "</tbody></table></div>\n");
}

void meed_page_row_open(struct meed_markup *markup)
{
    meed_markup_raw(markup, "<tr>");
}

void meed_page_row_close(struct meed_markup *markup)
{
    meed_markup_raw(markup, "</tr>\n");
}

void meed_page_cell(struct meed_markup *markup, const char *text)
{
    meed_markup_raw(markup, "<td>");
    meed_markup_text(markup, text);
    meed_markup_raw(markup, "</td>");
}

void meed_page_cell_number(struct meed_markup *markup, struct meed_numeral numeral)
{
    meed_markup_raw(markup, "<td class=\"n\">%s</td>", numeral.text);
}

void meed_page_cell_state(struct meed_markup *markup, enum meed_run_state state)
{
    const char *word = meed_run_state_word(state);
    meed_markup_raw(markup, "<td class=\"%s\">%s</td>", word, word);
}
