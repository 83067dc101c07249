// Hyper-parameters out of a torch parameter group, checked, and read again only when they changed.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "parts/group.h"

namespace cosmic {

class GroupReader {
public:
  // Reads the group's dict. Throws Error that names the entry if a value is out of range.
  void read(const pybind11::dict &group, int index, Group &out);

private:
  std::vector<pybind11::object> seen_; // the values of the last read, held so that identity means
                                       // equality
};

} // namespace cosmic
