/* Nests over arrays much larger than the caches. Computing on a block leaves the memory idle, and the processor's own
   prefetching stops where a block ends: so each block of an input fetches the next one, or in a row every pass a share
   of the next row. Results go to a register and from there past the cache, which spares reading the lines that they
   overwrite; values that an output would hold from pass to pass stay in the thread's scratch memory instead. */
#include "exec.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
  FETCH_FROM = 4 << 20,   /* bytes touched from which on inputs are fetched ahead */
  BYPASS_FROM = 32 << 20, /* and outputs bypass the cache */
  LONGEST_ROW = 64 << 10, /* bytes up to which the next row is fetched */
  MAP_WIDTH = 224,        /* lanes of a block */
  MAP_LEAD = 3,           /* so many blocks later is what a block fetches */
  ROW_WIDTH = 256,        /* lanes of a block where a row is fetched meanwhile */
  LINE = 64
};

void x_stream_ahead(const char *p, int64_t bytes, int64_t part, int64_t parts) {
  const uintptr_t first = (uintptr_t)p / LINE, n = (uintptr_t)(bytes + LINE - 1) / LINE;
  uintptr_t lo = 0, hi = n;
  if (parts > 1) { /* divisions take as long as fetching */
    lo = n * (uintptr_t)part / (uintptr_t)parts;
    hi = n * (uintptr_t)(part + 1) / (uintptr_t)parts;
  }
  for (uintptr_t i = first + lo; i < first + hi; i++) __builtin_prefetch((const void *)(i * LINE));
}

void x_stream_out(char *dst, const char *src, int64_t bytes) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 64 <= bytes; i += 64) _mm512_stream_si512((void *)(dst + i), _mm512_loadu_si512((const void *)(src + i)));
#elif defined(__AVX2__)
  for (; i + 32 <= bytes; i += 32) _mm256_stream_si256((void *)(dst + i), _mm256_loadu_si256((const void *)(src + i)));
#elif defined(__x86_64__)
  for (; i + 16 <= bytes; i += 16) _mm_stream_si128((void *)(dst + i), _mm_loadu_si128((const void *)(src + i)));
#endif
  for (; i < bytes; i++) dst[i] = src[i];
}

void x_stream_end(void) {
#if defined(__x86_64__)
  _mm_sfence(); /* before another thread is told that it is done */
#endif
}

/* Bytes of memory that the stream touches */
static int64_t extent(const r_nest *r, uint32_t s) {
  int64_t bytes = r->x->stream[s].item;
  for (uint32_t d = 0; d < r->rank; d++)
    if (r->stream[s].stride[d]) bytes *= r->size[d];
  return bytes;
}

static bool is_read(const r_nest *r, uint32_t s) {
  return r->x->stream[s].kind == S_MEM && r->x->stream[s].loaded && !r->stream[s].local;
}

/* Stores that go past the caches */
#if defined(__x86_64__)
enum { CAN_BYPASS = 1 };
#else
enum { CAN_BYPASS = 0 };
#endif

/* Is the memory of stream s read in this nest too, in place or by a later pass? */
static bool read_too(const r_nest *r, uint32_t s) {
  for (uint32_t i = 0; i < r->x->n_stream; i++)
    if (is_read(r, i) && r->stream[i].base == r->stream[s].base) return true;
  return false;
}

static bool aligned(const r_nest *r, uint32_t s) {
  int64_t all = r->stream[s].base;
  if (r->chunk < r->lanes) all |= r->chunk * r->stream[s].lane;
  if (r->width < r->chunk) all |= r->width * r->stream[s].lane;
  for (uint32_t d = 0; d < r->n_outer; d++) all |= r->stream[s].outer[d];
  for (uint32_t d = 0; d < r->n_red; d++) all |= r->stream[s].red[d];
  return all % LINE == 0;
}

/* Rows whose kept values lie in an output keep them in scratch memory */
static void keep_local(r_nest *r) {
  const int64_t dense = r->row_elems;
  if (r->mapping != M_ROW || r->n_red || dense * 8 > LONGEST_ROW) return;
  for (uint32_t s = 0; s < r->x->n_stream; s++) {
    const x_stream *const xs = &r->x->stream[s];
    r_stream *const st = &r->stream[s];
    if (!xs->kept || st->local || st->lane != xs->item) continue;
    const int64_t memory = st->base;
    for (uint32_t i = s; i < r->x->n_stream; i++) {
      if (!r->x->stream[i].kept || r->x->stream[i].item != xs->item || r->stream[i].base != memory) continue;
      r->stream[i].local = true;
      r->stream[i].base = (int64_t)r->scratch_bytes;
      for (uint32_t d = 0; d < r->n_outer; d++) r->stream[i].outer[d] = 0;
    }
    r->scratch_bytes += (size_t)((dense * xs->item + LINE - 1) / LINE * LINE);
  }
}

