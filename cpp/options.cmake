# What every library of the project is compiled with.

set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# Parts of somebody's own (parts/list.h).
set(COSMIC_MORE_PARTS "" CACHE PATH "A folder with more_parts.h and what it includes")
if(COSMIC_MORE_PARTS)
  add_compile_definitions(COSMIC_HAS_MORE_PARTS)
  include_directories("${COSMIC_MORE_PARTS}")
endif()

option(COSMIC_WERROR "Treat compiler warnings as errors" OFF)
option(COSMIC_OPENMP "Step with several threads" ON)
set(COSMIC_SANITIZE "" CACHE STRING "Sanitizers to build with, such as address,undefined")

# The same bits everywhere: no contraction to fused multiply-add, no fast-math. Errno and traps of
# the C library do not change a value and are switched off so that square roots stay inline.
set(COSMIC_OPTIONS -O2 -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-strict-aliasing)
set(COSMIC_FASTEST -O3)
set(COSMIC_SMALLEST -Os)
set(COSMIC_WARNINGS -Wall -Wextra -Wno-psabi)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND COSMIC_WARNINGS -Wno-ignored-attributes)
endif()
if(COSMIC_WERROR)
  list(APPEND COSMIC_WARNINGS -Werror)
endif()
if(COSMIC_SANITIZE)
  # -O1: little of what is undefined is optimized away before it is looked for, and it compiles soon
  list(TRANSFORM COSMIC_OPTIONS REPLACE "^-O2$" "-O1")
  set(COSMIC_FASTEST -O1)
  set(COSMIC_SMALLEST -O1)
  add_compile_options(-fsanitize=${COSMIC_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${COSMIC_SANITIZE})
endif()
