/* Choosing a precision plan by what it costs: the fastest one within a budget of divergence from the f32 plan. */
#ifndef GM_FRONTEND_BUDGET_H
#define GM_FRONTEND_BUDGET_H

#include "frontend/driver.h"

typedef struct fe_budget_request {
    double kl; /* nats a token, mean KL(f32 || plan) at most */
    /* tokens to measure on, `count` of them; NULL: the model draws FE_BUDGET_TOKENS of its own, with a fixed seed */
    const int32_t *ids;
    int64_t count;
    /* Called for every plan tried, in order of speed; the last one is the choice. */
    void (*tried)(void *user, const char *precision, const char *wide, double kl);
    void *user;
} fe_budget_request;

enum { FE_BUDGET_TOKENS = 512 };

/* Sets options->precision and options->wide. GM_INVALID: the text is shorter than 2 tokens. Other errors are those of
 * opening MODEL. When no plan is within the budget the choice is f32. */
gm_status fe_budget_choose(const char *path, const fe_budget_request *request, fe_options *options, gm_diag *diag);

#endif
