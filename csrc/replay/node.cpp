#include "replay/node.h"

#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/version.h>

namespace normkernels::replay {
namespace {

using torch::autograd::Node;
using NodePointer = decltype(torch::autograd::Edge::function);
constexpr size_t kMost = 16;  // backwards that are remembered of one plan

#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 13
template <class N, class... Args>
std::shared_ptr<N> make(Args&&... args) {
  return {new N(std::forward<Args>(args)...), torch::autograd::deleteNode};
}
NodePointer pointer_to(Node& node) { return node.getptr(); }
#else
template <class N, class... Args>
c10::intrusive_ptr<N> make(Args&&... args) {
  return c10::make_intrusive<N>(std::forward<Args>(args)...);
}
NodePointer pointer_to(Node& node) { return NodePointer::reclaim_copy(&node); }
#endif

class Replayed : public Node {
 public:
  explicit Replayed(std::shared_ptr<Graph> graph) : graph_(std::move(graph)) {}
  std::string name() const override { return graph_->name; }
  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& s : saved_) s.reset_data();
    held_.clear();
    released_ = true;
  }

  void save(const Registers& registers) {
    saved_.reserve(graph_->kept.size());
    for (const int r : graph_->kept) {
      const bool output = std::find(graph_->carried.begin(), graph_->carried.end(), r) != graph_->carried.end();
      saved_.emplace_back(r < 0 ? Tensor() : registers[r], r >= 0 && output);
    }
    for (const int r : graph_->held) held_.push_back(registers[r]);
  }

  variable_list apply(variable_list&& gradients) override {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!released_, torch::autograd::ERR_BACKWARD_TWICE);
    Registers registers = unpacked();
    if (graph_->materialize)
      for (size_t i = 0; i < gradients.size(); i++)
        if (!gradients[i].defined()) gradients[i] = input_metadata(i).zeros_like();
    const size_t kept = registers.size();
    registers.insert(registers.end(), held_.begin(), held_.end());
    registers.insert(registers.end(), gradients.begin(), gradients.end());
    if (!left_.empty() || torch::autograd::GradMode::is_enabled() || !unwatched() ||
        !std::all_of(registers.begin(), registers.end(), [](const Tensor& t) { return !t.defined() || plain(t); }))
      return in_python(registers, kept, nullptr);
    Words key;
    for (size_t i = 0; i < graph_->inputs.size(); i++) key.push_back(needed(i));
    for (const auto& t : registers) {
      if (t.defined())
        add_tensor(key, t);
      else
        key.push_back(0);
    }
    std::shared_ptr<Backward> found;
    {
      std::lock_guard<std::mutex> of_graph(graph_->mutex);
      if (const auto at = graph_->seen.find(key); at != graph_->seen.end()) found = at->second;
    }
    return found ? replay(*found, registers) : in_python(registers, kept, &key);
  }

  // Under compiled autograd the Python backward is traced, on what takes the place of the tensors there.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    args.collect(reinterpret_cast<uint64_t>(graph_.get()));
    for (size_t i = 0; i < saved_.size(); i++) args.collect(saved_[i], is_output(i));
    args.collect(held_);
    args.collect(left_);
  }
  variable_list apply_with_saved(const variable_list& gradients,
                                 torch::dynamo::autograd::SwapSavedVariables& saved) override {
    for (auto& s : saved_) saved.before(s);
    saved.before(held_);
    saved.before(left_);
    Registers registers = unpacked();
    const size_t kept = registers.size();
    registers.insert(registers.end(), held_.begin(), held_.end());
    registers.insert(registers.end(), gradients.begin(), gradients.end());
    auto found = in_python(registers, kept, nullptr);
    for (auto& s : saved_) saved.after(s);
    saved.after(held_);
    saved.after(left_);
    return found;
  }

 private:
  bool is_output(size_t kept) const {
    const int r = graph_->kept[kept];
    return r >= 0 && std::find(graph_->carried.begin(), graph_->carried.end(), r) != graph_->carried.end();
  }
  bool needed(size_t input) const {
    return graph_->inputs[input] >= 0 && next_edge(input).is_valid() && task_should_compute_output(input);
  }

  Registers unpacked() {
    Registers all;
    all.reserve(saved_.size() + held_.size() + num_inputs());
    for (size_t i = 0; i < saved_.size(); i++)
      all.push_back(is_output(i) ? saved_[i].unpack(pointer_to(*this)) : saved_[i].unpack());
    return all;
  }

  variable_list replay(const Backward& seen, Registers& registers) {
    registers.resize(seen.program.registers().size());
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      seen.program.run(registers);
    }
    variable_list found(graph_->inputs.size());
    for (size_t i = 0; i < found.size(); i++)
      if (seen.gradients[i] >= 0 && needed(i)) found[i] = registers[seen.gradients[i]];
    for (const int r : seen.left) left_.push_back(registers[r]);
    return found;
  }

  variable_list in_python(const Registers& registers, size_t kept, const Words* key) {
    return in_interpreter([&] { return called(registers, kept, key); });
  }

  variable_list called(const Registers& registers, size_t kept, const Words* key) {
    const auto tensors = [](auto begin, auto end) {
      py::list all;
      for (; begin != end; ++begin) all.append(begin->defined() ? py::cast(*begin) : py::none());
      return py::tuple(all);
    };
    py::list need;
    for (size_t i = 0; i < graph_->inputs.size(); i++) need.append(py::bool_(needed(i)));
    const auto begin = registers.begin(), after_kept = begin + kept, after_held = after_kept + held_.size();
    const py::tuple said = graph_->backward.get()(
        tensors(begin, after_kept), tensors(after_kept, after_held), tensors(left_.begin(), left_.end()),
        tensors(after_held, registers.end()), py::tuple(need), py::bool_(key != nullptr));
    variable_list found(graph_->inputs.size());
    const py::tuple gradients = said[0];
    for (size_t i = 0; i < found.size(); i++)
      if (!gradients[i].is_none() && needed(i)) found[i] = gradients[i].cast<Tensor>();
    left_ = said[1].cast<std::vector<Tensor>>();
    if (key != nullptr && !said[2].is_none()) {
      std::lock_guard<std::mutex> of_graph(graph_->mutex);
      if (graph_->seen.size() < kMost) graph_->seen.emplace(owned(*key), said[2].cast<std::shared_ptr<Backward>>());
    }
    return found;
  }

  std::shared_ptr<Graph> graph_;
  std::vector<SavedVariable> saved_;
  std::vector<Tensor> held_, left_;
  bool released_ = false;
};

}  // namespace

void attach(const std::shared_ptr<Graph>& graph, Registers& registers) {
  const auto node = make<Replayed>(graph);
  torch::autograd::edge_list edges(graph->inputs.size());
  for (size_t i = 0; i < edges.size(); i++)
    if (const int r = graph->inputs[i]; r >= 0 && registers[r].requires_grad())
      edges[i] = torch::autograd::impl::gradient_edge(registers[r]);
  node->set_next_edges(std::move(edges));
  for (const int r : graph->carried) torch::autograd::set_history(registers[r], node);
  node->save(registers);
}

}  // namespace normkernels::replay
