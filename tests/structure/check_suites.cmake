# Every Criterion suite counts the live bytes of our allocator at its end, or leaks would pass
# (tests/live_bytes.h). Run as: cmake -DROOT=<repository> -P check_suites.cmake
cmake_minimum_required(VERSION 3.25)

set(errors "")
file(GLOB files "${ROOT}/tests/*/test_*.c")
foreach(file ${files})
  file(RELATIVE_PATH shown "${ROOT}" "${file}")
  file(STRINGS "${file}" counted REGEX "^COUNTED_SUITE\\(")
  list(TRANSFORM counted REPLACE "^COUNTED_SUITE\\(([a-z0-9_]+).*" "\\1")
  file(STRINGS "${file}" tests REGEX "^ *(Parameterized)?Test\\(")
  list(TRANSFORM tests REPLACE "^ *[A-Za-z]+\\((struct [a-z_]+ \\*[a-z_]+, )?([a-z0-9_]+).*" "\\2")
  list(REMOVE_DUPLICATES tests)
  foreach(suite ${tests})
    if(NOT suite IN_LIST counted)
      list(APPEND errors "${shown}: no COUNTED_SUITE(${suite})")
    endif()
  endforeach()
endforeach()

if(errors)
  list(JOIN errors "\n  " text)
  message(FATAL_ERROR "suites that do not count leaks:\n  ${text}")
endif()
