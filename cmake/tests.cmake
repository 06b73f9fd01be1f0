# SPDX-License-Identifier: MIT
#
# Every test is found by its place:
#
#   tests/unit/<name>.c        a Criterion program     unit.<name>
#   tests/asyncio/<name>.c     a Criterion program     asyncio.<name>
#   tests/stress/<name>.c      a plain main()          stress.<name>    exit 0, 1, or 77 for skipped
#   tests/torture/<name>.c     a plain main()          torture.<name>
#   tests/<name>/run.py|sh     a script                <name>           with the source directory and
#                              the build directory as arguments, and CC and CXX in the environment
#
# tests/support/*.c is linked into all programs.  All four kinds run a second time,
# as epoll.<kind>.<name>, with MAGPIE_BACKEND=epoll.

# A machine with other work may keep a task from its next suspension for 100 ms.  That the watchdog
# then says so is right, and no matter of tests that look at what a program says; those that are
# about it ask for it (.slow_ns, or without this).
set(no_slow_reports "MAGPIE_SLOW_MS=0")

file(GLOB support_sources CONFIGURE_DEPENDS tests/support/*.c)

# The same program once more, on the back-end for where io_uring is refused.
function(add_epoll_test kind name)
  add_test(NAME epoll.${kind}.${name} COMMAND test-${kind}-${name})
  set_tests_properties(epoll.${kind}.${name} PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77
    LABELS epoll ENVIRONMENT "MAGPIE_BACKEND=epoll;${no_slow_reports}")
  if(kind STREQUAL "stress")
    set_tests_properties(epoll.${kind}.${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

function(add_test_program kind source)
  cmake_path(GET source STEM name)
  file(STRINGS ${source} needs REGEX "^#include [<\"]([a-z_/]*(tls|http)[a-z_]*\\.h|openssl/.*|curl/.*)[>\"]")
  if(needs AND NOT TARGET magpie_tls OR needs MATCHES "http|curl" AND NOT TARGET magpie_http)
    message(STATUS "${kind}.${name} is left out: it needs libssl-dev, libcurl4-openssl-dev, node-llhttp")
    return()
  endif()
  set(target test-${kind}-${name})
  add_executable(${target} ${source} ${support_sources})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
    ${PROJECT_BINARY_DIR}/tests/${kind} OUTPUT_NAME ${name}
    # A test may do on purpose what the compiler warns of.
    COMPILE_WARNING_AS_ERROR OFF)
  target_include_directories(${target} PRIVATE runtime io tests/support)
  target_compile_definitions(${target} PRIVATE ${library_definitions})
  target_compile_options(${target} PRIVATE ${warnings})
  target_link_libraries(${target} PRIVATE ${all_static_libs} magpie_sanitize ${private_libs} ${ARGN})
  if(needs)
    target_link_libraries(${target} PRIVATE OpenSSL::SSL OpenSSL::Crypto)
  endif()
  if(needs MATCHES "http|curl")
    target_link_libraries(${target} PRIVATE PkgConfig::libcurl)
    target_include_directories(${target} SYSTEM PRIVATE ${llhttp_include})
  endif()
  add_test(NAME ${kind}.${name} COMMAND ${target})
  set_tests_properties(${kind}.${name} PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS ${kind}
    ENVIRONMENT "${no_slow_reports}")
  if(kind STREQUAL "stress")
    set_tests_properties(${kind}.${name} PROPERTIES RUN_SERIAL ON)
  endif()
  if(MAGPIE_SANITIZE STREQUAL "none" AND MAGPIE_CONTEXT STREQUAL "auto")
    add_epoll_test(${kind} ${name})
  endif()
endfunction()

# Criterion's runner starts threads that ThreadSanitizer does not see through.
if(NOT MAGPIE_SANITIZE STREQUAL "thread")
  pkg_check_modules(criterion REQUIRED IMPORTED_TARGET criterion)
  foreach(kind unit asyncio)
    file(GLOB sources CONFIGURE_DEPENDS tests/${kind}/*.c)
    foreach(source IN LISTS sources)
      add_test_program(${kind} ${source} PkgConfig::criterion)
    endforeach()
  endforeach()
endif()

foreach(kind stress torture)
  file(GLOB sources CONFIGURE_DEPENDS tests/${kind}/*.c)
  foreach(source IN LISTS sources)
    add_test_program(${kind} ${source})
  endforeach()
endforeach()

function(add_test_script name)
  file(GLOB script CONFIGURE_DEPENDS tests/${name}/run.py tests/${name}/run.sh)
  if(NOT script)
    return()
  endif()
  add_test(NAME ${name} COMMAND ${script} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77
    ENVIRONMENT "CC=${CMAKE_C_COMPILER};${no_slow_reports}")
endfunction()

add_test_script(examples)

# What these look at is the same in every build, so one build runs them.
if(MAGPIE_SANITIZE STREQUAL "none" AND MAGPIE_CONTEXT STREQUAL "auto")
  foreach(name tidy model install mistakes treesum readme bench servers soak tls fetch httpd fuzz)
    add_test_script(${name})
  endforeach()
endif()
