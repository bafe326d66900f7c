/* Reads the vocabulary of an HF tokenizer.json, refusing every setting that Gemma's does not have.
 */
#include <string.h>

#include "frontend/json.h"
#include "frontend/model.h"

enum { MAX_BYTES = 1 << 28 };

typedef struct reader {
    const char *path;
    gm_diag *diag;
    rt_vocab *vocab;
    const cJSON *entries, *added, *merges; /* model.vocab, added_tokens, model.merges */
    const char *end;                       /* of texts, a piece; NULL: <eos> */
    gm_string joined;                      /* scratch: both texts of a merge */
} reader;

/* ---- settings ---- */

static bool is_text(const cJSON *item, const char *text) {
    return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

static bool has_type(const cJSON *item, const char *type) {
    return is_text(fe_json_get(item, "type"), type);
}

static bool is_replace(const cJSON *item, const char *from, const char *to) {
    return has_type(item, "Replace") && is_text(fe_json_get(fe_json_get(item, "pattern"), "String"), from) &&
           is_text(fe_json_get(item, "content"), to);
}

/* Splitting on spaces does nothing once the normalizer has replaced them all. */
static bool is_split(const cJSON *item) {
    return has_type(item, "Split") && is_text(fe_json_get(fe_json_get(item, "pattern"), "String"), " ") &&
           !cJSON_IsTrue(fe_json_get(item, "invert"));
}

/* Alone or as a sequence of one. */
static bool is_normalizer(const cJSON *item) {
    const cJSON *steps = fe_json_get(item, "normalizers");
    if (has_type(item, "Sequence") && cJSON_GetArraySize(steps) == 1) item = cJSON_GetArrayItem(steps, 0);
    return is_replace(item, " ", RT_BLANK);
}

static bool is_decoder(const cJSON *item) {
    const cJSON *steps = fe_json_get(item, "decoders");
    return has_type(item, "Sequence") && cJSON_GetArraySize(steps) == 3 &&
           is_replace(cJSON_GetArrayItem(steps, 0), RT_BLANK, " ") &&
           has_type(cJSON_GetArrayItem(steps, 1), "ByteFallback") && has_type(cJSON_GetArrayItem(steps, 2), "Fuse");
}

static bool is_empty_text(const cJSON *item) {
    return fe_json_is_none(item) || is_text(item, "");
}

static gm_status check_settings(reader *in, const cJSON *root) {
    const cJSON *model = fe_json_get(root, "model"), *dropout = fe_json_get(model, "dropout");
    if (!has_type(model, "BPE")) return gm_fail(in->diag, GM_UNSUPPORTED, "%s: model.type: expected \"BPE\"", in->path);
    if (!cJSON_IsTrue(fe_json_get(model, "byte_fallback")))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: model.byte_fallback: expected true", in->path);
    if (cJSON_IsTrue(fe_json_get(model, "ignore_merges")))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: model.ignore_merges: expected false", in->path);
    if (!fe_json_is_none(dropout) && !(cJSON_IsNumber(dropout) && dropout->valuedouble == 0))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: model.dropout: expected null", in->path);
    if (!is_empty_text(fe_json_get(model, "continuing_subword_prefix")))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: model.continuing_subword_prefix: expected null", in->path);
    if (!is_empty_text(fe_json_get(model, "end_of_word_suffix")))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: model.end_of_word_suffix: expected null", in->path);
    if (!is_normalizer(fe_json_get(root, "normalizer")))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: normalizer: expected Replace of \" \" by U+2581", in->path);
    if (!fe_json_is_none(fe_json_get(root, "pre_tokenizer")) && !is_split(fe_json_get(root, "pre_tokenizer")))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: pre_tokenizer: expected null or Split on \" \"", in->path);
    if (!is_decoder(fe_json_get(root, "decoder")))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: decoder: expected Replace of U+2581 by \" \", ByteFallback, Fuse",
                       in->path);
    return GM_OK;
}

/* The template for one text: [<bos>] A [<eos>], where what ends it may be another piece that the library was told to
 * end texts with. A file without one leaves it to the library's Gemma class, which puts <bos> first. */
