#include "matmul/batched.h"

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/threads.h"
#include "isa/float_environment.h"
#include "matmul/exact_product.h"

namespace cosmic {

namespace {

// What a thread packs at a time: a panel of B for so many bytes of k lies in the first cache, some
// panels of A in the second.
constexpr int64_t kBytesOfPanel = 32 << 10, kBytesOfRows = 256 << 10, kMostDepth = 384;
constexpr int64_t kMostRows = 2048, kMostColumns = 512; // of a task
constexpr int64_t kPackingCost = 12;                    // of a number, in products
constexpr int64_t kLeastPerThread = 1 << 17;            // products, below which a thread costs more
constexpr int64_t kLine = 64;                           // bytes of a cache line

int64_t pieces_of(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }
int64_t up_to(int64_t x, int64_t multiple) { return pieces_of(x, multiple) * multiple; }

// How a product is cut into tasks of rows and columns.
struct Cut {
  int64_t rows, columns;
};

// The cut whose longest chain of tasks on a thread is the shortest. A task packs its rows and
// columns, so that few and square ones pack least.
template <class T>
Cut best_cut(const BatchedProduct<T> &p, int64_t tile_rows, int64_t tile_columns, int threads) {
  Cut best = {};
  int64_t least = 0;
  const int64_t first_i = pieces_of(p.rows, kMostRows),
                first_j = pieces_of(p.columns, kMostColumns);
  const int64_t more = p.batch >= threads ? 1 : threads;
  for (int64_t i = first_i; i < first_i + more; ++i)
    for (int64_t j = first_j; j < first_j + more; ++j) {
      const Cut cut = {up_to(pieces_of(p.rows, i), tile_rows),
                       up_to(pieces_of(p.columns, j), tile_columns)};
      const int64_t tasks =
          p.batch * pieces_of(p.rows, cut.rows) * pieces_of(p.columns, cut.columns);
      const int64_t cost = cut.rows * cut.columns + kPackingCost * (cut.rows + cut.columns);
      const int64_t longest = pieces_of(tasks, threads) * cost;
      if (best.rows && longest >= least) continue;
      best = cut;
      least = longest;
    }
  return best;
}

// T of the matrices, Sum of panels and sums.
template <class T, class Sum> class Batched {
public:
  Batched(const TileKernelOf<Sum, T> &kernel, PackPanel<T, Sum> pack,
          const BatchedProduct<T> &product, int threads)
      : kernel_(kernel), pack_(pack), product_(product), threads_(threads) {
    const int64_t work = product.batch * product.rows * product.columns *
                         std::max<int64_t>(product.depth, 1) / kLeastPerThread;
    threads_ = static_cast<int>(std::clamp<int64_t>(work, 1, std::max(threads, 1)));
    cut_ = best_cut(product, kernel.rows, kernel.columns, threads_);
    stretch_ = stretch_for(product.depth);
    block_rows_ = up_to(std::max<int64_t>(kBytesOfRows / kSize / stretch_, 1), kernel.rows);
    block_rows_ = std::min(block_rows_, cut_.rows);
    copy_add();
  }

  void run() const {
    const int64_t row_tasks = pieces_of(product_.rows, cut_.rows),
                  column_tasks = pieces_of(product_.columns, cut_.columns);
    const int64_t tasks = product_.batch * row_tasks * column_tasks;
    const int threads = static_cast<int>(std::min<int64_t>(threads_, tasks));
    const int64_t own = floats_of_thread();
    const std::unique_ptr<Sum[]> room(new Sum[static_cast<size_t>(own * threads)]);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
      const DefaultFloatEnvironment environment;
      Sum *scratch = room.get() + thread_number() * own;
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < tasks; ++task) {
        const int64_t i = task / column_tasks % row_tasks, j = task % column_tasks;
        compute(task / column_tasks / row_tasks, i * cut_.rows, j * cut_.columns, scratch);
      }
    }
  }

private:
  static constexpr int64_t kSize = sizeof(Sum);
  static constexpr bool kKeepsInOut = std::is_same_v<T, Sum>; // sums that are not complete

