// The door of the replays: replay(calls, request, args, kwargs), and what a recorder needs to make a plan.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/MemoryFormat.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/python_arg_parser.h>
#include <torch/version.h>

#include <unordered_set>

#include "replay/node.h"
#include "single_threaded.h"

namespace normkernels::replay {
namespace {

constexpr size_t kMost = 1024;  // plans of one function, and keys that were met once

// One call, as it was seen: what runs, what is returned, and what autograd then knows of it.
struct Plan {
  Program program;
  std::vector<int> returned;
  bool single;  // a tensor, not a tuple of them
  std::shared_ptr<Graph> graph;
  std::vector<Step> after;  // Python functions that see the outputs with their history
  Object held;              // the objects whose addresses are in the key
};

// The calls of one function.
struct Calls {
  std::unordered_set<uint64_t> met;  // keys, by their hashes
  Table<std::shared_ptr<Plan>> plans;
};

PyTypeObject* parameter_type = nullptr;

// The key of a call, and its tensors in order.
struct Arguments {
  Words key;
  c10::SmallVector<Tensor, 16> tensors;

  bool add(PyObject* o) {
    if (o == Py_None || PyBool_Check(o) || THPMemoryFormat_Check(o)) return add_address(o);  // there is one of each
    if (PyUnicode_CheckExact(o)) return add_text(o);
    if (Py_TYPE(o) == reinterpret_cast<PyTypeObject*>(THPVariableClass) || Py_TYPE(o) == parameter_type)
      return add_tensor(THPVariable_Unpack(o));
    if (PyFloat_CheckExact(o)) {
      key.push_back(2);
      key.push_back(std::bit_cast<uint64_t>(PyFloat_AS_DOUBLE(o)));
      return true;
    }
    if (PyLong_CheckExact(o)) {
      int overflow = 0;
      key.push_back(3);
      key.push_back(static_cast<uint64_t>(PyLong_AsLongLongAndOverflow(o, &overflow)));
      return overflow == 0;
    }
    return (PyTuple_Check(o) || PyList_CheckExact(o)) && add_items(o);
  }

  bool add_address(PyObject* o) {
    key.push_back(1);
    key.push_back(reinterpret_cast<uint64_t>(o));
    return true;
  }

  // By the address of the interned one, which a plan keeps alive.
  bool add_text(PyObject* o) {
    if (PyUnicode_CHECK_INTERNED(o)) return add_address(o);
    Py_INCREF(o);
    PyUnicode_InternInPlace(&o);
    add_address(o);
    Py_DECREF(o);
    return true;
  }

  bool add_items(PyObject* o) {
    const bool tuple = PyTuple_Check(o);
    const Py_ssize_t n = tuple ? PyTuple_GET_SIZE(o) : PyList_GET_SIZE(o);
    key.push_back((tuple ? 4u : 5u) | static_cast<uint64_t>(n) << 8);
    for (Py_ssize_t i = 0; i < n; i++)
      if (!add(tuple ? PyTuple_GET_ITEM(o, i) : PyList_GET_ITEM(o, i))) return false;
    return true;
  }

