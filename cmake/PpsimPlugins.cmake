# Plugins (executor/plugin.h): shared objects beside the program that need what a machine may lack.
# A plugin hides all symbols but one and brings core's pure functions (tables of layers, say) with
# it; memory, log and clock are the host's.

function(ppsim_plugin name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_library(ppsim_plugin_${name} MODULE ${arg_SOURCES})
  set_target_properties(ppsim_plugin_${name} PROPERTIES
    OUTPUT_NAME ppsim_${name} LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/cli"
    C_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON
    INSTALL_RPATH "$ORIGIN")
  target_link_libraries(ppsim_plugin_${name} PRIVATE ppsim_options ppsim_core ${arg_LINK})
  target_link_options(ppsim_plugin_${name} PRIVATE "LINKER:--exclude-libs,ALL" "LINKER:-z,defs")
  install(TARGETS ppsim_plugin_${name} LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}/ppsim")
endfunction()

# Ops are compositions of kernels; here they are compiled for the kernels of a device. The tests link
# them with kernels on the host.
set(compositions add attention bert_block bert_embedding cross_entropy dropout embedding gelu gpt_block
    layer_norm linear llama_block lm_head mlm_head relu rms_lm_head rms_norm token_embedding)
list(TRANSFORM compositions PREPEND "${CMAKE_SOURCE_DIR}/executor/layers/")
list(TRANSFORM compositions APPEND ".c")
add_library(ppsim_cuda_layers STATIC ${compositions} "${CMAKE_SOURCE_DIR}/executor/cuda/cuda_kernels.c"
            "${CMAKE_SOURCE_DIR}/executor/cuda/cuda_layers.c" "${CMAKE_SOURCE_DIR}/executor/cuda/cuda_memory.c"
            "${CMAKE_SOURCE_DIR}/executor/cuda/cuda_linear.c" "${CMAKE_SOURCE_DIR}/executor/cuda/cuda_choice.c"
            "${CMAKE_SOURCE_DIR}/executor/cuda/attention_graph.c" "${CMAKE_SOURCE_DIR}/executor/cuda/cudnn_attention.c"
            "${CMAKE_SOURCE_DIR}/executor/cuda/cudnn_graph.c" "${CMAKE_SOURCE_DIR}/executor/cuda/cudnn_library.c"
            "${CMAKE_SOURCE_DIR}/executor/layers/mask.c")
target_compile_definitions(ppsim_cuda_layers PRIVATE PP_DEVICE_PASSES)
target_link_libraries(ppsim_cuda_layers PUBLIC ppsim_core ${CMAKE_DL_LIBS} Threads::Threads)
set_target_properties(ppsim_cuda_layers PROPERTIES POSITION_INDEPENDENT_CODE ON)

# sm_80 (A100) and sm_90a (H100, H200), and PTX of the older for whatever comes.
if(CUDAToolkit_FOUND)
  if(NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER "${CUDAToolkit_NVCC_EXECUTABLE}")
  endif()
  set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
  enable_language(CUDA)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/executor/cuda/*.c"
       "${CMAKE_SOURCE_DIR}/executor/cuda/*.cu")
  list(FILTER sources EXCLUDE REGEX "cuda_(kernels|layers|memory|linear|choice)\\.c$|attention_graph|cudnn_(attention|graph|library)")
  ppsim_plugin(cuda SOURCES ${sources} LINK ppsim_cuda_layers CUDA::cudart CUDA::cublas CUDA::cublasLt)
endif()

# Device memory between devices (executor/carrier.h). It opens NCCL when it is asked to.
set(nccl "${CMAKE_SOURCE_DIR}/executor/nccl")
ppsim_plugin(nccl SOURCES "${nccl}/nccl_plugin.c" "${nccl}/nccl_carrier.c" LINK ${CMAKE_DL_LIBS} Threads::Threads)

# The wire between processes (executor/wire.h).
if(MPI_C_FOUND)
  ppsim_plugin(mpi SOURCES "${CMAKE_SOURCE_DIR}/executor/mpi/mpi_wire.c" LINK MPI::MPI_C)
endif()
