/* Verification: sound graphs pass (test_text.c has hundreds), and each rule, broken once, is named. */
#include "graph_ir/samples.h"
#include "device/device.h"
#include "graph/ir/text.h"
#include "ops/table.h"
#include "ops/update.h"
#include "ops/write.h"
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

/* The graph that mutations start from: node 5 is an op, and so on as the names say. */
static const char text[] = "tern.graph 1 \"g\" {\n"
                           "%x = input f32[2, 3] #0\n"                /* node 0 */
                           "%c = const f32[3] {1, 2, 3}\n"            /* 1 */
                           "%w = variable \"w\" f32[3] {4, 5, 6}\n"   /* 2 */
                           "%h = scalar weak f64 0.5\n"               /* 3 */
                           "%r = source \"rate\" : weak f64\n"        /* 4 */
                           "%y = add %x, %c : f32[2, 3]\n"            /* 5 */
                           "%s = sum %y {1, 0, 0, 0} : f32[3]\n"      /* 6 */
                           "%p = permute %y {1, 0} : f32[3, 2]\n"     /* 7 */
                           "%l = slice %p {0, 1, 1, 0, 1} : f32[2]\n" /* 8 */
                           "%e = expand %l : f32[4, 2]\n"             /* 9 */
                           "%f = reshape %e : f32[8]\n"               /* 10 */
                           "%b = less %s, %h : bool[3]\n"             /* 11 */
                           "%o = any %b {1, 0, 0, 0} : bool[]\n"      /* 12 */
                           "%d = cond %o, %s, %w : f32[3] then {\n"   /* 13 */
                           "  %a = input f32[3] #0\n %b = input f32[3] #1\n return %a }\n"
                           "else { %a = input f32[3] #0\n %b = input f32[3] #1\n return %b }\n"
                           "%u = while %d, %c {9} : f32[3] condition {\n" /* 14 */
                           "  %a = input f32[3] #0\n %b = input f32[3] #1\n"
                           "  %l = less %a, %b : bool[3]\n %o = all %l {1, 0, 0, 0} : bool[]\n return %o }\n"
                           "do { %a = input f32[3] #0\n %b = input f32[3] #1\n %n = add %a, %b : f32[3]\n return %n }\n"
                           "print %u {1}\n"                    /* 15 */
                           "%q = clip %u, none, %h : f32[3]\n" /* 16 */
                           "assign %w = %q\n"
                           "return %f, %u, none }\n";

typedef tern__graph graph;
static graph *g; /* of the mutation that runs */

static tern__ir_value *value(const char *name) {
  for (uint32_t v = 0; v < g->n_values; v++)
    if (g->value[v].name && !strcmp(g->value[v].name, name)) return &g->value[v];
  return NULL;
}
static tern__ir_node *node(const char *name) { return &g->node[value(name)->node]; }
static uint32_t number(const char *name) { return (uint32_t)(value(name) - g->value); }

static tern__device other_device; /* a place that is not the default one */

static void swap_nodes(const char *a, const char *b) {
  tern__ir_node *m = node(a), *n = node(b), t = *m;
  *m = *n;
  *n = t;
  value(a)->node = (uint32_t)(n - g->node);
  value(b)->node = (uint32_t)(m - g->node);
}