static gm_status read_template(reader *in, const cJSON *processor) {
    in->vocab->add_bos = fe_json_is_none(processor) && rt_vocab_find(in->vocab, "<bos>") >= 0;
    if (fe_json_is_none(processor)) return GM_OK;
    bool seen_text = false, valid = has_type(processor, "TemplateProcessing");
    const cJSON *item;
    cJSON_ArrayForEach(item, fe_json_get(processor, "single")) {
        const cJSON *special = fe_json_get(fe_json_get(item, "SpecialToken"), "id");
        if (is_text(fe_json_get(fe_json_get(item, "Sequence"), "id"), "A") && !seen_text) seen_text = true;
        else if (is_text(special, "<bos>") && !seen_text && !in->vocab->add_bos) in->vocab->add_bos = true;
        else if (cJSON_IsString(special) && seen_text && !in->vocab->add_eos)
            in->vocab->add_eos = true, in->end = special->valuestring;
        else valid = false;
    }
    if (!valid || !seen_text)
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: post_processor: expected null or the template [<bos>] A [<eos>]",
                       in->path);
    return GM_OK;
}

/* ---- pieces ---- */

static gm_status read_id(reader *in, const cJSON *item, const char *text, int32_t *id) {
    int64_t value;
    if (!fe_json_int(item, 0, (int64_t)in->vocab->count - 1, &value))
        return gm_fail(in->diag, GM_FORMAT, "%s: id of \"%.80s\": expected an integer 0..%zu", in->path, text,
                       in->vocab->count - 1);
    *id = (int32_t)value;
    return GM_OK;
}

static gm_status add_piece(reader *in, int32_t id, const char *text, rt_piece_type type) {
    rt_piece *piece = &in->vocab->pieces[id];
    size_t length = strlen(text);
    if (piece->text)
        return gm_fail(in->diag, GM_FORMAT, "%s: \"%.80s\": id %d is taken by \"%.80s\", expected one text per id",
                       in->path, text, id, piece->text);
    if (length == 0 || length > RT_MAX_PIECE_BYTES)
        return gm_fail(in->diag, GM_FORMAT, "%s: id %d: expected a text of 1 to %d bytes", in->path, id,
                       RT_MAX_PIECE_BYTES);
    *piece = (rt_piece){
        .text = gm_arena_strndup(&in->vocab->arena, text, length),
        .length = (uint32_t)length,
        .type = type,
    };
    return GM_OK;
}

static gm_status read_entries(reader *in) {
    const cJSON *item;
    cJSON_ArrayForEach(item, in->entries) {
        int32_t id = -1;
        GM_TRY(read_id(in, item, item->string, &id));
        GM_TRY(add_piece(in, id, item->string, RT_PIECE_NORMAL));
        if (rt_piece_byte(&in->vocab->pieces[id]) >= 0) in->vocab->pieces[id].type = RT_PIECE_BYTE;
    }
    return GM_OK;
}

static gm_status read_match(reader *in, const cJSON *item, uint8_t *out) {
    static const struct {
        const char *name;
        uint8_t bit;
    } flags[] = {{"single_word", RT_MATCH_WORD},
                 {"lstrip", RT_MATCH_LEFT},
                 {"rstrip", RT_MATCH_RIGHT},
                 {"normalized", RT_MATCH_ESCAPED}};
    *out = 0;
    for (size_t i = 0; i < GM_COUNT(flags); i++) {
        const cJSON *flag = fe_json_get(item, flags[i].name);
        if (!cJSON_IsBool(flag))
            return gm_fail(in->diag, GM_FORMAT, "%s: added token \"%.80s\": %s: expected true or false", in->path,
                           fe_json_get(item, "content")->valuestring, flags[i].name);
        if (cJSON_IsTrue(flag)) *out |= flags[i].bit;
    }
    return GM_OK;
}

