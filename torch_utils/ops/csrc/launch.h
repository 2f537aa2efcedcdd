// Runs a function for every thread of every block: on a GPU in parallel, in the host build one after the other.
// So the host build executes the indexing of the kernels.
#pragma once

#include <atomic>

#include "scalar.h"

namespace styleformer {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 20;  // for more work the same blocks take further rounds

struct Thread {
    int64_t block, blocks;
    int index, count;  // in the block
};

// A kernel of the library. All are listed when it is loaded, so that the self-test knows which ones it launched.
struct Kernel {
    const char* name;
    Kernel* next;
    std::atomic<int64_t> launches;

    static Kernel*& list() {
        static Kernel* first = nullptr;
        return first;
    }
    explicit Kernel(const char* name) : name(name), next(list()), launches(0) { list() = this; }
};

template <class Body>
struct KernelOf {
    static const char* name() { return __PRETTY_FUNCTION__; }
    static Kernel kernel;
};

template <class Body>
Kernel KernelOf<Body>::kernel(name());

template <class Body>
void count_launch() {
    KernelOf<Body>::kernel.launches.fetch_add(1, std::memory_order_relaxed);
}

// Body::run(p, thread): independent threads, in any number of blocks.
// Body::fetch, ::first_pass and ::last_pass(p, place, shared, thread index): threads that share the memory of a block.
#ifdef __CUDACC__

template <class Body, class P>
__global__ void __launch_bounds__(kThreads) elementwise(const P p) {
    Body::run(p, Thread{blockIdx.x, gridDim.x, int(threadIdx.x), kThreads});
}

template <class Body, class P>
__global__ void __launch_bounds__(kThreads) tiled(const P p) {
    extern __shared__ __align__(16) unsigned char shared[];
    for (int64_t tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const typename Body::Place place = Body::place(p, tile);
        Body::fetch(p, place, shared, int(threadIdx.x));
        __syncthreads();
        if (Body::kPasses == 2) {
            Body::first_pass(p, place, shared, int(threadIdx.x));
            __syncthreads();
        }
        Body::last_pass(p, place, shared, int(threadIdx.x));
        __syncthreads();
    }
}

template <class Body, class P>
int launch_elementwise(const P& p, int64_t blocks, void* stream) {
    count_launch<Body>();
    elementwise<Body><<<unsigned(blocks < kMaxBlocks ? blocks : kMaxBlocks), kThreads, 0, cudaStream_t(stream)>>>(p);
    return int(cudaGetLastError());
}

template <class Body, class P>
int launch_tiled(const P& p, int shared_bytes, void* stream) {
    count_launch<Body>();
    unsigned blocks = unsigned(p.tiles < kMaxBlocks ? p.tiles : kMaxBlocks);
    tiled<Body><<<blocks, kThreads, shared_bytes, cudaStream_t(stream)>>>(p);
    return int(cudaGetLastError());
}

#else

template <class Body, class P>
int launch_elementwise(const P& p, int64_t blocks, void*) {
    count_launch<Body>();
    constexpr int kHostBlocks = 3;  // fewer than the work needs, so that the further rounds are tested too
    blocks = blocks < kHostBlocks ? blocks : kHostBlocks;
    for (int64_t block = 0; block < blocks; block++)
        for (int thread = 0; thread < kThreads; thread++) Body::run(p, Thread{block, blocks, thread, kThreads});
    return 0;
}

template <class Body, class P>
int launch_tiled(const P& p, int shared_bytes, void*) {
    count_launch<Body>();
    unsigned char* shared = static_cast<unsigned char*>(__builtin_malloc(size_t(shared_bytes)));
    if (!shared) return 1;
    for (int64_t tile = 0; tile < p.tiles; tile++) {
        const typename Body::Place place = Body::place(p, tile);
        for (int thread = 0; thread < kThreads; thread++) Body::fetch(p, place, shared, thread);
        if (Body::kPasses == 2)
            for (int thread = 0; thread < kThreads; thread++) Body::first_pass(p, place, shared, thread);
        for (int thread = 0; thread < kThreads; thread++) Body::last_pass(p, place, shared, thread);
    }
    __builtin_free(shared);
    return 0;
}

#endif

}  // namespace styleformer
