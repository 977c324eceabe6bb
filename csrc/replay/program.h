// A program: the ops that a call was seen to make, with registers for its tensors and everything else constant.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <vector>

#include "replay/small.h"

namespace normkernels::replay {

using at::Tensor;
using Registers = std::vector<Tensor>;

// A Python object that may be let go from any thread.
class Object {
 public:
  Object() = default;
  explicit Object(py::object object) : object_(object.release().ptr()) {}
  Object(Object&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Object& operator=(Object&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Object() {
    if (object_ == nullptr || !Py_IsInitialized()) return;
    py::gil_scoped_acquire gil;
    Py_DECREF(object_);
  }
  py::handle get() const { return object_; }

 private:
  PyObject* object_ = nullptr;
};

// An argument: a constant (for an op as it takes it, for a Python function the object), a register, or a list of them.
struct Argument {
  enum class Kind { constant, tensor, list } kind;
  std::vector<int> registers;
  c10::IValue constant;
  Object object;
};

struct Step {
  enum class Kind { empty, view, op, small, python } kind;
  int out = -1, source = -1;              // empty, view
  std::vector<int64_t> sizes, strides;    // empty, view
  int64_t offset = 0;                     // view: from that of its source
  at::TensorOptions options;              // empty
  std::optional<c10::OperatorHandle> op;  // op
  std::vector<int> outs;                  // op
  std::vector<Argument> arguments;        // op, python
  std::optional<Small> small;             // small; out is an input of it where it works in place
  bool in_place = false;                  // small
  bool scratch = false;                   // small, view: only small ops read it, so it needs no tensor
  size_t place = 0;                       // small, in scratch: where in it
  std::vector<double> room;               // small: its constants, each in the dtype of the op
  Object function;                        // python
  std::vector<int> last;                  // registers that no later step reads
};

class Program {
 public:
  // inputs: the first registers, which the caller fills; kept: those that he reads afterwards; written: inputs whose
  // memory changes.
  Program(int inputs, const py::list& steps, const std::vector<int>& kept, std::vector<int> written);

  static Step step(const py::tuple& said);
  Registers registers() const { return Registers(count_); }
  // Without the interpreter's lock; Python steps take it.
  void run(Registers& registers) const;

 private:
  void find_last(int inputs, const std::vector<int>& kept);
  void find_scratch(const std::vector<int>& kept);

  std::vector<Step> steps_;
  std::vector<int> written_;
  int count_ = 0;
  size_t scratch_ = 0;  // bytes
  bool has_scratch_ = false;
  size_t most_arguments_ = 0;
};

// f(), with the interpreter's lock; what Python raises keeps its type on the way through torch's engine.
template <class F>
auto in_interpreter(const F& f) {
  py::gil_scoped_acquire gil;
  try {
    return f();
  } catch (py::error_already_set& error) {
    error.restore();
    python_error kept;
    kept.persist();
    throw kept;
  }
}

// A call of a Python function; lists of registers are handed over as tuples.
void call_python(const Step& step, const Registers& registers);

}  // namespace normkernels::replay
