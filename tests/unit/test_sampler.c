/* Sampler: frequencies against the exact filtered distribution, ties, odd values, penalties,
 * repeatability. */
#include "runtime/sampler.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 300 };

typedef struct setting {
    float temperature, top_k, top_p, min_p, penalty, last_n;
} setting;

static const setting plain = {.temperature = 1, .top_p = 1, .penalty = 1};

static void fill_options(setting from, float options[RT_SAMPLE_OPTIONS]) {
    memset(options, 0, RT_SAMPLE_OPTIONS * sizeof(float));
    options[RT_SAMPLE_TEMPERATURE] = from.temperature;
    options[RT_SAMPLE_TOP_K] = from.top_k;
    options[RT_SAMPLE_TOP_P] = from.top_p;
    options[RT_SAMPLE_MIN_P] = from.min_p;
    options[RT_SAMPLE_REPEAT_PENALTY] = from.penalty;
    options[RT_SAMPLE_REPEAT_LAST_N] = from.last_n;
}

/* One draw with exactly the scratch promised, which an address sanitizer then watches. */
static int32_t sample_with(const float *logits, int64_t vocab, const float *options, const int32_t *tokens,
                           int64_t position, uint64_t seed) {
    void *scratch = malloc(rt_sample_scratch_bytes(vocab));
    int32_t id = rt_sample(
        logits, vocab, &(rt_choice){.options = options, .tokens = tokens, .position = position, .seed = seed}, scratch);
    free(scratch);
    return id;
}

static int32_t sample_at(const float *logits, int64_t vocab, setting set, const int32_t *tokens, int64_t position,
                         uint64_t seed) {
    float options[RT_SAMPLE_OPTIONS];
    fill_options(set, options);
    return sample_with(logits, vocab, options, tokens, position, seed);
}

static int32_t greedy(const float *logits, int64_t vocab) {
    setting set = plain;
    set.temperature = 0;
    return sample_at(logits, vocab, set, NULL, 0, 1);
}

static uint64_t random_state = 7;

static double random_unit(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 33) / 2147483648.0;
}

/* ---- the naive distribution ---- */

typedef struct entry {
    double score, probability;
    int32_t id;
} entry;

