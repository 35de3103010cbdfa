# One static library per folder: ppsim_<folder>, from every .c file below it. Sources are found by
# globbing so that adding a schedule, layer or chart is one new file and one line in a table.

add_library(ppsim_options INTERFACE)
target_compile_features(ppsim_options INTERFACE c_std_11)
target_compile_definitions(ppsim_options INTERFACE _GNU_SOURCE)
target_include_directories(ppsim_options INTERFACE "${CMAKE_SOURCE_DIR}")
# -ffp-contract=off: the same arithmetic whatever the compiler fuses, so results repeat bit for bit.
target_compile_options(ppsim_options INTERFACE
  $<$<COMPILE_LANGUAGE:C>:-ffp-contract=off> $<$<COMPILE_LANGUAGE:C>:-fno-math-errno>)
if(PPSIM_STRICT)
  target_compile_options(ppsim_options INTERFACE
    "$<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wconversion;-Wshadow;-Werror>")
endif()
if(PPSIM_SANITIZE)
  target_compile_options(ppsim_options INTERFACE -fsanitize=${PPSIM_SANITIZE}
                         -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(ppsim_options INTERFACE -fsanitize=${PPSIM_SANITIZE})
endif()
if(PPSIM_COVERAGE)
  target_compile_options(ppsim_options INTERFACE --coverage)
  target_link_options(ppsim_options INTERFACE --coverage)
endif()

function(ppsim_folder folder)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${folder}/*.c")
  list(FILTER sources EXCLUDE REGEX "/executor/(cuda|nccl|mpi)/") # plugins, cmake/PpsimPlugins.cmake
  if(NOT sources)
    add_library(ppsim_${folder} INTERFACE)
    target_link_libraries(ppsim_${folder} INTERFACE ppsim_options ${arg_LINK})
    return()
  endif()
  add_library(ppsim_${folder} STATIC ${sources})
  if(folder STREQUAL core) # plugins bring its pure functions
    set_target_properties(ppsim_core PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endif()
  target_link_libraries(ppsim_${folder} PUBLIC ppsim_options ${arg_LINK})
endfunction()
