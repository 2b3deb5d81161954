# Which test programs run on which OpenCL implementation of tools/opencl-icds, beside the whole suite on the machine's
# first device (PoCL, where ./dev test installed what it needs). docs/gpu.md has the counts, and what is left out.
# TERN_OPENCL_ALL=ON (./dev test --full) runs Intel's slices whole.
option(TERN_OPENCL_ALL "Run the OpenCL tests on Intel's CPU runtime whole" OFF)

# Intel's CPU runtime: everything. It compiles a kernel in 50 to 100 ms, so the programs that make the most kernels (700
# to 1,700) run a slice.
set(intel_slices ops.primitives=6 ops.public=6 dispatch.view_operands=5 backends.common.render=4)

# What compiles on the FPGA emulator (embedded profile), small; the binary-only tests are fpga/tools.bundle and the like
set(fpga_programs ops.conv graph.function graph.evicted dispatch.memory dispatch.threads dispatch.hooks
  backends.opencl.opencl)
set(fpga_examples hello inspect session)

# rusticl: 0.4 ms a launch, and no float64. The programs of the second list need that: its ops run on the host there
# (TERN_FALLBACK=silent; the program prints how many), everything else on the device.
set(rusticl_programs dispatch.memory dispatch.threads graph.evicted graph.fusion graph.labels graph.layout
  backends.opencl.opencl backends.opencl.opencl_build backends.opencl.opencl_bundle backends.opencl.opencl_devices
  backends.opencl.opencl_errors backends.opencl.opencl_fused backends.opencl.opencl_ops)
set(rusticl_host_float64 dispatch.hooks dispatch.view_operands graph.control graph.function graph.mends graph.pooling
  graph.random_graphs graph.replays graph.session nn.schedule ops.along ops.attention ops.bad_input ops.composites
  ops.conv ops.einsum ops.loss ops.norm ops.pool ops.primitives ops.products ops.public ops.random ops.scatter ops.shape ops.variable
  tape.gradients tape.gradients_arrays tape.gradients_nn tape.tape)
list(APPEND rusticl_programs ${rusticl_host_float64})
set(rusticl_slices dispatch.view_operands=10 ops.primitives=10 ops.public=40)
set(rusticl_examples hello inspect session linear_training nearest_class)

# oclgrind interprets, on one thread: what is small. Its data-race detector watches every access.
set(oclgrind_programs ops.einsum ops.primitives ops.variable dispatch.view_operands graph.fusion nn.schedule
  backends.opencl.opencl_bundle backends.opencl.opencl_errors)
set(oclgrind_slices dispatch.view_operands=100 ops.primitives=100)
set(oclgrind_examples hello inspect session)
# under its search for values that nobody wrote, which wants kernels that are not optimised
set(oclgrind-unwritten_programs ops.primitives dispatch.view_operands graph.fusion nn.schedule)
set(oclgrind-unwritten_slices dispatch.view_operands=100 ops.primitives=100)
set(oclgrind-unwritten_examples hello inspect session)

if(opencl_suites)
  foreach(implementation fpga rusticl oclgrind oclgrind-unwritten)
    foreach(name ${${implementation}_examples})
      tern_test_on(${implementation} example.${name} example_${name} example)
    endforeach()
  endforeach()
endif()

# The conformance kit: a slice on rusticl, and on oclgrind (races, bounds) some of each kernel that is not a map, whose
# devices --device shows
if(opencl_suites AND TARGET tern-check)
  tern_test_on(rusticl check tern-check check ARGUMENTS --quick --slice 8 --min-claimed 450 $<TARGET_FILE:tern-opencl>)
  # name=primitive=slice=least number of cases
  foreach(kind gather=GATHER=3=10 scatter=SCATTER=3=10 sort=SORT=6=2 scan=CUMSUM=8=3 reduce=SUM=10=8 dot=DOT=10=6
      conv=CONV=8=6)
    string(REPLACE "=" ";" kind ${kind})
    list(GET kind 0 name)
    list(GET kind 1 filter)
    list(GET kind 2 slice)
    list(GET kind 3 least)
    foreach(implementation oclgrind oclgrind-unwritten)
      tern_test_on(${implementation} check.${name} tern-check check ARGUMENTS --device 0 --quick --slice ${slice}
        --min-claimed ${least} --filter ${filter} $<TARGET_FILE:tern-opencl>)
    endforeach()
  endforeach()
  # that both searches find something
  add_executable(opencl_faulty opencl/faulty.c)
  target_link_libraries(opencl_faulty PRIVATE tern_flags OpenCL::OpenCL)
  tern_test_on(oclgrind control opencl_faulty control ARGUMENTS race)
  tern_test_on(oclgrind-unwritten control opencl_faulty control ARGUMENTS unwritten)
  set_tests_properties(oclgrind/control oclgrind-unwritten/control PROPERTIES WILL_FAIL TRUE)
endif()

# opencl_suites_add(NAME PROGRAM labels... [ARGUMENTS ...] [ENVIRONMENT ...])
function(opencl_suites_add name program)
  cmake_parse_arguments(PARSE_ARGV 2 test "" "" "ARGUMENTS;ENVIRONMENT")
  if(NOT opencl_suites)
    return()
  endif()
  if(name STREQUAL "backends.opencl.opencl_platforms") # needs several devices
    tern_test_on(all ${name} ${program} ${test_UNPARSED_ARGUMENTS})
    return()
  endif()
  foreach(implementation intel fpga rusticl oclgrind oclgrind-unwritten)
    if(implementation STREQUAL "intel" OR name IN_LIST ${implementation}_programs)
      set(environment "${test_ENVIRONMENT}")
      foreach(slice ${${implementation}_slices})
        if(slice MATCHES "^${name}=(.*)" AND NOT (implementation STREQUAL "intel" AND TERN_OPENCL_ALL))
          list(APPEND environment "TERN_TEST_SLICE=${CMAKE_MATCH_1}")
        endif()
      endforeach()
      if(implementation STREQUAL "rusticl" AND name IN_LIST rusticl_host_float64)
        list(APPEND environment "TERN_FALLBACK=silent")
      endif()
      tern_test_on(${implementation} ${name} ${program} ${test_UNPARSED_ARGUMENTS} ARGUMENTS ${test_ARGUMENTS}
        ENVIRONMENT ${environment})
    endif()
  endforeach()
endfunction()
