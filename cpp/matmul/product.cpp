#include "matmul/product.h"

#include <algorithm>
#include <cstring>

#include "core/threads.h"
#include "isa/float_environment.h"

namespace cosmic {

namespace {

// What fits caches: a panel of B for so many k lies in the first, so many rows of A in the second.
constexpr int64_t kDepth = 384, kRows = 192;
// Rows or columns that a thread packs at a time; what a task of a symmetric product has of both.
constexpr int64_t kBlockOfThread = 128, kBlockOfTriangle = 96;
constexpr int64_t kLeastStretch = 256;       // of k that a symmetric product packs at a time
constexpr int64_t kLeastPerThread = 1 << 17; // products of numbers, below which a thread costs more
constexpr int64_t kLine = 16;                // floats of a cache line

int64_t up_to(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// Scratch cut into pieces that begin with a cache line, so that no load of a row of B takes two.
class Pieces {
public:
  explicit Pieces(float *from) {
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(from) / sizeof(float));
    next_ = from + (kLine - past % kLine) % kLine;
  }
  float *take(int64_t floats) {
    float *piece = next_;
    next_ += up_to(floats, kLine);
    return piece;
  }

private:
  float *next_;
};

// Rows and columns that one thread computes, from panels that hold `depth` k each.
struct Region {
  int64_t first_row, last_row, first_column, last_column;
  const float *a, *b; // the panels of first_row and first_column
  int64_t depth;
  bool first = true, last = true; // as in Tile
  bool triangle = false;          // whether tiles above the diagonal are left out
};

class Multiplication {
public:
  Multiplication(const TileKernel &kernel, const Product &product)
      : kernel_(kernel), product_(product) {}

  void pack_rows(int64_t row, int64_t first_k, int64_t depth, float *to) const {
    const Product &p = product_;
    const MatrixView columns = p.a.transposed();
    pack_panel({columns.at(first_k, row), columns.row_step, columns.column_step}, depth,
               std::min<int64_t>(kernel_.rows, p.rows - row), kernel_.rows, p.a_factor, to);
  }

  void pack_columns(int64_t column, int64_t first_k, int64_t depth, float *to) const {
    const Product &p = product_;
    pack_panel({p.b.at(first_k, column), p.b.row_step, p.b.column_step}, depth,
               std::min<int64_t>(kernel_.columns, p.columns - column), kernel_.columns, p.b_factor,
               to);
  }

  void compute(const Region &region) const {
    for (int64_t k = 0; k < std::max<int64_t>(region.depth, 1); k += kDepth)
      for (int64_t i = region.first_row; i < region.last_row; i += block_rows())
        for (int64_t j = region.first_column; j < region.last_column; j += kernel_.columns)
          compute_column(region, k, i, std::min(i + block_rows(), region.last_row), j);
  }

private:
  int64_t block_rows() const { return up_to(kRows, kernel_.rows); }

  // The tiles of one panel of columns.
  void compute_column(const Region &region, int64_t k, int64_t first, int64_t last,
                      int64_t j) const {
    Tile tile = {};
    tile.depth = std::min(kDepth, region.depth - k);
    tile.b = region.b + (j - region.first_column) * region.depth + k * kernel_.columns;
    tile.first = region.first && k == 0;
    tile.last = region.last && k + kDepth >= region.depth;
    tile.alpha = product_.alpha;
    tile.beta = product_.beta;
    for (int64_t i = first; i < last; i += kernel_.rows) {
      if (region.triangle && j > i + kernel_.rows - 1) continue;
      tile.a = region.a + (i - region.first_row) * region.depth + k * kernel_.rows;
      const bool whole =
          i + kernel_.rows <= product_.rows && j + kernel_.columns <= product_.columns;
      if (whole)
        compute_tile(tile, i, j);
      else
        compute_edge(tile, i, j);
      if (tile.last) add_diagonal(i, j);
    }
  }

  void compute_tile(Tile &tile, int64_t i, int64_t j) const {
    tile.c = product_.c + i * product_.c_stride + j;
    tile.c_stride = product_.c_stride;
    tile.out = tile.c;
    tile.out_stride = tile.c_stride;
    tile.d = product_.d ? product_.d + i * product_.d_stride + j : nullptr;
    tile.d_stride = product_.d_stride;
    kernel_.run(tile);
  }

