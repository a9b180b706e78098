/* libFuzzer target: result files of strangers, drawn. What the reader accepts must make a page that
 * is well-formed, whatever it says; what it refuses must say so in words. */
#include <stdlib.h>
#include <string.h>

#include "report/page.h"
#include "report/reader.h"
#include "tests/fuzz/memory_file.h"
#include "tests/support/tags.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct memory_file file;
    struct meed_run_record record;
    struct meed_markup page;
    const struct meed_run_record *records[] = {&record, &record};
    meed_run_record_init(&record);
    meed_markup_init(&page);
    if (meed_reader_read(memory_file_put(&file, data, size), &record) == MEED_OK) {
        meed_page_write(&page, records, MEED_COUNT(records));
        if (page.status == MEED_OK && tags_fault(page.text.data)) {
            abort();
        }
    } else if (meed_last_error()[0] == '\0') {
        abort();
    }
    meed_markup_clear(&page);
    meed_run_record_clear(&record);
    return 0;
}
