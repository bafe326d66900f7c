/* Tokenizer: which characters are blanks and which belong to words. */
#include "runtime/tokenizer_impl.h"

static const struct range {
    uint32_t first, last;
} words[] = {
#define WORDS(first, last) {first, last},
#include "runtime/words.def"
#undef WORDS
};

static bool is_word(uint32_t character) {
    size_t low = 0, high = GM_COUNT(words);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (character > words[middle].last) low = middle + 1;
        else high = middle;
    }
    return low < GM_COUNT(words) && character >= words[low].first;
}

static bool is_blank(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* The character of a valid UTF-8 text at its start or end; *size: its bytes, 0 when the text is empty. */
static uint32_t decode(const char *text, size_t size) {
    static const uint8_t lead[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t character = (uint8_t)text[0] & lead[size];
    for (size_t i = 1; i < size; i++) character = character << 6 | ((uint8_t)text[i] & 0x3F);
    return character;
}

static uint32_t first_of(const char *text, size_t length, size_t *size) {
    *size = length ? (size_t)gm_utf8_scan(text, length) : 0;
    return *size ? decode(text, *size) : 0;
}

static uint32_t last_of(const char *text, size_t length, size_t *size) {
    *size = 0;
    while (*size < length && *size < 4) {
        ++*size;
        if (((uint8_t)text[length - *size] & 0xC0) != 0x80) break;
    }
    return *size ? decode(text + length - *size, *size) : 0;
}

size_t rt_blank_at_start(const char *text, size_t length) {
    size_t size;
    return is_blank(first_of(text, length, &size)) ? size : 0;
}

size_t rt_blank_at_end(const char *text, size_t length) {
    size_t size;
    return is_blank(last_of(text, length, &size)) ? size : 0;
}

bool rt_word_at_start(const char *text, size_t length) {
    size_t size;
    return is_word(first_of(text, length, &size));
}

bool rt_word_at_end(const char *text, size_t length) {
    size_t size;
    return is_word(last_of(text, length, &size));
}