static int by_score(const void *left, const void *right) {
    const entry *a = left, *b = right;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static void normalise(entry *list, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += list[i].probability = exp(list[i].score - list[0].score);
    for (int i = 0; i < count; i++) list[i].probability /= sum;
}

/* Sort, then cut step by step, as the definitions read. */
static void naive_distribution(const float *logits, int vocab, setting set, double *probability) {
    entry list[MOST];
    int count = 0;
    for (int i = 0; i < vocab; i++) {
        probability[i] = 0;
        if (!isnan(logits[i])) list[count++] = (entry){.score = logits[i] / set.temperature, .id = i};
    }
    qsort(list, (size_t)count, sizeof *list, by_score);
    if (set.top_k >= 1 && set.top_k < (float)count) {
        double last = list[(int)set.top_k - 1].score;
        while (list[count - 1].score < last) count--;
    }
    normalise(list, count);
    if (set.top_p < 1) {
        double before = 0;
        int kept = 0;
        while (kept < count && (kept == 0 || before < set.top_p)) before += list[kept++].probability;
        count = kept;
        normalise(list, count);
    }
    while (count > 1 && list[count - 1].probability < set.min_p * list[0].probability) count--;
    normalise(list, count);
    for (int i = 0; i < count; i++) probability[list[i].id] = list[i].probability;
}

/* Pearson's chi-square over all positions; cells expecting under 5 draws are pooled. */
static void check_counts(const int *counts, const double *probability, int vocab, int draws) {
    double chi = 0, rest_expected = 0, rest_counted = 0;
    int cells = 0;
    for (int i = 0; i < vocab; i++) {
        double expected = probability[i] * draws;
        ck_assert_msg(probability[i] > 0 || counts[i] == 0, "id %d was drawn, but is cut off", i);
        if (expected < 5) {
            rest_expected += expected;
            rest_counted += counts[i];
            continue;
        }
        chi += (counts[i] - expected) * (counts[i] - expected) / expected;
        cells++;
    }
    if (rest_expected >= 1) {
        chi += (rest_counted - rest_expected) * (rest_counted - rest_expected) / rest_expected;
        cells++;
    }
    double freedom = cells > 1 ? cells - 1 : 1;
    ck_assert_msg(chi < freedom + 5 * sqrt(2 * freedom) + 5, "chi-square %g over %d cells", chi, cells);
}

static void check_distribution(const float *logits, int vocab, setting set, int draws, uint64_t seed) {
    double probability[MOST];
    int counts[MOST] = {0};
    float options[RT_SAMPLE_OPTIONS];
    naive_distribution(logits, vocab, set, probability);
    fill_options(set, options);
    void *scratch = malloc(rt_sample_scratch_bytes(vocab));
    for (int i = 0; i < draws; i++)
        counts[rt_sample(logits, vocab, &(rt_choice){.options = options, .position = i, .seed = seed}, scratch)]++;
    free(scratch);
    check_counts(counts, probability, vocab, draws);
}

START_TEST(distributions) {
    static const setting sets[] = {
        {1, 0, 1, 0, 1, 0},        {0.5f, 0, 1, 0, 1, 0},          {2, 0, 1, 0, 1, 0},           {1, 5, 1, 0, 1, 0},
        {1, 1, 1, 0, 1, 0},        {1, 0, 0.5f, 0, 1, 0},          {1, 0, 0.9f, 0, 1, 0},        {1, 0, 1, 0.1f, 1, 0},
        {0.7f, 20, 0.8f, 0, 1, 0}, {1.5f, 30, 0.95f, 0.05f, 1, 0}, {1, 1000, 1, 0, 1, 0},        {1, 0, 0, 0, 1, 0},
        {1, 0, 1, 1, 1, 0},        {1, 0, 1e-6f, 0, 1, 0},         {1, 0, 0.999f, 0.001f, 1, 0},
    };
    float logits[60];
    for (size_t s = 0; s < GM_COUNT(sets); s++) {
        for (int i = 0; i < 60; i++) logits[i] = (float)(8 * random_unit() - 4);
        check_distribution(logits, 60, sets[s], 20000, 1000 + s);
    }
}
END_TEST

/* Many short comparisons; few distinct logits, so that ties fall on every threshold. */
START_TEST(random_settings) {
    float logits[MOST];
    for (int round = 0; round < 300; round++) {
        int vocab = 1 + (int)(random_unit() * (MOST - 1));
        bool ties = random_unit() < 0.5;
        for (int i = 0; i < vocab; i++) {
            double value = 12 * random_unit() - 6;
            logits[i] = (float)(ties ? floor(value) : value);
            if (random_unit() < 0.05) logits[i] = random_unit() < 0.5 ? NAN : -INFINITY;
        }
        logits[(int)(random_unit() * vocab)] = 3;
        setting set = plain;
        set.temperature = (float)(0.2 + 2 * random_unit());
        if (random_unit() < 0.5) set.top_k = (float)floor(random_unit() * (vocab + 20));
        if (random_unit() < 0.5) set.top_p = (float)random_unit();
        if (random_unit() < 0.5) set.min_p = (float)(random_unit() * 0.3);
        check_distribution(logits, vocab, set, 1000, (uint64_t)round);
    }
}
END_TEST

/* ---- ties and odd values ---- */

START_TEST(greedy_choices) {
    ck_assert_int_eq(greedy((float[]){1, 3, 2, 3}, 4), 1);
    ck_assert_int_eq(greedy((float[]){-0.0f, 0.0f}, 2), 0);
    ck_assert_int_eq(greedy((float[]){NAN, -5, NAN, -4}, 4), 3);
    ck_assert_int_eq(greedy((float[]){-INFINITY, -INFINITY, -7}, 3), 2);
    ck_assert_int_eq(greedy((float[]){NAN, -INFINITY}, 2), 1);
    ck_assert_int_eq(greedy((float[]){NAN, NAN}, 2), 0);
    ck_assert_int_eq(greedy((float[]){1, INFINITY, INFINITY}, 3), 1);
    ck_assert_int_eq(greedy((float[]){5}, 1), 0);
}
END_TEST

static void check_always(const float *logits, int64_t vocab, setting set, int32_t id) {
    for (int64_t position = 0; position < 50; position++)
        ck_assert_int_eq(sample_at(logits, vocab, set, NULL, position, 3), id);
}

START_TEST(certain_choices) {
    setting set = plain;
    check_always((float[]){-INFINITY, -INFINITY, -1e30f, -INFINITY}, 4, set, 2);
    check_always((float[]){NAN, 1, NAN}, 3, set, 1);
    check_always((float[]){-INFINITY, -INFINITY}, 2, set, 0);
    check_always((float[]){NAN, -INFINITY}, 2, set, 1);
    check_always((float[]){0, INFINITY, 1}, 3, set, 1);
    check_always((float[]){0, 1e30f, 1}, 3, set, 1);
    set.temperature = 1e-40f; /* logits overflow when divided by it */
    check_always((float[]){1, 2, 1.5f}, 3, set, 1);
    check_always((float[]){-3, -2, -2.5f}, 3, set, 1);
    set.temperature = -1;
    check_always((float[]){1, 2, 1.5f}, 3, set, 1);
    set.temperature = NAN;
    check_always((float[]){1, 2, 1.5f}, 3, set, 1);
    set = plain;
    set.top_p = 0;
    check_always((float[]){1, 2, 2, 1}, 4, set, 1);
    set = plain;
    set.min_p = 2;
    check_always((float[]){1, 2, 1}, 3, set, 1);
    set = plain;
    set.top_k = 1;
    check_always((float[]){1, 2, NAN}, 3, set, 1);
}
END_TEST

/* All ties with the k-th stay; of ties on the top-p threshold only as many as are needed. */
START_TEST(tied_thresholds) {
    const float logits[] = {0, 2, 1, 1, 1, 2, 0};
    setting set = plain;
    set.top_k = 3;
    double probability[7];
    naive_distribution(logits, 7, set, probability);
    ck_assert(probability[2] > 0 && probability[4] > 0 && probability[0] == 0);
    check_distribution(logits, 7, set, 20000, 5);
    const float flat[] = {1, 1, 1, 1};
    set = plain;
    set.top_p = 0.6f;
    naive_distribution(flat, 4, set, probability);
    ck_assert(probability[2] > 0 && probability[3] == 0);
    check_distribution(flat, 4, set, 20000, 6);
}
END_TEST

/* What is exactly as likely as the limit says is in. */
START_TEST(at_the_limits) {
    const float flat[] = {1, 1, 1, 1}, halves[] = {0.69314718f, 0};
    setting half = plain, least = plain;
    bool drawn[2] = {false};
    half.top_p = 0.5f;
    least.min_p = 0.5f;
    for (uint64_t seed = 0; seed < 200; seed++) {
        ck_assert_int_lt(sample_at(flat, 4, half, NULL, 0, seed), 2);
        drawn[sample_at(halves, 2, least, NULL, 0, seed)] = true;
    }
    ck_assert(drawn[0] && drawn[1]);
}
END_TEST

/* ---- penalties ---- */

static int32_t penalised(const float *logits, int64_t vocab, float penalty, float last_n, const int32_t *tokens,
                         int64_t position) {
    setting set = plain;
    set.temperature = 0;
    set.penalty = penalty;
    set.last_n = last_n;
    return sample_at(logits, vocab, set, tokens, position, 1);
}

START_TEST(penalties) {
    const float logits[] = {3, 2.9f, -1, 2.8f};
    const int32_t tokens[] = {0, 1, 1, 1, 7, -1};
    ck_assert_int_eq(penalised(logits, 4, 1, 64, tokens, 6), 0);
    ck_assert_int_eq(penalised(logits, 4, 2, 64, tokens, 0), 0);
    ck_assert_int_eq(penalised(logits, 4, 2, 64, tokens, 1), 1);
    ck_assert_int_eq(penalised(logits, 4, 2, 64, tokens, 6), 3);
    ck_assert_int_eq(penalised(logits, 4, 2, 2, tokens, 4), 0); /* only ids 1 in the window */
    ck_assert_int_eq(penalised(logits, 4, 2, 2, tokens, 3), 0); /* id 0 stands right before it */
    ck_assert_int_eq(penalised(logits, 4, 2, 0, tokens, 6), 0);
    ck_assert_int_eq(penalised(logits, 4, 2, -1, tokens, 6), 0);
    ck_assert_int_eq(penalised(logits, 4, 0, 64, tokens, 6), 0); /* no penalty at all */
    ck_assert_int_eq(penalised(logits, 4, NAN, 64, tokens, 6), 0);
    /* Id 1 occurs three times, yet counts once: 2.9 / 1.02 > 2.8 > 2.9 / 1.02^3. */
    const float low[] = {-10, 2.9f, -1, 2.8f};
    ck_assert_int_eq(penalised(low, 4, 1.02f, 64, tokens, 6), 1);
    /* Negative logits are multiplied. */
    const float negative[] = {-1, -1.5f, -4, -5};
    ck_assert_int_eq(penalised(negative, 4, 2, 64, tokens, 1), 1);
    ck_assert_int_eq(penalised(negative, 4, 8, 64, tokens, 2), 2);
}
END_TEST

START_TEST(penalty_before_distribution) {
    const float logits[] = {2, 1, 0.5f, -1};
    const float changed[] = {2 / 1.5f, 1, 0.5f, -1 * 1.5f};
    const int32_t tokens[] = {0, 3, 0};
    setting set = {.temperature = 0.8f, .top_p = 1, .penalty = 1.5f, .last_n = 64};
    double probability[4];
    int counts[4] = {0};
    naive_distribution(changed, 4, set, probability);
    for (uint64_t seed = 0; seed < 40000; seed++) counts[sample_at(logits, 4, set, tokens, 3, seed)]++;
    check_counts(counts, probability, 4, 40000);
}
END_TEST

/* The best of four logits under all three penalties. */
static int32_t taken_off(const float *logits, float repeat, float frequency, float presence, const int32_t *tokens,
                         int64_t position) {
    const float options[RT_SAMPLE_OPTIONS] = {[RT_SAMPLE_REPEAT_PENALTY] = repeat,
                                              [RT_SAMPLE_REPEAT_LAST_N] = 64,
                                              [RT_SAMPLE_FREQUENCY] = frequency,
                                              [RT_SAMPLE_PRESENCE] = presence};
    return sample_with(logits, 4, options, tokens, position, 1);
}

START_TEST(frequency_and_presence) {
    const float logits[] = {3, 2.9f, -1, 2.85f};
    const int32_t tokens[] = {0, 1, 1, 1, 7, -1};
    ck_assert_int_eq(taken_off(logits, 1, 0, 0, tokens, 6), 0);
    ck_assert_int_eq(taken_off(logits, 1, 0.06f, 0, tokens, 6), 0); /* 2.94, 2.72 */
    ck_assert_int_eq(taken_off(logits, 1, 0.2f, 0, tokens, 6), 3);  /* 2.8, 2.3 */
    ck_assert_int_eq(taken_off(logits, 1, 0.2f, 0, tokens, 0), 0);
    ck_assert_int_eq(taken_off(logits, 1, -0.1f, 0, tokens, 6), 1); /* 3.1, 3.2 */
    ck_assert_int_eq(taken_off(logits, 1, 0, 0.04f, tokens, 6), 0); /* 2.96, 2.86, however often it is there */
    ck_assert_int_eq(taken_off(logits, 1, 0, -0.04f, tokens, 6), 0);
    ck_assert_int_eq(taken_off(logits, 1, 0, 0.2f, tokens, 6), 3);
    /* Behind the repeat penalty: 3.33 and 3.22, less 0.5 or 0.4. */
    ck_assert_int_eq(taken_off(logits, 0.9f, 0, 0.5f, tokens, 6), 3);
    ck_assert_int_eq(taken_off(logits, 0.9f, 0, 0.4f, tokens, 6), 0);
}
END_TEST

/* The best of four logits under biases and, if `penalty` is not 1, with its first token penalised. */
static int32_t biased(const float *logits, const rt_bias *biases, int64_t count, float penalty) {
    const float options[RT_SAMPLE_OPTIONS] = {[RT_SAMPLE_REPEAT_PENALTY] = penalty, [RT_SAMPLE_REPEAT_LAST_N] = 64};
    const int32_t tokens[] = {0};
    rt_choice by = {.options = options, .tokens = tokens, .position = 1, .biases = biases, .bias_count = count};
    _Alignas(64) char scratch[3 * 64];
    ck_assert_uint_le(rt_sample_scratch_bytes(4), sizeof scratch);
    return rt_sample(logits, 4, &by, scratch);
}

START_TEST(biases) {
    const float logits[] = {3, 2.9f, -1, 2.85f};
    const rt_bias list[] = {{3, 0.1f}, {0, -0.5f}, {1, 0.2f}, {0, -0.5f}, {4, 100}, {INT32_MAX, 100}, {2, 5}};
    ck_assert_int_eq(biased(logits, list, 0, 1), 0);
    ck_assert_int_eq(biased(logits, list, 1, 1), 0); /* 3, 2.95 */
    ck_assert_int_eq(biased(logits, list, 2, 1), 3); /* 2.5, 2.95 */
    ck_assert_int_eq(biased(logits, list, 6, 1), 1); /* 3.1; ids outside change nothing */
    ck_assert_int_eq(biased(logits, list, 7, 1), 2); /* 4 */
    ck_assert_int_eq(biased(logits, list + 6, 1, 1), 2);
    /* Before the penalty, which divides what is positive by then. */
    ck_assert_int_eq(biased(logits, (rt_bias[]){{0, 1}}, 1, 1.3f), 0);    /* 4 / 1.3 > 2.9 */
    ck_assert_int_eq(biased(logits, (rt_bias[]){{0, 0.7f}}, 1, 1.3f), 1); /* 3.7 / 1.3 < 2.9, 3 / 1.3 + 0.7 > 2.9 */
}
END_TEST

START_TEST(all_are_reached_under_other_penalties) {
    float options[RT_SAMPLE_OPTIONS];
    fill_options((setting){.temperature = 1, .top_k = 5, .penalty = 1, .last_n = 64}, options);
    ck_assert_int_eq(rt_sample_reach(options, 100), 5);
    options[RT_SAMPLE_FREQUENCY] = 0.1f;
    ck_assert_int_eq(rt_sample_reach(options, 100), 0);
    options[RT_SAMPLE_FREQUENCY] = 0, options[RT_SAMPLE_PRESENCE] = 0.1f;
    ck_assert_int_eq(rt_sample_reach(options, 100), 0);
    options[RT_SAMPLE_REPEAT_LAST_N] = 0;
    ck_assert_int_eq(rt_sample_reach(options, 100), 5);
}
END_TEST

/* ---- randomness ---- */

START_TEST(repeatable) {
    float logits[50], copy[50];
    for (int i = 0; i < 50; i++) copy[i] = logits[i] = (float)random_unit();
    int same = 0, same_seed = 0;
    const int32_t tokens[1000] = {0};
    setting set = {.temperature = 1, .top_k = 30, .top_p = 0.9f, .min_p = 0.01f, .penalty = 1.1f, .last_n = 64};
    for (int64_t position = 0; position < 1000; position++) {
        int32_t id = sample_at(logits, 50, set, tokens, position, 42);
        ck_assert_int_eq(id, sample_at(logits, 50, set, tokens, position, 42));
        if (position) same += id == sample_at(logits, 50, set, tokens, position - 1, 42);
        same_seed += id == sample_at(logits, 50, set, tokens, position, 43);
    }
    ck_assert_int_lt(same, 120);
    ck_assert_int_lt(same_seed, 120);
    ck_assert(memcmp(logits, copy, sizeof logits) == 0);
}
END_TEST

/* Draws at neighbouring positions and with neighbouring seeds are independent. */
START_TEST(independent) {
    enum { N = 8, DRAWS = 32000 };
    const float flat[N] = {0};
    int by_position[N * N] = {0}, by_seed[N * N] = {0};
    double probability[N * N];
    for (int i = 0; i < N * N; i++) probability[i] = 1.0 / (N * N);
    for (int64_t i = 0; i < DRAWS; i++) {
        int32_t a = sample_at(flat, N, plain, NULL, 2 * i, 9);
        by_position[a * N + sample_at(flat, N, plain, NULL, 2 * i + 1, 9)]++;
        int32_t b = sample_at(flat, N, plain, NULL, 5, (uint64_t)(2 * i));
        by_seed[b * N + sample_at(flat, N, plain, NULL, 5, (uint64_t)(2 * i + 1))]++;
    }
    check_counts(by_position, probability, N * N, DRAWS);
    check_counts(by_seed, probability, N * N, DRAWS);
}
END_TEST

/* What an id is chosen by does not depend on the others: without some that were not chosen, the choice is the same. */
START_TEST(others_do_not_matter) {
    float logits[MOST], some[MOST];
    int other = 0;
    for (int64_t position = 0; position < 3000; position++) {
        for (int i = 0; i < MOST; i++) logits[i] = (float)(6 * random_unit() - 3);
        int32_t id = sample_at(logits, MOST, plain, NULL, position, 5);
        for (int i = 0; i < MOST; i++) some[i] = i != id && random_unit() < 0.5 ? NAN : logits[i];
        ck_assert_int_eq(sample_at(some, MOST, plain, NULL, position, 5), id);
        some[id] = NAN;
        ck_assert_int_ne(sample_at(some, MOST, plain, NULL, position, 5), id);
        other += sample_at(logits, MOST, plain, NULL, position + 1, 5) != id;
    }
    ck_assert_int_gt(other, 2700);
}
END_TEST

/* A row behind the position has the random numbers of its own place; penalties see what is known. */
START_TEST(places_behind) {
    float logits[50], options[RT_SAMPLE_OPTIONS];
    char scratch[3 * 64 * sizeof(float)];
    const int32_t tokens[8] = {3, 4, 5, 6, 7, 8, 9, 10};
    setting set = plain;
    ck_assert_uint_le(rt_sample_scratch_bytes(50), sizeof scratch);
    for (int64_t i = 0; i < 400; i++) {
        set.penalty = i % 2 ? 4 : 1, set.last_n = 8;
        for (int j = 0; j < 50; j++) logits[j] = (float)(random_unit());
        for (int j = 3; j < 7; j++) logits[j] = 9;
        fill_options(set, options);
        rt_choice by = {.options = options, .tokens = tokens, .position = 4, .row = i, .seed = 3};
        int32_t id = rt_sample(logits, 50, &by, scratch);
        if (i % 2 == 0) ck_assert_int_eq(id, sample_at(logits, 50, set, tokens, 4 + i, 3));
        for (int j = 3; j < 7; j++) logits[j] = i % 2 ? 9 / 4.0f : 9;
        set.penalty = 1;
        ck_assert_int_eq(id, sample_at(logits, 50, set, tokens, 4 + i, 3));
    }
}
END_TEST

/* ---- some of the scores ---- */

enum { KINDS = 7 };

/* Logits that make thresholds hard: many equal, floats next to each other, whose quotients tie, tiny ones, odd
 * values. */
static float hard_logit(int kind, double unit) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0, -0.0f, 3e38f, -3e38f, 1e-45f};
    float base = kind == 1 ? 1.0e-38f : kind == 2 ? -7.3f : 11.7f;
    if (kind == 0) return (float)(8 * unit - 4);
    if (kind < 4) return nextafterf(base, unit < 0.5 ? -INFINITY : INFINITY) * (1 + (float)floor(8 * unit) * 0x1p-23f);
    if (kind == 4) return (float)floor(4 * unit);
    if (kind == 5) return (float)floor(64 * unit) * 0x1p-149f;
    return unit < 0.3 ? odd[(int)(unit / 0.3 * (double)GM_COUNT(odd))] : (float)(20 * unit - 10);
}

