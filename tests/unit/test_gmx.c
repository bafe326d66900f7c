/* Artefacts: the same logits as from the model, warm and recompiled; damage of every kind; writing that fails. */
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "codegen/codegen.h"
#include "frontend/gmx_impl.h"
#include "model_files.h"
#include "runtime/derive.h"
#include "tests/unit/suite.h"

#define GGUF   GM_TEST_DATA "/gguf/gemma3-tiny-q8_0.gguf"
#define FOLDER GM_TEST_DATA "/tiny/gemma2-tiny"
#define BROAD  GM_TEST_DATA "/gguf/gemma3-tiny256-q6_k.gguf" /* its head is screened */

static const fe_options small = {.threads = 2, .context = 48, .chunk = 8};

/* ---- helpers ---- */

static void make(const char *model, const fe_options *options, const char *out) {
    gm_diag diag = {.quiet = true};
    ck_assert_msg(fe_compile(model, options, out, &diag) == GM_OK, "%s", diag.message);
}

typedef struct rows {
    gm_string bytes;
    int64_t vocab;
} rows;

static bool keep(void *user, int64_t first, int64_t count, const float *logits) {
    rows *r = user;
    gm_string_append(&r->bytes, (const char *)logits, sizeof *logits * (size_t)(count * r->vocab));
    return true;
}

/* Logits of a few tokens; *warm: whether the artefact's own code gave them. */
static gm_string logits_of(const char *path, const fe_options *options, bool *warm, int64_t *context) {
    static const int32_t ids[] = {2, 17, 5, 99, 3, 3, 42, 8, 120, 11, 64, 7};
    gm_diag diag = {.quiet = true};
    fe_engine engine;
    ck_assert_msg(fe_engine_open(path, options, &diag, &engine) == GM_OK, "%s", diag.message);
    rows r = {.vocab = rt_session_vocab(engine.session)};
    ck_assert_msg(rt_session_score(engine.session, ids, GM_COUNT(ids), keep, &r, &diag) == GM_OK, "%s", diag.message);
    ck_assert_uint_eq(r.bytes.length, GM_COUNT(ids) * sizeof(float) * (size_t)r.vocab);
    *warm = engine.warm;
    if (context) *context = rt_session_context(engine.session);
    fe_engine_close(&engine);
    return r.bytes;
}

/* Do the two give the same logits, and does the artefact run as it is? */
static void expect_same(const char *model, const fe_options *model_options, const char *artefact,
                        const fe_options *options, bool wanted_warm) {
    bool warm;
    int64_t contexts[2];
    gm_string a = logits_of(model, model_options, &warm, &contexts[0]);
    ck_assert(!warm);
    gm_string b = logits_of(artefact, options, &warm, &contexts[1]);
    ck_assert_int_eq(warm, wanted_warm);
    ck_assert_int_eq(contexts[0], contexts[1]);
    ck_assert_uint_eq(a.length, b.length);
    ck_assert_mem_eq(a.data, b.data, a.length);
    gm_string_free(&a);
    gm_string_free(&b);
}

static gm_string bytes_of(const char *path) {
    gm_diag diag = {0};
    gm_string out = {0};
    ck_assert_msg(fe_read_file(path, 1 << 26, &diag, &out.data, &out.length) == GM_OK, "%s", diag.message);
    out.capacity = out.length + 1;
    return out;
}

static int files_in_folder(void) {
    char command[300];
    int count = -1;
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", temp_folder);
    FILE *pipe = popen(command, "r");
    ck_assert_int_eq(fscanf(pipe, "%d", &count), 1);
    pclose(pipe);
    return count;
}

static void copy_name(char *out, const char *name) {
    snprintf(out, 512, "%s", temp_file(name));
}

/* ---- running ---- */

START_TEST(runs_as_the_model_does) {
    const char *models[] = {GGUF, FOLDER, BROAD};
    const fe_options none = {.threads = 2};
    char path[512];
    copy_name(path, "a.gmx");
    make(models[_i], &small, path);
    expect_same(models[_i], &small, path, &none, true);
    ck_assert_int_eq(files_in_folder(), 1);
}
END_TEST

