/* A module in text form after passes. */
#ifndef GM_TESTS_PASSED_TEXT_H
#define GM_TESTS_PASSED_TEXT_H

#include "passes/passes.h"

#include <check.h>
#include <string.h>

/* The module after the passes of `list`; the caller frees it. */
static inline ir_module *passed_text(const char *text, const pass_options *options, const char *list) {
    gm_diag diag = {.quiet = true};
    ir_module *parsed = NULL, *module = NULL;
    const pass_pipeline_request request = {.options = options, .list = list};
    ck_assert_msg(ir_parse(text, strlen(text), "test", &diag, &parsed) == GM_OK, "%s", diag.message);
    ck_assert_msg(pass_run(&request, parsed, &diag, &module) == GM_OK, "%s", diag.message);
    return module;
}

#endif
