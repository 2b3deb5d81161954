# intercept_tls_get_addr=0: with it, gcc 12's leak checker crashes on the thread-local blocks of libraries that were
# loaded with dlopen (libgomp, OpenCL runtimes).
# tern_test: a ctest entry of a program, with the environment, time limit and launcher (emulator, valgrind) of them all.
set(TERN_TEST_TIMEOUT 120)
if(TERN_SANITIZE OR TERN_TEST_LAUNCHER OR CMAKE_CROSSCOMPILING OR CMAKE_BUILD_TYPE STREQUAL "Debug")
  set(TERN_TEST_TIMEOUT 600)
endif()
set(TERN_TEST_ENVIRONMENT "TERN_PLUGIN_PATH=${TERN_PLUGIN_OUTPUT_DIR}"
  "TERN_FALLBACK=error"
  "TERN_CACHE_DIR=${PROJECT_BINARY_DIR}/cache"
  "ASAN_OPTIONS=detect_leaks=1:intercept_tls_get_addr=0:detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1"
  "UBSAN_OPTIONS=print_stacktrace=1"
  "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/cmake/lsan.supp:print_suppressions=0"
  "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
if(CMAKE_CROSSCOMPILING_EMULATOR) # for the tests that start programs
  string(REPLACE ";" " " emulator "${CMAKE_CROSSCOMPILING_EMULATOR}")
  list(APPEND TERN_TEST_ENVIRONMENT "TERN_TEST_EMULATOR=${emulator}")
endif()

# tern_test(NAME PROGRAM DEVICE labels... [ARGUMENTS arguments...])
function(tern_test name program device)
  cmake_parse_arguments(PARSE_ARGV 3 test "" "" ARGUMENTS)
  add_test(NAME ${name} COMMAND ${CMAKE_CROSSCOMPILING_EMULATOR} ${TERN_TEST_LAUNCHER} $<TARGET_FILE:${program}>
    ${test_ARGUMENTS})
  set(limit ${TERN_TEST_TIMEOUT})
  if(device MATCHES "^opencl")
    math(EXPR limit "${TERN_TEST_TIMEOUT} * 5") # PoCL compiles each kernel once
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${limit} LABELS "${test_UNPARSED_ARGUMENTS}" SKIP_RETURN_CODE 77
    ENVIRONMENT "TERN_DEVICE=${device};${TERN_TEST_ENVIRONMENT}")
endfunction()

# tern_test_on(IMPLEMENTATION NAME PROGRAM labels... [ARGUMENTS arguments...] [ENVIRONMENT variables...]): the ctest entry
# IMPLEMENTATION/NAME of a program on one OpenCL implementation of tools/opencl-icds, labelled with its name too; skipped
# where that is not installed. Its first device is the program's; it has a cache folder of its own.
function(tern_test_on implementation name program)
  cmake_parse_arguments(PARSE_ARGV 3 test "" "" "ARGUMENTS;ENVIRONMENT")
  add_test(NAME ${implementation}/${name} COMMAND "${PROJECT_SOURCE_DIR}/tests/opencl/on" ${implementation}
    $<TARGET_FILE:${program}> ${test_ARGUMENTS})
  set(environment "${TERN_TEST_ENVIRONMENT}")
  list(TRANSFORM environment REPLACE "^TERN_CACHE_DIR=.*" "TERN_CACHE_DIR=${PROJECT_BINARY_DIR}/cache/${implementation}")
  math(EXPR limit "${TERN_TEST_TIMEOUT} * 5")
  set_tests_properties(${implementation}/${name} PROPERTIES TIMEOUT ${limit} SKIP_RETURN_CODE 77
    LABELS "opencl;${implementation};${test_UNPARSED_ARGUMENTS}" ENVIRONMENT "${environment};OCL_LAYER=${PROJECT_BINARY_DIR}/lib/ocl_layer.so;${test_ENVIRONMENT}")
endfunction()
