#include "replay/program.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ScalarOps.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/jit/python/pybind_utils.h>

namespace normkernels::replay {
namespace {

Tensor empty(const Step& s) {
  if (s.options.device().is_cpu() && !at::globalContext().deterministicAlgorithms())
    return at::detail::empty_strided_cpu(s.sizes, s.strides, s.options.dtype().toScalarType());
  return at::empty_strided(s.sizes, s.strides, s.options);
}

Tensor view(const Step& s, const Tensor& source) {
  auto found = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(source.storage()),
                                                        source.key_set(), source.dtype());
  auto* impl = found.unsafeGetTensorImpl();
  impl->set_storage_offset(source.storage_offset() + s.offset);
  impl->set_sizes_and_strides(s.sizes, s.strides);
  return found;
}

c10::IValue value(const Argument& a, const Registers& registers) {
  switch (a.kind) {
    case Argument::Kind::tensor:
      return registers[a.registers[0]];
    case Argument::Kind::list: {
      c10::List<Tensor> all;
      all.reserve(a.registers.size());
      for (const int r : a.registers) all.push_back(registers[r]);
      return all;
    }
    default:
      return a.constant;
  }
}

void call(const Step& s, Registers& registers, torch::jit::Stack& stack) {
  stack.clear();
  for (const auto& a : s.arguments) stack.push_back(value(a, registers));
  s.op->callBoxed(stack);
  for (size_t i = 0; i < s.outs.size(); i++)
    if (s.outs[i] >= 0) registers[s.outs[i]] = std::move(stack[i]).toTensor();
}

// What small ops alone read and write: memory of one run, and which of the registers lie in it.
class Scratch {
 public:
  Scratch(size_t registers, size_t bytes)
      : reads_(registers, Read{nullptr, -1}), memory_(bytes ? new char[bytes] : nullptr) {}

  Read read(const Registers& registers, int r) const {
    if (!reads_.empty() && reads_[r].count >= 0) return reads_[r];
    return {registers[r].const_data_ptr(), registers[r].numel()};
  }
  void view(const Step& s, const Registers& registers) {
    const auto from = static_cast<const char*>(read(registers, s.source).data);
    reads_[s.out] = {from + s.offset * static_cast<int64_t>(s.options.dtype().itemsize()),
                     c10::multiply_integers(s.sizes)};
  }
  void* out(const Step& s, Registers& registers) {
    if (s.scratch) {
      void* to = memory_.get() + s.place;
      reads_[s.out] = {to, s.small->n};
      return to;
    }
    if (!s.in_place) registers[s.out] = empty(s);
    return registers[s.out].mutable_data_ptr();
  }

 private:
  std::vector<Read> reads_;
  std::unique_ptr<char[]> memory_;
};

void call_small(const Step& s, Registers& registers, Scratch& scratch) {
  void* out = scratch.out(s, registers);
  std::array<Read, 3> in{};
  for (size_t i = 0; i < s.arguments.size(); i++) {
    const auto& a = s.arguments[i];
    in[i] = a.kind == Argument::Kind::constant ? Read{&s.room[i], 1} : scratch.read(registers, a.registers[0]);
  }
  run(*s.small, out, in);
}

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

void call_python(const Step& s, const Registers& registers) {
  in_interpreter([&] {
    py::tuple args(s.arguments.size());
    for (size_t i = 0; i < s.arguments.size(); i++) {
      const auto& a = s.arguments[i];
      if (a.kind == Argument::Kind::constant) {
        args[i] = a.object.get();
      } else if (a.kind == Argument::Kind::tensor) {
        args[i] = py::cast(registers[a.registers[0]]);
      } else {
        py::tuple several(a.registers.size());
        for (size_t k = 0; k < a.registers.size(); k++) several[k] = py::cast(registers[a.registers[k]]);
        args[i] = std::move(several);
      }
    }
    s.function.get()(*args);
  });
}

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

void Program::run(Registers& registers) const {
  c10::OptionalDeviceGuard device;
  if (!registers.empty() && registers[0].defined() && registers[0].is_cuda())
    device.reset_device(registers[0].device());
  torch::jit::Stack stack;
  stack.reserve(most_arguments_);
  Scratch scratch(has_scratch_ ? count_ : 0, scratch_);
  for (const auto& s : steps_) {
    switch (s.kind) {
      case Step::Kind::empty:
        registers[s.out] = empty(s);
        break;
      case Step::Kind::view:
        s.scratch ? scratch.view(s, registers) : void(registers[s.out] = view(s, registers[s.source]));
        break;
      case Step::Kind::small:
        call_small(s, registers, scratch);
        break;
      case Step::Kind::op:
        call(s, registers, stack);
        break;
      default:
        call_python(s, registers);
    }
    for (const int r : s.last) registers[r].reset();
  }
  for (const int r : written_)
    if (!registers[r].is_inference()) registers[r].unsafeGetTensorImpl()->bump_version();
}

}  // namespace normkernels::replay
