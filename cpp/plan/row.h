// The descriptor table: what the plan knows of each tensor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/strided.h"
#include "core/types.h"
#include "parts/codec.h"
#include "parts/gate.h"
#include "parts/rule.h"
#include "plan/combinations.h"
#include "plan/matrix.h"
#include "plan/matrix_step.h"
#include "plan/place.h"

namespace cosmic {

// A tensor's elements in the order in which the parameter is walked.
struct Operand {
  void *data = nullptr;
  DType dtype = DType::f32;
  Walk walk;
};

// Where the indices of a tensor's first dimension, its rows, lie in the order in which it is
// walked.
struct Rows {
  int64_t count = 1, run = 1; // so many elements of one row lie one after another

  int64_t of(int64_t element) const { return element / run % count; }
};

// A gate of a tensor, and the numbers that it keeps; null where it keeps none.
struct RowGate {
  const GatePart *part;
  double *numbers = nullptr;
  bool observes = true; // of gates that share numbers the first
};

// What the last step saw of a tensor.
struct Statistics {
  double mean_abs_gradient = 0;
  double unscaled_rms = 0; // of the rule's u
  double param_rms = 0;    // of the new parameter, where it is asked for
  double update_rms = 0;   // before the learning rate, after the gates
  double rule_scale = 1;   // what the rule makes of its u, before the gates
  int64_t nonfinite = 0;   // elements of the gradient
  double gate = 1;         // the product of the factors that acted
  double probed[kProbeSums] = {};
  double encoded = 0; // what the first moment's codec adds up
  double looked = 0;  // what a probe keeps by block

  Sums sums_of(int64_t numel) const {
    const double scaled = unscaled_rms * rule_scale;
    return {static_cast<double>(numel), mean_abs_gradient, unscaled_rms, scaled, param_rms, probed};
  }
};

// One tensor: a parameter, or a part of one. Pointers to state are borrowed; those of state that
// the rung lacks are null.
struct Row {
  std::string name; // for messages: the parameter's name or its index
  int group = 0;
  double lr_scale = 1; // of the group's learning rate
  uint32_t index = 0;  // of its own among all rows: the tensor's share of the random counter
  const RulePart *rule = nullptr;
  std::vector<RowGate> gates; // in the order of the registry
  const CodecPart *m_codec = nullptr;
  bool exact = false; // the gates measure before the step
  // Passes: the step, and before it what measures for the codec, or for the gates, or adds up a
  // second moment.
  PassOf step_pass, codec_pass, gate_pass, second_pass;
  const PassOf *measuring = nullptr; // of these, where sums are to be taken before the step
  bool active = false;               // has a gradient at this step
  bool exchanges = false;            // sums of this step are of all shards
  bool by_row = false;               // a gate of this step looks at each of its rows
  bool stochastic_rounding = false;  // of the parameter, which is bf16 then
  int64_t numel = 0;
  BlockPlace place;
  ShardOf shard;
  int64_t summed = 0; // elements that the last sums are of
  Operand param, grad;
  int8_t *low = nullptr; // 8 bits more of each element of a parameter in bf16; null: none
  Operand copy;          // of the parameter, in 16 bits, which the step writes; null: none
  Rows rows;             // of a tensor of two dimensions or more
  Planes m, m_slow, v;
  std::shared_ptr<MatrixMoment> matrix; // of a v by rows and columns
  std::shared_ptr<MatrixStep> whole;    // of a rule that steps whole matrices
  int64_t *step = nullptr;
  int64_t m_start = 0;            // the step counter when the first moment started from nothing
  double *rule_numbers = nullptr; // null where the rule keeps none
  float *m_numbers = nullptr;
  std::shared_ptr<std::vector<float>> by_block; // of a codec that leaves a number a block: scratch
  std::vector<BlockLook> looks;                 // of a probe that looks by block: scratch
  double *signal = nullptr;                     // running mean of |g|, for a policy that uses it
  Statistics last;

  int64_t blocks() const { return place.blocks(numel); }
  // Blocks of one work item.
  int64_t item_blocks() const { return matrix ? matrix->item_blocks() : kChunkBlocks; }
  bool is_f64() const { return param.dtype == DType::f64; }
  int64_t steps_taken() const { return step ? *step : 0; }
  bool looks_ahead() const { return rule->second_ahead && matrix; }
  bool asks_for_update() const {
    return std::any_of(gates.begin(), gates.end(),
                       [](const RowGate &gate) { return gate.part->square_update; });
  }
};

} // namespace cosmic
