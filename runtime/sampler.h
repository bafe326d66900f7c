/* Choosing the next token from logits: greedy, or temperature, top-k, top-p, min-p and repeat penalty.
 * Called by the compiled generate loop and by the interpreter, so both give the same token. */
#ifndef GM_RUNTIME_SAMPLER_H
#define GM_RUNTIME_SAMPLER_H

#include "runtime/base.h"

/* Index into the options tensor f32[RT_SAMPLE_OPTIONS] that the sample op reads. */
typedef enum rt_sample_option {
    RT_SAMPLE_TEMPERATURE,    /* 0: greedy, lowest id on ties */
    RT_SAMPLE_TOP_K,          /* keep scores >= the k-th; 0: all */
    RT_SAMPLE_TOP_P,          /* keep the smallest head of the distribution reaching p; 1: all */
    RT_SAMPLE_MIN_P,          /* keep p(token) >= min_p * p(best); 0: all */
    RT_SAMPLE_REPEAT_PENALTY, /* 1: none */
    RT_SAMPLE_REPEAT_LAST_N,  /* how many of the latest tokens penalties look at */
    RT_SAMPLE_FREQUENCY,      /* taken off a token's logit for each time that it is there */
    RT_SAMPLE_PRESENCE,       /* taken off once */
    RT_SAMPLE_OPTIONS
} rt_sample_option;

/* What is added to the logit of an id. */
typedef struct rt_bias {
    int32_t id;
    float bias;
} rt_bias;

/* What a token is chosen by, besides logits. Random numbers are a function of the seed, the place position + row and
 * the id alone: a run can be repeated from any point, and what else there is to choose from changes them for no id. */
typedef struct rt_choice {
    const float *options;  /* [RT_SAMPLE_OPTIONS] */
    const int32_t *tokens; /* [position]: the sequence so far, which the repeat penalty sees */
    int64_t position;
    int64_t row; /* so many places behind it the token goes, where those between are not known yet */
    uint64_t seed;
    const rt_bias *biases; /* [bias_count]; none where only some logits are known */
    int64_t bias_count;
} rt_choice;

/* logits [vocab] are not changed. scratch: at least rt_sample_scratch_bytes(vocab) bytes, no allocation happens inside.
 * Order: biases, repeat penalty, the two others, temperature, top-k, top-p, min-p. A NaN logit is never chosen; 0 where
 * all are. */
int32_t rt_sample(const float *logits, int64_t vocab, const rt_choice *by, void *scratch);
size_t rt_sample_scratch_bytes(int64_t vocab);

/* ---- when only some logits are known ---- */

/* Scores with their ids, which ascend, in a scratch as above: room for `vocab` of them. */
typedef struct rt_scores {
    float *score;
    int32_t *id;
    float *weight; /* used inside */
    int64_t count;
} rt_scores;
/* None yet. */
rt_scores rt_scores_in(void *scratch, int64_t vocab);
/* rt_sample's token, 0 where no score is a number, when `among` holds the logits that it can depend on, and perhaps
 * others; they are used up. */
int32_t rt_sample_scores(rt_scores *among, const rt_choice *by);

enum { RT_SAMPLE_MOST_REACH = 256 };
/* k, 1 … RT_SAMPLE_MOST_REACH, when the token depends only on the k largest logits, as the repeat penalty leaves them,
 * and those that tie with them: on none below rt_sample_floor of any number that k of these reach. 0: on all. There is
 * then no other penalty, and that one makes no logit larger. */
int64_t rt_sample_reach(const float *options, int64_t vocab);
float rt_sample_floor(float least, const float *options);
/* What the repeat penalty leaves of the logit of id. */
float rt_sample_penalised(float logit, int32_t id, const rt_choice *by);

#endif
