// The one autograd node of all normalisers: it keeps what a recipe keeps, and replays the recipe's backward.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <mutex>

#include "replay/key.h"
#include "replay/program.h"

namespace normkernels::replay {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// A backward that was seen, from the registers of what is kept, held and arrives; -1: no gradient.
struct Backward {
  Program program;
  std::vector<int> gradients;  // by the recipe's arguments
  std::vector<int> left;       // what it leaves on its context, for a second one through the same graph
};

// What all nodes of one plan share.
struct Graph {
  std::string name;
  Object backward;           // (kept, held, left, gradients, needed, record) -> (gradients, left, Backward or None)
  std::vector<int> inputs;   // registers of the forward program: of the recipe's arguments; -1: no tensor
  std::vector<int> carried;  // of the outputs that have a gradient
  std::vector<int> kept;     // -1: None
  std::vector<int> held;     // not saved but held, as attributes of a context are
  bool materialize;          // gradients that do not arrive are zeros
  std::mutex mutex;
  Table<std::shared_ptr<Backward>> seen;
};

// Makes the carried outputs in the registers a function of the inputs there.
void attach(const std::shared_ptr<Graph>& graph, Registers& registers);

}  // namespace normkernels::replay
