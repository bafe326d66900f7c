/* Running a Check suite: what every main of tests/unit ends with. */
#ifndef GM_TESTS_SUITE_H
#define GM_TESTS_SUITE_H

#include <check.h>
#include <stdlib.h>

/* Frees the suite. Prints a summary unless CK_VERBOSITY asks for another output. Returns the exit status of the
 * program. */
static inline int suite_run(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