  // A tile that reaches beyond the matrix, by way of whole ones.
  void compute_edge(Tile &tile, int64_t i, int64_t j) const {
    const Product &p = product_;
    const int64_t rows = std::min<int64_t>(kernel_.rows, p.rows - i), stride = kernel_.columns;
    const auto bytes = static_cast<size_t>(std::min(stride, p.columns - j)) * sizeof(float);
    float c[kMostTileElements] = {}, d[kMostTileElements] = {};
    for (int64_t r = 0; r < rows; ++r) {
      if (!tile.first) std::memcpy(c + r * stride, p.c + (i + r) * p.c_stride + j, bytes);
      if (p.d) std::memcpy(d + r * stride, p.d + (i + r) * p.d_stride + j, bytes);
    }
    tile.c = tile.out = c;
    tile.d = p.d ? d : nullptr;
    tile.c_stride = tile.out_stride = tile.d_stride = stride;
    kernel_.run(tile);
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(p.c + (i + r) * p.c_stride + j, c + r * stride, bytes);
  }

  void add_diagonal(int64_t i, int64_t j) const {
    if (product_.gamma == 0) return;
    const int64_t last =
        std::min({i + kernel_.rows, j + kernel_.columns, product_.rows, product_.columns});
    for (int64_t k = std::max(i, j); k < last; ++k)
      product_.c[k * product_.c_stride + k] += product_.gamma;
  }

  const TileKernel &kernel_;
  const Product &product_;
};

// Blocks of whole panels, about as many for each thread.
int64_t block_for(int64_t size, int64_t panel, int threads) {
  const int64_t most = up_to(kBlockOfThread, panel);
  const int64_t rounds = (size + most * threads - 1) / (most * threads);
  return up_to((size + rounds * threads - 1) / (rounds * threads), panel);
}

int64_t stretch_of(int64_t size, int64_t depth) {
  return std::clamp<int64_t>(depth, 1, std::max(size, kLeastStretch));
}

int64_t triangle_block(const TileKernel &kernel, int64_t size, int threads) {
  int64_t unit = kernel.columns;
  while (unit % kernel.rows) unit += kernel.columns;
  const int64_t wanted = threads > 1 ? size / (2 * threads) : kBlockOfTriangle;
  return up_to(std::clamp<int64_t>(wanted, 1, kBlockOfTriangle), unit);
}

int threads_for(const Product &product, int threads) {
  const int64_t work = product.rows * product.columns * product.depth / kLeastPerThread;
  return static_cast<int>(std::clamp<int64_t>(work, 1, std::max(threads, 1)));
}

} // namespace

int64_t product_scratch(int64_t size, int64_t depth, int threads) {
  return (size + kMostPanel + (kBlockOfThread + kMostPanel) * threads) * depth +
         (threads + 2) * kLine;
}

int64_t symmetric_scratch(int64_t size, int64_t depth) {
  return 2 * (size + kMostPanel) * stretch_of(size, depth) + 3 * kLine;
}

void multiply_by_columns(const TileKernel &kernel, const Product &product, float *scratch,
                         int threads) {
  const Multiplication work(kernel, product);
  threads = threads_for(product, threads);
  const int64_t depth = product.depth, columns = kernel.columns;
  const int64_t block = block_for(product.columns, columns, threads),
                own = up_to(block * depth, kLine);
  Pieces pieces(scratch);
  float *a = pieces.take(up_to(product.rows, kernel.rows) * depth);
  float *first_b = pieces.take(own * threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const DefaultFloatEnvironment environment;
    float *b = first_b + thread_number() * own;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < product.rows; i += kernel.rows)
      work.pack_rows(i, 0, depth, a + i * depth);
#pragma omp for schedule(dynamic)
    for (int64_t j = 0; j < product.columns; j += block) {
      const int64_t last = std::min(j + block, product.columns);
      for (int64_t p = j; p < last; p += columns)
        work.pack_columns(p, 0, depth, b + (p - j) * depth);
      work.compute({0, product.rows, j, last, a, b, depth});
    }
  }
}

