/* Every small model of tests/data through the whole pipeline in the f32 plan, against the reference logits and tokens:
 * as it is compiled by default and, for one model of each kind, with prompts in small chunks, token by token, with the
 * host's loops, and without any optional pass. GEMMAC_TINY=TEXT tests only the models with TEXT in their name. */
#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/model/golden.h"
#include "tests/unit/suite.h"

enum { MODELS = 128, SECONDS = 300, WHY = 1600 };
static const double TOLERANCE = 2e-4; /* of a logit: tests/data/README.md */

/* One model with the reference it must agree with. */
typedef struct subject {
    char name[80];   /* in messages */
    char model[400]; /* what is opened */
    char golden[400];
    bool thorough; /* all variants, not only the first */
} subject;

static subject subjects[MODELS];
static int subject_count;
static char folder[64]; /* temporary: models with another config.json */

static const struct variant {
    const char *name;
    fe_options options;
} variants[] = {
    {"default", {.threads = 2}},
    {"five threads", {.threads = 5}},
    {"one thread, chunks of 5", {.threads = 1, .chunk = 5}},
    {"two threads, token scan", {.threads = 2, .skip = "chunk_prefill"}},
    {"host loops", {.threads = 1, .skip = "form_generate_loop,form_prefill_loop"}},
    {"rings, layers in a loop", {.threads = 2, .chunk = 5, .with = "kv_ring,roll_layers"}},
    {"K transposed", {.threads = 1, .with = "kv_k_transposed"}},
    {"no optional pass", {.threads = 1, .passes = "specialize"}},
};

/* ---- one model ---- */

/* All but the last token in a prefill, the last one scored: is the cache that prefill leaves right? */
static gm_status score_last(rt_session *session, const int32_t *ids, int64_t n, const float *want, gm_diag *diag,
                            golden_error *error) {
    rt_session_reset(session);
    if (n > 1) GM_TRY(rt_session_prefill(session, ids, n - 1, diag));
    return golden_score(session, ids + n - 1, 1, want + (n - 1) * rt_session_vocab(session), diag, error);
}

static bool check_prompt(rt_session *session, const golden_file *golden, const char *prompt, char *why) {
    int64_t n = 0, logits = 0;
    const int32_t *ids = golden_tensor(golden, "ids", prompt, &n);
    const float *want = golden_tensor(golden, "logits", prompt, &logits);
    golden_error error = {0}, last = {0};
    gm_diag diag = {.quiet = true};
    if (!want || logits != n * rt_session_vocab(session))
        return snprintf(why, WHY, "the golden logits have another size"), false;
    rt_session_reset(session);
    if (golden_score(session, ids, n, want, &diag, &error) != GM_OK ||
        score_last(session, ids, n, want, &diag, &last) != GM_OK)
        return snprintf(why, WHY, "%.1000s", diag.message), false;
    if (!(error.worst <= TOLERANCE))
        return snprintf(why, WHY, "logit %lld after token %lld is %.7g instead of %.7g", (long long)error.column,
                        (long long)error.row, error.got, error.want),
               false;
    if (!(last.worst <= TOLERANCE))
        return snprintf(why, WHY, "after a prefill, logit %lld is %.7g instead of %.7g", (long long)last.column,
                        last.got, last.want),
               false;
    double worst = fmax(error.worst, last.worst);
    return golden_generate(session, golden, prompt, 1, worst, why, WHY) &&
           golden_generate(session, golden, prompt, 2, worst, why, WHY);
}

static bool check_variant(const subject *s, const golden_file *golden, const struct variant *variant, char *why) {
    fe_options options = variant->options;
    fe_engine engine;
    gm_diag diag = {.quiet = true};
    options.precision = FE_PRECISION_F32;
    if (fe_engine_open(s->model, &options, &diag, &engine) != GM_OK)
        return snprintf(why, WHY, "%.1000s", diag.message), false;
    bool ok = true;
    char reason[WHY];
    for (int i = 0; i < golden->prompt_count && ok; i++) {
        ok = check_prompt(engine.session, golden, golden->prompts[i], reason);
        if (!ok) snprintf(why, WHY, "prompt %s: %.1400s", golden->prompts[i], reason);
    }
    fe_engine_close(&engine);
    return ok;
}