/* The k-th largest number; -inf when there are fewer. */
static float kth_of(const float *logits, int count, int k) {
    for (int i = 0; i < count; i++) {
        int above = 0, equal = 0;
        for (int j = 0; j < count; j++) above += logits[j] > logits[i], equal += logits[j] == logits[i];
        if (above < k && above + equal >= k) return logits[i];
    }
    return -INFINITY;
}

/* The token of all `vocab` logits, from those alone that are not below the floor of `least`; returns how many those
 * are. */
static int64_t check_some(const float *logits, int vocab, setting set, float least, uint64_t seed) {
    float options[RT_SAMPLE_OPTIONS];
    void *scratch = malloc(rt_sample_scratch_bytes(vocab));
    fill_options(set, options);
    float floor = rt_sample_floor(least, options);
    rt_scores some = rt_scores_in(scratch, vocab);
    for (int i = 0; i < vocab; i++) {
        if (logits[i] < floor) continue;
        some.score[some.count] = logits[i];
        some.id[some.count++] = i;
    }
    int64_t count = some.count;
    int32_t token = rt_sample_scores(&some, &(rt_choice){.options = options, .position = (int64_t)seed, .seed = seed}),
            wanted = sample_at(logits, vocab, set, NULL, (int64_t)seed, seed);
    ck_assert_msg(token == wanted, "token %d instead of %d, from %d of %d logits, k = %g, temperature %g", token,
                  wanted, (int)count, vocab, (double)set.top_k, (double)set.temperature);
    free(scratch);
    return count;
}

