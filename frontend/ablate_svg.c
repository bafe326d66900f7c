/* The picture of gemmac ablate: a bar per row, prefill and generation stacked, with error bars, and what the row is
 * worth beside it. It stands on a card of its own, so that the page behind it may be light or dark. No script. */
#include "frontend/ablate.h"
#include "frontend/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pixels. The columns after the bars are places of right or left edges, from the end of the plot. */
enum {
    LEFT = 200,
    PLOT = 430,
    TOTAL = 128,
    EFFECT = 218,
    INTERVAL = 228,
    BASE = 392,
    NOTE = 510,
    NOTES = 230,
    TOP = 96,
    ROW = 24,
    BAR = 14,
    SECTION = 34,
    BOTTOM = 44
};

static const char ink[] = "#1f2328", grey[] = "#6e7781", faint[] = "#d8dee4", stripe[] = "#f6f8fa";
static const char prefill_colour[] = "#3b6ea5", generate_colour[] = "#f0a04b", faster_colour[] = "#1a7f37",
                  slower_colour[] = "#b42318";

typedef struct picture {
    gm_string *out;
    int width;
    const fe_ablate_result *results;
    int count;
    double most;       /* seconds that the axis shows; longer bars are cut */
    double per_second; /* pixels */
    double scale;      /* units per second: 1 or 1000 */
    const char *unit;
    int decimals;
} picture;

/* ---- pieces ---- */

static void escaped(gm_string *out, const char *text) {
    for (; *text; text++) {
        const char *entity = *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : NULL;
        if (*text == '&') entity = "&amp;";
        if ((unsigned char)*text < 0x20) entity = " ";
        if (entity) gm_string_printf(out, "%s", entity);
        else gm_string_append(out, text, 1);
    }
}

static void label(const picture *p, double x, double y, const char *anchor, const char *colour, const char *more,
                  const char *text) {
    gm_string_printf(p->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\"%s>", x, y, anchor, colour,
                     more);
    escaped(p->out, text);
    gm_string_printf(p->out, "</text>\n");
}

static void bar(const picture *p, double x, double y, double width, double height, const char *colour) {
    gm_string_printf(p->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y, width,
                     height, colour);
}

static void line(const picture *p, double x1, double y1, double x2, double y2, const char *colour) {
    gm_string_printf(p->out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2,
                     colour);
}

/* A number with a sign, and U+2212 for minus. */
static const char *with_sign(double value, char *text, size_t bytes) {
    snprintf(text, bytes, "%s%.1f", value < 0 ? "−" : "+", fabs(value));
    return text;
}

/* ---- the axis ---- */

/* What most rows need: a single slow row would leave the others no room. */
static double choose_most(const picture *p) {
    enum { MEDIANS = 4 };
    double *ends = calloc((size_t)p->count + 1, sizeof *ends), most = 0;
    GM_ASSERT(ends);
    for (int i = 0; i < p->count; i++) ends[i] = p->results[i].total_mean + p->results[i].total_std;
    fe_sort(ends, (size_t)p->count);
    if (p->count) most = fmin(ends[p->count - 1], MEDIANS * ends[p->count / 2]);
    free(ends);
    return fmax(most, 1e-9) * 1.02;
}

/* 1, 2 or 5 times a power of ten, so that four to ten steps make `most`. */
static double step_of(double most) {
    double power = pow(10, floor(log10(most / 4)));
    double parts = most / 4 / power;
    return power * (parts >= 5 ? 5 : parts >= 2 ? 2 : 1);
}

static void axis(const picture *p, double bottom) {
    double most = p->most * p->scale, step = step_of(most);
    char text[48];
    for (int i = 0; i * step <= most * 1.0001; i++) {
        double x = LEFT + i * step / p->scale * p->per_second;
        line(p, x, TOP + SECTION, x, bottom, i ? faint : grey);
        snprintf(text, sizeof text, "%g", i * step);
        label(p, x, bottom + 16, "middle", grey, "", text);
    }
    snprintf(text, sizeof text, "time, %s", p->unit);
    label(p, LEFT + PLOT / 2.0, bottom + 32, "middle", grey, "", text);
}