/* Tensors of a model, those derived from others apart. */
typedef struct kept {
    size_t stored, screens, interleaved;
} kept;

static kept kept_in(const fe_model *model) {
    kept count = {0};
    for (size_t i = 0; i < model->weights.count; i++) {
        const char *name = model->weights.tensors[i].name;
        size_t *kind = rt_is_screen(name)        ? &count.screens
                       : rt_derived_source(name) ? &count.interleaved
                                                 : &count.stored;
        ++*kind;
    }
    return count;
}

static kept kept_at(const char *path) {
    fe_model model = expect_open(path, false);
    kept count = kept_in(&model);
    fe_model_close(&model);
    return count;
}

/* What is derived is kept as long as the program reads it. */
START_TEST(derived_weights_come_and_go) {
    char with[512], without[512], again[512];
    const fe_options skip = {.skip = "screen_head"}, same = {0}, f32 = {.precision = FE_PRECISION_F32};
    copy_name(with, "a.gmx");
    copy_name(without, "b.gmx");
    copy_name(again, "c.gmx");
    make(BROAD, &small, with);
    make(with, &skip, without);
    make(with, &same, again);
    kept model = kept_at(BROAD), all = kept_at(with), less = kept_at(without), back = kept_at(again);
    ck_assert(all.stored == model.stored && all.screens == 1 && all.interleaved == 14); /* of two layers */
    ck_assert(less.stored == model.stored && less.screens == 0 && less.interleaved == 14);
    ck_assert_mem_eq(&back, &all, sizeof back);
    make(with, &f32, again); /* nothing of it is in int16 */
    kept floats = kept_at(again);
    ck_assert(floats.stored == model.stored && floats.screens == 1 && floats.interleaved == 0);
}
END_TEST

START_TEST(other_options_compile_again) {
    char path[512], again[512];
    const fe_options none = {.threads = 2}, context = {.threads = 2, .context = 32},
                     model_context = {.threads = 2, .context = 32, .chunk = 8};
    const fe_options skip = {.threads = 2, .skip = "merge_qkv"},
                     model_skip = {.threads = 2, .context = 48, .chunk = 8, .skip = "merge_qkv"};
    const fe_options with = {.threads = 2, .with = "kv_ring,kv_k_transposed,roll_layers"};
    const fe_options chunk = {.threads = 2, .chunk = 16}, model_chunk = {.threads = 2, .context = 48, .chunk = 16};
    fe_options model_with = with;
    model_with.context = 48, model_with.chunk = 8;
    copy_name(path, "a.gmx");
    copy_name(again, "b.gmx");
    make(GGUF, &small, path);
    expect_same(GGUF, &model_with, path, &with, false);
    make(path, &with, again);
    expect_same(GGUF, &model_with, again, &none, true);
    expect_same(GGUF, &model_context, path, &context, false);
    expect_same(GGUF, &model_skip, path, &skip, false);
    expect_same(GGUF, &model_chunk, path, &chunk, false);
    make(path, &skip, again); /* an artefact of an artefact */
    expect_same(GGUF, &model_skip, again, &none, true);
    make(again, &small, again); /* over itself: the skipped pass stays skipped */
    expect_same(GGUF, &model_skip, again, &none, true);
    /* both are the context's */
    const fe_options whole = {.threads = 2, .context = 48, .chunk = 64}, longer = {.threads = 2, .chunk = 100};
    make(GGUF, &whole, path);
    expect_same(GGUF, &whole, path, &longer, true);
}
END_TEST

/* Which weights keep 16 bits is part of what an artefact was compiled for: an empty list is another than none given,
 * and the usual list written out is the same. */