/* An added token either names a piece of the vocabulary or brings a new one. */
static gm_status read_added(reader *in) {
    const cJSON *item;
    cJSON_ArrayForEach(item, in->added) {
        const cJSON *content = fe_json_get(item, "content");
        int32_t id = -1;
        if (!cJSON_IsString(content))
            return gm_fail(in->diag, GM_FORMAT, "%s: added_tokens: content: expected a string", in->path);
        uint8_t match = 0;
        GM_TRY(read_match(in, item, &match));
        GM_TRY(read_id(in, fe_json_get(item, "id"), content->valuestring, &id));
        rt_piece *piece = &in->vocab->pieces[id];
        bool special = cJSON_IsTrue(fe_json_get(item, "special"));
        if (piece->text && strcmp(piece->text, content->valuestring) == 0 && piece->type == RT_PIECE_NORMAL)
            piece->type = special ? RT_PIECE_CONTROL : RT_PIECE_USER;
        else {
            GM_TRY(add_piece(in, id, content->valuestring, special ? RT_PIECE_CONTROL : RT_PIECE_USER));
            piece->apart = true;
        }
        piece->match = match;
    }
    return GM_OK;
}

static size_t id_end(const cJSON *id, size_t end) {
    int64_t value;
    return fe_json_int(id, (int64_t)end, INT32_MAX - 1, &value) ? (size_t)value + 1 : end;
}

/* Sized by the largest id, which the number of entries bounds. */
static gm_status make_pieces(reader *in) {
    size_t entries = 0, end = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, in->entries) {
        end = id_end(item, end);
        entries++;
    }
    cJSON_ArrayForEach(item, in->added) {
        end = id_end(fe_json_get(item, "id"), end);
        entries++;
    }
    if (end == 0 || end > entries)
        return gm_fail(in->diag, GM_FORMAT, "%s: model.vocab: largest id + 1 is %zu, expected 1..%zu", in->path, end,
                       entries);
    in->vocab->count = end;
    in->vocab->pieces = GM_NEW_ARRAY(&in->vocab->arena, rt_piece, end);
    return GM_OK;
}

/* No id is left out, and byte fallback has all its pieces. Gemma 1 and 2 spell the one of the tab as the
 * character, which is then a piece like any other. */
static gm_status check_pieces(reader *in) {
    bool seen[256] = {false};
    for (size_t id = 0; id < in->vocab->count; id++) {
        const rt_piece *piece = &in->vocab->pieces[id];
        if (!piece->text)
            return gm_fail(in->diag, GM_FORMAT, "%s: model.vocab: expected an entry with id %zu", in->path, id);
        if (piece->type == RT_PIECE_BYTE) seen[rt_piece_byte(piece)] = true;
        if (strcmp(piece->text, "\t") == 0) seen['\t'] = true;
    }
    for (int byte = 0; byte < 256; byte++)
        if (!seen[byte])
            return gm_fail(in->diag, GM_FORMAT, "%s: model.vocab: expected a byte piece <0x%02X>", in->path, byte);
    return GM_OK;
}

/* ---- merges ---- */

/* Fills in->joined with "left\0right": from a pair, or from one string with one space. */
static bool split_merge(reader *in, const cJSON *item, const char **left, const char **right) {
    in->joined.length = 0;
    if (cJSON_IsString(item)) {
        const char *text = item->valuestring, *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        gm_string_append(&in->joined, text, strlen(text) + 1);
        in->joined.data[space - text] = '\0';
        *right = in->joined.data + (space - text) + 1;
    } else {
        const cJSON *first = cJSON_IsArray(item) ? item->child : NULL, *second = first ? first->next : NULL;
        if (!cJSON_IsString(first) || !cJSON_IsString(second) || second->next) return false;
        size_t length = strlen(first->valuestring) + 1;
        gm_string_append(&in->joined, first->valuestring, length);
        gm_string_append(&in->joined, second->valuestring, strlen(second->valuestring) + 1);
        *right = in->joined.data + length;
    }
    *left = in->joined.data;
    return true;
}