/* ---- one mutation a rule ---- */
static void order(void) { swap_nodes("s", "y"); }
static void self(void) { node("y")->in[0] = number("y"); }
static void no_value(void) { node("y")->in[0] = 999; }
static void dead_operand(void) { node("c")->kind = TERN__IR_DEAD; }
static void left_out(void) { node("y")->in[1] = TERN__IR_NONE; }
static void left_out_control(void) { node("d")->in[1] = TERN__IR_NONE; }
static void two_definitions(void) { value("y")->node = 3; }
static void output_range(void) { node("q")->first_out = g->n_values; }
static void no_dtype(void) { value("x")->dtype = 0; }
static void high_rank(void) { value("x")->rank = 9; }
static void negative(void) { value("x")->shape[0] = -1; }
static void weak_op(void) { value("y")->weak = true; }
static void weak_shape(void) { value("h")->dtype = TERN_F32; }
static void no_device(void) { value("x")->device = NULL; }
static void kind(void) { node("x")->kind = 77; }
static void pinned(void) { node("h")->pinned = true; }
static void a_body(void) { node("y")->body[0] = tern__graph_new("b"); }
static void operand_count(void) { node("y")->n_in = 1; }
static void attribute_count(void) { node("s")->n_attr = 3; }
static void attribute_range(void) { node("s")->attr[0].u = 8; }
static void attribute_dtype(void) { node("s")->attr[2].i = 99; }
static void dtype_of_op(void) { value("y")->dtype = TERN_F64; }
static void shape_of_op(void) { value("s")->shape[0] = 4; }
static void refused(void) { value("c")->shape[0] = 2, node("c")->tensor->shape[0] = 2, node("c")->tensor->numel = 2; }
static void composite(void) { node("y")->op = tern__op_find("concat"); }
static void no_op(void) { node("y")->op = NULL; }
static void node_device(void) { node("y")->device = NULL; }
static void out_device(void) { value("y")->device = &other_device; }
static void in_device(void) {
  value("y")->device = &other_device;
  node("y")->device = &other_device;
}
static void input_number(void) { node("x")->attr[0].u = 1; }
static void input_list(void) { g->input[0] = number("y"); }
static void input_twice(void) { tern__graph_add_input(g, number("x")); }
static void const_tensor(void) { tern_release(node("c")->tensor), node("c")->tensor = NULL; }
static void const_shape(void) { value("c")->dtype = TERN_I32; }
static void const_variable(void) {
  tern_release(node("c")->tensor);
  node("c")->tensor = tern__ref(node("w")->tensor);
}
static void const_device(void) { value("c")->device = &other_device; }
static void scalar_strong(void) {
  value("h")->weak = false;
  value("h")->device = value("x")->device;
}
static void scalar_count(void) { node("h")->n_attr = 0; }
static void source_missing(void) { node("r")->source = NULL; }
static void source_strong(void) {
  value("r")->weak = false;
  value("r")->device = value("x")->device;
}
static void print_count(void) { g->node[15].n_in = 0; }
static void variable_missing(void) { g->n_variables = 0; }
static void variable_node(void) { g->variable[0].node = 0; }
static void variable_value(void) { g->variable[0].value = 999; }
static void variable_type(void) { g->variable[0].value = number("f"); }
static void variable_twice(void) { add_variable(g, node("w")->tensor); }
static void result(void) { g->output[0] = 999; }
static void permute_twice(void) { node("p")->attr[1].i = 1; }
static void permute_size(void) { value("p")->shape[0] = 2; }
static void permute_count(void) { node("p")->n_attr = 1; }
static void slice_range(void) { node("l")->attr[1].i = 3; }
static void slice_last(void) { node("l")->attr[4].i = 2; }
static void slice_count(void) { node("l")->n_attr = 4; }
static void expand(void) { value("e")->shape[1] = 3; }
static void reshape(void) { value("f")->shape[0] = 7; }
static void view_dtype(void) { value("f")->dtype = TERN_I32; }
static void view_attributes(void) { node("f")->attr = node("p")->attr, node("f")->n_attr = 1; }
static void view_operands(void) { node("f")->n_in = 0; }
static void view_of_weak(void) { node("e")->in[0] = number("h"), value("h")->dtype = TERN_F64; }
static void body_missing(void) { tern__graph_free(node("d")->body[1]), node("d")->body[1] = NULL; }
static void body_inputs(void) { node("d")->body[0]->n_inputs = 1, node("d")->body[0]->node[1].kind = TERN__IR_DEAD; }
static void body_input_type(void) { node("d")->body[0]->value[1].shape[0] = 2; }
static void body_input_device(void) { node("d")->body[0]->value[1].device = &other_device; }
static void body_outputs(void) { node("d")->body[0]->n_outputs = 0; }
static void body_output_none(void) { node("d")->body[0]->output[0] = TERN__IR_NONE; }
static void body_output_type(void) { value("d")->shape[0] = 4; }
static void body_itself(void) { node("u")->body[1]->value[2].dtype = TERN_F64; }
static void predicate(void) { node("d")->in[0] = number("b"); }
static void trips(void) { node("u")->attr[0].i = -1; }
static void states(void) { node("u")->n_in = 0; }
static void state_type(void) { value("u")->shape[0] = 4; }
static void condition_results(void) { node("u")->body[0]->n_outputs = 0; }
static void condition_type(void) { node("u")->body[0]->output[0] = 2; }

