// The operators that step lists of tensors.
#include "aten/list_plan.h"
#include "aten/ops.h"
#include "plan/hyperparameters.h"

namespace cosmic {

void adam_step_(const Tensors &params, const Tensors &grads, const Tensors &exp_avgs,
                const Tensors &exp_avg_sqs, const Tensors &steps, double lr, double beta1,
                double beta2, double eps, double weight_decay, bool maximize, int64_t seed) {
  check(ranges::kLr, lr);
  check(ranges::kBeta1, beta1);
  check(ranges::kBeta2, beta2);
  check(ranges::kEps, eps);
  check(ranges::kWeightDecay, weight_decay);
  Group group;
  group.lr = lr;
  group.beta1 = beta1;
  group.beta2 = beta2;
  group.eps = eps;
  group.weight_decay = weight_decay;
  group.maximize = maximize;
  const TensorList first{"exp_avgs", exp_avgs}, second{"exp_avg_sqs", exp_avg_sqs};
  const TensorList counters{"steps", steps};
  ListPlan plan(group, {"params", params}, {"grads", grads}, {first, second, counters});
  for (size_t k = 0; k < params.size(); ++k) {
    plan.add_row(k);
    const std::string m = plan.bind_moment(plan.row().m, first);
    const std::string v = plan.bind_moment(plan.row().v, second);
    plan.set_rule("adam", m, v);
    plan.bind_step(counters);
  }
  plan.step(static_cast<uint64_t>(seed));
}

void sign_step_(const Tensors &params, const Tensors &grads, double lr, double beta1,
                double weight_decay, bool maximize) {
  check(ranges::kLr, lr);
  check(ranges::kBeta1, beta1);
  check(ranges::kWeightDecay, weight_decay);
  Group group;
  group.lr = lr;
  group.beta1 = beta1;
  group.weight_decay = weight_decay;
  group.maximize = maximize;
  ListPlan plan(group, {"params", params}, {"grads", grads}, {});
  for (size_t k = 0; k < params.size(); ++k) {
    plan.add_row(k);
    plan.set_rule("sign", "none", "none");
  }
  plan.step(0);
}

} // namespace cosmic