/* "Point the result at memory, compute it" becomes "compute it, move it to memory" */
static void bypass(r_nest *r, r_list *l) {
  for (uint32_t i = 0; CAN_BYPASS && i + 1 < l->n; i++) {
    r_inst *const to = &l->inst[i], *const make = &l->inst[i + 1];
    if (to->kind != I_POINT || r->x->stream[to->stream].loaded || r->x->stream[to->stream].kept ||
        (make->kind != I_MAP && make->kind != I_SUPER) || make->out != to->out || make->off != X_NONE || make->row)
      continue;
    const uint32_t s = (uint32_t)to->stream;
    if (extent(r, s) < BYPASS_FROM / 4 || read_too(r, s) || !aligned(r, s)) continue;
    const r_inst store = *to;
    *to = *make;
    to->off = (int64_t)r->reg_bytes;
    r->reg_bytes += (size_t)(r->width * r->x->item_max);
    *make = store;
    make->kind = I_STREAM;
    make->a = store.out;
    r->streams = true;
  }
}

static bool is_fetched(const r_nest *r, const r_inst *in) {
  return in->kind == I_POINT && !in->row && !in->one && in->lane == in->item && is_read(r, (uint32_t)in->stream) &&
         extent(r, (uint32_t)in->stream) >= FETCH_FROM;
}

/* The passes that read the memory of stream s: how many, and how many of them come before `pass` */
static uint8_t readers(const r_nest *r, uint32_t s, uint32_t pass, uint8_t *before) {
  uint8_t n = 0;
  *before = 0;
  for (uint32_t p = 0; p < r->x->nest->n_pass; p++) {
    bool reads = false;
    for (uint32_t i = 0; i < r->pass[p].n; i++) {
      const r_inst *const in = &r->pass[p].inst[i];
      reads |= is_fetched(r, in) && r->stream[in->stream].base == r->stream[s].base;
    }
    n += reads;
    *before += reads && p < pass;
  }
  return n;
}

/* A block of a map: its instructions fetch a share of a later block each, so that computing hides the memory. False:
   arrays of other items than four bytes, or too many */
static bool fetch_between(r_nest *r, r_list *l) {
  const int64_t lines = r->width * 4 / LINE;
  int64_t works = 0, n = 0;
  l->n_fetched = 0;
  for (uint32_t i = 0; i < l->n; i++) works += l->inst[i].kind == I_MAP || l->inst[i].kind == I_SUPER;
  for (uint32_t i = 0; i < l->n; i++) {
    const r_inst *const in = &l->inst[i];
    if (!is_fetched(r, in)) continue;
    if (in->item != 4 || l->n_fetched == X_FETCHED) {
      l->n_fetched = 0;
      return false;
    }
    l->fetched[l->n_fetched++] = in->out;
  }
  l->fetch_ahead = MAP_LEAD * r->width * 4;
  for (uint32_t i = 0; i < l->n && l->n_fetched; i++) {
    r_inst *const in = &l->inst[i];
    if (in->kind != I_MAP && in->kind != I_SUPER) continue;
    in->from = (uint8_t)(lines * n / works);
    in->to = (uint8_t)(lines * ++n / works);
  }
  return works > 0;
}

/* Rows that are walked and lie almost one behind the other: what is so many lanes later is about so far ahead */
static void fetch_walked(const r_nest *r, r_list *l) {
  for (uint32_t i = 0; i < l->n; i++) {
    r_inst *const in = &l->inst[i];
    if (in->kind != I_GATHER || !in->walk || !is_read(r, (uint32_t)in->stream)) continue;
    const uint32_t last = r->flat[r->n_flat - 1], before = r->flat[r->n_flat - 2];
    const int64_t *const stride = r->stream[in->stream].stride, run = r->size[last] * in->item;
    if (stride[last] == in->item && stride[before] > 0 && stride[before] <= 2 * run &&
        extent(r, (uint32_t)in->stream) >= FETCH_FROM)
      in->ahead = MAP_LEAD * r->width * in->item;
  }
}

static void fetch(r_nest *r, uint32_t pass) {
  const bool rows = r->mapping == M_ROW && r->n_outer && r->n_red == 0 && r->row_elems * 8 <= LONGEST_ROW;
  r_list *const l = &r->pass[pass];
  if (!rows && pass == 0 && !l->bare && fetch_between(r, l)) return;
  for (uint32_t i = 0; i < l->n; i++) {
    r_inst *const in = &l->inst[i];
    if (!is_fetched(r, in)) continue;
    in->part = 0;
    in->parts = 1;
    if (rows)
      in->parts = readers(r, (uint32_t)in->stream, pass, &in->part);
    else if (pass > 0 || l->bare)
      continue;
    in->ahead = rows ? r->stream[in->stream].outer[r->n_outer - 1] : MAP_LEAD * r->width * in->item;
  }
}

void x_stream_plan(r_nest *r) {
  int64_t bytes = 0;
  r->streams = false;
  if (r->mapping == M_COL || r->n_tiled || r->split) return;
  for (uint32_t s = 0; s < r->x->n_stream; s++)
    if (r->x->stream[s].kind == S_MEM) bytes += extent(r, s);
  if (bytes < FETCH_FROM) return;
  const int64_t most = r->mapping == M_ROW ? ROW_WIDTH : r->mapping == M_FLAT ? x_flat_width(r, MAP_WIDTH) : MAP_WIDTH;
  if (r->width > most) r->width = most;
  if (bytes >= BYPASS_FROM) keep_local(r);
  for (uint32_t p = 0; p < r->x->nest->n_pass; p++) {
    fetch(r, p);
    if (r->mapping == M_FLAT) fetch_walked(r, &r->pass[p]);
    if (bytes >= BYPASS_FROM) bypass(r, &r->pass[p]);
  }
}