static const struct {
  void (*mutate)(void);
  const char *error;
} mutations[] = {
    {order, "which does not come before"},
    {self, "which does not come before"},
    {no_value, "operand 1 is value 999 of"},
    {dead_operand, "operand 2 is value 1, which no node makes"},
    {left_out, "operand 2 is left out, which is not allowed"},
    {left_out_control, "operand 2 is left out, which is not allowed"},
    {two_definitions, "each value has one definition"},
    {output_range, "its values end at"},
    {no_dtype, "output 0 has no dtype"},
    {high_rank, "output 0 has rank 9"},
    {negative, "has the negative size -1"},
    {weak_op, "output 0 is weak; only scalars"},
    {weak_shape, "is weak, and so of rank 0, f64"},
    {no_device, "output 0 has no device"},
    {kind, "77 is no kind of node"},
    {pinned, "it is pinned to no device"},
    {a_body, "it has a body"},
    {operand_count, "it has 1 operands; expected 2"},
    {attribute_count, "it has 3 attributes, which are too few"},
    {attribute_range, "attribute 0 is 8; expected a mask of the operand's axes"},
    {attribute_dtype, "attribute 2 is 99; expected a dtype or 0"},
    {dtype_of_op, "output 0 is f64(2, 3); inference gives f32(2, 3)"},
    {shape_of_op, "output 0 is f32(4,); inference gives f32(3,)"},
    {refused, "add: the shapes of"},
    {composite, "concat consists of other ops and is no node"},
    {no_op, "it has no op"},
    {node_device, "an op has a device"},
    {out_device, "output 0 lies on other:0"},
    {in_device, "it runs on other:0, operand 1 lies on cpu:0: a `to` is missing"},
    {input_number, "it says that it is input 1"},
    {input_list, "it says that it is input 0, which it is not"},
    {input_twice, "input 1 says that it is number 0"},
    {const_tensor, "its tensor is missing, dead or a host scalar"},
    {const_shape, "its tensor is f32(3,), its value i32(3,)"},
    {const_variable, "its tensor is a variable"},
    {const_device, "its tensor is on cpu:0, its value on other:0"},
    {scalar_strong, "the value of a scalar is weak"},
    {scalar_count, "it has 0 operands, 0 attributes, 1 outputs; expected 0, 1, 1"},
    {source_missing, "it has no source"},
    {source_strong, "the values of a source are weak"},
    {print_count, "node 15 (print"},
    {variable_missing, "the graph's list of variables has it 0 times"},
    {variable_node, "its variable has another node too"},
    {variable_value, "the new value of variable 0 is value 999"},
    {variable_type, "variable 0 (\"w\") is f32(3,) and is assigned f32(8,)"},
    {variable_twice, "its variable has another node too"},
    {result, "result 0 is value 999"},
    {permute_twice, "axis 1 is named twice or does not exist"},
    {permute_size, "axis 0 has not the size of the operand's axis 1"},
    {permute_count, "it has 1 axes for rank 2"},
    {slice_range, "lie outside of axis 0 of size 3"},
    {slice_last, "lie outside of axis 1 of size 2"},
    {slice_count, "expected the dropped axis or -1"},
    {expand, "the operand does not broadcast to the result"},
    {reshape, "operand and result differ in number of elements"},
    {view_dtype, "operand and result differ in dtype"},
    {view_attributes, "it has 1 attributes; expected 0"},
    {view_operands, "it has 0 operands and 1 outputs; expected 1 and 1"},
    {view_of_weak, "operand and result differ in dtype"},
    {body_missing, "body 1 is missing"},
    {body_inputs, "body 0 takes 1 inputs and gets 2"},
    {body_input_type, "input 1 of body 0 is f32(2,); it gets f32(3,)"},
    {body_input_device, "input 1 of body 0 lies on other:0"},
    {body_outputs, "body 0 gives 0 results; expected 1"},
    {body_output_none, "result 0 of body 0 is left out"},
    {body_output_type, "expected f32(4,)"},
    {body_itself, "graph \"do\", node 2 (add, value 2): output 0 is f64(3,)"},
    {predicate, "the predicate is bool(3,); expected one BOOL"},
    {trips, "the most trips are -1"},
    {states, "it has 0 states and 1 outputs"},
    {state_type, "state 0 changes dtype or shape"},
    {condition_results, "the condition gives 0 results; expected one"},
    {condition_type, "the condition's result is bool(3,); expected one BOOL"},
};

