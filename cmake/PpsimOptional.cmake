# What may or may not be on this machine. Nothing here is needed to build; what was found is told by
# `ppsim doctor`. PPSIM_CUDA=ON (the preset "cuda") makes the CUDA toolkit a must.
option(PPSIM_CUDA "Fail unless the CUDA toolkit is found" OFF)

find_package(CUDAToolkit QUIET)
if(PPSIM_CUDA AND NOT CUDAToolkit_FOUND)
  message(FATAL_ERROR "PPSIM_CUDA is ON but no CUDA toolkit was found: install it, or set "
                      "CUDAToolkit_ROOT to its folder")
endif()
find_package(MPI QUIET COMPONENTS C)

set(PPSIM_FOUND_CUDA "")
if(CUDAToolkit_FOUND)
  set(PPSIM_FOUND_CUDA "${CUDAToolkit_VERSION}")
endif()
set(PPSIM_FOUND_MPI "")
if(MPI_C_FOUND)
  set(PPSIM_FOUND_MPI "${MPI_C_VERSION}")
endif()