static gm_status read_merge(reader *in, const rt_tokenizer *lookup, const cJSON *item, size_t rank) {
    const char *left, *right;
    if (!split_merge(in, item, &left, &right))
        return gm_fail(in->diag, GM_FORMAT, "%s: merge %zu: expected a pair of strings", in->path, rank);
    rt_merge *merge = &in->vocab->merges[rank];
    merge->left = rt_piece_id(lookup, left);
    merge->right = rt_piece_id(lookup, right);
    if (merge->left < 0 || merge->right < 0)
        return gm_fail(in->diag, GM_FORMAT, "%s: merge %zu: \"%.80s\": expected a piece of the vocabulary", in->path,
                       rank, merge->left < 0 ? left : right);
    const rt_piece *pieces = in->vocab->pieces;
    if (pieces[merge->left].type == RT_PIECE_BYTE || pieces[merge->right].type == RT_PIECE_BYTE)
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: merge %zu: expected no byte pieces", in->path, rank);
    char *joint = in->joined.data + (right - left) - 1;
    memmove(joint, right, strlen(right) + 1);
    merge->result = rt_piece_id(lookup, left);
    if (merge->result < 0)
        return gm_fail(in->diag, GM_FORMAT, "%s: merge %zu: result \"%.80s\": expected a piece of the vocabulary",
                       in->path, rank, left);
    return GM_OK;
}

static gm_status read_merges_with(reader *in, const rt_tokenizer *lookup) {
    size_t rank = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, in->merges) {
        GM_TRY(read_merge(in, lookup, item, rank));
        rank++;
    }
    return GM_OK;
}

/* A tokenizer over the pieces alone serves to find them by text. */
static gm_status read_merges(reader *in) {
    size_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, in->merges) count++;
    rt_tokenizer *lookup;
    GM_TRY(fe_tokenizer_index(in->vocab, in->path, in->diag, &lookup));
    /* Not NULL even when empty: NULL would mean merging by score. */
    in->vocab->merges = GM_NEW_ARRAY(&in->vocab->arena, rt_merge, count + 1);
    in->vocab->merge_count = count;
    gm_status status = read_merges_with(in, lookup);
    rt_tokenizer_free(lookup);
    return status;
}

/* ---- the file ---- */

static gm_status name_pieces(reader *in, const cJSON *unk) {
    rt_vocab *vocab = in->vocab;
    vocab->bos = rt_vocab_find(vocab, "<bos>");
    vocab->eos = rt_vocab_find(vocab, in->end ? in->end : "<eos>");
    vocab->pad = rt_vocab_find(vocab, "<pad>");
    vocab->unk = cJSON_IsString(unk) ? rt_vocab_find(vocab, unk->valuestring) : -1;
    vocab->end_of_turn = rt_vocab_find(vocab, RT_END_OF_TURN);
    if ((vocab->add_bos && vocab->bos < 0) || (vocab->add_eos && vocab->eos < 0))
        return gm_fail(in->diag, GM_FORMAT, "%s: model.vocab: expected the <bos> and <eos> of post_processor",
                       in->path);
    return GM_OK;
}

static gm_status read_vocab(reader *in, const cJSON *root) {
    const cJSON *model = fe_json_get(root, "model");
    in->entries = fe_json_get(model, "vocab");
    in->merges = fe_json_get(model, "merges");
    in->added = fe_json_get(root, "added_tokens");
    GM_TRY(check_settings(in, root));
    if (!cJSON_IsObject(in->entries))
        return gm_fail(in->diag, GM_FORMAT, "%s: model.vocab: expected an object", in->path);
    if (!cJSON_IsArray(in->merges))
        return gm_fail(in->diag, GM_FORMAT, "%s: model.merges: expected an array", in->path);
    if (!fe_json_is_none(in->added) && !cJSON_IsArray(in->added))
        return gm_fail(in->diag, GM_FORMAT, "%s: added_tokens: expected an array", in->path);
    in->vocab->json_rules = true;
    GM_TRY(make_pieces(in));
    GM_TRY(read_entries(in));
    GM_TRY(read_added(in));
    GM_TRY(check_pieces(in));
    GM_TRY(read_template(in, fe_json_get(root, "post_processor")));
    GM_TRY(name_pieces(in, fe_json_get(model, "unk_token")));
    return read_merges(in);
}

gm_status fe_tokenizer_json_open(const char *path, gm_diag *diag, rt_vocab *vocab) {
    *vocab = (rt_vocab){0};
    cJSON *root = NULL;
    GM_TRY(fe_json_open(path, MAX_BYTES, diag, &root));
    reader in = {.path = path, .diag = diag, .vocab = vocab};
    gm_status status = read_vocab(&in, root);
    gm_string_free(&in.joined);
    cJSON_Delete(root);
    if (status != GM_OK) rt_vocab_free(vocab);
    return status;
}
