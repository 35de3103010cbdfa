# Writes every model and cluster that ppsim knows by name as a document: copies to start one's own
# from. Run as: cmake -DPPSIM=<program> -DOUT=<folder> -P export_presets.cmake
cmake_minimum_required(VERSION 3.25)

# The first words of the lines that `ppsim <kind>` prints.
function(preset_names kind result)
  execute_process(COMMAND "${PPSIM}" ${kind} OUTPUT_VARIABLE listing COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" lines "${listing}")
  list(TRANSFORM lines REPLACE " .*" "")
  set(${result} "${lines}" PARENT_SCOPE)
endfunction()

foreach(kind models clusters)
  file(MAKE_DIRECTORY "${OUT}/${kind}")
  preset_names(${kind} names)
  foreach(name ${names})
    if(name STREQUAL "local")
      continue() # depends on the machine that asks
    endif()
    string(REPLACE ":N" ":1" name "${name}")
    string(REPLACE ":" "-" file "${name}")
    execute_process(COMMAND "${PPSIM}" ${kind} show ${name}
                    OUTPUT_FILE "${OUT}/${kind}/${file}.json" COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
endforeach()