/* ---- a row ---- */

/* mean ± std as a whisker around x, within the plot. */
static void whisker(const picture *p, double x, double middle, double std) {
    double half = std * p->per_second, low = fmax(x - half, LEFT), high = fmin(x + half, LEFT + PLOT);
    if (std <= 0 || x > LEFT + PLOT) return;
    line(p, low, middle, high, middle, ink);
    line(p, low, middle - 3, low, middle + 3, ink);
    if (x + half <= LEFT + PLOT) line(p, high, middle - 3, high, middle + 3, ink);
}

static void bars(const picture *p, const fe_ablate_result *r, double y) {
    double room = PLOT, prefill = fmin(r->prefill_mean * p->per_second, room);
    double all = (r->prefill_mean + r->generate_mean) * p->per_second, end = fmin(all, room), middle = y + BAR / 2.0;
    gm_string_printf(p->out, "<g><title>");
    escaped(p->out, r->row->name);
    gm_string_printf(p->out, ": ");
    escaped(p->out, r->row->meaning);
    gm_string_printf(p->out, "; prefill %.4g ± %.2g s, generation %.4g ± %.2g s</title>\n", r->prefill_mean,
                     r->prefill_std, r->generate_mean, r->generate_std);
    bar(p, LEFT, y, prefill, BAR, prefill_colour);
    bar(p, LEFT + prefill, y, end - prefill, BAR, generate_colour);
    whisker(p, LEFT + r->prefill_mean * p->per_second, middle - 3, r->prefill_std);
    whisker(p, LEFT + all, middle + 3, r->total_std);
    for (int i = 0; all > room && i < 2; i++) /* cut: the bar goes on */
        gm_string_printf(p->out, "<path d=\"M%.1f %.1fl-6 %dh4l6 -%dz\" fill=\"#ffffff\"/>\n",
                         LEFT + PLOT - 8.0 - 8 * i, y - 1, BAR + 2, BAR + 2);
    gm_string_printf(p->out, "</g>\n");
}

/* What else there is to say of the row. */
static bool has_note(const fe_ablate_result *r) {
    return (r->base && r->same_program) || r->tokens_differ_at >= 0;
}

static void note(const picture *p, const fe_ablate_result *r, double baseline) {
    char text[120] = "";
    size_t n = 0;
    if (!has_note(r)) return;
    if (r->base && r->same_program) n = (size_t)snprintf(text, sizeof text, "same program");
    if (r->tokens_differ_at >= 0)
        snprintf(text + n, sizeof text - n, "%sother tokens from %lld on (by %.2g)", n ? ", " : "",
                 (long long)r->tokens_differ_at, r->logit_margin);
    label(p, LEFT + PLOT + NOTE, baseline, "start", grey, "", text);
}

static void effect(const picture *p, const fe_ablate_result *r, double baseline) {
    char text[120], low[32], high[32];
    bool interval = isfinite(r->effect.low) && isfinite(r->effect.high);
    const char *colour = r->effect.noise ? grey : r->effect.percent < 0 ? faster_colour : slower_colour;
    snprintf(text, sizeof text, "%s %%", with_sign(r->effect.percent, low, sizeof low));
    label(p, LEFT + PLOT + EFFECT, baseline, "end", colour, r->effect.noise ? "" : " font-weight=\"bold\"", text);
    if (interval)
        snprintf(text, sizeof text, "[%s, %s]%s", with_sign(r->effect.low, low, sizeof low),
                 with_sign(r->effect.high, high, sizeof high), r->effect.noise ? " noise" : "");
    else snprintf(text, sizeof text, "one run");
    label(p, LEFT + PLOT + INTERVAL, baseline, "start", grey, "", text);
    label(p, LEFT + PLOT + BASE, baseline, "start", grey, "", r->base);
}

static void row(const picture *p, const fe_ablate_result *r, double y) {
    double top = y + (ROW - BAR) / 2.0, baseline = y + ROW / 2.0 + 4;
    char text[80];
    label(p, LEFT - 10, baseline, "end", ink, "", r->row->name);
    bars(p, r, top);
    snprintf(text, sizeof text, "%.*f ± %.*f", p->decimals, r->total_mean * p->scale, p->decimals,
             r->total_std * p->scale);
    label(p, LEFT + PLOT + TOTAL, baseline, "end", ink, "", text);
    if (r->base) effect(p, r, baseline);
    note(p, r, baseline);
}

