/* The line of a text that names the screen of a weight. */
#ifndef GM_TESTS_SCREEN_TEXT_H
#define GM_TESTS_SCREEN_TEXT_H

#include "runtime/base.h"
#include "runtime/screen.h"

/* %NAME = the screen of WEIGHT, of [rows, columns] */
static inline void write_screen(gm_string *out, const char *name, const char *weight, int64_t rows, int64_t columns) {
    int64_t dim[2];
    rt_screen_shape(rows, columns, dim);
    gm_string_printf(out, "  %%%s = weight {name = \"%s:s4\"} : s4[%d,%d]\n", name, weight, (int)dim[0], (int)dim[1]);
}

#endif