static void test_mutations(void) {
  strcpy(other_device.name, "other:0");
  for (size_t i = 0; i < sizeof mutations / sizeof *mutations; i++) {
    g = parse(text);
    if (!CHECK(g && tern__graph_verify(g, "reading") == TERN_OK, "%s", tern_error())) return;
    mutations[i].mutate();
    CHECK(tern__graph_verify(g, "a mutation") == TERN_E_INTERNAL, "not found: %s", mutations[i].error);
    CHECK(strstr(tern_error(), "verify after a mutation: graph \""), "%s", tern_error());
    CHECK_ERROR(TERN_E_INTERNAL, mutations[i].error);
    if (mutations[i].mutate != const_device && mutations[i].mutate != out_device) {
      char *shown = tern__graph_text(g, 0), *dot = tern__graph_dot(g); /* broken graphs can be looked at */
      CHECK(shown && dot, "%s: %s", mutations[i].error, tern_error());
      tern_error_clear();
      free(shown);
      free(dot);
    }
    if (mutations[i].mutate == refused) node("c")->tensor->shape[0] = node("c")->tensor->numel = 3;
    tern__graph_free(g);
  }
}

/* ---- calls that infer functions do not expect ---- */

static const struct {
  const char *line, *error; /* NULL: sound */
} calls[] = {
    {"%y = matmul %v, %x : f32[2]", "operand 1 has rank 1; expected 2 to 8"},
    {"%y = matmul %x, %v : f32[2]", "operand 2 has rank 1"},
    {"%y = matmul %x, %x : f32[2, 2]", "matmul: (2, 3) and (2, 3) do not fit"},
    {"%y = softmax %x {2} : f32[2, 3]", "attribute 0 is 2; expected an axis of the operand"},
    {"%y = softmax %x {1} : f32[2, 3]", NULL},
    {"%y = softmax %x {-1} : f32[2, 3]", "expected an axis"},
    {"%y = gelu %x : f32[2, 3]", NULL},
    {"%y = gelu %x {1} : f32[2, 3]", NULL},
    {"%y = gelu %x {1, 2} : f32[2, 3]", "it has 2 attributes; expected 1"},
    {"%y = cast %x {0} : f32[2, 3]", "attribute 0 is 0; expected a dtype"},
    {"%y = cast %x {5} : i64[2, 3]", NULL},
    {"%y = full {2, 2, 3, 12, 1.5} : f32[2, 3]", NULL},
    {"%y = full {9, 2, 3, 12, 1.5} : f32[2, 3]", "expected a rank and that many sizes"},
    {"%y = full {2, 2, -3, 12, 1.5} : f32[2, 3]", "expected a size"},
    {"%y = full {4, 2} : f32[2, 3]", "expected a rank"},
    {"%y = arange {2, 2, 3, 12, 0, 1} : f32[2, 3]", "its shape has not rank 1"},
    {"%y = eye {1, 2, 12, 0} : f32[2]", "its shape has not rank 2"},
    {"%y = take %x, %i : f32[1]", "operand 1 has rank 2; expected 3 to 3"},
    {"%y = take %z, %v : f32[1, 3, 1]", "operand 2 is no vector of integers"},
    {"%y = take %z, %i : f32[1, 2, 4]", NULL},
    {"%y = one_hot %i {4, 12} : f32[2]", "the operand's last axis is not 1"},
    {"%y = triu %v {0} : f32[3]", "operand 1 has rank 1; expected 2 to 8"},
    {"%y = cumsum %v {1, 0} : f32[3]", "expected an axis"},
    {"%y = sort %v {0} : f32[3]", NULL},
    {"%y = conv %z, %z {0, 0, 1, 1, 0, 0, 0, 0, 2, 0} : f32[1, 3, 4]", "attribute 1 is 0; expected at least 1"},
    {"%y = conv %z, %z {2, 1, 1, 1, 0, 0, 0, 0, 2, 0} : f32[1, 3, 4]", "expected a layout"},
    {"%y = max_pool %z {0, 0, 2, 0, 1, 0, 1, 0} : f32[1, 2, 4]", NULL},
    {"%y = max_pool %z {0, 0, 4, 0, 1, 0, 1, 0} : f32[1, 0, 4]", "the window is longer than axis 1"},
    {"%y = max_pool %z {0, 0, 2, 0, 0, 0, 1, 0} : f32[1, 2, 4]", "expected at least 1"},
    {"%y = random_uniform {1, 3, 1, 0, 12, 0.0, 1.0} : f32[3]", NULL},
    {"%y = random_uniform {1, 3, 1, 0, 12, 0.0, 0x7ff8000000000000} : f32[3]", "expected a finite float"},
    {"%y = random_uniform {1, 3, 1, 0, 3, 0.0, 1.0} : i16[3]", "expected a float dtype"},
    {"%y = random_bits %a {1, 3, 1, 0, 9, 0, 0} : u64[3]", "it has 1 operand; expected none or 2"},
    {"%y = empty {12, 2, 2, 3} : f32[2, 3]", NULL},
    {"%y = empty {12, 3, 2, 3} : f32[2, 3]", "expected a rank"},
    {"%y = write %x, %v {0, 1, 3, 1} : f32[2, 3]", NULL},
    {"%y = write %x, %v {5, 1, 3, -2} : f32[2, 3]", NULL},
    {"%y = write %x, %v {4, 1, 3, -2} : f32[2, 3]", NULL},
    {"%y = write %x, %v {3, 1, 3, -2} : f32[2, 3]", "the part lies outside of the whole"},
    {"%y = write %x, %v {4, 1, 3, 1} : f32[2, 3]", "the part lies outside of the whole"},
    {"%y = write %x, %v {0, 1, 2, 1} : f32[2, 3]", "the source does not broadcast to the part"},
    {"%y = write %x, %z {0, 1, 2, 1} : f32[2, 3]", "the source does not broadcast to the part"},
    {"%y = write %x, %h {0, 1, 2, 1} : f32[2, 3]", NULL},
    {"%y = write %x, %v {0, 9, 2, 1} : f32[2, 3]", "offset, rank, sizes, strides"},
    {"%y = scatter %z, %i, %v {1, 0} : f32[1, 3, 4]", "expected operands of ranks 3, 1 and 3"},
    {"%y = layer_norm %x, none, none {2, 1e-5, 0} : f32[2, 3]", NULL},
    {"%y = layer_norm %x, %v, %v, %v {2, 1e-5, 0} : f32[2, 3]", "it has 4 operands"},
    {"%y = add %x, %x, %x : f32[2, 3]", "it has 3 operands; expected 2"},
    {"%y, %t = add %x, %x : f32[2, 3], f32[2, 3]", "it has 2 results; expected 1"},
    {"%y, %t = sgd_update %v, %v, %v, %a, %a {1} : f32[3], f32[3]", NULL},
    {"%y = sgd_update %v, %v, %a {0} : f32[3]", NULL},
    {"%y = sgd_update %v, %x, %a {0} : f32[3]", "operand 2 has not the variable's shape and dtype"},
    {"%y = sgd_update %v, %v, %v, %a {0} : f32[3]", "it has 1 results; with these operands expected 2"},
    {"%y = sgd_update %v, %v, %a {0, 0, 0, 0, 0, 0, 0, 0, 0} : f32[3]", "it has 9 attributes; expected 1 to 8"},
    {"%y = sgd_update %a, %v : f32[3]", "it has 0 attributes"},
    {"%y = to %x : f32[2, 3]", NULL},
    {"%y = to %x : f32[3, 2]", "operand and result differ in shape"},
    {"%y = embed %x : f32[2, 3]", "embed consists of other ops"},
    {"%y = slice %x {0, 0, 1, 0, 1} : f32[3]", NULL},
    {"%y = slice %x {-1, 1, -1, 2, -2} : f32[2, 2]", NULL},
    {"%y = slice %x {-1, 1, 0, 0, 1} : f32[1, 3]", "lie outside"},
    {"%y = slice %x {5, 1, 0, 0, 1} : f32[3]", "expected the dropped axis"},
    {"%y = reshape %h : f32[1]", "differ in dtype"},
    {"%y = reshape %x : f32[3, 1, 2]", NULL},
};

