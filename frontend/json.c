/* JSON files: a strict scan of the text first, then cJSON, then duplicate keys.
 *
 * The scan accepts exactly RFC 8259 (cJSON alone also takes control characters in strings, numbers
 * such as 01 and broken UTF-8) and refuses the escape \u0000, at which cJSON's C strings would end
 * early. Numbers written with a fraction or an exponent get the flag REAL, which cJSON leaves alone,
 * so that an integer can be told from 168.0.
 */
#include "frontend/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 64, REAL = 1 << 16 };

/* ---- files ---- */

static gm_status read_all(int file, const char *path, size_t max_bytes, gm_diag *diag, char **out, size_t *out_bytes) {
    struct stat info;
    if (fstat(file, &info) != 0) return gm_fail(diag, GM_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return gm_fail(diag, GM_IO, "%s: expected a regular file", path);
    if ((uint64_t)info.st_size > max_bytes)
        return gm_fail(diag, GM_FORMAT, "%s: expected at most %zu bytes, found %lld", path, max_bytes,
                       (long long)info.st_size);
    size_t bytes = (size_t)info.st_size, at = 0;
    char *data = malloc(bytes + 1);
    if (!data) return gm_fail(diag, GM_NOMEM, "%s: no memory for %zu bytes", path, bytes);
    while (at < bytes) {
        ssize_t got = read(file, data + at, bytes - at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        at += (size_t)got;
    }
    data[at] = '\0';
    *out = data;
    *out_bytes = at;
    if (at == bytes) return GM_OK;
    free(data);
    *out = NULL;
    return gm_fail(diag, GM_IO, "%s: read %zu of %zu bytes", path, at, bytes);
}

gm_status fe_read_stream(FILE *file, const char *name, size_t max_bytes, gm_diag *diag, gm_string *out) {
    char buffer[1 << 16];
    gm_string_append(out, "", 0);
    for (size_t bytes; (bytes = fread(buffer, 1, sizeof buffer, file)) > 0;) {
        if (bytes > max_bytes - out->length)
            return gm_fail(diag, GM_FORMAT, "%s: expected at most %zu bytes", name, max_bytes);
        gm_string_append(out, buffer, bytes);
    }
    return ferror(file) ? gm_fail(diag, GM_IO, "%s: cannot read: %s", name, strerror(errno)) : GM_OK;
}

static gm_status read_stream(FILE *file, const char *name, size_t max_bytes, gm_diag *diag, char **out,
                             size_t *out_bytes) {
    gm_string text = {0};
    gm_status status = fe_read_stream(file, name, max_bytes, diag, &text);
    if (status != GM_OK) gm_string_free(&text);
    *out = text.data;
    *out_bytes = text.length;
    return status;
}

gm_status fe_read_file(const char *path, size_t max_bytes, gm_diag *diag, char **out, size_t *out_bytes) {
    if (strcmp(path, "-") == 0) return read_stream(stdin, "standard input", max_bytes, diag, out, out_bytes);
    struct stat info;
    FILE *file = fopen(path, "rbe");
    if (!file) return gm_fail(diag, GM_IO, "%s: %s", path, strerror(errno));
    bool pipe = fstat(fileno(file), &info) == 0 && S_ISFIFO(info.st_mode); /* a shell's <(…) */
    gm_status status = pipe ? read_stream(file, path, max_bytes, diag, out, out_bytes)
                            : read_all(fileno(file), path, max_bytes, diag, out, out_bytes);
    fclose(file);
    return status;
}

gm_status fe_check_fetched(const void *data, size_t bytes, const char *path, gm_diag *diag) {
    static const char start[] = "version https://git-lfs";
    if (bytes < sizeof start - 1 || memcmp(data, start, sizeof start - 1) != 0) return GM_OK;
    return gm_fail(diag, GM_FORMAT, "%s: expected the file itself, found a Git LFS pointer (git lfs pull fetches it)",
                   path);
}

/* ---- the scan ---- */

typedef struct scanner {
    const char *text;
    size_t bytes, at;
    const char *expected; /* set at the first error; `at` is its offset */
    size_t keys;          /* keys seen so far, in the order of the text */
    size_t wanted_key, wanted_offset;
    size_t numbers;  /* seen so far */
    gm_string reals; /* of size_t: which of them have a fraction or an exponent */
} scanner;

static bool stop(scanner *s, const char *expected) {
    if (!s->expected) s->expected = expected;
    return false;
}

static char peek(const scanner *s) { /* NUL at the end; NUL is nowhere legal */
    return s->at < s->bytes ? s->text[s->at] : '\0';
}

static bool take(scanner *s, char c) {
    if (s->at >= s->bytes || s->text[s->at] != c) return false;
    s->at++;
    return true;
}

static void skip_blanks(scanner *s) {
    while (take(s, ' ') || take(s, '\n') || take(s, '\t') || take(s, '\r')) continue;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool scan_digits(scanner *s) {
    if (!is_digit(peek(s))) return stop(s, "a digit");
    while (is_digit(peek(s))) s->at++;
    return true;
}

static bool scan_number(scanner *s) {
    size_t number = s->numbers++;
    take(s, '-');
    if (!take(s, '0') && !scan_digits(s)) return false;
    char next = peek(s);
    if (next != '.' && next != 'e' && next != 'E') return true;
    gm_string_append(&s->reals, (const char *)&number, sizeof number);
    if (take(s, '.') && !scan_digits(s)) return false;
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+')) take(s, '-');
        return scan_digits(s);
    }
    return true;
}

static bool scan_escape(scanner *s) {
    char c = peek(s);
    if (!c || !strchr("\"\\/bfnrtu", c)) return stop(s, "an escape of JSON");
    s->at++;
    if (c != 'u') return true;
    if (s->bytes - s->at >= 4 && memcmp(s->text + s->at, "0000", 4) == 0) return stop(s, "no NUL in a string");
    for (int i = 0; i < 4; i++, s->at++) {
        char digit = peek(s);
        if (!is_digit(digit) && !(digit >= 'a' && digit <= 'f') && !(digit >= 'A' && digit <= 'F'))
            return stop(s, "four hexadecimal digits");
    }
    return true;
}

/* One character above U+007F. */
static bool scan_utf8(scanner *s) {
    int size = gm_utf8_scan(s->text + s->at, s->bytes - s->at);
    if (size < 1) return stop(s, "UTF-8");
    s->at += (size_t)size;
    return true;
}

/* Stands for itself in a string, one byte long. */
static bool is_plain(uint8_t c) {
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static bool scan_string(scanner *s) {
    if (!take(s, '"')) return stop(s, "a string");
    for (;;) {
        size_t at = s->at;
        while (at < s->bytes && is_plain((uint8_t)s->text[at])) at++;
        s->at = at;
        if (at >= s->bytes) return stop(s, "the end of the string");
        uint8_t c = (uint8_t)s->text[at];
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c < 0x20) return stop(s, "no control character in a string");
        if (c == '\\') {
            s->at++;
            if (!scan_escape(s)) return false;
        } else if (!scan_utf8(s)) {
            return false;
        }
    }
}

static bool scan_literal(scanner *s, const char *literal) {
    size_t length = strlen(literal);
    if (s->bytes - s->at < length || memcmp(s->text + s->at, literal, length) != 0) return stop(s, "a JSON value");
    s->at += length;
    return true;
}

static bool scan_value(scanner *s, int depth);

static bool scan_key(scanner *s) {
    if (s->keys++ == s->wanted_key) s->wanted_offset = s->at;
    if (!scan_string(s)) return false;
    skip_blanks(s);
    return take(s, ':') || stop(s, "':'");
}

/* The items of an array or object after its opening bracket. */
static bool scan_items(scanner *s, int depth, char closing) {
    if (depth >= MAX_DEPTH) return stop(s, "at most 64 nested values");
    skip_blanks(s);
    if (take(s, closing)) return true;
    for (;;) {
        skip_blanks(s);
        if (closing == '}' && !scan_key(s)) return false;
        if (!scan_value(s, depth + 1)) return false;
        skip_blanks(s);
        if (take(s, closing)) return true;
        if (!take(s, ',')) return stop(s, closing == '}' ? "',' or '}'" : "',' or ']'");
    }
}

static bool scan_value(scanner *s, int depth) {
    skip_blanks(s);
    switch (peek(s)) {
    case '{': s->at++; return scan_items(s, depth, '}');
    case '[': s->at++; return scan_items(s, depth, ']');
    case '"': return scan_string(s);
    case 't': return scan_literal(s, "true");
    case 'f': return scan_literal(s, "false");
    case 'n': return scan_literal(s, "null");
    default: return peek(s) == '-' || is_digit(peek(s)) ? scan_number(s) : stop(s, "a JSON value");
    }
}

static bool scan_text(scanner *s) {
    if (!scan_value(s, 0)) return false;
    skip_blanks(s);
    return s->at == s->bytes || stop(s, "nothing after the value");
}

/* ---- duplicate keys ---- */

typedef struct key_set { /* open addressing, at most half full */
    const char **slots;
    size_t mask;
} key_set;

static bool set_add(key_set *set, const char *key) {
    uint64_t hash = gm_hash(GM_HASH, key, strlen(key));
    size_t at = (hash ^ hash >> 32) & set->mask;
    for (; set->slots[at]; at = (at + 1) & set->mask)
        if (strcmp(set->slots[at], key) == 0) return false;
    set->slots[at] = key;
    return true;
}

static const cJSON *find_duplicate(const cJSON *item, size_t *key_number);

/* Keys are numbered in the order of the text: an object's key comes before the keys inside its
 * value. */
static const cJSON *find_in_children(const cJSON *item, key_set *keys, size_t *key_number) {
    for (const cJSON *child = item->child; child; child = child->next) {
        if (keys) {
            if (!set_add(keys, child->string)) return child;
            ++*key_number;
        }
        const cJSON *found = child->child ? find_duplicate(child, key_number) : NULL;
        if (found) return found;
    }
    return NULL;
}

/* The first key that its object already has, and its number; NULL: none. */
static const cJSON *find_duplicate(const cJSON *item, size_t *key_number) {
    if (!cJSON_IsObject(item)) return find_in_children(item, NULL, key_number);
    size_t size = 4;
    for (const cJSON *child = item->child; child; child = child->next) size += 2;
    size = (size_t)1 << (64 - __builtin_clzl(size - 1));
    key_set keys = {calloc(size, sizeof(char *)), size - 1};
    if (!keys.slots) gm_abort(__FILE__, __LINE__, "out of memory");
    const cJSON *found = find_in_children(item, &keys, key_number);
    free(keys.slots);
    return found;
}

/* ---- integers ---- */

/* Flag the numbers listed in reals[0..*left), which are in the order of the text. */
static void mark_reals(cJSON *item, const size_t **reals, size_t *left, size_t *number) {
    for (; item && *left; item = item->next) {
        if (cJSON_IsNumber(item) && (*number)++ == **reals) {
            item->type |= REAL;
            ++*reals;
            --*left;
        }
        mark_reals(item->child, reals, left, number);
    }
}

bool fe_json_int(const cJSON *item, int64_t min, int64_t max, int64_t *out) {
    if (!cJSON_IsNumber(item) || item->type & REAL) return false;
    double value = item->valuedouble;
    if (!(fabs(value) <= 0x1p53) || value < (double)min || value > (double)max) return false;
    *out = (int64_t)value;
    return true;
}

/* ---- the whole ---- */

static gm_status parse_scanned(const char *text, size_t bytes, const gm_string *reals, const char *path, gm_diag *diag,
                               cJSON **out) {
    const char *end = text;
    cJSON *root = cJSON_ParseWithLengthOpts(text, bytes, &end, false);
    if (!root) /* a lone surrogate, a number of more than 63 digits, or no memory */
        return gm_fail(diag, GM_FORMAT, "%s: byte %td: expected valid JSON", path, end - text);
    size_t key_number = 0;
    const cJSON *duplicate = find_duplicate(root, &key_number);
    if (duplicate) {
        scanner again = {.text = text, .bytes = bytes, .wanted_key = key_number};
        scan_text(&again);
        gm_string_free(&again.reals);
        gm_fail(diag, GM_FORMAT, "%s: byte %zu: expected key \"%.200s\" only once", path, again.wanted_offset,
                duplicate->string);
        cJSON_Delete(root);
        return GM_FORMAT;
    }
    const size_t *number = (const size_t *)(const void *)reals->data;
    size_t left = reals->length / sizeof *number, seen = 0;
    mark_reals(root, &number, &left, &seen);
    *out = root;
    return GM_OK;
}

gm_status fe_json_parse(const char *text, size_t bytes, const char *path, gm_diag *diag, cJSON **out) {
    *out = NULL;
    scanner scan = {.text = text, .bytes = bytes, .wanted_key = SIZE_MAX};
    gm_status status = GM_OK;
    if (!scan_text(&scan)) status = gm_fail(diag, GM_FORMAT, "%s: byte %zu: expected %s", path, scan.at, scan.expected);
    else status = parse_scanned(text, bytes, &scan.reals, path, diag, out);
    gm_string_free(&scan.reals);
    return status;
}

gm_status fe_json_open(const char *path, size_t max_bytes, gm_diag *diag, cJSON **out) {
    char *text;
    size_t bytes;
    *out = NULL;
    GM_TRY(fe_read_file(path, max_bytes, diag, &text, &bytes));
    gm_status status = fe_check_fetched(text, bytes, path, diag);
    if (status == GM_OK) status = fe_json_parse(text, bytes, path, diag, out);
    free(text);
    return status;
}