START_TEST(some_are_enough) {
    static const float temperatures[] = {1, 0.7f, 3, 1e-3f, 1e3f, 1e-40f, 1e30f, 3e38f};
    float logits[MOST], options[RT_SAMPLE_OPTIONS];
    int64_t kept = 0, all = 0;
    for (int round = 0; round < 20000; round++) {
        int vocab = 2 + (int)(random_unit() * (MOST - 3)), kind = round % KINDS;
        for (int i = 0; i < vocab; i++) logits[i] = hard_logit(kind, random_unit());
        setting set = plain;
        set.temperature = temperatures[round / KINDS % (int)GM_COUNT(temperatures)];
        set.top_k = (float)(1 + (int)(random_unit() * (vocab < 257 ? vocab - 1 : 256)));
        set.top_p = round % 3 ? 1 : (float)random_unit();
        set.min_p = round % 5 ? 0 : (float)(random_unit() * 0.3);
        fill_options(set, options);
        ck_assert_int_eq(rt_sample_reach(options, vocab), (int64_t)set.top_k);
        float least = kth_of(logits, vocab, (int)set.top_k);
        int64_t count = check_some(logits, vocab, set, least, (uint64_t)round);
        check_some(logits, vocab, set, least - 1, (uint64_t)round);
        setting cold = set;
        cold.temperature = 0;
        check_some(logits, vocab, cold, kth_of(logits, vocab, 1), (uint64_t)round);
        if (kind == 0 && set.temperature == 1) kept += count, all += (int64_t)set.top_k;
    }
    ck_assert_int_le(kept, all + all / 100); /* hardly more than those counted */
}
END_TEST

