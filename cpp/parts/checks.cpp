#include "parts/checks.h"

#include <algorithm>
#include <map>
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
  const bool is_none = option.fallback == option.none && option.allows_none();
  require(in_range || is_none, part, "the default of an option is out of its range");
  require((option.form == PartOption::Form::choice) == (option.choices != nullptr), part,
          "an option is a choice without choices, or has choices and is none");
}

// One of three numbers goes with another.
bool is_same_form(PartOption::Form a, PartOption::Form b) {
  using Form = PartOption::Form;
  const auto is_of_three = [](Form form) {
    return form == Form::first || form == Form::second || form == Form::third;
  };
  return a == b || (is_of_three(a) && is_of_three(b));
}

// Of all parts together: names, keys and probes are each one part's, an option that several have is
// the same.
class Names {
public:
  void check(const Part &part) {
    require(!part.name.empty() && names_.insert(part.name).second, part,
            "another part, or none, has this name");
    require(part.probe == "none" || probes_.insert(part.probe).second, part,
            "another part's probe has this name");
    for (const PartOption &option : part.options) {
      check_option(part, option);
      const PartOption &known = options_.emplace(option.name, option).first->second;
      require(known.low == option.low && known.high == option.high &&
                  known.fallback == option.fallback && known.missing == option.missing &&
                  is_same_form(known.form, option.form),
              part, "an option is another than that of this name which there is");
    }
    if (!part.numbers) return;
    require(!part.numbers.key.empty() && keys_.insert(part.numbers.key).second, part,
            "its numbers have no key, or one that is taken");
    require(part.numbers.size() <= kMostNumbers, part, "it keeps more than 8 numbers");
  }
  // Gates may share numbers, which one of them observes.
  void check(const GatePart &part) {
    const GatePart *const other =
        part.numbers ? shared_.emplace(part.numbers.key, &part).first->second : nullptr;
    if (!other || other == &part) return check(static_cast<const Part &>(part));
    require(other->numbers == part.numbers && other->observe == part.observe, part,
            "it shares a key with another gate, but not what that keeps and observes");
    Part rest = part;
    rest.numbers = {};
    check(rest);
  }

private:
  std::set<std::string> names_ = {"none"}, probes_;
  std::set<std::string> keys_ = {"step",          "exp_avg",      "exp_avg_slow", "exp_avg_sq",
                                 "masked",        "budget_role",  "packed_shape", "packed_order",
                                 "exp_avg_start", "budget_signal"};
  std::map<std::string, const GatePart *> shared_; // by key
  std::map<std::string, PartOption> options_ = [] {
    std::map<std::string, PartOption> out; // of every group
    for (const char *name :
         {"lr", "betas", "eps", "weight_decay", "maximize", "stochastic_rounding", "params"})
      out.emplace(name, PartOption{name, 1, 0, "", 0});
    return out;
  }();
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
  require(rule.tier != 2 || rule.first, rule, "of tier 2 it keeps a first moment");
  require(!rule.matrix || (!rule.second && !rule.slow), rule,
          "of whole matrices it keeps a first moment at most");
  require(!rule.matrix || rule.counts, rule, "of whole matrices it counts steps, to take turns");
  require(rule.tier != 2 || rule.second || rule.matrix, rule,
          "of tier 2 it keeps both moments, but for one of whole matrices");
  require(rule.counts || (!rule.first && !rule.second), rule, "with moments it counts its steps");
  require(rule.second_name.rfind("exp_avg_", 0) == 0 && rule.second_name != "exp_avg_slow", rule,
          "its second moment's name does not begin with exp_avg_, or is the slow average's");
  require(rule.variant != "slow", rule, "its variant is taken: a slow average");
  require(rule.codecs_of.empty() || (rule.first && rule.second), rule,
          "it takes another rule's codecs without keeping both moments");
  for (const auto &[m, v] : rule.goes_with)
    require((!rule.first || keeps(codecs, m, false)) && (!rule.second || keeps(codecs, v, true)),
            rule, "it goes with a codec that does not keep such a moment");
}

void check_gate(const GatePart &gate, const std::vector<const RulePart *> &rules) {
  const auto is_read = [&](const RulePart *rule) { return rule->name == gate.rule; };
  require(gate.rule == "none" || std::any_of(rules.begin(), rules.end(), is_read), gate,
          "it reads the moments of a rule that does not exist");
  require(gate.factor && gate.observe, gate, "it has no factor, or does not observe");
  require(!gate.numbers.f32, gate, "its numbers are float64");
  require(!gate.numbers || gate.numbers.key.rfind("gate_", 0) == 0, gate,
          "the key of its numbers does not begin with gate_");
  require(!gate.looks_again || gate.observe_first, gate, "its first look leaves nothing");
  require(!gate.looks_again || !gate.square_update, gate,
          "the squares that it asks for are of the first look");
  require(!gate.square_update || gate.square_param, gate,
          "it asks for the squared update, and not for the parameter that it is beside");
  require(!gate.starts || (gate.numbers && !gate.remember), gate,
          "it starts by numbers of a tensor, and keeps none, or what a group keeps as well");
}

void check_codec(const CodecPart &codec, const Codecs &codecs) {
  require(!codec.first.empty() || !codec.second.empty(), codec, "it keeps no tensor");
  require(!codec.numbers || (codec.numbers.f32 && !codec.first.empty()), codec,
          "numbers of a codec are float32, of a first moment");
  require(codec.probe == "none" || codec.measured, codec, "its probe is measured before the step");
  require(!codec.measured || codec.measure, codec, "nothing takes what is measured");
  require(!codec.numbers || codec.finish, codec, "nothing keeps its numbers");
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
    check_gate(*gate, rules);
  }
  for (const CodecPart *codec : codecs) {
    names.check(*codec);
    check_codec(*codec, codecs);
  }
}

} // namespace cosmic
