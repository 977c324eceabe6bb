// A program is made: from what a recorder says to steps, and what of them may lie in scratch.
#include "replay/program.h"

#include <ATen/ScalarOps.h>
#include <torch/csrc/jit/python/pybind_utils.h>

namespace normkernels::replay {
namespace {

template <class F>
void for_each_register(const Step& s, const F& f) {
  const auto met = [&](int r) {
    if (r >= 0) f(r);
  };
  met(s.out);
  met(s.source);
  for (const int r : s.outs) met(r);
  for (const auto& a : s.arguments)
    for (const int r : a.registers) met(r);
}

std::vector<int> numbers(py::handle list) { return list.cast<std::vector<int>>(); }

// A number may stand where an op takes a tensor; its dtype then counts less.
c10::IValue constant(py::handle value, const c10::TypePtr& type) {
  if (type->kind() != c10::TypeKind::TensorType || value.is_none()) return torch::jit::toIValue(value, type);
  auto number = c10::scalar_to_tensor(torch::jit::toIValue(value, c10::NumberType::get()).toScalar());
  number.unsafeGetTensorImpl()->set_wrapped_number(true);
  return number;
}

// (kind, value), as a recorder says it
Argument argument(py::handle said, const c10::FunctionSchema* schema, size_t index) {
  const auto pair = said.cast<py::tuple>();
  Argument a{static_cast<Argument::Kind>(pair[0].cast<int>()), {}, {}, {}};
  if (a.kind == Argument::Kind::tensor)
    a.registers = {pair[1].cast<int>()};
  else if (a.kind == Argument::Kind::list)
    a.registers = numbers(pair[1]);
  else if (schema == nullptr)
    a.object = Object(pair[1]);
  else
    a.constant = constant(pair[1], schema->arguments().at(index).type());
  return a;
}

// A number as an element of that dtype, in the first bytes
double element(double value, at::ScalarType dtype) {
  double bits = 0;
  const auto put = [&](auto typed) { std::memcpy(&bits, &typed, sizeof(typed)); };
  dtype == at::kFloat  ? put(static_cast<float>(value))
  : dtype == at::kLong ? put(static_cast<int64_t>(value))
                       : put(value);
  return bits;
}

void place(Step& s, const Tensor& like) {
  s.sizes = like.sizes().vec();
  s.strides = like.strides().vec();
  s.options = at::TensorOptions().dtype(like.scalar_type()).device(like.device());
}

}  // namespace

Program::Program(int inputs, const py::list& steps, const std::vector<int>& kept, std::vector<int> written)
    : written_(std::move(written)) {
  steps_.reserve(steps.size());
  for (const auto& said : steps) steps_.push_back(step(said.cast<py::tuple>()));
  count_ = inputs;
  for (const auto& s : steps_) {
    most_arguments_ = std::max(most_arguments_, s.arguments.size());
    for_each_register(s, [this](int r) { count_ = std::max(count_, r + 1); });
  }
  find_scratch(kept);
  find_last(inputs, kept);
}

Step Program::step(const py::tuple& said) {
  const auto name = said[0].cast<std::string>();
  Step s{};
  if (name == "empty") {
    s.kind = Step::Kind::empty;
    s.out = said[1].cast<int>();
    place(s, said[2].cast<Tensor>());
  } else if (name == "view") {
    s.kind = Step::Kind::view;
    s.out = said[1].cast<int>();
    s.source = said[2].cast<int>();
    place(s, said[3].cast<Tensor>());
    s.offset = said[4].cast<int64_t>();
  } else if (name == "small") {  // ("small", op, out, in_place, like out, dtype, arguments)
    s.kind = Step::Kind::small;
    s.out = said[2].cast<int>();
    s.in_place = said[3].cast<bool>();
    const auto like = said[4].cast<Tensor>();
    place(s, like);
    const auto dtype = said[5].cast<at::ScalarType>();
    s.small = Small{Small::find(said[1].cast<std::string>()).value(), dtype, like.numel()};
    for (const auto& a : said[6]) {
      s.arguments.push_back(argument(a, nullptr, 0));
      const auto& object = s.arguments.back().object;
      s.room.push_back(object.get() ? element(object.get().cast<double>(), dtype) : 0);
    }
  } else if (name == "python") {
    s.kind = Step::Kind::python;
    s.function = Object(said[1]);
    for (const auto& a : said[2]) s.arguments.push_back(argument(a, nullptr, 0));
  } else {
    s.kind = Step::Kind::op;
    s.outs = numbers(said[1]);
    s.op = c10::Dispatcher::singleton().findSchemaOrThrow(said[2].cast<std::string>().c_str(),
                                                          said[3].cast<std::string>().c_str());
    for (const auto& a : said[4]) s.arguments.push_back(argument(a, &s.op->schema(), s.arguments.size()));
  }
  return s;
}

void Program::find_last(int inputs, const std::vector<int>& kept) {
  std::vector<int> reader(count_, -1);  // of each register, the last step that meets it
  for (size_t i = 0; i < steps_.size(); i++)
    for_each_register(steps_[i], [&](int r) { reader[r] = static_cast<int>(i); });
  for (auto s = steps_.rbegin(); s != steps_.rend(); ++s)  // who reads a view in scratch reads what it is a view of
    if (s->scratch && s->kind == Step::Kind::view) reader[s->source] = std::max(reader[s->source], reader[s->out]);
  for (int r = inputs; r < count_; r++)
    if (reader[r] >= 0 && std::find(kept.begin(), kept.end(), r) == kept.end()) steps_[reader[r]].last.push_back(r);
}

void Program::find_scratch(const std::vector<int>& kept) {
  std::vector<bool> tensor(count_);
  for (const int r : kept)
    if (r >= 0) tensor[r] = true;
  for (auto s = steps_.rbegin(); s != steps_.rend(); ++s) {
    const bool small = s->kind == Step::Kind::small;
    if (s->in_place) tensor[s->out] = true;
    if (small || s->kind == Step::Kind::view) s->scratch = !tensor[s->out];
    if (s->kind == Step::Kind::view && !s->scratch) tensor[s->source] = true;
    if (!small)
      for (const auto& a : s->arguments)
        for (const int r : a.registers)
          if (r >= 0) tensor[r] = true;
    has_scratch_ |= s->scratch;
    if (!small || !s->scratch) continue;
    s->place = scratch_;
    scratch_ += (s->small->n * s->options.dtype().itemsize() + 63) / 64 * 64;
  }
}

}  // namespace normkernels::replay
