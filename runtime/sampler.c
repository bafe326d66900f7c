/* Choosing the next token. Filters keep (score, id) pairs in id order at the front of the scratch;
 * no step sorts the vocabulary: thresholds are found by radix selection over order-preserving
 * integer keys. */
#include "runtime/sampler.h"

#include <math.h>
#include <string.h>

static size_t row_bytes(int64_t vocab) {
    return ((size_t)vocab * sizeof(float) + 63) & ~(size_t)63;
}

size_t rt_sample_scratch_bytes(int64_t vocab) {
    return 3 * row_bytes(vocab);
}

rt_scores rt_scores_in(void *scratch, int64_t vocab) {
    char *memory = scratch;
    return (rt_scores){.score = (float *)memory,
                       .weight = (float *)(memory + row_bytes(vocab)),
                       .id = (int32_t *)(memory + 2 * row_bytes(vocab))};
}

/* ---- randomness: a function of (seed, position, id) ---- */

/* The finaliser of SplitMix64. */
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

#define GOLDEN 0x9E3779B97F4A7C15u

static uint64_t state_of(uint64_t seed, int64_t position) {
    return mix(mix(seed + GOLDEN) + GOLDEN * ((uint64_t)position + 1));
}

/* Uniform in [0, 1), for an id. */
static double uniform(uint64_t state, int32_t id) {
    return (double)(mix(state + GOLDEN * ((uint64_t)id + 1)) >> 11) * 0x1p-53;
}

/* ---- selection ---- */

/* Keys compare as unsigned integers the way the (non-NaN) floats do. */
static uint32_t order_key(float value) {
    uint32_t bits;
    value += 0.0f; /* -0 and +0 are equal */
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The largest key whose entries, with all larger ones, have at least `target` of weight; *above is
 * the weight strictly over it. If rounding keeps the total under the target, the smallest key. */
static uint32_t select_key(const rt_scores *set, double target, double *above) {
    static const struct { int shift, bits; } digits[] = {{21, 11}, {10, 11}, {0, 10}};
    uint32_t prefix = 0, known = 0; /* the key's leading bits, and which those are */
    *above = 0;
    for (size_t d = 0; d < GM_COUNT(digits); d++) {
        double mass[1 << 11] = {0};
        bool used[1 << 11] = {0};
        uint32_t mask = (1u << digits[d].bits) - 1;
        for (int64_t i = 0; i < set->count; i++) {
            uint32_t key = order_key(set->score[i]);
            if ((key & known) != prefix) continue;
            uint32_t digit = key >> digits[d].shift & mask;
            mass[digit] += set->weight[i];
            used[digit] = true;
        }
        uint32_t digit = 0;
        double sum = *above;
        for (uint32_t at = mask + 1; at-- > 0;) {
            if (!used[at]) continue;
            digit = at;
            *above = sum;
            sum += mass[at];
            if (sum >= target) break;
        }
        prefix |= digit << digits[d].shift;
        known |= mask << digits[d].shift;
    }
    return prefix;
}

static void keep_entry(rt_scores *set, int64_t to, int64_t from) {
    set->score[to] = set->score[from];
    set->weight[to] = set->weight[from];
    set->id[to] = set->id[from];
}

/* ---- the steps ---- */

static bool penalises(const float *options) {
    float penalty = options[RT_SAMPLE_REPEAT_PENALTY];
    return penalty > 0 && penalty != 1 && options[RT_SAMPLE_REPEAT_LAST_N] >= 1;
}

static bool takes_off(const float *options) {
    bool any = options[RT_SAMPLE_FREQUENCY] != 0 || options[RT_SAMPLE_PRESENCE] != 0;
    return any && options[RT_SAMPLE_REPEAT_LAST_N] >= 1;
}

/* The first of the latest tokens that penalties look at. */
static int64_t first_seen(const rt_choice *by) {
    float last_n = by->options[RT_SAMPLE_REPEAT_LAST_N];
    return last_n < (float)by->position ? by->position - (int64_t)last_n : 0;
}

static float penalised(float logit, float penalty) {
    return logit > 0 ? logit / penalty : logit * penalty;
}

float rt_sample_penalised(float logit, int32_t id, const rt_choice *by) {
    if (!penalises(by->options)) return logit;
    int64_t at = first_seen(by);
    while (at < by->position && by->tokens[at] != id) at++;
    return at < by->position ? penalised(logit, by->options[RT_SAMPLE_REPEAT_PENALTY]) : logit;
}

/* Where id is; -1: nowhere. */
static int64_t place_of(const rt_scores *set, int32_t id) {
    int64_t low = 0, high = set->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (set->id[middle] < id) low = middle + 1;
        else high = middle;
    }
    return low < set->count && set->id[low] == id ? low : -1;
}