START_TEST(another_list_of_wide_weights_compiles_again) {
    static const struct {
        const char *made, *wanted;
        bool warm;
    } cases[] = {{NULL, NULL, true},     {NULL, "v_proj,layers.-1.", true},
                 {NULL, "", false},      {NULL, "k_proj", false},
                 {"", NULL, true},       {"", "v_proj", false},
                 {"q_proj", NULL, true}, {"q_proj", "q_proj", true},
                 {"q_proj", "", false}};
    char path[512];
    copy_name(path, "a.gmx");
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        bool warm;
        const fe_options made = {
            .threads = 2, .context = 48, .chunk = 8, .precision = FE_PRECISION_INT8, .wide = cases[i].made};
        const fe_options wanted = {.threads = 2, .wide = cases[i].wanted};
        if (!i || cases[i].made != cases[i - 1].made) make(GGUF, &made, path);
        gm_string logits = logits_of(path, &wanted, &warm, NULL);
        ck_assert_msg(warm == cases[i].warm, "compiled with --wide %s, run with %s",
                      cases[i].made ? cases[i].made : "(none)", cases[i].wanted ? cases[i].wanted : "(none)");
        gm_string_free(&logits);
    }
}
END_TEST

START_TEST(another_target_compiles_again) {
    char path[512];
    bool warm;
    static const char *const cpus[] = {"x86-64-v2", "nehalem", "haswell"};
    fe_options other = small, none = {.threads = 2};
    copy_name(path, "a.gmx");
    for (size_t i = 0; i < GM_COUNT(cpus); i++) {
        if (!cg_target_runs(cpus[i])) continue;
        other.target_cpu = cpus[i];
        make(GGUF, &other, path);
        expect_same(GGUF, &other, path, &none, true);
    }
    ck_assert(cg_target_runs("nehalem") == cg_target_runs("x86-64-v2") &&
              cg_target_runs("haswell") == cg_target_runs("x86-64-v3"));
    none.target_cpu = "x86-64";
    gm_string logits = logits_of(path, &none, &warm, NULL);
    ck_assert(!warm);
    gm_string_free(&logits);
}
END_TEST

/* Everything that is written is read: an artefact of a warm artefact has the same bytes. */
START_TEST(nothing_is_lost) {
    const char *models[] = {GGUF, FOLDER, BROAD};
    char path[512], again[512];
    fe_options none = {0};
    copy_name(path, "a.gmx");
    copy_name(again, "b.gmx");
    make(models[_i], &small, path);
    make(path, &none, again);
    gm_string a = bytes_of(path), b = bytes_of(again);
    ck_assert_uint_eq(a.length, b.length);
    ck_assert_mem_eq(a.data, b.data, a.length);
    fe_model from = expect_open(models[_i], false), to = expect_open(path, false), shapes = expect_open(path, true);
    ck_assert_str_eq(from.architecture, to.architecture);
    ck_assert_mem_eq(&from.config.norm_eps, &to.config.norm_eps, 8 * sizeof(double));
    ck_assert_mem_eq(from.config.local, to.config.local, sizeof to.config.local);
    ck_assert_mem_eq(from.config.stops, to.config.stops, sizeof to.config.stops);
    ck_assert_uint_eq(from.vocab.count, to.vocab.count);
    kept count = kept_in(&to);
    ck_assert_uint_eq(from.weights.count, count.stored);
    ck_assert(count.screens == (_i == 2) && (count.interleaved > 0) == (_i != 1)); /* the second model holds floats */
    for (size_t i = 0; i < from.weights.count; i++) {
        const rt_tensor *tensor = rt_weights_find(&to.weights, from.weights.tensors[i].name);
        ck_assert_ptr_nonnull(tensor);
        ck_assert_uint_eq((uintptr_t)tensor->data % FE_GMX_ALIGN, 0);
        ck_assert_mem_eq(tensor->data, from.weights.tensors[i].data, tensor->bytes);
        ck_assert_ptr_null(shapes.weights.tensors[i].data);
    }
    fe_model_close(&from);
    fe_model_close(&to);
    fe_model_close(&shapes);
    gm_string_free(&a);
    gm_string_free(&b);
}
END_TEST

