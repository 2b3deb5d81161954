# Test programs on simulated devices (plugins/virtual) that refuse, so that what dispatch does then is tested on every
# machine: split/NAME on one that takes one node a kernel (every region runs as primitives, none on the host), float64/NAME
# on one without float64 (which runs on the host; the program prints how many primitives). Less than a second each.
# Left out is what counts launches or asks for the words of an index out of range. Not under valgrind or an emulator,
# where plugins.fallback runs.
set(split_suites dispatch.view_operands graph.control_draw graph.control_grad graph.function graph.mends graph.session
  graph.traced_ops nn.schedule ops.attention ops.composites ops.conv ops.einsum ops.loss ops.norm ops.pool
  ops.primitives ops.random ops.shape ops.variable tape.gradients_arrays tape.gradients_nn tape.tape)

# split_suites_add(NAME PROGRAM)
function(split_suites_add name program)
  if(NOT TARGET tern-virtual OR NOT name IN_LIST split_suites OR TERN_TEST_LAUNCHER OR CMAKE_CROSSCOMPILING)
    return()
  endif()
  set(split_mode error)
  set(split_device "parts:nodes=1")
  set(float64_mode silent)
  set(float64_device
    "parts:dtypes=bool|int8|int16|int32|int64|uint8|uint16|uint32|uint64|float16|bfloat16|float32")
  foreach(kind split float64)
    set(whole "${TERN_TEST_ENVIRONMENT}")
    list(TRANSFORM TERN_TEST_ENVIRONMENT REPLACE "^TERN_PLUGIN_PATH=.*" "\\0:${TERN_TEST_PLUGIN_DIR}")
    list(TRANSFORM TERN_TEST_ENVIRONMENT REPLACE "^TERN_FALLBACK=.*" "TERN_FALLBACK=${${kind}_mode}")
    list(APPEND TERN_TEST_ENVIRONMENT "TERN_VIRTUAL_DEVICES=${${kind}_device}")
    tern_test(${kind}/${name} ${program} virtual:parts unit)
    set(TERN_TEST_ENVIRONMENT "${whole}")
  endforeach()
endfunction()