  // Of the k that are summed at a time, about as many each time.
  int64_t stretch_for(int64_t depth) const {
    const int64_t most = std::min(kMostDepth, kBytesOfPanel / kSize / kernel_.columns);
    return std::max<int64_t>(pieces_of(depth, std::max<int64_t>(pieces_of(depth, most), 1)), 1);
  }

  // Columns that a panel has beyond the matrix are computed, too.
  void copy_add() {
    if (!product_.add) return;
    add_.resize(static_cast<size_t>(up_to(product_.columns, kernel_.columns)));
    for (int64_t j = 0; j < product_.columns; ++j)
      add_[static_cast<size_t>(j)] = product_.add[j * product_.add_step];
  }

  bool keeps_apart() const { return !kKeepsInOut && product_.depth > stretch_; }
  int64_t floats_of_rows() const { return up_to(block_rows_ * stretch_, kLine / kSize); }
  int64_t floats_of_columns() const { return up_to(cut_.columns * stretch_, kLine / kSize); }
  int64_t floats_of_thread() const {
    const int64_t sums = keeps_apart() ? cut_.rows * cut_.columns : 0;
    return floats_of_rows() + floats_of_columns() + sums + kLine / kSize;
  }

  // What a thread works with.
  struct Scratch {
    Sum *a, *b, *sums;
  };
  Scratch scratch_at(Sum *from) const {
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(from) / sizeof(Sum));
    Sum *a = from + (kLine / kSize - past % (kLine / kSize)) % (kLine / kSize);
    Sum *b = a + floats_of_rows();
    return {a, b, b + floats_of_columns()};
  }

  // One task: a stretch of k after the other.
  void compute(int64_t matrix, int64_t row, int64_t column, Sum *room) const {
    const Scratch scratch = scratch_at(room);
    const int64_t last_row = std::min(row + cut_.rows, product_.rows),
                  last_column = std::min(column + cut_.columns, product_.columns);
    int64_t k = 0;
    do {
      const int64_t depth = std::min(stretch_, product_.depth - k);
      pack_columns(matrix, k, depth, column, last_column, scratch.b);
      for (int64_t i = row; i < last_row; i += block_rows_) {
        const int64_t last = std::min(i + block_rows_, last_row);
        pack_rows(matrix, k, depth, i, last, scratch.a);
        Block block = {matrix, k, depth, i, last, column, last_column, scratch, nullptr};
        block.sums = scratch.sums + (i - row) * cut_.columns;
        compute_block(block);
      }
      k += stretch_;
    } while (k < product_.depth);
  }

  void pack_columns(int64_t matrix, int64_t k, int64_t depth, int64_t column, int64_t last,
                    Sum *to) const {
    const MatrixViewOf<T> &b = product_.b;
    const T *from = b.at(k, 0) + matrix * product_.b_step;
    for (int64_t j = column; j < last; j += kernel_.columns)
      pack_({from + j * b.column_step, b.row_step, b.column_step}, depth,
            std::min<int64_t>(kernel_.columns, last - j), kernel_.columns,
            to + (j - column) * depth);
  }

  void pack_rows(int64_t matrix, int64_t k, int64_t depth, int64_t row, int64_t last,
                 Sum *to) const {
    const MatrixViewOf<T> &a = product_.a;
    const T *from = a.at(0, k) + matrix * product_.a_step;
    for (int64_t i = row; i < last; i += kernel_.rows)
      pack_({from + i * a.row_step, a.column_step, a.row_step}, depth,
            std::min<int64_t>(kernel_.rows, last - i), kernel_.rows, to + (i - row) * depth);
  }

  // Rows and columns of which a stretch of k is packed.
  struct Block {
    int64_t matrix, k, depth, row, last_row, column, last_column;
    Scratch scratch;
    Sum *sums; // of the first row
  };

  void compute_block(const Block &block) const {
    for (int64_t j = block.column; j < block.last_column; j += kernel_.columns)
      for (int64_t i = block.row; i < block.last_row; i += kernel_.rows) compute_tile(block, i, j);
  }

  void compute_tile(const Block &block, int64_t i, int64_t j) const {
    TileOf<Sum, T> tile = {};
    tile.a = block.scratch.a + (i - block.row) * block.depth;
    tile.b = block.scratch.b + (j - block.column) * block.depth;
    tile.depth = block.depth;
    tile.first = block.k == 0;
    tile.last = block.k + block.depth >= product_.depth;
    tile.alpha = tile.beta = 1;
    tile.d = add_.empty() ? nullptr : add_.data() + j;
    tile.out = product_.out + block.matrix * product_.out_step + i * product_.out_stride + j;
    tile.out_stride = product_.out_stride;
    if constexpr (kKeepsInOut) {
      tile.c = tile.out;
      tile.c_stride = tile.out_stride;
    } else {
      tile.c = block.sums + (i - block.row) * cut_.columns + (j - block.column);
      tile.c_stride = cut_.columns;
    }
    const int64_t rows = std::min<int64_t>(kernel_.rows, product_.rows - i),
                  columns = std::min<int64_t>(kernel_.columns, product_.columns - j);
    if (rows == kernel_.rows && columns == kernel_.columns)
      kernel_.run(tile);
    else
      compute_edge(tile, rows, columns);
  }

  // A tile that reaches beyond the matrix, by way of a whole one. Sums that are kept apart have
  // room for it.
  void compute_edge(TileOf<Sum, T> &tile, int64_t rows, int64_t columns) const {
    T room[kMostTileElements] = {};
    T *const out = tile.out;
    const int64_t stride = tile.out_stride, own = kernel_.columns;
    const auto copy = [&](const T *from, int64_t from_stride, T *to, int64_t to_stride) {
      for (int64_t r = 0; r < rows; ++r)
        std::copy_n(from + r * from_stride, columns, to + r * to_stride);
    };
    tile.out = room;
    tile.out_stride = own;
    if constexpr (kKeepsInOut) {
      if (!tile.first) copy(out, stride, room, own);
      tile.c = room;
      tile.c_stride = own;
    }
    kernel_.run(tile);
    if (kKeepsInOut || tile.last) copy(room, own, out, stride);
  }

  const TileKernelOf<Sum, T> &kernel_;
  const PackPanel<T, Sum> pack_;
  const BatchedProduct<T> &product_;
  int threads_;
  Cut cut_ = {};
  int64_t stretch_ = 0, block_rows_ = 0;
  std::vector<Sum> add_;
};