START_TEST(vocabulary_with_merges) {
    rt_piece pieces[] = {{"a", -1.5f, 1, RT_PIECE_NORMAL, 0, 0},
                         {"b", 0, 1, RT_PIECE_USER, 1, RT_MATCH_LEFT | RT_MATCH_ESCAPED},
                         {"ab", 3, 2, RT_PIECE_NORMAL, 0, 0},
                         {"", 0, 0, RT_PIECE_UNUSED, 0, 0}};
    rt_merge merges[] = {{0, 1, 2}, {1, 0, 2}};
    rt_vocab vocab = {.pieces = pieces,
                      .count = 4,
                      .merges = merges,
                      .merge_count = 2,
                      .bos = 1,
                      .eos = -1,
                      .unk = 3,
                      .pad = 0,
                      .end_of_turn = 2,
                      .add_bos = true,
                      .json_rules = true,
                      .other_turns = true};
    rt_vocab back = {0};
    gm_diag diag = {0};
    gm_string bytes = {0};
    gmx_vocab_write(&vocab, &bytes);
    ck_assert_int_eq(gmx_vocab_read(bytes.data, bytes.length, "x", &diag, &back), GM_OK);
    ck_assert_uint_eq(back.count, 4);
    for (int i = 0; i < 4; i++) {
        ck_assert_uint_eq(back.pieces[i].length, pieces[i].length);
        ck_assert_mem_eq(back.pieces[i].text, pieces[i].text, pieces[i].length);
        ck_assert(back.pieces[i].score == pieces[i].score && back.pieces[i].type == pieces[i].type);
        ck_assert_int_eq(back.pieces[i].match, pieces[i].match);
        ck_assert_int_eq(back.pieces[i].apart, pieces[i].apart);
    }
    ck_assert_uint_eq(back.merge_count, 2);
    ck_assert_mem_eq(back.merges, merges, sizeof merges);
    ck_assert(back.bos == 1 && back.eos == -1 && back.unk == 3 && back.pad == 0 && back.end_of_turn == 2);
    ck_assert(back.add_bos && !back.add_eos && back.json_rules && back.other_turns);
    rt_vocab_free(&back);
    for (size_t length = 1; length < bytes.length; length++) { /* no reading past the end, whatever it says */
        gm_diag why = {0};
        char *part = malloc(length);
        memcpy(part, bytes.data, length);
        expect_failure("cut", gmx_vocab_read(part, length, "x", &why, &back), &why, GM_FORMAT,
                       "x: vocabulary: expected");
        rt_vocab_free(&back);
        back = (rt_vocab){0};
        free(part);
    }
    gm_string_free(&bytes);
}
END_TEST

/* ---- damage ---- */

/* An artefact's bytes, and where its parts are. */
typedef struct parts {
    char path[512];
    gm_string bytes;
    size_t json, sections, sections_end; /* from where on they lie */
} parts;

static parts open_parts(void) {
    parts p = {0};
    copy_name(p.path, "a.gmx");
    make(GGUF, &small, p.path);
    p.bytes = bytes_of(p.path);
    uint64_t json;
    memcpy(&json, p.bytes.data + 16, 8);
    p.json = p.bytes.length - json;
    fe_model model = expect_open(p.path, false);
    const char *base = model.weights.mappings[0].address;
    p.sections = (size_t)((const char *)model.gmx->index.data - base); /* after the vocabulary */
    p.sections_end = (size_t)((const char *)model.gmx->object.data - base) + model.gmx->object.bytes;
    fe_model_close(&model);
    return p;
}

static bool opens(const char *path) {
    gm_diag diag = {.quiet = true};
    fe_model model;
    gm_status status = fe_model_open(path, false, &diag, &model);
    if (status == GM_OK) fe_model_close(&model);
    else
        ck_assert_msg(strncmp(diag.message, path, strlen(path)) == 0 && !strchr(diag.message, '\n'), "%s",
                      diag.message);
    return status == GM_OK;
}

START_TEST(cut_files_are_refused) {
    parts p = open_parts();
    size_t step = p.bytes.length / 97, length = p.bytes.length - 1;
    while (length > 0) { /* downwards: the file is cut in place */
        ck_assert_int_eq(truncate(p.path, (off_t)length), 0);
        ck_assert_msg(!opens(p.path), "opened %zu of %zu bytes", length, p.bytes.length);
        if (length <= 70 || (length <= p.json + 2 && length > p.json - 2)) length--;
        else if (length > p.sections_end && length - step < p.sections_end) length = p.sections_end;
        else length -= length > step ? step : length - 70;
    }
    temp_write("a.gmx", p.bytes.data, p.bytes.length);
    ck_assert(opens(p.path));
    gm_string_append(&p.bytes, "", 1);
    temp_write("a.gmx", p.bytes.data, p.bytes.length);
    expect_open_failure(p.path, GM_FORMAT, "bytes, found");
    gm_string_free(&p.bytes);
}
END_TEST

