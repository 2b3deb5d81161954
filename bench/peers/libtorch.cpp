// The peer of dispatch.c, math.c and train.c: the same loops in libtorch. Like them it answers names on stdin with
// seconds an operation (bench/run alternates the two); "version" with its version; "check CASE" of a graph case with
// its check (README.md). Without --serve it measures every case once.
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {
constexpr int kSamples = 5;        // as BENCH_SERVED of bench.h
constexpr double kSeconds = 0.03;  // as BENCH_SECONDS
using Loop = std::function<void(long)>;

struct Case {
  Loop loop;
  double ops = 1;
  long reps = 0;
};

double seconds(const Loop &loop, long reps) {
  const auto start = std::chrono::steady_clock::now();
  loop(reps);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / static_cast<double>(reps);
}

double measure(Case &c) {
  if (!c.reps) {  // as bench_reps of bench.h: warm up, then the first count that is long enough three times in a row
    c.loop(1);
    c.reps = 1;
    for (int enough = 0; enough < 3;) {
      const bool is_long = seconds(c.loop, c.reps) * static_cast<double>(c.reps) >= kSeconds / kSamples / 2;
      enough = is_long ? enough + 1 : 0;
      if (!is_long) c.reps *= 2;
    }
  }
  std::vector<double> v;
  for (int i = 0; i < kSamples; i++) v.push_back(seconds(c.loop, c.reps) / c.ops);
  std::sort(v.begin(), v.end());
  return v[kSamples / 2];
}

// A loop over one expression whose result is dropped at once.
template <class F> Case each(F f) {
  return {[f](long reps) {
    for (long i = 0; i < reps; i++) auto result = f();
  }};
}

// The guide's linear model: 2x2 data, mean squared error, Adam.
struct Linear {
  torch::Tensor x = torch::tensor({{1.f, 2.f}, {3.f, 4.f}}), y = torch::tensor({{0.f}, {1.f}});
  torch::Tensor w = torch::tensor({{0.5f}, {-0.25f}}).requires_grad_(true), b = torch::zeros({1}).requires_grad_(true);
  torch::optim::Adam optimizer{{w, b}, torch::optim::AdamOptions(0.01)};
  torch::Tensor step() {
    optimizer.zero_grad();
    auto loss = torch::mean(torch::square(y - (torch::matmul(x, w) + b)));
    loss.backward();
    optimizer.step();
    return loss;
  }
};

// The loss of the tenth step from the fixed start: STEPS of common.py.
double check_of_linear() {
  Linear model;
  for (int i = 0; i < 9; i++) model.step();
  return model.step().item<double>();
}

// 784-512-512-10, relu, cross-entropy, batch 128, Adam.
struct Mlp {
  torch::Tensor x = torch::rand({128, 784}), labels = torch::randint(10, {128}, torch::kLong);
  torch::nn::Sequential net{torch::nn::Linear(784, 512), torch::nn::ReLU(), torch::nn::Linear(512, 512),
                            torch::nn::ReLU(), torch::nn::Linear(512, 10)};
  torch::optim::Adam optimizer{net->parameters(), torch::optim::AdamOptions(0.001)};
  void step() {
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(net->forward(x), labels).backward();
    optimizer.step();
  }
};

// A loop over the steps of a model that is made when it is first asked for.
template <class M> Case steps() {
  return {[model = std::shared_ptr<M>()](long reps) mutable {
    if (!model) model = std::make_shared<M>();
    for (long i = 0; i < reps; i++) model->step();
  }};
}

// Of this program's own memory, as in train.c.
double peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return 1024 * std::strtod(line.c_str() + 6, nullptr);
  return 0;
}

// In a fresh process: the growth of peak RSS from before the model to the end of 100 steps.
double memory_of_mlp() {
  torch::ones({2}) + torch::ones({2});
  const double before = peak_bytes();
  Mlp model;
  for (int i = 0; i < 100; i++) model.step();
  return peak_bytes() - before;
}

// What a child process of this program, called with that argument, prints.
double child(const std::string &argument) {
  std::string text(64, 0);
  FILE *pipe = popen(("exec /proc/" + std::to_string(getpid()) + "/exe " + argument).c_str(), "r");
  if (!pipe) return 0;
  const size_t n = fread(text.data(), 1, text.size() - 1, pipe);
  pclose(pipe);
  text.resize(n);
  return std::strtod(text.c_str(), nullptr);
}

std::map<std::string, Case> make_cases() {
  const auto a = torch::tensor({1.f, 2.f, 3.f}), b = torch::tensor({4.f, 5.f, 6.f});
  const auto square = torch::tensor({{1.f, 2.f}, {3.f, 4.f}});
  const auto x = torch::ones({1000}), scale = torch::full({1000}, 0.5f), offset = torch::full({1000}, 0.25f);
  const auto line = torch::linspace(-4, 4, 1 << 16);
  auto chain = each([=] {
    auto y = x;
    for (int k = 0; k < 10; k++) y = k % 3 == 0 ? y * scale : k % 3 == 1 ? y + offset : torch::relu(y);
    return y;
  });
  chain.ops = 10;
  return {{"dispatch/add3", each([=] { return a + b; })},
          {"dispatch/view", each([=] { return square.view({4}); })},
          {"dispatch/matmul2x2", each([=] { return torch::matmul(square, square); })},
          {"dispatch/chain", chain},
          {"train/linear", steps<Linear>()},
          {"train/linear_compiled", steps<Linear>()},
          {"train/mlp784", steps<Mlp>()},
          {"math/exp", each([=] { return torch::exp(line); })},
          {"math/tanh", each([=] { return torch::tanh(line); })},
          {"math/erf", each([=] { return torch::erf(line); })}};
}
}  // namespace

int main(int argc, char **argv) {
  std::cout.precision(9);
  if (argc == 2 && std::string(argv[1]) == "--memory") {
    std::cout << memory_of_mlp() << std::endl;
    return 0;
  }
  const bool serve = argc == 2 && std::string(argv[1]) == "--serve";
  if (argc > 1 && !serve) {
    std::cout << "usage: " << argv[0] << " [--serve]   eager libtorch, seconds an operation\n";
    return std::string(argv[1]) == "--help" ? 0 : 2;
  }
  auto cases = make_cases();
  if (!serve)
    for (auto &[name, c] : cases)
      std::cout << "{\"case\": \"" << name << "\", \"seconds\": " << measure(c) << "}" << std::endl;
  for (std::string name; serve && std::getline(std::cin, name);) {
    const auto found = cases.find(name);
    if (name == "train/memory") std::cout << child("--memory") << std::endl;
    else if (name == "check train/linear_compiled") std::cout << check_of_linear() << std::endl;
    else if (name == "version") std::cout << TORCH_VERSION << std::endl;
    else if (found == cases.end()) std::cout << "error no such case" << std::endl;
    else std::cout << measure(found->second) << std::endl;
  }
}
