// The descriptor table: what the plan knows of each tensor and of each parameter group.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/strided.h"
#include "core/types.h"
#include "plan/matrix.h"

namespace cosmic {

enum class Rule : uint8_t { sign, scalar_sign, rmsprop, adam, belief };
enum class Gate : uint8_t { none, snr, trust_focus };
// Of a first moment: whether it has numbers of the whole tensor, plan/tensor_numbers.h.
enum class TensorCodec : uint8_t { none, ustate, costate };

// Whether gate calibrated_agar scales a step by its own moments, measured before it, or by what the
// step before has seen.
enum class AgarKind : uint8_t { none, exact, lagged };

// Hyper-parameters of a parameter group, as the user gives them.
struct Group {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  double beta_slow = 0, alpha = 0;        // of the slow average; beta_slow 0: none
  int64_t slow_warmup = 0;                // steps over which alpha and beta_slow rise; 0: at once
  double c_min = 0.1;                     // the gate's least factor
  double robustness = 1, rel_floor = 0.1; // of gate agar, gates/trust_focus.h
  double m_step_factor = 1.1;             // of codec ustate
  double null_pct = 0.1, amp_pct = 0.9;   // of codec costate
  bool maximize = false;
  bool stochastic_rounding = true; // of parameters in bf16
};

// A tensor's elements in the order in which the parameter is walked.
struct Operand {
  void *data = nullptr;
  DType dtype = DType::f32;
  Walk walk;
};

// What the last step saw of a tensor.
struct Statistics {
  double mean_abs_gradient = 0;
  double unscaled_rms = 0; // of the rule's u
  double update_rms = 0;   // before the learning rate, after the gate
  int64_t nonfinite = 0;   // elements of the gradient
  double gate = 1;         // the factor that acted
  double probed[kProbeSums] = {};
  double encoded = 0; // what the first moment's codec adds up
};

// One tensor. Pointers to state are borrowed; those of state that the rung lacks are null.
struct Row {
  std::string name; // for messages: the parameter's name or its index
  int group = 0;
  uint32_t index = 0; // of the parameter in the optimizer: the tensor's part of the random counter
  Rule rule = Rule::adam;
  Gate gate_kind = Gate::none;
  TensorCodec m_codec = TensorCodec::none;
  int combination = 0;
  int probing = -1;    // the combination that a measuring pass runs, where it is another one
  bool active = false; // has a gradient at this step
  bool stochastic_rounding = false; // of the parameter, which is bf16 then
  bool measured = false;            // sums are taken before the step, too
  int64_t numel = 0;
  Operand param, grad;
  Planes m, m_slow, v;
  std::shared_ptr<MatrixMoment> matrix; // of a v by rows and columns
  int64_t *step = nullptr;
  int64_t m_start = 0;          // the step counter when the first moment started from nothing
  double *magnitude = nullptr;  // of rule scalar_sign, rules/scalar_magnitude.h
  double *update_rms = nullptr; // of rule rmsprop, rules/update_clip.h
  float *m_numbers = nullptr;   // of m_codec
  std::shared_ptr<std::vector<float>> ratios; // of costate's blocks: scratch
  double *gate = nullptr;                     // gates/snr.h or gates/trust_focus.h
  AgarKind agar_kind = AgarKind::none;
  std::vector<BlockLook> looks; // of the exact kind: scratch
  double *agar = nullptr;       // of the lagged kind, plan/agar.h
  double *signal = nullptr;     // running mean of |g|, for a policy that uses it
  Statistics last;

  int measured_as() const { return probing < 0 ? combination : probing; }
  // Blocks of one work item.
  int64_t item_blocks() const { return matrix ? matrix->item_blocks() : kChunkBlocks; }
  bool is_f64() const { return param.dtype == DType::f64; }
};

} // namespace cosmic
