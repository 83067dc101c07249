#include "aten/list_plan.h"

#include <torch/csrc/stable/ops.h>

#include "core/error.h"
#include "core/overlap.h"
#include "parts/registry.h"
#include "plan/bind.h"

namespace cosmic {

namespace {

void check_length(const TensorList &list, const TensorList &params) {
  if (list.tensors.size() != params.tensors.size())
    throw Error(ErrorKind::value, std::string(list.name) + " has " +
                                      std::to_string(list.tensors.size()) + " tensors and " +
                                      params.name + " " + std::to_string(params.tensors.size()) +
                                      "; expected one for each parameter");
}

const CodecPart &codec_of(DType dtype, const std::string &what) {
  for (const CodecPart *codec : all_codecs())
    if (codec->is_plain() && codec_dtype(*codec) == dtype) return *codec;
  throw Error(ErrorKind::tensor,
              what + " is " + dtype_name(dtype) +
                  "; expected moments in float32, bfloat16 or, for parameters in "
                  "float64, float64");
}

} // namespace

std::string TensorList::item(size_t k) const {
  return std::string(name) + "[" + std::to_string(k) + "]";
}

ListPlan::ListPlan(const Group &group, const TensorList &params, const TensorList &grads,
                   std::initializer_list<TensorList> state)
    : params_(params), grads_(grads) {
  check_length(grads, params);
  for (const TensorList &list : state) check_length(list, params);
  plan_.groups = {group};
  plan_.groups[0].stochastic_rounding = false; // parameters to nearest, as torch stores them
  plan_.rows.reserve(params.tensors.size());
  written_.reserve(params.tensors.size() * (1 + state.size()));
}

void ListPlan::add_row(size_t k) {
  Row &row = plan_.rows.emplace_back();
  row.name = params_.item(k);
  row.index = static_cast<uint32_t>(k);
  row.active = true;
  const TensorView param = read_tensor(params_.tensors[k], row.name, Access::write);
  order_ = bind_param(row, param);
  param_ = written_.size();
  written_.push_back({row.name, param, order_.dense});
  const TensorView gradient = read_tensor(grads_.tensors[k], grads_.item(k), Access::read);
  bind_gradient(row, gradient, param, order_);
}

std::string ListPlan::bind_moment(Planes &slot, const TensorList &moments) {
  const std::string what = moments.item(position());
  const TensorView view = read_real(moments.tensors[position()], what, Access::write);
  const CodecPart &codec = codec_of(view.dtype, what);
  slot.data[0] = bind_slot(view, codec, what, param(), order_);
  written_.push_back({what, view, true});
  return codec.name;
}

void ListPlan::bind_step(const TensorList &steps) {
  const std::string what = steps.item(position());
  TensorView view; // of one element with the size of int64, to be compared with the others
  view.dtype = DType::f64;
  view.data = read_raw(steps.tensors[position()], what, Access::write, aoti_torch_dtype_int64(),
                       "int64", 1);
  row().step = static_cast<int64_t *>(view.data);
  if (*row().step < 0)
    throw Error(ErrorKind::value,
                what + " is " + std::to_string(*row().step) + "; expected a count of steps >= 0");
  written_.push_back({what, view, true});
}

void ListPlan::set_rule(const std::string &rule, const std::string &m, const std::string &v) {
  row().rule = rule_named(rule);
  const PartsOf parts{row().is_f64(), row().rule, codec_named(m), nullptr, codec_named(v)};
  try {
    check_combination(parts);
  } catch (const Error &error) {
    throw Error(error.kind, row().name + ": " + error.what());
  }
  row().step_pass = pass_of(parts, {});
}

void ListPlan::step(uint64_t seed) {
  std::vector<NamedSpan> spans;
  spans.reserve(written_.size());
  for (const Written &written : written_)
    spans.push_back({&written.name, &written.view, written.dense});
  check_distinct(spans);
  plan_.seed = seed;
  plan_.step(static_cast<int>(torch::stable::get_num_threads()));
}

} // namespace cosmic