START_TEST(models_agree_with_the_reference) {
    const subject *s = &subjects[_i];
    golden_file golden;
    char why[WHY];
    int failed = 0;
    ck_assert(golden_open(s->golden, &golden));
    ck_assert_int_gt(golden.prompt_count, 0);
    size_t count = s->thorough ? GM_COUNT(variants) : 1;
    for (size_t i = 0; i < count; i++) {
        if (check_variant(s, &golden, &variants[i], why)) continue;
        failed++;
        fprintf(stderr, "%s, %s: %s\n", s->name, variants[i].name, why);
    }
    golden_close(&golden);
    ck_assert_msg(!failed, "%s: %d of %zu variants differ from the reference", s->name, failed, count);
}
END_TEST

/* ---- the list ---- */

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* name: of the model, then of the configuration when it is not the folder's own. */
static subject *add(const char *name, const char *config) {
    if (subject_count == MODELS) exit(2);
    subject *s = &subjects[subject_count++];
    snprintf(s->name, sizeof s->name, "%.40s%s%.30s", name, *config ? " " : "", config);
    return s;
}

/* A folder of links to the model's files, with another of its configurations as config.json. */
static void add_with_config(const char *name, const char *config) {
    subject *s = add(name, config);
    char from[600], to[600];
    const char *source = GM_TEST_DATA "/tiny";
    snprintf(s->model, sizeof s->model, "%s/%.60s.%.60s", folder, name, config);
    snprintf(s->golden, sizeof s->golden, "%s/%.60s/golden.safetensors", source, name);
    if (mkdir(s->model, 0700) != 0) exit(2);
    snprintf(from, sizeof from, "%s/%.60s", source, name);
    DIR *files = opendir(from);
    for (struct dirent *entry; files && (entry = readdir(files));) {
        if (entry->d_name[0] == '.' || strncmp(entry->d_name, "config.", 7) == 0) continue;
        snprintf(from, sizeof from, "%s/%.60s/%.100s", source, name, entry->d_name);
        snprintf(to, sizeof to, "%s/%.100s", s->model, entry->d_name);
        if (symlink(from, to) != 0) exit(2);
    }
    if (files) closedir(files);
    snprintf(from, sizeof from, "%s/%.60s/%.60s", source, name, config);
    snprintf(to, sizeof to, "%s/config.json", s->model);
    if (symlink(from, to) != 0) exit(2);
}

static void add_folder(const char *name) {
    static const char *const configs[] = {"config.legacy.json", "config.mid2025.json"};
    char path[600];
    subject *s = add(name, "");
    s->thorough = true;
    snprintf(s->model, sizeof s->model, "%s/tiny/%.60s", GM_TEST_DATA, name);
    snprintf(s->golden, sizeof s->golden, "%s/tiny/%.60s/golden.safetensors", GM_TEST_DATA, name);
    for (size_t i = 0; i < GM_COUNT(configs); i++) {
        snprintf(path, sizeof path, "%s/tiny/%.60s/%s", GM_TEST_DATA, name, configs[i]);
        if (access(path, F_OK) == 0) add_with_config(name, configs[i]);
    }
}

static void add_gguf(const char *name) {
    subject *s = add(name, "");
    snprintf(s->model, sizeof s->model, "%s/gguf/%.60s", GM_TEST_DATA, name);
    snprintf(s->golden, sizeof s->golden, "%s/gguf/%.*s.golden.safetensors", GM_TEST_DATA,
             (int)(strlen(name) - strlen(".gguf")), name);
}

static int shown(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static void find_subjects(const char *where, const char *end, void (*found)(const char *name)) {
    struct dirent **entries;
    int count = scandir(where, &entries, shown, alphasort);
    for (int i = 0; i < count; i++) {
        const char *only = getenv("GEMMAC_TINY"); /* part of a model's name: test these only */
        if (ends_with(entries[i]->d_name, end) && (!only || strstr(entries[i]->d_name, only)))
            found(entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0) free(entries);
}

static Suite *suite_of(const char *name) {
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create("f32");
    tcase_set_timeout(tcase, SECONDS);
    tcase_add_loop_test(tcase, models_agree_with_the_reference, 0, subject_count);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    const char *temporary = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/gemmac-tiny-XXXXXX", temporary ? temporary : P_tmpdir);
    if (!mkdtemp(folder)) return 2;
    find_subjects(GM_TEST_DATA "/tiny", "", add_folder);
    find_subjects(GM_TEST_DATA "/gguf", ".gguf", add_gguf);
    int failed = suite_run(suite_of("model_tiny"));
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) failed++;
    return failed || !subject_count;
}
