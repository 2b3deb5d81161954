/* Nests that differ in names only share one kernel. Two texts are alike when they are equal after each name of a letter
   and a number is replaced by the place of its first use. Where several alike nests may run at once, the kernel has
   several slots: a set of parameters for each, one range behind the other, and a work-item picks the slot that its
   place in the range falls into. */
#include <stdlib.h>
#include <string.h>

#include "render_internal.h"

enum { MOST_SLOTS = 16, MOST_NUMBERS = 4096 };

static bool in_word(char c) {
  return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* m12, x3, m4w: a letter and a number, which names a value, an argument or a word */
static bool is_name(const char *s, size_t n) {
  if (n < 2 || is_digit(s[0]) || s[0] == '_') return false;
  if (n > 2 && s[n - 1] == 'w') n--;
  for (size_t i = 1; i < n; i++)
    if (!is_digit(s[i])) return false;
  return true;
}

/* The text with its names numbered in the order of their first use, letter by letter. NULL: no memory */
static char *canonical(const char *text) {
  uint16_t (*number)[MOST_NUMBERS] = calloc(128, sizeof *number);
  uint16_t used[128] = {0};
  render_text t = {0};
  if (!number) return NULL;
  for (const char *c = text; *c;) {
    size_t n = 0;
    while (in_word(c[n])) n++;
    const unsigned long id = n && is_name(c, n) ? strtoul(c + 1, NULL, 10) : MOST_NUMBERS;
    if (id < MOST_NUMBERS) {
      uint16_t *const at = &number[(unsigned char)c[0]][id];
      if (!*at) *at = ++used[(unsigned char)c[0]];
      render__put(&t, "%c$%u%s", c[0], *at, c[n - 1] == 'w' ? "w" : "");
    } else {
      if (!n)
        while (c[n] && !in_word(c[n])) n++;
      render__put(&t, "%.*s", (int)n, c);
    }
    c += n;
  }
  free(number);
  if (!t.failed) return t.s;
  free(t.s);
  return NULL;
}

bool render__share(render_code *codes, uint32_t *n_codes, const render_text *signature, render_text *text,
                   uint32_t form, uint32_t *which) {
  render_text whole = {0};
  render__put(&whole, "%s\n%s", signature->s ? signature->s : "", text->s ? text->s : "");
  char *canon = whole.failed || text->failed || signature->failed ? NULL : canonical(whole.s);
  free(whole.s);
  if (!canon) return false;
  for (*which = 0; *which < *n_codes; ++*which)
    if (codes[*which].form == form && !strcmp(codes[*which].canon, canon)) {
      codes[*which].n_units++;
      free(canon);
      return true;
    }
  codes[(*n_codes)++] = (render_code){.text = text->s, .canon = canon, .form = form, .n_units = 1, .slots = 1};
  *text = (render_text){0};
  return true;
}

void render__slots(render_code *c, uint32_t bytes_each, uint32_t bytes_shared, uint32_t max_bytes) {
  const uint32_t each = bytes_each + 8, room = max_bytes > bytes_shared ? (max_bytes - bytes_shared) / each : 0;
  const bool may = c->form == RK_MAP || c->form == RK_ROWS || c->form == RK_COLUMNS || c->form == RK_GROUP;
  c->slots = !may ? 1 : c->n_units < room ? c->n_units : room;
  if (c->slots > MOST_SLOTS) c->slots = MOST_SLOTS;
  if (!c->slots) c->slots = 1;
}

static const char *place(const render_code *c, const render_device *dev) {
  if (dev->task) return "0";
  return c->form == RK_GROUP || (c->form == RK_PASS && !dev->cpu_like) ? "GRP" : "TID";
}

/* Its local size, as render_bind gives it */
static uint32_t local_size(const render_code *c, const render_device *dev) {
  return dev->task || dev->cpu_like || c->form == RK_COLUMNS || c->form == RK_FOLD ? 1 : dev->group;
}

/* The parameter's name without its slot */
static void put_name(render_text *t, const render_param *p) {
  switch (p->what) {
  case RP_ARG: render__put(t, "A%u", p->id); break;
  case RP_ARG_OFFSET: render__put(t, "O%u", p->id); break;
  case RP_WS: render__put(t, "W"); break;
  case RP_SLOT_OFFSET: render__put(t, "S%u", p->id); break;
  case RP_PARTIAL_OFFSET: render__put(t, "T"); break;
  case RP_WORD: render__put(t, "w%u", p->id); break;
  case RP_PARAM: render__put(t, "z%u", p->id); break;
  case RP_CHUNK: render__put(t, "chunk"); break;
  default: render__put(t, "parts"); break;
  }
}

static void put_type(render_text *t, const render_unit *u, const tern_region *r, const render_param *p) {
  switch (p->what) {
  case RP_ARG:
  case RP_WS: render__put(t, "GLOBAL uchar *"); break;
  case RP_WORD: render__put(t, u->wide ? "const long " : "const int "); break;
  case RP_PARAM: render__put(t, "const %s ", render__ctype[r->values[p->id].dtype]); break;
  default: render__put(t, "const long "); break;
  }
}

void render__emit(const render_code *c, const render_unit *u, const tern_region *r, const render_device *dev,
                  render_text *t) {
  const char *comma = "";
  render__put(t, "KERNEL ");
  if (dev->task || dev->fixed_group)
    render__put(t, "__attribute__((reqd_work_group_size(%u, 1, 1))) ", local_size(c, dev));
  render__put(t, "void %s(", c->name);
  for (uint32_t s = 0; s < c->slots; s++)
    for (uint32_t i = 0; i < u->n_param; i++) {
      if (c->slots > 1 && (c->shared[i] ? s != 0 : false)) continue;
      render__put(t, "%s", comma);
      put_type(t, u, r, &u->param[i]);
      if (c->slots == 1 && u->param[i].what == RP_ARG && !render__is_aliased(r, u->param[i].id))
        render__put(t, "RESTRICT ");
      put_name(t, &u->param[i]);
      if (c->slots > 1 && !c->shared[i]) render__put(t, "_%u", s);
      comma = ", ";
    }
  for (uint32_t s = 1; s < c->slots; s++) render__put(t, ", const long first_%u", s);
  render__put(t, ") {\n");
  if (c->slots == 1) {
    render__put(t, "const long ITEM = (long)%s;\n%s}\n", place(c, dev), c->text);
    return;
  }
  render__put(t, "const long item = (long)%s;\nconst int slot = 0", place(c, dev));
  for (uint32_t s = 1; s < c->slots; s++) render__put(t, " + (item >= first_%u)", s);
  render__put(t, ";\nconst long ITEM = item - (");
  for (uint32_t s = c->slots; s-- > 1;) render__put(t, "slot == %u ? first_%u : ", s, s);
  render__put(t, "0);\n");
  for (uint32_t i = 0; i < u->n_param; i++) {
    if (c->shared[i]) continue;
    put_type(t, u, r, &u->param[i]);
    put_name(t, &u->param[i]);
    render__put(t, " = ");
    for (uint32_t s = c->slots; s-- > 1;) {
      render__put(t, "slot == %u ? ", s);
      put_name(t, &u->param[i]);
      render__put(t, "_%u : ", s);
    }
    put_name(t, &u->param[i]);
    render__put(t, "_0;\n");
  }
  render__put(t, "%s}\n", c->text);
}
