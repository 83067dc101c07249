#include "reference/reference_training.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "core/sha256.h"
#include "exact/elements.h"
#include "isa/float_environment.h"
#include "plan/layout.h"
#include "plan/plan.h"
#include "reference/layers.h"

namespace cosmic {

namespace {

using namespace reference;

constexpr int64_t kSequences = 16, kLength = 32, kTokens = kSequences * kLength;
constexpr int64_t kVocabulary = 64, kWidth = 32, kHeads = 2, kMlp = 128, kLayers = 2;
constexpr uint64_t kFirstBatchKey = 1000;
constexpr double kStd = 0.125, kLearningRate = 0.003;
constexpr int64_t kNoIndex = -1; // neither a token that is ignored nor one that gets no gradient

using Indices = std::vector<int64_t>;

size_t count(int64_t numbers) { return static_cast<size_t>(numbers); }

struct Batch {
  Indices inputs, targets;
};

Batch batch_of(const How &how, int64_t step) {
  std::vector<double> u(count(kSequences * (kLength + 1)));
  fill_uniform(*how.kernels.exact, 0.0, 1.0, kFirstBatchKey + static_cast<uint64_t>(step),
               static_cast<int64_t>(u.size()), u.data(), how.threads);
  Batch batch;
  auto next = u.begin();
  for (int64_t sequence = 0; sequence < kSequences; ++sequence) {
    auto token = static_cast<int64_t>(std::floor(static_cast<double>(kVocabulary) * *next++));
    for (int64_t t = 0; t < kLength; ++t) {
      batch.inputs.push_back(token);
      token = (5 * token + static_cast<int64_t>(std::floor(4 * *next++))) % kVocabulary;
      batch.targets.push_back(token);
    }
  }
  return batch;
}

struct Block {
  LayerNorm norm1;
  Linear qkv, proj;
  LayerNorm norm2;
  Linear up, down;
};

// What the backward pass of a block reads.
struct Trace {
  Floats x, middle; // before the attention, before the MLP
  Normed normed1, normed2;
  Floats qkv, wide, active; // wide, active: before and after gelu
  Attended attended;
};

const Attention kAttention = {kSequences, kLength, kHeads, kWidth / kHeads, 0.25};

class Model {
public:
  explicit Model(const How &how) : how_(how) {
    tokens_ = &matrix(kVocabulary, kWidth);
    positions_ = &matrix(kLength, kWidth);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const LayerNorm norm1 = norm();
      const Linear qkv = linear(3 * kWidth, kWidth), proj = linear(kWidth, kWidth);
      const LayerNorm norm2 = norm();
      const Linear up = linear(kMlp, kWidth), down = linear(kWidth, kMlp);
      blocks_.push_back({norm1, qkv, proj, norm2, up, down});
    }
    norm_.push_back(norm());
    head_.push_back({matrix(kVocabulary, kWidth), nullptr});
  }

  std::deque<Parameter> &parameters() { return parameters_; }

  // Sets all gradients.
  void differentiate(const Batch &batch) {
    Floats x = embedded(batch.inputs);
    std::vector<Trace> traces;
    for (const Block &block : blocks_) x = forward_block(block, x, traces);
    const Normed normed = forward(how_, norm_.front(), x);
    const Floats of_logits = loss_back(forward(how_, head_.front(), normed.out), batch.targets);
    Floats grad = backward(how_, head_.front(), normed.out, of_logits);
    grad = backward(how_, norm_.front(), x, normed, grad);
    for (size_t k = blocks_.size(); k-- > 0;) grad = backward_block(blocks_[k], traces[k], grad);
    embedded_back(*tokens_, batch.inputs, grad);
    embedded_back(*positions_, places(), grad);
  }

private:
  Parameter &matrix(int64_t rows, int64_t columns) {
    const auto key = static_cast<uint64_t>(parameters_.size());
    Parameter &parameter = parameters_.emplace_back(rows, columns, 0.0f);
    fill_normal(*how_.kernels.exact, 0.0, kStd, key, parameter.size(), parameter.value.data(),
                how_.threads);
    return parameter;
  }
  Parameter &vector(int64_t size, float filled) {
    return parameters_.emplace_back(1, size, filled);
  }
  Linear linear(int64_t out, int64_t in) {
    Parameter &weight = matrix(out, in);
    return {weight, &vector(out, 0)};
  }
  LayerNorm norm() {
    Parameter &weight = vector(kWidth, 1);
    return {weight, vector(kWidth, 0)};
  }

  static Indices places() {
    Indices out(count(kTokens));
    for (int64_t k = 0; k < kTokens; ++k) out[count(k)] = k % kLength;
    return out;
  }

  Floats embedded(const Indices &ids) const {
    Floats x(count(kTokens * kWidth));
    for (int64_t k = 0; k < kTokens; ++k)
      for (int64_t j = 0; j < kWidth; ++j)
        x[count(k * kWidth + j)] = tokens_->value[count(ids[count(k)] * kWidth + j)] +
                                   positions_->value[count(k % kLength * kWidth + j)];
    return x;
  }