/* ---- sections ---- */

static const char *section_of(const fe_ablate_row *row) {
    if (strncmp(row->name, "without-", 8) == 0) return "The full pipeline without one pass";
    return row->with[0] ? "The full pipeline with other caches or a loop over layers"
                        : "From a host loop to the full pipeline";
}

static bool starts_section(const picture *p, int i) {
    return i == 0 || strcmp(section_of(p->results[i].row), section_of(p->results[i - 1].row)) != 0;
}

/* Where each row begins; returns where the last one ends. */
static double place_rows(const picture *p, double *y) {
    double at = TOP;
    for (int i = 0; i < p->count; i++) {
        if (starts_section(p, i)) at += SECTION;
        y[i] = at;
        at += ROW;
    }
    return at + 6;
}

/* Above the row at y; the axis does not run through it. */
static void section(const picture *p, double y, const char *text) {
    bar(p, 8, y - SECTION + 4, p->width - 16, SECTION - 5, "#ffffff");
    label(p, 16, y - 9, "start", ink, " font-weight=\"bold\"", text);
}

static void heading(const picture *p, const char *title) {
    char text[64];
    const double end = LEFT + PLOT;
    label(p, 16, 32, "start", ink, " font-size=\"17\" font-weight=\"bold\"", title);
    bar(p, 16, 50, BAR, BAR, prefill_colour);
    label(p, 36, 62, "start", ink, "", "prefill");
    bar(p, 96, 50, BAR, BAR, generate_colour);
    label(p, 116, 62, "start", ink, "", "generation");
    label(p, 200, 62, "start", grey, "", "whiskers: one standard deviation of prefill and of the total");
    snprintf(text, sizeof text, "total, %s", p->unit);
    label(p, end + TOTAL, TOP - 10, "end", grey, "", text);
    label(p, end + EFFECT, TOP - 10, "end", grey, "", "effect");
    label(p, end + INTERVAL, TOP - 10, "start", grey, "", "95 % interval");
    label(p, end + BASE, TOP - 10, "start", grey, "", "compared with");
}

static void set_scale(picture *p) {
    p->width = LEFT + PLOT + NOTE;
    for (int i = 0; i < p->count; i++)
        if (has_note(&p->results[i])) p->width = LEFT + PLOT + NOTE + NOTES;
    p->most = choose_most(p);
    p->per_second = PLOT / p->most;
    bool seconds = p->most >= 1;
    p->scale = seconds ? 1 : 1000;
    p->unit = seconds ? "s" : "ms";
    p->decimals = p->most * p->scale >= 100 ? 1 : seconds ? 3 : 2;
}

void fe_ablate_svg(const char *title, const fe_ablate_result *results, int count, gm_string *out) {
    picture p = {.out = out, .results = results, .count = count};
    double *y = calloc((size_t)count + 1, sizeof *y);
    GM_ASSERT(y);
    set_scale(&p);
    double bottom = place_rows(&p, y);
    int width = p.width, height = (int)bottom + BOTTOM;
    gm_string_printf(out,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                     "font-family=\"system-ui, 'Helvetica Neue', Arial, sans-serif\" font-size=\"12\">\n"
                     "<rect x=\"0.5\" y=\"0.5\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#ffffff\" stroke=\"%s\"/>\n",
                     width, height, width, height, width - 1, height - 1, faint);
    heading(&p, title);
    for (int i = 0, shaded = 0; i < count; i++) {
        shaded = starts_section(&p, i) ? 1 : !shaded;
        if (shaded) bar(&p, 8, y[i], width - 16, ROW, stripe);
    }
    axis(&p, bottom);
    for (int i = 0; i < count; i++) {
        if (starts_section(&p, i)) section(&p, y[i], section_of(results[i].row));
        row(&p, &results[i], y[i]);
    }
    gm_string_printf(out, "</svg>\n");
    free(y);
}