template <class T, class Sum> void multiply(const TileKernelOf<Sum, T> &kernel,
                                            PackPanel<T, Sum> pack,
                                            const BatchedProduct<T> &product, int threads) {
  if (product.batch == 0 || product.rows == 0 || product.columns == 0) return;
  Batched<T, Sum>(kernel, pack, product, threads).run();
}

} // namespace

Accumulate accumulate_named(const std::string &name) {
  if (name == "fp32") return Accumulate::fp32;
  if (name == "fp64") return Accumulate::fp64;
  if (name == "exact") return Accumulate::exact;
  throw Error(ErrorKind::value, "accumulate must be 'fp32', 'fp64' or 'exact', not '" + name + "'");
}

void multiply_batched(const ProductKernels &kernels, const BatchedProduct<float> &product,
                      Accumulate accumulate, int threads) {
  switch (accumulate) {
  case Accumulate::fp32:
    return multiply(kernels.f32, kernels.pack_f32, product, threads);
  case Accumulate::fp64:
    return multiply(kernels.widened, kernels.pack_widened, product, threads);
  case Accumulate::exact:
    return multiply_exactly(product, threads);
  }
}

void multiply_batched(const ProductKernels &kernels, const BatchedProduct<double> &product,
                      Accumulate accumulate, int threads) {
  switch (accumulate) {
  case Accumulate::fp32:
    throw Error(ErrorKind::value, "accumulate='fp32' takes float32: sum float64 in 'fp64'");
  case Accumulate::fp64:
    return multiply(kernels.f64, kernels.pack_f64, product, threads);
  case Accumulate::exact:
    return multiply_exactly(product, threads);
  }
}

} // namespace cosmic
