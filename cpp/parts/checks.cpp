#include "parts/checks.h"

#include <algorithm>
#include <set>
#include <string>

#include "core/error.h"

namespace cosmic {

namespace {

void require(bool holds, const Part &part, const char *what) {
  if (!holds) throw Error(ErrorKind::value, "part '" + part.name + "': " + what);
}

void check_option(const Part &part, const PartOption &option) {
  const bool in_range = option.fallback >= option.low && option.fallback <= option.high;
  const bool is_none = option.fallback == 0 && option.missing == PartOption::If::none_is_zero;
  require(in_range || is_none, part, "the default of an option is out of its range");
}

// Of all parts together: names and keys are each one part's.
class Names {
public:
  void check(const Part &part) {
    require(!part.name.empty() && names_.insert(part.name).second, part,
            "another part, or none, has this name");
    for (const PartOption &option : part.options) check_option(part, option);
    if (!part.numbers) return;
    require(!part.numbers.key.empty() && keys_.insert(part.numbers.key).second, part,
            "its numbers have no key, or another part's");
  }

private:
  std::set<std::string> names_ = {"none"}, keys_;
};

using Codecs = std::vector<const CodecPart *>;

bool keeps(const Codecs &codecs, const std::string &name, bool second) {
  return std::any_of(codecs.begin(), codecs.end(), [&](const CodecPart *codec) {
    return codec->name == name && !(second ? codec->second : codec->first).empty();
  });
}

void check_rule(const RulePart &rule, const Codecs &codecs) {
  require(rule.coefficients, rule, "it has no coefficients");
  require(!rule.numbers.f32, rule, "its numbers are float64");
  for (const auto &[m, v] : rule.goes_with)
    require((!rule.first || keeps(codecs, m, false)) && (!rule.second || keeps(codecs, v, true)),
            rule, "it goes with a codec that does not keep such a moment");
}

void check_gate(const GatePart &gate) {
  require(gate.factor && gate.observe, gate, "it has no factor, or does not observe");
  require(gate.numbers.size() <= kGateNumbers && !gate.numbers.f32, gate,
          "its numbers are float64, and 8 at most");
  require(!gate.looks_again || gate.observe_first, gate, "its first look leaves nothing");
}

void check_codec(const CodecPart &codec, const Codecs &codecs) {
  require(!codec.first.empty() || !codec.second.empty(), codec, "it keeps no tensor");
  require(!codec.numbers || (codec.numbers.f32 && !codec.first.empty()), codec,
          "numbers of a codec are float32, of a first moment");
  for (const std::string &other : codec.goes_with)
    require(keeps(codecs, other, codec.second.empty()), codec,
            "it goes with a codec that does not keep the other moment");
}

} // namespace

void check_parts(const std::vector<const RulePart *> &rules,
                 const std::vector<const GatePart *> &gates, const Codecs &codecs) {
  Names names;
  std::set<std::string> rungs;
  for (const RulePart *rule : rules) {
    names.check(*rule);
    check_rule(*rule, codecs);
    const std::string rung = std::to_string(rule->tier) + (rule->first ? "m" : "-") +
                             (rule->second ? "v" : "-") + rule->variant;
    require(rungs.insert(rung).second, *rule,
            "another rule steps the same rungs; give it a variant");
  }
  for (const GatePart *gate : gates) {
    names.check(*gate);
    check_gate(*gate);
  }
  for (const CodecPart *codec : codecs) {
    names.check(*codec);
    check_codec(*codec, codecs);
  }
}

} // namespace cosmic
