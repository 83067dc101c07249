# The core: kernels, and the plan that reaches them. No torch, no Python.

set(COSMIC_KERNELS_LIBRARY "" CACHE FILEPATH "A build of cpp/kernels to use; made here if empty")
if(COSMIC_KERNELS_LIBRARY)
  add_library(cosmic_kernels SHARED IMPORTED)
  set_target_properties(cosmic_kernels PROPERTIES IMPORTED_LOCATION "${COSMIC_KERNELS_LIBRARY}"
                                                  IMPORTED_NO_SONAME OFF)
  if(WIN32) # what is linked with lies beside what is loaded
    string(REGEX REPLACE "dll$" "lib" COSMIC_KERNELS_IMPORTS "${COSMIC_KERNELS_LIBRARY}")
    set_target_properties(cosmic_kernels PROPERTIES IMPORTED_IMPLIB "${COSMIC_KERNELS_IMPORTS}")
  endif()
else()
  add_subdirectory(${CMAKE_CURRENT_LIST_DIR}/kernels kernels)
endif()

if(COSMIC_OPENMP)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
endif()
add_library(
  cosmic_core STATIC
  ${CMAKE_CURRENT_LIST_DIR}/budget/knapsack.cpp
  ${CMAKE_CURRENT_LIST_DIR}/core/overlap.cpp
  ${CMAKE_CURRENT_LIST_DIR}/core/sha256.cpp
  ${CMAKE_CURRENT_LIST_DIR}/core/strided.cpp
  ${CMAKE_CURRENT_LIST_DIR}/exact/elements.cpp
  ${CMAKE_CURRENT_LIST_DIR}/exact/row_norms.cpp
  ${CMAKE_CURRENT_LIST_DIR}/exact/rows.cpp
  ${CMAKE_CURRENT_LIST_DIR}/exact/column_sums.cpp
  ${CMAKE_CURRENT_LIST_DIR}/exact/embedding.cpp
  ${CMAKE_CURRENT_LIST_DIR}/gates/calibrated_agar.cpp
  ${CMAKE_CURRENT_LIST_DIR}/gates/tiger_literal.cpp
  ${CMAKE_CURRENT_LIST_DIR}/isa/dispatch.cpp
  ${CMAKE_CURRENT_LIST_DIR}/matmul/batched.cpp
  ${CMAKE_CURRENT_LIST_DIR}/matmul/exact_product.cpp
  ${CMAKE_CURRENT_LIST_DIR}/matmul/exact_sum.cpp
  ${CMAKE_CURRENT_LIST_DIR}/matmul/newton_schulz.cpp
  ${CMAKE_CURRENT_LIST_DIR}/matmul/orthogonalize.cpp
  ${CMAKE_CURRENT_LIST_DIR}/matmul/panels.cpp
  ${CMAKE_CURRENT_LIST_DIR}/matmul/product.cpp
  ${CMAKE_CURRENT_LIST_DIR}/matmul/product_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/parts/checks.cpp
  ${CMAKE_CURRENT_LIST_DIR}/parts/registry.cpp
  ${CMAKE_CURRENT_LIST_DIR}/parts/rule.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/bind.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/by_row.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/coefficients.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/combinations.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/density.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/direction.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/exchange.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/gating.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/hyperparameters.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/layout.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/matrix.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/matrix_step.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/pack.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/plan.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/probe_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/quantize.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/reduction.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/self_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/transfer.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/whole_rows.cpp
  ${CMAKE_CURRENT_LIST_DIR}/plan/work.cpp
  ${CMAKE_CURRENT_LIST_DIR}/reference/layers.cpp
  ${CMAKE_CURRENT_LIST_DIR}/reference/reference_training.cpp
  ${CMAKE_CURRENT_LIST_DIR}/wire/wire.cpp)
target_include_directories(cosmic_core PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_compile_options(cosmic_core PRIVATE ${COSMIC_OPTIONS} ${COSMIC_WARNINGS})
# loops over a matrix's rows and columns, which take lanes
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/plan/matrix.cpp
                            ${CMAKE_CURRENT_LIST_DIR}/matmul/panels.cpp
                            PROPERTIES COMPILE_OPTIONS "${COSMIC_FASTEST}")
# what touches no element in a step: for size
foreach(
  source
  core/overlap core/sha256 gates/calibrated_agar gates/tiger_literal matmul/product_test
  parts/checks parts/registry plan/bind plan/combinations plan/density plan/direction plan/gating
  plan/hyperparameters plan/layout plan/pack plan/probe_test plan/quantize plan/self_test
  plan/transfer reference/layers reference/reference_training)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/${source}.cpp
                              PROPERTIES COMPILE_OPTIONS "${COSMIC_SMALLEST}")
endforeach()
target_link_libraries(cosmic_core PUBLIC cosmic_kernels)
if(COSMIC_OPENMP AND APPLE)
  # torch's own runtime, which is in the process before this is loaded: a second one must not come
  target_compile_options(cosmic_core PUBLIC ${OpenMP_CXX_FLAGS})
  target_include_directories(cosmic_core SYSTEM PUBLIC ${OpenMP_CXX_INCLUDE_DIRS})
  target_link_options(cosmic_core PUBLIC -undefined dynamic_lookup)
elseif(COSMIC_OPENMP)
  target_link_libraries(cosmic_core PUBLIC OpenMP::OpenMP_CXX)
endif()
# the kernels lie beside both doors
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH $<IF:$<BOOL:${APPLE}>,@loader_path,$ORIGIN>)