static void add_biases(rt_scores *set, const rt_choice *by) {
    for (int64_t i = 0; i < by->bias_count; i++) {
        int64_t at = place_of(set, by->biases[i].id);
        if (at >= 0) set->score[at] += by->biases[i].bias;
    }
}

/* What occurs is marked by a weight of its own: the repeat penalty and presence count once, frequency each time. */
static void penalise(rt_scores *set, const rt_choice *by) {
    const float *options = by->options;
    bool repeats = penalises(options);
    if (!repeats && !takes_off(options)) return;
    memset(set->weight, 0, (size_t)set->count * sizeof(float));
    for (int64_t i = first_seen(by); i < by->position; i++) {
        int64_t at = place_of(set, by->tokens[i]);
        if (at < 0) continue;
        bool first = set->weight[at] == 0;
        if (first && repeats) set->score[at] = penalised(set->score[at], options[RT_SAMPLE_REPEAT_PENALTY]);
        set->score[at] -= options[RT_SAMPLE_FREQUENCY];
        if (first) set->score[at] -= options[RT_SAMPLE_PRESENCE];
        set->weight[at] = 1;
    }
}

/* Where the best is: the first on ties; the first number when all are -inf; 0 when none is a number. */
static int64_t best_place(const float *score, int64_t count) {
    int64_t best = -1;
    float top = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (!(score[i] > top)) continue;
        top = score[i];
        best = i;
    }
    for (int64_t i = 0; i < count && best < 0; i++)
        if (!isnan(score[i])) best = i;
    return best < 0 ? 0 : best;
}

/* Restores the order of a heap with its smallest value in front, once that was replaced. */
static void sift_down(float *heap, int64_t count) {
    float item = heap[0];
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (item <= heap[child]) break;
        heap[at] = heap[child];
    }
    heap[at] = item;
}

/* The k-th largest score, k > 0; -inf if there are fewer numbers. The heap holds the k largest so
 * far; with k small next to count, nearly every score fails the one comparison. */
static float kth_largest(const float *score, int64_t count, int64_t k, float *heap) {
    for (int64_t i = 0; i < k; i++) heap[i] = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (!(score[i] > heap[0])) continue;
        heap[0] = score[i];
        sift_down(heap, k);
    }
    return heap[0];
}

/* Keeps the entries that are numbers and, with top-k, not under the k-th largest: ties with it
 * stay. */
static void keep_top_k(rt_scores *set, float top_k) {
    float least = -INFINITY;
    if (top_k >= 1 && top_k < (float)set->count)
        least = kth_largest(set->score, set->count, (int64_t)top_k, set->weight);
    int64_t count = 0;
    for (int64_t i = 0; i < set->count; i++) {
        if (!(set->score[i] >= least)) continue;
        set->score[count] = set->score[i];
        set->id[count++] = set->id[i];
    }
    set->count = count;
}

static double weigh(rt_scores *set) {
    float best = -INFINITY;
    double total = 0;
    for (int64_t i = 0; i < set->count; i++)
        if (set->score[i] > best) best = set->score[i];
    for (int64_t i = 0; i < set->count; i++) {
        set->weight[i] = expf(set->score[i] - best);
        total += set->weight[i];
    }
    return total;
}

/* In descending order (ties: lower id first) an entry stays while those before it have less than p
 * of the total; so at least one does. */
