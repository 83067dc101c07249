// A matrix as it lies in memory.
#pragma once

#include <cstdint>

namespace cosmic {

template <class T> struct MatrixViewOf {
  const T *data = nullptr;
  int64_t row_step = 0, column_step = 0; // in elements

  MatrixViewOf transposed() const { return {data, column_step, row_step}; }
  const T *at(int64_t row, int64_t column) const {
    return data + row * row_step + column * column_step;
  }
};

using MatrixView = MatrixViewOf<float>;

} // namespace cosmic
