/* Stable least-significant-digit radix sort (Knuth, TAOCP 3, 5.2.5) of keys with their positions; included once for
   each pair of types. Before: KEY, POS (unsigned types), NAME(x). */

/* Up to 32 keys: insertion */
static void NAME(insertion)(KEY *key, POS *pos, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    const KEY x = key[i];
    const POS at = pos ? pos[i] : 0;
    int64_t j = i;
    for (; j > 0 && key[j - 1] > x; j--) {
      key[j] = key[j - 1];
      if (pos) pos[j] = pos[j - 1];
    }
    key[j] = x;
    if (pos) pos[j] = at;
  }
}

/* One digit from (key, pos) to (key2, pos2); false when all keys share it and nothing moved */
static bool NAME(pass)(KEY *key, POS *pos, KEY *key2, POS *pos2, int64_t n, int shift, int bits, int64_t *count) {
  const KEY mask = (KEY)(((KEY)1 << bits) - 1);
  memset(count, 0, sizeof *count << bits);
  for (int64_t i = 0; i < n; i++) count[key[i] >> shift & mask]++;
  if (count[key[0] >> shift & mask] == n) return false;
  int64_t sum = 0;
  for (int64_t b = 0; b < (int64_t)1 << bits; b++) {
    const int64_t here = count[b];
    count[b] = sum;
    sum += here;
  }
  if (pos)
    for (int64_t i = 0; i < n; i++) {
      const int64_t to = count[key[i] >> shift & mask]++;
      key2[to] = key[i];
      pos2[to] = pos[i];
    }
  else
    for (int64_t i = 0; i < n; i++) key2[count[key[i] >> shift & mask]++] = key[i];
  return true;
}

/* Sort by the low `width` bits. pos may be NULL. Returns whether the result is in (key2, pos2) */
static bool NAME(radix)(KEY *key, POS *pos, KEY *key2, POS *pos2, int64_t n, int width) {
  int64_t count[1 << 11];
  if (n <= 32) {
    NAME(insertion)(key, pos, n);
    return false;
  }
  const int bits = n < 8192 || width <= 16 ? 8 : 11;
  bool other = false;
  for (int shift = 0; shift < width; shift += bits) {
    const int some = width - shift < bits ? width - shift : bits;
    other ^= other ? NAME(pass)(key2, pos2, key, pos, n, shift, some, count)
                   : NAME(pass)(key, pos, key2, pos2, n, shift, some, count);
  }
  return other;
}

/* One row through scratch: x[n] (bytes `step` apart) to sorted items (y) or their positions (y64). scratch: 2 n keys,
   then 2 n positions if y64 */
static void NAME(row)(const struct sort *s, const char *x, char *y, char *scratch) {
  KEY *key = (KEY *)(void *)scratch, *key2 = key + s->n;
  POS *pos = s->positions ? (POS *)(void *)(scratch + ((size_t)s->n * 2 * sizeof(KEY) + 7) / 8 * 8) : NULL,
      *pos2 = pos ? pos + s->n : NULL;
  bool special = false; /* a NaN or a -0 */
  for (int64_t i = 0; i < s->n; i++) {
    const uint64_t k = sort_key(s->dtype, x + i * s->in_step, pos != NULL, &special);
    key[i] = (KEY)(s->descending ? ~k & s->mask : k);
  }
  if (pos)
    for (int64_t i = 0; i < s->n; i++) pos[i] = (POS)i;
  const bool other = NAME(radix)(key, pos, key2, pos2, s->n, s->width);
  if (pos) {
    const POS *const from = other ? pos2 : pos;
    for (int64_t i = 0; i < s->n; i++) *(int64_t *)(void *)(y + i * s->out_step) = (int64_t)from[i];
    return;
  }
  const KEY *const from = other ? key2 : key;
  for (int64_t i = 0; i < s->n; i++)
    sort_item(s->dtype, y + i * s->out_step, s->descending ? ~(uint64_t)from[i] & s->mask : from[i]);
  if (special) sort_restore(s, x, y);
}
#undef KEY
#undef POS
#undef NAME
