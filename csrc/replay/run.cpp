// A program's run: its steps in order, small ones on memory of the run's own.
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/DeviceGuard.h>

#include "replay/program.h"

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
