// normkernels._C: importing it registers the ops of this binary; build_info() says how it was built, and
// parallel_regions() how often its kernels shared work among threads.
#if !defined(Py_LIMITED_API)
#define Py_LIMITED_API 0x030b0000  // one binary for Python 3.11 and every later one
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cpu/base/work.h"
#include "single_threaded.h"

#define NK_STRING(x) #x
#define NK_TEXT(x) NK_STRING(x)

namespace {

constexpr const char* kBuilt[][2] = {
#if defined(__VERSION__)
    {"compiler", __VERSION__},
#endif
#if defined(NORMKERNELS_WITH_CUDA)
    {"cuda", NK_TEXT(NORMKERNELS_CUDA_ARCHS)},
#else
    {"cuda", "not built: " NK_TEXT(NORMKERNELS_WITHOUT_CUDA)},
#endif
    {"built with torch", NK_TEXT(NORMKERNELS_TORCH_VERSION)},
    {"stable ABI target", NK_TEXT(TORCH_TARGET_VERSION)},
};

PyObject* build_info(PyObject*, PyObject*) {
  PyObject* facts = PyDict_New();
  for (const auto& [name, value] : kBuilt) {
    PyObject* text = facts == nullptr ? nullptr : PyUnicode_FromString(value);
    if (text == nullptr || PyDict_SetItemString(facts, name, text) != 0) {
      Py_XDECREF(text);
      Py_XDECREF(facts);
      return nullptr;
    }
    Py_DECREF(text);
  }
  return facts;
}

PyObject* parallel_regions(PyObject*, PyObject*) { return PyLong_FromLongLong(normkernels::parallel_regions.load()); }

PyMethodDef kMethods[] = {
    {"build_info", build_info, METH_NOARGS, "How this binary was built."},
    {"parallel_regions", parallel_regions, METH_NOARGS, "How often kernels shared work among threads."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT,
    "_C",
    "Native kernels of normkernels; importing this module registers torch.ops.normkernels_C",
    -1,
    kMethods,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&kModule); }
