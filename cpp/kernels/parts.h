// A step by parts: any rule, codecs and probes, through passes that all combinations share. Code
// grows with the sum of the parts; combinations.h says what that costs in time.
#pragma once

#include "kernels/codec_passes.h"
#include "kernels/probe_passes.h"
#include "kernels/rule_passes.h"
#include "kernels/square_passes.h"

namespace cosmic::COSMIC_TARGET {

// Where the values of a batch's slots wait from pass to pass.
template <class Real> struct Buffers {
  alignas(64) Real m[kBatch<Real>], m_slow[kBatch<Real>], v[kBatch<Real>];
  alignas(64) Real units[kBatch<Real>], roots[kBatch<Real>], shares[kBatch<Real>];
};

// The codecs of a composition, by their passes.
template <class Real> struct Codecs {
  FirstPasses<Real> m, m_slow;
  SecondPasses<Real> v;

  explicit Codecs(const Composition &parts)
      : m(kFirstPasses<Real>[parts.m]), m_slow(kFirstPasses<Real>[parts.m_slow]),
        v(kSecondPasses<Real>[parts.v]) {
    m.direct = m_slow.direct = v.direct = false;
  }
  // Of what is done outside a step.
  static Codecs of_state(const Composition &parts) {
    Codecs out(parts);
    out.m.find_levels = nullptr;
    return out;
  }
  // Of a measuring pass, which may have no use for the second moment, or write no values at all.
  static Codecs of_measure(const Composition &parts, bool sees_v, bool reads_only) {
    Codecs out(parts);
    if (reads_only) out.read_in_place(parts);
    if (!sees_v && !out.m.update_units) out.v.load = nullptr;
    out.take_levels();
    return out;
  }
  static Codecs of_step(const Composition &parts) {
    Codecs out(parts);
    out.read_in_place(parts);
    out.take_levels();
    return out;
  }

  bool by_level() const { return m.find_levels; }
  bool need_extras() const { return m.update_units || v.keeps_roots; }

  void load(Batch<Real> &batch, const Slot<Real> &of_m, const Slot<Real> &of_slow,
            const Slot<Real> &of_v) const {
    batch.by_level = by_level();
    if (by_level()) m.find_levels(batch, of_m);
    if (v.load) (m.update_units ? v.load_with_units : v.load)(batch, of_v);
    if (m.load) m.load(batch, of_m);
    if (m_slow.load) m_slow.load(batch, of_slow);
  }
  // `of_v` says where roots are if those are kept.
  void store(Batch<Real> &batch, const Slot<Real> &of_m, const Slot<Real> &of_slow,
             const Slot<Real> &of_v) const {
    if (v.store) v.store(batch, of_v);
    if (m_slow.store) m_slow.store(batch, of_slow);
    // units of the second moment as it will be decoded, whose values nobody needs any more
    batch.by_level = false;
    batch.inverse_units = v.load_with_inverse_units;
    if (m.persisted_units)
      (batch.inverse_units ? v.load_with_inverse_units : v.load_with_units)(batch, of_v);
    if (m.store) m.store(batch, of_m);
  }

private:
  // State that is values already the rule reads, and in a step writes, where it lies.
  void read_in_place(const Composition &parts) {
    make_direct(m, kFirstPasses<Real>[parts.m].direct);
    make_direct(m_slow, kFirstPasses<Real>[parts.m_slow].direct);
    make_direct(v, kSecondPasses<Real>[parts.v].direct && !m.update_units);
  }
  // Outside a step moments are loaded as they are; a slow average has levels of its own.
  void take_levels() {
    if (m.load_whole && !m_slow.present)
      m.load = m.load_whole;
    else
      m.find_levels = nullptr;
  }
  template <class Passes> static void make_direct(Passes &passes, bool direct) {
    passes.direct = direct;
    if (direct) passes.load = passes.store = nullptr;
  }
};

// One run of blocks.
template <class Real> class ByParts {
public:
  ByParts(const BlockRun &run, Pass pass)
      : run_(run), c_(*run.coefficients),
        codecs_(pass == Pass::step ? Codecs<Real>::of_step(*run.parts)
                                   : Codecs<Real>::of_measure(*run.parts, sees_v(), !measures())),
        rule_(kRulePasses<Real>[run.parts->rule][codecs_.m_slow.present]),
        batch_(BlockContext(c_, run.first_block, kBlock, run.matrix)),
        m_{run.m, 0, 0, (Real)(rule_.decays_m ? c_.beta1 : 1.0), buffers_.m},
        m_slow_{run.m_slow, 0, 1, (Real)c_.beta_slow, buffers_.m_slow},
        v_{run.v, 0, 2, (Real)c_.beta2, buffers_.v} {
    batch_.careful = false;
    batch_.asks_for_param =
        pass == Pass::step && (!codecs_.m.present || codecs_.m.compressed || codecs_.v.compressed);
    batch_.units = buffers_.units;
    batch_.roots = buffers_.roots;
    batch_.shares = buffers_.shares;
    if (run.probe_count) zero_what_is_missing();
    load_sums();
  }

  void step() {
    for_each_batch([&](int64_t before, int64_t count) { step_batch(before, count); });
    store_sums();
  }
  void measure() {
    for_each_batch([&](int64_t before, int64_t count) {
      if (is_second_look())
        for_each_wanted(before, count);
      else
        measure_batch(before, count);
    });
    store_sums();
  }

private:
  // Calls visit(blocks before it, elements) for whole blocks together, and for a partial one.
  template <class Visit> void for_each_batch(Visit visit) const {
    const int64_t whole = run_.count / kBlock;
    for (int64_t b = 0; b < whole; b += kBatchBlocks<Real>)
      visit(b, (whole - b < kBatchBlocks<Real> ? whole - b : kBatchBlocks<Real>)*kBlock);
    if (run_.count % kBlock) visit(whole, run_.count % kBlock);
  }

  // Whether all probes look at some blocks only.
  bool is_second_look() const {
    for (int k = 0; k < run_.probe_count; ++k)
      if (!probe(k).wants) return false;
    return run_.probe_count && !c_.first_look;
  }
  bool wants(int64_t before) const {
    for (int k = 0; k < run_.probe_count; ++k)
      if (probe(k).wants(c_, run_.looks[run_.first_block + before])) return true;
    return false;
  }
  // Neighbours that are wanted go together.
  void for_each_wanted(int64_t before, int64_t count) {
    const int64_t end = before + (count + kBlock - 1) / kBlock;
    for (int64_t b = before; b < end; ++b) {
      if (!wants(b)) continue;
      const int64_t first = b;
      while (b + 1 < end && wants(b + 1)) ++b;
      const int64_t elements = (b + 1 - first) * kBlock, left = count - (first - before) * kBlock;
      measure_batch(first, elements < left ? elements : left);
    }
  }

  void open(int64_t before, int64_t count) {
    const int64_t block = run_.first_block + before;
    batch_.open(block, (int)((count + kBlock - 1) / kBlock), count,
                {c_.random_key, block + run_.shift, run_.lane});
    batch_.p = run_.param ? (Real *)run_.param + before * kBlock : nullptr;
    batch_.g = (const Real *)run_.gradient + before * kBlock;
    m_.at = m_slow_.at = v_.at = block;
  }

  void step_batch(int64_t before, int64_t count) {
    open(before, count);
    if (count < kBlock) return step_partial(count);
    step_open();
  }
  // Works on images of the planes that have room for a whole block.
  void step_partial(int64_t count) {
    TailImage m(codecs_.m.sizes, run_.m, m_.at, count);
    TailImage slow(codecs_.m_slow.sizes, run_.m_slow, m_.at, count);
    TailImage v(codecs_.v.sizes, run_.v, m_.at, count);
    look_at(m, slow, v);
    step_open();
    m.write_back();
    slow.write_back();
    v.write_back();
  }
  void look_at(const TailImage &m, const TailImage &slow, const TailImage &v) {
    m_.planes = m.planes;
    m_slow_.planes = slow.planes;
    v_.planes = v.planes;
    m_.at = m_slow_.at = v_.at = 0;
    batch_.careful = true;
  }

  void step_open() {
    const Values<Real> values{values_of(codecs_.m, m_), values_of(codecs_.m_slow, m_slow_),
                              values_of(codecs_.v, v_)};
    batch_.unit_scale = batch_.contexts[0].v_scale_before;
    codecs_.load(batch_, m_, m_slow_, v_);
    (codecs_.need_extras() ? rule_.step_with_extras : rule_.step)(c_, batch_, values);
    for (int k = 0; k < run_.probe_count; ++k)
      probe(k).step(c_, batch_, values, run_.looks, run_.probes[k].first_sum);
    if (run_.square_param) add_square_param();
    batch_.unit_scale = batch_.contexts[0].v_scale;
    batch_.correction = batch_.contexts[0].m_correction;
    Slot<Real> kept = v_;
    if (codecs_.v.keeps_roots) kept.values = buffers_.roots;
    codecs_.store(batch_, m_, m_slow_, kept);
    if (codecs_.m.adds_up) add_encoded();
  }

  void measure_batch(int64_t before, int64_t count) {
    open(before, count);
    if (count >= kBlock) return measure_open();
    const TailImage m(codecs_.m.sizes, run_.m, m_.at, count);
    const TailImage slow(codecs_.m_slow.sizes, run_.m_slow, m_.at, count);
    const TailImage v(codecs_.v.sizes, run_.v, m_.at, count);
    look_at(m, slow, v);
    measure_open();
  }
  void measure_open() {
    const Values<Real> values{values_of(codecs_.m, m_), values_of(codecs_.m_slow, m_slow_),
                              values_of(codecs_.v, v_)};
    batch_.unit_scale = batch_.contexts[0].v_scale_before;
    codecs_.load(batch_, m_, m_slow_, v_);
    if (asks_for_squares()) add_squares(values);
    if (!measures()) return;
    rule_.measure(c_, batch_, values);
    for (int k = 0; k < run_.probe_count; ++k)
      (c_.first_look ? probe(k).first_look : probe(k).second_look)(c_, batch_, values, run_.looks,
                                                                   run_.probes[k].first_sum);
  }

  // Squares are of the first look, which sees every block.
  bool asks_for_squares() const {
    return c_.first_look && (run_.square_param || run_.square_update);
  }
  void add_square_param() {
    square_pass(batch_.p, batch_.blocks, batch_.count, batch_.sums.square_param);
  }
  // The gradient is the measuring pass's own to add up, where there is one.
  void add_squares(const Values<Real> &values) {
    if (!run_.square_update) return add_square_param();
    LanesInL1<Real> &sums = batch_.sums;
    Real gradient[kLanes];
    __builtin_memcpy(gradient, sums.abs_gradient, sizeof(gradient));
    kUpdatePasses<Real>[run_.parts->rule][codecs_.m_slow.present](c_, batch_, values);
    if (measures()) __builtin_memcpy(sums.abs_gradient, gradient, sizeof(gradient));
  }
  // Whether there is more to look at than squares.
  bool measures() const { return run_.probe_count || !run_.square_update; }

  template <class Passes>
  static ValuesOf<Real> values_of(const Passes &passes, const Slot<Real> &slot) {
    if (!passes.direct) return {slot.values, Real(1)};
    return {(Real *)slot.planes.data[0] + slot.at * kBlock, slot.decay};
  }

  const ProbePasses<Real> &probe(int k) const { return kProbePasses<Real>[run_.probes[k].probe]; }

  // Probes may look at what the rule or the codecs lack; what nobody looks at is to be a number.
  void zero_what_is_missing() {
    const bool loads_v = codecs_.v.load || codecs_.v.direct;
    if (!codecs_.m.present) __builtin_memset(buffers_.m, 0, sizeof(buffers_.m));
    if (!loads_v) __builtin_memset(buffers_.v, 0, sizeof(buffers_.v));
    if (!rule_.shares) __builtin_memset(buffers_.shares, 0, sizeof(buffers_.shares));
  }
  bool sees_v() const {
    bool sees = run_.square_update;
    for (int k = 0; k < run_.probe_count; ++k) sees |= probe(k).sees_v;
    return sees;
  }

  void add_encoded() {
    if constexpr (sizeof(Real) == 4)
      for (int k = 0; k < batch_.blocks; ++k)
        (F32::load(batch_.sums.encoded) + F32::load(batch_.encoded[k])).store(batch_.sums.encoded);
  }

  // Calls visit(lanes in L1, lanes of the item) for each sum that the run adds to.
  template <class Visit> void for_each_sum(Visit visit) {
    LaneSums &item = *run_.sums;
    LanesInL1<Real> &here = batch_.sums;
    visit(here.abs_gradient, item.abs_gradient);
    visit(here.square_update, item.square_update);
    if (run_.square_param) visit(here.square_param, item.square_param);
    if (codecs_.m.adds_up) visit(here.encoded, item.encoded);
    for (int k = 0; k < run_.probe_count; ++k)
      for (int s = 0; s < probe(k).sums; ++s) {
        const int at = run_.probes[k].first_sum + s;
        visit(here.probed[at], item.probed[at]);
      }
  }
  void load_sums() {
    for_each_sum([](Real *here, const double *item) { narrow_lanes(item, here); });
  }
  void store_sums() {
    for_each_sum([](const Real *here, double *item) { widen_lanes(here, item); });
    if (run_.square_param || codecs_.m.adds_up || run_.probe_count) run_.sums->more = true;
  }

  const BlockRun &run_;
  const Coefficients &c_;
  const Codecs<Real> codecs_;
  const RulePasses<Real> &rule_;
  Buffers<Real> buffers_;
  Batch<Real> batch_;
  Slot<Real> m_, m_slow_, v_;
};

} // namespace cosmic::COSMIC_TARGET
