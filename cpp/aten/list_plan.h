// A plan for one call of an operator: a row for each position of its tensor lists.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "aten/tensor_reader.h"
#include "plan/plan.h"

namespace cosmic {

using Tensors = std::vector<Tensor>;

struct TensorList {
  const char *name; // in the operator's schema
  const Tensors &tensors;

  std::string item(size_t k) const;
};

class ListPlan {
public:
  // Throws Error unless every list has as many tensors as `params`.
  ListPlan(const Group &group, const TensorList &params, const TensorList &grads,
           std::initializer_list<TensorList> state);

  // Reads the parameter and the gradient at position k into the next row.
  void add_row(size_t k);

  // State of the row added last. A moment's dtype says its codec, whose name is returned.
  std::string bind_moment(Planes &slot, const TensorList &moments);
  void bind_step(const TensorList &steps);

  // Makes the row added last one of this rule and these codecs.
  void set_rule(const std::string &rule, const std::string &m, const std::string &v);

  Row &row() { return plan_.rows.back(); }

  // Steps all rows, once all that is written is known to be distinct.
  void step(uint64_t seed);

private:
  struct Written {
    std::string name;
    TensorView view;
    bool dense;
  };

  size_t position() const { return plan_.rows.size() - 1; }
  const TensorView &param() const { return written_[param_].view; }

  Plan plan_;
  TensorList params_, grads_;
  std::vector<Written> written_;
  size_t param_ = 0; // the row's parameter, in written_
  WalkOrder order_;  // and the order of its elements
};

} // namespace cosmic
