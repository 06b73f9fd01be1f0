# SPDX-License-Identifier: MIT
#
# The programs of the I/O benchmarks, which bench/io/run starts, go to bench-io/ of the build:
#
#   bench/io/magpie_<what>.c   ours
#   bench/io/load/<name>.c     load generators
#   bench/io/peers/<name>.c    the same by hand and on other libraries, if these are installed
#
# Peers in Go and Python are compiled and started by the script.

pkg_check_modules(libuv IMPORTED_TARGET GLOBAL libuv>=1.40)

# Whether what a program of ours includes is there: a header, and for the parts that are
# files of their own also the source.
function(bench_io_can_build source result)
  set(${result} TRUE PARENT_SCOPE)
  file(STRINGS ${source} includes REGEX "^#include <magpie/.*>")
  foreach(line IN LISTS includes)
    string(REGEX REPLACE "#include <magpie/(.*)\\.h>.*" "\\1" part ${line})
    if(NOT EXISTS ${PROJECT_SOURCE_DIR}/include/magpie/${part}.h
        OR part MATCHES "tls" AND NOT TARGET magpie_tls
        OR part MATCHES "http" AND NOT TARGET magpie_http
        OR part MATCHES "tls|http" AND NOT EXISTS ${PROJECT_SOURCE_DIR}/io/${part}.c)
      set(${result} FALSE PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

# add_bench_io(source libs...)
function(add_bench_io source)
  cmake_path(GET source STEM name)
  set(target bench-io-${name})
  add_executable(${target} ${source})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name}
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench-io)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE=)
  target_compile_options(${target} PRIVATE ${warnings})
  target_link_libraries(${target} PRIVATE Threads::Threads ${ARGN})
endfunction()

file(GLOB bench_io_ours CONFIGURE_DEPENDS bench/io/magpie_*.c)
foreach(source IN LISTS bench_io_ours)
  bench_io_can_build(${source} can_build)
  if(can_build)
    add_bench_io(${source} ${all_static_libs})
  endif()
endforeach()

file(GLOB bench_io_others CONFIGURE_DEPENDS bench/io/load/*.c bench/io/peers/*.c)
foreach(source IN LISTS bench_io_others)
  set(libs)
  set(missing)
  # library (a target), the header by which it is known
  foreach(pair liburing/liburing.h libuv/uv.h libcurl/curl/curl.h openssl/openssl/ssl.h)
    string(REGEX MATCH "^([^/]*)/(.*)$" matched ${pair})
    set(lib ${CMAKE_MATCH_1})
    file(STRINGS ${source} needs REGEX "^#include <${CMAKE_MATCH_2}>")
    if(needs AND lib STREQUAL "openssl" AND OPENSSL_FOUND)
      list(APPEND libs OpenSSL::SSL OpenSSL::Crypto)
    elseif(needs AND TARGET PkgConfig::${lib})
      list(APPEND libs PkgConfig::${lib})
    elseif(needs)
      list(APPEND missing ${lib})
    endif()
  endforeach()
  if(NOT missing)
    add_bench_io(${source} ${libs})
  endif()
endforeach()

# The libuv peer parses HTTP as our server does, by llhttp.
if(TARGET bench-io-uv_server AND llhttp_include AND llhttp_source)
  if(NOT TARGET llhttp)
    add_library(llhttp OBJECT ${llhttp_source}/api.c ${llhttp_source}/http.c ${llhttp_source}/llhttp.c)
    target_include_directories(llhttp SYSTEM PUBLIC ${llhttp_include})
  endif()
  target_sources(bench-io-uv_server PRIVATE $<TARGET_OBJECTS:llhttp>)
  target_include_directories(bench-io-uv_server SYSTEM PRIVATE ${llhttp_include})
  target_compile_definitions(bench-io-uv_server PRIVATE BENCH_HAS_LLHTTP=1)
endif()