void multiply_by_rows(const TileKernel &kernel, const Product &product, float *scratch,
                      int threads) {
  const Multiplication work(kernel, product);
  threads = threads_for(product, threads);
  const int64_t depth = product.depth, rows = kernel.rows;
  const int64_t block = block_for(product.rows, rows, threads), own = up_to(block * depth, kLine);
  Pieces pieces(scratch);
  float *b = pieces.take(up_to(product.columns, kernel.columns) * depth);
  float *first_a = pieces.take(own * threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const DefaultFloatEnvironment environment;
    float *a = first_a + thread_number() * own;
#pragma omp for schedule(static)
    for (int64_t j = 0; j < product.columns; j += kernel.columns)
      work.pack_columns(j, 0, depth, b + j * depth);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < product.rows; i += block) {
      const int64_t last = std::min(i + block, product.rows);
      for (int64_t p = i; p < last; p += rows) work.pack_rows(p, 0, depth, a + (p - i) * depth);
      work.compute({i, last, 0, product.columns, a, b, depth});
    }
  }
}

namespace {

// Panels of one stretch of k. Where rows and columns make the same panels, they are packed once.
struct Stretch {
  int64_t first, depth;
  float *a, *b;
};

bool same_panels(const TileKernel &kernel, const Product &product) {
  const MatrixView &a = product.a, &b = product.b;
  return kernel.rows == kernel.columns && a.data == b.data && a.row_step == b.column_step &&
         a.column_step == b.row_step && product.a_factor == product.b_factor;
}

// Within a parallel region, as what follows.
void pack_stretch(const TileKernel &kernel, const Multiplication &work, int64_t size,
                  const Stretch &at) {
#pragma omp for schedule(static)
  for (int64_t i = 0; i < size; i += kernel.rows)
    work.pack_rows(i, at.first, at.depth, at.a + i * at.depth);
  if (at.a == at.b) return;
#pragma omp for schedule(static)
  for (int64_t j = 0; j < size; j += kernel.columns)
    work.pack_columns(j, at.first, at.depth, at.b + j * at.depth);
}

void compute_triangle(const Multiplication &work, const Product &product, int64_t block,
                      const Stretch &at) {
  const int64_t size = product.rows, blocks = (size + block - 1) / block;
#pragma omp for schedule(dynamic)
  for (int64_t task = 0; task < blocks * blocks; ++task) {
    const int64_t i = task / blocks * block, j = task % blocks * block;
    if (j > i) continue;
    work.compute({i, std::min(i + block, size), j, std::min(j + block, size), at.a + i * at.depth,
                  at.b + j * at.depth, at.depth, at.first == 0,
                  at.first + at.depth == product.depth, i == j});
  }
}

void mirror(float *matrix, int64_t stride, int64_t size, float factor) {
  constexpr int64_t kBlockOfMirror = 32;
#pragma omp for schedule(dynamic)
  for (int64_t i = 0; i < size; i += kBlockOfMirror)
    mirror_rows(matrix, stride, size, i, std::min(i + kBlockOfMirror, size), factor);
}

} // namespace

void multiply_symmetric(const TileKernel &kernel, const Product &product, bool mirrored,
                        float *scratch, int threads) {
  const Multiplication work(kernel, product);
  threads = threads_for(product, threads);
  const int64_t size = product.rows, stretch = stretch_of(size, product.depth);
  const int64_t block = triangle_block(kernel, size, threads);
  Pieces pieces(scratch);
  float *a = pieces.take(up_to(size, kernel.rows) * stretch);
  float *b = same_panels(kernel, product) ? a : pieces.take(up_to(size, kernel.columns) * stretch);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const DefaultFloatEnvironment environment;
    for (int64_t k = 0; k < std::max<int64_t>(product.depth, 1); k += stretch) {
      const Stretch at = {k, std::min(stretch, product.depth - k), a, b};
      pack_stretch(kernel, work, size, at);
      compute_triangle(work, product, block, at);
    }
    if (mirrored) mirror(product.c, product.c_stride, size, 1);
  }
}

void scale_and_mirror(float *matrix, int64_t stride, int64_t size, float factor, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1 && size > 64)
  {
    const DefaultFloatEnvironment environment;
    mirror(matrix, stride, size, factor);
  }
}

} // namespace cosmic