static int64_t reach_of(setting set, int64_t vocab) {
    float options[RT_SAMPLE_OPTIONS];
    fill_options(set, options);
    return rt_sample_reach(options, vocab);
}

START_TEST(when_some_are_enough) {
    setting set = {.temperature = 1, .top_k = 64, .top_p = 0.95f, .penalty = 1, .last_n = 64};
    ck_assert_int_eq(reach_of(set, 1000), 64);
    ck_assert_int_eq(reach_of(set, 64), 0);
    ck_assert_int_eq(reach_of(set, 65), 64);
    set.top_k = 256.5f;
    ck_assert_int_eq(reach_of(set, 1000), 0);
    static const float none[] = {0, 0.5f, -1, NAN, 257, 1e20f};
    for (size_t i = 0; i < GM_COUNT(none); i++) {
        set.top_k = none[i];
        ck_assert_int_eq(reach_of(set, 1000), 0);
    }
    set.top_k = 1.5f;
    ck_assert_int_eq(reach_of(set, 1000), 1);
    static const float cold[] = {0, -1, NAN}; /* the best one counts */
    for (size_t i = 0; i < GM_COUNT(cold); i++) {
        set.temperature = cold[i];
        ck_assert_int_eq(reach_of(set, 1000), 1);
    }
    set.temperature = 1;
    set.penalty = 1.1f;
    ck_assert_int_eq(reach_of(set, 1000), 1);
    set.penalty = 0.9f; /* makes logits larger */
    ck_assert_int_eq(reach_of(set, 1000), 0);
    set.last_n = 0; /* looks at no token */
    ck_assert_int_eq(reach_of(set, 1000), 1);
}
END_TEST