static uint64_t random_next(uint64_t *state) { /* xorshift64 */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

START_TEST(flipped_bytes_are_refused) {
    parts p = open_parts();
    uint64_t seed = 20240607;
    int refused = 0, total = 2000;
    int file = open(p.path, O_WRONLY);
    ck_assert_int_ge(file, 0);
    for (int i = 0; i < total; i++) {
        size_t from = i % 4 == 0   ? 0
                      : i % 4 == 1 ? p.json
                                   : p.sections,
               to = i % 4 == 0   ? FE_GMX_HEAD
                    : i % 4 == 1 ? p.bytes.length
                                 : p.sections_end;
        size_t at = from + random_next(&seed) % (to - from);
        char bad = (char)(p.bytes.data[at] ^ (char)(1 + random_next(&seed) % 255));
        ck_assert_int_eq(pwrite(file, &bad, 1, (off_t)at), 1);
        refused += !opens(p.path);
        ck_assert_int_eq(pwrite(file, &p.bytes.data[at], 1, (off_t)at), 1);
    }
    close(file);
    ck_assert_msg(refused > total * 98 / 100, "%d of %d refused", refused, total); /* the rest hit padding */
    ck_assert(opens(p.path));
    gm_string_free(&p.bytes);
}
END_TEST

/* A header that lies with the right checksum. */
START_TEST(lying_headers_do_not_crash) {
    parts p = open_parts();
    uint64_t seed = 77, checksum;
    size_t json = p.bytes.length - p.json;
    int refused = 0, total = 2000;
    int file = open(p.path, O_WRONLY);
    ck_assert_int_ge(file, 0);
    char *header = malloc(json), head[FE_GMX_HEAD];
    memcpy(head, p.bytes.data, sizeof head);
    for (int i = 0; i < total; i++) {
        memcpy(header, p.bytes.data + p.json, json);
        size_t at = random_next(&seed) % json;
        header[at] =
            (char)(isdigit((unsigned char)header[at]) ? '0' + random_next(&seed) % 10 : 32 + random_next(&seed) % 95);
        checksum = gmx_checksum(header, json);
        memcpy(head + 24, &checksum, 8);
        checksum = gmx_checksum(head, 32);
        memcpy(head + 32, &checksum, 8);
        ck_assert_int_eq(pwrite(file, header, json, (off_t)p.json), (ssize_t)json);
        ck_assert_int_eq(pwrite(file, head, sizeof head, 0), (ssize_t)sizeof head);
        refused += !opens(p.path);
    }
    close(file);
    free(header);
    ck_assert_msg(refused > total / 2, "%d of %d refused", refused, total);
    gm_string_free(&p.bytes);
}
END_TEST

/* Metadata of the program that lies: read by itself, never run. */
START_TEST(lying_metadata_does_not_crash) {
    char path[512];
    copy_name(path, "a.gmx");
    make(GGUF, &small, path);
    fe_model model = expect_open(path, false);
    ir_module *module;
    gm_diag diag = {0};
    uint64_t seed = 5;
    int refused = 0, total = 400;
    ck_assert_int_eq(ir_parse(model.gmx->ir.data, model.gmx->ir.bytes, "x", &diag, &module), GM_OK);
    for (int i = 0; i < total; i++) {
        size_t bytes = model.gmx->program.bytes;
        char *copy = malloc(bytes);
        memcpy(copy, model.gmx->program.data, bytes);
        if (i % 4 == 0) bytes = random_next(&seed) % bytes;
        else
            copy[i % 4 == 1 ? random_next(&seed) % 32 : random_next(&seed) % bytes] ^=
                (char)(1 + random_next(&seed) % 255);
        cg_image image = {"x", copy, model.gmx->object.data, bytes, model.gmx->object.bytes};
        gm_diag why = {0};
        cg_program *program = NULL;
        if (cg_image_read(module, &image, &why, &program) == GM_OK) cg_program_free(program);
        else refused += strncmp(why.message, "x: compiled program: expected", 29) == 0;
        free(copy);
    }
    ck_assert_msg(refused > total / 2, "%d of %d refused", refused, total);
    ir_module_free(module);
    fe_model_close(&model);
}
END_TEST

/* Another header of the same length, with the right checksum. */
static void write_header(parts *p) {
    uint64_t checksum = gmx_checksum(p->bytes.data + p->json, p->bytes.length - p->json);
    memcpy(p->bytes.data + 24, &checksum, 8);
    checksum = gmx_checksum(p->bytes.data, 32);
    memcpy(p->bytes.data + 32, &checksum, 8);
    temp_write("a.gmx", p->bytes.data, p->bytes.length);
}

static char *in_header(const parts *p, const char *text) {
    char *at = memmem(p->bytes.data + p->json, p->bytes.length - p->json, text, strlen(text));
    ck_assert_msg(at != NULL, "no %s in the header", text);
    return at + strlen(text);
}

/* Code of another build of the compiler does not run. */
START_TEST(another_build_compiles_again) {
    parts p = open_parts();
    const fe_options none = {.threads = 2};
    char *digit = in_header(&p, "\"fingerprint\":\"");
    *digit = *digit == '0' ? '1' : '0';
    write_header(&p);
    expect_same(GGUF, &small, p.path, &none, false);
    gm_string_free(&p.bytes);
}
END_TEST

/* A derived tensor with its extents exchanged has as many bytes, but is not what the program reads. */
START_TEST(exchanged_extents_are_refused) {
    parts p = open_parts();
    const fe_options none = {.threads = 2};
    gm_diag diag = {.quiet = true};
    fe_engine engine;
    char *shape = in_header(&p, "\"layers.0.self_attn.q_proj.weight:"), turned[40];
    int outer, inner;
    shape = strstr(shape, "\"shape\":[");
    ck_assert_int_eq(sscanf(shape, "\"shape\":[%d,%d]", &outer, &inner), 2);
    ck_assert_int_ne(outer, inner);
    int length = snprintf(turned, sizeof turned, "\"shape\":[%d,%d]", inner, outer);
    memcpy(shape, turned, (size_t)length);
    write_header(&p);
    ck_assert_int_eq(fe_engine_open(p.path, &none, &diag, &engine), GM_FORMAT);
    gm_string_free(&p.bytes);
}
END_TEST

/* A program reads only what the model has, of the same type and extents. */
START_TEST(weights_of_the_program) {
    static const struct {
        const char *name, *type;
        gm_status status;
    } cases[] = {{"layers.0.self_attn.q_proj.weight", "q8_0[64,32]", GM_OK},
                 {"layers.0.self_attn.q_proj.weight", "q8_0[32,64]", GM_FORMAT},
                 {"layers.0.self_attn.q_proj.weight", "q4_0[64,32]", GM_FORMAT},
                 {"layers.0.input_layernorm.weight", "f32[32,1]", GM_FORMAT},
                 {"layers.12.self_attn.q_proj.weight", "q8_0[64,32]", GM_FORMAT}};
    fe_model model = expect_open(GGUF, true);
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        char text[300];
        gm_diag diag = {.quiet = true};
        ir_module *module;
        snprintf(text, sizeof text,
                 "func @f(%%x: f32[1]) -> (f32[1]) {\n  %%w = weight {name = \"%s\"} : %s\n  return %%x\n}\n",
                 cases[i].name, cases[i].type);
        ck_assert_msg(ir_parse(text, strlen(text), "x", &diag, &module) == GM_OK, "%s", diag.message);
        expect_failure(text, fe_gmx_check_module(&model, module, &diag), &diag, cases[i].status,
                       cases[i].status == GM_OK ? "" : cases[i].name);
        ir_module_free(module);
    }
    fe_model_close(&model);
}
END_TEST

