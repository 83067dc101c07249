#include "parts/registry.h"

#include <deque>
#include <utility>

#include "core/error.h"
#include "parts/checks.h"
#include "parts/list.h"

namespace cosmic {

namespace {

template <class Kind> struct Registry {
  std::deque<Kind> kept; // whose addresses stay
  std::vector<const Kind *> parts;

  void add(Kind part) { parts.push_back(&kept.emplace_back(std::move(part))); }

  const Kind *named(const char *kind, const std::string &name) const {
    if (name == "none") return nullptr;
    std::string known = "none";
    for (const Kind *part : parts) {
      if (part->name == name) return part;
      known += ", " + part->name;
    }
    throw Error(ErrorKind::value,
                std::string("unknown ") + kind + " '" + name + "'; expected " + known);
  }
};

// A part whose name and probe are those of the list.
template <class Kind> Kind as_listed(Kind part, const std::string &name, const std::string &probe) {
  if (part.name != name)
    throw Error(ErrorKind::value, "part '" + part.name + "': it is listed as '" + name + "'");
  if ((part.probe == "none") != (probe == "NoProbe"))
    throw Error(ErrorKind::value, "part '" + name + "': its probe is '" + part.probe +
                                      "', but it is listed with " + probe);
  return part;
}

struct Parts {
  Registry<RulePart> rules;
  Registry<GatePart> gates;
  Registry<CodecPart> codecs;
  size_t options = 0;

  Parts() {
#define COSMIC_REGISTER_RULE(part, ...) rules.add(as_listed(parts::part(), #part, "NoProbe"));
#define COSMIC_REGISTER_GATE(part, probe) gates.add(as_listed(parts::part(), #part, #probe));
#define COSMIC_REGISTER_CODEC(part, first, second, probe)                                          \
  codecs.add(as_listed(parts::part(), #part, #probe));
    COSMIC_RULES(COSMIC_REGISTER_RULE)
    COSMIC_GATES(COSMIC_REGISTER_GATE)
    COSMIC_CODECS(COSMIC_REGISTER_CODEC)
#undef COSMIC_REGISTER_RULE
#undef COSMIC_REGISTER_GATE
#undef COSMIC_REGISTER_CODEC
    for (const Part *part : every()) {
      part->first_option = options;
      options += part->options.size();
    }
    place();
    check_parts(rules.parts, gates.parts, codecs.parts);
  }

  // As RuleAt, CodecAt and ProbeAt have them.
  void place() const {
    int rule = 0, codec = 0, probe = 0;
    const auto place_probe = [&probe](const Part &part) {
      ++probe;
      part.probe_place = part.probe == "none" ? 0 : probe;
    };
    for (const RulePart *part : rules.parts) part->place = rule++;
    for (const GatePart *part : gates.parts) place_probe(*part);
    for (const CodecPart *part : codecs.parts) {
      part->place = ++codec;
      place_probe(*part);
    }
  }

  std::vector<const Part *> every() const {
    std::vector<const Part *> out(rules.parts.begin(), rules.parts.end());
    out.insert(out.end(), gates.parts.begin(), gates.parts.end());
    out.insert(out.end(), codecs.parts.begin(), codecs.parts.end());
    return out;
  }
};

const Parts &registered() {
  static const Parts parts;
  return parts;
}

} // namespace

const std::vector<const RulePart *> &all_rules() { return registered().rules.parts; }
const std::vector<const GatePart *> &all_gates() { return registered().gates.parts; }
const std::vector<const CodecPart *> &all_codecs() { return registered().codecs.parts; }

const RulePart *rule_named(const std::string &name) {
  return registered().rules.named("rule", name);
}
const GatePart *gate_named(const std::string &name) {
  return registered().gates.named("gate", name);
}
const CodecPart *codec_named(const std::string &name) {
  return registered().codecs.named("codec", name);
}

std::vector<const Part *> all_parts() { return registered().every(); }

std::vector<double> default_options() {
  std::vector<double> out;
  out.reserve(registered().options);
  for (const Part *part : registered().every())
    for (const PartOption &option : part->options) out.push_back(option.fallback);
  return out;
}

} // namespace cosmic