  void embedded_back(Parameter &table, const Indices &indices, const Floats &grad) const {
    embedding_back(*how_.kernels.exact, indices.data(), kTokens, grad.data(), kWidth, kNoIndex,
                   table.rows, table.grad.data(), how_.threads);
  }

  Floats forward_block(const Block &block, const Floats &x, std::vector<Trace> &traces) const {
    Trace &at = traces.emplace_back();
    at.x = x;
    at.normed1 = forward(how_, block.norm1, x);
    at.qkv = forward(how_, block.qkv, at.normed1.out);
    at.attended = forward(how_, kAttention, at.qkv);
    at.middle = sum(x, forward(how_, block.proj, at.attended.out));
    at.normed2 = forward(how_, block.norm2, at.middle);
    at.wide = forward(how_, block.up, at.normed2.out);
    at.active = gelu(how_, at.wide);
    return sum(at.middle, forward(how_, block.down, at.active));
  }

  Floats backward_block(const Block &block, const Trace &at, const Floats &grad) const {
    Floats branch = backward(how_, block.down, at.active, grad);
    branch = gelu_back(how_, at.wide, branch);
    branch = backward(how_, block.up, at.normed2.out, branch);
    branch = backward(how_, block.norm2, at.middle, at.normed2, branch);
    const Floats middle = sum(grad, branch);
    branch = backward(how_, block.proj, at.attended.out, middle);
    branch = backward(how_, kAttention, at.qkv, at.attended, branch);
    branch = backward(how_, block.qkv, at.normed1.out, branch);
    branch = backward(how_, block.norm1, at.x, at.normed1, branch);
    return sum(middle, branch);
  }

  // The gradient of the logits.
  Floats loss_back(const Floats &logits, const Indices &targets) const {
    const Logits<float> of = {kTokens, kVocabulary, logits.data(), targets.data(), kNoIndex, 0.0};
    Floats losses(count(kTokens)), lse(count(kTokens)), grad(logits.size());
    const Floats row_grad(count(kTokens), 1.0f / static_cast<float>(kTokens));
    cross_entropy(*how_.kernels.exact, of, losses.data(), lse.data(), how_.threads);
    cross_entropy_back(*how_.kernels.exact, of, lse.data(), row_grad.data(), grad.data(),
                       how_.threads);
    return grad;
  }

  const How how_;
  std::deque<Parameter> parameters_; // which does not move them
  Parameter *tokens_, *positions_;
  std::vector<Block> blocks_;
  std::vector<LayerNorm> norm_; // the last one
  std::vector<Linear> head_;    // the one
};

// The plan of AdamW over a model's parameters, whose moments are in float32.
class Optimizer {
public:
  Optimizer(std::deque<Parameter> &parameters, const Kernels &kernels) {
    plan_.forced_kernels = &kernels;
    plan_.groups.emplace_back().lr = kLearningRate;
    for (Parameter &parameter : parameters) add(parameter);
  }

  void step(int threads, int64_t steps) { plan_.step(threads, steps); }

private:
  void add(Parameter &parameter) {
    const Part *probing = nullptr; // it has no probe
    const PartsOf parts = parts_named("float adam fp32 none fp32", &probing);
    Row &row = plan_.rows.emplace_back();
    row.name = std::to_string(plan_.rows.size() - 1);
    row.index = static_cast<uint32_t>(plan_.rows.size() - 1);
    row.rule = parts.rule;
    row.m_codec = parts.m;
    row.step_pass = row.codec_pass = pass_of(parts, {});
    row.active = true;
    row.numel = parameter.size();
    row.param = {parameter.value.data(), DType::f32, {}};
    row.grad = {parameter.grad.data(), DType::f32, {}};
    row.m.data[0] = moments_.emplace_back(count(row.numel)).data();
    row.v.data[0] = moments_.emplace_back(count(row.numel)).data();
    row.step = &steps_.emplace_back(0);
  }

  Plan plan_;
  std::deque<Floats> moments_;
  std::deque<int64_t> steps_;
};

std::string digest_of(const std::deque<Parameter> &parameters) {
  Sha256 hash;
  for (const Parameter &parameter : parameters)
    hash.add(parameter.value.data(), parameter.size() * static_cast<int64_t>(sizeof(float)));
  return hash.digest();
}

} // namespace

std::string reference_training(const Kernels &kernels, Accumulate accumulate, int threads,
                               int64_t steps) {
  const DefaultFloatEnvironment environment;
  const How how = {kernels, accumulate, std::max(threads, 1)};
  Model model(how);
  Optimizer optimizer(model.parameters(), kernels);
  for (int64_t step = 0; step < steps; ++step) {
    model.differentiate(batch_of(how, step));
    optimizer.step(how.threads, step);
  }
  return digest_of(model.parameters());
}

} // namespace cosmic