/* Penalties look ids up. */
START_TEST(some_are_penalised) {
    float options[RT_SAMPLE_OPTIONS], scores[] = {2, 2.9f, 3, -1};
    int32_t ids[] = {3, 10, 11, 400};
    const int32_t tokens[] = {11, 400, 5, 11, 401, -2};
    setting set = plain;
    set.temperature = 0, set.penalty = 2, set.last_n = 8;
    fill_options(set, options);
    void *scratch = malloc(rt_sample_scratch_bytes(4));
    for (int64_t position = 0; position <= 6; position++) {
        rt_scores some = rt_scores_in(scratch, 4);
        memcpy(some.score, scores, sizeof scores);
        memcpy(some.id, ids, sizeof ids);
        some.count = 4;
        ck_assert_int_eq(
            rt_sample_scores(&some,
                             &(rt_choice){.options = options, .tokens = tokens, .position = position, .seed = 1}),
            position ? 10 : 11);
    }
    rt_scores none = rt_scores_in(scratch, 4);
    ck_assert_int_eq(rt_sample_scores(&none, &(rt_choice){.options = options, .tokens = tokens, .seed = 1}), 0);
    free(scratch);
}
END_TEST

/* ---- a real vocabulary's size ---- */

START_TEST(large_vocabulary) {
    enum { VOCAB = 262144, BEST = 100 };
    float *logits = malloc(VOCAB * sizeof(float));
    for (int i = 0; i < VOCAB; i++) logits[i] = (float)(10 * random_unit() - 20);
    for (int i = 0; i < BEST; i++) logits[i * 2621 + 17] = (float)i / 100;
    setting set = plain;
    for (int k = 1; k <= BEST; k += 33) {
        set.top_k = (float)k;
        for (int64_t position = 0; position < 20; position++) {
            int32_t id = sample_at(logits, VOCAB, set, NULL, position, 11);
            ck_assert_int_eq(id % 2621, 17);
            ck_assert_int_ge(id / 2621, BEST - k);
        }
    }
    set = plain;
    set.top_p = 0.95f;
    for (int64_t position = 0; position < 20; position++) {
        int32_t id = sample_at(logits, VOCAB, set, NULL, position, 12);
        ck_assert(id >= 0 && id < VOCAB);
    }
    free(logits);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sampler");
    TCase *tcase = tcase_create("sampler");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, distributions);
    tcase_add_test(tcase, random_settings);
    tcase_add_test(tcase, greedy_choices);
    tcase_add_test(tcase, certain_choices);
    tcase_add_test(tcase, tied_thresholds);
    tcase_add_test(tcase, at_the_limits);
    tcase_add_test(tcase, penalties);
    tcase_add_test(tcase, penalty_before_distribution);
    tcase_add_test(tcase, frequency_and_presence);
    tcase_add_test(tcase, biases);
    tcase_add_test(tcase, all_are_reached_under_other_penalties);
    tcase_add_test(tcase, repeatable);
    tcase_add_test(tcase, independent);
    tcase_add_test(tcase, others_do_not_matter);
    tcase_add_test(tcase, places_behind);
    tcase_add_test(tcase, some_are_enough);
    tcase_add_test(tcase, when_some_are_enough);
    tcase_add_test(tcase, some_are_penalised);
    tcase_add_test(tcase, large_vocabulary);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