static void keep_top_p(rt_scores *set, float top_p, double total) {
    if (!(top_p < 1)) return;
    double target = top_p > 0 ? (double)top_p * total : 0, above;
    uint32_t threshold = select_key(set, target, &above);
    int64_t count = 0;
    for (int64_t i = 0; i < set->count; i++) {
        uint32_t key = order_key(set->score[i]);
        if (key < threshold) continue;
        if (key == threshold) {
            if (above > 0 && above >= target) continue;
            above += set->weight[i];
        }
        keep_entry(set, count++, i);
    }
    set->count = count;
}

/* The best entry's weight is 1, so weights are the ratios min-p speaks of. */
static void keep_min_p(rt_scores *set, float min_p) {
    if (!(min_p > 0)) return;
    int64_t count = 0;
    for (int64_t i = 0; i < set->count; i++)
        if (set->weight[i] >= min_p || set->weight[i] >= 1) keep_entry(set, count++, i);
    set->count = count;
}

/* A race of exponential clocks: an entry rings at -log(1 - u) / weight with a u of its own, and is the first with the
 * probability weight/total (the Gumbel-max trick on another scale). An entry wins against the same others wherever
 * these are, so that a set without the unlikely ids mostly gives the same token. As -log(1 - u) >= u, most need no
 * logarithm. */
static int32_t draw(const rt_scores *set, uint64_t state) {
    double first = INFINITY;
    int32_t winner = set->id[0];
    for (int64_t i = 0; i < set->count; i++) {
        double u = uniform(state, set->id[i]), weight = (double)set->weight[i];
        if (!(u < first * weight)) continue;
        double time = -log1p(-u) / weight;
        if (!(time < first)) continue;
        first = time;
        winner = set->id[i];
    }
    return winner;
}

int32_t rt_sample_scores(rt_scores *set, const rt_choice *by) {
    const float *options = by->options;
    if (!set->count) return 0;
    add_biases(set, by);
    penalise(set, by);
    float temperature = options[RT_SAMPLE_TEMPERATURE];
    int64_t best = best_place(set->score, set->count);
    /* Without a finite best there is no distribution to draw from. */
    if (isnan(set->score[best])) return 0;
    if (!(temperature > 0) || !isfinite(set->score[best] / temperature)) return set->id[best];
    for (int64_t i = 0; i < set->count; i++) set->score[i] /= temperature;
    keep_top_k(set, options[RT_SAMPLE_TOP_K]);
    double total = weigh(set);
    keep_top_p(set, options[RT_SAMPLE_TOP_P], total);
    keep_min_p(set, options[RT_SAMPLE_MIN_P]);
    return draw(set, state_of(by->seed, by->position + by->row));
}

int32_t rt_sample(const float *logits, int64_t vocab, const rt_choice *by, void *scratch) {
    rt_scores set = rt_scores_in(scratch, vocab);
    set.count = vocab;
    memcpy(set.score, logits, (size_t)vocab * sizeof(float));
    for (int64_t i = 0; i < vocab; i++) set.id[i] = (int32_t)i;
    return rt_sample_scores(&set, by);
}

/* ---- what is enough ---- */

int64_t rt_sample_reach(const float *options, int64_t vocab) {
    float top_k = options[RT_SAMPLE_TEMPERATURE] > 0 ? options[RT_SAMPLE_TOP_K] : 1;
    bool few = top_k >= 1 && top_k <= (float)RT_SAMPLE_MOST_REACH && (top_k < (float)vocab || top_k == 1);
    bool raises = penalises(options) && options[RT_SAMPLE_REPEAT_PENALTY] < 1;
    return few && !raises && !takes_off(options) ? (int64_t)top_k : 0;
}

/* A score below `least` that divided by the temperature is as large as it: its quotient q is the same float, from which
 * both exact quotients are at most 2^-24·|q| away, or 2^-150 where q is below normal numbers; so the scores are less
 * than 2^-22·|least| or 2^-149·temperature apart. Infinite quotients of either sign change nothing: only the best then
 * counts. */
float rt_sample_floor(float least, const float *options) {
    return least - fabsf(least) * 0x1p-21f - (fmaxf(options[RT_SAMPLE_TEMPERATURE], 0) * 0x1p-148f + 0x1p-100f);
}