/* What the model says of sampling. */
START_TEST(defaults_are_kept) {
    static const char manifest[] =
        "{\"weights\":\"" GGUF
        "\",\"generation\":{\"temperature\":0.7,\"top_k\":40,\"top_p\":0.9,\"min_p\":0.1,\"repeat_penalty\":1.25}}";
    char path[512], model[512];
    copy_name(path, "a.gmx");
    snprintf(model, sizeof model, "%s", temp_write("model.json", manifest, strlen(manifest)));
    make(model, &small, path);
    fe_model kept_model = expect_open(path, false);
    const fe_defaults *d = &kept_model.defaults;
    ck_assert(d->temperature == 0.7 && d->top_k == 40 && d->top_p == 0.9 && d->min_p == 0.1 &&
              d->repeat_penalty == 1.25);
    fe_model_close(&kept_model);
}
END_TEST

START_TEST(other_versions_are_refused) {
    parts p = open_parts();
    uint64_t checksum;
    p.bytes.data[4] = FE_GMX_VERSION + 1;
    checksum = gmx_checksum(p.bytes.data, 32);
    memcpy(p.bytes.data + 32, &checksum, 8);
    temp_write("a.gmx", p.bytes.data, p.bytes.length);
    expect_open_failure(p.path, GM_UNSUPPORTED, "expected artefact version 11, found 12");
    gm_string_free(&p.bytes);
}
END_TEST

