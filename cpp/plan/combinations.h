// Which parts go together, and what the kernels run of them.
#pragma once

#include <string>
#include <vector>

#include "kernels/composition.h"
#include "parts/codec.h"
#include "parts/rule.h"

namespace cosmic {

// The parts of a tensor's step; a slot without a codec is not there.
struct PartsOf {
  bool f64 = false; // the arithmetic
  const RulePart *rule = nullptr;
  const CodecPart *m = nullptr, *m_slow = nullptr, *v = nullptr;
};

// What one pass over a tensor runs.
struct PassOf {
  Composition parts;
  std::vector<AskedProbe> probes;
  // sums of the squared new parameter; in a measuring pass of the parameter, and of the update
  bool square_param = false, square_update = false;

  // Whether it asks for anything that is not in the gradient.
  bool sees_more() const { return !probes.empty() || square_param || square_update; }
};

// Throws Error with what goes together if these do not.
void check_combination(const PartsOf &parts);

// A pass that asks for the probes of these parts, one behind the other. Null parts ask for nothing.
PassOf pass_of(const PartsOf &parts, const std::vector<const Part *> &asking);

// A pass of a second moment alone, without a first.
PassOf second_alone(const CodecPart *v);

// One name for everything that goes together, such as "float adam fp32 none fp32"; a probe with
// which it is compiled as a whole is the last word. Those of the table of combinations in its
// order, then what parts say besides.
const std::vector<std::string> &combination_names();

// The parts that such a name says, and whose probe.
PartsOf parts_named(const std::string &name, const Part **probing);

} // namespace cosmic
