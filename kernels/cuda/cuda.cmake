# The CUDA backend, where nvcc is installed: libmeed_cuda.so, opened by kernels/cuda_plugin.c when
# somebody asks for a CUDA device. Without nvcc, or with -DMEED_CUDA=OFF, nothing here happens.
#
# sm_80 is the baseline, sm_90a what Hopper adds; compute_90 lets newer GPUs compile for themselves.
# A warning of nvcc or ptxas is an error, and so is a spilled register (--warn-on-spills). What ptxas
# says of each kernel is kept in the build folder, ptxas/STEM.log, where a test reads it.
option(MEED_CUDA "build libmeed_cuda.so where nvcc is found" ON)
set(MEED_CUDA_ARCHITECTURES "80-real;90a-real;90-virtual" CACHE STRING "of libmeed_cuda.so")

# The plug-in takes these of base/ from the program that opens it.
set(exports)
foreach(name meed_fail meed_last_error meed_assert_failed meed_heap_alloc meed_heap_free)
  list(APPEND exports "LINKER:-u,${name}" "LINKER:--export-dynamic-symbol=${name}")
endforeach()
target_link_options(meed_kernels INTERFACE ${exports})
target_link_libraries(meed_kernels PRIVATE ${CMAKE_DL_LIBS})

if(MEED_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
endif()
if(NOT MEED_CUDA OR NOT CMAKE_CUDA_COMPILER)
  message(STATUS "CUDA backend: not built (nvcc not found or MEED_CUDA=OFF)")
  return()
endif()

set(CMAKE_CUDA_ARCHITECTURES ${MEED_CUDA_ARCHITECTURES})
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${MEED_CUDA_ARCHITECTURES}")

file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/ptxas)
add_library(meed_cuda MODULE ${cuda_sources})
set_target_properties(meed_cuda PROPERTIES
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
  CUDA_ARCHITECTURES "${MEED_CUDA_ARCHITECTURES}"
  CUDA_RUNTIME_LIBRARY Static
  CUDA_COMPILER_LAUNCHER "sh;${CMAKE_SOURCE_DIR}/cmake/ptxas_log.sh;${CMAKE_BINARY_DIR}/ptxas"
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
target_include_directories(meed_cuda PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_definitions(meed_cuda PRIVATE _GNU_SOURCE MEED_RELEASE="${PROJECT_VERSION}")
target_compile_options(meed_cuda PRIVATE
  -lineinfo -Xptxas -v,--warn-on-spills -Werror=all-warnings
  -Xcompiler=-Wall,-Wextra,-Wshadow,-Werror)
target_link_libraries(meed_cuda PRIVATE CUDA::cublasLt)
# A shared object may leave names open; ops.def must not.
add_custom_command(TARGET meed_cuda POST_BUILD
  COMMAND sh ${CMAKE_SOURCE_DIR}/cmake/check_plugin.sh ${CMAKE_NM} $<TARGET_FILE:meed_cuda>
  VERBATIM)
