#include "plan/combinations.h"

#include <algorithm>
#include <sstream>

#include "core/error.h"
#include "isa/dispatch.h"
#include "kernels/combinations.h"
#include "parts/registry.h"
#include "plan/layout.h"

namespace cosmic {

namespace {

const std::string &name_of(const CodecPart *codec) {
  static const std::string none = "none";
  return codec ? codec->name : none;
}

std::string name_of(const PartsOf &parts) {
  return (parts.f64 ? "double " : "float ") + parts.rule->kernel() + " " + name_of(parts.m) + " " +
         name_of(parts.m_slow) + " " + name_of(parts.v);
}

template <class Kind> const Kind *at(const std::vector<const Kind *> &parts, int place) {
  return parts[static_cast<size_t>(place)];
}

const CodecPart *codec_at(int place) { return place ? at(all_codecs(), place - 1) : nullptr; }

std::string probe_name(int place) {
  for (const Part *part : all_parts())
    if (place && part->probe_place == place) return " " + part->probe;
  return "";
}

std::string name_of(const Combination &row) {
  const Composition &parts = row.parts;
  return name_of({parts.f64, at(all_rules(), parts.rule), codec_at(parts.m), codec_at(parts.m_slow),
                  codec_at(parts.v)}) +
         probe_name(static_cast<int>(row.probe));
}

// What a codec says of its planes and what its arithmetic reads and writes are written apart: where
// they differ, a step would write beyond its memory.
void check_planes(const CodecPart &codec, bool second) {
  const std::vector<PlaneOf> &said = second ? codec.second : codec.first;
  if (said.empty() || codec.of_matrix()) return;
  for (const int64_t numel : {kBlock, 3 * kBlock + 5}) {
    std::vector<int64_t> bytes;
    for (const Plane &plane : slot_layout(&codec, second, numel, {}))
      bytes.push_back(plane.count * plane.bits / 8);
    if (codec.by_block && !second) bytes.push_back((numel + kBlock - 1) / kBlock * 4);
    bytes.push_back(-1);
    for (size_t k = 0; k < bytes.size(); ++k)
      if (kernels_for("scalar").plane_bytes(codec.place, second, static_cast<int>(k), numel) !=
          bytes[k])
        throw Error(ErrorKind::value,
                    "part '" + codec.name + "': plane " + std::to_string(k) +
                        " has other bytes by its arithmetic than by what it says");
  }
}

// The names that a rule has by the rows of the table of another, without a slow average; with the
// probes of codecs, but not of gates.
std::vector<std::string> names_as(const RulePart &rule, const std::string &other) {
  std::vector<std::string> out;
  for (const Combination &row : kTable.rows) {
    const Composition &parts = row.parts;
    if (at(all_rules(), parts.rule)->name != other || parts.m_slow) continue;
    const CodecPart *m = codec_at(parts.m);
    const int probe = m ? m->probe_place : 0;
    out.push_back(name_of({parts.f64, &rule, m, nullptr, codec_at(parts.v)}) + probe_name(probe));
  }
  return out;
}

// What parts say that they go with, beside the table.
std::vector<std::string> more_names() {
  std::vector<std::string> out;
  const auto add = [&](const std::string &rule, const std::string &m, const std::string &v) {
    out.push_back((m == "fp64" ? "double " : "float ") + rule + " " + m + " none " + v);
  };
  std::vector<std::string> of_codecs = {"adam"}; // rules that codecs go with
  for (const RulePart *rule : all_rules()) {
    for (const auto &[m, v] : rule->goes_with) add(rule->name, m, v);
    if (rule->codecs_of.empty()) continue;
    const std::vector<std::string> names = names_as(*rule, rule->codecs_of);
    out.insert(out.end(), names.begin(), names.end());
    if (rule->codecs_of == "adam") of_codecs.push_back(rule->name);
  }
  for (const CodecPart *codec : all_codecs())
    for (const std::string &other : codec->goes_with)
      for (const std::string &rule : of_codecs) {
        if (!codec->first.empty()) add(rule, codec->name, other);
        if (!codec->second.empty()) add(rule, other, codec->name);
      }
  return out;
}

bool same_parts(const Composition &a, const Composition &b) {
  return a.f64 == b.f64 && a.rule == b.rule && a.m == b.m && a.m_slow == b.m_slow && a.v == b.v;
}

// The row of the table that is compiled of these parts and this probe as a whole.
int hot_row(const Composition &parts, int probe) {
  for (const Combination &row : kTable.rows)
    if (row.parts.hot >= 0 && same_parts(row.parts, parts) && static_cast<int>(row.probe) == probe)
      return row.parts.hot;
  return -1;
}

int place_of(const CodecPart *codec) { return codec ? codec->place : 0; }

std::vector<std::string> make_names() {
  for (const CodecPart *codec : all_codecs())
    for (const bool second : {false, true}) check_planes(*codec, second);
  std::vector<std::string> names;
  names.reserve(kCombinations);
  for (const Combination &row : kTable.rows) names.push_back(name_of(row));
  for (const std::string &name : more_names())
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  return names;
}

} // namespace

const std::vector<std::string> &combination_names() {
  static const std::vector<std::string> names = make_names();
  return names;
}

void check_combination(const PartsOf &parts) {
  const std::vector<std::string> &names = combination_names();
  const std::string wanted = name_of(parts);
  const auto is_of = [&](const std::string &name) { // with whatever probe
    return name.compare(0, wanted.size(), wanted) == 0 &&
           (name.size() == wanted.size() || name[wanted.size()] == ' ');
  };
  if (std::any_of(names.begin(), names.end(), is_of)) return;
  std::string supported;
  for (const std::string &name : names)
    if (name.rfind(parts.f64 ? "double" : "float", 0) == 0) supported += "\n  " + name;
  throw Error(ErrorKind::value,
              "no kernel combines '" + wanted +
                  "' (arithmetic, rule, m, m_slow, v, probe); supported are:" + supported);
}

PassOf pass_of(const PartsOf &parts, const std::vector<const Part *> &asking) {
  PassOf out;
  // rules that share arithmetic are one
  out.parts = {parts.f64, rule_named(parts.rule->kernel())->place, place_of(parts.m),
               place_of(parts.m_slow), place_of(parts.v)};
  int sum = 0;
  for (const Part *part : asking) {
    if (!part) continue;
    out.square_param |= part->square_param;
    if (!part->probe_place) continue;
    out.probes.push_back({part->probe_place, sum});
    sum += kSumsOfPart;
  }
  if (sum > kProbeSums)
    throw Error(ErrorKind::value, "more than " + std::to_string(kProbeSums / kSumsOfPart) +
                                      " parts of one tensor ask for sums");
  if (out.probes.size() < 2)
    out.parts.hot = hot_row(out.parts, out.probes.empty() ? 0 : out.probes[0].probe);
  return out;
}

PassOf second_alone(const CodecPart *v) {
  const std::vector<const RulePart *> &rules = all_rules();
  const auto rule = std::find_if(rules.begin(), rules.end(), [](const RulePart *each) {
    return each->second && !each->first && each->variant.empty();
  });
  return pass_of({false, *rule, nullptr, nullptr, v}, {});
}

PartsOf parts_named(const std::string &name, const Part **probing) {
  std::istringstream words(name);
  std::string arithmetic, rule, m, slow, v, probe = "none";
  words >> arithmetic >> rule >> m >> slow >> v >> probe;
  *probing = nullptr;
  for (const Part *part : all_parts())
    if (probe != "none" && part->probe == probe) *probing = part;
  return {arithmetic == "double", rule_named(rule), codec_named(m), codec_named(slow),
          codec_named(v)};
}

} // namespace cosmic
