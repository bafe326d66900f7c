/* The picture of gemmac ablate: a bar per row, prefill and generation stacked, with error bars. */
#include "frontend/ablate.h"

#include <math.h>
#include <stdio.h>

enum {
    LEFT = 200,
    PLOT = 480,
    RIGHT = 370,
    EFFECT = 130,
    TOP = 74,
    ROW = 26,
    BAR = 16,
    BOTTOM = 46
};

static const char prefill_colour[] = "#4c78a8", generate_colour[] = "#f2a65a";

typedef struct picture {
    gm_string *out;
    const fe_ablate_result *results;
    int count;
    double per_second; /* pixels */
} picture;

static void escaped(gm_string *out, const char *text) {
    for (; *text; text++) {
        const char *entity = *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : NULL;
        if (*text == '&') entity = "&amp;";
        if ((unsigned char)*text < 0x20) entity = " ";
        if (entity)
            gm_string_printf(out, "%s", entity);
        else
            gm_string_append(out, text, 1);
    }
}

static void label(const picture *p, double x, double y, const char *anchor, const char *text) {
    gm_string_printf(p->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    escaped(p->out, text);
    gm_string_printf(p->out, "</text>\n");
}

static void bar(const picture *p, double x, double y, double width, const char *colour) {
    gm_string_printf(p->out,
                     "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x,
                     y, width, BAR, colour);
}

static void line(const picture *p, double x1, double y1, double x2, double y2, const char *colour) {
    gm_string_printf(p->out,
                     "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1,
                     y1, x2, y2, colour);
}

/* mean ± std as a whisker around x. */
static void error_bar(const picture *p, double x, double middle, double std) {
    double half = std * p->per_second, low = x - half < LEFT ? LEFT : x - half;
    if (std <= 0) return;
    line(p, low, middle, x + half, middle, "#222");
    line(p, low, middle - 4, low, middle + 4, "#222");
    line(p, x + half, middle - 4, x + half, middle + 4, "#222");
}

static double longest(const picture *p) {
    double most = 1e-9;
    for (int i = 0; i < p->count; i++)
        most = fmax(most, p->results[i].total_mean + p->results[i].total_std);
    return most;
}

/* 1, 2 or 5 times a power of ten, so that four to ten steps make `most`. */
static double step_of(double most) {
    double power = pow(10, floor(log10(most / 4)));
    double parts = most / 4 / power;
    return power * (parts >= 5 ? 5 : parts >= 2 ? 2 : 1);
}

static void axis(const picture *p, double most) {
    double step = step_of(most), bottom = TOP + p->count * ROW;
    char text[48];
    for (int i = 0; i * step <= most * 1.0001; i++) {
        double x = LEFT + i * step * p->per_second;
        line(p, x, TOP - 4, x, bottom, i ? "#dddddd" : "#888888");
        snprintf(text, sizeof text, "%g s", i * step);
        label(p, x, bottom + 18, "middle", text);
    }
}

static void effect_text(const fe_ablate_result *r, char *text, size_t bytes) {
    int n = snprintf(text, bytes, "%+.1f %%", r->effect.percent);
    if (isfinite(r->effect.low) && isfinite(r->effect.high))
        n +=
            snprintf(text + n, bytes - (size_t)n, " [%+.1f, %+.1f]", r->effect.low, r->effect.high);
    snprintf(text + n, bytes - (size_t)n, "%s%s%s", r->effect.noise ? " noise" : "",
             r->same_program ? ", same program" : "",
             r->tokens_differ_at >= 0 ? ", other tokens" : "");
}

static void row(const picture *p, int i) {
    const fe_ablate_result *r = &p->results[i];
    double y = TOP + i * ROW + (ROW - BAR) / 2.0, middle = y + BAR / 2.0;
    double prefill = r->prefill_mean * p->per_second, generation = r->generate_mean * p->per_second;
    char text[200];
    label(p, LEFT - 8, middle + 4, "end", r->row->name);
    gm_string_printf(p->out, "<g><title>");
    escaped(p->out, r->row->meaning);
    gm_string_printf(p->out, "; prefill %.4g ± %.2g s, generation %.4g ± %.2g s</title>\n",
                     r->prefill_mean, r->prefill_std, r->generate_mean, r->generate_std);
    bar(p, LEFT, y, prefill, prefill_colour);
    bar(p, LEFT + prefill, y, generation, generate_colour);
    error_bar(p, LEFT + prefill, middle - 3, r->prefill_std);
    error_bar(p, LEFT + prefill + generation, middle + 3, r->total_std);
    gm_string_printf(p->out, "</g>\n");
    snprintf(text, sizeof text, "%.4g ± %.2g s", r->total_mean, r->total_std);
    label(p, LEFT + PLOT + 10, middle + 4, "start", text);
    effect_text(r, text, sizeof text);
    if (r->base) label(p, LEFT + PLOT + EFFECT, middle + 4, "start", text);
}

void fe_ablate_svg(const char *title, const fe_ablate_result *results, int count, gm_string *out) {
    picture p = {.out = out, .results = results, .count = count};
    int width = LEFT + PLOT + RIGHT, height = TOP + count * ROW + BOTTOM;
    double most = longest(&p);
    p.per_second = PLOT / most;
    gm_string_printf(out,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                     "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\" "
                     "fill=\"#222222\">\n<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n",
                     width, height, width, height, width, height);
    gm_string_printf(out, "<g font-size=\"16\">");
    label(&p, 16, 26, "start", title);
    gm_string_printf(out, "</g>\n");
    bar(&p, LEFT, 42, 16, prefill_colour);
    label(&p, LEFT + 22, 55, "start", "prefill");
    bar(&p, LEFT + 90, 42, 16, generate_colour);
    label(&p, LEFT + 112, 55, "start", "generation");
    label(&p, LEFT + 190, 55, "start", "whiskers: ± one standard deviation");
    label(&p, LEFT + PLOT + 10, 55, "start", "total");
    label(&p, LEFT + PLOT + EFFECT, 55, "start", "against its base [95 % interval]");
    axis(&p, most);
    for (int i = 0; i < count; i++) row(&p, i);
    gm_string_printf(out, "</svg>\n");
}
