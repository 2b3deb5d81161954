/* The text of a safetensors header: what cJSON would let pass, and what would make it allocate much, is refused before
   it sees it. */
#include "io/safetensors.h"

int tern__utf8_length(const unsigned char *s, size_t left) {
  if (left == 0) return 0;
  if (s[0] < 0x80) return 1;
  const int n = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
                : s[0] >= 0xe0 && s[0] <= 0xef ? 3
                : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                               : 0;
  if (n == 0 || (size_t)n > left) return 0;
  for (int i = 1; i < n; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90)) return 0; /* longer than need be */
  if ((s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f)) return 0; /* surrogates, beyond U+10FFFF */
  return n;
}

/* Walks over the string that opens at *at; leaves *at behind its closing quote. NULL, or what is wrong at *at. */
static const char *scan_string(const unsigned char *s, size_t size, size_t *at) {
  for ((*at)++; *at < size;) {
    if (s[*at] == '"') {
      (*at)++;
      return NULL;
    }
    if (s[*at] < 0x20) return "a control character in a string";
    if (s[*at] == '\\') {
      if (size - *at > 5 && !memcmp(s + *at + 1, "u0000", 5)) return "a NUL character in a string";
      *at += 2; /* cJSON checks which escapes there are */
      continue;
    }
    const int n = tern__utf8_length(s + *at, size - *at);
    if (n == 0) return "text that is not UTF-8";
    *at += (size_t)n;
  }
  return "the end within a string";
}

const char *tern__safetensors_scan(const char *text, size_t size, size_t *at) {
  const unsigned char *s = (const unsigned char *)text;
  int depth = 0, commas = 0;
  char kind[3];
  for (*at = 0; *at < size;) {
    const unsigned char c = s[*at];
    if (c == '"') {
      const char *problem = scan_string(s, size, at);
      if (problem) return problem;
      continue;
    }
    if (c == '{' || c == '[') {
      if (depth == 3) return "more than three levels";
      if (depth && kind[depth - 1] == '[') return "a list within which something opens";
      kind[depth++] = (char)c;
      commas = 0;
    } else if (c == '}' || c == ']') {
      if (depth == 0 || kind[--depth] != (c == '}' ? '{' : '[')) return "a bracket that closes nothing";
    } else if (c == ',') {
      if (depth && kind[depth - 1] == '[' && ++commas == TERN_MAX_RANK) return "a list of more than 8";
    } else if (c >= '0' && c <= '9') {
      if (c == '0' && *at + 1 < size && s[*at + 1] >= '0' && s[*at + 1] <= '9' &&
          !(*at && s[*at - 1] >= '0' && s[*at - 1] <= '9'))
        return "a number with a leading zero";
    } else if (c != ':' && c != ' ' && c != '\n' && c != '\r' && c != '\t') {
      return "a character that belongs in no header (numbers must be whole and not negative)";
    }
    (*at)++;
  }
  return NULL;
}