static void test_calls(void) {
  char whole[1024];
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    snprintf(whole, sizeof whole,
             "tern.graph 1 {\n%%x = input f32[2, 3] #0\n%%v = input f32[3] #1\n%%i = input i64[2] #2\n"
             "%%z = input f32[1, 3, 4] #3\n%%h = scalar weak i64 3\n%%a = scalar weak f64 0.5\n%s\n}",
             calls[i].line);
    g = parse(whole);
    if (!CHECK(g, "%s: %s", calls[i].line, tern_error())) return;
    const tern_rc rc = tern__graph_verify(g, "reading");
    CHECK((rc == TERN_OK) == !calls[i].error, "%s: %s", calls[i].line, tern_error());
    if (rc) CHECK_ERROR(TERN_E_INTERNAL, calls[i].error ? calls[i].error : "");
    tern_error_clear();
    tern__graph_free(g);
  }
}

/* Sizes that vary are large numbers, whose products wrap. */
static void test_large_sizes(void) {
  g = parse("tern.graph 1 {\n%x = input f32[1099511627791, 1099511627803, 3] #0\n"
            "%r = reshape %x : f32[3, 1099511627803, 1099511627791]\n"
            "%s = sum %x {1, 0, 0, 0} : f32[1099511627803, 3]\n"
            "%m = matmul %s, %x : f32[1099511627791, 1099511627803, 3]\n}");
  CHECK(g, "%s", tern_error());
  if (!g) return;
  CHECK(tern__graph_verify(g, "reading") == TERN_E_INTERNAL, "the product does not fit");
  CHECK_ERROR(TERN_E_INTERNAL, "node 3 (matmul");
  node("m")->kind = TERN__IR_DEAD;
  CHECK(tern__graph_verify(g, "reading") == TERN_OK, "%s", tern_error());
  value("r")->shape[2] -= 2;
  CHECK(tern__graph_verify(g, "reading") == TERN_E_INTERNAL, "another number of elements");
  CHECK_ERROR(TERN_E_INTERNAL, "differ in number of elements");
  tern__graph_free(g);
}

