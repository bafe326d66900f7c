/* gemmac ablate: what the measured rows taught, beside what the report found. */
#include "frontend/ablate.h"

#include <math.h>
#include <string.h>

typedef struct lesson {
    const char *row;
    double report_percent; /* of the total; NAN: the report gives none */
    const char *reason;
} lesson;

static const lesson table[] = {
#define LESSON(row, report_percent, reason) {row, report_percent, reason},
#include "frontend/ablate_lessons.def"
#undef LESSON
};

static const lesson *lesson_of(const char *row) {
    for (size_t i = 0; i < GM_COUNT(table); i++)
        if (strcmp(table[i].row, row) == 0) return &table[i];
    return NULL;
}

/* Half of the report's effect in the same direction counts as the same finding. */
static const char *verdict(const fe_effect *here, double report) {
    if (!isfinite(here->low) || !isfinite(here->high)) return "one run decides nothing";
    if (here->noise)
        return isnan(report) ? "no effect beyond the noise" : "does not carry over: no effect beyond the noise";
    if (isnan(report)) return here->percent < 0 ? "a gain" : "a loss";
    if ((here->percent < 0) != (report < 0)) return "does not carry over: the opposite here";
    return fabs(here->percent) >= fabs(report) / 2 ? "carries over" : "carries over in part: smaller here";
}

void fe_ablate_lessons(const fe_ablate_result *results, int count, gm_string *out) {
    for (int i = 0; i < count; i++) {
        const fe_ablate_result *r = &results[i];
        const lesson *l = r->base ? lesson_of(r->row->name) : NULL;
        if (!l) continue;
        gm_string_printf(out, "- **%s** (%s), against %s: %+.2f %% [%+.2f, %+.2f] here", r->row->name, r->row->meaning,
                         r->base, r->effect.percent, r->effect.low, r->effect.high);
        if (!isnan(l->report_percent)) gm_string_printf(out, ", %+.2f %% in the report", l->report_percent);
        gm_string_printf(out, ". *%s.* %s\n", verdict(&r->effect, l->report_percent), l->reason);
    }
}
