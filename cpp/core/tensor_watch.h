// Where tensors lie that torch owns and that anybody may exchange. The door to PyTorch makes a
// watch (cpp/aten/watch.cpp), the door to Python asks it before every step: a look through Python
// would cost more than the step of a small tensor.
#pragma once

#include <cstddef>

namespace cosmic {

class TensorWatch {
public:
  virtual ~TensorWatch() = default;
  // Whether tensors [first, first + count) of those that it was made of lie where they lay then,
  // with as many elements, in storages as large.
  virtual bool same(size_t first, size_t count) const = 0;
};

} // namespace cosmic