/* ---- writing that fails ---- */

static void expect_no_artefact(const char *model, const fe_options *options, const char *out, gm_status wanted) {
    gm_diag diag = {.quiet = true};
    expect_failure(out, fe_compile(model, options, out, &diag), &diag, wanted, "");
}

START_TEST(failed_writes_leave_nothing) {
    char path[600], folder[512];
    fe_options no_weights = small;
    no_weights.no_weights = true;
    copy_name(folder, "folder");
    ck_assert_int_eq(mkdir(folder, 0777), 0);
    snprintf(path, sizeof path, "%s/absent/a.gmx", temp_folder);
    expect_no_artefact(GGUF, &small, path, GM_IO);
    expect_no_artefact(GGUF, &small, folder, GM_IO);
    expect_no_artefact(GGUF, &small, "/dev/full", GM_IO);
    snprintf(path, sizeof path, "%s/a.gmx", temp_folder);
    expect_no_artefact(GGUF, &no_weights, path, GM_INVALID);
    expect_no_artefact(path, &small, path, GM_IO);
    ck_assert_int_eq(files_in_folder(), 1);
}
END_TEST

START_TEST(full_disk_keeps_the_old_file) {
    char path[512];
    struct rlimit limit = {1 << 16, 1 << 16};
    copy_name(path, "a.gmx");
    temp_text("a.gmx", "old");
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    expect_no_artefact(GGUF, &small, path, GM_IO);
    ck_assert_int_eq(files_in_folder(), 1);
    gm_string left = bytes_of(path);
    ck_assert_str_eq(left.data, "old");
    gm_string_free(&left);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gmx");
    TCase *tests = tcase_create("gmx");
    tcase_add_checked_fixture(tests, temp_make, temp_remove);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, runs_as_the_model_does, 0, 3);
    tcase_add_test(tests, derived_weights_come_and_go);
    tcase_add_test(tests, other_options_compile_again);
    tcase_add_test(tests, another_target_compiles_again);
    tcase_add_test(tests, another_list_of_wide_weights_compiles_again);
    tcase_add_loop_test(tests, nothing_is_lost, 0, 3);
    tcase_add_test(tests, vocabulary_with_merges);
    tcase_add_test(tests, cut_files_are_refused);
    tcase_add_test(tests, flipped_bytes_are_refused);
    tcase_add_test(tests, lying_headers_do_not_crash);
    tcase_add_test(tests, lying_metadata_does_not_crash);
    tcase_add_test(tests, another_build_compiles_again);
    tcase_add_test(tests, exchanged_extents_are_refused);
    tcase_add_test(tests, weights_of_the_program);
    tcase_add_test(tests, defaults_are_kept);
    tcase_add_test(tests, other_versions_are_refused);
    tcase_add_test(tests, failed_writes_leave_nothing);
    tcase_add_test(tests, full_disk_keeps_the_old_file);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
