// What the author of a part would else find out in a step.
#pragma once

#include <vector>

#include "parts/codec.h"
#include "parts/gate.h"
#include "parts/rule.h"

namespace cosmic {

// Throws Error that names the part whose description contradicts itself or another one.
void check_parts(const std::vector<const RulePart *> &rules,
                 const std::vector<const GatePart *> &gates,
                 const std::vector<const CodecPart *> &codecs);

} // namespace cosmic