  bool add_tensor(const Tensor& t) {
    if (!plain(t)) return false;
    size_t first = 0;  // which of the tensors it is: the same one may be given twice
    while (first < tensors.size() && !tensors[first].is_same(t)) first++;
    key.push_back(6 | static_cast<uint64_t>(first) << 8);
    replay::add_tensor(key, t);
    tensors.push_back(t);
    return true;
  }
};

PyObject* wrapped(const Plan& plan, const Registers& registers) {
  if (plan.single) return THPVariable_Wrap(registers[plan.returned[0]]);
  PyObject* all = PyTuple_New(static_cast<Py_ssize_t>(plan.returned.size()));
  for (size_t i = 0; i < plan.returned.size(); i++)
    PyTuple_SET_ITEM(all, static_cast<Py_ssize_t>(i), THPVariable_Wrap(registers[plan.returned[i]]));
  return all;
}

PyObject* run(const Plan& plan, const Arguments& arguments) {
  Registers registers = plan.program.registers();
  std::copy(arguments.tensors.begin(), arguments.tensors.end(), registers.begin());
  {
    pybind11::gil_scoped_release no_gil;
    at::AutoDispatchBelowADInplaceOrView guard;
    plan.program.run(registers);
  }
  if (plan.graph) attach(plan.graph, registers);
  for (const auto& step : plan.after) call_python(step, registers);
  return wrapped(plan, registers);
}

// replay(calls, request, args, kwargs): what the call returns; None where Python has to make it; or, of a call that is
// met again, its key, to record it under.
PyObject* replay_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK(count == 4, "replay takes calls, request, args and kwargs");
  auto* calls = static_cast<Calls*>(PyCapsule_GetPointer(given[0], nullptr));
  if (!unwatched() || at::impl::torch_function_mode_enabled()) Py_RETURN_NONE;
  Arguments arguments;
  add_state(arguments.key, torch::autograd::get_current_graph_task_id() != -1);
  if (!arguments.add(given[1]) || !arguments.add_items(given[2])) Py_RETURN_NONE;
  PyObject *name = nullptr, *value = nullptr;
  for (Py_ssize_t at = 0; PyDict_Next(given[3], &at, &name, &value);) {
    if (!arguments.add_text(name) || !arguments.add(value)) Py_RETURN_NONE;
  }
  if (const auto found = calls->plans.find(arguments.key); found != calls->plans.end()) {
    const auto plan = found->second;
    if (!plan) Py_RETURN_NONE;
    return run(*plan, arguments);
  }
  if (calls->met.insert(KeyHash()(arguments.key)).second) {
    if (calls->met.size() > kMost) calls->met.clear();
    Py_RETURN_NONE;
  }
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(arguments.key.data()),
                                   static_cast<Py_ssize_t>(arguments.key.size() * sizeof(uint64_t)));
  END_HANDLE_TH_ERRORS
}

PyMethodDef replay_method = {"replay", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(replay_call)),
                             METH_FASTCALL, "replay(calls, request, args, kwargs)"};

void learn(const py::capsule& calls, const py::bytes& key, py::object held, std::shared_ptr<Plan> plan) {
  auto& all = *static_cast<Calls*>(PyCapsule_GetPointer(calls.ptr(), nullptr));
  const std::string_view text = key;
  std::vector<uint64_t> words(text.size() / sizeof(uint64_t));
  std::memcpy(words.data(), text.data(), text.size());
  if (all.plans.size() >= kMost) all.plans.clear();
  if (plan) plan->held = Object(std::move(held));
  all.plans.insert_or_assign(std::move(words), std::move(plan));
}

}  // namespace
}  // namespace normkernels::replay

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using namespace normkernels::replay;
  using Numbers = std::vector<int>;
  m.doc() = "Replays of normkernels' calls, built for one torch";
  parameter_type =
      reinterpret_cast<PyTypeObject*>(py::object(py::module_::import("torch.nn").attr("Parameter")).release().ptr());
  m.attr("torch") = TORCH_VERSION;
  m.attr("replay") = py::reinterpret_steal<py::object>(PyCFunction_New(&replay_method, nullptr));
  m.def("calls", [] { return py::capsule(new Calls(), [](void* p) { delete static_cast<Calls*>(p); }); });
  m.def("learn", &learn);
  py::class_<Backward, std::shared_ptr<Backward>>(m, "Backward")
      .def(py::init([](int inputs, const py::list& steps, const Numbers& kept, const Numbers& written,
                       Numbers gradients, Numbers left) {
        return std::make_shared<Backward>(
            Backward{Program(inputs, steps, kept, written), std::move(gradients), std::move(left)});
      }));
  py::class_<Graph, std::shared_ptr<Graph>>(m, "Graph")
      .def(py::init([](std::string name, py::object backward, Numbers inputs, Numbers carried, Numbers kept,
                       Numbers held, bool materialize) {
        auto graph = std::make_shared<Graph>();
        graph->name = std::move(name);
        graph->backward = Object(std::move(backward));
        graph->inputs = std::move(inputs);
        graph->carried = std::move(carried);
        graph->kept = std::move(kept);
        graph->held = std::move(held);
        graph->materialize = materialize;
        return graph;
      }));
  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan").def(
      py::init([](int inputs, const py::list& steps, const Numbers& kept, const Numbers& written, Numbers returned,
                  bool single, std::shared_ptr<Graph> graph, const py::list& after) {
        auto plan = std::make_shared<Plan>(
            Plan{Program(inputs, steps, kept, written), std::move(returned), single, std::move(graph), {}, {}});
        for (const auto& step : after) plan->after.push_back(Program::step(step.cast<py::tuple>()));
        return plan;
      }));
}