/* ---- what the library itself calls: the samples of all ops, in all their dtypes, seen as a tape sees them ---- */

static struct { int ops, views; } seen;

static bool see_op(struct tern__thread *t, const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr,
                   int n_attr, tern_tensor *const *out, int n_out) {
  char why[256] = "";
  const tern__call c = {.op = op, .in = in, .n_in = n_in, .attr = attr, .n_attr = n_attr};
  (void)t;
  (void)out;
  if (!op->infer) return true;
  seen.ops++;
  CHECK(tern__call_is_sound(&c, n_out, why), "%s: %s", op->name, why);
  return true;
}

static bool see_view(struct tern__thread *t, tern__view_kind kind, tern_tensor *from, const tern_word *attr, int n_attr,
                     tern_tensor *view) {
  static const tern__op *const ops[] = {&tern__op_reshape, &tern__op_permute, &tern__op_slice, &tern__op_expand};
  char why[256] = "";
  const tern__call c = {.op = ops[kind], .in = &from, .n_in = 1, .attr = attr, .n_attr = n_attr};
  (void)t;
  seen.views++;
  CHECK(tern__view_is_sound(&c, view->rank, view->shape, why), "%s: %s", ops[kind]->name, why);
  return true;
}

static void test_samples(void) {
  const tern__listener before = tern__tape_listener;
  tern__thread *t = tern__thread_get();
  int called = 0, unsound = 0;
  for (int i = 1; tern__op_at(i); i++) {
    const tern__op *op = tern__op_at(i);
    for (int d = 1; d < TERN_DTYPE_END; d++) {
      if (!(op->dtypes >> d & 1) || !op->sample) continue;
      TERN_SCOPE;
      const tern__sample s = {op, (tern_dtype)d, tern_ones(TERN_SHAPE(2, 3), (tern_dtype)d),
                              tern_ones(TERN_SHAPE(2, 3), (tern_dtype)d)};
      const int ops_before = seen.ops + seen.views;
      tern__tape_listener.op = see_op;
      tern__tape_listener.view = see_view;
      t->hooks |= TERN__HOOK_TAPE;
      tern_tensor *y = op->sample(&s);
      t->hooks &= ~(uint32_t)TERN__HOOK_TAPE;
      tern__tape_listener = before;
      called += y != NULL;
      unsound += seen.ops + seen.views == ops_before;
      tern_error_clear();
    }
  }
  CHECK(called > 500 && seen.ops > 500 && seen.views > 30 && unsound < 100, "%d calls, %d ops, %d views, %d unseen",
        called, seen.ops, seen.views, unsound);
}

static const test_case cases[] = {
    {"mutations", test_mutations}, {"calls", test_calls}, {"large sizes", test_large_sizes}, {"samples", test_samples}};
TEST_MAIN("graph verification", cases)
