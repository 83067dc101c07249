// All parts by name: the list (parts/list.h), as the plan and the doors read it.
#pragma once

#include <string>
#include <vector>

#include "parts/codec.h"
#include "parts/gate.h"
#include "parts/rule.h"

namespace cosmic {

const std::vector<const RulePart *> &all_rules();
const std::vector<const GatePart *> &all_gates();
const std::vector<const CodecPart *> &all_codecs();

// The part of this name. Throws Error with the known ones if there is none; of "none" null.
const RulePart *rule_named(const std::string &name);
const GatePart *gate_named(const std::string &name);
const CodecPart *codec_named(const std::string &name);

// Every part, in the order in which Group::options has their options.
std::vector<const Part *> all_parts();

} // namespace cosmic
